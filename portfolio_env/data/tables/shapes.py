"""From the shape that a table has to the long form: a row per bar, fields by their own names.

Shapes are long (a date, a symbol, fields), wide (dates and the closes of assets), two header levels
(fields of symbols), and the bars of one asset. Names of fields are no assets, whatever is written
above; a table in which that is doubtful is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from portfolio_env.data.tables.fields import (
    ADJUSTED,
    CURRENCY,
    DATE,
    FIELDS,
    HEAD,
    SYMBOL,
    TAIL,
    field_of,
    is_field,
    is_no_asset,
    is_quote,
    is_rate,
    key_of,
    rank_of,
    several_fields,
    unit_of_volume,
    with_letters,
)
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
    frame = _flat_index(_plain_columns(frame, origin), origin)
    if frame.columns.nlevels == 2:
        return Table(frame, "levels", origin)
    split = _split_names(frame)
    if split is not None:
        origin.note("names of columns hold fields and symbols")
        return Table(split, "levels", origin)
    frame = _dated(frame, origin)
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
    """The frame without columns that number its rows or repeat parts of its dates."""
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
    """A table in long form: date, symbol, currency and those of ``FIELDS`` it has, as they are.

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


def _plain_columns(frame: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """Names without blanks around them; tuples are levels, of which there are two at most."""
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


def _flat_index(frame: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """The frame with what its index says as its first columns."""
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
    """The frame with further columns in front."""
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
    found = (
        index[:3]
        .astype(str)
        .str.match(
            r"\s*\d{4}[-/.]\d|(1[6-9]|2[01])\d\d(0[1-9]|1[0-2])(\d\d)?(\D|$)|\d{9,}|"
            r"\d\d?[./-]\d\d?[./-]\d{4}"
        )
    )  # 600519 is the code of a company
    return bool(np.asarray(found).all())


def _has_dates(frame: pd.DataFrame) -> bool:
    """Return whether a column is called date, or the like."""
    if frame.columns.nlevels == 2:
        return len(frame.columns) > 0 and _holds_dates(pd.Index(frame.iloc[:, 0]))
    return any(field_of(name) == DATE for name in frame.columns)


def _dated(frame: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """The frame whose dates are in the column date: by its name, else the first one."""
    if not len(frame.columns):
        origin.fail("has no columns of prices; there is no asset: give one column per asset")
    names = [str(name) for name in frame.columns]
    found = sorted((rank_of(name), at) for at, name in enumerate(names) if field_of(name) == DATE)
    first = frame.iloc[:, 0]
    if not found and pd.api.types.is_float_dtype(first.dtype) and (first.dropna() % 1).any():
        origin.fail("neither its index nor a column holds dates; give dates as the index")
    place = found[0][1] if found else 0
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


def _symbol_column(frame: pd.DataFrame) -> str | None:
    """The column that says which asset a row is about."""
    names = [str(name) for name in frame.columns]
    if "symbol" in map(str.casefold, names):
        return next(name for name in names if name.casefold() == "symbol")
    fields = {field_of(name) for name in names}
    if not fields & {"close", ADJUSTED}:
        return None
    found = sorted((rank_of(name), name) for name in names if field_of(name) == SYMBOL)
    for _, name in found:
        if not pd.api.types.is_float_dtype(frame[name].dtype):
            return name
    return None


def _renamed(frame: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """A long table with its fields under their own names, and without other columns."""
    columns: dict[str, Any] = {DATE: frame[DATE]}
    symbol = _symbol_column(frame)
    if symbol is not None:
        columns[SYMBOL] = frame[symbol]
        if symbol.casefold() != SYMBOL:
            origin.note(f"{symbol} is the symbol")
    for field in FIELDS:
        name = _column_of(field, frame)
        if name is not None:
            columns[field] = frame[name].rename(field)
            if key_of(name) not in (field, key_of(field)) and field != ADJUSTED:
                origin.note(f"{name} is the {field}")
    if "close" not in columns and ADJUSTED in columns and len(columns) <= 3:
        origin.note("the adjusted close is the close")
        columns["close"] = columns.pop(ADJUSTED).rename("close")
    for field in ("open", "high", "low", "volume"):
        if field in columns and columns[field].isna().all() and len(frame):
            origin.note(f"the column {field} is empty and left out")
            del columns[field]
    currency = _column_of(CURRENCY, frame)
    if currency is not None:
        columns[CURRENCY] = frame[currency]
    if "close" not in columns:
        names = [str(name) for name in frame.columns]
        origin.fail(f"lacks the columns ['close']; it has {names}: add or rename them")
    return pd.DataFrame(columns)


def _column_of(field: str, frame: pd.DataFrame) -> str | None:
    """The column of a field: the name that says it best."""
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
    return names[0] if names else None


def _split_names(frame: pd.DataFrame) -> pd.DataFrame | None:
    """A table whose columns are all called FIELD_SYMBOL or SYMBOL_FIELD, as one of two levels."""
    names = [str(name) for name in frame.columns]
    tuples = [re.fullmatch(r"\(\s*'([^']*)'\s*,\s*'([^']*)'\s*\)", name) for name in names]
    dates = [at for at, name in enumerate(names) if field_of(name) == DATE] or [0]
    rest = [at for at in range(len(names)) if at != dates[0]]
    if len(rest) < 2:
        return None
    for order in ("tuple", "first", "last"):
        pairs = []
        for at in rest:
            if order == "tuple":
                match = tuples[at]
                pair = (match[1], match[2]) if match else None
                if pair is not None and field_of(pair[0]) not in FIELDS:
                    pair = pair[1], pair[0]
            else:
                pattern = HEAD if order == "first" else TAIL
                match = re.fullmatch(pattern, names[at], re.IGNORECASE)
                pair = None
                if match:
                    pair = (match[1], match[2]) if order == "first" else (match[2], match[1])
                    if key_of(pair[0]) == "adjusted":  # AAPL.Adjusted, as R writes it
                        pair = ADJUSTED, pair[1]
            if pair is None or not (field_of(pair[0]) in FIELDS or is_no_asset(pair[0])):
                break
            whole = field_of(names[at]) in FIELDS and not unit_of_volume(names[at])
            if whole or is_no_asset(pair[1]):
                break  # "Open Price": a field, not a symbol
            pairs.append(pair)
        if len(pairs) < len(rest):
            continue
        fields = {field_of(pair[0]) for pair in pairs}
        if "close" in fields and (len(fields) > 1 or order == "tuple"):
            columns = [(names[dates[0]], ""), *pairs]
            made = frame.iloc[:, [dates[0], *rest]]
            return made.set_axis(
                pd.MultiIndex.from_tuples(columns, names=["Price", "Ticker"]), axis=1
            )
    return None


def _by_symbol(frame: pd.DataFrame, origin: Origin) -> dict[str, dict[str, pd.Series[Any]]]:
    """The fields of each symbol of a table with two header rows."""
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
    """A long frame of the bars that exist, symbol by symbol."""
    times = as_dates(dates, origin)
    parts, numbers = [], []
    for symbol, series in fields.items():
        bars = pd.DataFrame(
            {
                field: values
                if field == CURRENCY
                else read_numbers(values.rename(symbol), origin, of_volume=field == "volume")
                for field, values in series.items()
            }
        )
        quoted = [field for field in ("open", "high", "low", "close") if field in bars]
        prices = bars[quoted or [ADJUSTED]] if {*quoted, ADJUSTED} & {*bars} else bars[[]]
        if not len(prices.columns) or ("close" not in bars and ADJUSTED not in bars):
            origin.fail(f"has no close of {symbol}; it has {list(series)}: add it")
        if "close" not in bars:
            bars = bars.rename(columns={ADJUSTED: "close"})
        present = np.flatnonzero(prices.notna().to_numpy().any(axis=1))
        if not len(present):
            origin.fail(f"has no price of {symbol}; delete its column")
        part = bars.iloc[present].assign(date=times.iloc[present].array, symbol=symbol)
        parts.append(part)
        numbers.append(present + origin.first)
    if not parts:
        origin.fail("has no columns of prices; give one per asset")
    return pd.concat(parts, ignore_index=True), replace(origin, numbers=np.concatenate(numbers))
