"""Measures of an account against a benchmark over the same periods.

Everywhere, ``returns`` are (K, ...) and ``benchmark_returns`` (K,) or (K, ...), both simple.
"""

import numpy as np
from numpy.typing import ArrayLike

from portfolio_env.errors import ArgumentError
from portfolio_env.metrics.arrays import (
    ROUNDING,
    FloatArray,
    as_pair,
    deviation,
    is_constant,
    ratio,
)

WINDOW = 60
"""Periods that one rolling correlation looks back on."""


def beta(returns: ArrayLike, benchmark_returns: ArrayLike) -> FloatArray:
    """Slope of the returns on the benchmark's: covariance over the benchmark's variance."""
    own, other = as_pair(returns, benchmark_returns)
    centred = other - other.mean(axis=0)
    together = ((own - own.mean(axis=0)) * centred).sum(axis=0)
    alone = np.where(is_constant(other), 0.0, np.square(centred).sum(axis=0))
    return ratio(together, alone)


def correlation(returns: ArrayLike, benchmark_returns: ArrayLike) -> FloatArray:
    """Pearson's correlation with the benchmark; NaN where either does not move."""
    own, other = as_pair(returns, benchmark_returns)
    slope = beta(own, other)
    return np.clip(ratio(slope * deviation(other), deviation(own)), -1, 1)


def tracking_error(
    returns: ArrayLike, benchmark_returns: ArrayLike, periods_per_year: float
) -> FloatArray:
    """Yearly standard deviation of the active returns, those less the benchmark's.

    Grinold & Kahn (2000), "Active Portfolio Management", who call it active risk.
    """
    own, other = as_pair(returns, benchmark_returns)
    return deviation(own - other) * np.sqrt(periods_per_year)


def information_ratio(
    returns: ArrayLike, benchmark_returns: ArrayLike, periods_per_year: float
) -> FloatArray:
    """Yearly mean active return over its standard deviation.

    Of the active returns themselves, as in Goodwin (1998), "The Information Ratio", Financial
    Analysts Journal 54; not of what is left after a regression on the benchmark.
    """
    own, other = as_pair(returns, benchmark_returns)
    active = own - other
    return ratio(active.mean(axis=0), deviation(active)) * np.sqrt(periods_per_year)


def rolling_correlation(
    returns: ArrayLike, benchmark_returns: ArrayLike, window: int = WINDOW
) -> FloatArray:
    """Correlation with the benchmark within each window of so many periods in a row.

    Returns:
        (K - window + 1, ...), the first for the first ``window`` periods; NaN where either does not
        move within the window.

    Raises:
        ArgumentError: If a window holds fewer than 2 periods or more than there are.
    """
    own, other = as_pair(returns, benchmark_returns)
    if not 2 <= window <= len(own):
        raise ArgumentError(
            f"window={window!r} must be at least 2 and at most the {len(own)} periods there are."
        )
    # Sums over windows are differences of running sums; centring limits cancellation.
    own, other = own - own.mean(axis=0), other - other.mean(axis=0)
    x, y = _window_sums(own, window), _window_sums(other, window)
    together = _window_sums(own * other, window)
    together -= x * y / window
    together /= np.sqrt(_spread(own, x, window) * _spread(other, y, window))
    return np.clip(together, -1, 1, out=together)


def correlation_stability(
    returns: ArrayLike, benchmark_returns: ArrayLike, window: int = WINDOW
) -> FloatArray:
    """Standard deviation over time of the rolling correlation with the benchmark.

    0 is a correlation that never changes, larger is less stable. Correlations of W periods differ
    by chance too: by about ``(1 - rho^2) / sqrt(W - 1)`` where the true one is constant (Fisher
    1915), so compare strategies over the same periods. That correlations between assets are not
    constant, and rise when it hurts, is Longin & Solnik (1995), "Is the Correlation in
    International Equity Returns Constant: 1960-1990?", J. International Money and Finance 14.

    Returns:
        In [0, 1]. NaN where there are fewer than ``window`` + 1 periods, or either account does not
        move within some window.
    """
    own, other = as_pair(returns, benchmark_returns)
    if len(own) <= window:
        return np.full(np.broadcast_shapes(own.shape[1:], other.shape[1:]), np.nan)
    return rolling_correlation(own, other, window).std(axis=0)


def _window_sums(series: FloatArray, window: int) -> FloatArray:
    running = np.cumsum(series, axis=0)
    return np.concatenate([running[window - 1 : window], running[window:] - running[:-window]])


def _spread(series: FloatArray, sums: FloatArray, window: int) -> FloatArray:
    """Return the sum of squares around the mean of each window; NaN for rounding noise alone."""
    spread = _window_sums(np.square(series), window)
    noise = np.maximum(1e-10 * spread.max(axis=0), window * ROUNDING**2)
    spread -= np.square(sums) / window
    spread[spread <= noise] = np.nan
    return spread
