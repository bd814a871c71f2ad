"""Downloaded candles on disk: one Parquet file per exchange, symbol and timeframe.

``STORE/<exchange>/<timeframe>/<BASE-QUOTE>.parquet`` has columns date (UTC, when the candle opens),
open, high, low, close, volume, and key-value metadata: exchange, symbol, timeframe, and the ranges
of time for which all that the exchange has is in the file ("covered"). A candle that is missing
inside a covered range is one that the exchange does not have.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from portfolio_env.errors import DataError
from portfolio_env.files.atomic import locked, parse_json, refuse_file
from portfolio_env.files.parquet import read_parquet, write_parquet
from portfolio_env.files.safe_names import file_name
from portfolio_env.market.panel import BAR_FIELDS, FloatArray
from portfolio_env.names import unknown
from portfolio_env.resampling import TIMEFRAMES

Times = npt.NDArray[np.int64]
Range = tuple[int, int]
"""From (inclusive) and to (exclusive), in milliseconds since 1970 (UTC)."""

LOCK = ".lock"
"""In a folder of series: held while one of them is read, changed and written."""

_LATEST = 9_214_646_400_000  # ms; dates end in 2262
_NAMES = ("exchange", "symbol", "timeframe")
_FIX = "delete the file and download it again"


@dataclass(frozen=True)
class Series:
    """The candles of one symbol.

    Attributes:
        exchange: Id of the exchange.
        symbol: As the exchange's markets are called, e.g. "BTC/USDT".
        timeframe: A name in ``portfolio_env.resampling.TIMEFRAMES``.
        times: (n,) when candles open, milliseconds since 1970 (UTC), increasing.
        bars: (n, 5) open, high, low, close, volume.
        covered: Separate, increasing ranges of time of which nothing is left to download.
    """

    exchange: str
    symbol: str
    timeframe: str
    times: Times
    bars: FloatArray
    covered: tuple[Range, ...] = ()

    @classmethod
    def empty(cls, exchange: str, symbol: str, timeframe: str) -> Series:
        """Return a series without candles."""
        return cls(exchange, symbol, timeframe, np.empty(0, np.int64), np.empty((0, 5)))

    @property
    def frame(self) -> pd.DataFrame:
        """Return columns date (datetime64[ms, UTC]), open, high, low, close and volume."""
        dates = pd.DatetimeIndex(self.times.astype("datetime64[ms]")).tz_localize("UTC")
        columns = dict(zip(BAR_FIELDS, self.bars.T, strict=True))
        return pd.DataFrame({"date": dates, **columns})

    @property
    def gaps(self) -> list[tuple[np.datetime64, int]]:
        """Return where candles are missing that the exchange lacks, and how many each time.

        What is left to download (see ``holes``) is no gap.
        """
        step = milliseconds(self.timeframe)
        missing = np.rint(np.diff(self.times) / step).astype(int) - 1
        starts = np.array([start for start, _ in self.covered], np.int64)
        part = np.searchsorted(starts, self.times, side="right")
        return [
            (moment(self.times[at] + step), int(missing[at]))
            for at in np.flatnonzero((missing > 0) & (np.diff(part) == 0))
        ]

    @property
    def holes(self) -> list[tuple[np.datetime64, np.datetime64]]:
        """Return the ranges, from and to, between those that are covered."""
        ends = [end for _, end in self.covered[:-1]]
        starts = [start for start, _ in self.covered[1:]]
        return [(moment(a), moment(b)) for a, b in zip(ends, starts, strict=True)]


@dataclass(frozen=True)
class Merged:
    """Result of ``merge``.

    Attributes:
        new: Candles that were not there before.
        duplicates: Candles that were dropped since an equal one was there.
        conflicts: Candles that replaced another one of the same time and different values.
    """

    new: int = 0
    duplicates: int = 0
    conflicts: int = 0


def milliseconds(timeframe: str) -> int:
    """Return the length of a candle in milliseconds.

    Raises:
        ArgumentError: For an unknown timeframe.
    """
    if timeframe not in TIMEFRAMES:
        raise unknown("timeframe", timeframe, TIMEFRAMES)
    return int(TIMEFRAMES[timeframe] // np.timedelta64(1, "ms"))


def moment(time: int | np.integer[Any]) -> np.datetime64:
    """Return milliseconds since 1970 as a date, in days, minutes or milliseconds."""
    stamp = np.datetime64(int(time), "ms")
    for unit in ("D", "m"):
        if stamp == stamp.astype(f"M8[{unit}]"):
            return stamp.astype(f"M8[{unit}]")
    return stamp


def series_path(store: str | os.PathLike[str], exchange: str, symbol: str, timeframe: str) -> Path:
    """Return the file of a series. Different symbols have different files.

    In its name "/" is "-"; what is unusual in names of files is percent-encoded.
    """
    plain = symbol.replace("%", "%25").replace("-", "%2D").replace("/", "-")
    return Path(store) / exchange / timeframe / f"{file_name(plain, safe='%')}.parquet"


def stored(store: str | os.PathLike[str]) -> list[Path]:
    """Return the files of all series of a store, sorted.

    Raises:
        ArgumentError: If the store is a file.
    """
    refuse_file("store", store)
    files = Path(store).glob("*/*/*.parquet")
    return sorted(path for path in files if not path.name.startswith("."))


def read_series(path: str | os.PathLike[str]) -> Series:
    """Read a series.

    Raises:
        DataError: If the file is damaged, or not one that ``write_series`` wrote.
    """
    import pyarrow as pa

    table = read_parquet(path, fix=_FIX)
    metadata = {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in (table.schema.metadata or {}).items()
    }
    if table.schema.names != ["date", *BAR_FIELDS] or not {*_NAMES, "covered"} <= metadata.keys():
        raise DataError(f"{path} is not a file of downloaded candles; move it out of the store")
    try:
        ranges = tuple((int(start), int(end)) for start, end in parse_json(metadata["covered"]))
        times = table["date"].cast(pa.timestamp("ms", "UTC")).to_numpy()
        bars = np.stack([table[name].to_numpy() for name in BAR_FIELDS], axis=1).astype(np.float64)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path} holds an invalid candle ({error}); {_FIX}") from error
    exchange, symbol, timeframe = (metadata[name] for name in _NAMES)
    times = times.astype("M8[ms]").astype(np.int64)
    series = Series(exchange, symbol, timeframe, times, bars, ranges)
    if any(abs(time) > _LATEST for time in (*np.ravel(ranges), *times[:1], *times[-1:])):
        raise DataError(f"{path} holds times that no calendar has; {_FIX}")
    if (np.diff(times) <= 0).any() or not np.isfinite(bars).all():
        raise DataError(f"{path} holds candles out of order or incomplete ones; {_FIX}")
    return series


def write_series(store: str | os.PathLike[str], series: Series) -> Path:
    """Write a series to its file, which is the old or the new one whenever the process dies.

    Returns:
        The file.
    """
    import pyarrow as pa

    schema = pa.schema(
        [("date", pa.timestamp("ms", "UTC"))] + [(name, pa.float64()) for name in BAR_FIELDS],
        metadata={
            **{name: getattr(series, name) for name in _NAMES},
            "covered": json.dumps(series.covered),
        },
    )
    dates = pa.array(series.times).cast(schema.field("date").type)
    table = pa.Table.from_arrays([dates, *map(pa.array, series.bars.T)], schema=schema)
    path = series_path(store, series.exchange, series.symbol, series.timeframe)
    write_parquet(path, table)
    return path


def open_series(
    store: str | os.PathLike[str], exchange: str, symbol: str, timeframe: str
) -> Series:
    """Return the series as it is stored; an empty one if it is not.

    Raises:
        DataError: If the file is damaged or that of another series.
    """
    path = series_path(store, exchange, symbol, timeframe)
    if not path.exists():
        return Series.empty(exchange, symbol, timeframe)
    series = read_series(path)
    found = (series.exchange, series.symbol, series.timeframe)
    if found != (exchange, symbol, timeframe):
        raise DataError(f"{path} holds {' '.join(found)}; move it where it belongs")
    return series


def add_candles(
    store: str | os.PathLike[str],
    series: Series,
    times: npt.ArrayLike,
    bars: npt.ArrayLike,
    covered: Sequence[Range] = (),
) -> tuple[Series, Merged]:
    """Add candles to a stored series, which another process may have changed in the meantime.

    Args:
        store: The folder.
        series: Series with the stored candles.
        times: As for ``merge``.
        bars: As for ``merge``.
        covered: As for ``merge``.

    Returns:
        The series as it is stored now, and what was new, repeated or different.

    Raises:
        DataError: If the stored file is damaged, or the system refuses to write.
    """
    name = (series.exchange, series.symbol, series.timeframe)
    if not np.size(times) and not union(covered):
        return series, Merged()
    with locked(series_path(store, *name).with_name(LOCK)):
        before = open_series(store, *name)
        after, merged = merge(before, times, bars, covered)
        if merged.new or merged.conflicts or after.covered != before.covered:
            write_series(store, after)
    return after, merged


def merge(
    series: Series, times: npt.ArrayLike, bars: npt.ArrayLike, covered: Iterable[Range] = ()
) -> tuple[Series, Merged]:
    """Add candles to a series.

    Args:
        series: Series to extend.
        times: (k,) when candles open, ms, in any order; of several at one time the last counts.
        bars: (k, 5) open, high, low, close, volume.
        covered: Ranges of time of which nothing is left to download now.

    Returns:
        The series with the candles, sorted; and what was new, repeated or different.
    """
    added = np.asarray(times, np.int64).reshape(-1)
    all_times = np.concatenate([series.times, added])
    all_bars = np.concatenate([series.bars, np.asarray(bars, np.float64).reshape(-1, 5)])
    order = np.argsort(all_times, kind="stable")
    all_times, all_bars = all_times[order], all_bars[order]
    again = np.diff(all_times) == 0
    equal = (all_bars[1:] == all_bars[:-1]).all(axis=1)
    kept = np.append(~again, True) if len(all_times) else np.empty(0, bool)
    merged = Merged(
        new=int(kept.sum()) - len(series.times),
        duplicates=int((again & equal).sum()),
        conflicts=int((again & ~equal).sum()),
    )
    ranges = union([*series.covered, *covered])
    return replace(series, times=all_times[kept], bars=all_bars[kept], covered=ranges), merged


def union(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Return ranges joined where they touch or overlap, without empty ones."""
    joined: list[Range] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        elif end > start:
            joined.append((start, end))
    return tuple(joined)


def uncovered(covered: Iterable[Range], start: int, end: int) -> list[Range]:
    """Return the parts of [start, end) outside the ranges."""
    parts, position = [], start
    for low, high in union(covered):
        if position < min(low, end):
            parts.append((position, min(low, end)))
        position = max(position, high)
    return [*parts, (position, end)] if position < end else parts
