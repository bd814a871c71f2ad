"""Bootstrap bands: which paths of an account's value the same periods could have given."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.evaluation.statistics.bootstrap import resampled

POINTS = 200  # of a band: more cannot be seen


class Bands(NamedTuple):
    """Pointwise intervals of the growth of accounts, from 1.

    Attributes:
        at: (P,) index of each point in the values, from 0 to K.
        low: (P,) lower bound by name.
        high: (P,) upper bound by name.
    """

    at: NDArray[np.int64]
    low: dict[str, NDArray[np.float64]]
    high: dict[str, NDArray[np.float64]]


def growth_bands(
    log_returns: Mapping[str, ArrayLike],
    *,
    mean_block: float,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Bands:
    """Where the value of each account could have been, had its periods come in other numbers.

    Stationary resamples of time (Politis & Romano 1994, "The Stationary Bootstrap", JASA 89),
    compounded, and their percentiles at every point on its own: a path may well leave its band
    somewhere.

    Args:
        log_returns: (K,) finite log returns by name, all over the same periods.
        mean_block: Mean block length in periods, at least 1.
        confidence: Coverage at each point, in (0, 1).
        resamples: Number of resamples.
        seed: Seed of the resampling.
    """
    series = np.column_stack([np.asarray(own, np.float64) for own in log_returns.values()])
    at = np.unique(np.linspace(0, len(series), POINTS + 1).round().astype(np.int64))

    def paths(taken: NDArray[np.float64]) -> NDArray[np.float64]:
        """(P - 1, S, R) cumulated log returns at all points but the first."""
        return np.cumsum(np.add.reduceat(taken, at[:-1], axis=0), axis=0)

    drawn = resampled(series, paths, mean_block=mean_block, resamples=resamples, seed=seed)
    tail = (1 - confidence) / 2
    # The first value is given: a band starts at 1.
    bounds = np.quantile(np.exp(drawn), [tail, 1 - tail], axis=-1)
    low, high = np.pad(bounds, ((0, 0), (1, 0), (0, 0)), constant_values=1.0)
    names = list(log_returns)
    return Bands(at, dict(zip(names, low.T, strict=True)), dict(zip(names, high.T, strict=True)))
