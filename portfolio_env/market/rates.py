"""Yearly rates of interest: one number, or numbers by date of which each holds until the next."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from portfolio_env.checks import check_choice, check_number, shortened
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.atomic import regular
from portfolio_env.files.unpacking import unpacked
from portfolio_env.market.panel import FloatArray
from portfolio_env.market.timeline import Timestamps, as_timestamp, years_between
from portfolio_env.market.zones import exchange_days
from portfolio_env.names import check_keywords

Rate: TypeAlias = float | str | Mapping[str, float]
"""A yearly rate: a fraction, fractions by ISO date, or the path of a CSV file of such.

A CSV file has a column of dates first and one of rates; ``?column=NAME`` after the path names it
where there are more, and ``&unit=percent`` says that 5 stands for 5 % (``&unit=fraction`` that 0.05
does; ``unit=bps`` is basis points). Without a unit a column whose name holds "pct" or "percent" is
in percent, one whose name holds "bps" in basis points, and one that is
called as a central bank calls its series (DGS3MO, DFF, SOFR, ...) and has two decimals; others are
fractions, unless their numbers may be percent as well: those are refused. Of a Series its ``name``
is that of the column. Numbers by ISO date are always fractions.
"""

_UNITS = {"fraction": 1.0, "percent": 100.0, "bps": 10_000.0}
_WORDS = {
    "percent": re.compile("pct|percent|%"),
    "bps": re.compile(r"(?<![^\W_])bps?(?![^\W_])|basis.?points?"),
    "fraction": re.compile("fraction|decimal"),
}
_IN_PERCENT = re.compile(  # as FRED, the ECB, the Bank of England and Yahoo call their series
    r"dgs\d+(mo)?|dtb\d+(wk|mo|yr)?|tb\d+m?s?|gs\d+m?|dff|fedfunds|effr|sofr\w*|dfedtar[ul]?|obfr|"
    r"iorb|[dm]prime|ecb(dfr|mrr\w*|mlf\w*)|ecbestr\w*|estr|iud\w{4}|ir3tib\w*|ir(st|lt)\w*|"
    r"\^?(irx|fvx|tnx|tyx)",
    re.IGNORECASE,
)
_PER_BAR = re.compile(r"per_?(day|week|month)")
_HIGH = 0.2  # a rate above 20 % a year is rather one of 0.2 to 1 percent
_MANY = 20  # so many rates that are all whole percents are rather percent with two decimals
_NOTHING = ("", ".", "-", "nan", "na", "n/a", "nd", "null", "none", "#n/a")  # a day without a rate
_SHORT_DAY = r"\s*(\d{1,2})([./-])(\d{1,2})\2\d{4}\s*"


def checked_rate(name: str, value: Any) -> Rate:
    """Return a rate in the form that JSON can hold: a Series becomes a mapping.

    Files are read when the rate is used.

    Args:
        name: Name of the rate in a message.
        value: A ``Rate``, a path, or a Series over dates, whose name may tell its unit.

    Raises:
        ArgumentError: If it is none, has no dates, or a rate lies outside of [-1, 1], or if a
            Series may be in percent as well as in fractions.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and value:
        return value
    if isinstance(value, pd.DataFrame):
        raise ArgumentError(
            f"{name} is a frame of {value.shape[1]} columns: give one of them, whose index is dates"
        )
    if isinstance(value, pd.Series | Mapping):
        if isinstance(value, pd.Series):
            value = _as_fractions(name, value)
        dated = _dated(name, value)
        days = pd.DatetimeIndex(dated.index)
        return {when.isoformat(): float(rate) for when, rate in zip(days, dated, strict=True)}
    rate = float(check_number(name, value))
    if abs(rate) > 1:
        raise ArgumentError(
            f"{name}={rate:g} must be in [-1, 1]: rates are fractions a year, 0.05 for 5 %; divide "
            "percent by 100."
        )
    return rate


def absolute(rate: Rate) -> Rate:
    """Return the rate with the path of its file absolute, as settings keep it."""
    if not isinstance(rate, str):
        return rate
    path, mark, query = rate.partition("?")
    return f"{Path(path).resolve()}{mark}{query}"


def rates_at(name: str, rate: Rate, timestamps: Timestamps) -> FloatArray:
    """Return the (T,) yearly rate known at each bar: the last one dated at or before it.

    Args:
        name: Name of the rate in a message.
        rate: The rate. A date without a time is its first instant, as in ``timestamps``.
        timestamps: (T,) labels of the bars.

    Returns:
        Fractions; NaN before the first date.

    Raises:
        DataError: If a file cannot be read, with its name and the fix.

    >>> days = np.arange("2020-01-01", "2020-01-05", dtype="datetime64[D]").astype("M8[ns]")
    >>> rates_at("cash", {"2020-01-02": 0.01, "2020-01-04": 0.02}, days).tolist()
    [nan, 0.01, 0.01, 0.02]
    """
    if isinstance(rate, int | float):
        return np.full(len(timestamps), float(rate))
    dated = _read(name, rate) if isinstance(rate, str) else _dated(name, rate)
    place = np.searchsorted(dated.index.to_numpy(), timestamps, side="right")
    return np.r_[np.nan, dated.to_numpy()][place]


def rates_from_returns(timestamps: Timestamps, returns: ArrayLike) -> dict[str, float]:
    """Return the dated rates with which cash earns given returns, such as those of a bill.

    A bill's return over a period is known when the period begins, so the rate is dated at the bar
    before. Over the years y to the next bar a rate earns ``rate * y``.

    Args:
        timestamps: (T,) bars.
        returns: (T - 1,) simple returns from each bar to the next.

    Raises:
        ArgumentError: If there are not T - 1 of them.

    >>> months = np.array(["2001-12-31", "2002-12-31"], "datetime64[ns]")
    >>> {day: round(rate, 4) for day, rate in rates_from_returns(months, [0.02]).items()}
    {'2001-12-31T00:00:00': 0.02}
    """
    earned = np.asarray(returns, np.float64)
    if earned.shape != (len(timestamps) - 1,):
        raise ArgumentError(
            f"returns of shape {earned.shape} do not lead from each of {len(timestamps)} bars to "
            f"the next: give {len(timestamps) - 1}."
        )
    yearly = (earned / years_between(timestamps)).tolist()
    days = pd.DatetimeIndex(timestamps[:-1])
    return {day.isoformat(): rate for day, rate in zip(days, yearly, strict=True)}


def _dated(name: str, rates: Any) -> pd.Series[float]:
    """Return checked fractions over datetime64[ns], sorted."""
    try:
        series = pd.Series(rates, dtype=np.float64).dropna()
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name} holds a rate that is no number ({error})") from error
    if not len(series):
        raise ArgumentError(f"{name} holds no rates: give at least one")
    numbered = pd.api.types.is_numeric_dtype(series.index)
    if numbered:
        raise ArgumentError(f"{name} has no dates: give a Series whose index holds them")
    try:
        series.index, zoned = _labels(_iso_days(name, series.index))
    except ArgumentError as error:
        raise ArgumentError(f"{name}: {error}") from error
    series = series.sort_index()
    if zoned:
        series.index = pd.DatetimeIndex(exchange_days(series.index.to_numpy("M8[ns]"))[0])
    if series.index.has_duplicates:
        first = series.index[series.index.duplicated()][0]
        raise ArgumentError(f"{name} has more than one rate of {first}: leave one")
    odd = series[~series.between(-1, 1)]
    if len(odd):
        raise ArgumentError(
            f"{name} is {odd.iloc[0]:g} on {odd.index[0].date()}: dated rates are fractions in "
            "[-1, 1], 0.05 for 5 % a year; divide percent by 100 (of a CSV file: unit=percent, or "
            "unit=bps)"
        )
    return series


def _labels(days: pd.Index[Any]) -> tuple[pd.DatetimeIndex, bool]:
    """Return when rates are known, and whether they are instants; days in a zone become dates."""
    instants = pd.DatetimeIndex([as_timestamp(when) for when in days])
    stamps = [pd.Timestamp(when) for when in days]
    if any(stamp.tzinfo is None for stamp in stamps):
        return instants, False
    local = pd.DatetimeIndex([stamp.tz_localize(None) for stamp in stamps])
    if (local == local.normalize()).all() and not local.equals(instants):
        return local, False
    return instants, True


def _as_fractions(name: str, rates: pd.Series[Any], stated: str | None = None) -> pd.Series[Any]:
    """Return rates as fractions: by their stated unit, the name of their column, their numbers.

    Raises:
        ArgumentError: If they may be percent as well as fractions, or are not yearly.
    """
    label = "" if rates.name is None else str(rates.name).strip()
    if _PER_BAR.search(label.casefold()):
        raise ArgumentError(f"{name}: {label} is no yearly rate by its name: give yearly rates")
    said = [unit for unit, words in _WORDS.items() if words.search(label.casefold())]
    values = pd.to_numeric(rates, errors="coerce").dropna()
    if stated is not None or said:
        return rates / _UNITS[stated or said[0]]
    largest = values.abs().max() if len(values) else 0.0
    hundredths = 100 * values
    whole = bool(((hundredths - hundredths.round()).abs() < 1e-9).all())
    known = _IN_PERCENT.fullmatch(label) is not None
    if known and len(values) and (whole or largest > 1):
        return rates / _UNITS["percent"]
    many = whole and len(values) > _MANY and values.nunique() > 2
    if largest <= 1 and (known or largest > _HIGH or many):
        at = values.index[int(values.abs().argmax())]
        raise ArgumentError(
            f"{name} is {largest:g} on {str(at)[:10]}, which may be "
            f"{100 * largest:g} % or {largest:g} % a year: say unit=percent, unit=fraction or "
            "unit=bps after the path, or call the Series 'percent', 'fraction' or 'bps'"
        )
    return rates


def _iso_days(name: str, days: pd.Index[Any]) -> pd.Index[Any]:
    """Return dates that are all written like 31.01.2020 or 01/31/2020 as ISO dates."""
    texts = pd.Series(days, dtype=object).astype(str)
    parts = texts.str.extract(f"^{_SHORT_DAY}$")
    if parts[0].isna().any():
        return days
    sign = str(parts[1].iloc[0])
    day_first = sign == "." or bool((parts[0].astype(int) > 12).any())
    if not day_first and not (parts[2].astype(int) > 12).any():
        raise ArgumentError(
            f"{name} is dated {texts.iloc[0]!r}, of which the day or the month may come first, and "
            "no row tells: write it as 2020-01-31"
        )
    form = f"%d{sign}%m{sign}%Y" if day_first else f"%m{sign}%d{sign}%Y"
    found = pd.to_datetime(texts.str.strip(), format=form, errors="coerce")
    if found.isna().any():
        wrong = texts[found.isna()].iloc[0]
        first = "day" if day_first else "month"
        raise ArgumentError(
            f"{name}: {wrong!r} is not a date with the {first} first, as others are: write all as "
            "2020-01-31"
        )
    return pd.Index(found)


def _read(name: str, source: str) -> pd.Series[float]:
    """Return the rates of a CSV file."""
    path, _, query = source.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    check_keywords(f"{name}={shortened(source)}", "option", options, ("column", "unit"))
    try:
        content = unpacked(regular(path).read_bytes())
        for separator in (";", "\t", ","):
            frame = pd.read_csv(io.BytesIO(content), sep=separator, index_col=0)
            if frame.shape[1]:
                break
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name}={shortened(path)} cannot be read ({shortened(str(error))}): give a number, or "
            "a CSV file with a column of dates and one of yearly rates"
        ) from error
    columns = list(map(str, frame.columns))
    if "column" not in options and len(columns) != 1:
        raise DataError(
            f"{name}: {path} has the columns {columns[:9]}: say which holds the yearly rates, as "
            f"{path}?column=NAME"
        )
    column = check_choice(f"column of {name}", options.get("column", columns[0]), columns)
    if pd.notna(pd.to_numeric(column, errors="coerce")) and re.match(r"\d", str(frame.index.name)):
        raise DataError(f"{name}: {path} has no header: write date,rate above its first line")
    unit = options.get("unit")
    if unit is not None:
        check_choice(f"unit of {name}", unit, _UNITS)
    texts = frame[column].astype(str).str.strip()
    if separator != ",":
        texts = texts.str.replace(",", ".")  # of decimals: no rate has thousands
    values = pd.to_numeric(texts, errors="coerce")
    wrong = (values.isna() & frame[column].notna() & ~texts.str.lower().isin(_NOTHING)).to_numpy()
    if wrong.any():
        at = int(wrong.argmax())
        raise DataError(
            f"{name}: {column} of {path} is {texts.iloc[at]!r} on {frame.index[at]}, which is no "
            "number: correct it, or leave it empty (5 % is 0.05, or 5 with unit=percent)"
        )
    try:
        which = f"{name}: {column} of {path}"
        return _dated(which, _as_fractions(which, values, unit))
    except ArgumentError as error:
        raise DataError(str(error)) from error
