"""Tests of Sharpe ratios: of a difference, probabilistic, and deflated for the number of trials.

Periods are taken as independent draws of one distribution, skewed and fat-tailed as it may be; with
autocorrelation the bootstrap is more reliable.
"""

from collections.abc import Sequence
from math import e, isnan, nan, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from portfolio_env.checks import check_number
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.statistics.bootstrap import Interval
from portfolio_env.metrics import sharpe, standardised_moments

_NORMAL = NormalDist()


class SharpeTest(NamedTuple):
    """Test of a yearly Sharpe ratio against a threshold.

    Attributes:
        estimate: Sharpe ratio.
        low: Lower bound of its confidence interval.
        high: Upper bound.
        p_value: One-sided, of the null hypothesis that the true ratio is not above the threshold.
        probability: 1 - p_value: the probabilistic (or deflated) Sharpe ratio.
        threshold: Sharpe ratio of the null hypothesis.
    """

    estimate: float
    low: float
    high: float
    p_value: float
    probability: float
    threshold: float


def sharpe_difference_test(
    excess_returns: ArrayLike,
    benchmark_excess_returns: ArrayLike,
    periods_per_year: float,
    *,
    confidence: float = 0.95,
) -> Interval:
    """Return the difference of two yearly Sharpe ratios with a test for normal returns.

    Jobson & Korkie (1981), "Performance Hypothesis Testing with the Sharpe and Treynor Measures",
    J. of Finance 36, with the variance as Memmel (2003), "Performance Hypothesis Testing with the
    Sharpe Ratio", Finance Letters 1, corrects it: per period
    ``(2 (1 - r) + (a^2 + b^2 - 2 a b r^2) / 2) / K`` for ratios a and b and correlation r. It is
    what older studies report. Fat tails and autocorrelation make it err: ``sharpe_difference``
    allows for both.

    Args:
        excess_returns: (K,) simple returns of the account less those of cash, K >= 3.
        benchmark_excess_returns: (K,) those of the account it is compared with.
        periods_per_year: Periods per year.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        The difference, its interval and the two-sided p-value of no difference, per year; half of
        the p-value is that of the one-sided test in the direction of the difference. NaN for
        the bounds and the p-value where an account has no risk or both move as one.

    Raises:
        ArgumentError: If the series differ in shape, are too short or not finite, or the confidence
            is out of range.
    """
    pair = [np.asarray(each, np.float64) for each in (excess_returns, benchmark_excess_returns)]
    n = pair[0].size
    if pair[0].ndim != 1 or pair[0].shape != pair[1].shape or n < 3:
        raise ArgumentError(
            f"returns of shapes {pair[0].shape} and {pair[1].shape} must be two series of the same "
            "periods, at least 3."
        )
    if not np.isfinite(pair).all():
        raise ArgumentError("a return is not finite: compare the accounts where both have returns.")
    check_number("confidence", confidence, above=0, below=1)
    a, b = (float(sharpe(each, 1.0)) for each in pair)
    if isnan(a) or isnan(b):
        return Interval(nan, nan, nan, nan)
    r = float(np.atleast_2d(np.corrcoef(pair))[0, 1])
    variance = (2 * (1 - r) + 0.5 * (a**2 + b**2 - 2 * a * b * r**2)) / n
    year = sqrt(periods_per_year)
    if variance <= 1e-15:  # rounding: one account is a multiple of the other
        return Interval((a - b) * year, nan, nan, nan)
    error = sqrt(variance)
    reach = _NORMAL.inv_cdf((1 + confidence) / 2) * error
    p_value = 2 * _NORMAL.cdf(-abs(a - b) / error)
    return Interval((a - b) * year, (a - b - reach) * year, (a - b + reach) * year, p_value)


def probabilistic_sharpe_ratio(
    returns: ArrayLike,
    periods_per_year: float,
    threshold: float = 0.0,
    *,
    risk_free_annual: float = 0.0,
    confidence: float = 0.95,
) -> SharpeTest:
    """Test whether the true Sharpe ratio exceeds a threshold (Bailey & Lopez de Prado 2012).

    ``Z[(SR - SR*) sqrt(K - 1) / sqrt(1 - g3 SR + (g4 - 1) / 4 SR^2)]`` with the normal distribution
    Z, ratios per period, and skewness g3 and kurtosis g4 (3 for normal returns) from moments that
    divide by K ("The Sharpe Ratio Efficient Frontier", Journal of Risk 15). The interval rests on
    the same standard error.

    Args:
        returns: (K,) simple returns, K >= 3.
        periods_per_year: Periods per year.
        threshold: Yearly Sharpe ratio to be above of.
        risk_free_annual: Yearly risk-free rate.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        The test, in yearly ratios; NaN for returns without risk.

    Raises:
        ArgumentError: If the returns are not finite, not one series or too short, or the confidence
            is out of range.
    """
    series = np.asarray(returns, np.float64)
    if series.ndim != 1 or len(series) < 3 or not np.isfinite(series).all():
        raise ArgumentError(
            f"returns of shape {series.shape} must be one series of at least 3 finite numbers."
        )
    check_number("confidence", confidence, above=0, below=1)
    year = sqrt(periods_per_year)
    ratio = float(sharpe(series, periods_per_year, risk_free_annual)) / year
    third, fourth = (float(moment) for moment in standardised_moments(series))
    variance = (1 - third * ratio + (fourth - 1) / 4 * ratio**2) / (len(series) - 1)
    if isnan(variance) or variance <= 0:  # not below 0 but by rounding: third^2 <= fourth - 1
        return SharpeTest(ratio * year, nan, nan, nan, nan, threshold)
    error = sqrt(variance)
    reach = _NORMAL.inv_cdf((1 + confidence) / 2) * error
    score = (ratio - threshold / year) / error
    return SharpeTest(
        estimate=ratio * year,
        low=(ratio - reach) * year,
        high=(ratio + reach) * year,
        p_value=_NORMAL.cdf(-score),
        probability=_NORMAL.cdf(score),
        threshold=threshold,
    )


def deflated_sharpe_ratio(
    returns: ArrayLike,
    periods_per_year: float,
    trial_sharpes: Sequence[float],
    *,
    n_trials: float | None = None,
    risk_free_annual: float = 0.0,
    confidence: float = 0.95,
) -> SharpeTest:
    """Test whether the best of many Sharpe ratios exceeds the expected best of as many draws.

    The probabilistic Sharpe ratio with ``expected_maximum_sharpe`` as the threshold (Bailey & Lopez
    de Prado 2014, "The Deflated Sharpe Ratio", Journal of Portfolio Management 40). It is only as
    honest as the count: every variant that was evaluated is a trial.

    Args:
        returns: (K,) simple returns of the chosen strategy, K >= 3.
        periods_per_year: Periods per year.
        trial_sharpes: Yearly Sharpe ratios of all trials, the chosen one among them; their standard
            deviation is the spread of chance.
        n_trials: Independent trials; None for as many as there are ratios. Fewer where trials
            resemble each other, more where some were not kept.
        risk_free_annual: Yearly risk-free rate.
        confidence: Coverage of the interval, in (0, 1); the interval is not deflated.

    Raises:
        ArgumentError: If there are fewer than 2 ratios or one is not finite, and as in
            ``probabilistic_sharpe_ratio`` and ``expected_maximum_sharpe``.
    """
    trials = np.asarray(trial_sharpes, np.float64)
    if trials.ndim != 1 or len(trials) < 2 or not np.isfinite(trials).all():
        raise ArgumentError(
            f"trial_sharpes={trial_sharpes!r} must be at least 2 finite ratios, one per trial."
        )
    threshold = expected_maximum_sharpe(
        len(trials) if n_trials is None else n_trials, float(trials.std(ddof=1))
    )
    return probabilistic_sharpe_ratio(
        returns,
        periods_per_year,
        threshold,
        risk_free_annual=risk_free_annual,
        confidence=confidence,
    )


def expected_maximum_sharpe(n_trials: float, deviation: float) -> float:
    """Return the expected largest of N independent normal Sharpe ratios around 0, approximately.

    ``s ((1 - g) Z^-1[1 - 1 / N] + g Z^-1[1 - 1 / (N e)])`` with Euler's constant g (Bailey & Lopez
    de Prado 2014).

    Args:
        n_trials: N >= 1, not necessarily whole; 0 is expected of a single one.
        deviation: Standard deviation s of the ratios, at least 0.

    Raises:
        ArgumentError: If an argument is out of range.

    >>> round(expected_maximum_sharpe(100, 1.0), 4)
    2.5306
    """
    if not 1 <= n_trials < float("inf") or not 0 <= deviation < float("inf"):
        raise ArgumentError(
            f"n_trials={n_trials!r} must be at least 1 and deviation={deviation!r} at least 0."
        )
    if n_trials == 1:
        return 0.0
    euler = float(np.euler_gamma)
    return deviation * (
        (1 - euler) * _NORMAL.inv_cdf(1 - 1 / n_trials)
        + euler * _NORMAL.inv_cdf(1 - 1 / (n_trials * e))
    )
