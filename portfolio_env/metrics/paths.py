"""Measures of a path of account values: growth, drawdowns, profit and loss in money."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.metrics.arrays import ROUNDING, FloatArray, as_path, ratio, unrounded


def simple_returns(values: ArrayLike) -> FloatArray:
    """Simple returns per period of a path of values.

    Args:
        values: (K + 1, ...) account values, K >= 1.

    Returns:
        (K, ...) returns.

    Raises:
        ArgumentError: If there are fewer than two values, or the first is not positive.

    >>> simple_returns([100.0, 110.0, 99.0]).round(12).tolist()
    [0.1, -0.1]
    """
    path = as_path(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return path[1:] / path[:-1] - 1


def total_return(values: ArrayLike) -> FloatArray:
    """Total return over the whole path: last value over first value, minus 1."""
    path = as_path(values)
    return path[-1] / path[0] - 1


def annual_log_growth(values: ArrayLike, periods_per_year: float) -> FloatArray:
    """Yearly growth ``log(V_K / V_0) * periods_per_year / K``; minus infinity after ruin."""
    path = as_path(values)
    with np.errstate(divide="ignore"):
        growth = np.log(np.maximum(path[-1] / path[0], 0))
    return growth * periods_per_year / (len(path) - 1)


def annual_return(values: ArrayLike, periods_per_year: float) -> FloatArray:
    """Compound yearly return ``(V_K / V_0) ** (periods_per_year / K) - 1``."""
    return np.expm1(annual_log_growth(values, periods_per_year))


def drawdowns(values: ArrayLike) -> FloatArray:
    """Fraction lost since the highest value so far, at each of the K + 1 points; above 1 in debt.

    >>> drawdowns([100.0, 120.0, 90.0]).tolist()
    [0.0, 0.0, 0.25]
    """
    path = as_path(values)
    return 1 - path / np.maximum.accumulate(path, axis=0)


def max_drawdown(values: ArrayLike) -> FloatArray:
    """Maximum drawdown: the largest fraction lost since the highest value so far."""
    return drawdowns(values).max(axis=0)


def max_drawdown_length(values: ArrayLike) -> NDArray[np.int64]:
    """Longest time under water: most periods in a row that end below an earlier value.

    >>> int(max_drawdown_length([1.0, 0.9, 0.95, 1.0, 0.5]))
    2
    """
    under = drawdowns(values) > 0
    steps = _steps(under)
    last_peak = np.maximum.accumulate(np.where(under, 0, steps), axis=0)
    return np.asarray((steps - last_peak).max(axis=0), dtype=np.int64)


def recovery_time(values: ArrayLike) -> FloatArray:
    """Periods from the bottom of the largest drawdown until the peak before it is reached again.

    Infinite for a record that ends before; 0 where nothing was ever lost. Of equally large
    drawdowns the first counts.

    >>> float(recovery_time([1.0, 0.8, 0.5, 0.9, 1.1]))
    2.0
    """
    path, falls = as_path(values), drawdowns(values)
    bottom = falls.argmax(axis=0)[None]
    peak = np.take_along_axis(np.maximum.accumulate(path, axis=0), bottom, axis=0)
    steps = _steps(path)
    waiting = np.where((path >= peak) & (steps >= bottom), steps - bottom, np.inf)
    return np.asarray(waiting.min(axis=0), dtype=np.float64)


def calmar(values: ArrayLike, periods_per_year: float) -> FloatArray:
    """Compound yearly return over the largest drawdown (Young 1991, "Calmar Ratio", Futures 20)."""
    return ratio(annual_return(values, periods_per_year), max_drawdown(values), ROUNDING)


def profit_factor(values: ArrayLike) -> FloatArray:
    """Gross profit over gross loss: money won in periods that won over money lost in the others.

    As a trader counts (Pardo 2008, "The Evaluation and Optimization of Trading Strategies"), with
    periods for trades. Periods of a larger account weigh more; counted in returns, this is
    ``omega``. NaN without a loss.

    >>> round(float(profit_factor([100.0, 120.0, 110.0, 115.0])), 12)
    2.5
    """
    path = as_path(values)
    won = unrounded(path[1:] - path[:-1], np.abs(path[:-1]))
    return ratio(np.maximum(won, 0).sum(axis=0), 0.0 - np.minimum(won, 0).sum(axis=0))


def _steps(path: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return 0, 1, ... along time, to be broadcast over the lanes of a path."""
    return np.arange(len(path)).reshape((-1,) + (1,) * (path.ndim - 1))
