"""Rows, dates and bar frequency of a sorted array of timestamps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from portfolio_env.checks import check_number
from portfolio_env.errors import ArgumentError

Timestamps = npt.NDArray[np.datetime64]
Date: TypeAlias = str | date | np.datetime64
"""An ISO date or a timestamp (a datetime is a date)."""
TimeLike: TypeAlias = int | np.integer[Any] | Date
"""A row number (negative from the end), an ISO date or a timestamp."""
Windows: TypeAlias = Mapping[str, tuple[Date, Date]]
"""First and last day of named periods, both included, or exact times."""

YEAR = np.timedelta64(36_525 * 864, "s")  # 365.25 days, of which interest and growth are per year
MOST_PERIODS = 1e9
"""Bars per year at most, one in 32 milliseconds."""
_YEAR = np.timedelta64(365, "D")
_UNBROKEN = 0.85  # business days cover at most 0.82 of two weeks, and less of any longer time
_TRADING_DAYS = 252
_DAY_OR_MONTH_FIRST = re.compile(r"\s*\d{1,2}([./-])\d{1,2}\1\d{2,4}\b")
_WEEK = np.timedelta64(7, "D").astype("timedelta64[ns]")


def as_timestamp(when: Date) -> np.datetime64:
    """Return an ISO date or a timestamp as datetime64[ns], converted to UTC from a time zone."""
    try:
        if not isinstance(when, str | date | np.datetime64):
            raise TypeError
        if isinstance(when, str) and not _is_one_date(when):
            raise ValueError("it may be more than one date")
        stamp = pd.Timestamp(when)
        if stamp.tzinfo is not None:
            stamp = stamp.tz_convert(None)
        exact: np.datetime64[Any] = stamp.as_unit("ns").to_datetime64()
    except pd.errors.OutOfBoundsDatetime as error:
        raise ArgumentError(
            f"{when!r} is outside of 1677-09-22 to 2262-04-11, as far as nanoseconds reach: give "
            "a date within"
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ArgumentError(
            f"{when!r} is not a date: give a row number, an ISO date like '2020-01-31' or a "
            "timestamp"
        ) from error
    if np.isnat(exact):
        raise ArgumentError(f"{when!r} is not a date: give a row number or an ISO date")
    return exact


def _is_one_date(text: str) -> bool:
    """Return whether a text has a year, and does not leave open which is the day and the month."""
    return bool(re.search(r"\d{4}", text)) and not _DAY_OR_MONTH_FIRST.match(text)


def row_of(timestamps: Timestamps, when: TimeLike, *, end: bool = False) -> int:
    """Return the row of a moment.

    Args:
        timestamps: (T,) sorted.
        when: A row number in [-T, T], T itself being good as the end of a range and negative ones
            counting from the end; or a date, which means the first row at or after it.
        end: Whether it is the end of a range, which is not part of it: a date may then lie after
            the last bar, by a week or a bar and a half at most.

    Raises:
        ArgumentError: If the moment lies outside the data.
    """
    n = len(timestamps)
    if isinstance(when, bool):
        raise ArgumentError(
            f"{when!r} is neither a row nor a date: give a row number or an ISO date"
        )
    if isinstance(when, int | np.integer):
        if not -n <= when <= n:
            raise ArgumentError(f"row {when} is outside the {n} bars: give one in [{-n}, {n}]")
        return int(when) if when >= 0 else n + int(when)
    row = int(np.searchsorted(timestamps, as_timestamp(when)))
    if row == n and not (end and as_timestamp(when) <= _latest_end(timestamps)):
        raise ArgumentError(
            f"{when} is after the last bar, {time_text(timestamps[-1])}: give an earlier one, or "
            "None as an end"
        )
    return row


def named_row(name: str, timestamps: Timestamps, when: TimeLike, *, end: bool = False) -> int:
    """Return the row of a moment, see ``row_of``; its errors name the argument."""
    try:
        return row_of(timestamps, when, end=end)
    except ArgumentError as error:
        raise ArgumentError(f"{name}: {error}") from error


def _latest_end(timestamps: Timestamps) -> np.datetime64:
    """Return the last date that can be meant for the end of a range up to the last bar."""
    return timestamps[-1] + max(_WEEK, bar_spacing(timestamps)[0] * 3 // 2)


def split_rows(
    timestamps: Timestamps, train: float | TimeLike, validation: float | TimeLike
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Return chronological ranges for training, validation and test; see ``Market.split``."""
    n = len(timestamps)
    if isinstance(train, float):
        first = bars_of("train", train, n)
    else:
        first = named_row("train", timestamps, train)
    if isinstance(validation, float):
        second = first + bars_of("validation", validation, n)
    else:
        second = named_row("validation", timestamps, validation)
    if not 0 < first < second < n:
        raise ArgumentError(
            f"train={train!r}, validation={validation!r} split {n} bars at rows {first} and "
            f"{second}: choose them so that all three parts hold at least one bar"
        )
    return (0, first), (first, second), (second, n)


def bars_of(name: str, share: float, n: int) -> int:
    """Return the number of bars that a share in [0, 1] of all n bars is.

    Raises:
        ArgumentError: If it is no such share; the message names it.
    """
    return round(check_number(name, share, 0, 1) * n)


def bar_spacing(timestamps: Timestamps) -> tuple[np.timedelta64, bool]:
    """Return the median time between bars, and whether bars follow one another without pause.

    They do if they cover at least 85 % of the time at that spacing, or if they are more than 4 days
    apart; otherwise the market closes at times. Fewer than two bars say nothing and count as daily
    ones around the clock.

    Args:
        timestamps: (T,) sorted.
    """
    if len(timestamps) < 2:
        return np.timedelta64(1, "D").astype("timedelta64[ns]"), True
    spacing = np.median(np.diff(timestamps).astype(np.int64)).astype("timedelta64[ns]")
    covered = (len(timestamps) - 1) * (spacing / (timestamps[-1] - timestamps[0]))
    return spacing, bool(covered >= _UNBROKEN or spacing > np.timedelta64(4, "D"))


def periods_per_year(timestamps: Timestamps) -> float:
    """Return bars per year: 365 for daily bars with weekends, 252 for business days, 8760 hourly...

    Where the bars follow one another without pause (see ``bar_spacing``) it is the number of
    spacings in 365 days, rounded: so weekly bars give 52 and monthly ones 12, and a few missing
    bars change nothing. Otherwise the market closes, and it is 252 trading days times the median
    number of bars per day on which there are any.

    Args:
        timestamps: (T,) sorted.
    """
    spacing, unbroken = bar_spacing(timestamps)
    if unbroken:
        per_year = float(_YEAR / spacing)
        return float(round(per_year)) if per_year >= 1 else per_year
    per_day = np.unique(timestamps.astype("datetime64[D]"), return_counts=True)[1]
    return _TRADING_DAYS * float(np.median(per_day))


def bars_per_year(timestamps: Timestamps) -> float:
    """Return the bars per year of 365.25 days from the first to the last bar, as counted.

    Unlike ``periods_per_year``, which names the calendar, it is what yearly figures follow from.
    One bar alone says nothing and counts as a daily one.

    Args:
        timestamps: (T,) sorted.

    >>> days = np.arange("2021-01-04", "2021-01-16", dtype="datetime64[D]").astype("M8[ns]")
    >>> bars_per_year(days), bars_per_year(days[::2])
    (365.25, 182.625)
    """
    if len(timestamps) < 2:
        return periods_per_year(timestamps)
    return float((len(timestamps) - 1) / ((timestamps[-1] - timestamps[0]) / YEAR))


def years_between(timestamps: Timestamps) -> npt.NDArray[np.float64]:
    """Return the (T - 1,) times from each bar to the next, in years of 365.25 days.

    >>> days = np.array(["2020-01-03", "2020-01-06"], "datetime64[ns]")
    >>> (365.25 * years_between(days)).tolist()
    [3.0]
    """
    years: npt.NDArray[np.float64] = np.diff(timestamps) / YEAR
    return years


def time_text(timestamp: np.datetime64) -> str:
    """Return a timestamp to the minute, and without the time of day where that is midnight.

    >>> time_text(np.datetime64("2020-03-02T00:00")), time_text(np.datetime64("2020-03-02T13:30"))
    ('2020-03-02', '2020-03-02 13:30')
    """
    text = str(timestamp.astype("datetime64[m]"))
    return text.removesuffix("T00:00").replace("T", " ")
