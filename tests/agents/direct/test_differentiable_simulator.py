"""The differentiable twin: equal to the environment step by step, its gradients exact."""

from typing import Any

import numpy as np
import pytest
import torch as th
from helpers import examples
from helpers.cost_fixtures import FIXTURES, number, numbers
from hypothesis import assume, given
from hypothesis import strategies as st

from agents.direct import differentiable_rebalancing
from agents.direct.differentiable_projection import (
    ConstrainedPortfolioLayer,
    bounds_of,
    score_weights,
)
from agents.direct.differentiable_rebalancing import (
    Costs,
    remainder_factor,
    solve_on_device,
    trade,
)
from agents.direct.differentiable_simulator import DifferentiableSimulator
from portfolio_env import ArgumentError, PortfolioConstraints, PortfolioVectorEnv, load_market
from portfolio_env.simulation import dynamics
from portfolio_env.simulation.rebalancing import solve_trades
from portfolio_env.simulation.simulator import Simulator

LANES = 6
COSTS = {"buy_commission_bps": 30, "sell_commission_bps": 50, "slippage_bps": 5}
CARRY = {"cash_rate_annual": 0.05, "margin_rate_annual": 0.08, "borrow_rate_annual": 0.02}
DATED = {"1990-01-01": 0.05, "2010-02-01": -0.03, "2010-06-01": 0.9}


@pytest.fixture(params=["cpu", "gpu"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A step that looks at its numbers where that saves work, and one that never does."""
    if request.param == "gpu":
        monkeypatch.setattr(differentiable_rebalancing, "_is_queued", lambda part: True)
    way: str = request.param
    return way


@pytest.fixture(scope="module")
def ragged():
    """60 bars of 5 assets, listed late, delisted, with days without trading."""
    return load_market("synthetic?seed=3&bars=400&assets=5&ragged=true")


def follow(
    env: PortfolioVectorEnv, twin: DifferentiableSimulator, steps: int, seed: int
) -> list[Any]:
    """Log growth, held and drifted weights, value and turnover of both, (steps, ...) each."""
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    simulator = env.simulator
    weights, value = th.tensor(simulator.weights), None
    ours, theirs = [], []
    for _ in range(steps):
        t, assets = th.tensor(simulator.t), th.tensor(simulator.assets)
        if simulator.action == "weights":
            action = rng.dirichlet(np.ones(simulator.n_assets + 1), env.num_envs)
            if simulator.levered:
                action[:, 1:] *= rng.choice([-1.5, 1.5], action[:, 1:].shape)
                action[:, 0] = 1 - action[:, 1:].sum(1)
            action[0] = simulator.weights[0]  # what it has: not to be traded
            target = th.tensor(action)
        else:
            action = rng.uniform(-1.5, 1.5, (env.num_envs, simulator.n_assets + 1))
            bounds = bounds_of(simulator.constraints, simulator.n_assets)
            target = score_weights(th.tensor(action).clamp(-1, 1), simulator.logits_scale, bounds)
        chosen = None if simulator.episodes.universe is None else assets
        step = twin.step(weights, target, t, chosen, value)
        weights, value = step.weights, step.value
        ours.append([v.numpy() for v in (*step[:3], step.turnover, value)])
        env.step(action)
        ledger = simulator.ledger
        parts = (
            ledger[dynamics.LOG_RETURN],
            simulator.weights,
            simulator.held,
            ledger[dynamics.TURNOVER],
            ledger[dynamics.VALUE],
        )
        theirs.append([part.copy() for part in parts])
    return [[np.array(part) for part in zip(*side, strict=True)] for side in (ours, theirs)]


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "logits": {"action": "logits", "logits_scale": 3.0},
    "adjustment": {"action": "logits", "adjustment": 0.2},
    "adjusted weights": {"adjustment": 0.3},
    "haircut": {"costs": COSTS | {"delisting_haircut": 0.3}},
    "carry": {"costs": COSTS | CARRY},
    "dated rate": {"costs": COSTS | CARRY | {"cash_rate_annual": DATED}},
    "impact": {"costs": COSTS | {"impact": 1.0}, "initial_value": 1e9},
    "fee": {"costs": COSTS | {"fixed_fee": 2.0}},
    "band": {"constraints": {"no_trade_band": 0.1}, "action": "logits"},
    "turnover": {"constraints": {"max_turnover": 0.3}},
    "turnover, impact": {
        "constraints": {"max_turnover": 0.3},
        "costs": COSTS | {"impact": 1.0, "fixed_fee": 5.0},
        "initial_value": 1e9,
    },
    "turnover, large fee": {
        "constraints": {"max_turnover": 0.2, "min_cash": 0.05},
        "costs": COSTS | {"fixed_fee": 20.0},
    },
    "next open": {"execution": "next_open", "costs": COSTS | {"delisting_haircut": 0.5}},
    "next open, logits": {"execution": "next_open", "action": "logits", "adjustment": 0.5},
    "bounds": {"constraints": {"max_weight": 0.3, "min_cash": 0.05}},
    "bounds, adjusted logits": {
        "constraints": {"max_weight": 0.3, "no_trade_band": 0.02},
        "action": "logits",
        "adjustment": 0.5,
    },
    "shorts and debt": {
        "constraints": {"long_only": False, "max_weight": 0.8, "max_leverage": 1.4},
        "costs": COSTS | CARRY,
    },
    "shorts and debt, logits": {
        "constraints": {"long_only": False, "max_weight": 0.8, "max_leverage": 1.4},
        "action": "logits",
        "adjustment": 0.5,
        "costs": COSTS | CARRY,
    },
    "debt, logits": {
        "constraints": {"max_leverage": 1.7},
        "action": "logits",
        "costs": COSTS | CARRY,
    },
    "top k": {"constraints": {"top_k": 2, "max_turnover": 0.5}},
    "universe": {"universe": 3, "random_start": True, "episode_length": 100},
}


BRANCHING = ("haircut", "turnover, impact", "turnover, large fee", "shorts and debt", "universe")
WAYS = [("cpu", name) for name in OPTIONS] + [("gpu", name) for name in BRANCHING]


@pytest.mark.parametrize(("both_ways", "name"), WAYS, indirect=["both_ways"])
def test_value_paths_equal_those_of_the_environment(ragged, both_ways, name):
    options = {"action": "weights", "window": 1, "costs": COSTS, "initial": "equal_weight"}
    options |= OPTIONS[name]
    env = PortfolioVectorEnv(LANES, ragged, autoreset_mode="Disabled", **options)
    twin = DifferentiableSimulator.of(env.simulator, dtype=th.float64)
    steps = options.get("episode_length", 380 if both_ways == "cpu" else 150)
    ours, theirs = follow(env, twin, steps, seed=1)
    initial = env.simulator.initial_value
    for a, b, tolerance in zip(ours, theirs, [1e-10] * 4 + [1e-9 * initial], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=tolerance)
    assert theirs[3].max() > 0.1  # there was trading


def test_the_ragged_market_tests_what_it_should(ragged):
    arrays = Simulator(ragged, window=1).arrays
    assert arrays.delisted.any() and not arrays.tradable.all()
    assert (arrays.tradable.any(0) & ~arrays.tradable.all(0)).any()


def test_float32_stays_close_to_the_environment(ragged):
    env = PortfolioVectorEnv(
        LANES, ragged, autoreset_mode="Disabled", action="logits", window=1, costs=COSTS
    )
    twin = DifferentiableSimulator.of(env.simulator, dtype=th.float32)
    simulator, rng = env.simulator, np.random.default_rng(0)
    env.reset(seed=0)
    for _ in range(300):
        action = rng.uniform(-1, 1, (LANES, 6)).astype(np.float32)
        weights = th.tensor(simulator.weights, dtype=th.float32)
        step = twin.step(weights, th.softmax(5 * th.tensor(action), 1), th.tensor(simulator.t))
        env.step(action)
        wanted = simulator.ledger[dynamics.LOG_RETURN]
        np.testing.assert_allclose(step.log_growth.numpy(), wanted, atol=1e-6)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("case", FIXTURES["remainder_factor"], ids=lambda case: case["id"])
def test_remainder_factor_is_exact(case):
    d, a = (th.tensor(numbers(case[name]))[None] for name in ("w_drifted", "w_target"))
    names = ("buy_rate", "sell_rate", "fixed_fee_fraction")
    buy, sell, fee = (th.tensor([number(case[name])], dtype=d.dtype) for name in names)
    sides = (side.expand(1, d.shape[1] - 1) for side in (buy, sell))
    done = trade(d, a, None, None, Costs(*sides, fee=fee))
    assert done.mu.item() == pytest.approx(number(case["mu_notional"]), abs=1e-12)
    if number(case["fixed_fee_fraction"]) == 0:
        mu = remainder_factor(d, a, number(case["buy_rate"]), number(case["sell_rate"]))
        assert mu.item() == pytest.approx(number(case["mu_notional"]), abs=1e-12)


def portfolios(seed: int, lanes: int = 4, n: int = 5) -> list[th.Tensor]:
    rng = np.random.default_rng(seed)
    return [th.tensor(rng.dirichlet(np.ones(n + 1), lanes), requires_grad=True) for _ in range(2)]


@given(
    seed=st.integers(0, 2**16),
    rate=st.sampled_from([1e-3, 0.02, 0.3, 0.9]),
    levered=st.booleans(),
    impact=st.sampled_from([None, 1e-3, 0.2]),
    fee=st.sampled_from([None, 1e-2]),
)
@examples(25)
def test_both_solvers_find_the_same_remainder(seed, rate, levered, impact, fee):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    d, a = (rng.dirichlet(np.full(n + 1, 0.5), 50) for _ in range(2))
    if levered:
        for weights in (d, a):
            weights[:, 1:] *= rng.choice([-1.5, 1.0, 2.0], (50, n))
            weights[:, 0] = 1 - weights[:, 1:].sum(1)
    a[:5] = d[:5]
    fixed = rng.random((50, n)) < 0.3
    free = np.ones(50) if levered else 1 - (d[:, 1:] * fixed).sum(1)
    buy, sell = rng.uniform(0, rate, (2, 50, n))
    push = None if impact is None else rng.uniform(0, impact, (50, n))
    due = None if fee is None else rng.uniform(0, fee, 50)
    expected = solve_trades(
        *(d, a, fixed, free, buy, sell),
        np.zeros((1, 0)) if push is None else push,
        np.zeros(1) if due is None else due,
    )
    costs = Costs(*(None if part is None else th.tensor(part) for part in (buy, sell, push, due)))
    found = solve_on_device(*map(th.tensor, (d, a, fixed, free)), costs)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-14)


@given(seed=st.integers(0, 2**16), rate=st.floats(0, 0.2))
@examples(25)
def test_the_remainder_factor_has_exact_gradients(seed, rate):
    d, a = portfolios(seed)
    mu = remainder_factor(d, a, rate, rate / 2)
    assume(((mu[:, None] * a - d)[:, 1:].abs() > 1e-4).all())  # no kink within the differences
    assert th.autograd.gradcheck(lambda d, a: remainder_factor(d, a, rate, rate / 2), (d, a))


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("limit", [np.inf, 0.4])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_trade_has_exact_gradients(frozen, limit):
    d, a = portfolios(2)
    fixed = th.zeros(4, 5, dtype=th.bool)
    fixed[0, 1] = fixed[1, :2] = frozen
    free = th.tensor([0.7, 0.6, 1.0, 1.0], dtype=th.float64, requires_grad=True)
    impact = th.full((4, 5), 0.05, dtype=th.float64, requires_grad=True)
    fee = th.full((4,), 1e-3, dtype=th.float64, requires_grad=True)

    def run(d: Any, a: Any, free: Any, impact: Any, fee: Any) -> Any:
        sides = (th.full((1, 5), rate, dtype=th.float64) for rate in (0.01, 0.02))
        costs = Costs(*sides, impact=impact, fee=fee, limit=limit)
        return trade(d, a, fixed if frozen else None, free if frozen else None, costs)

    assert th.autograd.gradcheck(run, (d, a, free, impact, fee))


STEPS = {
    "plain": {},
    "next open": {"execution": "next_open"},
    "adjustment": {"action": "logits", "adjustment": 0.3},
    "impact": {"costs": COSTS | {"impact": 1.0, "fixed_fee": 1e5}, "initial_value": 1e9},
    "turnover": {"constraints": {"max_turnover": 0.3}},
    "bounds": {"constraints": {"max_weight": 0.3, "min_cash": 0.05}},
    "carry": {"costs": COSTS | CARRY | {"delisting_haircut": 0.2}},
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_in_a_row_have_exact_gradients(ragged, name):
    simulator = Simulator(ragged, window=1, **({"action": "weights", "costs": COSTS} | STEPS[name]))
    twin = DifferentiableSimulator.of(simulator, dtype=th.float64)
    last = np.flatnonzero(simulator.arrays.delisted.any(1))[0]  # with a delisting in between
    t = th.tensor([int(last) - 1, 100])
    rng = np.random.default_rng(5)
    scores = [
        th.tensor(rng.normal(size=shape), requires_grad=True) for shape in ((2, 3, 6), (2, 6))
    ]

    def run(targets: th.Tensor, start: th.Tensor) -> Any:
        held, value, parts = start.softmax(-1), None, []
        for k in range(targets.shape[1]):
            step = twin.step(held, targets[:, k].softmax(-1), t + k, value=value)
            held, value = step.weights, step.value
            parts += [step.log_growth, step.turnover]
        return tuple(parts)

    assert th.autograd.gradcheck(run, scores)


@pytest.mark.usefixtures("both_ways")
def test_a_step_is_finite_where_all_is_lost_or_nothing_can_be_traded():
    twin = DifferentiableSimulator(
        before=th.ones(1, 2),
        after=th.tensor([[0.0, 0.0]]),
        tradable=th.zeros(1, 2, dtype=th.bool),
        delisted=th.zeros(1, 2, dtype=th.bool),
        rates=th.full((2, 2), 0.01),
        impact=th.zeros(0, 0),
        interest=th.zeros(1, 3),
        all_tradable=False,
        rules=dict.fromkeys(dynamics.RULES.names or (), 0.0)
        | {"adjustment": 1.0, "softmax": 1.0, "max_turnover": np.inf, "initial_value": 1e4},
    )
    weights = th.tensor([[0.0, 0.4, 0.6], [1.0, 0.0, 0.0]], requires_grad=True)
    target = th.tensor([[0.2, 0.4, 0.4], [0.2, 0.4, 0.4]], requires_grad=True)
    step = twin.step(weights, target, th.tensor([0, 0]))
    assert step.log_growth.tolist() == pytest.approx([np.log(1e-6), 0.0])
    assert step.weights.tolist() == [[1.0, 0.0, 0.0]] * 2
    step.log_growth.sum().backward()
    for gradient in (weights.grad, target.grad):
        assert gradient is not None and gradient.isfinite().all()


@pytest.mark.usefixtures("both_ways")
def test_costs_that_eat_everything_leave_nothing():
    d, a = th.tensor([[0.0, 1.0, 0.0]]), th.tensor([[0.0, 0.0, 1.0]], requires_grad=True)
    costs = Costs(th.zeros(1, 2), th.full((1, 2), 0.9999), fee=th.tensor([0.5]))
    done = trade(d, a, None, None, costs)
    assert done.mu.item() == 0.0
    assert done.held.tolist() == [[1.0, 0.0, 0.0]]
    done.mu.sum().backward()
    assert a.grad is not None and not a.grad.any()


def test_a_limit_on_several_steps_is_refused(ragged):
    constraints = {"max_period_turnover": 1.0, "turnover_period": 5}
    with pytest.raises(ArgumentError, match="max_period_turnover"):
        DifferentiableSimulator.of(Simulator(ragged, window=1, constraints=constraints))


def test_orders_that_may_fail_are_refused(ragged):
    with pytest.raises(ArgumentError, match=r"Fills\(failure=0.1\) are not differentiable"):
        DifferentiableSimulator.of(Simulator(ragged, window=1, fills={"failure": 0.1}))


def test_bounds_of_groups_are_refused():
    limits = PortfolioConstraints(group_by="sector", group_bounds={"Tech": (0.0, 0.3)})
    with pytest.raises(ArgumentError, match="group_bounds are not differentiable"):
        ConstrainedPortfolioLayer(limits)


def test_it_moves_between_devices(ragged):
    twin = DifferentiableSimulator.of(Simulator(ragged, window=1)).to("meta")
    assert twin.after.device.type == twin.rates.device.type == "meta"
