"""Bounds of groups of assets: the projection onto them, what is reported, what is refused."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from portfolio_env import ArgumentError, PortfolioConstraints, PortfolioEnv, load_market
from portfolio_env.simulation import dynamics
from portfolio_env.simulation.simulator import Simulator

SEEDS = st.integers(0, 2**32 - 1)
SECTORS = ("Tech", "Tech", "Tech", "Oil", "Oil", "")
THIRD = {"group_by": "sector", "group_bounds": {"Tech": (0.0, 0.3)}}


@pytest.fixture(scope="module")
def market():
    """Six assets in two sectors, the last in none."""
    source = "synthetic?seed=4&bars=200&assets=6"
    names = load_market(source).assets
    pairs = zip(names, SECTORS, strict=True)
    return load_market(source, metadata={name: {"sector": label} for name, label in pairs})


def sums(weights, labels):
    """Sum of the weights of each group by its label."""
    return {label: weights[1:][np.array(labels) == label].sum() for label in {*labels}}


def random_problem(seed):
    """Constraints with groups, labels, and weights that are asked for."""
    rng = np.random.default_rng(seed)
    n, long_only = int(rng.integers(2, 9)), bool(rng.random() < 0.7)
    labels = tuple(rng.choice(["Tech", "Oil", ""], n).tolist())
    bounds = {}
    for label in {*labels} - {""}:
        low, high = np.sort(rng.uniform(0, 0.7, 2)) * [rng.random() < 0.5, 1.0]
        bounds[label] = (float(low if long_only else -low), float(high))
    assume(bounds)
    constraints = PortfolioConstraints(
        long_only=long_only,
        max_weight=float(rng.uniform(1 / n, 1)),
        min_weight=float(rng.choice([0.0, rng.uniform(0, 0.3 / n)])) if long_only else None,
        max_cash=float(rng.uniform(0.2, 1)),
        min_cash=None if long_only else -3.0,
        max_leverage=1.0 if long_only else 50.0,  # which no asked weights reach
        group_by="sector",
        group_bounds=bounds,
    )
    try:
        constraints.bounds(n, labels)
    except ArgumentError:
        assume(False)
    return constraints, labels, rng.normal(0.2, 0.6, n + 1)


@given(SEEDS)
@settings(max_examples=40)
def test_projection_is_the_nearest_portfolio_within_the_groups(seed):
    constraints, labels, asked = random_problem(seed)
    n, box = len(labels), constraints.bounds(len(labels), labels)[0]
    rows = [{"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(n + 1)}]
    for label, (low, high) in constraints.group_bounds.items():
        own = np.r_[0.0, np.array(labels) == label]
        rows.append({"type": "ineq", "fun": lambda w, own=own, low=low: own @ w - low})
        rows.append({"type": "ineq", "fun": lambda w, own=own, high=high: high - own @ w})
    best = minimize(
        lambda w: ((w - asked) ** 2).sum(),
        np.full(n + 1, 1 / (n + 1)),
        jac=lambda w: 2 * (w - asked),
        bounds=[(box.min_cash, box.max_cash)] + [(box.min_weight, box.max_weight)] * n,
        constraints=rows,
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    assume(best.success)
    found = constraints.project(asked, labels=labels)
    assert ((found - asked) ** 2).sum() <= best.fun + 1e-9
    assert found == pytest.approx(best.x, abs=1e-4)


@given(SEEDS)
def test_projection_keeps_all_bounds_and_stays_where_it_is(seed):
    constraints, labels, asked = random_problem(seed)
    box, w = constraints.bounds(len(labels), labels)[0], constraints.project(asked, labels=labels)
    assert w.sum() == pytest.approx(1, abs=1e-12)
    assert box.min_weight - 1e-12 <= w[1:].min() and w[1:].max() <= box.max_weight + 1e-12
    assert box.min_cash - 1e-12 <= w[0] <= box.max_cash + 1e-12
    own = sums(w, labels)
    for label, (low, high) in constraints.group_bounds.items():
        assert low - 1e-12 <= own[label] <= high + 1e-12
    assert constraints.project(w, labels=labels) == pytest.approx(w, abs=1e-12)


@given(SEEDS)
def test_groups_that_do_not_bind_change_nothing(seed):
    constraints, labels, asked = random_problem(seed)
    free = PortfolioConstraints(**asdict(constraints) | {"group_by": None, "group_bounds": None})
    reach = (0.0, 1.0) if free.long_only else (-50.0, 50.0)
    wide = PortfolioConstraints(
        **asdict(constraints) | {"group_bounds": dict.fromkeys({*labels} - {""}, reach)}
    )
    expected = free.project(asked)
    assert wide.project(asked, labels=labels) == pytest.approx(expected, abs=1e-12)
    assert free.project(asked, labels=labels).tolist() == expected.tolist()


@given(SEEDS)
def test_frozen_holdings_count_in_their_group(seed):
    rng = np.random.default_rng(seed)
    w, fixed = rng.dirichlet(np.ones(7)), rng.random(6) < 0.4
    out = PortfolioConstraints(**THIRD).project(w, fixed, SECTORS)
    assert (out[1:][fixed] == w[1:][fixed]).all()
    assert out.sum() == pytest.approx(1, abs=1e-12)
    stuck = w[1:4][fixed[:3]].sum()
    assert sums(out, SECTORS)["Tech"] <= max(0.3, stuck) + 1e-12
    if sums(w, SECTORS)["Tech"] >= 0.3:  # it sells no more than it has to
        assert sums(out, SECTORS)["Tech"] == pytest.approx(max(0.3, stuck), abs=1e-12)


def test_what_cannot_be_reached_is_met_as_nearly_as_possible():
    floor = PortfolioConstraints(group_by="sector", group_bounds={"Tech": (0.5, 1.0)})
    out = floor.project(
        [0.0, 0.1, 0.0, 0.8, 0.1], [False, False, True, False], ["Tech", "Tech", "Oil", "Oil"]
    )
    assert out == pytest.approx([0.0, 0.12, 0.08, 0.8, 0.0])
    cap = PortfolioConstraints(max_cash=0.1, **THIRD)
    out = cap.project([0.0, 0.2, 0.4, 0.4], [False, True, True], ["Tech", "Tech", "Oil"])
    assert out == pytest.approx([0.2, 0.0, 0.4, 0.4])  # cash takes what no asset may hold


def test_the_least_scaling_of_leverage_stays_within_groups():
    bounds = {"Tech": (-0.2, 0.3), "Oil": (-0.5, 0.1)}
    limits = PortfolioConstraints(
        long_only=False, max_leverage=1.5, group_by="sector", group_bounds=bounds
    )
    for seed in range(50):
        asked = np.random.default_rng(seed).normal(0, 1, 7)
        w = limits.project(asked, labels=SECTORS)
        assert w.sum() == pytest.approx(1, abs=1e-12) and abs(w[1:]).sum() <= 1.5 + 1e-12
        for label, (low, high) in bounds.items():
            assert low - 1e-12 <= sums(w, SECTORS)[label] <= high + 1e-12


@pytest.mark.parametrize(
    ("asked", "limits"),
    [
        ([1.0, -0.5, 1.0, -0.5], {"max_leverage": 1.9, "max_cash": 0.5}),
        ([-0.2, 1.7, -1.0, 0.5], {"max_leverage": 3.1, "min_cash": 0.0, "max_weight": 2.0}),
    ],
)
def test_no_holding_grows_where_leverage_is_limited(asked, limits):
    """Beside a halted holding that leaves cash beyond its bound whatever the group does."""
    bounds = {"group_by": "sector", "group_bounds": {"Tech": (-0.5, 0.5)}}
    found = PortfolioConstraints(long_only=False, **limits, **bounds).project(
        asked, [True, False, False], ["", "Tech", "Tech"]
    )
    assert found.sum() == pytest.approx(1, abs=1e-12) and found[1] == asked[1]
    assert (abs(found[2:]) <= abs(np.array(asked[2:])) + 1e-12).all()
    assert abs(found[1:]).sum() <= limits["max_leverage"] + 1e-12


@pytest.mark.parametrize("action", ["logits", "weights"])
def test_an_account_stays_within_its_groups(market, action):
    bounds = {"Tech": (0.0, 0.3), "Oil": (0.2, 0.4)}
    constraints = {"group_by": "sector", "group_bounds": bounds, "max_weight": 0.35}
    env = PortfolioEnv(market, window=1, action=action, constraints=constraints)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(50):
        *_, info = env.step(env.action_space.sample())
        own = sums(env.unwrapped.simulator.held[0], SECTORS)
        for label, (low, high) in bounds.items():
            assert low - 1e-12 <= own[label] <= high + 1e-12
        assert info["constraint_violation"] == 0


def test_a_group_that_the_market_moved_out_of_its_bounds_is_reported(market):
    start = [0.4, 0.2, 0.2, 0.2, 0.0, 0.0, 0.0]
    limits = THIRD | {"max_turnover": 0.1}
    simulator = Simulator(
        market, window=1, action="weights", initial=start, constraints=limits,
        costs={"commission_bps": 0},
    )  # fmt: skip
    simulator.reset(lambda _: None)
    simulator.step(np.array([start]))
    own = sums(simulator.held[0], SECTORS)["Tech"]
    assert 0.5 < own < 0.6  # the turnover limit wins
    assert simulator.ledger[dynamics.TURNOVER, 0] == pytest.approx(0.1)
    assert simulator.ledger[dynamics.VIOLATION, 0] == pytest.approx(own - 0.3, abs=1e-12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"group_by": "sector"}, "go together"),
        ({"group_bounds": {"Tech": (0, 1)}}, "go together"),
        (THIRD | {"group_bounds": {}}, "must be a mapping from labels to pairs"),
        (THIRD | {"group_bounds": {"Tech": 0.3}}, "must be a mapping from labels to pairs"),
        (THIRD | {"group_bounds": {"Tech": (0.3,)}}, "must be a mapping from labels to pairs"),
        (THIRD | {"group_bounds": [("Tech", 0.3)]}, "must be a mapping from labels to pairs"),
        (THIRD | {"group_bounds": {"Tech": ("a", 1)}}, r"group_bounds\['Tech'\]\[0\]='a'"),
        (THIRD | {"group_bounds": {"Tech": (0, 30)}}, r"\[1\]=30 must be .* in \[0, 1\]"),
        (THIRD | {"group_bounds": {"Tech": (0.4, 0.3)}}, r"=0.3 must be .* in \[0.4, 1\]"),
        (THIRD | {"group_bounds": {"Tech": (-0.1, 0.3)}}, r"\[0\]=-0.1 must be"),
        (THIRD | {"group_bounds": {"Tech": (0.1, 0.3)}, "long_only": False}, r"=0.1 must be"),
        (THIRD | {"group_by": "sectr"}, "'sectr': did you mean sector"),
        (THIRD | {"group_bounds": {"Tch": (0, 0.3)}}, "'Tch': did you mean Tech"),
        (THIRD | {"group_bounds": {"": (0, 0.3)}}, "unknown group_bounds: sector ''"),
        (THIRD | {"group_bounds": {"Oil": (0.9, 1)}, "max_weight": 0.4}, "exceeds the 0.8"),
        (THIRD | {"min_weight": 0.15}, "below the 0.45"),
        (THIRD | {"group_bounds": {"Tech": (0.5, 1)}, "min_cash": 0.6}, "exceeds 1; lower"),
        (THIRD | {"group_bounds": {"Tech": (0.6, 1), "Oil": (0.5, 1)}}, "sum to 1.1"),
        (THIRD | {"max_weight": 0.2, "max_cash": 0.0}, "cannot reach 1; raise"),
    ],
)
def test_bad_groups_are_refused_before_anything_runs(market, fields, message):
    with pytest.raises(ArgumentError, match=message):
        Simulator(market, constraints=fields)


def test_groups_need_their_labels(market):
    with pytest.raises(ArgumentError, match="the market has no categories"):
        Simulator(load_market("synthetic?seed=4&bars=200&assets=6"), constraints=THIRD)
    with pytest.raises(ArgumentError, match="not of 0; give labels="):
        PortfolioConstraints(**THIRD).project(np.full(7, 1 / 7))
    with pytest.raises(ArgumentError, match="universe=3 draws some"):
        Simulator(market, constraints=THIRD, universe=3)


def test_groups_survive_json():
    written = json.loads(json.dumps(asdict(PortfolioConstraints(**THIRD))))
    assert PortfolioConstraints(**written) == PortfolioConstraints(**THIRD)
    assert eval(repr(PortfolioConstraints(**THIRD))) == PortfolioConstraints(**THIRD)
