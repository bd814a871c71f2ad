"""Differentiable map from actions to feasible weights as in the environment, for batches.

The numbers are those of ``simulation.targets`` and ``simulation.projection``. Away from kinks
the gradients are the exact derivative: the map is piecewise smooth, which piece applies is found
without gradients, and the piece is then evaluated with them. Everything is computed in float64, as
in the environment, and returned in the type of the actions.
"""

from typing import Literal, NamedTuple

import torch as th
from torch import Tensor, nn

from portfolio_env.checks import check_choice, check_number
from portfolio_env.errors import ArgumentError
from portfolio_env.simulation.constraints import NO_LIMIT, PortfolioConstraints
from portfolio_env.simulation.projection import FAR, SUM_ROUNDING, SUM_TOLERANCE

_ROUNDING = 1e-12


class Bounds(NamedTuple):
    """``PortfolioConstraints.bounds`` for one number of assets, as plain numbers."""

    min_weight: float
    max_weight: float
    min_cash: float
    max_cash: float
    max_leverage: float
    top_k: int
    long_only: bool
    trivial: bool


class Target(NamedTuple):
    """Target of a rebalancing, before costs and turnover limits.

    Attributes:
        weights: (batch, 1 + N) feasible weights, cash first.
        fixed: (batch, N) bool, assets that do not trade; their weight is the drifted one.
        free: (batch,) wealth that cash and the other assets share.
    """

    weights: Tensor
    fixed: Tensor
    free: Tensor


class ConstrainedPortfolioLayer(nn.Module):
    """Map actions to the weights that the environment would hold if trading were free of cost.

    Args:
        constraints: The environment's, all of them are followed but ``group_bounds``, which are
            refused.
        action: ``"weights"``, or ``"logits"``: ``score_weights`` of scores clipped to [-1, 1].
        logits_scale: As in the environment.
        adjustment: As in the environment, fraction in (0, 1] of the way that is gone each step.
    """

    def __init__(
        self,
        constraints: PortfolioConstraints,
        *,
        action: Literal["weights", "logits"] = "weights",
        logits_scale: float = 5.0,
        adjustment: float = 1.0,
    ) -> None:
        super().__init__()
        check_choice("action", action, ("weights", "logits"))
        check_number("adjustment", adjustment, above=0, high=1)
        check_number("logits_scale", logits_scale, above=0, high=100)
        if constraints.group_bounds is not None:
            raise ArgumentError(
                "group_bounds are not differentiable here; leave them out, or train with "
                "reinforcement learning, whose environment projects onto them"
            )
        self.constraints = constraints
        self.softmax = action == "logits"
        self.logits_scale = logits_scale
        self.adjustment = adjustment

    def forward(
        self,
        actions: Tensor,
        drifted: Tensor,
        tradable: Tensor | None = None,
        used: Tensor | None = None,
    ) -> Tensor:
        """Return the weights after a cost-free trade towards the actions, within turnover limits.

        Args:
            actions: (batch, 1 + N) scores or weights, cash first, finite.
            drifted: (batch, 1 + N) weights before trading, summing to 1.
            tradable: (batch, N), 1 or 0; None means all are.
            used: (batch,) turnover of the last ``turnover_period - 1`` steps; needed with
                ``max_period_turnover``.

        Returns:
            (batch, 1 + N), summing to 1, in the type of ``actions``.

        Raises:
            ArgumentError: On shapes that do not match, constraints that no portfolio of N assets
                satisfies, or a missing ``used``.
        """
        limits = self.constraints
        if limits.max_period_turnover is not None and used is None:
            raise ArgumentError(
                f"max_period_turnover={limits.max_period_turnover:g} needs `used`, the turnover of "
                f"the last {(limits.turnover_period or 1) - 1} steps"
            )
        target = self.target(actions, drifted, tradable)
        before = drifted.double()
        way = target.weights - before
        way = th.where(target.free[:, None] > 0, way, 0.0)
        limit = before.new_full((len(before),), limits.max_turnover or NO_LIMIT)
        if used is not None and limits.max_period_turnover is not None:
            limit = th.minimum(limit, limits.max_period_turnover - used.double())
        limit = limit.clamp(min=0.0)
        turnover = way[:, 1:].abs().sum(1)
        over = turnover > limit
        cut = th.where(over, limit, 1.0) / th.where(over, turnover, 1.0)
        return (before + cut[:, None] * way).to(actions.dtype)

    def target(self, actions: Tensor, drifted: Tensor, tradable: Tensor | None = None) -> Target:
        """Return the feasible target before costs and turnover limits; arguments as in ``forward``.

        An asset whose asked weight is the drifted one to the last bit of float32 is not traded,
        as in the environment. Such points are isolated; the gradient there is that around them.
        """
        n = drifted.shape[-1] - 1
        if actions.ndim != 2 or actions.shape != drifted.shape or n < 1:
            raise ArgumentError(
                f"actions {tuple(actions.shape)} and drifted {tuple(drifted.shape)} must both be "
                "(batch, 1 + N), cash first"
            )
        stuck = th.zeros_like(drifted[:, 1:], dtype=th.bool) if tradable is None else tradable <= 0
        if stuck.shape != drifted[:, 1:].shape:
            raise ArgumentError(
                f"tradable has shape {tuple(stuck.shape)}, expected {tuple(drifted[:, 1:].shape)}"
            )
        d = drifted.double()
        bounds = bounds_of(self.constraints, n)
        if self.softmax:
            asked = score_weights(actions.double().clamp(-1.0, 1.0), self.logits_scale, bounds)
            return self._target(asked, d, stuck, stuck, bounds)
        asked = actions.double()
        around = self._target(asked, d, stuck, stuck, bounds)
        same = (actions[:, 1:].float() == d[:, 1:].float()) & (d[:, 1:] != 0)
        with th.no_grad():
            exact = self._target(asked, d, stuck, stuck | same, bounds)
        correction = (exact.weights - around.weights).detach()
        return Target(around.weights + correction, exact.fixed, exact.free)

    def project(self, weights: Tensor, fixed: Tensor | None = None) -> Tensor:
        """Return the nearest weights that satisfy all constraints but the turnover limits.

        The counterpart of ``PortfolioConstraints.project``.

        Args:
            weights: (batch, 1 + N) asked weights, cash first, finite, any sum.
            fixed: (batch, N) bool, assets that keep their weight.

        Returns:
            (batch, 1 + N), in the type of ``weights``.
        """
        bounds = bounds_of(self.constraints, weights.shape[-1] - 1)
        kept = th.zeros_like(weights[:, 1:], dtype=th.bool) if fixed is None else fixed
        return _project(weights.double(), kept, bounds).to(weights.dtype)

    def _target(
        self, asked: Tensor, d: Tensor, untradable: Tensor, kept: Tensor, bounds: Bounds
    ) -> Target:
        a = asked
        if not (bounds.trivial and self.softmax):
            a = _project(a, th.zeros_like(untradable), bounds)
        if self.adjustment < 1:
            a = d + self.adjustment * (a - d)
        fixed = kept
        if self.constraints.no_trade_band > 0:
            fixed = fixed | ((a - d)[:, 1:].abs() <= self.constraints.no_trade_band)
        stuck = fixed.any(1, keepdim=True)
        borrows = not bounds.long_only or bounds.min_cash < 0
        shared, free = share_rest(d, a, fixed, borrows)
        a = th.where(stuck, shared, a)
        if not bounds.trivial:
            again = stuck | (self.adjustment < 1)
            a = th.where(again, _project(a, untradable, bounds), a)
            # the bounds may move what is merely kept
            moved = fixed & ~untradable & ((a - d)[:, 1:].abs() > SUM_ROUNDING)
            if not borrows:
                free = free + th.where(moved, d[:, 1:], 0.0).sum(1)
            fixed = fixed & ~moved
        return Target(a, fixed, free)


def score_weights(scores: Tensor, scale: float, bounds: Bounds) -> Tensor:
    """Return the weights (batch, 1 + N) of scores in [-1, 1].

    The counterpart of ``portfolio_env.simulation.targets.score_weights``.

    Args:
        scores: (batch, 1 + N), cash first.
        scale: ``logits_scale`` of the environment.
        bounds: Bounds of N assets, see ``bounds_of``.
    """
    logits = scale * scores
    if bounds.long_only and bounds.min_cash >= 0:
        return th.softmax(logits, 1)
    if bounds.long_only:
        risky = (1 - bounds.min_cash) * th.softmax(logits, 1)[:, 1:]
    else:
        above = logits[:, 1:] - logits[:, :1]
        slots = th.softmax(th.cat([th.zeros_like(above[:, :1]), above, -above], 1), 1)
        bought, sold = slots[:, 1:].chunk(2, 1)
        risky = bounds.max_leverage * (bought - sold)
    return th.cat([1 - risky.sum(1, keepdim=True), risky], 1)


def scaled_weights(weights: Tensor, scales: Tensor, bounds: Bounds) -> Tensor:
    """Return weights (batch, 1 + N) with those of assets multiplied, and cash for the rest.

    All are scaled down together where they exceed what the account may invest.

    Args:
        weights: (batch, 1 + N), cash first.
        scales: (batch, N), at least 0.
        bounds: Bounds of N assets, see ``bounds_of``.
    """
    most = 1 - min(bounds.min_cash, 0.0) if bounds.long_only else bounds.max_leverage
    risky = scales * weights[:, 1:]
    risky = risky * (most / risky.abs().sum(1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)
    return th.cat([1 - risky.sum(1, keepdim=True), risky], 1)


def bounds_of(constraints: PortfolioConstraints, n_assets: int) -> Bounds:
    """Return the bounds of so many assets as plain numbers."""
    return Bounds(*constraints.bounds(n_assets)[0].tolist())


# Bounds do not change: ``torch.compile`` may take them as they are, and the graph stays whole.
# ``torch.compiler.assume_constant_result`` sets the same, but imports the compiler (2 s) for it.
bounds_of._dynamo_marked_constant = True  # type: ignore[attr-defined]  # of torch


def share_rest(d: Tensor, a: Tensor, fixed: Tensor, borrows: bool) -> tuple[Tensor, Tensor]:
    """Keep ``d`` of fixed assets; split the rest of the wealth as asked, or else hold it in cash.

    Where an account ``borrows``, the others are as asked, and cash makes up for the difference.

    Returns:
        (batch, 1 + N) weights, and (batch,) the wealth that is shared, see
        ``portfolio_env.simulation.targets.target_lane``.
    """
    if borrows:
        assets = th.where(fixed, d[:, 1:], a[:, 1:])
        return th.cat([1.0 - assets.sum(1, keepdim=True), assets], 1), th.ones_like(d[:, 0])
    rest = 1.0 - th.where(fixed, d[:, 1:], 0.0).sum(1)
    free = th.where(rest.abs() <= max(SUM_ROUNDING, 2 * th.finfo(d.dtype).eps), 0.0, rest)
    moving = th.where(fixed, 0.0, a[:, 1:])
    asked = a[:, 0] + moving.sum(1)
    split = (asked > 1e-12) & (free > 0)
    scale = th.where(split, free, 0.0) / th.where(split, asked, 1.0)
    assets = th.where(fixed, d[:, 1:], scale[:, None] * moving)
    cash = th.where(split, scale * a[:, 0], rest)  # a rest of 0 has a derivative, too
    return th.cat([cash[:, None], assets], 1), free


def _project(w: Tensor, fixed: Tensor, bounds: Bounds) -> Tensor:
    """Project as ``simulation.projection.project_lane`` does, for batches and with gradients."""
    n = w.shape[1] - 1
    if bounds.top_k < n:
        keep = fixed | _largest(w.detach()[:, 1:], fixed, bounds.top_k)
        w = th.cat([w[:, :1], th.where(keep, w[:, 1:], 0.0)], 1)
        fixed = fixed | ~keep
    total = 1.0 - th.where(fixed, w[:, 1:], 0.0).sum(1, keepdim=True)
    moves = th.cat([th.ones_like(fixed[:, :1]), ~fixed], 1)
    asked = th.where(moves, w, 0.0).sum(1, keepdim=True)
    near = ((asked - total).abs() <= SUM_TOLERANCE) & (asked > 0)
    scale = th.where(near, total, 1.0) / th.where(near, asked, 1.0)
    w = th.where(moves, _nearest_sum(scale * w, moves, bounds, total), w)
    return w if bounds.long_only else _limit_leverage(w, fixed, bounds)


def _largest(weights: Tensor, fixed: Tensor, k: int) -> Tensor:
    """Return the tradable assets of largest weight; fixed holdings use up places first."""
    places = k - (fixed & (weights != 0)).sum(1, keepdim=True)
    size = th.where(fixed, -1.0, weights.abs())
    rank = size.argsort(dim=1, descending=True, stable=True).argsort(1)
    return ~fixed & (rank < places)


def _nearest_sum(w: Tensor, moves: Tensor, bounds: Bounds, total: Tensor) -> Tensor:
    """Project the moving slots onto ``{sum = total, low <= w <= high}``, in the Euclidean norm.

    It is ``clip(w - tau, low, high)``: which slots end at a bound is found without gradients, the
    sum of the others then gives tau, differentiably.
    """
    low = th.full_like(w, bounds.min_weight)
    high = th.full_like(w, bounds.max_weight)
    low[:, 0], high[:, 0] = bounds.min_cash, bounds.max_cash
    low_sum = th.where(moves, low, 0.0).sum(1, keepdim=True)
    high_sum = th.where(moves, high, 0.0).sum(1, keepdim=True)
    top = th.where(moves, w, -th.inf).amax(1, keepdim=True).detach()
    w = th.where(moves, (w - top).clamp(min=-FAR), 0.0)
    with th.no_grad():
        shifted = w - _shift(w, low, high, moves, total, high_sum)
    # a slot at its bound may leave it: gradients pass there
    inside = moves & (shifted >= low - _ROUNDING) & (shifted <= high + _ROUNDING)
    at_bound = th.where(inside | ~moves, 0.0, th.where(shifted < low, low, high))
    count = inside.sum(1, keepdim=True).clamp(min=1)
    rest = th.where(inside, w, at_bound).sum(1, keepdim=True) - total
    nearest = th.where(inside, w - rest / count, at_bound)
    nearest = nearest + (nearest.clamp(low, high) - nearest).detach()
    full, empty = high_sum <= total, low_sum >= total
    filled = _fill_to_bounds(moves, bounds, total, full)
    return th.where(full | empty, filled, nearest)


def _shift(
    w: Tensor, low: Tensor, high: Tensor, moves: Tensor, total: Tensor, high_sum: Tensor
) -> Tensor:
    """Return tau (batch, 1) at which moving slots ``clip(w - tau, low, high)`` sum to ``total``.

    The sum falls piecewise linearly in tau, from ``high_sum``; slots start to fall at ``w - high``
    and stop at ``w - low``.
    """
    one = moves.to(w.dtype)
    points, order = th.cat([w - high, w - low], 1).sort(1)
    falling = th.cat([one, -one], 1).gather(1, order).cumsum(1)  # slots that fall after each point
    fallen = (falling[:, :-1] * points.diff(dim=1)).cumsum(1)
    height = high_sum - th.cat([th.zeros_like(high_sum), fallen], 1)
    piece = ((height >= total).sum(1, keepdim=True) - 1).clamp(min=0)
    beyond = (height.gather(1, piece) - total) / falling.gather(1, piece).clamp(min=1.0)
    return points.gather(1, piece) + beyond


def _fill_to_bounds(moves: Tensor, bounds: Bounds, total: Tensor, upper: Tensor) -> Tensor:
    """Put all assets at one bound where no weights meet bounds and sum; cash takes the rest."""
    count = moves[:, 1:].sum(1, keepdim=True).to(total.dtype)
    low, high = count * bounds.min_weight, count * bounds.max_weight
    short = ~upper & (low > 0) & (total - low < bounds.min_cash)
    left = (total - total.clamp(min=0.0).clamp(max=bounds.min_cash)).clamp(min=0.0)
    assets = th.where(upper, high, th.where(short, left, low))
    each = assets / count.clamp(min=1)
    return th.cat([total - assets, each.expand(-1, moves.shape[1] - 1)], 1)


def _limit_leverage(w: Tensor, fixed: Tensor, bounds: Bounds) -> Tensor:
    """Limit the gross exposure as ``simulation.projection._limit_leverage`` does, for batches."""
    free = th.where(fixed, 0.0, w[:, 1:])
    stuck = th.where(fixed, w[:, 1:], 0.0).abs().sum(1, keepdim=True)
    longs, shorts = (side.clamp(min=0.0).sum(1, keepdim=True) for side in (free, -free))
    gross = longs + shorts
    over = (gross + stuck > bounds.max_leverage + SUM_ROUNDING) & (gross > 0)
    left = (bounds.max_leverage - stuck).clamp(min=0.0)
    scale = th.where(over, left, 1.0) / th.where(over, gross, 1.0)
    wealth = w[:, :1] + longs - shorts
    cash = wealth - scale * (longs - shorts)
    nearest = cash.clamp(bounds.min_cash, bounds.max_cash)
    apart = over & ((cash - nearest).abs() > SUM_ROUNDING)
    net = th.minimum(th.maximum(wealth - nearest, -left), left)
    up, down = (
        th.where(apart, (half / th.where(side > 0, side, 1.0)).clamp(max=1.0), scale)
        for half, side in ((0.5 * (left + net), longs), (0.5 * (left - net), shorts))
    )
    assets = th.where(fixed, w[:, 1:], th.where(w[:, 1:] > 0, up, down) * w[:, 1:])
    rest = w[:, :1] + (w[:, 1:] - assets).sum(1, keepdim=True)
    return th.cat([rest, assets], 1)
