"""Measures of the distribution of returns: reward over risk, tails, shape."""

import numpy as np
from numpy.typing import ArrayLike

from portfolio_env.metrics.arrays import (
    ROUNDING,
    FloatArray,
    as_series,
    deviation,
    is_constant,
    ratio,
    unrounded,
)

TAIL = 0.05  # the worst (and best) share of the periods that measures of tails describe


def volatility(returns: ArrayLike, periods_per_year: float) -> FloatArray:
    """Yearly standard deviation of the returns."""
    return deviation(as_series(returns)) * np.sqrt(periods_per_year)


def sharpe(
    returns: ArrayLike, periods_per_year: float, risk_free_annual: float = 0.0
) -> FloatArray:
    """Yearly Sharpe ratio: mean excess return over its standard deviation.

    Sharpe (1994), "The Sharpe Ratio", Journal of Portfolio Management 21. Where the risk-free rate
    varies, give returns in excess of it (``BacktestResult.excess_returns``). NaN for equal returns,
    also where they differ by rounding.
    """
    excess = as_series(returns) - risk_free_annual / periods_per_year
    return ratio(excess.mean(axis=0), deviation(excess)) * np.sqrt(periods_per_year)


def certainty_equivalent(
    returns: ArrayLike, periods_per_year: float, risk_aversion: float = 1.0
) -> FloatArray:
    """Yearly certainty equivalent: the riskless return that is worth as much, ``m - a/2 s^2``.

    For mean-variance utility with risk aversion a, mean m and standard deviation s of the returns;
    of returns in excess of cash it is what is earned beyond cash.
    """
    series = as_series(returns)
    drag = 0.5 * risk_aversion * np.square(deviation(series))
    return np.asarray((series.mean(axis=0) - drag) * periods_per_year, np.float64)


def sortino(
    returns: ArrayLike, periods_per_year: float, risk_free_annual: float = 0.0
) -> FloatArray:
    """Yearly Sortino ratio: mean excess return over the root mean square of the negative ones.

    The mean square runs over all K periods (and divides by K), with the risk-free rate as the
    target (Sortino & Price 1994, "Performance Measurement in a Downside Risk Framework", Journal of
    Investing 3).
    """
    excess = unrounded(as_series(returns) - risk_free_annual / periods_per_year)
    downside = np.sqrt(np.square(np.minimum(excess, 0)).mean(axis=0))
    downside = np.where(is_constant(excess), 0.0, downside)
    return ratio(excess.mean(axis=0), downside) * np.sqrt(periods_per_year)


def omega(returns: ArrayLike, periods_per_year: float, risk_free_annual: float = 0.0) -> FloatArray:
    """Omega ratio: mean gain over mean loss against the risk-free rate as the threshold.

    ``E[max(r - f, 0)] / E[max(f - r, 0)]`` (Keating & Shadwick 2002, "A Universal Performance
    Measure", Journal of Performance Measurement 6). 1 for a mean excess return of 0, NaN without a
    loss or for equal returns; it has no units and no scale of time.
    """
    excess = unrounded(as_series(returns) - risk_free_annual / periods_per_year)
    lost = np.where(is_constant(excess), 0.0, 0.0 - np.minimum(excess, 0).sum(axis=0))
    return ratio(np.maximum(excess, 0).sum(axis=0), lost)


def value_at_risk(returns: ArrayLike) -> FloatArray:
    """Historical 95 % value at risk per period: minus the 5 % quantile, linearly interpolated."""
    return 0.0 - np.quantile(as_series(returns), TAIL, axis=0)  # no negative zero


def expected_shortfall(returns: ArrayLike) -> FloatArray:
    """Historical 95 % expected shortfall per period: mean loss of the worst 5 % of the periods.

    The period that the 5 % mark falls into counts in part (Acerbi & Tasche 2002, "On the Coherence
    of Expected Shortfall"), so the measure never falls below the value at risk.
    """
    series = as_series(returns)
    worst = TAIL * len(series)
    whole = int(worst)
    ordered = np.partition(series, whole, axis=0)
    total = ordered[:whole].sum(axis=0) + (worst - whole) * ordered[whole]
    return 0.0 - total / worst


def tail_ratio(returns: ArrayLike) -> FloatArray:
    """Tail ratio: absolute 95 % quantile over absolute 5 % quantile of the returns.

    Above 1 the right tail is longer. Quantiles as in ``value_at_risk``; NaN where the 5 % quantile
    is 0. A practitioners' measure, named as in the library pyfolio.
    """
    low, high = np.abs(np.quantile(as_series(returns), [TAIL, 1 - TAIL], axis=0))
    return ratio(high, low, ROUNDING)


def skewness(returns: ArrayLike) -> FloatArray:
    """Skewness of the returns, corrected for bias: ``sqrt(K (K - 1)) / (K - 2) * m3 / m2^(3/2)``.

    The adjusted Fisher-Pearson coefficient ``G1`` of Joanes & Gill (1998), "Comparing Measures of
    Sample Skewness and Kurtosis", The Statistician 47. NaN for equal returns or K < 3.
    """
    series = as_series(returns)
    n = len(series)
    if n < 3:
        return np.full(series.shape[1:], np.nan)
    third, _ = standardised_moments(series)
    return third * np.sqrt(n * (n - 1)) / (n - 2)


def kurtosis(returns: ArrayLike) -> FloatArray:
    """Excess kurtosis, corrected for bias: ``((K + 1) g2 + 6) (K - 1) / ((K - 2) (K - 3))``.

    ``g2 = m4 / m2^2 - 3``; the coefficient ``G2`` of Joanes & Gill (1998), 0 in expectation for
    normal returns. NaN for equal returns or K < 4.
    """
    series = as_series(returns)
    n = len(series)
    if n < 4:
        return np.full(series.shape[1:], np.nan)
    _, fourth = standardised_moments(series)
    return ((n + 1) * (fourth - 3) + 6) * (n - 1) / ((n - 2) * (n - 3))


def standardised_moments(returns: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """``m3 / m2^(3/2)`` and ``m4 / m2^2`` of the central moments, which divide by K.

    NaN for equal returns.
    """
    series = as_series(returns)
    centred = series - series.mean(axis=0)
    squares = np.square(centred)
    variance = np.where(is_constant(series), 0.0, squares.mean(axis=0))
    third, fourth = (squares * centred).mean(axis=0), np.square(squares).mean(axis=0)
    return ratio(third, variance**1.5), ratio(fourth, variance**2)


def hit_ratio(returns: ArrayLike) -> FloatArray:
    """Share of periods with a positive return."""
    return np.asarray((as_series(returns) > 0).mean(axis=0), dtype=np.float64)
