"""Compiled functions beside their own sources run as plain Python, from one asset to hundreds."""

from typing import Any

import numpy as np
import pytest
from helpers.plain import plain
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from baselines.online.reversion import geometric_median
from portfolio_env import ArgumentError, PortfolioConstraints
from portfolio_env.compiled import PLAIN
from portfolio_env.data.generators import log_optimal
from portfolio_env.features import windows
from portfolio_env.simulation import dynamics, projection, rebalancing, targets

pytestmark = pytest.mark.skipif(PLAIN, reason="nothing is compiled: both would be the same")

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.one_of(st.integers(1, 24), st.integers(25, 300))
BARS, LANES = 4, 3


def constraints_of(rng: np.random.Generator, n: int) -> PortfolioConstraints:
    """Any of the constraints, each in some of the draws."""
    some = lambda share: rng.random() < share  # noqa: E731
    fields: dict[str, Any] = {"long_only": bool(some(0.7))}
    if some(0.5):
        fields["max_weight"] = float(rng.uniform(1.2 / n, 1.2))
    if some(0.5):
        fields["top_k"] = int(rng.integers(1, n + 1))
    if some(0.3) and fields["long_only"]:
        fields["min_weight"] = float(rng.uniform(0, 0.5 / n))
    if some(0.3):
        fields["max_leverage"] = float(rng.uniform(0.5, 2))
    if some(0.3):
        fields["max_cash"] = float(rng.uniform(0.1, 1))
    if some(0.2):
        fields["min_cash"] = float(rng.uniform(-0.2, 0.3))
    if some(0.3):
        fields["max_turnover"] = float(rng.uniform(0.02, 1))
    if some(0.3):
        fields |= {"max_period_turnover": float(rng.uniform(0.1, 2)), "turnover_period": 3}
    if some(0.3):
        fields["no_trade_band"] = float(rng.uniform(0, min(2 / n, 0.5)))
    constraints = PortfolioConstraints(**fields)
    try:
        constraints.bounds(n)
    except ArgumentError:
        assume(False)
    return constraints


def random_groups(rng: np.random.Generator, n: int) -> projection.GroupBounds:
    """Bounds of none to three groups, which need not be reachable."""
    count = int(rng.integers(0, 4))
    if count == 0:
        return projection.NO_GROUPS
    low, high = np.sort(rng.uniform(0, 0.5, (2, count)), axis=0)
    low *= rng.random(count) < 0.3
    return projection.groups_of(rng.integers(-1, count, n), low, high)


def weights_of(rng: np.random.Generator, n: int, constraints: PortfolioConstraints) -> Any:
    """(LANES, N + 1) holdings: sparse, some of them short where that is allowed."""
    w = rng.dirichlet(np.full(n + 1, 0.3), LANES)
    if not constraints.long_only:
        w[:, 1:] *= rng.choice([-1.0, 1.0], w[:, 1:].shape)
    w[:, 1:] *= rng.random(w[:, 1:].shape) < 0.7
    w[:, 0] += 1 - w.sum(1)
    return w


class Step:
    """One step of a few lanes in a random market under random rules."""

    def __init__(self, seed: int, n: int) -> None:
        rng = np.random.default_rng(seed)
        self.constraints = limits = constraints_of(rng, n)
        self.bounds = limits.bounds(n)
        self.groups = random_groups(np.random.default_rng(seed + 1), n)
        self.bounds["trivial"] &= len(self.groups) == 0
        self.rules = rules = np.zeros(1, dynamics.RULES)
        softmax = rng.random() < 0.5
        rules["softmax"], rules["next_open"] = softmax, rng.random() < 0.5
        rules["adjustment"] = rng.choice([1.0, rng.uniform(0.05, 1)])
        rules["no_trade_band"] = limits.no_trade_band
        rules["max_turnover"] = limits.max_turnover or np.inf
        rules["max_period_turnover"] = limits.max_period_turnover or np.inf
        rules["initial_value"] = 1e4
        rules["haircut"] = rng.choice([0.0, 0.4])
        rules["fixed_fee"] = rng.choice([0.0, 5.0, 500.0])
        self.market = self._market(rng, n)
        weights = weights_of(rng, n, limits)
        self.lanes = self._lanes(rng, weights)
        if rules["softmax"][0]:
            scores = rng.uniform(-1.2, 1.2, (LANES, n + 1))
            self.wanted = np.exp(rng.choice([0.5, 5.0, 100.0]) * scores.clip(-1, 1))
        else:
            self.wanted = rng.normal(0.1, 10 ** rng.uniform(-1, 1), (LANES, n + 1))
            same = rng.random(self.wanted.shape) < 0.2
            self.wanted[same] = weights[same].astype(np.float32)

    def _market(self, rng: np.random.Generator, n: int) -> dynamics.MarketArrays:
        before, after = np.exp(rng.normal(0, 0.1, (2, BARS, n)))
        if not self.rules["next_open"][0]:
            before[:] = 1.0
        tradable = rng.random((BARS, n)) < rng.choice([0.5, 0.8, 1.0])
        delisted = rng.random((BARS, n)) < rng.choice([0.0, 0.1])
        impact = rng.uniform(0, 1e-3, (BARS, n)) if rng.random() < 0.3 else np.zeros((0, 0))
        return dynamics.MarketArrays(
            before=before,
            after=after,
            tradable=tradable,
            delisted=delisted,
            all_tradable=(tradable & ~delisted).all(1),
            rates=rng.uniform(0, rng.choice([0.0, 1e-3, 0.2]), (2, n)),
            impact=impact,
            interest=rng.uniform(0, 1e-2, (BARS, 3)) * rng.choice([0.0, 1.0], 3),
            capacity=np.random.default_rng(n).exponential(1e3, (BARS, n))[: BARS * (n % 2)],
        )

    def _lanes(self, rng: np.random.Generator, weights: Any) -> dynamics.Lanes:
        n = weights.shape[1] - 1
        clock = np.array([rng.integers(0, BARS, LANES), np.full(LANES, BARS)])
        period = self.constraints.turnover_period or 0
        ledger = np.zeros((len(dynamics.LEDGER), LANES))
        ledger[dynamics.VALUE] = 10 ** rng.uniform(2, 6, LANES)
        return dynamics.Lanes(
            clock=clock,
            assets=np.tile(np.arange(n), (LANES, 1)),
            weights=weights,
            held=weights.copy(),
            growth=np.array([[1.0], [1e4], [0.0], [1.0]]).repeat(LANES, axis=1),
            ledger=ledger,
            turnovers=rng.uniform(0, 0.4, (LANES, period)),
            ended=np.zeros((2, LANES), np.bool_),
            scratch=np.zeros((5, n + 1)),
            flags=np.zeros((6, n), np.bool_),
            fills=self._fills(n),
            keys=np.zeros(LANES, np.uint64),
        )

    def _fills(self, n: int) -> Any:
        """Shares of orders, a third of which fail and a third are filled, in half of the cases."""
        rng = np.random.default_rng(n)
        if rng.random() < 0.5:
            return np.zeros((2, LANES, 0))
        return np.array([rng.uniform(-1, 2, (LANES, n)).clip(0, 1), np.zeros((LANES, n))])

    def run(self, module: Any) -> tuple[int, dynamics.Lanes]:
        """What ``step_lanes`` of a module returns, and the lanes that it leaves."""
        lanes = dynamics.Lanes(*(part.copy() for part in self.lanes))
        active = np.ones(LANES, np.bool_)
        rest = (self.market, self.rules, self.bounds, self.groups)
        return module.step_lanes(self.wanted.copy(), active, lanes, *rest), lanes


@pytest.mark.slow
@settings(max_examples=40)
@given(SEEDS, SIZES)
def test_a_step_equals_its_source_run_as_plain_python(seed, n):
    step = Step(seed, n)
    code, lanes = step.run(dynamics)
    expected, other = step.run(plain("simulation.dynamics"))
    assert code == expected == -1
    for name in ("clock", "ended", "weights", "held", "growth", "turnovers", "ledger", "fills"):
        ours, theirs = getattr(lanes, name), getattr(other, name)
        # money in the ledger is a difference of values: it is off by what they are
        size = np.abs(theirs[dynamics.VALUE]).max() if name == "ledger" else 1.0
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12 * size, err_msg=name)
    # cash that pays for purchases to the last cent is 0 but for rounding
    assert ((lanes.held[:, 1:] == 0) == (other.held[:, 1:] == 0)).all()


@settings(max_examples=20)
@given(SEEDS, SIZES)
def test_a_step_that_compiles_no_projection_equals_one_whose_bounds_never_bind(seed, n):
    step = Step(seed, n)
    step.rules["softmax"] = step.bounds["trivial"] = True
    step.wanted = np.exp(np.random.default_rng(seed).uniform(-5, 5, (LANES, n + 1)))
    found = []
    for step.groups in (projection.NO_GROUPS, None):
        code, lanes = step.run(dynamics)
        found.append([code, *lanes[:-2]])  # without the work space
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@settings(max_examples=50)
@given(SEEDS, SIZES)
def test_the_projection_equals_its_source_run_as_plain_python(seed, n):
    rng = np.random.default_rng(seed)
    constraints = constraints_of(rng, n)
    bounds = constraints.bounds(n)[0]
    fixed = rng.random(n) < rng.choice([0.0, 0.4, 0.9])
    ours = weights_of(rng, n, constraints)[0]
    ours[~np.r_[False, fixed]] *= 10 ** rng.uniform(-2, 2)
    theirs = ours.copy()
    settled, groups = np.zeros(n, np.bool_), random_groups(rng, n)
    projection.project_lane(ours, fixed, bounds, settled, groups)
    plain("simulation.projection").project_lane(theirs, fixed, bounds, settled, groups)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    broken = projection.violation_lane(ours, bounds, np.zeros(n), groups)
    expected = plain("simulation.projection").violation_lane(theirs, bounds, np.zeros(n), groups)
    assert broken == pytest.approx(expected, abs=1e-11)


@settings(max_examples=40)
@given(SEEDS, SIZES)
def test_small_functions_equal_their_sources_run_as_plain_python(seed, n):
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1, (LANES, n + 1)).astype(rng.choice([np.float32, np.float64]))
    scores[0, 0] = rng.choice([np.inf, -np.inf, np.nan, 1.0])
    other = plain("simulation.targets")
    numerators = [one.softmax_numerators(scores, 5.0) for one in (targets, other)]
    np.testing.assert_array_equal(*numerators)
    d, a = rng.dirichlet(np.ones(n + 1), (2, LANES))
    fixed, impact = rng.random((LANES, n)) < 0.3, rng.uniform(0, 0.1, (LANES, n))
    free = 1 - (d[:, 1:] * fixed).sum(1)
    arguments = (d, a, fixed, free, *rng.uniform(0, 0.3, (2, LANES, n)), impact, np.full(1, 1e-3))
    np.testing.assert_allclose(
        rebalancing.solve_trades(*arguments),
        plain("simulation.rebalancing").solve_trades(*arguments),
        atol=1e-12,
    )


@settings(max_examples=30)
@given(SEEDS, st.integers(1, 12), st.integers(2, 40))
def test_moving_windows_equal_their_sources_run_as_plain_python(seed, n, w):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(5, 2, (2, 60, n))
    x[rng.random(x.shape) < rng.choice([0.0, 0.05])] = np.nan
    other = plain("features.windows")
    for name, arguments in (
        ("total", (x, w)),
        ("deviation", (x, w, 1)),
        ("highest", (x, w)),
        ("covariance", (x, y, w)),
        ("standing", (np.round(x), w)),
        ("smoothed", (x, 0.1, w, w)),
    ):
        ours, theirs = getattr(windows, name)(*arguments), getattr(other, name)(*arguments)
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.slow
@settings(max_examples=5)
@given(SEEDS, st.integers(1, 8))
def test_other_functions_equal_their_sources_run_as_plain_python(seed, n):
    rng = np.random.default_rng(seed)
    shocks = rng.normal(0, 0.02, (20, n))
    shocks -= shocks.mean(0)
    means = rng.normal(0, 0.003, (3, n))
    ours = log_optimal.log_optimal(means, shocks)[0]
    theirs = plain("data.generators.log_optimal").log_optimal(means, shocks)[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)  # growth is optimal within 1e-13
    points = rng.normal(0, 1, (9, n))
    start = np.median(points, axis=0)
    median = geometric_median(points, start)
    np.testing.assert_allclose(median, geometric_median.py_func(points, start), rtol=1e-9)
