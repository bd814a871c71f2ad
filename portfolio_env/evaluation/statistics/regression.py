"""Regression of returns on other returns, with intervals that allow for autocorrelation."""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from portfolio_env.checks import check_integer, check_number
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.statistics.bootstrap import FloatArray, Interval


class Regression(NamedTuple):
    """Coefficients of a regression.

    Attributes:
        alpha: Mean return that the regressors leave, per year.
        betas: One coefficient per regressor.
        r_squared: Share of the variance that they explain.
    """

    alpha: Interval
    betas: tuple[Interval, ...]
    r_squared: float


def regression(
    returns: ArrayLike,
    regressors: ArrayLike,
    periods_per_year: float,
    *,
    lags: int | None = None,
    confidence: float = 0.95,
) -> Regression:
    """Return least squares with the standard errors of Newey & West (1987).

    "A Simple, Positive Semi-Definite, Heteroskedasticity and Autocorrelation Consistent Covariance
    Matrix", Econometrica 55, scaled by K / (K - P - 1) for P regressors; quantiles are normal.

    Args:
        returns: (K,) returns.
        regressors: (K, P) returns, or (K,) one series.
        periods_per_year: Periods per year.
        lags: Autocovariances that count, from 0 to K - 1; None for ``floor(4 (K / 100)^(2/9))``,
            the rule of Newey & West (1994), Review of Economic Studies 61.
        confidence: Coverage of the intervals, in (0, 1).

    Returns:
        The coefficients with intervals and p-values of 0. Regressors that depend on each other
        share what they explain, by the least squares of smallest coefficients.

    Raises:
        ArgumentError: If the series differ in length, are too short or not finite, or an option is
            out of range.
    """
    own, others = np.asarray(returns, np.float64), np.asarray(regressors, np.float64)
    others = others.reshape(len(others), -1)
    n, count = others.shape
    finite = bool(np.isfinite(own).all() and np.isfinite(others).all())
    if own.shape != (n,) or n < count + 3 or not finite:
        raise ArgumentError(
            f"returns of shape {own.shape} and regressors of shape {others.shape} must be finite "
            f"series of the same periods, at least {count + 3}."
        )
    lags = int(4 * (n / 100) ** (2 / 9)) if lags is None else check_integer("lags", lags, 0, n - 1)
    check_number("confidence", confidence, above=0, below=1)
    # In units of their deviations, so that none counts as zero because it is small.
    scale = others.std(axis=0)
    scale[scale == 0] = 1.0
    design = np.column_stack([np.ones(n), others / scale])
    inverse = np.linalg.pinv(design.T @ design)
    coefficients = inverse @ (design.T @ own)
    residuals = own - design @ coefficients
    scores = design * residuals[:, None]
    middle = scores.T @ scores
    for lag in range(1, lags + 1):
        auto = scores[lag:].T @ scores[:-lag]
        middle += (1 - lag / (lags + 1)) * (auto + auto.T)
    covariance = inverse @ middle @ inverse * n / (n - count - 1)
    errors = np.sqrt(np.maximum(np.diag(covariance), 0))
    units = np.r_[periods_per_year, 1 / scale]
    found = [
        _interval(value * unit, error * unit, confidence)
        for value, error, unit in zip(coefficients, errors, units, strict=True)
    ]
    spread = float(np.square(own - own.mean()).sum())
    left = float(np.square(residuals).sum())
    return Regression(found[0], tuple(found[1:]), 1 - left / spread if spread > 0 else float("nan"))


def _interval(estimate: FloatArray, error: FloatArray, confidence: float) -> Interval:
    """Return the normal interval of an estimate, and the p-value of 0."""
    normal, value, width = NormalDist(), float(estimate), float(error)
    reach = normal.inv_cdf(0.5 + confidence / 2) * width
    p_value = 2 * normal.cdf(-abs(value) / width) if width > 0 else float("nan")
    return Interval(value, value - reach, value + reach, p_value)
