"""Printed evaluations: a table that fits the terminal and sentences; or Markdown, CSV, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from shutil import get_terminal_size
from textwrap import fill
from typing import Literal

import pandas as pd

from portfolio_env.evaluation.comparison import Comparison
from portfolio_env.evaluation.diagnostics.strategies_under_stress import stress_texts
from portfolio_env.evaluation.left_out import left_out_lines
from portfolio_env.evaluation.report.inputs import (
    ReportInputs,
    order_texts,
    with_difference,
)
from portfolio_env.evaluation.summary import overall, sentence, text_table, universe_lines
from portfolio_env.evaluation.writing import plain_numbers
from portfolio_env.files.csv_files import neutral, with_texts
from portfolio_env.files.safe_names import printable

Format = Literal["table", "markdown", "json", "csv"]
_LINE = 80  # characters
_WORDS = ("remark",)  # columns of running text; all others are right-aligned
INTERVALS = ("growth %", "Sharpe")  # whose intervals a narrow table leaves to the files
LESS_WANTED = (
    *("remark", "set", "deflated vs cash", "#", "cost %", "turnover", "drawdown %", "p", "Sharpe"),
    "Sharpe difference",
)
"""Columns that a narrow terminal goes without, the first first."""


def print_evaluation(
    comparison: Comparison, inputs: ReportInputs, seeds: Sequence[str], form: Format = "table"
) -> None:
    """Print an evaluation.

    Args:
        comparison: Result of ``compare``.
        inputs: Further inputs of the report.
        seeds: A sentence on every group of agents that differ by their seed alone.
        form: "table" is for people: table, sentences, growth at other commissions, orders.
            "markdown" is the same without sentences on every strategy; "csv" and "json" are the
            numbers alone.
    """
    lines = [*inputs.warnings, *universe_lines(comparison), *inputs.gate, *seeds]
    lines += left_out_lines(comparison.results)
    if form == "table":
        print_summary(comparison, inputs.title, lines)
        for title, frame in _further(comparison, inputs).items():
            print()
            _print_table(title, frame)
    elif form == "markdown":
        texts = text_table(comparison)
        parts = {inputs.title: texts, **_further(comparison, inputs)}
        for title, frame in parts.items():
            print(f"**{title}**\n\n{_markdown(frame)}\n")
        for line in (overall(comparison), *comparison.notes, *lines):
            print(f"- {line}")
    elif form == "csv":
        # A name like "=1+1" is a formula to a spreadsheet.
        print(with_texts(comparison.table, neutral).to_csv(lineterminator="\n"), end="")
    else:
        growth = inputs.growth_by_cost
        found = {
            "title": inputs.title,
            "verdict": overall(comparison),
            "remarks": [*comparison.notes, *lines],
            "strategies": comparison.table.to_dict(orient="index"),
            "attribution": {n: each.facts() for n, each in comparison.attributions().items()},
            "growth_by_commission": {} if growth is None else growth.to_dict(orient="index"),
            "stress": []
            if inputs.stress is None
            else inputs.stress.reset_index().to_dict(orient="records"),
            "orders": {
                name: orders.table().to_dict(orient="index")
                for name, orders in inputs.orders.items()
            },
        }
        print(json.dumps(plain_numbers(found), indent=2))


def print_summary(comparison: Comparison, title: str, lines: Sequence[str]) -> None:
    """Print the table, the overall verdict, a sentence on every strategy, and further lines."""
    texts = text_table(comparison)
    missing = _print_table(title, texts, narrow=True)
    if missing:
        say(f"A wider terminal or the format markdown also shows: {', '.join(missing)}.")
    print()
    for line in (overall(comparison), *lines, *comparison.notes):
        say(line)
    for name in texts.index:
        say(f"- {sentence(comparison, str(name))}", indent="  ")


def say(line: str, indent: str = "") -> None:
    """Print a sentence, broken between words where a terminal is narrower; files get one line."""
    if sys.stdout.isatty():
        width = get_terminal_size().columns
        line = fill(line, width, subsequent_indent=indent, break_long_words=False,
                    break_on_hyphens=False)  # fmt: skip
    print(line)


def narrowed(texts: pd.DataFrame, width: int) -> tuple[pd.DataFrame, list[str]]:
    """Return the widest part of a table that fits.

    Args:
        texts: The table, of texts.
        width: Columns of the terminal.

    Returns:
        The table without the intervals and columns for which there is no room, and their names.
    """
    texts = texts.loc[:, (texts != "").any()]
    texts, missing = _without(texts, LESS_WANTED[0], width, [])
    if _width(texts) > width:
        short = {name: texts[name].str.partition(" [")[0] for name in INTERVALS if name in texts}
        texts = texts.assign(**short)
        missing = [*missing, "intervals of growth and Sharpe"]
    for column in LESS_WANTED[1:]:
        texts, missing = _without(texts, column, width, missing)
    return texts, missing


def _without(
    texts: pd.DataFrame, column: str, width: int, missing: list[str]
) -> tuple[pd.DataFrame, list[str]]:
    if _width(texts) <= width or column not in texts:
        return texts, missing
    return texts.drop(columns=column), [*missing, column]


def _shown(texts: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose names and cells have invisible characters escaped."""
    cells = texts.map(lambda part: printable(str(part)) if str(part) else "")
    return cells.set_axis([printable(str(name)) for name in texts.index])


def _width(texts: pd.DataFrame) -> int:
    """Return the width on a terminal: rules before, between and after, blanks beside each text."""
    columns = [texts.index.to_series(), *(texts[name] for name in texts)]
    names = ["", *texts.columns]
    widths = (
        max([len(name), *map(len, column.astype(str))])
        for name, column in zip(names, columns, strict=True)
    )
    return sum(widths) + 3 * len(names) + 1


def _print_table(title: str, texts: pd.DataFrame, *, narrow: bool = False) -> list[str]:
    """Print a table of texts; returns what of it had no room."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    texts = _shown(texts)
    console = Console()
    missing: list[str] = []
    if narrow:
        texts, missing = narrowed(texts, console.width)
    print(printable(title))  # not as the table's: that would be broken where the table is narrow
    printed = Table()
    printed.add_column("", no_wrap=True)
    for column in texts.columns:
        left = column in _WORDS
        printed.add_column(str(column), no_wrap=not left, justify="left" if left else "right")
    for name, row in texts.iterrows():
        printed.add_row(*(Text(str(part)) for part in (name, *row)))  # no markup of strangers
    console.print(printed)
    return missing


def _further(comparison: Comparison, inputs: ReportInputs) -> Mapping[str, pd.DataFrame]:
    """Return growth at other commissions, and orders, as tables of texts by title."""
    found = {}
    if (growth := inputs.growth_by_cost) is not None:
        texts = with_difference(growth, comparison.benchmark)
        texts.columns = [f"{commission:g} bp" for commission in growth.columns]
        against = comparison.benchmark.replace("_", " ")
        found[f"Growth % at other commissions [less that of {against}]"] = texts
    if inputs.stress is not None:
        for title, texts in stress_texts(inputs.stress).items():
            parts = _side_by_side(texts, _LINE)
            for number, part in enumerate(parts, start=1):
                which = f" ({number} of {len(parts)})" if len(parts) > 1 else ""
                found[f"{title}{which}"] = part
    for name, orders in inputs.orders.items():
        title = f"Orders of {name} for {orders.plan.value:,.0f}"
        title += f" (costs {float(orders.cost):,.2f}, cash that was not planned "
        found[f"{title}{orders.unplanned_cash:,.2f})"] = order_texts(orders)
    return found


def _side_by_side(texts: pd.DataFrame, width: int) -> list[pd.DataFrame]:
    """Return a table in parts that fit a width, each of at least one column."""
    parts: list[list[str]] = [[]]
    for column in texts.columns:
        if parts[-1] and _width(texts[[*parts[-1], column]]) > width:
            parts.append([])
        parts[-1].append(column)
    return [texts[part] for part in parts]


def _markdown(texts: pd.DataFrame) -> str:
    """Return a table of Markdown; pandas needs a library for it."""
    texts = _shown(texts)
    aligned = ["---" if column in _WORDS else "---:" for column in texts.columns]
    rows = [["", *texts.columns], ["---", *aligned]]
    rows += [[str(name), *map(str, row)] for name, row in texts.iterrows()]
    return "\n".join("| " + " | ".join(p.replace("|", r"\|") for p in row) + " |" for row in rows)
