"""Comparison of backtests over the same dates: the table, a sentence on each, the files."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import plots
from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.evaluation.statistics import Interval, growth_difference
from portfolio_env.files import replacing

REFERENCE = "equal_weight"
DIFFERENCE = ("growth_difference", "growth_difference_low", "growth_difference_high")
UNKNOWN = Interval(math.nan, math.nan, math.nan, math.nan)


def compare(results: Mapping[str, BacktestResult], reference: str = REFERENCE) -> pd.DataFrame:
    """Measures of every strategy, and its difference in yearly log growth to the reference.

    Args:
        results: Backtests by name, from the same dates.
        reference: Name of the strategy that the others are held against.

    Returns:
        One row per strategy: the measures of ``metrics.summary``, then the difference and the
        bounds of its 95 % interval (see ``growth_difference``), NaN where an account was ruined
        before the end.

    Raises:
        ArgumentError: If there is no result of the reference, or the dates differ.
    """
    if reference not in results:
        raise ArgumentError(f"reference={reference!r} is none of the results {sorted(results)}.")
    benchmark = results[reference]
    rows = {}
    for name, result in results.items():
        shared = min(len(result.timestamps), len(benchmark.timestamps))
        if not np.array_equal(result.timestamps[:shared], benchmark.timestamps[:shared]):
            raise ArgumentError(f"{name} and {reference} ran over different dates; use one range.")
        rows[name] = result.metrics() | dict(
            zip(DIFFERENCE, _difference(result, benchmark)[:3], strict=True)
        )
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("strategy")


def _difference(result: BacktestResult, benchmark: BacktestResult) -> Interval:
    own, other = result.log_returns, benchmark.log_returns
    if len(own) != len(other) or not np.isfinite(own - other).all():
        return UNKNOWN
    return growth_difference(own, other, result.periods_per_year)


def verdict(table: pd.DataFrame, strategy: str, reference: str = REFERENCE) -> str:
    """One plain sentence on a strategy.

    Args:
        table: What ``compare`` returned.
        strategy: Name of a row.
        reference: The reference of the table.
    """
    row = table.loc[strategy].to_dict()
    start = (
        f"{strategy}: {row['annual_log_growth']:+.1%} log growth a year after costs, "
        f"largest drawdown {row['max_drawdown']:.1%}"
    )
    if strategy == reference:
        return start + "; the others are compared with it."
    difference, low, high = (row[name] for name in DIFFERENCE)
    if math.isnan(difference):
        return start + "; ruined before the end, so there is nothing to compare."
    sign = "ahead of" if low > 0 else "behind" if high < 0 else "not distinguishable from"
    return (
        start + f"; {sign} {reference} ({difference:+.1%}, 95% interval {low:+.1%} to {high:+.1%})."
    )


def write_comparison(
    folder: str | Path,
    results: Mapping[str, BacktestResult],
    table: pd.DataFrame,
    facts: Mapping[str, Any],
) -> None:
    """Write the table, the measures, every account and the plots, each file in one piece.

    Args:
        folder: Receives ``table.csv``, ``metrics.json``, ``equity.png``, ``drawdown.png`` and, in a
            folder per strategy, ``account.csv``, ``holdings.csv`` and ``weights.png``.
        results: Backtests by name.
        table: What ``compare`` returned for them.
        facts: JSON-able facts for the head of ``metrics.json``.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    folder = Path(folder)
    with replacing(folder / "table.csv") as path:
        table.to_csv(path)
    measures = {
        name: {key: value if math.isfinite(value) else None for key, value in row.items()}
        for name, row in table.to_dict(orient="index").items()
    }
    with replacing(folder / "metrics.json") as path:
        path.write_text(json.dumps({**facts, "strategies": measures}, indent=2) + "\n")
    plots.save_figure(plots.equity_curves(results), folder / "equity.png")
    plots.save_figure(plots.drawdown_curves(results), folder / "drawdown.png")
    for name, result in results.items():
        result.to_csv(folder / name)
        plots.save_figure(plots.weights_area(result, name), folder / name / "weights.png")
