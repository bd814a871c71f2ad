"""Resampling of bars to longer ones, labelled by when they are known.

Periods are those of the calendar in UTC: hours and days from midnight, weeks that end with Sunday,
months. Where a market has business days (``periods_per_year`` is a multiple of 252), weeks end with
Friday and months with their last weekday; a bar on a later weekend belongs to the next period.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.timeline import Timestamps
from portfolio_env.names import unknown

Ordinals = npt.NDArray[np.signedinteger[Any]]

_MINUTE = np.timedelta64(60 * 10**9, "ns")
_DAY = 1440 * _MINUTE
_YEAR = 365 * _DAY
TIMEFRAMES: dict[str, np.timedelta64] = {
    "1m": _MINUTE,
    "5m": 5 * _MINUTE,
    "15m": 15 * _MINUTE,
    "30m": 30 * _MINUTE,
    "1h": 60 * _MINUTE,
    "4h": 240 * _MINUTE,
    "1d": _DAY,
    "1w": 7 * _DAY,
    "1M": 30 * _DAY,
}
"""The length of bars; that of a month is nominal."""

_BARS_A_YEAR = {"1w": 52.0, "1M": 12.0}


def resample(panel: PricePanel, timeframe: str) -> PricePanel:
    """Return the panel with longer bars.

    A bar opens with the first and closes with the last of the asset's bars in the period; it has
    their highest high, lowest low and total volume. An asset without any has none. A period is
    over, and its bar given, once its last bar may be in: when the panel reaches its end, or holds a
    bar of a later one. The first period may have begun before the panel did; its bar holds what is
    there. Channels have the value that they have in the last row of the period.

    A bar is labelled as the last bar that its period has room for: days made of hours 23:00, weeks
    made of days Sunday (or Friday). So it is known at the close of the row with its label, as
    every row of a panel is, and joining it to the rows with labels at or after its own never looks
    ahead.

    Args:
        panel: Bars of one timeframe.
        timeframe: A name in ``TIMEFRAMES``; a multiple of the panel's. Its own gives the panel
            back.

    Returns:
        The panel of longer bars; ``resample`` of the first rows of a panel gives its first rows.

    Raises:
        ArgumentError: If the timeframe is unknown, shorter than the panel's or not a multiple.
        DataError: If bars are closer to one another than ``periods_per_year`` says, or if no period
            is over.
    """
    times, per_year = panel.timestamps, panel.periods_per_year
    bar = _bar_length(times, per_year, timeframe)
    if bar == TIMEFRAMES[timeframe] or per_year == _BARS_A_YEAR.get(timeframe):
        return panel
    group, closed = closed_groups(times, per_year, timeframe)
    n_groups = int(closed[-1]) + 1
    if not n_groups:
        raise DataError(
            f"no period of {timeframe} is over from {times[0]} to {times[-1]}: "
            "give more bars or a shorter timeframe"
        )
    rows = int(np.searchsorted(group, n_groups))
    starts = np.searchsorted(group[:rows], np.arange(n_groups))
    last_rows = np.append(starts[1:], rows) - 1
    labels = times[last_rows]
    if not _has_sessions(per_year):
        slots = _last_slot(_period_ends(labels, timeframe, has_weekends(per_year)), times[0], bar)
        labels = np.maximum(labels, slots)
    return replace(
        panel,
        timestamps=labels,
        **_bars(panel, rows, starts),
        exogenous={name: values[last_rows] for name, values in panel.exogenous.items()},
        periods_per_year=_periods_per_year(per_year, timeframe),
        provenance={**panel.provenance, "timeframe": timeframe},
    )


def closed_groups(
    timestamps: Timestamps, periods_per_year: float, timeframe: str
) -> tuple[Ordinals, Ordinals]:
    """Return the period that each row belongs to, and the last one that is over at its close.

    A period is over at the row whose label plus the length of a bar reaches its end, or at the
    first row of a later one. The length is 365 days / periods_per_year, or a day where it is 252;
    where days hold several bars with pauses between them (252 k), only a later row ends a period.

    Args:
        timestamps: (T,) sorted.
        periods_per_year: Bars per year of the rows.
        timeframe: A name in ``TIMEFRAMES``, a multiple of that of the rows.

    Returns:
        (T,) the number of each row's period, counting those that have rows from 0; and (T,) that of
        the last one complete at the close of the row, -1 if there is none. Row t depends on rows up
        to t only.

    Raises:
        ArgumentError, DataError: As for ``resample``.
    """
    bar = _bar_length(timestamps, periods_per_year, timeframe)
    ends = _period_ends(timestamps, timeframe, has_weekends(periods_per_year))
    group = np.cumsum(np.diff(ends, prepend=ends[:1]) > np.timedelta64(0), dtype=np.intp)
    if _has_sessions(periods_per_year):
        return group, group - 1
    over = timestamps + bar >= ends
    late = np.flatnonzero(over[:-1] & (group[1:] == group[:-1]))
    if len(late):
        raise DataError(
            f"{timestamps[late[0] + 1]} is less than a bar ({_text(bar)}) after "
            f"{timestamps[late[0]]}, at the end of a period of {timeframe}: "
            "give bars of one timeframe, or the right periods_per_year"
        )
    return group, np.where(over, group, group - 1)


def has_weekends(per_year: float) -> bool:
    """Return whether the market pauses at weekends; half bars a day come from medians."""
    return per_year >= 252 and per_year % 126 == 0


def _has_sessions(per_year: float) -> bool:
    """Return whether days hold several bars and a pause."""
    return has_weekends(per_year) and per_year > 252


def _bar_length(times: Timestamps, per_year: float, timeframe: str) -> np.timedelta64:
    """Return the length of the given bars, of which the timeframe must be a multiple."""
    if timeframe not in TIMEFRAMES:
        raise unknown("timeframe", timeframe, TIMEFRAMES)
    is_sessions = _has_sessions(per_year)
    if is_sessions:  # more rows than a day has hold two of the same day
        bar = np.diff(times).min() if len(times) > per_year / 252 else _MINUTE
    elif has_weekends(per_year):
        bar = _DAY
    else:
        bar = np.timedelta64(round(_YEAR / np.timedelta64(1, "ns") / per_year), "ns")
    whole = _DAY if timeframe in _BARS_A_YEAR else TIMEFRAMES[timeframe]
    is_multiple = bar <= whole and (is_sessions or not whole % bar)
    if not is_multiple and per_year != _BARS_A_YEAR.get(timeframe):
        raise ArgumentError(
            f"timeframe {timeframe!r} is not a multiple of the bars of {_text(bar)}: choose from "
            f"{[name for name, step in TIMEFRAMES.items() if step >= bar and not step % bar]}"
        )
    return bar


def _text(length: np.timedelta64) -> str:
    names = {step: name for name, step in TIMEFRAMES.items()}
    return names.get(length, f"{length / _MINUTE:.6g} minutes")


def _period_ends(times: Timestamps, timeframe: str, weekends: bool) -> Timestamps:
    """Return (T,) the end, exclusive, of the period that each moment lies in."""
    if timeframe not in _BARS_A_YEAR:
        step = TIMEFRAMES[timeframe]
        return times - (times - np.datetime64(0, "ns")) % step + step
    days: Timestamps = times.astype("datetime64[D]")
    if timeframe == "1w":
        last = np.datetime64("1970-01-03" if weekends else "1970-01-05")  # the first end of a week
        into = (days - last) % np.timedelta64(7, "D")
        return (days - into + np.timedelta64(7, "D")).astype("datetime64[ns]")
    ends = _month_ends(days, weekends)
    later = _month_ends((times + 7 * _DAY).astype("datetime64[D]"), weekends)
    return np.where(days < ends, ends, later).astype("datetime64[ns]")


def _month_ends(days: Timestamps, weekends: bool) -> Timestamps:
    """Return the first day after each day's month; after its last weekday if there are weekends."""
    following = (days.astype("datetime64[M]") + 1).astype("datetime64[D]")
    if not weekends:
        return following
    return np.busday_offset(following, -1, roll="forward") + 1


def _last_slot(ends: Timestamps, first: np.datetime64, bar: np.timedelta64) -> Timestamps:
    """Return (P,) the labels of the last bars before the ends, on the grid of the first label."""
    return ends - bar + (first - (ends - bar)) % bar


def _periods_per_year(per_year: float, timeframe: str) -> float:
    """Return the periods per year of the longer bars; NaN, to be inferred, for intraday ones."""
    if timeframe in _BARS_A_YEAR:
        return _BARS_A_YEAR[timeframe]
    if not has_weekends(per_year):
        return float(_YEAR / TIMEFRAMES[timeframe])
    return 252.0 if timeframe == "1d" else np.nan


def _bars(panel: PricePanel, rows: int, starts: Ordinals) -> dict[str, Any]:
    """Return the bars of periods that start at the given rows, the last ending before ``rows``."""
    close = panel.close[:rows]
    present = ~np.isnan(close)
    row = np.arange(rows)[:, None]
    last = np.maximum.reduceat(np.where(present, row, -1), starts)  # (P, N)
    known = last >= 0
    bars: dict[str, Any] = {"close": np.where(known, np.take_along_axis(close, last, 0), np.nan)}
    if panel.open is not None:
        first = np.minimum.reduceat(np.where(present, row, rows - 1), starts)
        opened = np.take_along_axis(panel.open[:rows], first, 0)
        bars["open"] = np.where(known, opened, np.nan)
    if panel.high is not None:
        bars["high"] = np.fmax.reduceat(panel.high[:rows], starts)
    if panel.low is not None:
        bars["low"] = np.fmin.reduceat(panel.low[:rows], starts)
    if panel.volume is not None:
        total = np.add.reduceat(np.where(present, panel.volume[:rows], 0.0), starts)
        bars["volume"] = np.where(known, total, np.nan)
    return bars
