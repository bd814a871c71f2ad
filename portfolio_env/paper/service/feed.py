"""Feed: candles as a source offers them, and which of a bar's are final, complete and fresh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from portfolio_env.data.downloads.client import Retry, candid
from portfolio_env.data.downloads.store import milliseconds
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.market.panel import BAR_FIELDS, PricePanel
from portfolio_env.paper.broker import Unknown
from portfolio_env.paper.clock import Clock
from portfolio_env.paper.exchange.quotes import client_of

Candle = tuple[float, ...]
_RECENT = 5  # bars; an asset that traded in them is waited for


@dataclass(frozen=True)
class Reading:
    """Candles that a source offers at a moment.

    Attributes:
        time: The source's clock, or before: the request was answered later.
        candles: Open, high, low, close and volume by asset and the time a candle opens.
    """

    time: np.datetime64
    candles: Mapping[str, Mapping[np.datetime64, Candle]]


class Feed(Protocol):
    """Feed protocol: a source of candles of one length.

    Attributes:
        length: Length of a candle.
    """

    length: np.timedelta64

    def time(self) -> np.datetime64 | Unknown:
        """Return the source's clock, or a moment before it."""
        ...

    def read(self, since: np.datetime64) -> Reading | Unknown:
        """Return the candles that open at a moment or later, the running one too."""
        ...


class ExchangeFeed:
    """Feed of an exchange's candles.

    Args:
        exchange: A (synchronous) exchange of ccxt.
        symbols: Its symbols by asset.
        timeframe: Length of a candle, e.g. "1h".
        clock: The waiting between repeated requests.
        retry: Repetition of failed requests.
    """

    def __init__(
        self,
        exchange: Any,
        symbols: Mapping[str, str],
        timeframe: str,
        clock: Clock,
        retry: Retry | None = None,
    ) -> None:
        self._client = client_of(exchange, clock, retry)
        self._symbols, self._timeframe = dict(symbols), timeframe
        self._step = milliseconds(timeframe)
        self.length = np.timedelta64(self._step, "ms").astype("timedelta64[ns]")
        if not exchange.has.get("fetchTime"):
            raise ArgumentError(f"{exchange.id} does not state its time: choose another exchange")

    def time(self) -> np.datetime64 | Unknown:
        """Return the exchange's clock as it was before it answered."""
        try:
            with candid(self._client.exchange):
                return _moment(self._client.now())
        except DataError as error:
            return Unknown(str(error))

    def read(self, since: np.datetime64) -> Reading | Unknown:
        """Return the candles that open at a moment or later."""
        moment = self.time()  # before the candles: what is over then is in them
        if isinstance(moment, Unknown):
            return moment
        try:
            with self._client.ready():
                found = {
                    name: self._candles(symbol, since) for name, symbol in self._symbols.items()
                }
        except DataError as error:
            return Unknown(str(error))
        return Reading(moment, found)

    def _candles(self, symbol: str, since: np.datetime64) -> dict[np.datetime64, Candle]:
        cursor, found = int(since.astype("datetime64[ms]").astype(np.int64)), {}
        while True:
            page = self._client.candles(symbol, self._timeframe, cursor)
            new = np.flatnonzero(page.times >= cursor)
            for row in new.tolist():
                found[_moment(int(page.times[row]))] = tuple(page.bars[row].tolist())
            if not len(new):
                return found
            cursor = int(page.times[new].max()) // self._step * self._step + self._step


def _moment(ms: int) -> np.datetime64:
    return np.datetime64(ms, "ms").astype("datetime64[ns]")


def is_final(
    candles: Mapping[np.datetime64, Candle],
    bar: np.datetime64,
    length: np.timedelta64,
    now: np.datetime64,
    before: Mapping[np.datetime64, Candle] | None = None,
) -> bool:
    """Return whether a candle will not change any more.

    Its time is over, and a later one is there or it was the same some seconds ago.

    Args:
        candles: Candles of an asset by the time they open.
        bar: When the candle opens.
        length: Length of a candle.
        now: The source's clock, or before.
        before: The asset's candles in an earlier reading that was made once the candle was over.
    """
    if bar not in candles or now < bar + length:
        return False
    later = any(time >= bar + length for time in candles)
    return later or (before is not None and before.get(bar) == candles[bar])


def expected(
    panel: PricePanel, reading: Reading, bar: np.datetime64, length: np.timedelta64
) -> tuple[str, ...]:
    """Return the assets that traded in one of the five bars before a bar, whose candle is due."""
    start = bar - _RECENT * length
    rows = (panel.timestamps >= start) & (panel.timestamps < bar)
    traded = [bool(np.isfinite(column).any()) for column in panel.close[rows].T]
    return tuple(
        name
        for name, known in zip(panel.assets, traded, strict=True)
        if known or any(start <= time < bar for time in reading.candles.get(name, ()))
    )


def panel_of(
    known: PricePanel,
    reading: Reading,
    bar: np.datetime64,
    final: Sequence[str],
) -> PricePanel:
    """Return the bars after those of a panel, up to one, with the same fields.

    Args:
        known: The bars so far.
        reading: Candles since then.
        bar: When the last bar opens.
        final: Assets that have it; the others have no bar there.
    """
    times = sorted(
        {
            time
            for own in reading.candles.values()
            for time in own
            if known.timestamps[-1] < time < bar
        }
    )
    times.append(bar)
    table = np.full((len(BAR_FIELDS), len(times), len(known.assets)), np.nan)
    for column, name in enumerate(known.assets):
        for row, time in enumerate(times):
            candle = reading.candles.get(name, {}).get(time)
            if candle is not None and (time < bar or name in final):
                table[:, row, column] = candle
    fields = dict(zip(("open", "high", "low", "close", "volume"), table, strict=True))
    given: dict[str, Any] = {
        name: fields[name] for name in BAR_FIELDS if getattr(known, name) is not None
    }
    return PricePanel(
        np.array(times), known.assets, periods_per_year=known.periods_per_year, **given
    )
