"""The cost equation against exact fixtures, its own definition, and published formulas."""

import numpy as np
import pytest
from helpers.cost_fixtures import FIXTURES, number, numbers
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import ArgumentError
from portfolio_env.simulation.dynamics import remainder_factor
from portfolio_env.simulation.rebalancing import solve_trade

# ---- remainder factor


@pytest.mark.parametrize("case", FIXTURES["remainder_factor"], ids=lambda case: case["id"])
def test_remainder_factor_equals_exact_fixtures(case):
    d, a = numbers(case["w_drifted"]), numbers(case["w_target"])
    buy, sell = number(case["buy_rate"]), number(case["sell_rate"])
    fee = number(case["fixed_fee_fraction"])
    assert remainder_factor(d, a, buy, sell, fee) == pytest.approx(
        number(case["mu_notional"]), abs=1e-14
    )


@pytest.mark.parametrize(
    "case",
    [c for c in FIXTURES["remainder_factor"] if number(c["fixed_fee_fraction"]) == 0],
    ids=lambda case: case["id"],
)
def test_jiang_convention_is_the_same_equation_with_another_purchase_rate(case):
    """A purchase rate c of the money spent is c / (1 - c) of the value bought."""
    d, a = numbers(case["w_drifted"]), numbers(case["w_target"])
    spent, sell = number(case["buy_rate"]), number(case["sell_rate"])
    mu = remainder_factor(d, a, spent / (1 - spent), sell)
    assert mu == pytest.approx(number(case["mu_jiang"]), abs=1e-12)


@pytest.mark.parametrize("case", FIXTURES["li_hoi"], ids=lambda case: case["id"])
def test_first_order_formula_of_li_and_hoi_is_an_approximation_of_ours(case):
    d, a = numbers(case["b_hat_prev"]), numbers(case["b"])
    rate = number(case["gamma"]) / 2
    mu = remainder_factor(np.r_[1 - d.sum(), d], np.r_[1 - a.sum(), a], rate, rate)
    assert mu == pytest.approx(number(case["factor"]), abs=3 * rate**2)


@st.composite
def trades(draw, max_assets=12):
    n = draw(st.integers(1, max_assets))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    d, a = rng.dirichlet(np.full(n + 1, 0.5), size=2)
    buy, sell = rng.uniform(0, draw(st.sampled_from([0.0, 1e-4, 1e-2, 0.3])), size=(2, n))
    return d, a, buy, sell


def spent(mu, d, a, buy, sell):
    q = mu * a[1:] - d[1:]
    return float((np.where(q > 0, buy, sell) * np.abs(q)).sum())


@given(trades())
def test_remainder_factor_solves_its_equation(trade):
    d, a, buy, sell = trade
    mu = float(remainder_factor(d, a, buy, sell))
    assert 0 < mu <= 1
    assert 1 - mu == pytest.approx(spent(mu, d, a, buy, sell), abs=1e-14)


@given(trades(), st.floats(1, 3))
def test_dearer_trading_leaves_less(trade, factor):
    d, a, buy, sell = trade
    assert remainder_factor(d, a, buy * factor, sell * factor) <= remainder_factor(d, a, buy, sell)


@given(trades())
def test_trading_costs_nothing_exactly_when_nothing_is_traded(trade):
    d, a, buy, sell = trade
    assert remainder_factor(d, d, buy + 1e-3, sell + 1e-3, 0.1) == 1.0  # nor is a fee due
    if np.abs(a - d)[1:].max() > 1e-6:
        assert remainder_factor(d, a, buy + 1e-3, sell + 1e-3) < 1.0


@given(trades(), st.randoms(use_true_random=False))
def test_order_of_assets_does_not_matter(trade, random):
    d, a, buy, sell = trade
    order = list(range(len(buy)))
    random.shuffle(order)
    slots = [0] + [i + 1 for i in order]
    shuffled = remainder_factor(d[slots], a[slots], buy[order], sell[order])
    assert shuffled == pytest.approx(float(remainder_factor(d, a, buy, sell)), abs=1e-14)


def test_lanes_are_independent():
    rng = np.random.default_rng(0)
    d, a = rng.dirichlet(np.ones(6), size=(2, 50))
    rates = rng.uniform(0, 0.01, 5)
    together = remainder_factor(d, a, rates, 0.002)
    assert remainder_factor(d[:1], a[:1], rates, 0.002) == together[:1]
    assert together.tolist() == [remainder_factor(d[b], a[b], rates, 0.002) for b in range(50)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 0], [0.5, 0.5, 0], 0, 0), "must both be"),
        (([1, 0], [0.5, 0.4], 0, 0), "sum to 1"),
        (([1, 0], [np.nan, 1], 0, 0), "finite"),
        (([1, 0], [0, 1], 1.0, 0), "buy_rate"),
        (([1, 0], [0, 1], 0, [0.1, 0.1]), "sell_rate"),
        (([1, 0], [0, 1], 0, 0, 1.0), "fixed_fee"),
        (([1, 0], [0, 1], 0, 0, -0.1), "fixed_fee"),
        (([1, 0], [0, 1], 0, -0.1), "sell_rate"),
        (([1], [1], 0, 0), "must both be"),
        (([[[1, 0]]], [[[0, 1]]], 0, 0), "must both be"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        remainder_factor(*arguments)


# ---- market impact


@pytest.mark.parametrize("case", FIXTURES["impact"][3:], ids=lambda case: case["id"])
def test_impact_equals_the_fixtures(case):
    """Solve for the wealth that remains, then price the trade by the published formula."""
    x, volume, sigma = number(case["x"]), number(case["V"]), number(case["sigma"])
    a, b = number(case["a"]), number(case["b"])
    wealth = 10e6
    coefficient = b * sigma / np.sqrt(volume) * np.sqrt(wealth)
    start = max(-x, 0.0) / wealth
    d = np.array([1 - start, start])

    def remains(target):
        return solve_trade(
            d, np.array([1 - target, target]), np.zeros(1, bool), 1.0,
            np.array([a]), np.array([a]), np.array([coefficient]), 0.0,
        )  # fmt: skip

    low, high = 0.0, 1.0
    for _ in range(100):  # the target weight whose trade is x
        middle = (low + high) / 2
        low, high = (
            (middle, high) if (remains(middle) * middle - start) * wealth < x else (low, middle)
        )
    cost = (1 - remains(high)) * wealth
    assert cost == pytest.approx(number(case["total"]), rel=1e-9, abs=1e-6)
