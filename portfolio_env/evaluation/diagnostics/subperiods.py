"""Performance by sub-period (calendar years, folds, regimes) and by seed."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.evaluation.diagnostics.crises import performance_in
from portfolio_env.evaluation.diagnostics.regimes import RegimeModel, fit_regimes, regime_path
from portfolio_env.evaluation.statistics import Interval, seeds_interval
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.timeline import Windows

_CALENDARS = {"Y": "%Y", "M": "%Y-%m"}  # units of numpy, how they are written
_LEAST = 10  # periods in a block, on average, or in a regime: fewer say nothing


def calendar_windows(timestamps: NDArray[np.datetime64]) -> Windows:
    """Return the calendar years of a record by name, or its months where it lies within one year.

    Args:
        timestamps: (K + 1,) times of its bars.

    Returns:
        First and last moment by name; the first and the last year are as long as the record lasts
        in them. None where there are not two, or their periods are few.

    >>> list(calendar_windows(np.arange("2020-11-01", "2021-03-01", dtype="datetime64[D]")))
    ['2020', '2021']
    """
    earned = timestamps[1:].astype("datetime64[ns]")
    for unit, form in _CALENDARS.items():
        blocks = np.unique(earned.astype(f"datetime64[{unit}]"))
        if len(blocks) > 1:
            if len(earned) < _LEAST * len(blocks):
                break
            return {
                pd.Timestamp(block).strftime(form): (
                    block.astype("datetime64[ns]"),
                    (block + 1).astype("datetime64[ns]") - np.timedelta64(1, "ns"),
                )
                for block in blocks
            }
    return {}


def growth_in(results: Mapping[str, BacktestResult], windows: Windows) -> pd.DataFrame:
    """Return (strategies, windows) log growth within each window, not per year; NaN if outside.

    Args:
        results: Backtests by name.
        windows: See ``performance_in``.
    """
    growth = performance_in(results, windows)["growth"].unstack("window")
    return growth.loc[list(results), list(windows)]


def filtered_regimes(
    panel: PricePanel, train: tuple[int, int], rows: tuple[int, int]
) -> tuple[RegimeModel, NDArray[np.int64]]:
    """Return the filtered regime of the market at every bar of a range.

    By the mean simple return of the assets (0 where none has two closes in a row).

    Args:
        panel: Bars; those after the range are not read.
        train: Half-open range of rows that the model is fitted to.
        rows: Half-open range of rows, from 1 on.

    Returns:
        The model, and for each of the rows the regime filtered from what was known at its close.

    Raises:
        ArgumentError: As of ``fit_regimes``.
        PortfolioError: If statsmodels is not installed.
    """
    close = panel.close[: rows[1]]
    returns = close[1:] / close[:-1] - 1  # moves[k] is known at bar k + 1
    known = np.isfinite(returns)
    mean = np.where(known, returns, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    model = fit_regimes(mean[train[0] : train[1] - 1])
    return model, regime_path(model.filtered(mean))[rows[0] - 1 : rows[1] - 1]


def growth_by_regime(
    results: Mapping[str, BacktestResult], regimes: NDArray[np.int64], names: Sequence[str]
) -> pd.DataFrame:
    """Return (strategies, regimes) yearly log growth over the periods that began in each regime.

    Args:
        results: Backtests over the same dates, by name.
        regimes: (K,) number of the filtered regime at each decision.
        names: Names of the regimes, by number. One in force for fewer than 10 periods has NaN: a
            year of such periods is not a number.

    Raises:
        ArgumentError: If there is not one regime per decision.
    """
    rows = {}
    for name, result in results.items():
        if len(regimes) != len(result.costs):
            raise ArgumentError(
                f"there are {len(regimes)} regimes for the {len(result.costs)} decisions of {name}."
            )
        chosen = [result.log_returns[regimes == number] for number in range(len(names))]
        rows[name] = [
            float(own.mean() * result.periods_per_year) if len(own) >= _LEAST else np.nan
            for own in chosen
        ]
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(names))


def seeds_summary(
    table: pd.DataFrame,
    groups: Mapping[str, Sequence[str]],
    measures: Sequence[str],
    *,
    n_resamples: int = 2000,
) -> dict[str, dict[str, Interval]]:
    """Return the interquartile mean over seeds of some measures, with its interval.

    The interval is of other seeds in this same period, see ``seeds_interval``; time is
    not resampled.

    Args:
        table: One row per strategy, of ``Comparison``.
        groups: Rows that differ by their seed alone, at least 2, by name.
        measures: Columns.
        n_resamples: Number of bootstrap resamples.

    Returns:
        Intervals by group and measure; NaN where a seed has no number, as that of a ruined account.
    """
    return {
        group: {
            measure: _over_seeds(table.loc[list(names), measure].to_numpy(np.float64), n_resamples)
            for measure in measures
        }
        for group, names in groups.items()
    }


def _over_seeds(scores: NDArray[np.float64], n_resamples: int) -> Interval:
    if np.isfinite(scores).all():
        return seeds_interval(scores, n_resamples=n_resamples)
    return Interval(np.nan, np.nan, np.nan, np.nan)
