"""The projection against a general solver, its properties, and constraints in an episode."""

from dataclasses import FrozenInstanceError, asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from portfolio_env import ArgumentError, PortfolioConstraints, TransactionCosts, load_market
from portfolio_env.simulation import dynamics
from portfolio_env.simulation.simulator import Simulator


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(2, 8))
    constraints = PortfolioConstraints(
        max_weight=rng.uniform(1.0 / n, 1),
        min_weight=rng.choice([0.0, rng.uniform(0, 1 / n)]),
        max_cash=float(rng.uniform(0.2, 1)),
    )
    return constraints, rng.normal(0.2, 0.6, n + 1)


@given(problems())
@settings(max_examples=40)
def test_projection_is_the_nearest_feasible_portfolio(problem):
    constraints, asked = problem
    n = len(asked) - 1
    best = minimize(
        lambda w: ((w - asked) ** 2).sum(),
        np.full(n + 1, 1 / (n + 1)),
        jac=lambda w: 2 * (w - asked),
        bounds=[(0, constraints.max_cash)] + [(constraints.min_weight, constraints.max_weight)] * n,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(n + 1)},
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    found = constraints.project(asked)
    assert ((found - asked) ** 2).sum() <= best.fun + 1e-9
    assert found == pytest.approx(best.x, abs=1e-5)


@given(problems())
def test_projection_is_feasible_and_stays_where_it_is(problem):
    constraints, asked = problem
    w = constraints.project(asked)
    assert w.sum() == pytest.approx(1, abs=1e-12)
    assert w[1:].max() <= constraints.max_weight + 1e-12
    assert w[1:].min() >= constraints.min_weight - 1e-12
    assert -1e-12 <= w[0] <= constraints.max_cash + 1e-12
    assert constraints.project(w) == pytest.approx(w, abs=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_weights_on_the_simplex_pass_unchanged(seed, n):
    w = np.random.default_rng(seed).dirichlet(np.full(n + 1, 0.3))
    w[1:][w[1:] < 0.01] = 0.0
    w[0] += 1 - w.sum()
    assert PortfolioConstraints().project(w) == pytest.approx(w, abs=1e-15)
    single = w.astype(np.float32)
    projected = PortfolioConstraints().project(single)
    assert ((projected == 0) == (single == 0)).all()  # rounding buys nothing that was not asked for
    assert projected == pytest.approx(w, abs=2e-7)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_top_k_keeps_the_largest_targets(seed, k):
    asked = np.random.default_rng(seed).dirichlet(np.full(9, 0.7))
    held = PortfolioConstraints(top_k=k).project(asked)
    assert (held[1:] > 0).sum() <= k
    assert held.sum() == pytest.approx(1, abs=1e-12)
    kept = np.flatnonzero(held[1:])
    assert asked[1:][kept].min(initial=1) >= np.sort(asked[1:])[-k] - 1e-15
    moved = held[held > 0] - asked[held > 0]
    assert np.ptp(moved) == pytest.approx(
        0, abs=1e-12
    )  # the Euclidean projection adds the same to all


@given(st.integers(0, 2**32 - 1))
def test_leverage_is_limited_towards_zero(seed):
    asked = np.random.default_rng(seed).normal(0, 1, 6)
    constraints = PortfolioConstraints(long_only=False, max_leverage=1.6, max_weight=0.8)
    w = constraints.project(asked)
    assert w.sum() == pytest.approx(1, abs=1e-12)
    assert np.abs(w[1:]).sum() <= 1.6 + 1e-12
    assert np.abs(w[1:]).max() <= 0.8 + 1e-12


@given(st.integers(0, 2**32 - 1))
def test_fixed_assets_stay_and_the_others_make_room(seed):
    rng = np.random.default_rng(seed)
    w = rng.dirichlet(np.ones(6))
    fixed = rng.random(5) < 0.4
    out = PortfolioConstraints(max_weight=0.5, max_cash=0.9).project(w, fixed)
    assert (out[1:][fixed] == w[1:][fixed]).all()
    assert out.sum() == pytest.approx(1, abs=1e-12)
    assert out[1:][~fixed].max(initial=0) <= 0.5 + 1e-12


def test_unreachable_bounds_are_met_as_nearly_as_possible():
    fully_invested = PortfolioConstraints(max_cash=0.0, max_weight=0.5)
    out = fully_invested.project([0.0, 0.1, 0.9], fixed=[True, False])
    assert out == pytest.approx([0.4, 0.1, 0.5])  # cash takes what no asset may hold
    out = fully_invested.project([0.0, 0.9, 0.1], fixed=[False, True])
    assert out == pytest.approx([0.4, 0.5, 0.1])
    floor = PortfolioConstraints(min_weight=0.3)
    out = floor.project([0.0, 0.9, 0.1, 0.0], fixed=[True, False, False])
    assert out == pytest.approx([0.0, 0.9, 0.05, 0.05])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_weight": 0}, "max_weight"),
        ({"max_leverage": float("inf")}, "max_leverage"),
        ({"max_turnover": -1}, "max_turnover"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 2.5}, "top_k"),
        ({"max_period_turnover": 0.5}, "go together"),
        ({"turnover_period": 5}, "go together"),
        ({"no_trade_band": 1}, "no_trade_band"),
        ({"no_trade_band": -0.1}, "no_trade_band"),
        ({"min_weight": -0.1}, "min_weight"),
        ({"min_weight": -0.5, "max_weight": 0.4, "long_only": False}, "min_weight"),
        ({"min_weight": 0.5, "max_weight": 0.4}, "min_weight"),
        ({"min_weight": 0.1, "long_only": False}, "must not be positive"),
        ({"min_cash": float("nan")}, "min_cash"),
        ({"max_weight": None}, "max_weight=None must be a finite number"),
        ({"max_weight": "x" * 10**6}, r"max_weight='x{50,56}\.\.\. must"),
        ({"max_leverage": True}, "max_leverage=True"),
        ({"long_only": 1}, "long_only=1 must be True or False"),
        ({"long_only": None}, "long_only=None"),
        ({"top_k": True}, "top_k=True"),
        ({"no_trade_band": "0"}, "no_trade_band='0'"),
        ({"min_weight": "0"}, "min_weight='0'"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ArgumentError, match=message):
        PortfolioConstraints(**fields)


@pytest.mark.parametrize(
    ("fields", "n", "message"),
    [
        ({"min_weight": 0.05}, 30, "lower min_weight to at most 0.0333"),
        ({"max_weight": 0.15, "max_cash": 0.0}, 5, "cannot reach 1"),
        ({"min_weight": 0.25, "min_cash": 0.1}, 4, "= 1.1 exceeds 1"),
        ({"min_cash": 0.6, "max_cash": 0.5}, 5, "exceeds max_cash"),
    ],
)
def test_infeasible_constraints_are_refused_before_anything_runs(fields, n, message):
    with pytest.raises(ArgumentError, match=message):
        PortfolioConstraints(**fields).bounds(n)


SHORT = {"long_only": False, "max_leverage": 1.5, "max_weight": 0.75}


@pytest.mark.parametrize(
    ("fields", "bounds"),
    [
        ({}, (0, 1, 0, 1, 1, 4, True, True)),
        ({"max_weight": 1.5, "top_k": 4}, (0, 1.5, 0, 1, 1, 4, True, True)),
        ({"top_k": 5}, (0, 1, 0, 1, 1, 4, True, True)),
        ({"top_k": 1}, (0, 1, 0, 1, 1, 1, True, False)),
        ({"max_leverage": 1.5}, (0, 1, -0.5, 1, 1.5, 4, True, False)),
        ({"max_leverage": 0.25}, (0, 1, 0.75, 1, 0.25, 4, True, False)),
        ({"max_leverage": 1.5, "min_cash": 0.0}, (0, 1, 0, 1, 1.5, 4, True, True)),
        ({"max_leverage": 0.25, "min_cash": 0.5}, (0, 1, 0.75, 1, 0.25, 4, True, False)),
        ({"min_cash": 0.5, "max_cash": 0.5}, (0, 1, 0.5, 0.5, 1, 4, True, False)),
        ({"max_weight": 0.5}, (0, 0.5, 0, 1, 1, 4, True, False)),
        ({"max_cash": 0.5}, (0, 1, 0, 0.5, 1, 4, True, False)),
        ({"max_weight": 0.25, "max_cash": 0.0}, (0, 0.25, 0, 0, 1, 4, True, False)),
        ({"min_weight": 0.25, "max_weight": 0.25}, (0.25, 0.25, 0, 1, 1, 4, True, False)),
        ({"min_weight": 0.125}, (0.125, 1, 0, 1, 1, 4, True, False)),
        ({"min_weight": 0.5, "top_k": 2}, (0.5, 1, 0, 1, 1, 2, True, False)),
        (SHORT, (-0.75, 0.75, -0.5, 2.5, 1.5, 4, False, False)),
        ({"long_only": False}, (-1, 1, 0, 2, 1, 4, False, False)),
        (SHORT | {"min_weight": -0.75}, (-0.75, 0.75, -0.5, 2.5, 1.5, 4, False, False)),
        (SHORT | {"min_weight": -0.5}, (-0.5, 0.75, -0.5, 2.5, 1.5, 4, False, False)),
        (SHORT | {"min_weight": 0.0}, (0, 0.75, -0.5, 2.5, 1.5, 4, False, False)),
    ],
)
def test_bounds_for_four_assets(fields, bounds):
    (found,) = PortfolioConstraints(**fields).bounds(4)
    assert found.item() == bounds


def test_defaults_limit_nothing_but_shorts_and_debt():
    constraints = PortfolioConstraints()
    assert asdict(constraints) == {
        **dict.fromkeys(asdict(constraints)),
        "long_only": True,
        "max_weight": 1,
        "max_leverage": 1,
        "no_trade_band": 0,
    }
    with pytest.raises(FrozenInstanceError):
        constraints.max_weight = 0.5


@pytest.mark.parametrize(
    ("fields", "low", "high"),
    [
        ({"max_weight": 0.75}, [0, 0, 0], [1, 0.75, 0.75]),
        ({"max_leverage": 0.5, "min_weight": 0.25}, [0.5, 0.25, 0.25], [1, 0.5, 0.5]),
        ({"top_k": 1, "min_weight": 0.25}, [0, 0, 0], [1, 1, 1]),
        (SHORT, [-0.5, -0.75, -0.75], [2.5, 0.75, 0.75]),
    ],
)
def test_box_of_two_assets(fields, low, high):
    found = PortfolioConstraints(**fields).box(2)
    assert found[0].tolist() == low and found[1].tolist() == high


@pytest.mark.parametrize("weight", [0.1, 0.3, 0.4, 0.2, 1 / 3])
def test_box_is_rounded_outwards(weight):
    low, high = PortfolioConstraints(min_weight=weight, max_weight=weight).box(2)
    assert float(low[1]) < weight < float(high[1])
    assert high[1] == np.nextafter(low[1], np.float32(1))


def test_weights_of_one_asset_and_of_many_axes_are_projected():
    constraints = PortfolioConstraints(max_weight=0.5)
    assert constraints.project([0.0, 1.0]).tolist() == [0.5, 0.5]
    assert constraints.project([[0.0, 1.0]]).tolist() == [[0.5, 0.5]]
    many = constraints.project(np.tile([0.0, 1.0], (2, 3, 1)), np.zeros((2, 3, 1)))
    assert many.tolist() == np.full((2, 3, 2), 0.5).tolist()


def test_bad_weights_are_refused():
    for weights in ([np.nan, 1.0], [1.0], 1.0):
        with pytest.raises(ArgumentError, match="finite"):
            PortfolioConstraints().project(weights)


# ---- inside an episode


@pytest.fixture(scope="module")
def market():
    return load_market("synthetic?seed=4&bars=200&assets=6")


def episode(market, steps=60, **options):
    simulator = Simulator(market, 8, window=1, random_start=True, **options)
    generator = np.random.default_rng(0)
    simulator.reset(lambda _: generator)
    for _ in range(steps):
        simulator.step(generator.uniform(-1, 1, (8, simulator.n_assets + 1)))
        yield simulator, simulator.ledger[dynamics.TURNOVER].copy()
        if (simulator.terminated | simulator.truncated).any():
            return


def test_turnover_limit_binds_exactly(market):
    for _, turnover in episode(market, constraints={"max_turnover": 0.1}):
        assert turnover.max() <= 0.1 + 1e-12
    assert turnover.max() == pytest.approx(0.1)


def test_period_turnover_limit_holds_over_every_window(market):
    constraints = {"max_period_turnover": 0.4, "turnover_period": 5}
    path = [turnover for _, turnover in episode(market, constraints=constraints)]
    sums = np.array([np.sum(path[i : i + 5], axis=0) for i in range(len(path) - 4)])
    assert sums.max() <= 0.4 + 1e-12
    assert sums.max() == pytest.approx(0.4)


def test_limited_trades_lie_on_the_segment_to_the_target(market):
    limited = Simulator(market, window=1, action="weights", constraints={"max_turnover": 0.3})
    limited.reset(lambda _: None)
    target = np.array([0.1, 0.4, 0.5, 0.0, 0.0, 0.0, 0.0])
    before = limited.weights[0].copy()
    limited.step(target[None])
    moved, whole = limited.held[0] - before, target - before
    assert moved == pytest.approx(whole * (moved[2] / whole[2]), abs=1e-12)


def test_weights_stay_within_their_bounds(market):
    constraints = {"max_weight": 0.3, "top_k": 4, "max_cash": 0.2}
    for simulator, _ in episode(market, constraints=constraints):
        assert simulator.held[:, 1:].max() <= 0.3 + 1e-12
        assert ((simulator.held[:, 1:] > 0).sum(-1) <= 4).all()
        assert simulator.held[:, 0].max() <= 0.2 + 1e-12
        assert (simulator.ledger[dynamics.VIOLATION] == 0).all()


def test_assets_within_the_band_are_not_traded(market):
    simulator = Simulator(
        market, window=1, action="weights", initial="equal_weight",
        constraints={"no_trade_band": 0.05},
    )  # fmt: skip
    simulator.reset(lambda _: None)
    d = simulator.weights[0].copy()
    target = d.copy()
    target[1] += 0.02
    target[2] -= 0.10
    target[3] += 0.08
    simulator.step(target[None])
    value = 10_000 - simulator.ledger[dynamics.COST, 0]
    money = simulator.held[0] * value
    unchanged = [1, 4, 5, 6]
    assert money[unchanged] == pytest.approx(d[unchanged] * 10_000, rel=1e-14)
    assert money[2] < d[2] * 10_000
    assert money[3] > d[3] * 10_000


@pytest.mark.parametrize("execution", ["close", "next_open"])
@pytest.mark.parametrize("limits", [{}, {"max_weight": 0.9}])
def test_asking_for_the_observed_weights_is_no_trade_at_all(market, execution, limits):
    """Observations are float32: returning them must neither trade the rounding nor the night."""
    simulator = Simulator(
        market, window=1, action="weights", initial="equal_weight", execution=execution,
        constraints=limits, costs={"fixed_fee": 100.0},
    )  # fmt: skip
    simulator.reset(lambda _: None)
    start = simulator.t[0]
    for _ in range(40):
        simulator.step(simulator.weights.astype(np.float32))
        assert simulator.ledger[dynamics.COST, 0] == 0
        assert simulator.ledger[dynamics.TURNOVER, 0] == 0
    grown = market.close[simulator.t[0]] / market.close[start]
    assert simulator.ledger[dynamics.VALUE, 0] == pytest.approx(10_000 * grown.mean(), rel=1e-12)


def test_one_asset_can_be_kept_while_others_are_traded(market):
    simulator = Simulator(market, window=1, action="weights", initial="equal_weight")
    simulator.reset(lambda _: None)
    simulator.step(simulator.weights.astype(np.float32))
    d = simulator.weights[0].copy()
    value = simulator.ledger[dynamics.VALUE, 0]
    target = d.astype(np.float32)
    target[2] += target[3]
    target[3] = 0.0
    simulator.step(target[None])
    after = simulator.held[0] * (value - simulator.ledger[dynamics.COST, 0])
    assert after[[1, 4, 5, 6]] == pytest.approx(value * d[[1, 4, 5, 6]], rel=1e-13)
    assert after[3] == 0.0


def test_adjustment_moves_a_fraction_of_the_way(market):
    simulator = Simulator(
        market, window=1, action="weights", adjustment=0.25, costs={"commission_bps": 0}
    )
    simulator.reset(lambda _: None)
    target = np.array([0.0, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0])
    for _ in range(5):
        before = simulator.weights[0].copy()
        simulator.step(target[None])
        assert simulator.held[0] == pytest.approx(before + 0.25 * (target - before), abs=1e-15)


def test_violations_that_frozen_holdings_force_are_reported():
    market = load_market("synthetic?seed=1&bars=300&assets=4&ragged=true")
    unlisted = ~market.tradable
    column = int(unlisted[:50].any(0).argmax())
    start = int(np.flatnonzero(unlisted[:, column])[0])
    simulator = Simulator(
        market, window=1, constraints={"min_weight": 0.1}, start=max(start, market.warmup)
    )
    simulator.reset(lambda _: None)
    simulator.step(np.zeros((1, 5)))
    assert simulator.ledger[dynamics.VIOLATION, 0] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "settings",
    [PortfolioConstraints(), PortfolioConstraints(max_weight=0.2, top_k=3), TransactionCosts()],
)
def test_settings_print_what_differs_from_the_defaults(settings):
    assert eval(repr(settings)) == settings
    assert repr(type(settings)()) == f"{type(settings).__name__}()"
