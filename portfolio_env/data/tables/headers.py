"""Headers of tables: plain names of columns, dates in a column, fields and symbols in a name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from portfolio_env.data.tables.fields import (
    ADJUSTED,
    DATE,
    FIELDS,
    HEAD,
    SYMBOL,
    TAIL,
    field_of,
    is_no_asset,
    key_of,
    rank_of,
    unit_of_volume,
    with_letters,
)
from portfolio_env.data.tables.origin import Origin

_DATES = (  # but not 600519, the code of a company
    r"\s*\d{4}[-/.]\d|(1[6-9]|2[01])\d\d(0[1-9]|1[0-2])(\d\d)?(\D|$)|\d{9,}|"
    r"\d\d?[./-]\d\d?[./-]\d{4}"
)
_TUPLE = r"\(\s*'([^']*)'\s*,\s*'([^']*)'\s*\)"  # how CSV files of pandas show two levels


def plain_columns(frame: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """Return the frame with names without blanks; tuples are levels, two at most."""
    columns: Any = frame.columns
    if columns.nlevels == 1 and len(columns) and all(isinstance(name, tuple) for name in columns):
        columns = pd.MultiIndex.from_tuples(list(columns))
    if columns.nlevels > 2:
        origin.fail(f"has {columns.nlevels} levels of columns; give fields and symbols")
    if columns.nlevels == 2:
        pairs = [tuple(str(label).strip() for label in pair) for pair in columns]
        columns = pd.MultiIndex.from_tuples(pairs, names=columns.names)
    else:
        names = [str(name).strip() for name in columns.get_level_values(0)]
        columns = pd.Index(with_letters(names), name=columns.names[0], dtype=object)
    twice = [name for name, count in Counter(columns).items() if count > 1 and name]
    if twice:
        origin.fail(f"has more than one column called {twice}; delete or rename them")
    return frame.set_axis(columns, axis=1)


def flat_index(frame: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """Return the frame with what its index says as its first columns."""
    index = frame.index
    if isinstance(index, pd.MultiIndex):
        if index.nlevels > 2:
            origin.fail(f"has {index.nlevels} levels of rows; give dates and symbols")
        dates = [_holds_dates(index.get_level_values(level)) for level in range(2)]
        if sum(dates) == 1:
            index = index.set_names([DATE if own else SYMBOL for own in dates])
        frame = frame.set_axis(index, axis=0)
        kept = [level for level in range(2) if str(index.names[level]) not in frame.columns]
        return _with_columns(frame, {str(index.names[k]): index.get_level_values(k) for k in kept})
    if isinstance(index, pd.RangeIndex) and index.name is None:
        return frame.reset_index(drop=True)
    named = field_of(index.name) == SYMBOL and _has_dates(frame)
    dated = not named and (_holds_dates(index) or not _has_dates(frame))
    if dated and DATE in frame.columns and str(index.name) not in frame.columns:
        origin.fail("has dates in its index and in a column date; leave one of them")
    if str(index.name) in map(str, frame.columns.get_level_values(0)) or not (dated or index.name):
        return frame.reset_index(drop=True)
    return _with_columns(frame, {DATE if dated else str(index.name): index})


def _with_columns(frame: pd.DataFrame, columns: Mapping[str, Any]) -> pd.DataFrame:
    """Return the frame with further columns in front."""
    frame = frame.reset_index(drop=True)
    for name, values in reversed(list(columns.items())):
        key = (name, "") if frame.columns.nlevels == 2 else name
        names = frame.columns.names
        column = pd.Series(values, dtype=values.dtype).reset_index(drop=True)
        frame.insert(0, key, column)
        frame.columns.names = names
    return frame


def _holds_dates(index: pd.Index[Any]) -> bool:
    if isinstance(index, pd.DatetimeIndex | pd.PeriodIndex):
        return True
    if pd.api.types.is_numeric_dtype(index.dtype) or not len(index):
        return False
    return bool(np.asarray(index[:3].astype(str).str.match(_DATES)).all())


def _has_dates(frame: pd.DataFrame) -> bool:
    """Return whether a column is called date, or the like."""
    if frame.columns.nlevels == 2:
        return len(frame.columns) > 0 and _holds_dates(pd.Index(frame.iloc[:, 0]))
    return any(field_of(name) == DATE for name in frame.columns)


def dated(frame: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """Return the frame whose dates are in the column date: by its name, else the first one."""
    if not len(frame.columns):
        origin.fail("has no columns of prices; there is no asset: give one column per asset")
    names = [str(name) for name in frame.columns]
    found = sorted((rank_of(name), at) for at, name in enumerate(names) if field_of(name) == DATE)
    first = frame.iloc[:, 0]
    if not found and pd.api.types.is_float_dtype(first.dtype) and (first.dropna() % 1).any():
        origin.fail("neither its index nor a column holds dates; give dates as the index")
    place = found[0][1] if found else 0
    if names.count(DATE) > (names[place] == DATE):
        origin.fail(f"its columns {[names[place], DATE]} are both the date; delete one")
    frame = frame.rename(columns={names[place]: DATE})
    clock = next((name for name in names if key_of(name) == "time"), None)
    if clock in frame.columns:
        times = frame[clock].astype(str)
        days = frame[DATE].astype(str).str.strip()
        if days.str.fullmatch(r"\d{8}").all() and times.str.fullmatch(r"\d{1,6}").all():
            times = times.str.zfill(6).str.replace(r"(\d\d)(\d\d)(\d\d)", r"\1:\2:\3", regex=True)
            days = days.str.replace(r"(\d{4})(\d\d)(\d\d)", r"\1-\2-\3", regex=True)
        if times.str.fullmatch(r"\d\d?:\d\d(:\d\d)?").all():
            frame = frame.assign(date=days + " " + times.str.zfill(5)).drop(columns=clock)
    return frame


def split_names(frame: pd.DataFrame) -> pd.DataFrame | None:
    """Return a table with columns called FIELD_SYMBOL, or SYMBOL_FIELD, as one of two levels."""
    names = [str(name) for name in frame.columns]
    date = next((at for at, name in enumerate(names) if field_of(name) == DATE), 0)
    rest = [at for at in range(len(names)) if at != date]
    if len(rest) < 2:
        return None
    for pattern in (_TUPLE, HEAD, TAIL):
        found = [_field_and_symbol(names[at], pattern) for at in rest]
        pairs = [pair for pair in found if pair is not None]
        fields = {field_of(field) for field, _ in pairs}
        whole = len(pairs) == len(rest) and "close" in fields
        if whole and (len(fields) > 1 or pattern == _TUPLE):
            columns = [(names[date], ""), *pairs]
            levels = pd.MultiIndex.from_tuples(columns, names=["Price", "Ticker"])
            return frame.iloc[:, [date, *rest]].set_axis(levels, axis=1)
    return None


def _field_and_symbol(name: str, pattern: str) -> tuple[str, str] | None:
    """Return the field and the symbol that a name of a column holds by a pattern; None if none."""
    match = re.fullmatch(pattern, name, 0 if pattern == _TUPLE else re.IGNORECASE)
    if match is None:
        return None
    field, symbol = match[1], match[2]
    if pattern == TAIL or (pattern == _TUPLE and field_of(field) not in FIELDS):
        field, symbol = symbol, field
    if key_of(field) == "adjusted" and pattern != _TUPLE:  # AAPL.Adjusted, as R writes it
        field = ADJUSTED
    is_field = field_of(field) in FIELDS or is_no_asset(field)
    whole = field_of(name) in FIELDS and not unit_of_volume(name)  # "Open Price": no symbol
    return (field, symbol) if is_field and not whole and not is_no_asset(symbol) else None
