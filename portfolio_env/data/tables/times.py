"""Dates as people and programs write them, and the label that a bar gets.

A date without a zone is taken as it is written. One with a zone is an instant, and becomes UTC;
but bars of days that are stamped with midnight at their exchange are labelled by the exchange's
date, and bars of months by the month's last day, on which they are known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from portfolio_env.data.tables.origin import Origin
from portfolio_env.market.timeline import Timestamps
from portfolio_env.market.zones import begin_months, exchange_days

_FIX = "write it as 2020-01-31 or 2020-01-31T09:30:00Z"
_ZONE = r"[T ]\d.*?\s?(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)$"  # of an ISO 8601 time; a date has none
_RANGE = np.array(["1678-01-01", "2262-01-01"], "datetime64[us]")  # what datetime64[ns] can hold
_DAY = np.timedelta64(1, "D")
_EPOCHS = ((8, 10, "s"), (11, 13, "ms"), (14, 16, "us"), (17, 19, "ns"))
"""Digits of the time since 1970, and their unit, from 1973 on."""
_FORMS = ("%d.%m.%Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y", "%d %b %Y", "%d %B %Y", "%Y%m%d")
_COMPACT = r"((?:19|20)\d\d(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01]))([0-2]\d[0-5]\d(?:[0-5]\d)?)"
_CLOCKS = ("", " %H:%M", " %H:%M:%S")
_IN_UTC = "days stamped with midnight at an exchange, in UTC, are labelled by its dates"


def read_times(dates: pd.Series[Any], origin: Origin) -> Timestamps:
    """Dates as datetime64[ns]; UTC where they carry a zone.

    Understood are ISO 8601, 2020.01.31 and 2020/01/31, days before months with points between
    them, names of months, 01/31/2020 where the column tells which is the day, seconds to
    nanoseconds since 1970 (recognised by size), and months, quarters and years, which stand for
    their last day.

    Raises:
        DataError: If a date is missing, unreadable or ambiguous, or if only some carry a zone.
    """
    return _parsed(dates, origin)[0]


def as_dates(dates: pd.Series[Any], origin: Origin) -> pd.Series[Any]:
    """Dates as datetime64[ns], with the zone UTC where they are instants of the day.

    Those that are all midnight on a clock of their own become dates of that clock.
    """
    instants, wall, zoned = _parsed(dates, origin)
    at_midnight = (wall == wall.astype("datetime64[D]")).all()
    if zoned and at_midnight and (wall != instants).any():
        origin.note("days stamped with their own midnight are labelled by their own date")
    labels = pd.Series(wall if zoned and at_midnight else instants, index=dates.index)
    return labels.dt.tz_localize("UTC") if zoned and not at_midnight else labels


def bar_times(labels: pd.Series[Any], symbols: npt.NDArray[Any], origin: Origin) -> Timestamps:
    """Return the labels of bars by symbol, where midnight at an exchange became UTC.

    Args:
        labels: (K,) as ``as_dates`` returns them.
        symbols: (K,) whose bars they are.
        origin: Names rows in errors.
    """
    zoned = isinstance(labels.dtype, pd.DatetimeTZDtype)
    times = (labels.dt.tz_localize(None) if zoned else labels).to_numpy("datetime64[ns]")
    if not zoned and not _may_begin_periods(times):
        return times
    codes = pd.factorize(symbols)[0]
    order = np.lexsort((times, codes))
    times = times.copy()
    for rows in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        own = times[rows]
        if zoned:
            own, found = exchange_days(own)
            if found:
                origin.note(_IN_UTC)
        times[rows] = own
    return period_ends(times, origin)


def period_ends(times: Timestamps, origin: Origin) -> Timestamps:
    """Labels that all begin a month or a week become its last day (quarters, years too)."""
    if not _may_begin_periods(times):
        return times
    fix = "are labelled by its last day, when their close is known"
    weeks = np.unique(times)
    apart = np.diff(weeks)
    if len(apart) > 1 and (_weekdays(weeks) == 0).all() and np.median(apart) == 7 * _DAY:
        origin.warn(f"bars dated on the Monday of each week {fix}")
        return times + 6 * _DAY
    months = times.astype("datetime64[M]")
    steps = np.diff(np.unique(months)).astype(np.int64)
    if len(steps) < 2 or not begin_months(times):
        return times
    length = int(np.median(steps))
    if length > 1 and (months.astype(np.int64) % length != 0).any():
        return times
    origin.warn(f"bars dated on the first day of each month {fix}")
    return _last_days(months + length)


def _weekdays(times: Timestamps) -> npt.NDArray[np.int64]:
    """Return the weekday of each date, 0 for Monday."""
    return (times.astype("datetime64[D]").astype(np.int64) + 3) % 7


def _may_begin_periods(times: Timestamps) -> bool:
    """Return whether labels are all first days of months, or all Mondays."""
    if (times != times.astype("datetime64[D]")).any():
        return False
    return begin_months(times) or bool((_weekdays(times) == 0).all())


def _last_days(following: npt.NDArray[Any]) -> Timestamps:
    """Return the day before each month."""
    days = following.astype("datetime64[M]").astype("datetime64[D]") - _DAY
    last: Timestamps = days.astype("datetime64[ns]")
    return last


def _parsed(dates: pd.Series[Any], origin: Origin) -> tuple[Timestamps, Timestamps, bool]:
    """Instants (UTC where a zone is known), the same on their own clock, and whether it is."""
    origin.refuse(dates.isna().to_numpy(), "there is no date", _FIX)
    if isinstance(dates.dtype, pd.PeriodDtype):
        ends = dates.dt.end_time.dt.normalize()
        starts = dates.dt.start_time
        dates = ends.where(ends > starts, starts)  # of hours and days, when they begin
    zoned = isinstance(dates.dtype, pd.DatetimeTZDtype)
    if zoned or (isinstance(dates.dtype, np.dtype) and dates.dtype.kind == "M"):
        wall = dates.dt.tz_localize(None) if zoned else dates
        instants = dates.dt.tz_convert(None) if zoned else dates
        rough = instants.to_numpy("datetime64[us]")
        good = (rough >= _RANGE[0]) & (rough < _RANGE[1])
        origin.refuse(~good, "unreadable date", _FIX, dates.iloc.__getitem__)
        exact = instants.to_numpy("datetime64[ns]")
        return exact, wall.to_numpy("datetime64[ns]"), zoned
    if pd.api.types.is_float_dtype(dates.dtype):
        whole = dates.astype("int64")
        dates = whole if (whole == dates).all() else dates
    codes, texts = pd.factorize(dates.astype(str).str.strip().to_numpy())
    return _of_texts(codes, pd.Series(texts, dtype=str), origin)


def _of_texts(
    codes: npt.NDArray[np.intp], texts: pd.Series[Any], origin: Origin
) -> tuple[Timestamps, Timestamps, bool]:
    """``_parsed`` of the distinct texts."""
    label = texts.to_numpy(object)[codes].__getitem__
    if texts.str.fullmatch(_COMPACT).all():  # 20240131093000, the time without signs
        texts = texts.str.replace(_COMPACT, r"\1T\2", regex=True)
    found, zoned = _numbers(texts)
    if found is None:
        found = _periods(texts)
    if found is not None:
        return found[codes], found[codes], zoned
    texts = texts.str.replace(r"^(\d{4})([./])(\d{1,2})\2(\d{1,2})(?!\d)", r"\1-\3-\4", regex=True)
    zones = texts.str.extract(_ZONE)[0]
    parsed = pd.to_datetime(
        texts.str.replace(r"\s?(UTC|GMT)$", "Z", regex=True),
        utc=True, format="ISO8601", errors="coerce",
    ).dt.tz_localize(None)  # fmt: skip
    if parsed.isna().all():
        parsed, zones = _in_words(codes, texts, origin), zones.iloc[:0].reindex(texts.index)
    rough = parsed.to_numpy("datetime64[us]")
    good = (rough >= _RANGE[0]) & (rough < _RANGE[1])  # False for NaT
    origin.refuse(~good[codes], "unreadable date", _FIX, label)
    has_zone = zones.notna().to_numpy()
    fix = "write all dates with one, best in UTC"
    what = "a time zone other than that of the first row (there is one in some rows only):"
    origin.refuse(has_zone[codes] != has_zone[codes[:1]], what, fix, label)
    exact = parsed.to_numpy("datetime64[ns]")
    wall = exact
    if has_zone.all():
        signs = zones.str.extract(r"([+-])(\d\d):?(\d\d)?").fillna("0")
        minutes = signs[1].astype(int) * 60 + signs[2].astype(int)
        offset = np.where(signs[0] == "-", -1, 1) * minutes.to_numpy()
        wall = exact + offset.astype("timedelta64[m]")
    return exact[codes], wall[codes], bool(has_zone.all())


def _numbers(texts: pd.Series[Any]) -> tuple[Timestamps | None, bool]:
    """Dates that are numbers: the time since 1970 or the digits of a month; whether in UTC."""
    if not texts.str.fullmatch(r"\d+(\.\d*)?").all():
        return None, False
    whole = texts.str.partition(".")[0]
    digits = whole.str.len()
    if (digits == 8).all() and whole.str.fullmatch(r"(1[6-9]|2[01])\d{6}").all():
        return None, False  # 20200131, which is ISO 8601
    if (digits == 6).all() and whole.str.fullmatch(r"(19|20)\d\d(0[1-9]|1[0-2])").all():
        months = whole.str.slice(0, 4) + "-" + whole.str.slice(4)
        return _last_days(months.to_numpy("datetime64[M]") + 1), False
    times = np.full(len(texts), np.datetime64("NaT"), "datetime64[ns]")
    for low, high, unit in _EPOCHS:
        rows = digits.between(low, high).to_numpy()
        values = whole[rows].astype("int64").to_numpy()
        if unit == "s":
            limit = 9_223_372_036
            values = np.minimum(values, limit)
        times[rows] = values.astype(f"datetime64[{unit}]").astype("datetime64[ns]")
    return (None, False) if np.isnat(times).any() else (times, True)


def _periods(texts: pd.Series[Any]) -> Timestamps | None:
    """Return the last days of weeks, months, quarters or years."""
    if texts.str.fullmatch(r"\d{4}[-/.]\d{1,2}").all():
        parts = texts.str.extract(r"(\d{4})[-/.](\d{1,2})").astype(int)
        if not parts[1].between(1, 12).all():
            return None
        months, length = (parts[0] - 1970) * 12 + parts[1] - 1, 1
    elif texts.str.fullmatch(r"\d{4}-?\s?[Qq][1-4]").all():
        parts = texts.str.extract(r"(\d{4}).*([1-4])$").astype(int)
        months, length = (parts[0] - 1970) * 12 + (parts[1] - 1) * 3, 3
    elif texts.str.fullmatch(r"[Qq][1-4][ -]?\d{4}").all():
        parts = texts.str.extract(r"([1-4])[ -]?(\d{4})").astype(int)
        months, length = (parts[1] - 1970) * 12 + (parts[0] - 1) * 3, 3
    elif texts.str.fullmatch(r"[A-Za-z]{3,9}[ -]\d{4}").all():
        named = texts.str.replace("-", " ")
        found = pd.to_datetime(named, format="%b %Y", errors="coerce")
        found = found.fillna(pd.to_datetime(named, format="%B %Y", errors="coerce"))
        if found.isna().any():
            return None
        months, length = (found.dt.year - 1970) * 12 + found.dt.month - 1, 1
    elif texts.str.fullmatch(r"\d{4}-?W\d\d|\d{4}-\d\d-\d\d/\d{4}-\d\d-\d\d").all():
        weeks = texts.str.contains("W").all()  # else 2024-01-01/2024-01-07, as pandas writes it
        last = texts.str.replace("-", "") + "7" if weeks else texts.str.slice(11)
        form = "%GW%V%u" if weeks else "%Y-%m-%d"
        found = pd.to_datetime(last, format=form, errors="coerce")
        return None if found.isna().any() else found.to_numpy("datetime64[ns]")
    elif texts.str.fullmatch(r"(1[6-9]|2[01])\d\d").all():
        months, length = (texts.astype(int) - 1970) * 12, 12
    else:
        return None
    return _last_days(months.to_numpy().astype("datetime64[M]") + length)


def _in_words(codes: npt.NDArray[np.intp], texts: pd.Series[Any], origin: Origin) -> pd.Series[Any]:
    """Days of which none is ISO 8601: one form for all of them."""
    forms = list(_FORMS)
    parts = texts.str.extract(r"^(\d{1,2})([/-])(\d{1,2})\2\d{4}(?!\d)")
    if parts[0].notna().all():
        first, second = parts[0].astype(int), parts[2].astype(int)
        sign = parts[1].iloc[0]
        day_first, month_first = bool((first > 12).any()), bool((second > 12).any())
        if not day_first and not month_first:
            label = texts.to_numpy(object)[codes].__getitem__
            every = np.ones(len(codes), bool)
            problem = "the day or the month may come first, no row tells:"
            origin.refuse(every, problem, "write it as 2020-01-31", label)
        forms = [f"%d{sign}%m{sign}%Y" if day_first else f"%m{sign}%d{sign}%Y"]
        origin.note(f"dates are read as {'day' if day_first else 'month'} first")
    best = pd.Series(pd.NaT, index=texts.index, dtype="datetime64[ns]")
    for form in (form + clock for form in forms for clock in _CLOCKS):
        parsed = pd.to_datetime(texts, format=form, errors="coerce")
        if parsed.notna().sum() > best.notna().sum():
            best = parsed
    return best
