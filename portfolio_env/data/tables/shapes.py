"""From the shape that a table has to the long form: a row per bar, fields by their own names.

Shapes are long (a date, a symbol, fields), wide (dates and the closes of assets), two header levels
(fields of symbols), and the bars of one asset. Names of fields are no assets, whatever is written
above; a table in which that is doubtful is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from portfolio_env.data.tables.fields import (
    ADJUSTED,
    CURRENCY,
    DATE,
    FIELDS,
    SYMBOL,
    field_of,
    is_field,
    is_no_asset,
    is_quote,
    is_rate,
    is_time,
    key_of,
    rank_of,
    several_fields,
    unit_of_volume,
)
from portfolio_env.data.tables.headers import dated, flat_index, plain_columns, split_names
from portfolio_env.data.tables.numbers import read_numbers
from portfolio_env.data.tables.origin import Origin
from portfolio_env.data.tables.times import as_dates

_COUNTERS = r"(unnamed:\d+|index|id|no|nr|row|rows|rownames|rownumber|level\d|)"

Shape = Literal["long", "wide", "levels", "one"]


@dataclass(frozen=True)
class Table:
    """A table whose shape is known.

    Attributes:
        frame: Its columns, the index among them if it says something; dates are in ``date``.
        shape: Shape of the table.
        origin: Where its rows come from.
    """

    frame: pd.DataFrame
    shape: Shape
    origin: Origin


_HIGHEST_RATE = 25.0  # a column called RF with larger numbers is no rate in percent


def table_of(frame: pd.DataFrame, origin: Origin) -> Table:
    """Find out the shape of a table.

    Raises:
        DataError: If columns are neither fields nor assets for certain, with the fix.
    """
    frame = flat_index(plain_columns(frame, origin), origin)
    if frame.columns.nlevels == 2:
        return Table(frame, "levels", origin)
    split = split_names(frame)
    if split is not None:
        origin.note("names of columns hold fields and symbols")
        return Table(split, "levels", origin)
    frame = dated(frame, origin)
    if _symbol_column(frame) is not None:
        return Table(_renamed(frame, origin), "long", origin)
    frame = _without_counters(frame, origin)
    names = [str(name) for name in frame.columns if name != DATE]
    known = [name for name in names if is_field(name)]
    fields = {field_of(name) for name in known}
    closes = bool(fields & {"close", ADJUSTED})
    whole = {"open", "high", "low"} <= fields
    if closes and 2 * len(known) > len(names):
        return Table(frame, "one", origin)
    pair = sum(map(is_quote, names)) > 1
    doubtful = [
        name
        for name in known
        if is_no_asset(name) or whole or (pair and is_quote(name)) or _is_no_price(frame, name)
    ]
    if doubtful:
        lack = "none of its columns is a close" if not closes else "others may be assets"
        if pair:
            lack += "; of a bid and an ask, give the mid as the close"
        origin.fail(
            f"its columns {doubtful} are fields of bars, not assets, and {lack}; it has {names}: "
            "delete or rename them, or give columns date, symbol, close"
        )
    times = [name for name in names if is_time(name)]
    if times:
        origin.fail(f"its columns {times} are times, not assets; delete or rename them")
    for name in filter(is_rate, known):
        if pd.to_numeric(frame[name], errors="coerce").max() < _HIGHEST_RATE:
            origin.warn(
                f"the column {name!r} is read as the prices of an asset of that name; if it is a "
                "rate in percent, delete it, and give it to the costs as cash_rate_annual"
            )
    mixed = several_fields(names)
    if mixed:
        origin.fail(
            f"its columns {mixed} are fields of one asset, and not all columns are called so; it "
            f"has {names}: delete or rename the others, or give columns date, symbol, close"
        )
    return Table(frame, "wide", origin)


def _is_no_price(frame: pd.DataFrame, name: str) -> bool:
    """Return whether a column is a change, a rate or a quote by its name, and no asset of the name.

    An asset has a name in capitals, such as RF or BID, and prices that are mostly 1 or more.
    """
    if not is_rate(name) and not (is_quote(name) and len(frame.columns) > 2):
        return False
    values = pd.to_numeric(frame[name], errors="coerce").abs()
    return not name.isupper() or bool(values.median() < 1)


def _without_counters(frame: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """Return the frame without columns that number its rows or repeat parts of its dates."""
    for name in [str(name) for name in frame.columns if name != DATE]:
        key = key_of(name)
        is_part = key in ("year", "month", "day")
        if not is_part and not re.fullmatch(_COUNTERS, key):
            continue
        values = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64)
        if is_part:
            counts = getattr(as_dates(frame[DATE], origin).dt, key).to_numpy(np.float64)
        else:
            counts = np.arange(len(frame)) + values[:1]
        if len(frame) and (values == counts).all():
            origin.note(f"the column {name!r} is left out: it numbers rows or repeats dates")
            frame = frame.drop(columns=name)
    return frame


def long_form(table: Table, name: str | None = None) -> tuple[pd.DataFrame, Origin]:
    """Return a table in long form: date, symbol, currency and those of ``FIELDS`` that it has.

    Args:
        table: The table.
        name: The asset, if the table does not say which; None refuses a table that does not.
    """
    frame, origin = table.frame, table.origin
    if table.shape == "long":
        return frame, origin
    if table.shape == "one":
        if name is None:
            shown = [str(column) for column in frame.columns if column != DATE]
            origin.fail(
                f"lacks the columns ['symbol']: {shown} are fields of one asset, and it is not "
                "said which; give {'NAME': source}, or add a column symbol"
            )
        return _renamed(frame.assign(symbol=name), origin), origin
    if table.shape == "levels":
        return _stacked(frame.iloc[:, 0], _by_symbol(frame, origin), origin)
    closes = {str(asset): {"close": frame[asset]} for asset in frame.columns if asset != DATE}
    return _stacked(frame[DATE], closes, origin)


def names_itself(table: Table) -> bool:
    """Return whether a column of one asset's bars is called close, not just used as one."""
    return any("close" in key_of(name) for name in table.frame.columns)


def _symbol_column(frame: pd.DataFrame) -> str | None:
    """Return the column that says which asset a row is about."""
    names = [str(name) for name in frame.columns]
    if "symbol" in map(str.casefold, names):
        return next(name for name in names if name.casefold() == "symbol")
    fields = {field_of(name) for name in names}
    if not fields & {"close", ADJUSTED}:
        return None
    for name in sorted((n for n in names if field_of(n) == SYMBOL), key=rank_of):
        if not pd.api.types.is_float_dtype(frame[name].dtype):
            return name
    return None


def _renamed(frame: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """Return a long table with its fields under their own names, and without other columns."""
    columns: dict[str, Any] = {DATE: frame[DATE]}
    symbol = _symbol_column(frame)
    if symbol is not None:
        alike = [n for n in map(str, frame.columns) if key_of(n) == key_of(symbol)]
        columns[SYMBOL] = frame[_agreed(SYMBOL, alike, frame, origin)]
        if symbol.casefold() != SYMBOL:
            origin.note(f"{symbol} is the symbol")
    for field in FIELDS:
        name = _column_of(field, frame, origin)
        if name is not None:
            columns[field] = frame[name].rename(field)
            if key_of(name) not in (field, key_of(field)) and field != ADJUSTED:
                origin.note(f"{name} is the {field}")
    if "close" not in columns and ADJUSTED in columns and len(columns) <= 3:
        origin.note("the adjusted close is the close")
        columns["close"] = columns.pop(ADJUSTED).rename("close")
    for field in ("open", "high", "low", "volume", ADJUSTED):
        if field in columns and columns[field].isna().all() and len(frame):
            origin.warn(f"the column {field} is empty and left out")
            del columns[field]
    currency = _column_of(CURRENCY, frame, origin)
    if currency is not None:
        columns[CURRENCY] = frame[currency]
    if "close" not in columns:
        names = [str(name) for name in frame.columns]
        origin.fail(f"lacks the columns ['close']; it has {names}: add or rename them")
    return pd.DataFrame(columns, copy=False)


def _column_of(field: str, frame: pd.DataFrame, origin: Origin) -> str | None:
    """Return the column of a field: the name that says it best.

    Raises:
        DataError: If two names say it equally well, such as Close and close, and differ in values.
    """
    names = [str(name) for name in frame.columns if field_of(name) == field]
    names.sort(key=rank_of)
    if field == "volume":
        symbol = _symbol_column(frame)
        plain = [name for name in names if not unit_of_volume(name)]
        if not plain and names and symbol is not None:
            assets = frame[symbol].dropna().astype(str).str.upper().unique()
            plain = [n for n in names if all(a.startswith(unit_of_volume(n)) for a in assets)]
        names = plain
        if len(names) > 1:  # a platform without real volume writes zeros beside its ticks
            traded = [
                name for name in names if (pd.to_numeric(frame[name], errors="coerce") > 0).any()
            ]
            names = traded or names
    return _agreed(field, names, frame, origin) if names else None


def _agreed(field: str, names: list[str], frame: pd.DataFrame, origin: Origin) -> str:
    """Return the first of the columns of a field, after a check of others of the same name."""
    first = names[0]
    for name in names[1:]:
        if key_of(name) == key_of(first) and not frame[name].equals(frame[first]):
            origin.fail(f"its columns {[first, name]} are both the {field}, and differ; delete one")
    return first


def _by_symbol(frame: pd.DataFrame, origin: Origin) -> dict[str, dict[str, pd.Series[Any]]]:
    """Return the fields of each symbol of a table with two header rows."""
    levels = [[str(name) for name in frame.columns.get_level_values(k)[1:]] for k in (0, 1)]
    named = [str(name) for name in frame.columns.names]
    if set(named) == {"Price", "Ticker"}:
        place = named.index("Price")
    else:
        fits = [bool(names) and all(map(is_field, names)) for names in levels]
        if sum(fits) != 1:
            origin.fail(
                f"has two levels of columns, called {named}, and it is not clear which holds the "
                "fields; name them ['Price', 'Ticker']"
            )
        place = fits.index(True)
    fields: dict[str, dict[str, pd.Series[Any]]] = {}
    for at, (name, symbol) in enumerate(zip(levels[place], levels[1 - place], strict=True)):
        field = field_of(name)
        if field in (*FIELDS, CURRENCY):
            own = fields.setdefault(symbol, {})
            if field not in own or key_of(name) == field:
                own[field] = frame.iloc[:, at + 1]
    return fields


def _stacked(
    dates: pd.Series[Any], fields: Mapping[str, Mapping[str, pd.Series[Any]]], origin: Origin
) -> tuple[pd.DataFrame, Origin]:
    """Return a long frame of the bars that exist, symbol by symbol."""
    times = as_dates(dates, origin)
    kept: list[dict[str, Any]] = []
    rows: list[npt.NDArray[np.intp]] = []
    for symbol, series in fields.items():
        bars = {
            field: values.to_numpy(object)
            if field == CURRENCY
            else read_numbers(values.rename(symbol), origin, of_volume=field == "volume")
            for field, values in series.items()
        }
        if "close" not in bars and ADJUSTED not in bars:
            origin.fail(f"has no close of {symbol}; it has {list(series)}: add it")
        quoted = [bars[field] for field in ("open", "high", "low", "close") if field in bars]
        quoted = quoted or [bars[ADJUSTED]]
        if "close" not in bars:
            bars["close"] = bars.pop(ADJUSTED)
        present = np.flatnonzero(~np.logical_and.reduce([np.isnan(part) for part in quoted]))
        if not len(present):
            origin.fail(f"has no price of {symbol}; delete its column")
        kept.append({field: values[present] for field, values in bars.items()})
        rows.append(present)
    if not kept:
        origin.fail("has no columns of prices; give one per asset")
    counts, places = list(map(len, rows)), np.concatenate(rows)
    names = dict.fromkeys(field for bars in kept for field in bars)
    # One frame for all: one for each of 20,000 symbols would take minutes.
    columns: dict[str, Any] = {
        name: np.concatenate(
            [bars.get(name, np.full(n, np.nan)) for bars, n in zip(kept, counts, strict=True)]
        )
        for name in names
    }
    columns |= {"date": times.iloc[places].array, "symbol": pd.Index([*fields]).repeat(counts)}
    return pd.DataFrame(columns), replace(origin, numbers=places + origin.first)
