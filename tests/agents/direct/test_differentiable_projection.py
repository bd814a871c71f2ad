"""The differentiable twin of the environment's projection: its numbers and its derivative."""

from typing import Any

import numpy as np
import pytest
import torch as th
from helpers import examples
from hypothesis import assume, given
from hypothesis import strategies as st

from agents.direct.differentiable_projection import ConstrainedPortfolioLayer
from portfolio_env import PortfolioConstraints
from portfolio_env.errors import ArgumentError
from portfolio_env.simulation.constraints import NO_LIMIT
from portfolio_env.simulation.dynamics import RULES
from portfolio_env.simulation.projection import NO_GROUPS
from portfolio_env.simulation.rebalancing import trade_lane
from portfolio_env.simulation.targets import mark_kept, softmax_numerators, target_lane

SEEDS = st.integers(0, 2**32 - 1)


def random_fields(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Constraints of every kind, each with probability a half; not always feasible."""
    long_only = bool(rng.random() < 0.6)
    fields: dict[str, Any] = {"long_only": long_only, "max_weight": float(rng.uniform(0.2, 1.2))}
    if rng.random() < 0.5:
        low = 0.0 if long_only else -fields["max_weight"]
        fields["min_weight"] = float(rng.uniform(low, 0.1 if long_only else 0.0))
    choices = {
        "top_k": lambda: int(rng.integers(1, n + 2)),
        "max_leverage": lambda: float(rng.uniform(0.5, 2)),
        "min_cash": lambda: float(rng.uniform(-0.5, 0.3)),
        "max_cash": lambda: float(rng.uniform(0.3, 1)),
        "no_trade_band": lambda: float(rng.uniform(0, 0.1)),
        "max_turnover": lambda: float(rng.uniform(0.05, 1)),
    }
    fields |= {name: draw() for name, draw in choices.items() if rng.random() < 0.5}
    if rng.random() < 0.3:
        fields |= {"max_period_turnover": float(rng.uniform(0.1, 2)), "turnover_period": 5}
    return fields


def random_drifted(rng: np.random.Generator, n: int, constraints: PortfolioConstraints) -> Any:
    """Weights near the constraints: feasible ones that the market has moved a little."""
    start = constraints.project(rng.normal(0.2, 0.5, n + 1))
    moved = start * np.exp(rng.normal(0, 0.1, n + 1))
    assume(moved.sum() > 0.1)
    return moved / moved.sum()


class Problem:
    """One random account: constraints, way of acting, drifted weights, an action."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.n = n = int(rng.integers(1, 8))
        self.constraints = PortfolioConstraints(**random_fields(rng, n))
        try:
            self.bounds = self.constraints.bounds(n)
        except ArgumentError:
            assume(False)
        self.adjustment = float(rng.choice([1.0, rng.uniform(0.05, 1)]))
        self.action = "logits" if rng.random() < 0.3 else "weights"
        self.drifted = random_drifted(rng, n, self.constraints)
        self.tradable = rng.random(n) < rng.choice([0.5, 0.8, 1.0])
        self.used = float(rng.uniform(0, 1))
        kind = rng.integers(4)
        if self.action == "logits":
            self.asked = rng.uniform(-1.3, 1.3, n + 1)
        elif kind == 0:
            self.asked = rng.normal(0.2, 10 ** rng.uniform(-1, 1), n + 1)
        elif kind == 1:  # on the simplex, rounded
            self.asked = rng.dirichlet(np.full(n + 1, 0.4)).astype(np.float32).astype(np.float64)
        elif kind == 2:  # some holdings as observed
            self.asked = np.where(rng.random(n + 1) < 0.5, self.drifted, rng.uniform(0, 1, n + 1))
        else:  # already feasible
            self.asked = self.constraints.project(rng.normal(0.2, 0.5, n + 1))

    def layer(self) -> ConstrainedPortfolioLayer:
        return ConstrainedPortfolioLayer(
            self.constraints, action=self.action, adjustment=self.adjustment
        )

    def environment(self, asked: Any, drifted: Any) -> tuple[Any, Any]:
        """The environment's own functions at zero costs: (target, held)."""
        n, limits = self.n, self.constraints
        rules = np.zeros(1, RULES)
        rules["softmax"] = self.action == "logits"
        rules["adjustment"] = self.adjustment
        rules["no_trade_band"] = limits.no_trade_band
        flags, target, held = np.zeros((6, n), np.bool_), np.zeros(n + 1), np.zeros(n + 1)
        flags[1] = ~self.tradable
        wanted = softmax_numerators(asked, 5.0) if rules["softmax"][0] else asked.copy()
        if not rules["softmax"][0]:
            mark_kept(wanted, drifted, flags[4])
        all_tradable = bool(self.tradable.all())
        given = (rules[0], self.bounds[0], NO_GROUPS)
        free = target_lane(wanted, drifted, all_tradable, *given, target, flags)
        limit = limits.max_turnover or NO_LIMIT
        if limits.max_period_turnover is not None:
            limit = min(limit, limits.max_period_turnover - self.used)
        costs = (np.zeros(n), np.zeros(n), np.zeros(0), 0.0)
        limits = (max(limit, 0.0), float(self.bounds["min_cash"][0]))
        trade_lane(drifted, target, flags[2], free, costs, limits, held)
        return target, held

    def tensors(self, dtype: th.dtype = th.float64) -> tuple[th.Tensor, ...]:
        rows = [th.tensor(x[None], dtype=dtype) for x in (self.asked, self.drifted)]
        return *rows, th.tensor(self.tradable[None]), th.tensor([self.used], dtype=dtype)


@given(SEEDS)
@examples(300)
def test_held_weights_are_the_environments(seed: int) -> None:
    problem = Problem(seed)
    target, held = problem.environment(problem.asked, problem.drifted)
    layer, rows = problem.layer(), problem.tensors()
    assert layer.target(*rows[:3]).weights[0].numpy() == pytest.approx(target, abs=1e-9)
    assert layer(*rows)[0].numpy() == pytest.approx(held, abs=1e-9)


@given(SEEDS)
@examples(150)
def test_projection_is_the_environments(seed: int) -> None:
    problem = Problem(seed)
    fixed = ~problem.tradable
    for asked in (problem.asked, problem.drifted, problem.asked * 1e3, problem.asked * 1e9):
        expected = problem.constraints.project(asked, fixed)
        found = problem.layer().project(th.tensor(asked[None]), th.tensor(fixed[None]))
        assert found[0].numpy() == pytest.approx(expected, abs=1e-6, rel=1e-6)


@given(SEEDS)
@examples(150)
def test_gradient_is_the_derivative_of_the_environment(seed: int) -> None:
    problem = Problem(seed)
    rng = np.random.default_rng(seed)
    problem.asked = problem.asked + rng.normal(0, 1e-2, problem.n + 1)  # off kept holdings
    asked, drifted, tradable, used = problem.tensors()
    jacobian = th.autograd.functional.jacobian(
        lambda a, d: problem.layer()(a, d, tradable, used)[0], (asked, drifted)
    )
    along_asked = rng.normal(0, 1, problem.n + 1)
    along_drifted = rng.normal(0, 1, problem.n + 1) * (
        problem.drifted != 0
    )  # what is not held stays so
    along_drifted[problem.drifted.argmax()] -= along_drifted.sum()
    step = 1e-8  # less than the rounding of sums that is mended by scaling

    def moved(by: float) -> Any:
        d = problem.drifted + by * along_drifted
        return problem.environment(problem.asked + by * along_asked, d)[1]

    here = moved(0.0)
    forth, back = (moved(step) - here) / step, (here - moved(-step)) / step
    assume(np.abs(forth - back).max() < 1e-4 * (1 + np.abs(forth).max()))  # else a kink is near
    found = sum(
        j[:, 0].numpy() @ v for j, v in zip(jacobian, (along_asked, along_drifted), strict=True)
    )
    assert found == pytest.approx((forth + back) / 2, abs=1e-3, rel=1e-3)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_weight": 0.4, "min_weight": 0.05, "max_cash": 0.3},
        {"top_k": 3, "max_weight": 0.5},
        {"long_only": False, "max_leverage": 1.5, "max_weight": 0.8},
        {"max_turnover": 0.2, "max_weight": 0.6},
    ],
)
@pytest.mark.parametrize("action", ["weights", "logits"])
def test_gradcheck(fields: dict[str, Any], action: Any) -> None:
    layer = ConstrainedPortfolioLayer(PortfolioConstraints(**fields), action=action)
    actions = (0.4 * th.randn(4, 6, dtype=th.float64)).requires_grad_()
    drifted = th.rand(4, 6, dtype=th.float64).softmax(1).requires_grad_()
    tradable = th.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 1, 1]] * 2)
    assert th.autograd.gradcheck(
        lambda a, d: layer(a, d / d.sum(1, keepdim=True), tradable), (actions, drifted)
    )


def test_gradient_where_nothing_is_asked_to_move_is_that_around_it() -> None:
    layer = ConstrainedPortfolioLayer(PortfolioConstraints(max_weight=0.6))
    drifted = th.tensor([[0.2, 0.3, 0.5]], dtype=th.float64)
    asked = drifted.clone().requires_grad_()
    held = layer(asked, drifted)
    assert th.allclose(held, drifted, rtol=0, atol=1e-15)
    (gradient,) = th.autograd.grad(held[0, 1], asked)
    # within the bounds, and where the sum is 1 to rounding, the layer divides by the sum
    assert gradient[0].numpy() == pytest.approx([-0.3, 0.7, -0.3], abs=1e-9)


def test_more_of_a_capped_asset_changes_nothing_and_below_its_cap_it_is_bought() -> None:
    layer = ConstrainedPortfolioLayer(PortfolioConstraints(max_weight=0.4))
    asked = th.tensor([[0.0, 0.9, 0.3, 0.1]], dtype=th.float64, requires_grad=True)
    held = layer.project(asked)  # the cap, and the others share what is left in equal parts
    assert held[0].tolist() == pytest.approx([1 / 15, 0.4, 0.3 + 1 / 15, 0.1 + 1 / 15])
    rows = [th.autograd.grad(w, asked, retain_graph=True)[0][0] for w in held[0]]
    assert (th.stack(rows)[:, 1] == 0).all()
    assert th.stack(rows)[2, 2] > 0


@given(SEEDS, st.integers(2, 50))
@examples(30)
def test_lanes_are_independent_and_assets_can_be_permuted(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    # not both, as assets that meet at a cap tie for places, which the first ones get
    some = {"max_weight": max(0.2, 2 / n)} if rng.random() < 0.5 else {"top_k": n // 2}
    constraints = PortfolioConstraints(**some, max_turnover=0.7)
    layer = ConstrainedPortfolioLayer(constraints, action="logits")
    scores = th.tensor(rng.uniform(-1, 1, (5, n + 1)))
    drifted = th.tensor(rng.dirichlet(np.ones(n + 1), 5))
    tradable = th.tensor(rng.random((5, n)) < 0.8)
    held = layer(scores, drifted, tradable)
    for i in range(5):
        part = slice(i, i + 1)
        assert th.allclose(held[part], layer(scores[part], drifted[part], tradable[part]))
    order = th.tensor(rng.permutation(n))
    columns = th.cat([th.zeros(1, dtype=th.long), 1 + order])
    permuted = layer(scores[:, columns], drifted[:, columns], tradable[:, order])
    assert th.allclose(permuted, held[:, columns], atol=1e-12)
    way = (held - drifted)[:, 1:]
    assert (way[~tradable] == 0).all()
    assert (way.abs().sum(1) <= 0.7 + 1e-12).all()
    assert th.allclose(held.sum(1), th.ones(5, dtype=th.float64))


def test_float32_is_computed_in_float64() -> None:
    layer = ConstrainedPortfolioLayer(PortfolioConstraints(max_weight=0.3))
    asked, drifted = th.randn(64, 11), th.rand(64, 11).softmax(1)
    held = layer(asked, drifted)
    assert held.dtype == th.float32
    assert th.allclose(held.double(), layer(asked.double(), drifted.double()), atol=1e-6)


def test_gradients_are_finite_where_nothing_can_move() -> None:
    layer = ConstrainedPortfolioLayer(PortfolioConstraints(max_turnover=0.1, top_k=1))
    actions = th.zeros(3, 4, requires_grad=True)
    drifted = th.tensor([[1.0, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1.0]], requires_grad=True)
    layer(actions, drifted, th.zeros(3, 3)).square().sum().backward()
    assert actions.grad is not None and drifted.grad is not None
    assert actions.grad.isfinite().all() and drifted.grad.isfinite().all()


def test_compiles_without_graph_breaks() -> None:
    constraints = PortfolioConstraints(top_k=3, max_weight=0.5, max_turnover=0.4)
    layer = ConstrainedPortfolioLayer(constraints)
    compiled = th.compile(layer, backend="eager", fullgraph=True)
    asked, drifted = th.randn(4, 6), th.rand(4, 6).softmax(1)
    assert th.allclose(compiled(asked, drifted), layer(asked, drifted))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action": "scores"}, "action"),
        ({"adjustment": 0.0}, "adjustment"),
        ({"logits_scale": -1.0}, "logits_scale"),
    ],
)
def test_bad_options_are_named(options: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        ConstrainedPortfolioLayer(PortfolioConstraints(), **options)


def test_bad_shapes_and_missing_turnover_are_named() -> None:
    layer = ConstrainedPortfolioLayer(PortfolioConstraints())
    with pytest.raises(ArgumentError, match="drifted"):
        layer(th.zeros(2, 4), th.zeros(2, 5))
    with pytest.raises(ArgumentError, match="tradable"):
        layer(th.zeros(2, 4), th.zeros(2, 4), th.ones(2, 4))
    limits = PortfolioConstraints(max_period_turnover=1.0, turnover_period=5)
    with pytest.raises(ArgumentError, match="the last 4 steps"):
        ConstrainedPortfolioLayer(limits)(th.zeros(2, 4), th.zeros(2, 4))
    with pytest.raises(ArgumentError, match="cannot reach 1"):
        layer = ConstrainedPortfolioLayer(PortfolioConstraints(max_weight=0.1, max_cash=0.1))
        layer(th.zeros(2, 4), th.zeros(2, 4))
