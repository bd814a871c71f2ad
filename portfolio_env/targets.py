"""From an action to a feasible target: action map, adjustment, no-trade set, projection (compiled)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from portfolio_env.compiled import inlined
from portfolio_env.constraints import Bounds, project_lane

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


@inlined
def target_lane(
    action: Float, d: Float, untradable: Bool, how: tuple[float, float, float], bounds: Bounds,
    a: Float, fixed: Bool,
) -> float:  # fmt: skip
    """Write the feasible target into ``a`` and the assets that will not trade into ``fixed``.

    Args:
        action: (N + 1,) scores or weights, cash first, finite.
        d: (N + 1,) drifted weights.
        untradable: (N,) assets that can be neither bought nor sold now.
        how: (logits scale, or 0 for weights; adjustment; no-trade band).
        bounds: Constraints for N assets.
        a: (N + 1,) receives the target; fixed assets have their drifted weight in it.
        fixed: (N,) receives the flags.

    Returns:
        The wealth that cash and the other assets share, ``1 - sum_fixed d``.
    """
    scale, adjustment, band = how
    n = fixed.shape[0]
    for i in range(n):
        fixed[i] = False
    _map_action(action, scale, a)
    if not bounds.trivial or scale == 0.0:
        project_lane(a, fixed, bounds)
    moved = adjustment < 1.0
    if moved:
        for i in range(n + 1):
            a[i] = d[i] + adjustment * (a[i] - d[i])
    stuck = False
    for i in range(n):
        within = band > 0.0 and abs(a[i + 1] - d[i + 1]) <= band
        if untradable[i] or within:
            fixed[i] = stuck = True
    free = 1.0
    if stuck:
        free = _share_rest(d, a, fixed)
    if (moved or stuck) and not bounds.trivial:
        # the bounds may move what merely lies inside the band, but not what cannot be traded
        project_lane(a, untradable, bounds)
        for i in range(n):
            if fixed[i] and not untradable[i] and a[i + 1] != d[i + 1]:
                fixed[i] = False
                free += d[i + 1]
    return free


@inlined
def _map_action(action: Float, scale: float, a: Float) -> None:
    """Softmax of the scaled scores, clipped to [-1, 1]; with scale 0 the action is the weights."""
    if scale == 0.0:
        a[:] = action
        return
    top = -1.0
    for i in range(a.shape[0]):
        a[i] = min(max(action[i], -1.0), 1.0)
        top = max(top, a[i])
    total = 0.0
    for i in range(a.shape[0]):
        a[i] = math.exp(scale * (a[i] - top))
        total += a[i]
    share = 1.0 / total
    for i in range(a.shape[0]):
        a[i] *= share


@inlined
def _share_rest(d: Float, a: Float, fixed: Bool) -> float:
    """Fixed assets keep ``d``; the rest of the wealth is split in the asked proportions, else held in cash."""
    free, asked = 1.0, a[0]
    for i in range(fixed.shape[0]):
        if fixed[i]:
            free -= d[i + 1]
            a[i + 1] = d[i + 1]
        else:
            asked += a[i + 1]
    scale = free / asked if asked > 1e-12 and free > 0.0 else 0.0
    rest = free
    for i in range(fixed.shape[0]):
        if not fixed[i]:
            a[i + 1] *= scale
            rest -= a[i + 1]
    a[0] = a[0] * scale if scale > 0.0 else rest
    return free
