"""Measurements behind ``quality``, on bars in order of asset and time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from portfolio_env.market.panel import BAR_FIELDS, FloatArray, bar_faults
from portfolio_env.market.sessions import open_and_closed
from portfolio_env.market.timeline import Timestamps, bar_spacing, periods_per_year

IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]

ROW_FAULTS = ("duplicates", "disorder", "missing", "non_positive", "impossible")
"""What a ``PricePanel`` cannot hold and strict readers refuse."""
_NORMAL_MAD, _NORMAL_MEAN = 1.4826, 1.2533  # standard deviation over median, mean |deviation|


@dataclass(frozen=True, eq=False)
class SortedBars:
    """Bars in long form by asset and time; K rows of which M are the first of their date.

    Attributes:
        symbols: N names, sorted.
        times: (M,) sorted within each asset.
        codes: (M,) which asset.
        close: (M,).
        volume: (M,), or None.
        marks: Flags (K,) of faulty rows of the source, by kind of ``ROW_FAULTS``.
        fault_texts: (K,) masks by description, of ``bar_faults``.
        row_times, row_codes: (K,) of the source's rows, in its order.
    """

    symbols: tuple[str, ...]
    times: Timestamps
    codes: IntArray
    close: FloatArray
    volume: FloatArray | None
    marks: dict[str, BoolArray]
    fault_texts: dict[str, BoolArray]
    row_times: Timestamps
    row_codes: IntArray

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Self:
        """Sort a long frame (see ``long_frame``) and mark its faulty rows."""
        codes, symbols = pd.factorize(frame["symbol"], sort=True)
        times = frame["date"].to_numpy("datetime64[ns]")
        duplicates, disorder, order = order_faults(times, codes)
        first = order[~duplicates[order]]
        fields = bar_fields(frame)
        texts = {text: mask for mask, text in bar_faults(fields) if mask.any()}
        marks = {"duplicates": duplicates, "disorder": disorder, "missing": lacking(fields)}
        for kind in ("non_positive", "impossible"):
            masks = [mask for text, mask in texts.items() if _kind(text) == kind]
            marks[kind] = np.logical_or.reduce([np.zeros(len(frame), bool), *masks])
        volume = fields["volume"]
        return cls(
            symbols=tuple(map(str, symbols)),
            times=times[first],
            codes=codes[first],
            close=np.asarray(fields["close"])[first],
            volume=None if volume is None else volume[first],
            marks=marks,
            fault_texts=texts,
            row_times=times,
            row_codes=codes,
        )

    @cached_property
    def calendar(self) -> Timestamps:
        """Return (T,) every date on which any asset has a bar."""
        return np.unique(self.times)

    @cached_property
    def spacing(self) -> tuple[np.timedelta64, bool]:
        """Return the median spacing of the calendar, and whether the market never closes."""
        return bar_spacing(self.calendar)

    @cached_property
    def _places(self) -> IntArray:
        """Return (M,) the row of the calendar of each bar."""
        return np.searchsorted(self.calendar, self.times)

    @cached_property
    def _hours(self) -> tuple[BoolArray, BoolArray]:
        """Return (T, N) whether each asset's market is open on each date, and always closed."""
        present = np.zeros((len(self.calendar), len(self.symbols)), np.bool_)
        present[self._places, self.codes] = True
        return open_and_closed(self.calendar, present)

    @cached_property
    def opened(self) -> IntArray:
        """Return (M,) how many dates the market of each bar's asset was open before it."""
        found = np.empty(len(self.codes), np.intp)
        for code in range(len(self.symbols)):
            own = slice(self.starts[code], self.ends[code] + 1)
            found[own] = np.cumsum(self._hours[0][:, code])[self._places[own]]
        return found

    @cached_property
    def has_sessions(self) -> BoolArray:
        """Return (N,) whether an asset's market is closed on a date of its life."""
        life = self._places[self.ends] - self._places[self.starts] + 1
        return self._hours[0].sum(axis=0) < life

    @cached_property
    def starts(self) -> IntArray:
        """Return (N,) where each asset's bars begin."""
        return np.searchsorted(self.codes, np.arange(len(self.symbols)))

    @cached_property
    def ends(self) -> IntArray:
        """Return (N,) each asset's last bar."""
        return np.append(self.starts[1:], len(self.codes)) - 1

    def overall(self) -> dict[str, Any]:
        """Return ranges and calendar; see ``QualityReport.overall``."""
        times, (spacing, unbroken) = self.calendar, self.spacing
        first, last = self.times[self.starts].max(), self.times[self.ends].min()
        shared = first <= last
        have = np.bincount(np.searchsorted(times, self.times), minlength=len(times))
        breaks = np.diff(times)
        longest = int(np.argmax(breaks)) if len(breaks) else None
        return {
            "assets": len(self.symbols),
            "rows": len(self.row_times),
            "first": iso(times[0]),
            "last": iso(times[-1]),
            "bars": len(times),
            "common_first": iso(first) if shared else None,
            "common_last": iso(last) if shared else None,
            "common_bars": int((have == len(self.symbols)).sum()),
            "calendar": "round the clock" if unbroken else "with closing times",
            "spacing": str(pd.Timedelta(spacing)),
            "periods_per_year": periods_per_year(times),
            "longest_break": None if longest is None else str(pd.Timedelta(breaks[longest])),
            "longest_break_after": None if longest is None else iso(times[longest]),
        }

    def life(self) -> pd.DataFrame:
        """Return first and last bar and the range of closing prices, per asset."""
        first, last = self.times[self.starts], self.times[self.ends]
        prices = pd.Series(self.close).groupby(self.codes).agg(["min", "max"])
        rows = np.arange(len(self.calendar))[:, None]
        later = (rows > self._places[self.ends]) & ~self._hours[1]
        return self.table(
            rows=np.bincount(self.row_codes, minlength=len(self.symbols)),
            first=first,
            last=last,
            ends_early=np.logical_or.reduce(later, axis=0),
            min_price=prices["min"].to_numpy(),
            max_price=prices["max"].to_numpy(),
            last_price=self.close[self.ends],
        )

    def table(self, **columns: npt.NDArray[Any]) -> pd.DataFrame:
        """Return a frame with a row per asset."""
        return pd.DataFrame(columns, index=pd.Index(self.symbols, name="symbol"))

    def gaps(self) -> pd.DataFrame:
        """Return gaps in assets' lives: symbol, after, before, missing_bars, missing_regular, bars.

        ``missing_bars`` counts the dates between on which other assets have bars and the asset's
        own market is open (see ``market.sessions``); ``missing_regular`` those that the median
        spacing lets expect if neither the market nor the asset ever closes (else 0); ``bars`` is
        the larger.
        """
        same = np.diff(self.codes) == 0
        missing = np.where(same, np.diff(self.opened) - 1, 0)
        regular = np.zeros_like(missing)
        spacing, unbroken = self.spacing
        if unbroken:
            steps = np.rint(np.diff(self.times) / spacing).astype(np.intp)
            expected = same & ~self.has_sessions[self.codes[1:]]
            regular = np.where(expected, np.maximum(steps - 1, 0), 0)
        at = np.flatnonzero(np.maximum(missing, regular))
        return pd.DataFrame(
            {
                "symbol": self._names(at),
                "after": self.times[at],
                "before": self.times[at + 1],
                "missing_bars": missing[at],
                "missing_regular": regular[at],
                "bars": np.maximum(missing, regular)[at],
            }
        )

    def stale(self, longer_than: int) -> pd.DataFrame:
        """Return runs of more than so many bars with one close: symbol, first, last, bars."""
        fresh = np.append(True, (np.diff(self.close) != 0) | (np.diff(self.codes) != 0))
        begin = np.flatnonzero(fresh)
        length = np.diff(np.append(begin, len(fresh)))
        kept = length > longer_than
        begin, length = begin[kept], length[kept]
        return pd.DataFrame(
            {
                "symbol": self._names(begin),
                "first": self.times[begin],
                "last": self.times[begin + length - 1],
                "bars": length,
            }
        )

    def jumps(self, sigmas: float) -> pd.DataFrame:
        """Return log returns beyond so many robust sigmas: symbol, date, log_return, sigmas."""
        priced = np.flatnonzero(np.isfinite(self.close) & (self.close > 0))
        moves = np.diff(np.log(self.close[priced]))
        within = np.flatnonzero(np.diff(self.codes[priced]) == 0)
        moves, at = moves[within], priced[within + 1]
        groups = self.codes[at]
        deviation = moves - pd.Series(moves).groupby(groups).transform("median").to_numpy()
        absolute = pd.Series(np.abs(deviation)).groupby(groups)
        scale = _NORMAL_MAD * absolute.transform("median").to_numpy()
        scale = np.where(scale > 0, scale, _NORMAL_MEAN * absolute.transform("mean").to_numpy())
        far = np.abs(deviation) > sigmas * scale
        return pd.DataFrame(
            {
                "symbol": self._names(at[far]),
                "date": self.times[at[far]],
                "log_return": moves[far],
                "sigmas": deviation[far] / scale[far],
            }
        )

    def zero_volume(self) -> pd.DataFrame:
        """Return bars in which nothing was traded: symbol, date."""
        idle = self.volume == 0 if self.volume is not None else np.zeros(len(self.codes), bool)
        at = np.flatnonzero(idle)
        return pd.DataFrame({"symbol": self._names(at), "date": self.times[at]})

    def faults(self) -> list[tuple[str, str, IntArray, str]]:
        """Return (kind, symbol, rows, description) of faults, by asset and kind."""
        texts = {"duplicates": "a second row of a date", "disorder": "dated before the last row"}
        found = []
        for kind, mask in self.marks.items():
            for code in np.unique(self.row_codes[mask]):
                rows = np.flatnonzero(mask & (self.row_codes == code))
                said = [
                    t for t, m in self.fault_texts.items() if _kind(t) == kind and m[rows].any()
                ]
                text = texts.get(kind) or ", ".join(said) or "there is no close"
                found.append((kind, self.symbols[code], rows, text))
        return found

    def _names(self, rows: IntArray) -> npt.NDArray[Any]:
        return np.array(self.symbols, dtype=object)[self.codes[rows]]


def order_faults(times: Timestamps, codes: IntArray) -> tuple[BoolArray, BoolArray, IntArray]:
    """Return which rows repeat a date of their asset, and which are dated before the row above.

    Args:
        times: (K,).
        codes: (K,) which asset.

    Returns:
        (K,) rows beyond the first of their asset and date; (K,) rows dated before the asset's
        previous row; and the order (K,) by asset and time, rows of one date as they came.
    """
    order = np.lexsort((times, codes))
    duplicates, disorder = np.zeros((2, len(times)), bool)
    same = np.diff(codes[order]) == 0
    duplicates[order[1:]] = same & (np.diff(times[order]) == np.timedelta64(0))
    given = np.argsort(codes, kind="stable")
    same = np.diff(codes[given]) == 0
    disorder[given[1:]] = same & (np.diff(times[given]) < np.timedelta64(0))
    return duplicates, disorder, order


def bar_fields(frame: pd.DataFrame) -> dict[str, FloatArray | None]:
    """Return the columns of ``BAR_FIELDS`` as arrays, None where the frame has none."""
    return {
        name: frame[name].to_numpy(np.float64) if name in frame.columns else None
        for name in BAR_FIELDS
    }


def lacking(fields: dict[str, FloatArray | None]) -> BoolArray:
    """Return which rows lack a field that the source has."""
    return np.logical_or.reduce([np.isnan(v) for v in fields.values() if v is not None])


def iso(when: np.datetime64) -> str:
    """Return ISO 8601 to the second."""
    return str(when.astype("datetime64[s]"))


def _kind(text: str) -> str:
    """Return the kind of row fault that a description of ``bar_faults`` belongs to."""
    if text.endswith("is not positive"):
        return "non_positive"
    return "missing" if "missing" in text else "impossible"
