"""Differences between two accounts at equal risk: of Sharpe ratios, of growth at one volatility.

More growth can be bought with more risk: a levered copy of the benchmark outgrows it on a rising
market. Neither measure here rewards leverage.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from portfolio_env.checks import check_integer, check_number
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.statistics.bootstrap import (
    FloatArray,
    Interval,
    optimal_block_length,
    percentile_interval,
    resampled,
)
from portfolio_env.metrics.arrays import ROUNDING, is_constant

# Of the circular bootstrap over the stationary bootstrap: Patton, Politis & White (2009).
_CIRCULAR = 1.5 ** (1 / 3)
_LARGEST_ROOT = 0.97  # of the prewhitening regression: Andrews & Monahan (1992)
_CHUNK = 2**20  # resampled numbers held at a time


def sharpe_difference(
    excess_returns: ArrayLike,
    benchmark_excess_returns: ArrayLike,
    periods_per_year: float,
    *,
    block: int | None = None,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the difference of two yearly Sharpe ratios with a studentised bootstrap interval.

    Ledoit & Wolf (2008), "Robust Performance Hypothesis Testing with the Sharpe Ratio", Journal of
    Empirical Finance 15: both accounts are resampled together in circular blocks, every resampled
    difference is divided by its own standard error, and the symmetric interval is as many standard
    errors wide as ``confidence`` of them are. The standard error of the data is of a prewhitened
    Parzen kernel (Andrews & Monahan 1992, Econometrica 60), that of a resample of its blocks.
    Returns are divided by their standard deviations first, which the authors do not.

    Args:
        excess_returns: (K,) simple returns of the account less those of cash, K >= 10.
        benchmark_excess_returns: (K,) those of the account it is compared with.
        periods_per_year: Periods per year.
        block: Periods of a block, from 1 to K / 2; None for the ``optimal_block_length`` of what
            every period contributes to the difference, times 1.145 for circular blocks.
        n_resamples: Number of resamples.
        confidence: Coverage of the interval, in (0, 1).
        seed: Seed of the resampling: the same input gives the same interval.

    Returns:
        The difference, its interval and the p-value of no difference, per year. All is 0, with
        a p-value of NaN, where one account is a multiple of the other; NaN where one has no risk.

    Raises:
        ArgumentError: If the series differ in shape, are too short or not finite, or an option is
            out of range.
    """
    own = _pair(excess_returns, benchmark_excess_returns)
    n = len(own)
    check_integer("n_resamples", n_resamples)
    check_number("confidence", confidence, above=0, below=1)
    if is_constant(own).any():
        return Interval(math.nan, math.nan, math.nan, math.nan)
    yearly = math.sqrt(periods_per_year * (n - 1) / n)  # as ``metrics.sharpe``: divided by K - 1
    # The kernel's bandwidth depends on the scales of the moments: here leverage changes nothing.
    own /= own.std(axis=0)
    moments = np.concatenate([own, np.square(own)], axis=1)
    centred, gradient = moments - moments.mean(axis=0), _gradient(moments.mean(axis=0))
    difference, influence = float(_ratio_difference(moments.mean(axis=0))), centred @ gradient
    if math.isnan(difference):
        return Interval(math.nan, math.nan, math.nan, math.nan)
    if np.abs(influence).max() <= math.sqrt(ROUNDING):  # one is a multiple of the other
        return Interval(0.0, 0.0, 0.0, math.nan)
    if block is None:
        block = min(math.ceil(_CIRCULAR * optimal_block_length(influence)), n // 2)
    check_integer("block", block, 1, n // 2)
    error = math.sqrt(_long_run_variance(centred, gradient) / n)
    scores = _studentised(moments, block, n_resamples, seed)
    reach = error * float(np.quantile(scores, confidence, method="closest_observation"))
    beyond = int((scores >= abs(difference) / error).sum())
    low, high = yearly * (difference - reach), yearly * (difference + reach)
    return Interval(yearly * difference, low, high, (1 + beyond) / (1 + n_resamples))


def equal_risk_growth_difference(
    returns: ArrayLike,
    benchmark_returns: ArrayLike,
    periods_per_year: float,
    *,
    cash_returns: ArrayLike = 0.0,
    mean_block: float | None = None,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the difference in yearly log growth after scaling to the benchmark's volatility.

    The account is mixed with cash, or levered with money borrowed at the rate of cash, by the one
    constant factor that gives its excess returns the standard deviation of the benchmark's over the
    same periods: the M2 of Modigliani & Modigliani (1997), "Risk-Adjusted Performance", Journal of
    Portfolio Management 23, in log growth. The factor is known in hindsight only, and no costs of
    holding it are charged. Every resample of the paired stationary bootstrap has its own.

    Args:
        returns: (K,) simple returns of the account, K >= 10.
        benchmark_returns: (K,) those of the account it is compared with.
        periods_per_year: Periods per year.
        cash_returns: Return of a unit of cash in each period: (K,) or one number.
        mean_block: Mean block length in periods, at least 1; None for the ``optimal_block_length``
            of the differences.
        n_resamples: Number of resamples.
        confidence: Coverage of the interval, in (0, 1).
        seed: Seed of the resampling: the same input gives the same interval.

    Returns:
        The difference, its interval and its p-value, per year; NaN where an account has no risk or
        would be ruined at that leverage.

    Raises:
        ArgumentError: As in ``sharpe_difference``.
    """
    pair = _pair(returns, benchmark_returns)
    cash = np.broadcast_to(np.asarray(cash_returns, np.float64), (len(pair),))
    series = np.column_stack([pair - cash[:, None], cash])
    scaled = _scaled_difference(series)
    if is_constant(pair - cash[:, None]).any() or np.isnan(scaled).any():
        return Interval(math.nan, math.nan, math.nan, math.nan)
    means = resampled(
        series,
        lambda taken: _scaled_difference(taken).mean(axis=0),
        mean_block=optimal_block_length(scaled) if mean_block is None else mean_block,
        n_resamples=n_resamples,
        seed=seed,
    )
    estimate = float(scaled.mean())
    return percentile_interval(periods_per_year * estimate, periods_per_year * means, confidence)


def _pair(one: ArrayLike, other: ArrayLike) -> FloatArray:
    """Return two series of returns side by side: (K, 2)."""
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if first.ndim != 1 or first.shape != second.shape or len(first) < 10:
        raise ArgumentError(
            f"returns of shapes {first.shape} and {second.shape} must be two series of the same "
            "periods, at least 10."
        )
    pair = np.column_stack([first, second])
    if not np.isfinite(pair).all():
        raise ArgumentError(
            "a return is not finite (an account was ruined, or data are missing); compare the "
            "accounts up to there."
        )
    return pair


def _gradient(moments: FloatArray) -> FloatArray:
    """Return (4, ...) derivatives of the difference of ratios by (4, ...) means of ``_moments``."""
    mean, square = moments[:2], moments[2:]
    cubed = (square - np.square(mean)) ** 1.5
    by_mean, by_square = square / cubed, -mean / (2 * cubed)
    return np.stack([by_mean[0], -by_mean[1], by_square[0], -by_square[1]])


def _ratio_difference(moments: FloatArray) -> FloatArray:
    """Return the difference of ratios at (4, ...) means of ``_moments``."""
    mean, square = moments[:2], moments[2:]
    ratios = mean / np.sqrt(square - np.square(mean))
    difference: FloatArray = ratios[0] - ratios[1]
    return difference


def _long_run_variance(moments: FloatArray, gradient: FloatArray) -> float:
    """Return the variance of the root-K difference: prewhitened, Parzen kernel, recoloured.

    The bandwidth is that of Andrews (1991), Econometrica 59, from one autoregression per moment.
    """
    lagged, now = moments[:-1], moments[1:]
    n, k = now.shape
    slopes = np.linalg.lstsq(lagged, now, rcond=None)[0].T
    left, sizes, right = np.linalg.svd(slopes)
    slopes = left @ np.diag(np.minimum(sizes, _LARGEST_ROOT)) @ right
    white = now - lagged @ slopes.T
    above = below = 0.0
    for series in white.T:
        before, after = series[:-1] - series[:-1].mean(), series[1:] - series[1:].mean()
        power = before @ before
        slope = min(max(before @ after / power if power else 0.0, -_LARGEST_ROOT), _LARGEST_ROOT)
        variance = np.square(after - slope * before).mean()
        above += 4 * slope**2 * variance**2 / (1 - slope) ** 8
        below += variance**2 / (1 - slope) ** 4
    bandwidth = 2.6614 * (above / below * n) ** 0.2 if below else 1.0
    covariance = white.T @ white / n
    for lag in range(1, min(math.ceil(bandwidth), n)):
        auto = white[lag:].T @ white[:-lag] / n
        covariance += _parzen(lag / bandwidth) * (auto + auto.T)
    covariance *= n / (n - k)
    recoloured = np.linalg.solve(np.eye(k) - slopes.T, gradient)
    return float(recoloured @ covariance @ recoloured)


def _parzen(x: float) -> float:
    return 1 - 6 * x**2 + 6 * x**3 if x <= 0.5 else 2 * (1 - x) ** 3


def _studentised(moments: FloatArray, block: int, n_resamples: int, seed: int) -> FloatArray:
    """Return (R,) distances of resampled differences from that of the data, in standard errors.

    Args:
        moments: (K, 4) returns and squared returns.
        block: Periods of a block.
        n_resamples: R.
        seed: Seed of the resampling.
    """
    n, generator, scores = len(moments), np.random.default_rng(seed), []
    whole, rest = divmod(n, block)
    sums, ends = _circular_sums(moments, block), _circular_sums(moments, rest)
    centre = _ratio_difference(moments.mean(axis=0))
    at_once = max(1, _CHUNK // (4 * whole))
    for done in range(0, n_resamples, at_once):
        count = min(at_once, n_resamples - done)
        starts = generator.integers(n, size=(whole + 1, count))
        blocks = sums[:, starts[:-1]]  # (4, blocks, R)
        means = (blocks.sum(axis=1) + ends[:, starts[-1]]) / n
        with np.errstate(divide="ignore", invalid="ignore"):
            gradient = _gradient(means)
            influence = (gradient[:, None] * (blocks - block * means[:, None])).sum(axis=0)
            errors = np.sqrt(np.square(influence).mean(axis=0) / block / n)
            scores.append(np.abs(_ratio_difference(means) - centre) / errors)
    found = np.concatenate(scores)
    # A resample of one block repeated has no error of its own: it counts as far away.
    return np.where(np.isnan(found), np.inf, found)


def _circular_sums(series: FloatArray, length: int) -> FloatArray:
    """Return (4, K) sums over so many periods from each one on, wrapped at the end."""
    wrapped = np.concatenate([np.zeros((1, 4)), series, series[:length]])
    running = np.cumsum(wrapped, axis=0)
    return np.ascontiguousarray(
        (running[length:] - running[: len(running) - length])[: len(series)].T
    )


def _scaled_difference(series: FloatArray) -> FloatArray:
    """Return (K, ...) log returns of the scaled account less those of the benchmark.

    Args:
        series: (K, 3, ...) excess returns of both, returns of cash.
    """
    own, other, cash = np.moveaxis(series, 1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.sqrt(_variance(other) / _variance(own))
        logs: FloatArray = np.log((1 + cash + factor * own) / (1 + cash + other))
    return np.where(np.isfinite(logs), logs, np.nan)


def _variance(series: FloatArray) -> FloatArray:
    """Return the variance over time, in one pass: means of returns are far below deviations."""
    squares: FloatArray = np.einsum("k...,k...->...", series, series) / len(series)
    return squares - np.square(series.mean(axis=0))
