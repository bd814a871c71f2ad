"""How sure a difference between two accounts is: bootstrap intervals over blocks of time."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.errors import ArgumentError


class Interval(NamedTuple):
    """A point estimate and the bounds of its confidence interval."""

    estimate: float
    low: float
    high: float


def stationary_bootstrap_indices(
    n_periods: int, mean_block: float, generator: np.random.Generator
) -> NDArray[np.int64]:
    """One resample of time: blocks of geometric length from random starts, wrapping at the end.

    Politis & Romano (1994), "The Stationary Bootstrap", JASA 89. Keeping neighbours together keeps
    the autocorrelation and the volatility clusters that drawing single periods would destroy.

    Args:
        n_periods: Periods of the series.
        mean_block: Mean length of a block in periods, at least 1 (1 is the ordinary bootstrap).
        generator: Source of randomness.

    Returns:
        (n_periods,) indices into the series.
    """
    starts_block = generator.random(n_periods) < 1 / mean_block
    starts_block[0] = True
    positions = np.arange(n_periods)
    block_start = np.maximum.accumulate(np.where(starts_block, positions, 0))
    origin = generator.integers(n_periods, size=n_periods)
    return (origin[block_start] + positions - block_start) % n_periods


def growth_difference(
    log_returns: ArrayLike,
    benchmark_log_returns: ArrayLike,
    periods_per_year: float,
    *,
    mean_block: float = 20.0,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Difference in yearly log growth between two accounts over the same periods.

    Paired: both accounts are resampled at the same times, so what moves both cancels. The bounds
    are percentiles of the resampled differences. The interval describes chance in *this* stretch
    of time; it knows nothing of other markets, nor of strategies that were tried and dropped.

    Args:
        log_returns: (K,) log returns of the account.
        benchmark_log_returns: (K,) log returns of the account it is compared with.
        periods_per_year: Periods per year.
        mean_block: Mean block length in periods, at least 1.
        resamples: Number of resamples.
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
    own, other = np.asarray(log_returns, np.float64), np.asarray(benchmark_log_returns, np.float64)
    if own.ndim != 1 or own.shape != other.shape or own.size == 0:
        raise ArgumentError(
            f"log returns of shapes {own.shape} and {other.shape} cannot be paired; "
            "give two series of the same periods."
        )
    difference = own - other
    if not np.isfinite(difference).all():
        raise ArgumentError(
            "a log return is not finite (an account was ruined, or data are missing); "
            "compare the accounts up to there."
        )
    if mean_block < 1 or resamples < 1 or not 0 < confidence < 1:
        raise ArgumentError(
            f"mean_block={mean_block!r} must be at least 1, resamples={resamples!r} at least 1 and "
            f"confidence={confidence!r} inside (0, 1)."
        )
    generator = np.random.default_rng(seed)
    means = [
        difference[stationary_bootstrap_indices(len(difference), mean_block, generator)].mean()
        for _ in range(resamples)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail]) * periods_per_year
    return Interval(float(difference.mean() * periods_per_year), float(low), float(high))
