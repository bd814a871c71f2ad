"""Probability of backtest overfitting, by combinatorially symmetric cross-validation."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.errors import ArgumentError
from portfolio_env.metrics.arrays import ROUNDING


class Overfitting(NamedTuple):
    """Out-of-sample performance of the strategies that were best in sample, over all splits.

    Attributes:
        probability: Share of the splits in which it ends in the lower half of all strategies: the
            probability of backtest overfitting. About 1/2 if nothing distinguishes them; near 0 if
            the best is truly best.
        logits: (C,) log odds of its relative rank out of sample in each of the C splits.
        in_sample: (C,) its Sharpe ratio per period where it was chosen.
        out_of_sample: (C,) its Sharpe ratio per period on the other half.
    """

    probability: float
    logits: NDArray[np.float64]
    in_sample: NDArray[np.float64]
    out_of_sample: NDArray[np.float64]


def backtest_overfitting(returns: ArrayLike, *, blocks: int = 16) -> Overfitting:
    """Cross-validate the choice by Sharpe ratio, combinatorially and symmetrically.

    The record is cut into blocks of equal length; each half of them in turn chooses the strategy
    with the best Sharpe ratio, and the other half ranks it: with rank r of N, the logit is
    ``log(w / (1 - w))``, ``w = r / (N + 1)``, and the probability the share of logits <= 0.
    Bailey, Borwein, Lopez de Prado & Zhu (2017), "The Probability of Backtest Overfitting", Journal
    of Computational Finance 20, sections 2 and 3.

    Args:
        returns: (K, N) simple returns, in excess of cash where it earns anything, of N >= 2
            strategies: all that were tried, not the good ones.
        blocks: Even number of blocks, from 4 to 20; up to ``blocks - 1`` periods at the start are
            left out so that all are equally long.

    Raises:
        ArgumentError: If the returns are not finite, too few, those of one strategy, or of one
            without any risk on some half; or if ``blocks`` is out of range.

    >>> generator = np.random.default_rng(0)
    >>> skill = np.array([0.0, 0.0, 0.0, 0.0, 0.5])
    >>> backtest_overfitting(generator.normal(skill, 1, (500, 5)), blocks=8).probability
    0.0
    """
    series = np.asarray(returns, np.float64)
    if series.ndim != 2 or series.shape[1] < 2 or not np.isfinite(series).all():
        raise ArgumentError(
            f"returns of shape {series.shape} must be finite, one column per strategy, at least 2."
        )
    if not 4 <= blocks <= 20 or blocks % 2 or len(series) < 2 * blocks:
        raise ArgumentError(
            f"blocks={blocks} must be even, from 4 to 20, and at most half the {len(series)} "
            "periods."
        )
    length = len(series) // blocks
    cut = series[len(series) - blocks * length :].reshape(blocks, length, -1)
    chosen = np.array(list(combinations(range(blocks), blocks // 2)))
    picked = np.zeros((len(chosen), blocks))
    np.put_along_axis(picked, chosen, 1.0, axis=1)
    inside = _sharpes(cut, picked)
    outside = _sharpes(cut, 1 - picked)
    best = inside.argmax(axis=1)[:, None]
    own = np.take_along_axis(outside, best, axis=1)
    rank = (outside < own).sum(axis=1) + ((outside == own).sum(axis=1) + 1) / 2  # ties share one
    share = rank / (series.shape[1] + 1)
    logits = np.log(share / (1 - share))
    return Overfitting(
        probability=float((logits <= 0).mean()),
        logits=logits,
        in_sample=np.take_along_axis(inside, best, axis=1)[:, 0],
        out_of_sample=own[:, 0],
    )


def _sharpes(cut: NDArray[np.float64], picked: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (C, N) Sharpe ratios per period over the picked blocks, from sums of every block."""
    periods = picked.sum(axis=1, keepdims=True) * cut.shape[1]
    centre = cut.mean(axis=(0, 1))  # otherwise rounding dominates the sum
    around = cut - centre
    means = picked @ around.sum(axis=1) / periods
    squares = picked @ np.square(around).sum(axis=1) / periods
    spread = squares - np.square(means)
    if (spread <= np.maximum(1e-12 * squares.max(axis=0), ROUNDING**2)).any():
        raise ArgumentError(
            "a strategy has no risk on some half of the record (it stays in cash?); leave it out."
        )
    return (means + centre) / np.sqrt(spread)
