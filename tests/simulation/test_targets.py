"""From actions to targets, at the edges that random draws seldom meet."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from helpers.bare_markets import market_of
from helpers.oracles import targets as slow
from hypothesis import assume, given
from hypothesis import strategies as st

from portfolio_env import ArgumentError, PortfolioConstraints
from portfolio_env.simulation import dynamics
from portfolio_env.simulation.projection import violation_lane
from portfolio_env.simulation.simulator import Simulator
from portfolio_env.simulation.targets import checked_actions

HALTED = np.array([[True, True], [True, True], [False, True], [True, True]])


def simulator_of(tradable=None, **options):
    """Two assets whose prices stand still, without costs."""
    market = market_of(np.full((4, 2), 100.0), tradable)
    made = Simulator(market, window=1, action="weights", costs={"commission_bps": 0}, **options)
    made.reset(lambda _: None)
    return made


@pytest.mark.parametrize(
    "actions",
    [
        np.zeros((2, 4)),
        np.zeros((1, 3)),
        np.zeros(6),
        np.zeros((2, 3), bool),
        np.zeros((2, 3), complex),
        [["a", "b", "c"]] * 2,
    ],
)
def test_actions_of_a_wrong_shape_or_type_are_refused(actions):
    with pytest.raises(ArgumentError, match=r"expected \(2, 3\)"):
        checked_actions(actions, (2, 3))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_what_compiled_code_knows_is_not_copied(kind):
    actions = np.zeros((2, 3), kind)
    assert checked_actions(actions, (2, 3)) is actions


@pytest.mark.parametrize("kind", [np.float16, np.longdouble, ">f8", np.int8, np.uint64])
def test_other_numbers_become_float64(kind):
    actions = checked_actions(np.arange(6).reshape(2, 3).astype(kind), (2, 3))
    assert actions.dtype == np.float64 and actions.dtype.isnative
    assert actions.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_move_as_wide_as_the_band_is_not_traded():
    made = simulator_of(initial=[0.5, 0.25, 0.25], constraints={"no_trade_band": 0.25})
    made.step(np.array([[0.5, 0.0, 0.5]]))  # numbers that are exact in binary
    assert made.held[0].tolist() == [0.5, 0.25, 0.25]
    assert made.ledger[dynamics.TURNOVER, 0] == 0


@pytest.mark.parametrize("noise", [0.0, 7e-16, -7e-16])
def test_a_holding_at_its_bound_is_kept_whatever_rounding_made_of_it(noise):
    """The band keeps it beside others whose targets the bounds move, and no cost is paid for it."""
    made = Simulator(
        market_of(np.full((4, 4), 100.0)),
        window=1,
        action="weights",
        costs={"commission_bps": 100},
        constraints={"no_trade_band": 0.15, "max_weight": 0.4},
        initial=[0.0, 0.4 + noise, 0.1, 0.4 - noise, 0.1],
    )
    made.reset(lambda _: None)
    made.step(np.array([[0.0, 0.4, 0.2, 0.0, 0.4]]))
    cost = made.ledger[dynamics.COST, 0] / 10_000
    assert cost > 0.005
    assert made.held[0, 1] == pytest.approx(0.4 / (1 - cost), abs=1e-12)
    assert made.held[0, 4] <= 0.4 + 1e-12  # the bounds hold for what is traded


def test_a_holding_above_its_bound_is_cut_to_it_however_slow_the_adjustment():
    """The way to the target ends at 86 %; the nearest weights within the bounds share the rest."""
    made = simulator_of(adjustment=0.1, constraints={"max_weight": 0.6})
    made.weights[0] = [0.0, 0.9, 0.1]
    made.step(np.array([[0.0, 0.5, 0.5]]))
    assert made.held[0] == pytest.approx([0.13, 0.6, 0.27])


@pytest.mark.parametrize("constraints", [{"max_leverage": 1.5}, {"long_only": False}])
def test_where_cash_may_be_borrowed_it_makes_up_for_a_halted_holding(constraints):
    """Asked -30 % cash, 50 % of a halted asset held at 20 %, 80 % of the other."""
    limits = {"max_leverage": 1.5} | constraints
    made = simulator_of(HALTED, initial=[0.3, 0.2, 0.5], constraints=limits)
    for _ in range(2):
        made.step(made.weights)
    made.step(np.array([[-0.3, 0.5, 0.8]]))
    assert made.held[0] == pytest.approx([0.0, 0.2, 0.8], abs=1e-12)


def test_where_none_may_be_borrowed_the_rest_is_split_as_asked():
    made = simulator_of(HALTED, initial=[0.3, 0.2, 0.5])
    for _ in range(2):
        made.step(made.weights)
    made.step(np.array([[0.1, 0.5, 0.4]]))
    assert made.held[0] == pytest.approx([0.16, 0.2, 0.64], abs=1e-12)


@pytest.mark.parametrize(
    ("initial", "asked", "held"),
    [
        ([0.3, 0.2, 0.5], [0.0, 1.0, 0.0], [0.8, 0.2, 0.0]),  # nothing but what is halted
        ([0.0, 1.0, 0.0], [0.0, 0.5, 0.5], [0.0, 1.0, 0.0]),  # nothing is left to share
        ([0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0]),
    ],
)
def test_what_cannot_be_split_is_cash(initial, asked, held):
    made = simulator_of(HALTED, initial=initial)
    for _ in range(2):
        made.step(made.weights)
    made.step(np.array([asked]))
    assert made.held[0] == pytest.approx(held, abs=1e-12)


@pytest.mark.parametrize("others", [1, 7])
def test_weights_far_below_the_largest_still_sum_to_one(others):
    """The largest are at their bound, and a float64 a million below them has 1e-10 left."""
    constraints, rng = PortfolioConstraints(max_weight=0.15, max_cash=0.0), np.random.default_rng(0)
    largest = 6 if others == 1 else 5
    for _ in range(50):
        asked = np.full(13, -5.0)
        asked[1 : 1 + largest] = 1e6
        asked[1 + largest : 1 + largest + others] = rng.random(others)
        found = constraints.project(asked)
        assert abs(found.sum() - 1) <= 1e-12
        assert found.max() <= 0.15 and found.min() >= 0
        assert (found[asked == 1e6] == 0.15).all()


@pytest.mark.parametrize("at", [0, 1, 11])
def test_weights_far_below_the_largest_sum_to_one_beside_a_halted_holding(at):
    """What a float64 lacks there is spread over what can be traded alone, cash included."""
    constraints, rng = PortfolioConstraints(max_weight=0.15), np.random.default_rng(0)
    halted = np.arange(12) == at
    for _ in range(50):
        asked = rng.random(13) / 10
        asked[3:8] = 1e6
        asked[1 + at] = 0.05
        found = constraints.project(asked, halted)
        assert abs(found.sum() - 1) <= 1e-12 and found[1 + at] == 0.05
        free = np.append(True, ~halted)
        inside = free & (found > 0) & (found < 0.15)
        assert np.ptp((asked - found)[inside]) <= 1e-9


def test_rounding_of_float32_is_scaled_away_and_zeros_stay_zero():
    asked = np.array([0.0, 0.5, 0.0, 0.2, 0.3]) * (1 + 5e-7)
    found = PortfolioConstraints().project(asked)
    assert found == pytest.approx([0.0, 0.5, 0.0, 0.2, 0.3], abs=1e-15)
    assert found[[0, 2]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("at", [0, 2])
def test_rounding_is_not_scaled_out_of_what_is_fixed(at):
    asked = np.array([0.25, 0.125, 0.25, 0.375])
    halted = np.arange(3) == at
    off = asked * np.where(np.append(False, halted), 1.0, 1 + 5e-7)
    found = PortfolioConstraints().project(off, halted)
    assert found == pytest.approx(asked, abs=1e-15)
    assert found[at + 1] == asked[at + 1]


def test_nothing_asked_beside_a_holding_of_nearly_all():
    halted = np.array([True, False])
    found = PortfolioConstraints().project(np.array([0.0, 1 - 5e-7, 0.0]), halted)
    assert found == pytest.approx([2.5e-7, 1 - 5e-7, 2.5e-7], abs=1e-15)


def exact_projection(asked, low, high, total):
    """``clip(asked - tau, low, high)`` that sums to ``total``, in exact fractions."""
    asked, low, high = ([Fraction(x) for x in numbers] for numbers in (asked, low, high))
    total = Fraction(total)

    def clipped(tau):
        return [min(max(a - tau, lo), hi) for a, lo, hi in zip(asked, low, high, strict=True)]

    knots = sorted({a - b for a, lo, hi in zip(asked, low, high, strict=True) for b in (lo, hi)})
    for left, right in pairwise(knots):  # the sum falls linearly between two
        above, below = sum(clipped(left)), sum(clipped(right))
        if above >= total >= below and above > below:
            return clipped(left + (right - left) * (above - total) / (above - below))
    return None


@st.composite
def halted_problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 5))
    least = float(rng.choice([0.0, -rng.uniform(0, 0.5), rng.uniform(0, 0.5 / n)]))
    cash = float(rng.choice([0.0, rng.uniform(0, 0.3), -rng.uniform(0, 0.5)]))
    most = max(abs(least), rng.uniform(0.5 / n, 1.0))
    enough = max(cash, 0.2, 1.01 - n * most)  # so that some portfolio satisfies them
    constraints = PortfolioConstraints(
        long_only=least >= 0, min_weight=least, max_weight=most, min_cash=cash,
        max_cash=rng.uniform(enough, 1.5), max_leverage=100.0,
    )  # fmt: skip
    halted = rng.random(n) < rng.choice([0.0, 0.4])
    asked = rng.normal(0.2, 10.0 ** rng.uniform(-2, 3), n + 1)
    asked[1:][halted] = rng.uniform(-0.2, 0.4, halted.sum())
    return constraints, asked, halted


@given(halted_problems())
def test_projection_beside_halted_holdings_is_the_nearest(problem):
    limits, asked, halted = problem
    n, free = len(halted), ~np.append(False, halted)
    low = np.append(limits.min_cash, np.full(n, limits.min_weight))[free]
    high = np.append(limits.max_cash, np.full(n, limits.max_weight))[free]
    best = exact_projection(asked[free], low, high, 1 - asked[~free].sum())
    assume(best is not None)
    found = limits.project(asked, halted)
    assert found[free] == pytest.approx([float(x) for x in best], abs=1e-11)
    assert found[~free].tolist() == asked[~free].tolist()
    assert found.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_cash_keeps_its_bound_beside_any_halted_holding(at):
    halted = np.arange(3) == at
    asked = np.where(np.append(False, halted), 0.2, np.array([0.7, 0.05, 0.05, 0.05]))
    found = PortfolioConstraints(max_cash=0.5).project(asked, halted)
    assert found[0] == pytest.approx(0.5, abs=1e-12)
    assert found[1:] == pytest.approx(np.where(halted, 0.2, 0.15), abs=1e-12)


@pytest.mark.parametrize(("at", "other"), [(0, 1), (0, 2), (1, 2), (2, 0)])
def test_an_asset_keeps_its_bound_beside_any_halted_holding(at, other):
    """The weights that are asked for sum to 1, and one of them is above its bound."""
    asked, halted = np.array([0.1, 0.1, 0.1, 0.1]), np.arange(3) == at
    asked[1 + other] = 0.7
    found = PortfolioConstraints(max_weight=0.5).project(asked, halted)
    expected = np.where(np.append(False, halted), 0.1, 0.2)
    expected[1 + other] = 0.5
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_is_allowed_beside_a_halted_holding_beyond_its_bound_stays_to_the_last_bit(at):
    limits, halted = PortfolioConstraints(max_weight=0.5), np.arange(3) == at
    rng = np.random.default_rng(at)
    for _ in range(20):
        asked = np.where(np.append(False, halted), 0.7, np.insert(rng.random(3), 1 + at, 0.0))
        others = ~np.append(False, halted)
        asked[others] *= 0.3 / asked[others].sum()
        if abs(1 - 0.7 - asked[others].sum()) < 1e-14:
            assert limits.project(asked, halted).tolist() == asked.tolist()


def test_leverage_beside_a_halted_short_wins_over_the_bound_of_cash():
    limits = PortfolioConstraints(long_only=False, max_cash=0.8)
    found = limits.project([0.5, -0.5, 1.0, 0.0], [True, False, False])
    assert found.tolist() == [1.0, -0.5, 0.5, 0.0]


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_one_weight_of_1e16_takes_all(at):
    asked = np.where(np.arange(4) == at, 1e16, 0.0)
    assert PortfolioConstraints().project(asked).tolist() == (asked / 1e16).tolist()


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("size", [1e16, -1e16])
def test_equal_weights_of_any_size_share_what_is_not_halted(at, size):
    halted = np.arange(3) == at
    asked = np.where(np.append(False, halted), 0.4, size)
    found = PortfolioConstraints().project(asked, halted)
    assert found == pytest.approx(np.where(np.append(False, halted), 0.4, 0.2), abs=1e-12)


@pytest.mark.parametrize(("at", "best"), [(a, b) for a in range(3) for b in range(4) if b != a + 1])
def test_small_differences_of_weights_far_below_a_halted_one_count(at, best):
    halted = np.arange(3) == at
    asked = np.where(np.append(False, halted), 0.4, -1e16)
    asked[best] += 4
    found = PortfolioConstraints().project(asked, halted)
    assert found == pytest.approx(0.4 * np.append(False, halted) + 0.6 * (np.arange(4) == best))


def test_places_of_top_k_that_nothing_can_take_stay_empty():
    halted = np.array([False, True, True, True])
    found = PortfolioConstraints(top_k=3).project(np.array([0.2, 0.2, 0, 0, 0]), halted)
    assert found == pytest.approx([0.5, 0.5, 0, 0, 0], abs=1e-12)


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("last", [0, 1, 2])
def test_what_is_asked_for_least_takes_what_the_others_may_not_hold(at, last):
    halted = np.arange(3) == at
    free = np.flatnonzero(~np.append(False, halted))
    asked = np.where(np.append(False, halted), 0.1, 0.4)
    asked[free[last]] = -5.0
    found = PortfolioConstraints(max_weight=0.35, max_cash=0.35).project(asked, halted)
    expected = np.where(np.append(False, halted), 0.1, 0.35)
    expected[free[last]] = 0.2
    assert found == pytest.approx(expected, abs=1e-12)


def any_problem(seed):
    """Constraints of every kind with the labels of assets, asked weights, and what is halted."""
    rng = np.random.default_rng(seed)
    n, long_only = int(rng.integers(1, 9)), bool(rng.random() < 0.5)
    fields = {
        "long_only": long_only,
        "max_weight": float(rng.choice([1.0, rng.uniform(1 / n, 1)])),
        "max_leverage": float(rng.choice([1.0, rng.uniform(0.5, 1), rng.uniform(1, 3)])),
        "max_cash": float(rng.uniform(0.0, 1.5)),
        "min_cash": float(rng.choice([0.0, rng.uniform(-0.5, 0.3)])),
        "top_k": int(rng.integers(1, n + 1)) if rng.random() < 0.3 else None,
    }
    if long_only:
        fields["min_weight"] = float(rng.choice([0.0, rng.uniform(0, 0.5 / n)]))
    labels = rng.choice(["A", "B", ""], n).tolist()
    named = sorted({*labels} - {""})
    if named and rng.random() < 0.5:
        low, high = np.sort(rng.uniform(0, 0.8, (2, len(named))), axis=0)
        low *= rng.random(len(named)) < 0.4
        low = low if long_only else -low
        pairs = zip(named, zip(low.tolist(), high.tolist(), strict=True), strict=True)
        fields |= {"group_by": "sector", "group_bounds": dict(pairs)}
    halted = rng.random(n) < rng.choice([0.0, 0.4])
    asked = rng.normal(0.2, 10.0 ** rng.uniform(-1.5, 1), n + 1)
    asked[1:][halted] = rng.uniform(0.0 if long_only else -0.3, 0.8, halted.sum())
    if rng.random() < 0.3:  # nearly what is allowed
        asked = rng.dirichlet(np.ones(n + 1)) * (1 + rng.choice([0.0, 4e-7, 3e-6]))
    asked *= np.append(True, halted | (rng.random(n) < 0.8))
    try:
        constraints = PortfolioConstraints(**fields)
        constraints.bounds(n, labels)
    except ArgumentError:
        return None
    return constraints, fields | {"labels": labels}, asked, halted


def test_projection_and_violation_are_those_of_the_slow_account():
    problems = [problem for seed in range(300) if (problem := any_problem(seed))]
    assert len(problems) > 150
    for constraints, fields, asked, halted in problems:
        labels, limits = fields["labels"], slow.Limits(fields, len(halted))
        found = constraints.project(asked, halted, labels)
        expected = slow.project(asked.tolist(), halted.tolist(), limits)
        assert np.abs(found - expected).max() <= 1e-11 * np.abs(expected).max(), fields
        bounds, groups = constraints.bounds(len(halted), labels)[0], constraints.groups(labels)
        for weights in (asked, found):
            broken = violation_lane(weights, bounds, np.zeros(len(halted)), groups)
            known = slow.violation(weights.tolist(), limits)
            assert broken == pytest.approx(known if known > 1e-12 else 0.0, rel=1e-12, abs=1e-15)
