"""Constraints of a model on its own target: they act within what the model selects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portfolio_env.simulation.constraints import PortfolioConstraints

Weights = NDArray[np.float64]

# Targets this close to the constraints are off them by rounding alone.
ROUNDING = 1e-6


def within_selection(
    constraints: PortfolioConstraints,
    target: Weights,
    fixed: NDArray[np.bool_],
    labels: Sequence[str] = (),
) -> Weights:
    """Return a target within the constraints that holds what the target holds.

    What a bound takes from an asset goes to the others that the target holds, in proportion to
    their weights; then to cash, as far as ``max_cash`` allows. Only what is left after that is
    spread evenly over the other tradable assets, up to their bounds. The Euclidean projection of
    ``PortfolioConstraints.project`` would buy those first that a signal rejected. What a group may
    not hold goes to other groups likewise; with short positions groups are only projected.

    Args:
        constraints: The constraints.
        target: (N + 1,) weights that sum to 1, cash first; long positions are bounded among the
            long ones, short ones among the short ones.
        fixed: (N,) assets whose given weight stays as it is.
        labels: (N,) the group of each asset, needed with ``group_bounds``.

    Returns:
        (N + 1,) float64; the target itself where it keeps to the constraints.

    >>> nothing = np.zeros(4, np.bool_)
    >>> cap = PortfolioConstraints(max_weight=0.4)
    >>> within_selection(cap, np.array([0.0, 0.6, 0.3, 0.1, 0.0]), nothing).round(3).tolist()
    [0.0, 0.4, 0.4, 0.2, 0.0]
    >>> within_selection(cap, np.array([0.0, 0.5, 0.5, 0.0, 0.0]), nothing).round(3).tolist()
    [0.2, 0.4, 0.4, 0.0, 0.0]
    """
    nearest = constraints.project(target, fixed, labels)
    if np.allclose(nearest, target, rtol=0, atol=ROUNDING):
        return nearest
    bounds = constraints.bounds(len(fixed))[0]
    out, free = target.copy(), ~fixed
    if bounds["top_k"] < len(fixed):
        free &= _largest(target[1:], fixed, int(bounds["top_k"]))
    sides = np.maximum(target[1:], 0), np.maximum(-target[1:], 0)
    bought, sold = (float(side[~fixed].sum()) for side in sides)
    stays = target[1:][fixed]
    share = (bounds["max_leverage"] - abs(stays).sum()) / max(bought + sold, ROUNDING)
    share = min(max(float(share), 0.0), 1.0)  # of both sides that the leverage leaves
    low, high = float(bounds["min_weight"]), float(bounds["max_weight"])
    shorts = _sized(sides[1][free], share * sold, 0.0, max(-low, 0.0))
    rest = 1 - stays.sum() + shorts.sum()  # for longs and cash
    most, least = rest - bounds["min_cash"], rest - bounds["max_cash"]
    total = min(max(share * bought, least), most)
    factors = _group_factors(constraints, target, fixed, free, labels)
    longs = _sized(sides[0][free], total, max(low, 0.0), high, factors)
    out[1:][~fixed] = 0.0
    out[1:][free] = longs - shorts
    out[0] = 1 - out[1:].sum()
    return constraints.project(out, fixed, labels)


def _largest(weights: Weights, fixed: NDArray[np.bool_], k: int) -> NDArray[np.bool_]:
    """Return (N,) the largest holdings that fit beside those that are fixed."""
    places = max(0, k - int((fixed & (weights != 0)).sum()))
    order = np.argsort(np.where(fixed, np.inf, -abs(weights)), kind="stable")
    chosen = np.zeros(len(weights), np.bool_)
    chosen[order[:places]] = True
    return chosen


def _group_factors(
    constraints: PortfolioConstraints,
    target: Weights,
    fixed: NDArray[np.bool_],
    free: NDArray[np.bool_],
    labels: Sequence[str],
) -> Weights | None:
    """Return (2, n) the least and the largest factor of free long positions by their groups."""
    if not labels or not constraints.group_bounds or not constraints.long_only:
        return None
    low, high = max(constraints.min_weight or 0.0, 0.0), constraints.max_weight
    sizes, of = target[1:], np.array(labels)
    factors = np.tile([[0.0], [np.inf]], len(labels))
    for label, bounds in constraints.group_bounds.items():
        own = (of == label) & free
        if not (sizes[own] > 0).any():
            continue
        least, most = np.array(bounds) - sizes[(of == label) & fixed].sum()
        corners, sums = _corners(sizes[own], low, high)
        if least > sums[0]:
            factors[0, own] = np.interp(least, sums, corners)
        if most < sums[-1]:
            factors[1, own] = np.interp(most, sums, corners)
    return factors[:, free]


def _corners(sizes: Weights, low: float, high: float) -> tuple[Weights, Weights]:
    """Return factors at which a size meets a bound, and the sum of clipped sizes at each."""
    held = sizes > 0
    corners = np.unique([low / sizes[held], high / sizes[held]])
    return corners, np.clip(corners[:, None] * sizes, low, high).sum(axis=1)


def _sized(
    sizes: Weights, total: Any, low: float, high: float, factors: Weights | None = None
) -> Weights:
    """Return sizes scaled by one factor and clipped to bounds, of the total or as near as can be.

    Their sum is piecewise linear in the factor, with corners where a size meets a bound.

    Args:
        sizes: (n,) at least 0.
        total: The sum.
        low: Lower bound.
        high: Upper bound.
        factors: (2, n) the least and the largest factor of each; None is any.
    """
    if not (sizes > 0).any():
        return np.clip(sizes, low, high)
    corners, sums = _corners(sizes, low, high)
    if factors is None:
        return np.clip(np.interp(total, sums, corners) * sizes, low, high)
    corners = np.unique(np.r_[corners, factors[np.isfinite(factors)]])
    own = np.clip(corners[:, None], *factors)
    sums = np.clip(own * sizes, low, high).sum(axis=1)
    return np.clip(np.clip(np.interp(total, sums, corners), *factors) * sizes, low, high)
