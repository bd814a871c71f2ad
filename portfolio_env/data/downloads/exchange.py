"""Candles from crypto exchanges, in a store that every download continues.

>>> from portfolio_env.data.downloads import exchange
>>> reports = exchange.fetch("binance", ["BTC/USDT"], since="2020-01-01")  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import date
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import numpy as np

from portfolio_env.checks import check_integer
from portfolio_env.data.downloads.client import Client, Retry
from portfolio_env.data.downloads.download import DownloadOptions, SeriesReport, download
from portfolio_env.data.downloads.store import Range, milliseconds, read_series, stored
from portfolio_env.errors import ArgumentError, DataError, PortfolioError
from portfolio_env.market.timeline import as_timestamp
from portfolio_env.names import unknown

TIMEFRAMES = ("1m", "5m", "15m", "30m", "1h", "4h", "1d")
"""What can be fetched; longer bars are made with ``portfolio_env.resampling``."""

YAHOO = "yahoo"
"""The folder of a store that holds other series than those of exchanges."""

Date = str | date | np.datetime64
Clock = Callable[[], float]
"""Gives the time in seconds since 1970."""


def fetch(
    exchange: str | Any,
    symbols: str | Sequence[str],
    timeframe: str = "1d",
    since: Date | None = None,
    until: Date | None = None,
    store: str | os.PathLike[str] = "data",
    *,
    bars: int | None = None,
    progress: bool = False,
    clock: Clock | None = None,
    retry: Retry | None = None,
    flush_seconds: float = 30.0,
) -> list[SeriesReport]:
    """Download candles, or the missing ones, into ``STORE/<exchange>/<timeframe>``.

    Nothing that the store covers is asked for again, candles that an exchange lacks included; to
    download a series again, delete its file. Only candles that are over are stored. What has been
    fetched is written every so often, at the end, and when the download is interrupted: the next
    call continues. One symbol's failure does not stop the others.

    Args:
        exchange: An id that ccxt knows, e.g. "binance", "binanceus", "coinbase", "kraken" (its
            newest 720 candles only), "kucoin"; or an exchange object of ccxt.
        symbols: E.g. "BTC/USDT"; one or several.
        timeframe: One of ``TIMEFRAMES`` that the exchange has.
        since: The first candle's time, UTC.
        until: The time (UTC) before which candles open; None is now.
        store: The folder.
        bars: Instead of ``since``: this many candles before ``until``.
        progress: Show a progress bar on stderr.
        clock: The time; None asks the exchange, or takes this computer's if it does not state.
        retry: Number of repetitions of failed requests.
        flush_seconds: Longest time that candles stay unwritten.

    Returns:
        One report per symbol; check ``error``.

    Raises:
        ArgumentError: For an unknown exchange or timeframe, and for dates without candles.
        DataError: If the exchange does not answer at all.
    """
    names = [symbols] if isinstance(symbols, str) else list(dict.fromkeys(symbols))
    if not names:
        raise ArgumentError("there are no symbols: give at least one, e.g. 'BTC/USDT'")
    if (since is None) == (bars is None):
        raise ArgumentError("give either since, the first candle's date, or bars, their number")
    for when in (since, until):  # what is wrong is told before anything is asked
        if when is not None:
            as_timestamp(when)
    if bars is not None:
        check_integer("bars", bars)
    client = _client(exchange, names, timeframe, retry)
    options = DownloadOptions(Path(store), timeframe, progress, flush_seconds)
    with client.ready():
        start, end = _range(timeframe, since, until, bars, _now(client, clock))
        return [download(client, options, name, start, end) for name in names]


def update(
    store: str | os.PathLike[str] = "data",
    exchange: str | Any | None = None,
    symbols: str | Sequence[str] | None = None,
    timeframe: str | None = None,
    *,
    progress: bool = False,
    clock: Clock | None = None,
    retry: Retry | None = None,
    flush_seconds: float = 30.0,
) -> list[SeriesReport]:
    """Continue stored series to the present, each from its end.

    What a series lacks of the 30 days before its end is asked for again: candles that came without
    a number, and, of the last 1,000 candles, those that the exchange did not have.

    Args:
        store: The folder.
        exchange: Only those of this exchange, an id or an exchange object of ccxt.
        symbols: Only those of these symbols.
        timeframe: Only those of this timeframe.
        progress: Show a progress bar on stderr.
        clock: As in ``fetch``.
        retry: As in ``fetch``.
        flush_seconds: As in ``fetch``.

    Returns:
        One report per series; check ``error``.

    Raises:
        ArgumentError: If there is no such series.
    """
    chosen = exchange if exchange is None or isinstance(exchange, str) else str(exchange.id)
    groups, reports = _stored_groups(store, chosen, timeframe, symbols)
    for (name, length), names in groups.items():
        options = DownloadOptions(Path(store), length, progress, flush_seconds)
        try:
            client = _client(name if chosen is None else exchange, names, length, retry)
            with client.ready():
                end = _end(length, _now(client, clock))
                done = [download(client, options, symbol, None, end) for symbol in names]
        except PortfolioError as error:
            done = [SeriesReport(name, symbol, length, error=str(error)) for symbol in names]
        reports += done
    return reports


def _client(
    exchange: str | Any, symbols: Sequence[str], timeframe: str, retry: Retry | None
) -> Client:
    """Return the client of an exchange that has candles of this timeframe."""
    if timeframe not in TIMEFRAMES:
        raise unknown("timeframe", timeframe, TIMEFRAMES)
    source = public_exchange(exchange, symbols) if isinstance(exchange, str) else exchange
    if not hasattr(source, "fetch_ohlcv") or iscoroutinefunction(source.fetch_ohlcv):
        raise ArgumentError(
            f"{source!r} is not an exchange: give an id, or a (synchronous) one of ccxt"
        )
    if not source.has.get("fetchOHLCV"):
        raise ArgumentError(f"{source.id} gives no candles: choose another exchange")
    has = [name for name in TIMEFRAMES if (source.timeframes or {}).get(name)]
    if timeframe not in has:
        raise ArgumentError(
            f"{source.id} has no candles of {timeframe}: choose from {', '.join(has)}, or make "
            "longer bars of shorter ones (load_market(..., timeframe=...))"
        )
    return Client(source, retry or Retry())


def public_exchange(name: str, symbols: Sequence[str] = ()) -> Any:
    """Return the exchange of ccxt by its name, without keys: what is public can be asked.

    Args:
        name: An id that ccxt knows.
        symbols: Symbols that are meant: markets other than spot are listed only where one is.

    Raises:
        ArgumentError: For an unknown exchange.
        DataError: If ccxt is not installed.
    """
    try:
        import ccxt
    except ImportError as error:
        raise DataError("exchanges need ccxt; pip install ccxt pyarrow") from error
    if name not in ccxt.exchanges:
        raise unknown("exchange", name, ccxt.exchanges)
    exchange = getattr(ccxt, name)({"enableRateLimit": True})
    markets = exchange.options.get("fetchMarkets")
    if isinstance(markets, dict) and "types" in markets and not any(":" in s for s in symbols):
        markets["types"] = ["spot"]  # lists of derivatives are long, and blocked in some countries
    return exchange


def _now(client: Client, clock: Clock | None) -> int:
    """Return the time, ms."""
    return client.now() if clock is None else int(clock() * 1000)


def _end(timeframe: str, now: int) -> int:
    """Return the time before which candles must open to be over now."""
    return now - milliseconds(timeframe) + 1


def _range(
    timeframe: str, since: Date | None, until: Date | None, bars: int | None, now: int
) -> Range:
    """Return the range of candles that are requested and over."""
    step = milliseconds(timeframe)
    end = _end(timeframe, now)
    if until is not None:
        end = min(end, _ms(until))
    if since is not None:
        start = -(-_ms(since) // step) * step
    else:
        start = (-(-end // step) - (bars or 0)) * step
    if start >= end:
        raise ArgumentError(
            f"since={since}, until={until} hold no candle of {timeframe} that is over: widen them"
        )
    return start, end


def _ms(when: Date) -> int:
    return int(as_timestamp(when).astype("datetime64[ms]").astype(np.int64))


def _stored_groups(
    store: str | os.PathLike[str],
    exchange: str | None,
    timeframe: str | None,
    symbols: str | Sequence[str] | None,
) -> tuple[dict[tuple[str, str], list[str]], list[SeriesReport]]:
    """Return stored symbols by exchange and timeframe, and reports of unreadable files."""
    wanted = [symbols] if isinstance(symbols, str) else symbols
    groups: dict[tuple[str, str], list[str]] = {}
    broken = []
    known: set[str] = set()
    for path in stored(store):
        folder, length = path.parts[-3:-1]
        if folder == YAHOO or exchange not in (None, folder) or timeframe not in (None, length):
            continue
        try:
            series = read_series(path)
        except DataError as error:
            broken.append(SeriesReport(folder, path.stem, length, error=str(error)))
            continue
        known.add(series.symbol)
        if wanted is None or series.symbol in wanted:
            groups.setdefault((series.exchange, series.timeframe), []).append(series.symbol)
    for symbol in wanted or ():
        if symbol not in known:
            raise unknown("stored symbol", symbol, sorted(known))
    if not groups and not broken:
        raise ArgumentError(f"no such series are stored in {store}: fetch them first")
    return groups, broken
