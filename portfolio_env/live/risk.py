"""Risk manager: weights that keep all limits together, on the way to what a policy asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.errors import ArgumentError
from portfolio_env.live.risk_limits import RiskLimits, tail_risk

Bool = NDArray[np.bool_]
Float = NDArray[np.float64]

TOLERANCE = 1e-10  # an excess above it is a broken limit
_ROUNDING = 1e-11  # of what a search accepts, above that of a projection
_SUM = 1e-6  # rounding of weights that are given
_SCAN = 33  # points of the first scan of a segment
_FINER = (9,) * 11  # and of those after it: the last step is 4e-12 of the way

EXPOSURES = (
    *("long_only", "max_weight", "group_bounds", "max_leverage", "min_cash"),
    *("max_var", "max_expected_shortfall"),
)
"""Limits on what is held; ``max_turnover`` limits what is traded, and gives way to them."""


@dataclass(frozen=True, eq=False)
class Limited:
    """Weights to hold for a wish.

    Attributes:
        weights: (N + 1,) weights to hold, cash first.
        projected: (N + 1,) the wish within the linear limits.
        step: Share in [0, 1] of the way to ``projected`` that was gone: from the holdings, or where
            they break a limit from the nearest weights found that obey.
        bound: Names of the limits that kept the wish from being held.
        broken: Excess, in fractions of wealth, over every limit that the weights still break.
        excess: Measures of any weights less the limits at this decision.
    """

    weights: Float
    projected: Float
    step: float
    bound: tuple[str, ...]
    broken: Mapping[str, float]
    excess: Excess = field(repr=False)


def limited(
    wish: ArrayLike,
    holdings: ArrayLike,
    limits: RiskLimits,
    returns: ArrayLike | None = None,
    *,
    fixed: ArrayLike | None = None,
    labels: Sequence[str] = (),
    stopped: bool = False,
) -> Limited:
    """Return the weights to hold for a wish, so that all limits hold together.

    Positions that exceed a linear limit are made smaller, and cash takes the rest; what still
    breaks one, as too little of a group does, is projected onto all of them. The result is the
    farthest point found on the segment from the holdings to it at which every limit holds. Holdings
    that break a limit on what is held are first projected, and moved towards cash, until they break
    none, or the least that this reaches; ``max_turnover`` gives way as far as that needs, and no
    further.

    Args:
        wish: (N + 1,) weights that are asked for, cash first.
        holdings: (N + 1,) weights before trading, summing to 1.
        limits: The limits.
        returns: (K, N) simple returns of the assets, the latest last, for ``max_var`` and
            ``max_expected_shortfall``; the last ``lookback`` count. A missing one (NaN) is taken to
            be the mean of the other assets at that bar.
        fixed: (N,) bool, assets that cannot be traded.
        labels: (N,) the group of each asset, needed with ``group_bounds``.
        stopped: Whether a drawdown stop holds: the wish is cash, and ``max_turnover`` is not
            applied.

    Raises:
        ArgumentError: If weights are none, or the returns are missing or too few.
    """
    held = _weights("holdings", holdings, None)
    wanted = _weights("wish", wish, len(held))
    n = len(held) - 1
    if abs(held.sum() - 1) > _SUM:
        raise ArgumentError(f"holdings sum to {held.sum():.9g} and must sum to 1.")
    kept = np.zeros(n, np.bool_) if fixed is None else np.array(fixed, np.bool_)
    if stopped:
        wanted, limits = np.eye(1, n + 1)[0], replace(limits, max_turnover=None)
    wanted[1:][kept] = held[1:][kept]
    excess = Excess(limits, held, _checked_returns(returns, limits, n), labels)
    projected = excess.constraints.project(_smaller(wanted, kept, excess), kept, labels)
    start = _start(held, excess, kept)
    allowed = np.maximum(excess(start), 0.0)
    step = _farthest(start, projected, lambda points: excess(points) - allowed)
    if step is None:
        raise ArithmeticError("the start of a search must pass its own test")
    weights = _between(start, projected, step)
    weights[1:][kept] = held[1:][kept]  # to the last bit
    missed = excess(np.array([wanted, projected])).max(axis=0) > TOLERANCE
    bound = [name for name, misses in zip(excess.names, missed, strict=True) if misses]
    return Limited(
        weights=weights,
        projected=projected,
        step=step,
        bound=(("max_drawdown",) if stopped else ()) + tuple(bound),
        broken=excess.broken(weights),
        excess=excess,
    )


class Excess:
    """Measures of weights less their limits, of one decision.

    Args:
        limits: The limits.
        held: (N + 1,) weights before trading.
        returns: (K, N) returns, or None where they are not needed.
        labels: (N,) the group of each asset.
    """

    names = (*EXPOSURES, "max_turnover")

    def __init__(
        self, limits: RiskLimits, held: Float, returns: Float | None, labels: Sequence[str]
    ) -> None:
        self.limits, self.held, self.returns = limits, held, returns
        self.constraints, self.labels = limits.constraints, labels
        self.bounds = self.constraints.bounds(len(held) - 1, labels)[0]
        groups = limits.group_bounds or {}
        self.members = np.array([[each == label for each in labels] for label in groups], float)
        self.group_bounds = np.array(list(groups.values()), np.float64).reshape(-1, 2)

    def __call__(self, points: Float) -> Float:
        """Return (..., L) measures of (..., N + 1) weights less the L limits, -inf without one."""
        own, bounds, limits = points[..., 1:], self.bounds, self.limits
        sizes = np.abs(own)
        none = np.full(own.shape[:-1], -np.inf)
        var = shortfall = group = none
        if len(self.group_bounds):
            sums = own @ self.members.T
            group = np.maximum(self.group_bounds[:, 0] - sums, sums - self.group_bounds[:, 1])
            group = group.max(axis=-1)
        if self.returns is not None:
            risk = tail_risk(self.returns, own, limits.confidence, limits.half_life)
            var = none if limits.max_var is None else risk[0] - limits.max_var
            most = limits.max_expected_shortfall
            shortfall = none if most is None else risk[1] - most
        turnover = none
        if limits.max_turnover is not None:
            turnover = np.abs(own - self.held[1:]).sum(axis=-1) - limits.max_turnover
        columns = (
            -own.min(axis=-1) if limits.long_only else none,
            sizes.max(axis=-1) - float(bounds["max_weight"]),
            group,
            sizes.sum(axis=-1) - float(bounds["max_leverage"]),
            float(bounds["min_cash"]) - points[..., 0],
            var,
            shortfall,
            turnover,
        )
        return np.stack(columns, axis=-1)

    def broken(self, weights: Float) -> dict[str, float]:
        """Return the excess of (N + 1,) weights over every limit that they break."""
        over = zip(self.names, self(weights).tolist(), strict=True)
        return {name: each for name, each in over if each > TOLERANCE}

    def exposures(self, points: Float) -> Float:
        """Return the measures of what is held alone, see ``__call__``."""
        return self(points)[..., : len(EXPOSURES)]


def _smaller(wish: Float, kept: Bool, excess: Excess) -> Float:
    """Return a wish with smaller positions and more cash, as far as upper limits ask for it.

    A projection would spread what a position exceeds over all other assets, which nobody asked for.
    """
    if abs(wish.sum() - 1) > _SUM:
        return wish
    own, limits, bounds = wish[1:].copy(), excess.limits, excess.bounds

    def shrink(where: Bool, over: float) -> None:
        size = np.abs(own[where]).sum()
        if over > 0 and size > 0:
            own[where] *= max(0.0, 1.0 - over / size)

    most = float(bounds["max_weight"])
    own[~kept] = np.clip(own[~kept], 0.0 if limits.long_only else -most, most)
    for members, (low, high) in zip(excess.members > 0, excess.group_bounds, strict=True):
        total = own[members].sum()
        shrink(members & ~kept & (own > 0), total - high)
        shrink(members & ~kept & (own < 0), min(low, 0.0) - total)
    shrink(~kept, np.abs(own).sum() - float(bounds["max_leverage"]))
    shrink(~kept & (own > 0), own.sum() - (1.0 - float(bounds["min_cash"])))
    return wish if np.array_equal(own, wish[1:]) else np.r_[1.0 - own.sum(), own]


def _start(held: Float, excess: Excess, kept: Bool) -> Float:
    """Return the holdings where they obey, or else the nearest weights found that do.

    The projected holdings obey all linear limits, and so do all weights on the way from there to
    cash. Where none obeys the others, those of least excess.
    """
    if excess.exposures(held).max() <= _ROUNDING:
        return held
    project = excess.constraints.project
    nearest = project(held, kept, excess.labels)
    cash = np.where(np.r_[False, kept], held, 0.0)
    cash[0] = 1.0 - cash[1:].sum()
    cash = project(cash, kept, excess.labels)
    share = _farthest(cash, nearest, excess.exposures)
    if share is not None:
        return _between(cash, nearest, share)
    found = np.vstack([held, _between(cash, nearest, np.linspace(1.0, 0.0, _SCAN)[:, None])])
    worst = excess.exposures(found).max(axis=-1)
    return np.array(found[np.argmax(worst <= worst.min() + _ROUNDING)])


def _farthest(start: Float, end: Float, over: Callable[[Float], Float]) -> float | None:
    """Return the largest share of the way found at which nothing is over; None if there is none.

    Value at risk is not convex in the weights, so that what passes need not be one piece of the
    segment: a scan finds the farthest, and further scans the end of that.
    """
    low, high = 0.0, 1.0
    for points in (_SCAN, *_FINER):
        shares = np.linspace(low, high, points)
        passed = np.flatnonzero(
            (over(_between(start, end, shares[:, None])) <= _ROUNDING).all(axis=-1)
        )
        if not len(passed):
            return None if points == _SCAN else low
        last = int(passed[-1])
        if last == points - 1:
            return float(shares[last])
        low, high = float(shares[last]), float(shares[last + 1])
    return low


def _between(start: Float, end: Float, share: float | Float) -> Float:
    """Return the weights at shares of the way, exactly the ends at 0 and 1."""
    return (1.0 - share) * start + share * end


def _weights(name: str, value: ArrayLike, length: int | None) -> Float:
    out = np.array(value, np.float64)
    if out.ndim != 1 or len(out) < 2 or length not in (None, len(out)):
        wanted = "(N + 1,)" if length is None else f"({length},)"
        raise ArgumentError(f"{name} has shape {out.shape} and must be {wanted}, cash first.")
    if not np.isfinite(out).all():
        raise ArgumentError(f"{name}={out.tolist()} must be finite.")
    return out


def _checked_returns(returns: ArrayLike | None, limits: RiskLimits, n: int) -> Float | None:
    """Return (K, N) returns without gaps; None where no limit needs them."""
    if not limits.measures_returns:
        return None
    past = np.full((0, n), np.nan) if returns is None else np.array(returns, np.float64)
    if past.ndim != 2 or past.shape[1] != n:
        raise ArgumentError(f"returns have shape {past.shape} and must be (K, {n}).")
    past = past[-limits.lookback :]
    known = np.isfinite(past)
    past, known = past[known.any(axis=1)], known[known.any(axis=1)]
    if len(past) < limits.least_bars:
        raise ArgumentError(
            f"max_var and max_expected_shortfall at confidence={limits.confidence:g} need "
            f"{limits.least_bars} or more bars of returns, not {len(past)}: start later, or lower "
            "the confidence."
        )
    mean = np.where(known, past, 0.0).sum(axis=1) / known.sum(axis=1)
    return np.where(known, past, mean[:, None])
