"""Frames of factor values, as pandas users keep them, as records of exogenous channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from portfolio_env.data.tables.fields import DATE, SYMBOL, field_of
from portfolio_env.data.tables.origin import Origin
from portfolio_env.data.tables.times import as_dates

RECORD = ("date", "symbol", "name", "value", "known_at")
"""Columns of a table of records: one value of one channel in each row."""
ALL_ASSETS = "*"
Factors: TypeAlias = "pd.DataFrame | pd.Series[Any] | Mapping[str, pd.DataFrame | pd.Series[Any]]"
"""See ``records_of``."""
_LISTED = 8


def records_of(factors: Factors, assets: Sequence[str], origin: Origin) -> pd.DataFrame:
    """Return a table of records from any of the shapes in which factor values are kept.

    A shape without ``known_at`` states each value as known at its date.

    Args:
        factors: Records (the columns ``RECORD``); a column per channel beside a date and a symbol,
            which may be index levels; two levels of columns, channel and symbol in either order,
            over dates; or by channel a frame of dates and symbols, or a Series of dates, whose
            values are those of all assets.
        assets: Names that tell the level of symbols from that of channels.
        origin: Named in errors.

    Raises:
        DataError: If it has none of these shapes.
    """
    if isinstance(factors, Mapping):
        parts = [_of_channel(str(name), own, origin) for name, own in factors.items()]
        if not parts:
            origin.fail("holds no channels; give {name: frame of dates and symbols}")
        return pd.concat(parts, ignore_index=True)
    if isinstance(factors, pd.Series):
        if factors.name is None:
            origin.fail("is a Series without a name; give {name: series}")
        is_wide = not isinstance(factors.index, pd.MultiIndex)
        if is_wide:
            return _of_channel(str(factors.name), factors, origin)
        factors = factors.to_frame()
    if factors.columns.nlevels == 2:
        return _of_levels(factors, assets, origin)
    table = _with_index(factors)
    if {"name", "value"} <= set(table.columns):
        _need(RECORD, table, origin)
        return table
    return _of_columns(table, origin)


def _of_channel(name: str, values: Any, origin: Origin) -> pd.DataFrame:
    """Return the records of one channel: a frame of dates and symbols, or a Series of dates."""
    if isinstance(values, pd.Series):
        values = values.to_frame(ALL_ASSETS)
    if not isinstance(values, pd.DataFrame) or not isinstance(values.index, pd.DatetimeIndex):
        origin.fail(
            f"{name!r} must be a frame with a DatetimeIndex and a column per symbol, or a Series "
            f"with a DatetimeIndex; it is {type(values).__name__}"
        )
    dates = as_dates(pd.Series(values.index), origin)
    rows, columns = values.shape
    return pd.DataFrame(
        {
            "date": np.repeat(dates.array, columns),
            "symbol": np.tile(values.columns.astype(str), rows),
            "name": name,
            "value": values.to_numpy().ravel(),
            "known_at": np.repeat(dates.array, columns),
        }
    )


def _of_levels(frame: pd.DataFrame, assets: Sequence[str], origin: Origin) -> pd.DataFrame:
    """Return the records of a frame whose columns have a level of channels and one of symbols."""
    found = [
        int(np.isin(frame.columns.get_level_values(level).astype(str), [*assets]).sum())
        for level in range(2)
    ]
    if max(found) == 0:
        origin.fail(
            f"has two levels of columns, and none of them holds symbols such as {assets[0]}"
        )
    symbols = int(found[1] >= found[0])
    names = frame.columns.get_level_values(1 - symbols).unique()
    by_name = {str(name): frame.xs(name, axis=1, level=1 - symbols) for name in names}
    return records_of(by_name, assets, origin)


def _of_columns(table: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """Return the records of a table with a date, a symbol and a column per channel."""
    fields = {name: field_of(name) for name in table.columns if name != "known_at"}
    found = {
        field: [name for name, own in fields.items() if own == field] for field in (DATE, SYMBOL)
    }
    channels = [name for name, own in fields.items() if own not in (DATE, SYMBOL)]
    if any(len(names) != 1 for names in found.values()) or not channels:
        columns = [str(name) for name in table.columns]
        shown = columns[:_LISTED] + ["..."] * (len(columns) > _LISTED)
        origin.fail(
            "is no table of factors: give a date, a symbol and a column per channel; or "
            "{name: frame of dates and symbols}; or records with the columns "
            f"{', '.join(RECORD)}. It has the columns {', '.join(shown)}"
        )
    date, symbol = table[found[DATE][0]], table[found[SYMBOL][0]]
    if not pd.api.types.is_string_dtype(date) or "known_at" not in table:
        date = as_dates(date, origin)
    known = table.get("known_at", date)
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "date": date,
                    "symbol": symbol,
                    "name": str(name),
                    "value": table[name],
                    "known_at": known,
                }
            )
            for name in channels
        ],
        ignore_index=True,
    )


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with what its index says as columns."""
    index = frame.index
    if isinstance(index, pd.MultiIndex):
        dated = [isinstance(level, pd.DatetimeIndex) for level in index.levels]
        if index.nlevels == 2 and sum(dated) == 1:
            frame = frame.rename_axis([DATE if own else SYMBOL for own in dated])
        return frame.reset_index()
    if isinstance(index, pd.DatetimeIndex) and not {DATE, "name"} & set(frame.columns):
        return frame.rename_axis(DATE).reset_index()
    return frame.reset_index() if field_of(index.name) in (DATE, SYMBOL) else frame


def _need(names: Sequence[str], table: pd.DataFrame, origin: Origin) -> None:
    missing = [name for name in names if name not in table.columns]
    if missing:
        origin.fail(
            f"lacks the columns {missing}; it has {list(table.columns)}: add or rename them "
            "(known_at is when the value was published)"
        )
