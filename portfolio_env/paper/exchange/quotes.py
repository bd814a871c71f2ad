"""Quotes: prices of a public ticker, for the broker and for a simulated venue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from portfolio_env.data.downloads.client import Client, Retry, candid
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.live.instruments import Instrument
from portfolio_env.live.money import ZERO, exactly
from portfolio_env.paper.broker import Quote
from portfolio_env.paper.clock import SECOND, Clock
from portfolio_env.paper.simulated import Accrual


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
    raise ArgumentError(f"money=None must be a currency for {', '.join(assets)}, e.g. USDT.")


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
