"""CSV files whose texts a spreadsheet does not run as formulas.

A spreadsheet takes a cell that begins with one of ``= + - @``, a tab or a line's end for a formula,
and formulas can send what is beside them elsewhere. Texts from strangers, as names of assets are,
get an apostrophe in front of such a beginning (OWASP, "CSV Injection"); numbers stay numbers.
Reading takes the apostrophe away again.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from portfolio_env.files.atomic import replacing

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NEUTRAL = re.compile(r"'+[=+\-@\t\r\n]")


def neutral(text: str) -> str:
    """Return a text that is no formula.

    >>> neutral("=1+1"), neutral("A-B")
    ("'=1+1", 'A-B')
    """
    return f"'{text}" if _FORMULA.match(text) else text


def original(text: str) -> str:
    """Invert ``neutral``.

    >>> original("'=1+1"), original("'tis"), original(original(neutral(neutral("-"))))
    ('=1+1', "'tis", '-')
    """
    return text[1:] if _NEUTRAL.match(text) else text


def write_csv(path: str | Path, frame: pd.DataFrame, **options: Any) -> None:
    """Write a table in one piece, without formulas in cells, headers and index.

    Args:
        path: The file; one that ends in ".gz" is compressed.
        frame: The table.
        **options: Options of ``DataFrame.to_csv``.

    Raises:
        DataError: If the system refuses to write.
    """
    options.setdefault("quoting", csv.QUOTE_MINIMAL)
    if any("\r" in text for text in _texts(frame)):  # no line end to QUOTE_MINIMAL
        options["quoting"] = csv.QUOTE_NONNUMERIC
    with replacing(path) as beside:
        with_texts(frame, neutral).to_csv(beside, **options)


def with_texts(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Return a table with its texts changed by a function: cells, headers and index."""
    changes = {text: change(text) for text in _texts(frame)}
    changes = {text: changed for text, changed in changes.items() if text != changed}
    if not changes:
        return frame

    def changed(value: Any) -> Any:
        return changes.get(value, value) if isinstance(value, str) else value

    columns = [column.map(changed) if _is_text(column) else column for _, column in frame.items()]
    names = frame.columns
    frame = pd.concat(columns, axis=1)
    frame.columns = names
    frame = frame.rename(columns=changed, index=changed)
    return frame.rename_axis(index=changed, columns=changed)


def _texts(frame: pd.DataFrame) -> set[str]:
    """Return every text of a table."""
    found: list[Any] = [*frame.index.names, *frame.columns.names]
    for level in range(frame.columns.nlevels):
        found += frame.columns.get_level_values(level).tolist()
    for level in range(frame.index.nlevels):
        labels = frame.index.get_level_values(level)
        found += labels.unique().tolist() if _is_text(labels) else ()
    for _, column in frame.items():  # noqa: PERF102  # a frame's values are an array
        found += column.unique().tolist() if _is_text(column) else ()
    return {value for value in found if isinstance(value, str)}


def _is_text(values: pd.Series[Any] | pd.Index[Any]) -> bool:
    types = pd.api.types
    return not (types.is_numeric_dtype(values) or types.is_datetime64_any_dtype(values))
