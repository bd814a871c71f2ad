"""Download of one series, from its stored end to the requested end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from portfolio_env.data.downloads.client import Client
from portfolio_env.data.downloads.paging import HORIZON, Page, Pager
from portfolio_env.data.downloads.store import (
    Range,
    Series,
    add_candles,
    milliseconds,
    moment,
    open_series,
    uncovered,
)
from portfolio_env.errors import PortfolioError

BELIEVED = 1000
"""Number of candles back to which missing ones are asked for again by an update."""


@dataclass(frozen=True)
class SeriesReport:
    """Result of downloading one symbol.

    Attributes:
        exchange: Id of the exchange.
        symbol: The symbol.
        timeframe: The timeframe.
        rows_new: Candles that are new in the store.
        rows_total: Candles in the store.
        first: When the first one opens (UTC); None if there is none.
        last: When the last one opens.
        listed: The first candle's time, if the exchange was asked for earlier ones and had none.
        gaps: Times and numbers of missing candles that the exchange does not have.
        duplicates: Candles dropped since an equal one was there.
        out_of_order: Candles that came on the wrong side of the one before.
        conflicts: Candles replaced by a later answer with other values for the same time.
        incomplete: Candles left out because they lack a number.
        retries: Requests that were made again.
        error: Why not everything that was asked for is there; None if it is.
    """

    exchange: str
    symbol: str
    timeframe: str
    rows_new: int = 0
    rows_total: int = 0
    first: np.datetime64 | None = None
    last: np.datetime64 | None = None
    listed: np.datetime64 | None = None
    gaps: list[tuple[np.datetime64, int]] = field(default_factory=list)
    duplicates: int = 0
    out_of_order: int = 0
    conflicts: int = 0
    incomplete: int = 0
    retries: int = 0
    error: str | None = None


@dataclass(frozen=True)
class DownloadOptions:
    """Options of a download: from where and how."""

    store: Path
    timeframe: str
    progress: bool
    flush_seconds: float


class Writer:
    """Series that grows in memory and, at intervals, on disk."""

    def __init__(self, options: DownloadOptions, series: Series) -> None:
        self.options = options
        self.series = series
        self.new = self.duplicates = self.conflicts = self.disorder = 0
        self.incomplete = self.without_volume = 0
        self._pages: list[Page] = []
        self._written = time.monotonic()

    def add(self, page: Page) -> None:
        """Add a page."""
        self._pages.append(page)
        if time.monotonic() - self._written >= self.options.flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Write what is new."""
        if pages := self._pages:
            self.series, merged = add_candles(
                self.options.store,
                self.series,
                np.concatenate([page.times for page in pages]),
                np.concatenate([page.bars for page in pages]),
                [covered for page in pages for covered in page.covered],
            )
            self._pages = []
            self.new += merged.new
            self.duplicates += merged.duplicates
            self.conflicts += merged.conflicts
            self.disorder += sum(page.disorder for page in pages)
            self.incomplete += sum(page.incomplete for page in pages)
            self.without_volume += sum(page.without_volume for page in pages)
        self._written = time.monotonic()


def download(
    client: Client, options: DownloadOptions, symbol: str, start: int | None, end: int
) -> SeriesReport:
    """Download the parts of a range that a stored series lacks.

    What has been fetched is written every so often, at the end, and when it is interrupted.

    Args:
        client: The exchange, made ready.
        options: Options of the download.
        symbol: One of the exchange's, or not (the report then says so).
        start: When the first candle opens, ms; None continues the series where it ends, and asks
            again for what it lacks of the 30 days before, also where the exchange had no candle (of
            the last ``BELIEVED`` candles at most).
        end: All open before it, ms.
    """
    report = SeriesReport(client.name, symbol, options.timeframe)
    retries = client.retries
    try:
        client.check(symbol)
        writer = Writer(options, open_series(options.store, client.name, symbol, options.timeframe))
    except PortfolioError as error:
        return replace(report, error=str(error))
    parts = uncovered(writer.series.covered, end if start is None else start, end)
    if start is None and (covered := writer.series.covered):
        start = max(covered[0][0], covered[-1][1] - HORIZON)
        parts = _doubted(writer.series, client.window(symbol))
        parts = sorted([*parts, *uncovered(covered, start, end)])
    problem = None
    try:
        try:
            problem = _complete(client, options, writer, parts)
        finally:
            writer.flush()
    except PortfolioError as error:
        problem = str(error)
    series = writer.series
    n_rows = len(series.times)
    if not n_rows and problem is None:
        problem = f"{client.name} has no candles of {symbol} {options.timeframe} in this range"
        if writer.incomplete:
            what = "volume" if writer.without_volume == writer.incomplete else "a number"
            problem = (
                f"{client.name} gives {writer.incomplete} candles of {symbol} {options.timeframe} "
                f"without {what}, which are not stored: choose a symbol that is traded, or load "
                "its closes from a file"
            )
    return replace(
        report,
        rows_new=writer.new,
        rows_total=n_rows,
        first=moment(series.times[0]) if n_rows else None,
        last=moment(series.times[-1]) if n_rows else None,
        listed=_listed(series),
        gaps=series.gaps,
        duplicates=writer.duplicates,
        out_of_order=writer.disorder,
        conflicts=writer.conflicts,
        incomplete=writer.incomplete,
        retries=client.retries - retries,
        error=problem,
    )


def _doubted(series: Series, window: int) -> list[Range]:
    """Return the recent ranges in which candles are missing that may have come since.

    Each from the candle before to the one after, so that one answer tells; those that one page can
    hold are asked for together.
    """
    step, times = milliseconds(series.timeframe), series.times
    oldest = series.covered[-1][1] - min(HORIZON, BELIEVED * step)
    at = np.flatnonzero((np.diff(times) > 1.5 * step) & (times[1:] > oldest))
    parts: list[Range] = []
    for low, high in zip(times[at].tolist(), times[at + 1].tolist(), strict=True):
        if not any(start <= low and high < end for start, end in series.covered):
            continue  # it is asked for anyway
        if parts and high - parts[-1][0] < window * step:
            low = parts.pop()[0]
        parts.append((low, high + step))
    return parts


def _complete(
    client: Client, options: DownloadOptions, writer: Writer, parts: Sequence[Range]
) -> str | None:
    """Download the parts of a range that a series lacks; return what is withheld."""
    from tqdm import tqdm

    symbol, step = writer.series.symbol, milliseconds(options.timeframe)
    problems = []
    total = sum(high - low for low, high in parts) // step
    with tqdm(
        total=total,
        desc=f"{symbol} {options.timeframe}",
        unit=" candles",
        disable=None if options.progress else True,
    ) as bar:
        for low, high in parts:
            for page in Pager(client, symbol, options.timeframe).pages(low, high):
                writer.add(page)
                bar.update((page.reached - low) // step)
                low = page.reached
                if page.withheld is not None:
                    problems.append(
                        f"{client.name} gives only the newest candles of {options.timeframe}, "
                        f"those from {moment(page.withheld[0])} to "
                        f"{moment(page.withheld[1])} are lost: take a longer timeframe or "
                        "another exchange"
                    )
    return "; ".join(problems) or None


def _listed(series: Series) -> np.datetime64 | None:
    """Return the first candle's time, if the time before it is covered."""
    if not len(series.times):
        return None
    first, step = int(series.times[0]), milliseconds(series.timeframe)
    known = any(start <= first - step and first < end for start, end in series.covered)
    return moment(first) if known else None
