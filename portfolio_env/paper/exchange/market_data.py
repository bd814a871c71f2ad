"""Market data of an exchange: rules of trading, quotes and candles, and which candles are final."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

import numpy as np

from portfolio_env.checks import shortened
from portfolio_env.data.downloads.client import Client, Retry, candid
from portfolio_env.data.downloads.store import milliseconds
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.live.instruments import Instrument
from portfolio_env.live.money import ZERO, exactly
from portfolio_env.market.panel import BAR_FIELDS, PricePanel
from portfolio_env.paper.broker import SECOND, Accrual, Clock, Quote, Unknown


def client_of(exchange: Any, clock: Clock, retry: Retry | None = None) -> Client:
    """Return a client whose repeated requests wait by a clock, three attempts by default."""

    def sleep(seconds: float) -> None:
        clock.sleep(np.timedelta64(round(seconds * 1e9), "ns"))

    return Client(exchange, retry or Retry(attempts=3, sleep=sleep))


def currency_of(assets: Sequence[str]) -> str:
    """Return the currency that assets are traded in, of the first that is a symbol.

    Raises:
        ArgumentError: If none is.
    """
    for name in assets:
        if "/" in name:
            return name.split("/")[1].split(":")[0]
    raise ArgumentError(
        f"none of the assets {shortened(list(assets))} is a pair such as BTC/USDT, so the "
        "currency is unknown: decide on pairs that the exchange trades (python -m "
        "portfolio_env.data fetch gets their candles), or give money='USDT' in Python."
    )


def symbols_of(markets: Mapping[str, Any], assets: Sequence[str], money: str) -> dict[str, str]:
    """Return the symbol of each asset that an exchange has: its name, or with the currency."""
    wanted = {name: name if name in markets else f"{name}/{money}" for name in assets}
    return {name: symbol for name, symbol in wanted.items() if symbol in markets}


def middles(client: Client, names: Mapping[str, str]) -> dict[str, Quote]:
    """Return the middle of bid and ask by asset, where the exchange has both.

    Args:
        client: The exchange.
        names: Assets by its symbols.
    """
    exchange = client.exchange
    ask = exchange.fetch_tickers
    if exchange.has.get("fetchBidsAsks"):
        ask = exchange.fetch_bids_asks
    found = client.ask(lambda: ask(list(names)))
    with exactly():
        return {
            names[symbol]: Quote((Decimal(str(each["bid"])) + Decimal(str(each["ask"]))) / 2)
            for symbol, each in found.items()
            if symbol in names and each["bid"] and each["ask"]
        }


def instrument_of(
    market: Mapping[str, Any], allowance_bps: Decimal | None = None
) -> Instrument | None:
    """Return the rules of trading of one of ccxt's markets; None if it states no steps.

    Args:
        market: An entry of ``exchange.markets``.
        allowance_bps: Basis points to count on beyond the exchange's fee; None counts on the costs
            of the environment in place of both.
    """
    steps, least, fee = market["precision"], market["limits"]["cost"]["min"], None
    if allowance_bps is not None:
        with exactly():
            fee = Decimal(str(market.get("taker") or 0)).scaleb(4) + allowance_bps
    if steps["amount"] is None or steps["price"] is None:
        return None
    return Instrument(
        lot=Decimal(str(steps["amount"])),
        tick=Decimal(str(steps["price"])),
        min_notional=ZERO if least is None else Decimal(str(least)),
        fee_bps=fee,
    )


class TickerPrices:
    """Prices of a simulated venue: those of an exchange's public ticker, a second old at most.

    Where the exchange does not answer there is no price, and nothing is traded.

    Args:
        client: The exchange.
        names: Assets by its symbols.
        clock: The time.
    """

    def __init__(self, client: Client, names: Mapping[str, str], clock: Clock) -> None:
        self._client, self._names, self._clock = client, names, clock
        self._found: dict[str, Quote] = {}
        self._asked: np.datetime64 = np.datetime64(0, "ns")

    def quote(self, asset: str, at: np.datetime64) -> Quote | None:
        """Return the price of an asset now."""
        now = self._clock.now()
        if not np.timedelta64(0, "ns") <= now - self._asked <= SECOND:
            try:
                with candid(self._client.exchange):
                    self._found, self._asked = middles(self._client, self._names), now
            except DataError:
                self._found = {}
        return self._found.get(asset)

    def impact(self, asset: str, at: np.datetime64) -> float:
        """Return 0: a ticker does not say how far an order moves the price."""
        return 0.0

    def capacity(self, asset: str, at: np.datetime64) -> Decimal | None:
        """Return None: any order is filled."""
        return None

    def share(self, asset: str, bar: np.datetime64) -> Decimal:
        """Return 1: all of an order is filled."""
        return Decimal(1)

    def accruals(self, since: np.datetime64, until: np.datetime64) -> Iterator[Accrual]:
        """Yield nothing: there is no interest and no delisting."""
        return iter(())


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
