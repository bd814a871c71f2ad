"""Conversion of series to the form of all measures: time on axis 0, lanes behind."""

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.errors import ArgumentError

FloatArray: TypeAlias = NDArray[np.float64]
ROUNDING = 1e-12  # of the size of the numbers: less is rounding noise and no risk


def as_path(values: ArrayLike) -> FloatArray:
    """Return account values (K + 1, ...), K >= 1.

    Raises:
        ArgumentError: If there are fewer than two values, or the first is not positive.
    """
    path = np.asarray(values, dtype=np.float64)
    if path.ndim == 0 or len(path) < 2:
        raise ArgumentError(
            f"values has shape {path.shape}; at least two points in time are needed."
        )
    if not (path[0] > 0).all():
        raise ArgumentError(f"values starts with {path[0].min():g}; an account starts above 0.")
    return path


def as_series(periods: ArrayLike) -> FloatArray:
    """Return one number per period (K, ...), K >= 1.

    Raises:
        ArgumentError: If there is no period.
    """
    series = np.asarray(periods, dtype=np.float64)
    if series.ndim == 0 or len(series) < 1:
        raise ArgumentError(f"shape {series.shape} holds no period; at least one is needed.")
    return series


def as_pair(returns: ArrayLike, benchmark_returns: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return returns (K, ...) and those of the benchmark over the same periods, broadcastable.

    Raises:
        ArgumentError: If there is no period, the periods differ in number, or the lanes do not
            broadcast.
    """
    own, other = as_series(returns), as_series(benchmark_returns)
    other = other.reshape(other.shape + (1,) * (own.ndim - other.ndim))
    try:
        np.broadcast_shapes(own.shape[1:], other.shape[1:])
        paired = len(own) == len(other)
    except ValueError:
        paired = False
    if not paired:
        raise ArgumentError(
            f"returns of shapes {own.shape} and {other.shape} cannot be paired; "
            "give the benchmark's returns over the same periods, for one lane or for every lane."
        )
    return own, other


def deviation(series: FloatArray) -> FloatArray:
    """Return the standard deviation over time, dividing by K - 1; NaN for one period."""
    if len(series) < 2:
        return np.full(series.shape[1:], np.nan)
    return np.where(is_constant(series), 0.0, series.std(axis=0, ddof=1))


def is_constant(series: FloatArray) -> NDArray[np.bool_]:
    """Return whether numbers over time differ by rounding alone: at most 1e-12 of the largest.

    The largest counts as 1 at least: returns are what is left of gross returns around 1, and their
    noise is that of 1, however small they are.
    """
    high, low = series.max(axis=0), series.min(axis=0)
    size = np.maximum(1.0, np.maximum(high, -low))
    constant: NDArray[np.bool_] = np.asarray(high - low <= ROUNDING * size)
    return constant


def unrounded(series: FloatArray, size: FloatArray | float = 1.0) -> FloatArray:
    """Return differences of numbers of a size, with 0 for those that are rounding noise."""
    return np.where(np.abs(series) <= ROUNDING * size, 0.0, series)


def ratio(numerator: FloatArray, denominator: FloatArray, least: float = 0.0) -> FloatArray:
    """Return the quotient; NaN where the denominator is no larger than ``least``."""
    defined = ~(np.abs(denominator) <= least)
    return np.where(defined, numerator, np.nan) / np.where(defined, denominator, 1)
