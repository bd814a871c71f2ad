"""Broker on an exchange of ccxt: its test network, or one on this machine, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from portfolio_env.checks import check_number
from portfolio_env.data.downloads.client import Retry, candid
from portfolio_env.errors import MALFORMED, ArgumentError, DataError
from portfolio_env.live.instruments import Instrument
from portfolio_env.live.money import ZERO, decimal_of, exactly
from portfolio_env.paper.broker import (
    SECOND,
    Accepted,
    Activity,
    Balances,
    Capabilities,
    Clock,
    NotFound,
    OrderReport,
    Quote,
    Refused,
    Unknown,
)
from portfolio_env.paper.exchange.market_data import (
    client_of,
    currency_of,
    instrument_of,
    middles,
    symbols_of,
)
from portfolio_env.paper.exchange.venues import AddressError, guard, venue_of
from portfolio_env.paper.orders import Fill, Flow, Order, State

T = TypeVar("T")
ALLOWANCE = 20.0
"""Basis points of a trade that are kept for the half-spread and for moves before it is filled."""

_OVERLAP = 60_000  # ms that are asked for again: venues list trades with some delay
_ONCE = {"maxRetriesOnFailure": 0}  # goes before all options of ccxt
_MEASURED = 60 * SECOND  # that a measurement of the venue's clock is good for
_STATES = {
    "open": State.OPEN,
    "closed": State.FILLED,
    "canceled": State.CANCELLED,
    "cancelled": State.CANCELLED,
    "expired": State.EXPIRED,
    "rejected": State.REJECTED,
}
_REFUSALS = (
    "InsufficientFunds",
    "InvalidOrder",
    "AuthenticationError",  # and PermissionDenied
    "BadRequest",  # and BadSymbol
    "OperationRejected",  # and MarketClosed
)
_CODES = {"InsufficientFunds": "funds", "AuthenticationError": "permission"}


def _read(method: Callable[..., T]) -> Callable[..., T | Unknown]:
    """Let a request that changes nothing answer ``Unknown`` where the venue gives no answer."""

    @wraps(method)
    def asked(self: ExchangeBroker, *given: Any) -> T | Unknown:
        try:
            with candid(self.exchange):
                return method(self, *given)
        except DataError as error:
            return Unknown(str(error))
        except AddressError:
            raise
        except MALFORMED as error:
            return Unknown(f"the answer of {self.name} cannot be read: {error!r}")

    return asked


class ExchangeBroker:
    """Broker on an exchange's test network, or on an exchange on this machine.

    There is no way to trade real money: every request is checked as it leaves, see ``guard``.
    Orders are sent once and never repeated; what only asks is, as ``retry`` says.

    Args:
        exchange: A (synchronous) exchange of ccxt that is a ``Venue``, in sandbox mode or pointed
            to this machine, with its keys. It serves the broker alone from then on.
        assets: Names of what is traded: symbols of the exchange, or the part before the slash.
        clock: The time and the waiting.
        money: Currency that all assets are traded in, e.g. "USDT"; by default that of the first
            asset if it is a symbol.
        others: Further currencies that fees are taken in, e.g. ("BNB",), shown beside the holdings.
        allowance_bps: Basis points that a trade may cost beyond the venue's fee: the half-spread
            and what the price moves before it is filled. Orders are sized so that money is there
            for it.
        retry: Repetition of requests that change nothing.
        longest: Longest uncertainty of the venue's clock with which orders are sent.

    Raises:
        ArgumentError: If the venue cannot be traded at safely, or its address is forbidden.
        DataError: If it does not answer at all.
    """

    def __init__(
        self,
        exchange: Any,
        assets: Sequence[str],
        clock: Clock,
        *,
        money: str | None = None,
        others: Sequence[str] = (),
        allowance_bps: float = ALLOWANCE,
        retry: Retry | None = None,
        longest: np.timedelta64 = SECOND,
    ) -> None:
        self._venue = venue_of(exchange.id)
        guard(exchange)
        exchange.number = str  # numbers stay the texts that the venue sent
        # spot alone: lists of currencies and derivatives are other hosts', and of no use here
        needless = ("warnOnFetchOpenOrdersWithoutSymbol", "fetchCurrencies", "fetchMargins")
        exchange.options |= dict.fromkeys(needless, False)
        if isinstance(exchange.options.get("fetchMarkets"), dict):
            exchange.options["fetchMarkets"]["types"] = ["spot"]
        exchange.milliseconds = lambda: _ms(self._venue_now())
        self.exchange, self._clock, self._longest = exchange, clock, longest
        self._allowance = decimal_of(check_number("allowance_bps", allowance_bps, 0, 1000))
        self.name = str(exchange.id)
        self._client = client_of(exchange, clock, retry)
        self._offset = np.timedelta64(0, "ns")
        self._doubt = np.timedelta64("NaT")
        self._measured: np.datetime64 = np.datetime64("NaT")
        self._ids: dict[str, str] = {}  # ours by the venue's
        with self._client.ready():
            self.money = money or currency_of(assets)
            known = exchange.markets
            self._symbols = symbols_of(known, assets, self.money)
        step = (exchange.currencies.get(self.money) or {}).get("precision")
        self.capabilities = Capabilities(cash_step=ZERO if step is None else Decimal(str(step)))
        strange = [s for s in self._symbols.values() if known[s]["quote"] != self.money]
        if strange or not self._symbols:
            raise ArgumentError(
                f"{strange[0] if strange else ', '.join(assets)} must be traded on {self.name} in "
                f"{self.money}: choose assets of one currency."
            )
        self._codes = {known[s]["base"]: name for name, s in self._symbols.items()}
        self._codes |= {self.money: ""} | {code: code for code in others}
        self._names = {symbol: name for name, symbol in self._symbols.items()}

    # ---- what there is

    @_read
    def time(self) -> np.datetime64:
        """Return the venue's clock, in UTC, as it was measured last."""
        self._synchronise()
        return self._venue_now()

    @_read
    def instruments(self, assets: Sequence[str]) -> Mapping[str, Instrument]:
        """Return the rules of trading of each asset; one without stated steps is left out."""
        return {name: found for name in assets if (found := self._instrument(name)) is not None}

    @_read
    def quotes(self, assets: Sequence[str]) -> Mapping[str, Quote]:
        """Return prices in the middle of bid and ask."""
        own = {self._symbols[name]: name for name in assets if name in self._symbols}
        return middles(self._client, own)

    @_read
    def balances(self) -> Balances:
        """Return cash and holdings, all that open orders reserve included."""
        total = self._client.ask(self.exchange.fetch_balance)["total"]
        units = {
            self._codes[code]: Decimal(own) for code, own in total.items() if code in self._codes
        }
        return Balances(units.pop("", ZERO), units)

    @_read
    def open_orders(self) -> list[OrderReport]:
        """Return all open orders."""
        return [self._report(each) for each in self._client.ask(self.exchange.fetch_open_orders)]

    @_read
    def find(self, order: Order) -> OrderReport | NotFound:
        """Return the state of an order by our id, be it open or not."""
        symbol = self._symbols.get(order.asset)
        if symbol is None:
            return NotFound()
        found = self._client.ask(lambda: self._venue.find(self.exchange, symbol, order.id))
        return self._report(found[-1]) if found else NotFound()

    @_read
    def activity(self, cursor: str) -> Activity:
        """Return fills since a cursor, those of its last minute again.

        The first call returns what the account holds, as deposits: the session begins with it, and
        what was traded before is no part of it.
        """
        if not cursor:
            return self._opening()
        start, latest = map(int, cursor.split("-"))
        since = max(latest - _OVERLAP, start)
        symbols = list(self._names)
        trades = self._client.ask(lambda: self._venue.trades(self.exchange, symbols, since))
        trades = [trade for trade in trades if int(trade["timestamp"]) >= start]
        fills = tuple(map(self._fill, trades))
        latest = max([latest, *(int(trade["timestamp"]) for trade in trades)])
        return Activity(fills, (), f"{start}-{latest}")

    def _opening(self) -> Activity:
        start = int(self._client.ask(self.exchange.fetch_time))
        total = self._client.ask(self.exchange.fetch_balance)["total"]
        at = np.datetime64(start, "ms").astype("datetime64[ns]")
        flows = tuple(
            Flow(f"opening:{code}", "deposit", self._codes[code], Decimal(units), at, "opening")
            for code, units in total.items()
            if code in self._codes and Decimal(units)
        )
        return Activity((), flows, f"{start}-{start}")

    # ---- what is done

    def submit(self, order: Order, valid_until: np.datetime64) -> Accepted | Refused | Unknown:
        """Send an order, once; the venue must not accept it after a moment.

        An order that is refused here was not sent: its symbol, units or price are none of the
        venue's, there is no time left for it, or the venue's clock is not known well enough.
        """
        symbol = self._symbols.get(order.asset)
        if symbol is None:
            return Refused(f"{self.name} does not trade {order.asset}", "symbol")
        if (wrong := self._wrong(order, symbol)) is not None:
            return wrong
        if isinstance(now := self.time(), Unknown):
            return Refused(f"the clock of {self.name} is not known: {now.error}", "clock")
        if not self._doubt <= self._longest:
            return Refused(f"the clock of {self.name} is known to {self._doubt} only", "clock")
        start = _ms(now)
        duration = min(_ms(valid_until) - start, self._venue.longest)
        if duration < self._venue.shortest:
            return Refused(f"{duration} ms are left to place it at {self.name}", "expired")
        given = {"clientOrderId": order.id, **_ONCE} | self._venue.validity(start, duration)
        kind, price = "market", None
        if order.limit is not None:
            kind, price, given["timeInForce"] = "limit", f"{order.limit:f}", "IOC"
        side = "buy" if order.units > 0 else "sell"
        amount = f"{abs(order.units):f}"

        def request() -> Accepted:
            self.exchange.milliseconds = lambda: start
            try:
                answer = self.exchange.create_order(symbol, kind, side, amount, price, given)
            finally:
                self.exchange.milliseconds = lambda: _ms(self._venue_now())
            self._ids[str(answer["id"])] = order.id
            return Accepted(self._report(answer, own=order))

        return self._changed(request, order)

    def cancel(self, order: Order) -> Accepted | Refused | Unknown:
        """Cancel an order, which may be filled in the meantime: the report says."""
        symbol = self._symbols.get(order.asset)
        given = {"clientOrderId": order.id, **_ONCE}

        def request() -> Accepted | Refused | Unknown:
            self.exchange.cancel_order(None, symbol, given)
            found = self.find(order)
            if isinstance(found, OrderReport):
                return Accepted(found)
            return found if isinstance(found, Unknown) else Refused("there is no such order")

        return self._changed(request, order, looks_up=False)

    def _changed(
        self, request: Callable[[], Any], order: Order, *, looks_up: bool = True
    ) -> Accepted | Refused | Unknown:
        """Make a request that changes something, once, and return what is known of its outcome."""
        import ccxt

        try:
            with candid(self.exchange):
                outcome: Accepted | Refused | Unknown = request()
                return outcome
        except ccxt.BaseError as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            if looks_up and self._venue.duplicate in text.lower():
                found = self.find(order)
                return Accepted(found) if isinstance(found, OrderReport) else Unknown(text)
            kinds = {each.__name__ for each in type(error).__mro__}
            if kinds & set(self._venue.not_accepted):
                return Refused(text, "busy")
            answered = kinds & set(_REFUSALS) or self._venue.refusal in text
            if not answered or "OperationFailed" in kinds:
                return Unknown(text)
            code = next((_CODES[kind] for kind in _CODES if kind in kinds), "refused")
            return Refused(text, code)
        except AddressError:
            raise
        except MALFORMED as error:
            return Unknown(f"the answer of {self.name} cannot be read: {error!r}")

    # ---- how the venue says it

    def _venue_now(self) -> np.datetime64:
        return self._clock.now() + self._offset

    def _synchronise(self) -> None:
        """Measure how far the venue's clock is from ours, unless that was done lately."""
        age = self._clock.now() - self._measured
        if np.timedelta64(0, "ns") <= age < _MEASURED:
            return
        before = self._clock.now()
        served = np.datetime64(self._client.ask(lambda: int(self.exchange.fetch_time())), "ms")
        after = self._clock.now()
        self._offset = served.astype("datetime64[ns]") - (before + (after - before) // 2)
        self._doubt, self._measured = (after - before) // 2, after

    def _instrument(self, asset: str) -> Instrument | None:
        market = self.exchange.markets.get(self._symbols.get(asset))
        return None if market is None else instrument_of(market, self._allowance)

    def _wrong(self, order: Order, symbol: str) -> Refused | None:
        """Return why an order is not sent: our steps and ccxt's must agree on every digit."""
        import ccxt

        each, units = self._instrument(order.asset), abs(order.units)
        if each is None:
            return Refused(f"{self.name} states no steps of {order.asset}", "precision")
        told = self.exchange
        try:
            amount = Decimal(told.amount_to_precision(symbol, f"{units:f}"))
            limit = order.limit
            price = (
                None if limit is None else Decimal(told.price_to_precision(symbol, f"{limit:f}"))
            )
        except ccxt.BaseError as error:
            return Refused(str(error), "precision")
        if not amount == each.whole(units, strictly=True) == units or price != limit:
            return Refused(f"{units} at {limit} of {symbol} is in no steps of {each}", "precision")
        limits = told.markets[symbol]["limits"]
        low, high = limits["amount"]["min"], limits["amount"]["max"]
        with exactly():
            notional = units * (limit or order.reference)
        if (low is not None and units < Decimal(str(low))) or notional < each.min_notional:
            return Refused(f"{units} of {symbol}, {notional}, is too little", "minimum")
        if high is not None and units > Decimal(str(high)):
            return Refused(f"{units} of {symbol} is more than {high}", "maximum")
        return None

    def _report(self, answer: Mapping[str, Any], own: Order | None = None) -> OrderReport:
        """Return the report of an order; it is open where the answer states no more than an id."""
        ours = str(answer.get("clientOrderId") or "") if own is None else own.id
        if ours and answer["id"]:
            self._ids[str(answer["id"])] = ours
        filled = Decimal(answer["filled"] or 0)
        buys = own.units > 0 if own is not None else answer["side"] == "buy"
        state = _STATES.get(str(answer["status"]), State.OPEN)
        return OrderReport(ours or str(answer["id"]), state, filled if buys else -filled)

    def _fill(self, trade: Mapping[str, Any]) -> Fill:
        fees = [fee for fee in trade["fees"] or [trade["fee"]] if fee and fee["cost"] is not None]
        paid: dict[str, Decimal] = {}
        for fee in fees:
            code = self._codes.get(fee["currency"], fee["currency"])
            paid[code] = paid.get(code, ZERO) + Decimal(fee["cost"])
        if len(paid) > 1:
            raise ValueError(f"trade {trade['id']} has fees in {', '.join(paid)}")
        code, cost = next(iter(paid.items()), ("", ZERO))
        return Fill(
            trade_id=f"{trade['symbol']}:{trade['id']}",
            order_id=self._own_id(str(trade["order"]), trade["symbol"]),
            asset=self._names[trade["symbol"]],
            units=(1 if trade["side"] == "buy" else -1) * Decimal(trade["amount"]),
            price=Decimal(trade["price"]),
            fee=cost,
            at=np.datetime64(int(trade["timestamp"]), "ms").astype("datetime64[ns]"),
            fee_asset=code,
        )

    def _own_id(self, theirs: str, symbol: str) -> str:
        """Return our id of an order by the venue's, which is all that a trade states."""
        if theirs not in self._ids:
            found = self._client.ask(lambda: self.exchange.fetch_order(theirs, symbol))
            self._ids[theirs] = str(found.get("clientOrderId") or theirs)
        return self._ids[theirs]


def _ms(moment: np.datetime64) -> int:
    return int(moment.astype("datetime64[ms]").astype(np.int64))
