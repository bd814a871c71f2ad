"""Projection of one lane's weights onto the constraints, and their violation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from portfolio_env.compiled import inlined, inner, kernel, record

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

# Sums this close to 1 come from rounding (float32 weights): they are rescaled, which keeps zeros
# zero.
SUM_TOLERANCE = 1e-6
SUM_ROUNDING = 1e-13  # and these need no rescaling at all
SUM_GAP = 1e-12  # tolerance of a projection, above the rounding of usual weights
# So far below the largest, an asked weight is at its lower bound whatever it is exactly.
FAR = 1e6

# PortfolioConstraints resolved for a number of assets: a record that compiled code reads by field
# name.
BOUNDS = record(
    min_weight=np.float64,
    max_weight=np.float64,
    min_cash=np.float64,
    max_cash=np.float64,
    max_leverage=np.float64,
    top_k=np.int64,
    long_only=np.bool_,
    trivial=np.bool_,  # every long-only, unlevered portfolio satisfies them
)


class Groups(NamedTuple):
    """Bounds of the weights of G >= 1 disjoint groups of assets; see ``NO_GROUPS``."""

    slots: NDArray[np.int64]  # (2, N + 1) group of each slot, -1 for none; slots in that order
    first: NDArray[np.int64]  # (G + 2,) where each group begins in that order, those in none first
    sums: Float  # (4, G) least and largest sum of a group's weights, two rows of work space


# A tuple of another type: what projects onto groups is compiled for those who have some.
NO_GROUPS = ()
GroupBounds = Groups | tuple[()]


def groups_of(of: NDArray[np.int64], low: Float, high: Float) -> Groups:
    """Return groups from the number of each asset's group (N,), -1 for none, and (G,) bounds."""
    slots = np.r_[-1, of]
    order = np.argsort(slots, kind="stable")
    first = np.searchsorted(slots[order], np.arange(-1, len(low) + 1))
    work = np.zeros((2, len(low)))
    return Groups(np.array([slots, order]), first, np.vstack([low, high, work]))


@kernel
def project_lane(w: Float, fixed: Bool, bounds: Any, settled: Bool, groups: GroupBounds) -> None:
    """Project one lane's weights in place onto the bounds; fixed assets keep their weight.

    Where fixed holdings make the bounds unreachable they are met as nearly as possible: cash takes
    what the assets may not hold, and lower bounds are scaled down to the wealth that is left.
    Fixed holdings count in the sum of their group.

    Args:
        w: (N + 1,) weights, cash first.
        fixed: (N,) assets that keep their weight.
        bounds: Record of ``BOUNDS``.
        settled: (N,) work space.
        groups: Bounds of groups, or ``NO_GROUPS``.
    """
    n = w.shape[0] - 1
    if bounds.top_k < n:
        _drop_all_but_largest(w, fixed, bounds.top_k, settled)
        fixed = settled
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
    settles = off <= SUM_ROUNDING and _inside(w, fixed, bounds)
    if len(groups) > 0:
        if not settles or _group_violation(w, groups) > SUM_ROUNDING:
            _nearest_within_groups(w, fixed, bounds, free, groups)
    elif not settles:
        _nearest_sum(w, fixed, bounds, free)
    if not bounds.long_only:
        _limit_leverage(w, fixed, bounds)


@inner
def _drop_all_but_largest(w: Float, fixed: Bool, k: int, settled: Bool) -> None:
    """Zero all tradable assets but the largest; fixed holdings use up places first.

    ``settled`` receives what keeps its weight from here on: what is fixed and what is dropped.
    """
    n = fixed.shape[0]
    places = k
    for i in range(n):
        settled[i] = True
        places -= fixed[i] and w[i + 1] != 0
    for _ in range(places):
        best = -1
        for i in range(n):
            if settled[i] and not fixed[i] and (best < 0 or abs(w[i + 1]) > abs(w[best + 1])):
                best = i
        if best < 0:
            break
        settled[best] = False
    for i in range(n):
        if settled[i] and not fixed[i]:
            w[i + 1] = 0.0


@inner
def _limits(i: int, bounds: Any) -> tuple[float, float]:
    if i == 0:
        return bounds.min_cash, bounds.max_cash
    return bounds.min_weight, bounds.max_weight


@inner
def _inside(w: Float, fixed: Bool, bounds: Any) -> bool:
    for i in range(w.shape[0]):
        if i > 0 and fixed[i - 1]:
            continue
        low, high = _limits(i, bounds)
        if not low - SUM_ROUNDING <= w[i] <= high + SUM_ROUNDING:
            return False
    return True


@inner
def _nearest_sum(w: Float, fixed: Bool, bounds: Any, total: float) -> None:
    """Project the free slots onto ``{sum = total, low <= w <= high}``, in place.

    The projection is ``clip(w - tau, low, high)`` for the one ``tau`` that meets the sum, which
    falls piecewise linearly in ``tau``: Newton inside a bracket ends exactly, as it solves each
    piece in closed form.
    """
    n1 = w.shape[0]
    _shift_to_largest(w, fixed)
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
        last = tau
        tau, left, right = _next_shift(tau, left, right, (inside, at_bounds, count), total)
        if tau == last:
            break
    for i in range(n1):
        if i > 0 and fixed[i - 1]:
            continue
        low, high = _limits(i, bounds)
        w[i] = min(max(w[i] - tau, low), high)
    _close_gap(w, fixed, bounds, total)


@inlined
def _next_shift(
    tau: float, left: float, right: float, sums: tuple[float, float, int], total: float
) -> tuple[float, float, float]:
    """Return the next shift and bracket of Newton's method; the same shift where it has ended.

    Args:
        tau: Shift.
        left: Largest shift known whose sum is too large.
        right: Smallest shift known whose sum is too small.
        sums: At this shift, the sum of weights before it that end between their bounds, the sum of
            the others after it, the number of the former.
        total: Sum to meet.
    """
    inside, at_bounds, count = sums
    excess = inside - count * tau + at_bounds - total
    if excess > 0:
        left = tau
    elif excess < 0:
        right = tau
    else:
        return tau, left, right
    guess = (inside + at_bounds - total) / count if count > 0 else np.nan
    if guess == tau or left < guess < right:
        return guess, left, right
    if right - left > 1e-16 * max(1.0, abs(left)):
        tau = 0.5 * (left + right)
    return tau, left, right


@inner
def _shift_to_largest(w: Float, fixed: Bool) -> None:
    """Shift the free slots so that the largest is 0.

    A common shift changes nothing; without it weights of 1e16 would leave no digits for their
    differences.
    """
    top = -np.inf
    for i in range(w.shape[0]):
        if i == 0 or not fixed[i - 1]:
            top = max(top, w[i])
    for i in range(w.shape[0]):
        if i == 0 or not fixed[i - 1]:
            w[i] = max(w[i] - top, -FAR)


@inner
def _nearest_within_groups(
    w: Float, fixed: Bool, bounds: Any, total: float, groups: Groups
) -> None:
    """Project the free slots as ``_nearest_sum`` does, onto the bounds of groups besides.

    The projection is ``clip(w - tau_g, low, high)`` with a shift for each group: the one that meets
    the sum, clipped to the shifts at which the group meets its own bounds. The sum of all falls
    piecewise linearly in the common shift, as that of one group does.
    """
    _shift_to_largest(w, fixed)
    low_sums, high_sums = groups.sums[0], groups.sums[1]
    groups.sums[2] = -np.inf
    groups.sums[3] = np.inf
    for g in range(groups.sums.shape[1]):
        held = 0.0
        for k in range(groups.first[g + 1], groups.first[g + 2]):
            i = groups.slots[1, k]
            if fixed[i - 1]:
                held += w[i]
        least = _shift_of_sum(w, fixed, bounds, high_sums[g] - held, groups, g)
        most = _shift_of_sum(w, fixed, bounds, low_sums[g] - held, groups, g)
        groups.sums[2, g], groups.sums[3, g] = least, most
    # -1, for cash is in no group; a literal would be compiled apart from the numbers above
    tau = _shift_of_sum(w, fixed, bounds, total, groups, groups.slots[0, 0])
    for i in range(w.shape[0]):
        if i > 0 and fixed[i - 1]:
            continue
        low, high = _limits(i, bounds)
        w[i] = min(max(w[i] - _own_shift(tau, i, groups), low), high)
    if abs(tau) < np.inf:
        _close_gap(w, fixed, bounds, total)
    else:
        _leave_rest_to_cash(w, fixed, bounds, total, tau < 0)


@inner
def _own_shift(tau: float, i: int, groups: Groups) -> float:
    """Return the shift of a slot: the common one within the bounds of its group."""
    g = groups.slots[0, i]
    if g < 0:
        return tau
    return min(max(tau, groups.sums[2, g]), groups.sums[3, g])


@inner
def _shift_of_sum(
    w: Float, fixed: Bool, bounds: Any, total: float, groups: Groups, only: int
) -> float:
    """Return the shift at which free slots have a sum: those of one group, or of all if it is -1.

    -inf where their upper bounds do not exceed it, infinity where their lower bounds reach it.
    """
    start = groups.first[only + 1]
    end = groups.first[only + 2] if only >= 0 else w.shape[0]
    left, right, low_sum, high_sum = np.inf, -np.inf, 0.0, 0.0
    for k in range(start, end):
        i = groups.slots[1, k]
        if i > 0 and fixed[i - 1]:
            continue
        low, high = _limits(i, bounds)
        left, right = min(left, w[i] - high), max(right, w[i] - low)
        low_sum += min(max(w[i] - _own_shift(np.inf, i, groups), low), high)
        high_sum += min(max(w[i] - _own_shift(-np.inf, i, groups), low), high)
    if high_sum <= total:
        return -np.inf
    if low_sum >= total:
        return np.inf
    tau = 0.5 * (left + right)
    for _ in range(200):
        inside, at_bounds, count = 0.0, 0.0, 0
        for k in range(start, end):
            i = groups.slots[1, k]
            if i > 0 and fixed[i - 1]:
                continue
            low, high = _limits(i, bounds)
            own = _own_shift(tau, i, groups)
            if w[i] - own >= high:
                at_bounds += high
            elif w[i] - own <= low:
                at_bounds += low
            elif own != tau:
                at_bounds += w[i] - own
            else:
                inside += w[i]
                count += 1
        last = tau
        tau, left, right = _next_shift(tau, left, right, (inside, at_bounds, count), total)
        if tau == last:
            break
    return tau


@inner
def _group_violation(w: Float, groups: Groups) -> float:
    """Return the largest violation of a group's bound, or 0."""
    worst = 0.0
    for g in range(groups.sums.shape[1]):
        total = 0.0
        for k in range(groups.first[g + 1], groups.first[g + 2]):
            total += w[groups.slots[1, k]]
        worst = max(worst, groups.sums[0, g] - total, total - groups.sums[1, g])
    return worst


@inner
def _close_gap(w: Float, fixed: Bool, bounds: Any, total: float) -> None:
    """Distribute what rounding left of the sum among the slots between their bounds.

    Where the largest are at their bounds the others are asked for from as far below as ``FAR``,
    where numbers are 1e-10 apart.
    """
    for _ in range(3):
        gap, inside = total, 0
        for i in range(w.shape[0]):
            if i > 0 and fixed[i - 1]:
                continue
            low, high = _limits(i, bounds)
            gap -= w[i]
            inside += low < w[i] < high
        if abs(gap) <= SUM_GAP or inside == 0:
            return
        share = gap / inside
        for i in range(w.shape[0]):
            if i > 0 and fixed[i - 1]:
                continue
            low, high = _limits(i, bounds)
            if low < w[i] < high:
                w[i] = min(max(w[i] + share, low), high)


@inner
def _fill_to_bounds(w: Float, fixed: Bool, bounds: Any, total: float, upper: bool) -> None:
    """Put all assets at one bound if no weights meet both bounds and sum; cash takes the rest."""
    for i in range(1, w.shape[0]):
        if not fixed[i - 1]:
            w[i] = bounds.max_weight if upper else bounds.min_weight
    _leave_rest_to_cash(w, fixed, bounds, total, upper)


@inner
def _leave_rest_to_cash(w: Float, fixed: Bool, bounds: Any, total: float, upper: bool) -> None:
    """Give cash what assets at their upper, or else their lower bounds leave of the sum.

    Lower bounds are scaled down where even they exceed the wealth.
    """
    assets = 0.0
    for i in range(1, w.shape[0]):
        if not fixed[i - 1]:
            assets += w[i]
    if not upper and assets > 0 and total - assets < bounds.min_cash:
        scale = max(0.0, total - bounds.min_cash) / assets
        for i in range(1, w.shape[0]):
            if not fixed[i - 1]:
                w[i] *= scale
        assets *= scale
    w[0] = total - assets
    if abs(w[0] - bounds.min_cash) <= SUM_ROUNDING:
        w[0] = bounds.min_cash


@inner
def _limit_leverage(w: Float, fixed: Bool, bounds: Any) -> None:
    """Scale free assets towards zero until the gross exposure is allowed.

    Longs and shorts are scaled alike, unless that takes cash out of its bounds: then each by the
    factor that leaves cash at its bound.
    """
    gross, longs, shorts, stuck = 0.0, 0.0, 0.0, 0.0
    for i in range(1, w.shape[0]):
        if fixed[i - 1]:
            stuck += abs(w[i])
        else:
            gross += abs(w[i])
            longs += max(w[i], 0.0)
            shorts -= min(w[i], 0.0)
    if not (gross + stuck > bounds.max_leverage + SUM_ROUNDING and gross > 0):
        return
    left = max(0.0, bounds.max_leverage - stuck)
    up = down = left / gross
    wealth = w[0] + longs - shorts
    cash = wealth - up * (longs - shorts)
    nearest = min(max(cash, bounds.min_cash), bounds.max_cash)
    if abs(cash - nearest) > SUM_ROUNDING:
        net = min(max(wealth - nearest, -left), left)
        up = min(0.5 * (left + net) / longs, 1.0) if longs > 0 else 0.0
        down = min(0.5 * (left - net) / shorts, 1.0) if shorts > 0 else 0.0
    for i in range(1, w.shape[0]):
        if not fixed[i - 1]:
            scale = up if w[i] > 0 else down
            w[0] += (1.0 - scale) * w[i]
            w[i] *= scale


@kernel
def violation_lane(w: Float, bounds: Any, sizes: Float, groups: GroupBounds) -> float:
    """Return the largest violation of a bound by held weights; 0 within rounding (1e-12).

    Args:
        w: (N + 1,) weights, cash first.
        bounds: Record of ``BOUNDS``.
        sizes: (N,) work space.
        groups: Bounds of groups, or ``NO_GROUPS``.
    """
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
        worst = max(worst, _sum_of_smallest(w, held - bounds.top_k, sizes))
    if len(groups) > 0:
        worst = max(worst, _group_violation(w, groups))
    return worst if worst > 1e-12 else 0.0


@inner
def _sum_of_smallest(w: Float, count: int, sizes: Float) -> float:
    """Return the sum of the ``count`` smallest holdings by size, insertion-sorted in ``sizes``."""
    held = 0
    for i in range(1, w.shape[0]):
        if w[i] == 0:
            continue
        at = held
        while at > 0 and sizes[at - 1] > abs(w[i]):
            sizes[at] = sizes[at - 1]
            at -= 1
        sizes[at] = abs(w[i])
        held += 1
    total = 0.0
    for i in range(count):
        total += sizes[i]
    return total
