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
_EITHER = re.compile(_SIGN + r"[1-9]\d{0,2},\d{3}")


def decimal_of(texts: Iterable[str], plain: Iterable[str] = ()) -> str | None:
    """The decimal sign of a file, "." or ",", as its cells prove it; None if they do not.

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
