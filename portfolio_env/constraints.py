"""PortfolioConstraints, and the projection of target weights onto them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.compiled import kernel
from portfolio_env.errors import ArgumentError

NO_LIMIT = np.inf
# Sums this close to 1 come from rounding (float32 weights): they are rescaled, which keeps zeros
# zero.
SUM_TOLERANCE = 1e-6
SUM_ROUNDING = 1e-13  # and these need no mending at all
# So far below the largest, an asked weight is at its lower bound whatever it is exactly.
FAR = 1e6


# PortfolioConstraints resolved for a number of assets: a record that compiled code reads by field
# name.
BOUNDS = np.dtype(
    [
        ("min_weight", np.float64),
        ("max_weight", np.float64),
        ("min_cash", np.float64),
        ("max_cash", np.float64),
        ("max_leverage", np.float64),
        ("top_k", np.int64),
        ("long_only", np.bool_),
        ("trivial", np.bool_),  # every long-only, unlevered portfolio satisfies them
    ]
)


@dataclass(frozen=True)
class PortfolioConstraints:
    """Which portfolios may be held and how fast they may be reached; frozen, validated, JSON-able.

    The asked weights are projected: the ``top_k`` largest targets are kept, then the Euclidean
    projection onto ``{sum w = 1, min <= w_i <= max, min_cash <= w_0 <= max_cash}`` (exact), then
    risky weights are scaled towards zero if their gross sum exceeds ``max_leverage``, and last the
    trades are cut short, along the segment from drifted to target weights, where they exceed a
    turnover limit. Turnover limits win over the others: a portfolio that the market moved out of
    its bounds returns only as fast as they allow.

    Attributes:
        long_only: No short positions.
        top_k: At most this many assets are held; None is all.
        min_weight: Lower bound of every asset (of every *held* asset with ``top_k``); None means 0,
            or
            ``-max_weight`` where shorts are allowed.
        max_weight: Upper bound of every asset, in (0, ...].
        max_turnover: Largest traded notional of one step over wealth (a full switch is 2); None is
            no limit.
        max_period_turnover: Largest sum of turnovers over any ``turnover_period`` consecutive
            steps.
        turnover_period: Steps of the rolling period, needed with ``max_period_turnover``.
        max_leverage: Largest gross exposure ``sum |w_i|`` of the assets; above 1, cash may be
            negative.
        min_cash: Lower bound of the cash weight; None means ``1 - max_leverage`` (0 if unlevered).
        max_cash: Upper bound of the cash weight; None means no bound.
        no_trade_band: An asset whose target is within this distance of its drifted weight is not
            traded.
    """

    long_only: bool = True
    top_k: int | None = None
    min_weight: float | None = None
    max_weight: float = 1.0
    max_turnover: float | None = None
    max_period_turnover: float | None = None
    turnover_period: int | None = None
    max_leverage: float = 1.0
    min_cash: float | None = None
    max_cash: float | None = None
    no_trade_band: float = 0.0

    def __post_init__(self) -> None:
        """Check each field by itself and against the others."""
        for name in ("max_weight", "max_leverage", "max_turnover", "max_period_turnover"):
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:
                raise ArgumentError(f"{name}={value!r} must be a positive finite number.")
        for name in ("top_k", "turnover_period"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ArgumentError(f"{name}={value!r} must be an integer of 1 or more.")
        if (self.max_period_turnover is None) != (self.turnover_period is None):
            raise ArgumentError(
                f"max_period_turnover={self.max_period_turnover!r} and "
                f"turnover_period={self.turnover_period!r} go together; give both or neither."
            )
        if not 0 <= self.no_trade_band < 1:
            raise ArgumentError(f"no_trade_band={self.no_trade_band!r} must be in [0, 1).")
        low = 0.0 if self.long_only else -self.max_weight
        if self.min_weight is not None and not low <= self.min_weight <= self.max_weight:
            raise ArgumentError(
                f"min_weight={self.min_weight!r} must be in [{low:g}, "
                f"max_weight={self.max_weight:g}]" + (" (long_only)." if self.long_only else ".")
            )
        if not self.long_only and self.min_weight is not None and self.min_weight > 0:
            raise ArgumentError(
                f"min_weight={self.min_weight!r} must not be positive with long_only=False; use "
                "long_only."
            )
        for name in ("min_cash", "max_cash"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(value):
                raise ArgumentError(f"{name}={value!r} must be finite, or None for no bound.")

    def bounds(self, n_assets: int) -> NDArray[np.void]:
        """The numbers compiled code needs, once the number of assets is known.

        Args:
            n_assets: Assets a lane trades.

        Returns:
            (1,) record array of ``BOUNDS``.

        Raises:
            ArgumentError: If no portfolio of that many assets satisfies the constraints.

        >>> float(PortfolioConstraints(max_weight=0.4).bounds(5)["max_cash"][0])
        1.0
        """
        held = n_assets if self.top_k is None else min(self.top_k, n_assets)
        floor = 0.0 if self.long_only else -self.max_weight
        low = floor if self.min_weight is None else self.min_weight
        min_cash = 1.0 - self.max_leverage if self.min_cash is None else self.min_cash
        unbounded = 1.0 if self.long_only else 1.0 + self.max_leverage
        max_cash = unbounded if self.max_cash is None else self.max_cash
        if min_cash > max_cash:
            raise ArgumentError(
                f"min_cash={min_cash:g} exceeds max_cash={max_cash:g}; swap or widen them."
            )
        if held * low + min_cash > 1 + 1e-12:
            raise ArgumentError(
                f"min_weight={low:g} x {held} assets + min_cash={min_cash:g} = "
                f"{held * low + min_cash:g} exceeds 1; lower min_weight to at most "
                f"{(1 - min_cash) / held:g}."
            )
        reach = min(held * self.max_weight, self.max_leverage)
        if reach + max_cash < 1 - 1e-12:
            raise ArgumentError(
                f"{held} assets x max_weight={self.max_weight:g} (leverage {self.max_leverage:g}) "
                f"+ max_cash={max_cash:g} = {reach + max_cash:g} cannot reach 1; raise max_weight "
                "or max_cash."
            )
        trivial = (
            self.long_only
            and held == n_assets
            and low <= 0
            and self.max_weight >= 1
            and self.max_leverage >= 1
            and min_cash <= 0
            and max_cash >= 1
        )
        record = np.zeros(1, BOUNDS)
        record[0] = (
            low,
            self.max_weight,
            min_cash,
            max_cash,
            self.max_leverage,
            held,
            self.long_only,
            trivial,
        )
        return record

    def box(self, n_assets: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The least box of float32 numbers that holds every portfolio within the constraints.

        It is the action space of an environment with ``action="weights"``: such an action is
        clipped to it and then projected, so that it means the same whoever clips it first.

        Args:
            n_assets: Assets a lane trades.

        Returns:
            (N + 1,) lowest and (N + 1,) highest weights, cash first, rounded outwards.

        Raises:
            ArgumentError: If no portfolio of that many assets satisfies the constraints.

        >>> low, high = PortfolioConstraints(max_weight=0.75).box(2)
        >>> low.tolist(), high.tolist()
        ([0.0, 0.0, 0.0], [1.0, 0.75, 0.75])
        """
        bounds = self.bounds(n_assets)[0]
        low = np.full(n_assets + 1, bounds["min_weight"])
        high = np.full(n_assets + 1, min(bounds["max_weight"], bounds["max_leverage"]))
        if bounds["top_k"] < n_assets:  # those that are not held have weight 0
            low = np.minimum(low, 0.0)
        low[0], high[0] = bounds["min_cash"], bounds["max_cash"]
        return _rounded(low, -np.inf), _rounded(high, np.inf)

    def project(self, weights: ArrayLike, fixed: ArrayLike | None = None) -> NDArray[np.float64]:
        """Nearest weights that satisfy all constraints but the turnover limits.

        Args:
            weights: (..., N + 1) asked weights, cash first, finite, any sum.
            fixed: (..., N) bool, assets whose given weight must stay as it is (they cannot be
                traded).

        Returns:
            (..., N + 1) float64, summing to 1. Weights that already satisfy the constraints return
            unchanged.

        Raises:
            ArgumentError: If the weights are not finite, or no portfolio satisfies the constraints.

        >>> PortfolioConstraints(max_weight=0.4).project([0.0, 1.0, 0.0]).round(12).tolist()
        [0.3, 0.4, 0.3]
        """
        out = np.array(weights, dtype=np.float64)
        if out.ndim == 0 or out.shape[-1] < 2 or not np.isfinite(out).all():
            raise ArgumentError("weights must be a finite (..., N + 1) array, cash first.")
        rows = out.reshape(-1, out.shape[-1])
        kept = np.zeros((len(rows), rows.shape[1] - 1), dtype=np.bool_)
        if fixed is not None:
            kept[:] = np.asarray(fixed, dtype=np.bool_).reshape(-1, kept.shape[1])
        bounds = self.bounds(kept.shape[1])[0]
        for row, keep in zip(rows, kept, strict=True):
            project_lane(row, keep, bounds)
        return rows.reshape(out.shape)


def _rounded(values: NDArray[np.float64], towards: float) -> NDArray[np.float32]:
    """The nearest float32 numbers on one side, so that no weight within bounds is cut off."""
    out = values.astype(np.float32)
    short = out < values if towards > 0 else out > values
    return np.where(short, np.nextafter(out, np.float32(towards)), out)


@kernel
def project_lane(w: NDArray[np.float64], fixed: NDArray[np.bool_], bounds: Any) -> None:
    """Project one lane's weights in place onto the bounds; fixed assets keep their weight.

    Where fixed holdings make the bounds unreachable they are met as nearly as possible: cash takes
    what the assets may not hold, and lower bounds are scaled down to the wealth that is left.
    """
    n = w.shape[0] - 1
    if bounds.top_k < n:
        fixed = _drop_all_but_largest(w, fixed, bounds.top_k)
    free = 1.0  # wealth left for cash and the assets that can be traded
    for i in range(n):
        if fixed[i]:
            free -= w[i + 1]
    total = w[0]
    for i in range(n):
        if not fixed[i]:
            total += w[i + 1]
    off = abs(total - free)
    if SUM_ROUNDING < off <= SUM_TOLERANCE and total > 0:
        for i in range(n + 1):
            if i == 0 or not fixed[i - 1]:
                w[i] *= free / total
        off = 0.0
    if not off <= SUM_ROUNDING or not _inside(w, fixed, bounds):
        _nearest_sum(w, fixed, bounds, free)
    if not bounds.long_only:
        _limit_leverage(w, fixed, bounds.max_leverage)


@kernel
def _drop_all_but_largest(
    w: NDArray[np.float64], fixed: NDArray[np.bool_], k: int
) -> NDArray[np.bool_]:
    """Zero and fix all tradable assets but the largest; fixed holdings use up places first."""
    n = w.shape[0] - 1
    places = k
    for i in range(n):
        if fixed[i] and w[i + 1] != 0:
            places -= 1
    kept = fixed.copy()
    for _ in range(places):
        best = -1
        for i in range(n):
            if not kept[i] and (best < 0 or abs(w[i + 1]) > abs(w[best + 1])):
                best = i
        if best < 0:
            break
        kept[best] = True
    out = fixed.copy()
    for i in range(n):
        if not kept[i]:
            w[i + 1] = 0.0
            out[i] = True
    return out


@kernel
def _limits(i: int, bounds: Any) -> tuple[float, float]:
    if i == 0:
        return bounds.min_cash, bounds.max_cash
    return bounds.min_weight, bounds.max_weight


@kernel
def _inside(w: NDArray[np.float64], fixed: NDArray[np.bool_], bounds: Any) -> bool:
    for i in range(w.shape[0]):
        if i > 0 and fixed[i - 1]:
            continue
        low, high = _limits(i, bounds)
        if not low - SUM_ROUNDING <= w[i] <= high + SUM_ROUNDING:
            return False
    return True


@kernel
def _nearest_sum(
    w: NDArray[np.float64], fixed: NDArray[np.bool_], bounds: Any, total: float
) -> None:
    """Euclidean projection of the free slots onto ``{sum = total, low <= w <= high}``, in place.

    The projection is ``clip(w - tau, low, high)`` for the one ``tau`` that meets the sum, which
    falls piecewise linearly in ``tau``: Newton inside a bracket ends exactly, as it solves each
    piece in closed form.
    """
    n1 = w.shape[0]
    # a common shift changes nothing; without it weights of 1e16 would leave no digits for their
    # differences
    top = -np.inf
    for i in range(n1):
        if i == 0 or not fixed[i - 1]:
            top = max(top, w[i])
    for i in range(n1):
        if i == 0 or not fixed[i - 1]:
            w[i] = max(w[i] - top, -FAR)
    left, right, low_sum, high_sum = np.inf, -np.inf, 0.0, 0.0
    for i in range(n1):
        if i > 0 and fixed[i - 1]:
            continue
        low, high = _limits(i, bounds)
        left, right = min(left, w[i] - high), max(right, w[i] - low)
        low_sum, high_sum = low_sum + low, high_sum + high
    if high_sum <= total or low_sum >= total:
        _fill_to_bounds(w, fixed, bounds, total, high_sum <= total)
        return
    tau = 0.5 * (left + right)
    for _ in range(200):
        inside, at_bounds, count = 0.0, 0.0, 0
        for i in range(n1):
            if i > 0 and fixed[i - 1]:
                continue
            low, high = _limits(i, bounds)
            if w[i] - tau >= high:
                at_bounds += high
            elif w[i] - tau <= low:
                at_bounds += low
            else:
                inside += w[i]
                count += 1
        excess = inside - count * tau + at_bounds - total
        if excess > 0:
            left = tau
        elif excess < 0:
            right = tau
        else:
            break
        guess = (inside + at_bounds - total) / count if count > 0 else np.nan
        if not left < guess < right:
            if guess == tau or right - left <= 1e-16 * max(1.0, abs(left)):
                break
            guess = 0.5 * (left + right)
        if guess == tau:
            break
        tau = guess
    for i in range(n1):
        if i > 0 and fixed[i - 1]:
            continue
        low, high = _limits(i, bounds)
        w[i] = min(max(w[i] - tau, low), high)


@kernel
def _fill_to_bounds(
    w: NDArray[np.float64], fixed: NDArray[np.bool_], bounds: Any, total: float, upper: bool
) -> None:
    """Where no weights meet both bounds and sum: all assets at one bound, cash takes the rest.

    Lower bounds are scaled down where even they exceed the wealth.
    """
    assets = 0.0
    for i in range(1, w.shape[0]):
        if not fixed[i - 1]:
            w[i] = bounds.max_weight if upper else bounds.min_weight
            assets += w[i]
    if not upper and assets > 0 and total - assets < bounds.min_cash:
        scale = max(0.0, total - min(bounds.min_cash, max(total, 0.0))) / assets
        for i in range(1, w.shape[0]):
            if not fixed[i - 1]:
                w[i] *= scale
        assets *= scale
    w[0] = total - assets


@kernel
def _limit_leverage(w: NDArray[np.float64], fixed: NDArray[np.bool_], max_leverage: float) -> None:
    gross, stuck = 0.0, 0.0
    for i in range(1, w.shape[0]):
        if fixed[i - 1]:
            stuck += abs(w[i])
        else:
            gross += abs(w[i])
    if gross + stuck > max_leverage and gross > 0:
        scale = max(0.0, max_leverage - stuck) / gross
        for i in range(1, w.shape[0]):
            if not fixed[i - 1]:
                w[0] += (1.0 - scale) * w[i]
                w[i] *= scale


@kernel
def violation_lane(w: NDArray[np.float64], bounds: Any) -> float:
    """Largest amount by which held weights break a bound; 0 within rounding (1e-12)."""
    worst = max(bounds.min_cash - w[0], w[0] - bounds.max_cash, 0.0)
    gross, held = 0.0, 0
    for i in range(1, w.shape[0]):
        gross += abs(w[i])
        held += w[i] != 0
        worst = max(worst, w[i] - bounds.max_weight)
        if bounds.top_k >= w.shape[0] - 1 or w[i] != 0:
            worst = max(worst, bounds.min_weight - w[i])
    worst = max(worst, gross - bounds.max_leverage)
    if held > bounds.top_k:
        smallest = np.sort(np.abs(w[1:]))
        worst = max(worst, smallest[: len(smallest) - bounds.top_k].sum())
    return worst if worst > 1e-12 else 0.0
