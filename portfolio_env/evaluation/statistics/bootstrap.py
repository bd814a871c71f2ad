"""Stationary bootstrap: resamples of time that keep neighbours together, and their intervals.

Politis & Romano (1994), "The Stationary Bootstrap", JASA 89.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.checks import check_integer, check_number
from portfolio_env.metrics.arrays import ROUNDING

FloatArray: TypeAlias = NDArray[np.float64]

_CHUNK = 2**20  # resampled numbers held at a time: 8 MB, about what caches hold
_KEPT = 2**23  # indices of resamples that are kept for the next call: 64 MB


class Interval(NamedTuple):
    """Point estimate, bounds of its confidence interval, and a two-sided p-value.

    Attributes:
        estimate: Point estimate in the data.
        low: Lower bound.
        high: Upper bound.
        p_value: p-value of the null hypothesis of 0; for a number that cannot be 0,
            a volatility say, it means nothing.
    """

    estimate: float
    low: float
    high: float
    p_value: float


def stationary_bootstrap_indices(
    n_periods: int, mean_block: float, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Draw one resample of time: blocks of geometric length, random starts, wrapped at the end.

    Keeping neighbours together keeps the autocorrelation and the volatility clusters that drawing
    single periods would destroy.

    Args:
        n_periods: Periods of the series.
        mean_block: Mean length of a block in periods, at least 1 (1 is the ordinary bootstrap).
        generator: Source of randomness.

    Returns:
        (n_periods,) indices into the series.
    """
    starts_block = generator.random(n_periods) < 1 / mean_block
    positions = np.arange(n_periods)
    block_start = np.maximum.accumulate(np.where(starts_block, positions, 0))  # one starts at 0
    origin = generator.integers(n_periods, size=n_periods)
    return (origin[block_start] + positions - block_start) % n_periods


def optimal_block_length(series: ArrayLike) -> float:
    """Return the mean block length for the most accurate variance of a series' resampled mean.

    ``(G^2 / g(0)^2)^(1/3) K^(1/3)`` with ``G = sum_k w(k/M) |k| R(k)`` and ``g(0) = sum_k w(k/M)
    R(k)``, where R are the autocovariances and w the flat-top window, 1 up to half of M and then
    falling to 0: Politis & White (2004), "Automatic Block-Length Selection for the Dependent
    Bootstrap", Econometric Reviews 23, corrected by Patton, Politis & White (2009), Econometric
    Reviews 28. M is twice the first lag (at least 1) from which on ``max(5, log10 K)``
    autocorrelations in a row lie within ``2 sqrt(log10(K) / K)``.

    Args:
        series: (K,) finite numbers.

    Returns:
        Periods, from 1 (no autocorrelation) to the least of ``3 sqrt(K)`` and ``K / 3``, rounded
        up; 1 for a constant series or fewer than 9 periods.
    """
    # The library arch has it too, but comparisons must run without extras; a test compares the
    # two.
    values = np.asarray(series, np.float64)
    n = len(values)
    if n < 9 or np.ptp(values) <= ROUNDING * np.abs(values).max():
        return 1.0
    run = max(5, int(np.log10(n)))
    last = int(np.ceil(np.sqrt(n))) + run  # less than n, which is 9 or more
    centred = values - values.mean()
    covariances = np.array([centred[lag:] @ centred[: n - lag] / n for lag in range(last + 1)])
    within = np.abs(covariances / covariances[0]) < 2 * np.sqrt(np.log10(n) / n)
    quiet = np.lib.stride_tricks.sliding_window_view(within[1:last], run).all(axis=1)
    first_quiet = 1 + int(quiet.argmax()) if quiet.any() else last
    bandwidth = min(2 * first_quiet, last)
    lags = np.arange(1, bandwidth + 1)
    weighted = np.minimum(1, 2 * (1 - lags / bandwidth)) * covariances[1 : bandwidth + 1]
    slope = 2 * (lags * weighted).sum()
    spectrum = covariances[0] + 2 * weighted.sum()
    longest = float(np.ceil(min(3 * np.sqrt(n), n / 3)))
    if spectrum == 0:
        return longest
    return float(np.clip(((slope / spectrum) ** 2 * n) ** (1 / 3), 1, longest))


def resampled(
    series: FloatArray,
    statistic: Callable[[FloatArray], FloatArray],
    *,
    mean_block: float,
    n_resamples: int,
    seed: int,
) -> FloatArray:
    """Compute a statistic of every stationary resample of time.

    Args:
        series: (K, ...) numbers; whatever stands in one row stays together.
        statistic: Maps resamples (K, ..., R) to (..., R), each resample for itself.
        mean_block: Mean block length in periods, at least 1.
        n_resamples: Number of resamples, at least 1.
        seed: Seed of the resampling; the resamples of time do not depend on the number of lanes.

    Returns:
        (..., resamples) statistics.

    Raises:
        ArgumentError: If an option is out of range.
    """
    check_number("mean_block", mean_block, 1)
    check_integer("n_resamples", n_resamples)
    n = len(series)
    rows = np.ascontiguousarray(np.moveaxis(series, 0, -1))
    at_once = max(1, _CHUNK // series.size)
    kept = n * n_resamples <= _KEPT
    drawn = _all_indices(n, mean_block, n_resamples, seed) if kept else None
    generator = np.random.default_rng(seed)
    statistics = []
    for done in range(0, n_resamples, at_once):
        count = min(at_once, n_resamples - done)
        indices = (
            _indices(n, mean_block, count, generator)
            if drawn is None
            else drawn[done : done + count]
        )
        # Time stays contiguous in memory, where every statistic runs along it.
        statistics.append(statistic(np.moveaxis(rows.take(indices, axis=-1), -1, 0)))
    return np.concatenate(statistics, axis=-1)


def _indices(
    n_periods: int, mean_block: float, count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Draw indices (count, n_periods) of so many resamples of time."""
    drawn = [stationary_bootstrap_indices(n_periods, mean_block, generator) for _ in range(count)]
    return np.array(drawn)


@lru_cache(maxsize=1)
def _all_indices(n_periods: int, mean_block: float, count: int, seed: int) -> NDArray[np.int64]:
    """Return the resamples of time of a seed, which one comparison asks for again and again."""
    found = _indices(n_periods, mean_block, count, np.random.default_rng(seed))
    found.flags.writeable = False
    return found


def percentile_interval(estimate: float, draws: FloatArray, confidence: float) -> Interval:
    """Return the percentile interval of bootstrap draws, and the p-value at which it touches 0.

    Efron & Tibshirani (1993), "An Introduction to the Bootstrap", ch. 13 and 15.4. The bounds are
    draws, not interpolated between them.

    Args:
        estimate: The statistic of the data.
        draws: (R,) the statistic of the resamples; one that is NaN leaves bounds and p-value NaN.
        confidence: Coverage of the interval, in (0, 1).

    Raises:
        ArgumentError: If the confidence is out of range.
    """
    check_number("confidence", confidence, above=0, below=1)
    if np.isnan(draws).any():
        return Interval(float(estimate), np.nan, np.nan, np.nan)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], method="closest_observation")
    beyond = min((draws <= 0).sum(), (draws >= 0).sum())
    p_value = min(1.0, 2 * (1 + beyond) / (1 + len(draws)))
    return Interval(float(estimate), float(low), float(high), float(p_value))
