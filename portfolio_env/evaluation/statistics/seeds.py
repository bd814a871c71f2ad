"""Performance of a learner over its seeds, by robust means."""

import numpy as np
from numpy.typing import ArrayLike

from portfolio_env.checks import check_integer
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.statistics.bootstrap import FloatArray, Interval, percentile_interval


def interquartile_mean(scores: ArrayLike) -> FloatArray:
    """Return the mean of the middle half: a quarter, rounded down, is cut at either end.

    Args:
        scores: (n, ...) scores, n >= 1.

    Returns:
        (...) means over the first axis.

    >>> float(interquartile_mean([0.0, 1.0, 2.0, 99.0]))
    1.5
    """
    ordered = np.sort(np.asarray(scores, np.float64), axis=0)
    cut = len(ordered) // 4
    return ordered[cut : len(ordered) - cut].mean(axis=0)


def seeds_interval(
    scores: ArrayLike, *, n_resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Return the interquartile mean over seeds and markets, with a stratified bootstrap interval.

    Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
    NeurIPS, sections 4.1 and 4.3: seeds are drawn again within each market, and the mean is taken
    over all scores. The interval describes other seeds on the *same* markets and periods. Seeds
    are no independent samples of a market: how a strategy fares in other times is the business of
    intervals over time.

    Args:
        scores: (S,) or (S, M) one score per seed, or per seed and market. Scores of several markets
            must be comparable.
        n_resamples: Number of resamples.
        confidence: Coverage of the interval, in (0, 1).
        seed: Seed of the resampling.

    Raises:
        ArgumentError: If there are fewer than 2 seeds, a score is not finite, or an option is out
            of range.
    """
    table = np.asarray(scores, np.float64)
    if table.ndim not in (1, 2) or len(table) < 2 or not np.isfinite(table).all():
        raise ArgumentError(
            f"scores of shape {table.shape} must be finite, (seeds,) or (seeds, markets), with at "
            "least 2 seeds."
        )
    check_integer("n_resamples", n_resamples)
    table = table.reshape(len(table), -1)
    drawn = np.random.default_rng(seed).integers(len(table), size=(n_resamples, *table.shape))
    draws = np.take_along_axis(table[None], drawn, axis=1).reshape(n_resamples, -1)
    estimate = interquartile_mean(table.ravel())
    return percentile_interval(float(estimate), interquartile_mean(draws.T), confidence)
