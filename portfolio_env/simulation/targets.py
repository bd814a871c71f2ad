"""From an action to a feasible target: action map, adjustment, no-trade set, projection."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.compiled import borrowed, inlined, kernel
from portfolio_env.errors import ArgumentError
from portfolio_env.simulation.projection import SUM_ROUNDING, GroupBounds, project_lane

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


def numbers(actions: ArrayLike) -> NDArray[Any]:
    """Return actions as an array; ragged rows become an array of objects, to be rejected.

    Raises:
        ArgumentError: If it is a tensor that gives no numbers.
    """
    try:
        return np.asarray(actions)
    except ValueError:
        return np.array(actions, dtype=object)
    except (RuntimeError, TypeError) as error:  # of tensors: with gradients, on a GPU, bfloat16
        raise ArgumentError(f"the action cannot be read as numbers ({error}).") from None


def checked_actions(actions: ArrayLike, shape: tuple[int, int]) -> NDArray[np.floating[Any]]:
    """Return actions as float32 or float64, the precisions of compiled code.

    Raises:
        ArgumentError: If they have another shape or are no numbers.
    """
    array = numbers(actions)
    if array.shape != shape or array.dtype.kind not in "fiu":
        raise ArgumentError(
            f"actions have shape {array.shape} and type {array.dtype}, expected {shape} "
            "numbers: one row per lane, cash first."
        )
    if array.dtype in (np.float32, np.float64):
        return array
    with np.errstate(over="ignore"):  # numbers beyond float64 become infinite, and are rejected
        return array.astype(np.float64)


def equal_weights(tradable: NDArray[np.bool_]) -> Float:
    """Return (B, N + 1) equal weights of the assets that (B, N) says can be traded; else cash."""
    out = np.zeros((len(tradable), tradable.shape[1] + 1))
    out[:, 1:] = tradable / np.maximum(tradable.sum(axis=1, keepdims=True), 1)
    out[:, 0] = ~tradable.any(axis=1)
    return out


def clipped_weights(weights: NDArray[np.floating[Any]], box: tuple[Any, Any]) -> Float:
    """Return weights clipped to the box of actions; non-finite ones stay, to be rejected later."""
    out: Float = np.array(weights, dtype=np.float64, order="C")
    return np.clip(out, *box, out=out, where=np.isfinite(out))


def softmax_numerators(scores: NDArray[np.floating[Any]], scale: float) -> Float:
    """Return ``exp(scale * clip(scores, -1, 1))`` in float64, of which ``score_weights`` is made.

    What is not finite becomes NaN.

    NumPy's exponential works on all lanes at once, and takes a fifth of the time of one inside the
    loop over them.
    """
    out = np.empty(scores.size)
    _scale_clipped(scores.ravel(), scale, out)
    numerators: Float = np.exp(out, out=out).reshape(scores.shape)
    return numerators


@kernel
def _scale_clipped(scores: NDArray[np.floating[Any]], scale: float, out: Float) -> None:
    for i in range(scores.shape[0]):
        score = float(scores[i])
        clipped = score
        if score > 1.0:
            clipped = 1.0
        elif score < -1.0:
            clipped = -1.0
        # NaN stays NaN, and infinity becomes NaN, to be rejected
        out[i] = scale * clipped + (score - score)


@inlined
def score_weights(numerators: Float, bounds: Any, a: Float) -> None:
    """Write the weights that scores stand for into ``a``, by what the constraints allow.

    With ``u_i`` the numerator of asset i over that of cash:

    - long-only: ``w_i = L u_i / (1 + sum u)``, a softmax times what may be invested, L = 1 and
      what may be borrowed, ``1 - min(min_cash, 0)``;
    - with short positions: ``w_i = L (u_i - 1 / u_i) / (1 + sum (u + 1 / u))``, L =
      ``max_leverage``: a softmax over cash, every asset bought and every asset sold. What scores
      above cash is bought, what scores below is sold, and what scores the same is not held.
      ``sum |w|`` is below L.

    Cash is the rest to 1. A common shift of all scores changes nothing.

    Args:
        numerators: (N + 1,) positive, see ``softmax_numerators``.
        bounds: Record of ``constraints.BOUNDS``.
        a: (N + 1,) receives the weights.
    """
    n, total = a.shape[0] - 1, 0.0
    if bounds.long_only:
        leverage = 1.0 - min(bounds.min_cash, 0.0)
        for i in range(n + 1):
            total += numerators[i]
        share = 1.0 / total
        a[0] = numerators[0] * share
        if leverage > 1.0:
            share *= leverage
            a[0] = 1.0 - leverage * (1.0 - a[0])
        for i in range(n):
            a[i + 1] = numerators[i + 1] * share
    else:
        for i in range(n):
            ratio = numerators[i + 1] / numerators[0]
            total += ratio + 1.0 / ratio
            a[i + 1] = ratio - 1.0 / ratio
        share, rest = bounds.max_leverage / (1.0 + total), 1.0
        for i in range(n):
            a[i + 1] *= share
            rest -= a[i + 1]
        a[0] = rest


def scored_weights(scores: NDArray[np.floating[Any]], scale: float, bounds: Any) -> Float:
    """Return the weights (B, N + 1) that scores stand for in an environment of logits.

    Args:
        scores: (B, N + 1), cash first.
        scale: ``logits_scale`` of the environment.
        bounds: (1,) ``PortfolioConstraints.bounds`` for N assets.

    >>> from portfolio_env.simulation.constraints import PortfolioConstraints
    >>> shorts = PortfolioConstraints(long_only=False).bounds(2)
    >>> scored_weights(np.array([[0.0, 0.2, -0.2]]), 5.0, shorts).round(3).tolist()
    [[1.0, 0.328, -0.328]]
    """
    numerators = softmax_numerators(scores, scale)
    out = np.empty_like(numerators)
    _score_lanes(numerators, bounds, out)
    return out


@kernel
def _score_lanes(numerators: Float, bounds: Any, out: Float) -> None:
    for lane in range(out.shape[0]):
        score_weights(numerators[lane], bounds[0], out[lane])


@inlined
def mark_kept(wanted: Float, d: Float, kept: Bool) -> None:
    """Flag the holdings whose asked weight is the observed one, to the last bit of float32.

    Observations round weights to float32: without this, a policy that returns what it observed
    would trade the rounding, pay fixed fees for it, and with ``execution="next_open"`` trade back
    the move of the night.
    """
    for i in range(kept.shape[0]):
        kept[i] = d[i + 1] != 0.0 and np.float32(wanted[i + 1]) == np.float32(d[i + 1])


@inlined
def target_lane(
    wanted: Float, d: Float, all_tradable: bool, rules: Any, bounds: Any,
    groups: GroupBounds | None, a: Float, flags: Bool,
) -> float:  # fmt: skip
    """Write the feasible target into ``a`` and the assets that will not trade into ``flags[2]``.

    Args:
        wanted: (N + 1,) softmax numerators or weights, cash first, finite.
        d: (N + 1,) drifted weights.
        all_tradable: Whether no asset is untradable.
        rules: Record of ``dynamics.RULES``.
        bounds: Record of ``constraints.BOUNDS``.
        groups: Bounds of groups of assets; None if nothing is ever projected.
        a: (N + 1,) receives the target; what it has of fixed assets is not read.
        flags: (6, N) row 1 the assets that can be neither bought nor sold now, row 4 those to
            keep, row 5 work space.

    Returns:
        The wealth that cash and the other assets share, ``1 - sum_fixed d``; 1 in an account that
        may borrow, where cash alone makes up for what does not trade.
    """
    untradable, fixed, kept, settled = flags[1], flags[2], flags[4], flags[5]
    n, band = fixed.shape[0], rules.no_trade_band
    if rules.softmax:
        score_weights(wanted, bounds, a)
    else:
        for i in range(n + 1):
            a[i] = wanted[i]
    fixed[:] = False
    if groups is not None and not (bounds.trivial and rules.softmax):
        project_lane(a, fixed, bounds, settled, borrowed(groups))
    moved = rules.adjustment < 1.0
    if moved:
        for i in range(n + 1):
            a[i] = d[i] + rules.adjustment * (a[i] - d[i])
    stuck = False
    if not all_tradable or band > 0.0 or not rules.softmax:
        for i in range(n):
            within = band > 0.0 and abs(a[i + 1] - d[i + 1]) <= band
            if untradable[i] or kept[i] or within:
                fixed[i] = stuck = True
    free, borrows = 1.0, may_borrow(bounds)
    if stuck and borrows:
        _leave_rest_to_cash(d, a, fixed)
    elif stuck:
        free = _share_rest(d, a, fixed)
    if groups is not None and (moved or stuck) and not bounds.trivial:
        # the bounds may move what is merely kept, but not what cannot be traded
        project_lane(a, untradable, bounds, settled, borrowed(groups))
        for i in range(n):
            # a holding that is at its bound but for rounding noise is kept
            if fixed[i] and not untradable[i] and abs(a[i + 1] - d[i + 1]) > SUM_ROUNDING:
                fixed[i] = False
                free += 0.0 if borrows else d[i + 1]
    return free


@inlined
def may_borrow(bounds: Any) -> bool:
    """Return whether cash may be negative, or proceeds of short sales."""
    return not bounds.long_only or bounds.min_cash < 0.0


@inlined
def _leave_rest_to_cash(d: Float, a: Float, fixed: Bool) -> None:
    """Keep ``d`` of fixed assets and the asked weights of others; cash balances the sum.

    Proportions mean nothing here: what is not fixed may sum to 0 or less.
    """
    rest = 1.0
    for i in range(fixed.shape[0]):
        a[i + 1] = d[i + 1] if fixed[i] else a[i + 1]
        rest -= a[i + 1]
    a[0] = rest


@inlined
def _share_rest(d: Float, a: Float, fixed: Bool) -> float:
    """Keep ``d`` of fixed assets; split the rest of the wealth as asked, or hold it in cash."""
    free, asked = 1.0, a[0]
    for i in range(fixed.shape[0]):
        if fixed[i]:
            free -= d[i + 1]
            a[i + 1] = d[i + 1]
        else:
            asked += a[i + 1]
    if abs(free) <= SUM_ROUNDING:
        free = 0.0
    scale = free / asked if asked > 1e-12 and free > 0.0 else 0.0
    for i in range(fixed.shape[0]):
        if not fixed[i]:
            a[i + 1] *= scale
    a[0] = a[0] * scale if scale > 0.0 else free
    return free
