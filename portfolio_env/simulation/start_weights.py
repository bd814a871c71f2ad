"""Start weights of an episode: those that an account under its rules may hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import ArgumentError

TOLERANCE = 1e-6  # rounding of float32


def weights_array(name: str, weights: Any) -> NDArray[np.float64]:
    """Return weights as float64.

    Raises:
        ArgumentError: If they are no numbers.
    """
    try:
        return np.array(weights, dtype=np.float64)
    except (
        TypeError,
        ValueError,
        RuntimeError,
        OverflowError,
    ) as error:  # raised by a tensor, among others
        raise ArgumentError(f"{name}={weights!r} must be numbers, cash first ({error}).") from None


def checked_weights(
    name: str, weights: Any, shape: tuple[int, ...], bounds: Any
) -> NDArray[np.float64]:
    """Return weights to start from, in float64 and summing to 1.

    Money that is borrowed, and shorts, are held to the constraints. Other bounds are not asked: an
    account that the market moved out of them may go on from where it is.

    Args:
        name: Name of the argument in messages.
        weights: (..., N + 1) weights, cash first.
        shape: The shape they must have.
        bounds: Record of ``constraints.BOUNDS``.

    Raises:
        ArgumentError: If they are not finite, do not sum to 1 within 1e-6, or borrow or sell short
            more than the account may.
    """
    array = weights_array(name, weights)
    whole = array.shape == shape and bool(np.isfinite(array).all())
    if not whole or (abs(array.sum(-1) - 1) > TOLERANCE).any():
        raise ArgumentError(
            f"{name}={weights!r} must be {shape[-1]} finite weights per lane, cash first, that sum "
            "to 1."
        )
    cash, assets = array[..., :1], array[..., 1:]
    least = min(0.0, float(bounds["min_cash"]))
    if bounds["long_only"]:
        if assets.size and assets.min() < -TOLERANCE:
            raise ArgumentError(
                f"{name}={weights!r} holds a short position of {assets.min():g}, but long_only is "
                "set; give 0 or more, or set long_only=False."
            )
        np.maximum(assets, 0.0, out=assets)
    if cash.min() < least - TOLERANCE:
        raise ArgumentError(
            f"{name}={weights!r} borrows: cash is {cash.min():g}, and this account must hold at "
            f"least {least:g}; give more cash, or constraints with max_leverage above 1 or a lower "
            "min_cash."
        )
    np.maximum(cash, least, out=cash)
    gross, most = abs(assets).sum(-1).max(), max(1.0, float(bounds["max_leverage"]))
    if gross > most + TOLERANCE:
        raise ArgumentError(
            f"{name}={weights!r} holds {gross:g} times the wealth in assets, long and short, and "
            f"this account may hold {most:g}; give less, or raise max_leverage."
        )
    normal: NDArray[np.float64] = array / array.sum(-1, keepdims=True)
    return normal
