"""Differences in growth between two accounts: a bootstrap interval and a robust t-test."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from portfolio_env.errors import ArgumentError, PortfolioError
from portfolio_env.evaluation.statistics.bootstrap import (
    FloatArray,
    Interval,
    optimal_block_length,
    percentile_interval,
    resampled,
)
from portfolio_env.metrics.arrays import is_constant


def growth_difference(
    log_returns: ArrayLike,
    benchmark_log_returns: ArrayLike,
    periods_per_year: float,
    *,
    mean_block: float | None = None,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the difference in yearly log growth between two accounts over the same periods.

    Paired: both accounts are resampled at the same times, so what moves both cancels. The bounds
    are percentiles of the resampled differences. The interval describes chance in *this* period
    of time; it knows nothing of other markets, nor of strategies that were tried and dropped.

    Args:
        log_returns: (K,) log returns of the account.
        benchmark_log_returns: (K,) log returns of the account it is compared with.
        periods_per_year: Periods per year.
        mean_block: Mean block length in periods, at least 1; None for the ``optimal_block_length``
            of the differences.
        n_resamples: Number of resamples.
        confidence: Coverage of the interval, in (0, 1).
        seed: Seed of the resampling: the same input gives the same interval.

    Returns:
        The difference and its interval, per year.

    Raises:
        ArgumentError: If the series differ in shape or are not finite, or an option is out of
            range.

    >>> round(growth_difference([0.02, 0.03], [0.01, 0.02], periods_per_year=100).low, 9)
    1.0
    """
    difference = paired_difference(log_returns, benchmark_log_returns) * periods_per_year
    means = resampled(
        difference,
        lambda taken: taken.mean(axis=0),
        mean_block=optimal_block_length(difference) if mean_block is None else mean_block,
        n_resamples=n_resamples,
        seed=seed,
    )
    return percentile_interval(difference.mean(), means, confidence)


def growth_difference_test(
    log_returns: ArrayLike,
    benchmark_log_returns: ArrayLike,
    periods_per_year: float,
    *,
    lags: int | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Return the difference in yearly log growth with a t-test that allows for autocorrelation.

    The variance of the mean difference is that of Newey & West (1987), "A Simple, Positive
    Semi-Definite, Heteroskedasticity and Autocorrelation Consistent Covariance Matrix",
    Econometrica 55, scaled by K / (K - 1); quantiles are those of t with K - 1 degrees of freedom.

    Args:
        log_returns: (K,) log returns of the account, K >= 3.
        benchmark_log_returns: (K,) log returns of the account it is compared with.
        periods_per_year: Periods per year.
        lags: Autocovariances that count, from 0 to K - 1; None for ``floor(4 (K / 100)^(2/9))``,
            the rule of Newey & West (1994), Review of Economic Studies 61.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        The difference, its interval and the p-value of no difference, per year; NaN but for the
        estimate where the difference is the same in every period.

    Raises:
        ArgumentError: If the series differ in shape, are too short or not finite, or an option is
            out of range.
        PortfolioError: If statsmodels is not installed.
    """
    difference = paired_difference(log_returns, benchmark_log_returns) * periods_per_year
    n = len(difference)
    if lags is None:
        lags = int(4 * (n / 100) ** (2 / 9))
    if n < 3 or not 0 <= lags < n or not 0 < confidence < 1:
        raise ArgumentError(
            f"{n} periods must be at least 3, lags={lags!r} from 0 to {n - 1} and "
            f"confidence={confidence!r} inside (0, 1)."
        )
    if is_constant(difference / periods_per_year):
        return Interval(float(difference[0]), np.nan, np.nan, np.nan)
    fitted = (
        _linear_model()
        .OLS(difference, np.ones(n))
        .fit(
            cov_type="HAC",
            cov_kwds={"maxlags": lags, "use_correction": True},
            use_t=True,
        )
    )
    (low, high), p_value = fitted.conf_int(1 - confidence)[0], fitted.pvalues[0]
    return Interval(float(fitted.params[0]), float(low), float(high), float(p_value))


def paired_difference(log_returns: ArrayLike, benchmark_log_returns: ArrayLike) -> FloatArray:
    """Return (K,) differences of two series of log returns over the same periods.

    Raises:
        ArgumentError: If the series differ in shape or are not finite.
    """
    own, other = np.asarray(log_returns, np.float64), np.asarray(benchmark_log_returns, np.float64)
    if own.ndim != 1 or own.shape != other.shape or own.size == 0:
        raise ArgumentError(
            f"log returns of shapes {own.shape} and {other.shape} cannot be paired; "
            "give two series of the same periods."
        )
    if not (np.isfinite(own) & np.isfinite(other)).all():
        raise ArgumentError(
            "a log return is not finite (an account was ruined, or data are missing); "
            "compare the accounts up to there."
        )
    return own - other


def _linear_model() -> Any:
    try:
        from statsmodels.regression import linear_model
    except ImportError as error:
        raise PortfolioError(
            "growth_difference_test needs statsmodels; pip install statsmodels"
        ) from error
    return linear_model
