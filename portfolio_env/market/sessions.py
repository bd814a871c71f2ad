"""Sessions: in which rows of a common calendar each asset's market is open.

They follow from the bars: by the hour of the week at which an asset has bars, and by the days on
which all assets of the same hours have none. ``exchange_sessions`` asks the library
exchange_calendars instead. Both look at the whole of the data, so they describe data and are
nothing that may be observed.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.market.timeline import Timestamps
from portfolio_env.names import indices_of

if TYPE_CHECKING:
    from portfolio_env.market.panel import PricePanel

BoolArray = npt.NDArray[np.bool_]

_WEEK = np.timedelta64(7 * 86_400 * 10**9, "ns")
_NEAR = 4  # weeks before and after a row in which its hour of the week is looked at
_ENOUGH = 4  # rows of an hour of the week, of which fewer say nothing
_RARE = 0.1  # an hour with bars in a smaller share of its rows is none of the asset's hours


def sessions(panel: PricePanel, exchanges: Mapping[str, str] | None = None) -> BoolArray:
    """Return in which rows each asset's market is open, see ``PricePanel.sessions``."""
    out = open_rows(panel.timestamps, np.isfinite(panel.close))
    for asset, exchange in (exchanges or {}).items():
        (column,) = indices_of("asset", [asset], panel.assets)
        out[:, column] = exchange_sessions(panel.timestamps, exchange)
    return out


def open_rows(times: Timestamps, present: BoolArray) -> BoolArray:
    """Return in which rows each asset's market is open, as its bars tell.

    Args:
        times: (T,) sorted.
        present: (T, N) whether the asset has a bar.

    Returns:
        (T, N): True where the asset has a bar, and between its first and last one also where one
        would be expected: the row is at an hour of the week at which it has bars in the weeks
        around, and not a holiday, on which no asset of the same hours has one.
    """
    return open_and_closed(times, present)[0]


def open_and_closed(times: Timestamps, present: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Return ``open_rows``, and the rows at hours at which an asset never has bars, (T, N)."""
    hours = _Hours(times)
    found = [hours.of(present[:, i]) for i in range(present.shape[1])]
    out: BoolArray = np.stack([one for one, _ in found], axis=1)
    groups: dict[bytes, list[int]] = {}
    for i, (_, pattern) in enumerate(found):
        if pattern.any():  # a market that never closes has no holidays
            groups.setdefault(pattern.tobytes(), []).append(i)
    for members in groups.values():
        if len(members) > 1:
            somebody: BoolArray = np.logical_or.reduce(present[:, members], axis=1)
            out[:, members] &= somebody[:, None]
    return out, np.stack([pattern[hours.slot] for _, pattern in found], axis=1)


class _Hours:
    """Hours of the week of a calendar, in order."""

    def __init__(self, times: Timestamps) -> None:
        self.times = times
        # the first day of the epoch was a Thursday, and any start of the week will do
        of_week = (times - np.datetime64(0, "ns")) % _WEEK
        self.slots, self.slot = np.unique(of_week, return_inverse=True)
        self.order = np.argsort(self.slot, kind="stable")
        self.bounds = np.searchsorted(self.slot[self.order], np.arange(len(self.slots) + 1))

    def of(self, present: BoolArray) -> tuple[BoolArray, BoolArray]:
        """Return in which rows an asset is open, (T,), and which hours it is always closed."""
        rows = np.flatnonzero(present)
        if not len(rows):
            return present.copy(), np.zeros(len(self.slots), np.bool_)
        alive = np.zeros(len(present), np.bool_)
        alive[rows[0] : rows[-1] + 1] = True
        all_rows = np.bincount(self.slot[alive], minlength=len(self.slots))
        with_bar = np.bincount(self.slot[rows], minlength=len(self.slots))
        never = (all_rows >= _ENOUGH) & (with_bar < _RARE * all_rows)
        closed = never[self.slot] | (self._seldom(present, alive) & self._active(rows))
        return alive & (present | ~closed), never

    def _seldom(self, present: BoolArray, alive: BoolArray) -> BoolArray:
        """Return the rows whose hour has no bar in the weeks around, (T,)."""
        mine = self.slot[self.order]
        place = np.arange(len(mine))
        low = np.maximum(place - _NEAR, self.bounds[mine])
        high = np.minimum(place + _NEAR + 1, self.bounds[mine + 1])
        bars, rows = (
            np.append(0, np.cumsum(values[self.order]))[[low, high]] for values in (present, alive)
        )
        out = np.zeros(len(present), np.bool_)
        out[self.order] = (bars[1] == bars[0]) & (rows[1] - rows[0] >= _ENOUGH)
        return out

    def _active(self, rows: npt.NDArray[np.intp]) -> BoolArray:
        """Return the rows with any bar of the asset in the weeks around, (T,)."""
        bars = self.times[rows]
        first = np.searchsorted(bars, self.times - _NEAR * _WEEK)
        active: BoolArray = np.searchsorted(bars, self.times + _NEAR * _WEEK, "right") > first
        return active


def exchange_sessions(timestamps: Timestamps, exchange: str) -> BoolArray:
    """Return in which rows an exchange is open, by the library exchange_calendars.

    Args:
        timestamps: (T,) dates of the exchange if all are midnight, else moments in UTC at which
            bars begin.
        exchange: Name of the exchange there, such as "XNYS" or "XLON".

    Returns:
        (T,) bool, with the exchange's holidays and early closes.

    Raises:
        DataError: If the library is missing.
        ArgumentError: If it knows no such exchange, or not at these times.
    """
    try:
        import exchange_calendars as library
    except ImportError as error:
        raise DataError(
            "sessions of an exchange need the library exchange_calendars, which is missing: "
            "pip install exchange_calendars"
        ) from error
    days = timestamps.astype("datetime64[D]")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pandas, about what the library does
            span = {"start": str(days[0]), "end": str(days[-1])}
            calendar: Any = library.get_calendar(exchange, **span)
    except Exception as error:  # its errors have no common base
        raise ArgumentError(
            f"exchange={exchange!r} must be known to exchange_calendars from {days[0]} to "
            f"{days[-1]}: {error}"
        ) from error
    if (timestamps == days).all():
        return np.isin(days, calendar.sessions.to_numpy().astype("datetime64[D]"))
    opens, closes = (
        each.dt.tz_localize(None).to_numpy("datetime64[ns]")
        for each in (calendar.opens, calendar.closes)
    )
    last = np.searchsorted(opens, timestamps, side="right") - 1
    return (last >= 0) & (timestamps < closes[np.maximum(last, 0)])
