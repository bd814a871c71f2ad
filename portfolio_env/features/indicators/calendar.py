"""Calendar features: functions of the time of bar t, the same for every asset but ``bar_gap``.

Angles come as sine and cosine, so that midnight is near midnight and December near January. Labels
are read as UTC, or as the exchange's date.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from portfolio_env.features.bars import Bars
from portfolio_env.features.registry import indicator
from portfolio_env.features.windows import lagged
from portfolio_env.market.panel import FloatArray

_TURN = 2 * np.pi


def _hour(bars: Bars) -> FloatArray:
    """Return the share of a day since midnight, (T,)."""
    return np.mod(bars.timestamps.astype(np.int64) / 86_400e9, 1)


def _weekday(bars: Bars) -> FloatArray:
    """Return the share of a week since Monday, by days, (T,)."""
    return pd.DatetimeIndex(bars.timestamps).day_of_week.to_numpy() / 7


def _monthday(bars: Bars) -> FloatArray:
    """Return the share of the longest month since its first day, (T,)."""
    return (pd.DatetimeIndex(bars.timestamps).day.to_numpy() - 1) / 31


def _yearday(bars: Bars) -> FloatArray:
    """Return the share of the longest year since 1 January, (T,)."""
    return (pd.DatetimeIndex(bars.timestamps).day_of_year.to_numpy() - 1) / 366


def _for_all(column: FloatArray, bars: Bars) -> FloatArray:
    return np.broadcast_to(column[:, None], bars.close.shape)


def _declare_angle(name: str, what: str, clock: Callable[[Bars], FloatArray]) -> None:
    """Declare sine and cosine of a clock's share of its turn."""
    for wave in (np.sin, np.cos):

        def angle(bars: Bars, wave: np.ufunc = wave) -> FloatArray:
            return _for_all(wave(_TURN * clock(bars)), bars)

        angle.__name__ = f"{name}_{wave.__name__}"
        formula = f"{wave.__name__}(2 pi {what})"
        indicator("calendar", formula, inputs="", lookback=lambda _: 0, scaled=False)(angle)


_declare_angle("hour", "hour of the day", _hour)
_declare_angle("weekday", "day of the week", _weekday)
_declare_angle("monthday", "day of the month", _monthday)
_declare_angle("yearday", "day of the year", _yearday)


@indicator("calendar", "ln(days since the own bar before)", inputs="", lookback=lambda _: 1)
def bar_gap(bars: Bars) -> FloatArray:
    """Time since the asset's bar before: longer after weekends, holidays and outages."""
    stamps = _for_all(bars.timestamps.astype(np.int64).astype(np.float64), bars)
    nanoseconds = bars.by_asset(lambda x, w: x - lagged(x, w), 1, stamps)
    return np.log(nanoseconds / 86_400e9)


def _session(bars: Bars, zone: str, opens: float, closes: float) -> FloatArray:
    """Return 1 where a bar is labelled within an exchange's hours on a weekday, else 0, (T, N)."""
    local = pd.DatetimeIndex(bars.timestamps).tz_localize("UTC").tz_convert(zone)
    hour = local.hour.to_numpy() + local.minute.to_numpy() / 60
    open_now = (hour >= opens) & (hour < closes) & (local.day_of_week.to_numpy() < 5)
    return _for_all(open_now.astype(np.float64), bars)


@indicator(
    "calendar",
    "1 if 9:00 <= time in Tokyo < 15:30, Monday to Friday",
    inputs="",
    lookback=lambda _: 0,
    scaled=False,
)
def session_asia(bars: Bars) -> FloatArray:
    """1 in the hours of the Tokyo Stock Exchange."""
    return _session(bars, "Asia/Tokyo", 9, 15.5)


@indicator(
    "calendar",
    "1 if 8:00 <= time in London < 16:30, Monday to Friday",
    inputs="",
    lookback=lambda _: 0,
    scaled=False,
)
def session_europe(bars: Bars) -> FloatArray:
    """1 in the hours of the London Stock Exchange."""
    return _session(bars, "Europe/London", 8, 16.5)


@indicator(
    "calendar",
    "1 if 9:30 <= time in New York < 16:00, Monday to Friday",
    inputs="",
    lookback=lambda _: 0,
    scaled=False,
)
def session_us(bars: Bars) -> FloatArray:
    """1 in the hours of the New York Stock Exchange."""
    return _session(bars, "America/New_York", 9.5, 16)
