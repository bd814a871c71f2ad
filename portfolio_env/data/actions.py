"""Splits and dividends that come as a table of their own, beside prices."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from portfolio_env.data.tables.fields import ADJUSTED, DATE, SYMBOL, field_of
from portfolio_env.data.tables.files import read_table
from portfolio_env.data.tables.numbers import read_numbers
from portfolio_env.data.tables.origin import Origin
from portfolio_env.data.tables.sources import as_frame
from portfolio_env.data.tables.times import as_dates
from portfolio_env.errors import ArgumentError, DataError

Actions: TypeAlias = str | os.PathLike[str] | pd.DataFrame | Mapping[str, Any] | list[Any]
"""A file or a frame with the columns date, symbol, split and dividend; several of them, as a list
or by symbol, as ``yfinance.Ticker(symbol).actions`` gives them."""

SPLIT, DIVIDEND = "split", "dividend"
_SHOWN = 3


def read_actions(source: Actions) -> pd.DataFrame:
    """Read splits and dividends.

    Args:
        source: Columns date (the ex-date), symbol, and split (new shares for each old one), or
            dividend (cash per share as it was then; on the day of a split, per old one), or both;
            empty or 0 is none.

    Returns:
        Columns date, symbol, split and dividend, by symbol and date; one row for all of a day.

    Raises:
        DataError: With file, row and fix; or if an event comes twice.
    """
    if isinstance(source, Mapping):
        parts = [_table(own, str(name)) for name, own in source.items()]
    elif isinstance(source, list | tuple):
        parts = [_table(own) for own in source]
    else:
        parts = [_table(source)]
    if not parts:
        raise ArgumentError("actions are empty: give a file or a frame, or leave them out")
    made = pd.concat(parts, ignore_index=True)
    for field, nothing in ((SPLIT, 1.0), (DIVIDEND, 0.0)):
        own = made[made[field] != nothing]
        # two dividends of a day are its regular and its special one, unless they are the same
        twice = own.duplicated([SYMBOL, DATE] + [field] * (field == DIVIDEND))
        if twice.any():
            symbol, date = own.loc[twice, [SYMBOL, DATE]].iloc[0]
            raise DataError(
                f"actions hold the {field} of {symbol} on {date.date()} twice: leave one of them"
            )
    made = made.sort_values([SYMBOL, DATE], kind="stable", ignore_index=True)
    return made.groupby([SYMBOL, DATE], as_index=False, sort=False).agg(
        {SPLIT: "prod", DIVIDEND: "sum"}
    )[[DATE, SYMBOL, SPLIT, DIVIDEND]]


def with_actions(bars: pd.DataFrame, actions: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """Return bars with columns split and dividend, each event at the first bar it counts in.

    That is the first bar at or after its date; several of one bar are joined. Events up to an
    asset's first bar, or after its last, change no price.

    Args:
        bars: Columns date and symbol, a row per bar in any order.
        actions: See ``read_actions``.
        origin: Names the bars in errors.
    """
    own = actions[actions[SYMBOL].isin(bars[SYMBOL].unique())]
    if not len(own):
        named = sorted(set(actions[SYMBOL]))[:_SHOWN]
        origin.warn(f"no action is of an asset in it; they are of {', '.join(named) or 'none'}")
    taken = [name for name in (ADJUSTED, SPLIT, DIVIDEND) if name in bars and len(own)]
    taken = [name for name in taken if bars[name].fillna(0).ne(0).any()]
    if taken:
        origin.fail(
            f"has the columns {taken}, and splits and dividends beside them; "
            "leave the actions out, or delete the columns"
        )
    split, dividend = np.ones(len(bars)), np.zeros(len(bars))
    dates = bars[DATE].to_numpy("datetime64[ns]")
    groups = bars.groupby(SYMBOL, sort=False).indices
    for symbol, events in own.groupby(SYMBOL, sort=False):
        own_rows: npt.NDArray[Any] = np.asarray(groups[symbol])
        rows = own_rows[np.argsort(dates[own_rows], kind="stable")]
        places = np.searchsorted(dates[rows], events[DATE].to_numpy("datetime64[ns]"))
        for place, ratio, cash in zip(places, events[SPLIT], events[DIVIDEND], strict=True):
            if 0 < place < len(rows):
                at = rows[place]
                dividend[at] += cash * split[at]  # of each share before the bar
                split[at] *= ratio
    return bars.assign(split=split, dividend=dividend)


def _table(source: Any, symbol: str | None = None) -> pd.DataFrame:
    origin = Origin("the actions" if symbol is None else f"the actions of {symbol}")
    if isinstance(source, str | os.PathLike):
        frame, origin, _ = read_table(source)
    else:
        found = as_frame(source)
        if found is None:
            raise ArgumentError(f"actions={type(source).__name__} must be a file or a frame.")
        frame = found
    if not isinstance(frame.index, pd.RangeIndex):
        name = frame.index.name
        frame = frame.rename_axis(DATE if name is None else str(name)).reset_index()
    columns = {field_of(name): name for name in reversed(list(frame.columns))}
    if symbol is not None:
        columns.pop(SYMBOL, None)
    wanted = [DATE, *([SYMBOL] if symbol is None else [])]
    lacking = [name for name in wanted if name not in columns]
    if lacking or not {SPLIT, DIVIDEND} & columns.keys():
        needed = lacking or [SPLIT, DIVIDEND]
        origin.fail(
            f"lacks the columns {needed}; it has {[str(name) for name in frame.columns]}: give "
            "date, symbol, split (new shares for each old one) and dividend (cash per share)"
        )
    dates = as_dates(frame[columns[DATE]], origin)
    if isinstance(dates.dtype, pd.DatetimeTZDtype):
        dates = dates.dt.tz_localize(None)
    if symbol is None:
        names = frame[columns[SYMBOL]]
        origin.refuse(names.isna().to_numpy(), "there is no symbol", "name the asset")
    made = pd.DataFrame({DATE: dates.to_numpy("datetime64[ns]")})
    made[SYMBOL] = symbol if symbol is not None else names.astype(str).str.strip().to_numpy()
    for field, nothing in ((SPLIT, 1.0), (DIVIDEND, 0.0)):
        values = np.zeros(len(frame))
        if field in columns:
            column = frame[columns[field]].rename(field)
            values = read_numbers(column, origin)
            values = np.where(np.isnan(values), 0.0, values)
            for wrong, what in ((values < 0, "negative"), (np.isinf(values), "infinite")):
                origin.refuse(wrong, f"{field} is {what}:", "correct it", column.iloc.__getitem__)
        made[field] = np.where(values == 0, nothing, values)
    return made
