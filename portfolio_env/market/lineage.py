"""Lineage: whether bars continue those that were learned from, by returns and not by a hash.

A provider rescales adjusted prices at every dividend and split, so the same past is seldom the same
numbers. Its returns are, but for the rounding of the prices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from portfolio_env.errors import DataError
from portfolio_env.market.panel import BAR_FIELDS, ROUNDING, FloatArray, PricePanel
from portfolio_env.market.timeline import Timestamps, time_text

OVERLAP = 64  # bars in common, or all where there are fewer, before anything can be said
_RETURN_ROUNDING = 1e-6  # of a log return, where prices have all their digits
_DIGITS = 10  # decimals of a price that are looked for
_MOST_PRICES = 4_000_000  # of a record, 32 MB; longer histories are known by their latest bars


@dataclass(frozen=True, eq=False)
class PriceRecord:
    """Closes by which a later market is recognised.

    Attributes:
        assets: N names.
        timestamps: (T,) datetime64[ns], sorted.
        close: (T, N) closing prices; NaN where there is no bar.
    """

    assets: tuple[str, ...]
    timestamps: Timestamps
    close: FloatArray

    @classmethod
    def of(cls, panel: PricePanel) -> PriceRecord:
        """Return the record of a panel: of its latest 4,000,000 prices."""
        first = max(0, len(panel.timestamps) - max(_MOST_PRICES // len(panel.assets), OVERLAP))
        return cls(panel.assets, panel.timestamps[first:], panel.close[first:])

    def are_in(self, panel: PricePanel) -> bool:
        """Return whether a panel of the same assets has these very prices, to the last bit."""
        first, end = np.searchsorted(
            panel.timestamps, [self.timestamps[0], self.timestamps[-1] + np.timedelta64(1, "ns")]
        )
        return (
            panel.assets == self.assets
            and np.array_equal(panel.timestamps[first:end], self.timestamps)
            and np.array_equal(panel.close[first:end], self.close, equal_nan=True)
        )

    def changes(self, panel: PricePanel) -> list[str]:
        """Return what is new in a panel that continues these prices, a sentence each.

        For every asset of both the bars are compared between the first and the last one that both
        have of it: an asset without its latest bar, as where a candle is late, contradicts nothing.

        Args:
            panel: Bars of a market that is said to be the same, at a later time.

        Raises:
            DataError: If a bar is missing, is there too much or has another return, with the first
                one; or if the bars end before these, or have too few or no assets in common.
        """
        shared = [name for name in self.assets if name in panel.assets]
        if not shared:
            raise DataError(
                f"the data have none of the assets that were learned from: they have "
                f"{_listed(panel.assets)}, and these are {_listed(self.assets)}; give data of the "
                "same names"
            )
        if panel.timestamps[-1] < self.timestamps[-1]:
            raise DataError(
                f"the data end at {time_text(panel.timestamps[-1])}, before what was learned from, "
                f"which ends at {time_text(self.timestamps[-1])}: give data that go on from there"
            )
        common, faults = 0, []
        for name in shared:
            old = _series(self.timestamps, self.close[:, self.assets.index(name)])
            new = _series(panel.timestamps, panel.close[:, panel.assets.index(name)])
            bars, fault = _compared(old, new)
            common = max(common, bars)
            if fault is not None:
                faults.append((fault[0], name, fault[1]))
        if faults:
            when, name, what = min(faults)
            raise DataError(
                f"the data contradict what was learned from: at {time_text(when)} {name} {what}"
                f"{f' (and {len(faults) - 1} more assets differ)' if len(faults) > 1 else ''}; "
                "restore the data, or train again"
            )
        needed = min(OVERLAP, len(self.timestamps))
        if common < needed:
            raise DataError(
                f"the data have {common} bars in common with what was learned from, from "
                f"{time_text(self.timestamps[0])} to {time_text(self.timestamps[-1])}; {needed} "
                "are needed to see that they continue it: give an earlier start"
            )
        return self._news(panel)

    def _news(self, panel: PricePanel) -> list[str]:
        later = int((panel.timestamps > self.timestamps[-1]).sum())
        found = []
        if later:
            found.append(
                f"The data go on for {later} bar{'s' * (later != 1)} after what was learned from, "
                f"to {time_text(panel.timestamps[-1])}."
            )
        new = [name for name in panel.assets if name not in self.assets]
        gone = [name for name in self.assets if name not in panel.assets]
        for names, what in ((new, "New in the data"), (gone, "Gone from the data")):
            if names:
                found.append(f"{what}: {_listed(names)}.")
        return found


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _series(times: Timestamps, close: FloatArray) -> tuple[Timestamps, FloatArray]:
    known = np.isfinite(close)
    return times[known], close[known]


def _compared(
    old: tuple[Timestamps, FloatArray], new: tuple[Timestamps, FloatArray]
) -> tuple[int, tuple[np.datetime64, str] | None]:
    """Return the bars in common of one asset, and the first that differs with what differs."""
    if not len(old[0]) or not len(new[0]):
        return 0, None
    first, last = max(old[0][0], new[0][0]), min(old[0][-1], new[0][-1])
    (times, before), (again, now) = (
        (stamps[inside], close[inside])
        for stamps, close in (old, new)
        for inside in ((stamps >= first) & (stamps <= last),)
    )
    faults: list[tuple[np.datetime64, str]] = []
    differing, known = np.setxor1d(times, again), np.intersect1d(times, again)
    if len(differing):
        there = differing[0] in times
        what = "no bar here and one there" if there else "a bar here and none there"
        faults.append((differing[0], f"has {what}"))
    before, now = before[np.isin(times, known)], now[np.isin(again, known)]
    returns = [np.diff(np.log(close)) for close in (before, now)]
    off = np.abs(returns[1] - returns[0]) > _RETURN_ROUNDING + _rounding(before) + _rounding(now)
    if off.any():
        row = int(off.argmax())
        own = [f"{100 * np.expm1(each[row]):.4g} %" for each in returns]
        faults.append((known[row + 1], f"returned {own[1]} here and {own[0]} there"))
    return len(known), min(faults, default=None)


def _rounding(close: FloatArray) -> npt.NDArray[np.float64]:
    """Return (T - 1,) how far log returns may be off by the decimals that prices are written in."""
    digits = next(
        (k for k in range(_DIGITS) if np.allclose(close, np.round(close, k), rtol=1e-12, atol=0)),
        None,
    )
    if digits is None:
        return np.zeros(max(len(close) - 1, 0))
    half = 0.5 * 10.0**-digits / close
    return half[1:] + half[:-1]


def later_bars(known: PricePanel, bars: PricePanel) -> PricePanel:
    """Return the bars that come after those known, of the same assets in the same order.

    Bars that are known already are left out. An asset that the new ones lack has no bar in them:
    its candle is late, or it is halted.

    Args:
        known: The bars so far.
        bars: Later ones, perhaps with some of those before them, in any order of the assets.

    Raises:
        DataError: If they have another asset, differ where both have a bar, or none of them is
            later.
    """
    odd = [name for name in bars.assets if name not in known.assets]
    if odd:
        raise DataError(
            f"the new bars have {', '.join(odd[:5])}, and the market {', '.join(known.assets[:5])}"
            f"{', ...' if len(known.assets) > 5 else ''}: leave the others out, or begin anew on a "
            "market that has them"
        )
    columns = [known.assets.index(name) for name in bars.assets]
    fresh = bars.timestamps > known.timestamps[-1]
    _check_known(known, bars, np.flatnonzero(~fresh), columns)
    if not fresh.any():
        raise DataError(
            f"no bar is new: they end at {time_text(bars.timestamps[-1])}, the market at "
            f"{time_text(known.timestamps[-1])}; give later ones"
        )

    def placed(values: FloatArray) -> FloatArray:
        whole = np.full((int(fresh.sum()), len(known.assets)), np.nan)
        whole[:, columns] = values[fresh]
        return whole

    given = {name: getattr(bars, name) for name in BAR_FIELDS}
    own: dict[str, Any] = {n: placed(values) for n, values in given.items() if values is not None}
    return PricePanel(
        bars.timestamps[fresh],
        known.assets,
        exogenous={name: placed(values) for name, values in bars.exogenous.items()},
        periods_per_year=known.periods_per_year,
        **own,
    )


def _check_known(
    known: PricePanel, bars: PricePanel, rows: npt.NDArray[np.int64], columns: list[int]
) -> None:
    """Reject bars that are not those that are known at their time."""
    places = known.timestamps.searchsorted(bars.timestamps[rows])
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        when = time_text(bars.timestamps[row])
        if known.timestamps[place] != bars.timestamps[row]:
            raise DataError(
                f"the bars are out of order: {when} is new, and the market ends at "
                f"{time_text(known.timestamps[-1])}; give later ones, or begin anew on a market "
                "that has it"
            )
        own, given = known.close[place, columns], bars.close[row]
        same = np.isclose(own, given, rtol=ROUNDING, atol=0, equal_nan=True)
        if not same.all():
            column = int(same.argmin())
            raise DataError(
                f"the bars contradict the market: {bars.assets[column]} closed {when} at "
                f"{given[column]:g} here and at {own[column]:g} there (nan is no bar); begin anew "
                "on the data as they are now"
            )
