"""Numbers as people and programs write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from portfolio_env.data.tables.origin import Origin
from portfolio_env.market.panel import FloatArray

NOTHING = (
    "", "null", "NULL", "Null", "nan", "NaN", "NAN", "None", "none", "NONE", "NA", "N/A", "n/a",
    "#N/A", "#N/A N/A", "#NA", "#VALUE!", "<NA>", "NaT", "-", "--", ".",
)  # fmt: skip
"""What stands in a cell without a number."""

_SIGNS = re.compile(r"[\s\u00a0\u202f'$€£¥]")
_UNITS = {"K": "e3", "M": "e6", "B": "e9", "T": "e12"}
_SIGN = r"[+-]?"
_COMMAS_GROUP = re.compile(  # also of two digits, as in India
    _SIGN + r"(\d{1,3}(,\d{2,3})*,\d{3}\.\d+|\d{1,3}(,\d{2,3})+,\d{3})"
)
_COMMA_DECIMAL = re.compile(_SIGN + r"(\d{1,3}(\.\d{3})+|\d+),(\d{1,2}|\d{4,})([eE][+-]?\d+)?")
_COMMA_AFTER_ZERO = re.compile(_SIGN + r"(0|\d{4,}|\d{1,3}(\.\d{3})+),\d+([eE][+-]?\d+)?")
_POINT_DECIMAL = re.compile(_SIGN + r"\d+\.(\d{1,2}|\d{4,})([eE][+-]?\d+)?|" + _SIGN + r"0\.\d+")
_POINTS_MAY_GROUP = re.compile(_SIGN + r"[1-9]\d{0,2}(\.\d{3})+")
_EITHER = re.compile(_SIGN + r"[1-9]\d{0,2},\d{3}")


def decimal_of(texts: Iterable[str], plain: Iterable[str] = ()) -> str | None:
    """Return the decimal sign of a file, "." or ",", as its cells prove it; None if they do not.

    Args:
        texts: Cells that are no plain numbers.
        plain: Some that are, which may prove a point.
    """
    comma = point = False
    for text in texts:
        text = _SIGNS.sub("", text)
        comma |= bool(_COMMA_DECIMAL.fullmatch(text) or _COMMA_AFTER_ZERO.fullmatch(text))
        point |= bool(_COMMAS_GROUP.fullmatch(text))
    point |= any(_POINT_DECIMAL.fullmatch(text.strip()) for text in plain)
    return None if comma == point else "," if comma else "."


def is_decimal_point(text: str) -> bool:
    """Return whether the point of a number can only be that of decimals."""
    text = text.strip()
    return "." in text and text not in NOTHING and not _POINTS_MAY_GROUP.fullmatch(text)


def thousands_by_points(columns: Iterable[pd.Series[Any]], *, likely: bool) -> bool | int:
    """Return whether points separate thousands in all columns of a table.

    They do if a number has two of them, or if the numbers of a column without one are all below
    1,000 and all a hundred times those with one as decimals: 998 and 1.003. They are decimal
    points if a number cannot be read otherwise, or has five digits in a row. Numbers with exactly
    three digits after each point say nothing by themselves.

    Args:
        columns: Cells as text, NaN where there is none; none of them can prove a decimal comma.
        likely: Whether the table is otherwise written as where points separate thousands.

    Returns:
        True or False; or the position of the first cell that may be either, if nothing tells.
    """
    doubtful: list[int] = []
    proven = False
    for column in columns:
        cells = column.fillna("").str.strip()
        cells = cells.where(~cells.isin(NOTHING), "")
        pointed = cells.str.contains(".", regex=False).to_numpy()
        if cells.str.contains(r"\d{5}").any() or any(
            map(is_decimal_point, cells[pointed].unique())
        ):
            return False
        if not pointed.any():
            continue
        proven |= bool((cells[pointed].str.count(r"\.") > 1).any())
        others = cells[~pointed & (cells != "").to_numpy()]
        whole = pd.to_numeric(others, errors="coerce").abs()
        if whole.max() >= 1000:
            return False
        as_decimals = pd.to_numeric(cells[pointed], errors="coerce").abs()
        proven |= bool(whole[whole != 0].min() > 100 * as_decimals.max())
        if len(others) or likely:
            doubtful.append(int(pointed.argmax()))
    return True if proven else min(doubtful) if doubtful else False


def read_numbers(
    values: pd.Series[Any], origin: Origin, *, of_volume: bool | None = None
) -> FloatArray:
    """Numbers as float64, NaN where the cell is empty.

    Signs of currencies, blanks and apostrophes between thousands, and K, M, B after a volume are
    understood.

    Args:
        values: Column of a table.
        origin: Names rows in errors.
        of_volume: Whether it is a volume; None if its name tells.

    Raises:
        DataError: If a cell holds anything else, a date or a truth value, too.
    """
    if getattr(values.dtype, "kind", "O") in "bMmc":
        fix = "delete the column, or give numbers"
        there = values.notna().to_numpy()
        origin.refuse(there, f"{values.name} is not a number:", fix, values.iloc.__getitem__)
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = np.isnan(numbers) & values.notna().to_numpy()
    if wrong.any():
        numbers = numbers.copy()
        rest = values[wrong].astype(str).str.strip()
        empty = rest.isin(NOTHING).to_numpy()
        plain = rest.str.replace(r"^([+-]?)[$€£¥]\s*|\s*[€£¥$]$", r"\1", regex=True)
        plain = plain.str.replace(r"(?<=\d)[\s\u00a0\u202f'](?=\d{3}(?:\D|$))", "", regex=True)
        if values.name == "volume" if of_volume is None else of_volume:
            plain = plain.str.upper().str.replace(
                r"(?<=\d)\s*([KMBT])$", lambda m: _UNITS[m[1]], regex=True
            )
        mended = pd.to_numeric(plain, errors="coerce").to_numpy(np.float64)
        numbers[wrong] = mended
        wrong[np.flatnonzero(wrong)] = np.isnan(mended) & ~empty
        if wrong.any():
            first = str(values.iloc[int(wrong.argmax())]).strip()
            doubtful = _EITHER.fullmatch(first)
            fix = (
                "write it without the comma, as it may separate thousands or decimals"
                if doubtful
                else "correct it"
            )
            origin.refuse(wrong, f"{values.name} is not a number:", fix, values.iloc.__getitem__)
    return numbers
