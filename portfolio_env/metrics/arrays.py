"""Conversion of series to the form of all measures: time on axis 0, lanes behind."""

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.errors import ArgumentError

FloatArray: TypeAlias = NDArray[np.float64]


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
    # The deviation of equal numbers is rounding noise, not risk.
    return np.where(np.ptp(series, axis=0) == 0, 0.0, series.std(axis=0, ddof=1))


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Return the quotient; NaN where the denominator is 0."""
    defined = denominator != 0
    return np.where(defined, numerator, np.nan) / np.where(defined, denominator, 1)
