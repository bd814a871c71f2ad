"""Bootstrap intervals of every measure of every account, and of differences between accounts."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.statistics.bootstrap import (
    FloatArray,
    Interval,
    optimal_block_length,
    percentile_interval,
    resampled,
)
from portfolio_env.metrics import MEASURES, RELATIVE_MEASURES, TrackRecord
from portfolio_env.names import indices_of

_RESAMPLED = (
    "returns",
    "excess_returns",
    "turnovers",
    "cost_shares",
    "effective_numbers",
    "exposures",
)


@dataclass(frozen=True, eq=False)
class ResampledMeasures:
    """Measures of S accounts, in the data and in R resamples of time that all accounts share.

    Attributes:
        strategies: S names.
        measures: M names.
        estimates: (M, S) measures of the accounts themselves.
        draws: (M, S, R) measures of the resamples.
        mean_block: Mean block length in periods.
    """

    strategies: tuple[str, ...]
    measures: tuple[str, ...]
    estimates: FloatArray
    draws: FloatArray
    mean_block: float

    def interval(self, strategy: str, measure: str, confidence: float = 0.95) -> Interval:
        """Return a measure of one account with its percentile interval.

        Raises:
            ArgumentError: For unknown names, or a confidence outside (0, 1).
        """
        at = self._place(strategy, measure)
        return percentile_interval(self.estimates[at], self.draws[at], confidence)

    def difference(
        self, strategy: str, benchmark: str, measure: str, confidence: float = 0.95
    ) -> Interval:
        """Return a measure of one account less that of another, paired: what moves both cancels.

        Raises:
            ArgumentError: For unknown names, or a confidence outside (0, 1).
        """
        own, other = self._place(strategy, measure), self._place(benchmark, measure)
        with np.errstate(invalid="ignore"):  # infinity minus infinity is undefined
            estimate = self.estimates[own] - self.estimates[other]
            draws = self.draws[own] - self.draws[other]
        return percentile_interval(estimate, draws, confidence)

    def _place(self, strategy: str, measure: str) -> tuple[int, int]:
        (row,) = indices_of("measure", [measure], self.measures)
        (column,) = indices_of("strategy", [strategy], self.strategies)
        return row, column


def resample_measures(
    records: Mapping[str, TrackRecord],
    periods_per_year: float,
    *,
    benchmark: str | None = None,
    measures: Collection[str] | None = None,
    mean_block: float | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> ResampledMeasures:
    """Compute measures of accounts over the same periods, in the data and in resamples of time.

    A period is drawn whole: the returns, trades and holdings of all accounts in it stay together.
    Measures of the path (drawdowns, recovery, Calmar ratio, profit factor) are those of the path
    that the resampled returns compound to. Their intervals say what the same periods could have
    given in another order of blocks, and the value in the data, where bad blocks happened to follow
    each other or not, can lie near or beyond a bound. Likewise ``correlation_stability``: changes
    that last longer than a block are cut up.

    Intervals of growth and of the Sharpe ratio have about their nominal coverage. Those of
    volatility and of tails are too narrow where volatility comes in clusters, of which a record
    holds few: on 750 periods of GARCH(1, 1) with persistence 0.9, 95 % intervals contained the true
    Sharpe ratio in 93 % of the records, the true volatility in 77 %.

    Args:
        records: One-lane track records by name, each of K periods.
        periods_per_year: Periods per year.
        benchmark: Name of the account that beta, correlation, tracking error and the like refer to;
            without it they are left out.
        measures: Names to compute; None for all of ``metrics.MEASURES`` and, with a benchmark,
            ``metrics.RELATIVE_MEASURES``.
        mean_block: Mean block length in periods, at least 1; None for the longest that
            ``optimal_block_length`` gives for the returns and squared returns of any account.
            Returns need short blocks, their squares the length of volatility's clusters.
        n_resamples: Number of resamples.
        seed: Seed of the resampling: the same input gives the same draws.

    Raises:
        ArgumentError: For no or unknown names, records of different lengths or of a ruined account,
            or an option out of range.
    """
    strategies = tuple(records)
    returns = _stacked_returns(records)
    known = list(MEASURES)
    at = 0
    if benchmark is not None:
        known += RELATIVE_MEASURES
        (at,) = indices_of("strategy", [benchmark], strategies)
    names = tuple(known if measures is None else measures)
    indices_of("measure", names, known)
    if not names:
        raise ArgumentError("measures is empty; name one, or leave it out for all.")

    def evaluate(record: TrackRecord) -> FloatArray:
        """Return (M, S, ...) measures of a record with the accounts on the first lane axis."""
        found = []
        for name in names:
            if name in MEASURES:
                found.append(MEASURES[name](record, periods_per_year))
            else:
                other = record.returns[:, at : at + 1]
                found.append(RELATIVE_MEASURES[name](record.returns, other, periods_per_year))
        return np.array(found, dtype=np.float64)

    stacked = TrackRecord(
        *(np.stack(fields, axis=1) for fields in zip(*records.values(), strict=True))
    )
    if mean_block is None:
        squares = np.square(returns - returns.mean(axis=0))
        mean_block = max(optimal_block_length(lane) for lane in np.hstack([returns, squares]).T)
    draws = resampled(
        np.stack([getattr(stacked, name) for name in _RESAMPLED], axis=1),
        lambda taken: evaluate(_compounded(taken)),
        mean_block=mean_block,
        n_resamples=n_resamples,
        seed=seed,
    )
    return ResampledMeasures(strategies, names, evaluate(stacked), draws, mean_block)


def _stacked_returns(records: Mapping[str, TrackRecord]) -> FloatArray:
    if not records:
        raise ArgumentError("records is empty; give at least one account.")
    shapes = {name: record.returns.shape for name, record in records.items()}
    if len(set(shapes.values())) > 1 or len(next(iter(shapes.values()))) != 1:
        raise ArgumentError(
            f"returns of shapes {shapes} cannot be paired; give one lane each, the same periods."
        )
    for name, record in records.items():
        if not (np.isfinite(record.returns) & (record.returns > -1)).all():
            raise ArgumentError(
                f"{name} has a return that is not finite or loses everything (ruin, or missing "
                "data); leave the account out or compare up to there."
            )
    return np.stack([record.returns for record in records.values()], axis=1)


def _compounded(taken: FloatArray) -> TrackRecord:
    """Return the track records (K, S, R) of resampled series (K, 6, S, R)."""
    fields = dict(zip(_RESAMPLED, np.moveaxis(taken, 1, 0), strict=True))
    returns = fields["returns"]
    # Laid out like the resamples, time contiguous.
    values = np.moveaxis(np.ones((*returns.shape[1:], len(returns) + 1)), -1, 0)
    np.cumprod(1 + returns, axis=0, out=values[1:])
    return TrackRecord(values=values, **fields)
