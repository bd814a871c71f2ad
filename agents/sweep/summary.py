"""Summary of a sweep: what its settings reached on validation, and how sure that is.

Nothing here looks at a test range.
"""

from __future__ import annotations

import math
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from agents.sweep.plan import cells, read_sweep
from agents.training.run_records import CARD, MALFORMED, is_complete
from portfolio_env.errors import DataError, PortfolioError
from portfolio_env.files.atomic import read_json, replacing
from portfolio_env.plotting.figures import (
    DOTS_PER_INCH,
    WIDTH,
    new_figure,
    plot_label,
    save_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURE = "excess_growth"
"""Yearly log growth above equal weight, by which settings are ordered."""
TABLE = "summary.csv"
FIGURE = "summary.png"
_WIDEST = 48  # characters of a name in a line of the table, which is 80 wide then
_COLUMNS = ("setting", "fold", "seed")


def cell_results(root: str | Path, *, model: str = "best") -> pd.DataFrame:
    """Return the validation of every cell that is done.

    Args:
        root: Folder of the sweep.
        model: Model of the runs: "best" by validation, or "final".

    Returns:
        One row per cell: ``setting``, ``fold``, ``seed``, and the measures of its card: growth and
        excess growth are yearly and logarithmic; NaN where an account was ruined.
    """
    rows = []
    for cell in cells(root):
        folder = cell.folder(Path(root))
        if not is_complete(folder):
            continue
        try:
            found = read_json(folder / CARD)["validation"]["models"][model]
            rows.append({**cell._asdict(), **{k: _number(v) for k, v in found.items()}})
        except MALFORMED as error:
            if isinstance(error, PortfolioError):
                raise
            raise DataError(f"{folder / CARD} is damaged ({error}); restore it") from error
    return pd.DataFrame(rows, columns=None if rows else [*_COLUMNS, MEASURE])


def summarise(results: pd.DataFrame, measure: str = MEASURE) -> pd.DataFrame:
    """Return one row per setting, the best mean first.

    Args:
        results: Result of ``cell_results``.
        measure: The column to average.

    Returns:
        By ``setting``: ``cells`` (count), ``mean``, ``seeds`` (standard deviation over seeds of the
        mean over folds), ``folds`` (over folds of the mean over seeds); NaN with fewer than two.
    """
    rows = {}
    for setting, own in results.groupby("setting", sort=False):
        rows[setting] = {
            "cells": len(own),
            "mean": own[measure].mean(),
            "seeds": own.groupby("seed")[measure].mean().std(),
            "folds": own.groupby("fold")[measure].mean().std(),
        }
    columns = ["cells", "mean", "seeds", "folds"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.rename_axis("setting").sort_values("mean", ascending=False)


def spreads(results: pd.DataFrame, measure: str = MEASURE) -> dict[str, float]:
    """Return standard deviations of the validations of a sweep.

    Returns:
        ``settings``: of the means of settings. ``seeds``: of cells that differ in their seed alone.
        ``folds``: of cells that differ in their fold alone. ``chance``: what ``settings`` would be
        if seeds were all that makes settings differ, ``seeds / sqrt(cells of a setting)``. NaN
        where there are fewer than two.
    """
    by_setting = results.groupby("setting")[measure]
    per_setting = by_setting.count().mean() if len(results) else math.nan
    seeds = _within(results, ["setting", "fold"], measure)
    return {
        "settings": float(by_setting.mean().std()),
        "seeds": seeds,
        "folds": _within(results, ["setting", "seed"], measure),
        "chance": seeds / math.sqrt(per_setting),
    }


def figure(results: pd.DataFrame, measure: str = MEASURE) -> Figure:
    """Return a figure of the settings: their means, and the means over folds of every seed."""
    table = summarise(results, measure).iloc[::-1]
    drawing = new_figure((WIDTH, 1.2 + 0.3 * len(table)), DOTS_PER_INCH)
    axes = drawing.subplots()
    for row, setting in enumerate(table.index):
        own = results[results["setting"] == setting].groupby("seed")[measure].mean()
        axes.plot(100 * own, np.full(len(own), row), "o", color="C0", alpha=0.4)
        axes.plot(100 * table["mean"][setting], row, "D", color="C1")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(table)), [plot_label(name) for name in table.index])
    axes.set_xlabel("validation, growth above equal weight, % a year: seeds (dots), mean (diamond)")
    axes.grid(alpha=0.3, axis="x")
    axes.set_ylim(-0.6, len(table) - 0.4)
    return drawing


def write_summary(root: Path) -> pd.DataFrame:
    """Write the table of a sweep and its figure into its folder; return the table."""
    results = cell_results(root)
    table = summarise(results)
    if len(table):
        with replacing(root / TABLE) as beside:
            table.to_csv(beside)
        save_figure(figure(results), root / FIGURE)
    return table


def summary_text(root: Path, table: pd.DataFrame) -> str:
    """Return the summary of a sweep as text, with what it does not show."""
    plan, results = read_sweep(root), cell_results(root)
    if not len(table):
        return "No cell is done yet."
    names = {name: wrap(str(name), _WIDEST, break_on_hyphens=False) for name in table.index}
    wide = max(len("setting"), *(len(line) for lines in names.values() for line in lines))
    lines = [
        "Validation, growth above equal weight, % a year",
        f"{'setting':{wide}}  cells    mean   seeds   folds",
    ]
    for name, row in table.iterrows():
        numbers = "".join(f"{_percent(row[key]):>8}" for key in ("mean", "seeds", "folds"))
        *above, last = names[name]
        lines += [*above, f"{last:{wide}}  {int(row['cells']):5d}{numbers}"]
    found = spreads(results)
    lines.append(
        f"Standard deviations: of settings {_percent(found['settings'])}, of seeds "
        f"{_percent(found['seeds'])}, of folds {_percent(found['folds'])}; if seeds alone made "
        f"settings differ, that of settings would be {_percent(found['chance'])}."
    )
    if plan.folds > 1 and len(plan.settings) > 1:
        lines.append(
            "These validations are test ranges of earlier folds: a setting that is chosen by their "
            "mean has seen the test."
        )
    return "\n".join(lines)


def _within(results: pd.DataFrame, groups: list[str], measure: str) -> float:
    """Return the pooled standard deviation within groups."""
    own = results.groupby(groups)[measure]
    squares = ((results[measure] - own.transform("mean")) ** 2).sum()
    freedom = (own.count() - 1).clip(lower=0).sum()
    return math.sqrt(squares / freedom) if freedom else math.nan


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"
