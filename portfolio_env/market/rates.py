"""Yearly rates of interest: one number, or numbers by date of which each holds until the next."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import numpy as np
import pandas as pd

from portfolio_env.checks import check_choice, check_number, shortened
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.market.panel import FloatArray
from portfolio_env.market.timeline import Timestamps, as_timestamp
from portfolio_env.names import check_keywords

Rate: TypeAlias = float | str | Mapping[str, float]
"""A yearly rate: a fraction, fractions by ISO date, or the path of a CSV file of such.

A CSV file has a column of dates first and one of rates; ``?column=NAME`` after the path names it
where there are more, and ``&unit=percent`` says that 5 stands for 5 % (without it a column whose
name holds "pct" or "percent" is in percent, any other in fractions).
"""

LOWEST, HIGHEST = -1.0, 10.0  # of a single number
_UNITS = {"fraction": 1.0, "percent": 100.0}
_PERCENT = ("pct", "percent", "%")
_NOTHING = ("", ".", "-", "nan", "na", "n/a", "nd", "null", "none", "#n/a")  # a day without a rate
_SHORT_DAY = r"\s*(\d{1,2})([./-])(\d{1,2})\2\d{4}\s*"


def checked_rate(name: str, value: Any) -> Rate:
    """Return a rate in the form that JSON can hold: a Series becomes a mapping.

    Files are read when the rate is used.

    Args:
        name: Name of the rate in a message.
        value: A ``Rate``, a path, or a Series of fractions over dates.

    Raises:
        ArgumentError: If it is none, has no dates, or a rate lies outside of [-1, 10] (dated ones:
            [-1, 1], since percent would be taken for fractions otherwise).
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
        dated = _dated(name, value)
        days = pd.DatetimeIndex(dated.index)
        return {when.isoformat(): float(rate) for when, rate in zip(days, dated, strict=True)}
    return float(check_number(name, value, LOWEST, HIGHEST))


def is_zero(rate: Rate) -> bool:
    """Return whether a rate is always 0, as far as is known without reading a file."""
    values = rate.values() if isinstance(rate, Mapping) else [rate]
    return all(value == 0 for value in values)


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
    days = _iso_days(name, series.index)
    try:
        series.index = pd.DatetimeIndex([as_timestamp(when) for when in days])
    except ArgumentError as error:
        raise ArgumentError(f"{name}: {error}") from error
    series = series.sort_index()
    if series.index.has_duplicates:
        first = series.index[series.index.duplicated()][0]
        raise ArgumentError(f"{name} has more than one rate of {first}: leave one")
    odd = series[~series.between(-1, 1)]
    if len(odd):
        raise ArgumentError(
            f"{name} is {odd.iloc[0]:g} on {odd.index[0].date()}: dated rates are fractions in "
            "[-1, 1], 0.05 for 5 % a year; divide percent by 100 (of a CSV file: unit=percent)"
        )
    return series


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
        frame = pd.read_csv(Path(path), index_col=0, compression="infer")
    except (OSError, EOFError, ValueError) as error:
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
    percent = any(word in column.lower() for word in _PERCENT)
    unit = options.get("unit", "percent" if percent else "fraction")
    check_choice(f"unit of {name}", unit, _UNITS)
    values = pd.to_numeric(frame[column], errors="coerce")
    texts = frame[column].astype(str).str.strip()
    wrong = (values.isna() & frame[column].notna() & ~texts.str.lower().isin(_NOTHING)).to_numpy()
    if wrong.any():
        at = int(wrong.argmax())
        raise DataError(
            f"{name}: {column} of {path} is {texts.iloc[at]!r} on {frame.index[at]}, which is no "
            "number: correct it, or leave it empty (5 % is 0.05, or 5 with unit=percent)"
        )
    try:
        return _dated(f"{name}: {column} of {path}", values / _UNITS[unit])
    except ArgumentError as error:
        raise DataError(str(error)) from error
