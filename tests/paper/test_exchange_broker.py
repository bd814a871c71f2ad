"""The broker on an exchange, against one on the loopback interface in two dialects."""

from contextlib import contextmanager
from decimal import Decimal
from itertools import count

import ccxt
import numpy as np
import pytest
from helpers.exchange_dialects import SYMBOLS
from helpers.venue.book import Venue
from helpers.venue.dialects import rules

from portfolio_env.errors import ArgumentError
from portfolio_env.paper import Accepted, NotFound, Order, Refused, SimulatedClock, State, Unknown
from portfolio_env.paper.exchange import AddressError, ExchangeBroker, sandbox
from portfolio_env.paper.exchange.venues import addresses, guard

DIALECTS = ("binance", "kraken")
START = "2024-01-01T12:00:30"
KEYS = {"apiKey": "key", "secret": "c2VjcmV0"}
BAR = np.datetime64("2024-01-01T12:00", "ns")
numbers = count()


def steady(symbol, timeframe, opens):
    """A candle about 100, other every hour."""
    price = 100.0 + (opens // 3_600_000) % 7
    return price, price + 1, price - 1, price + 0.5, 1000.0


class ServedClock(SimulatedClock):
    """A clock that the exchange goes by too, perhaps with an offset."""

    def __init__(self, server, offset_ms=0):
        super().__init__(np.datetime64(START))
        self.server, self.offset = server, offset_ms
        self.tell()

    def tell(self):
        now = self.now().astype("datetime64[ms]").astype(np.int64)
        self.server.now = int(now) + self.offset

    def sleep(self, duration):
        super().sleep(duration)
        self.tell()


@contextmanager
def opened(server, name, folder, fee_in="quote", offset_ms=0, others=()):
    """A broker, its clock and the venue behind it."""
    server.formula = steady
    money = SYMBOLS[name][0].split("/")[1]
    funds = {money: Decimal(10_000), "BNB": Decimal(5)}
    clock = ServedClock(server, offset_ms)
    venue = server.venues[name] = Venue(folder / "venue.db", server, rules(name), funds, fee_in)
    exchange = sandbox(name, address=f"{server.base}/{name}", keys=KEYS)
    exchange.timeout = 5_000
    try:
        yield ExchangeBroker(exchange, SYMBOLS[name][:2], clock, others=others), clock, venue
    finally:
        exchange.session.close()
        venue.close()


@pytest.fixture(params=DIALECTS)
def at(request, server, tmp_path):
    with opened(server, request.param, tmp_path) as found:
        yield found


def order(broker, units, limit=None, asset=0, own=None):
    return Order(
        own or f"{next(numbers):032x}", BAR, 0, list(broker._symbols)[asset], Decimal(units),
        Decimal(100), BAR + np.timedelta64(10, "m"), None if limit is None else Decimal(limit),
    )  # fmt: skip


def later(clock, seconds=10):
    return clock.now() + np.timedelta64(seconds, "s")


def sent(broker, clock, own):
    """The outcome of sending, and the venue's word on it."""
    return broker.submit(own, later(clock)), broker.find(own)


def test_a_day_at_the_venue_is_what_the_broker_says(at):
    broker, clock, venue = at
    buy, sell = order(broker, "1.5"), order(broker, "-0.5")
    opening = broker.activity("")
    assert [(flow.asset, flow.units) for flow in opening.flows] == [("", 10_000)]
    cursor = opening.cursor
    clock.sleep(np.timedelta64(1, "s"))
    for own in (buy, sell):
        assert broker.find(own) == NotFound()
        outcome, found = sent(broker, clock, own)
        assert isinstance(outcome, Accepted)
        assert (found.id, found.state, found.filled) == (own.id, State.FILLED, own.units)
    activity = broker.activity(cursor)
    assert [(fill.order_id, fill.units) for fill in activity.fills] == [
        (buy.id, buy.units),
        (sell.id, sell.units),
    ]
    again = broker.activity(activity.cursor)
    assert set(again.fills) <= set(activity.fills)
    cash = Decimal(10_000) - sum(f.units * f.price + f.fee for f in activity.fills)
    balances = broker.balances()
    assert balances.cash == cash
    assert {k: v for k, v in balances.units.items() if v} == {buy.asset: Decimal(1)}
    assert broker.open_orders() == []
    bid, ask = venue.quote(buy.asset)
    assert broker.quotes([buy.asset]) == {buy.asset: ((bid + ask) / 2, True)}
    lot, tick, _, notional = venue.rules[buy.asset]
    told = broker.instruments([buy.asset, "nothing"])
    assert told.keys() == {buy.asset}
    assert (told[buy.asset].lot, told[buy.asset].tick) == (lot, tick)
    assert told[buy.asset].min_notional == notional
    assert broker.time() == clock.now()


def test_what_is_not_filled_at_once_lapses(at):
    broker, clock, venue = at
    venue.depth, venue.pieces = Decimal("0.3"), 3
    own, cursor = order(broker, "1", limit="150"), broker.activity("").cursor
    clock.sleep(np.timedelta64(1, "s"))
    _, found = sent(broker, clock, own)
    assert (found.state in (State.EXPIRED, State.CANCELLED), found.filled) == (True, Decimal("0.3"))
    assert len({fill.trade_id for fill in broker.activity(cursor).fills}) == 3
    _, far = sent(broker, clock, away := order(broker, "1", limit="50"))
    assert far.filled == 0 and far.state != State.OPEN
    assert isinstance(broker.cancel(away), Refused)


def test_orders_of_others_are_told_and_can_be_cancelled(at):
    broker, clock, venue = at
    own = order(broker, "1")
    rest = {"client": own.id, "symbol": own.asset, "side": "buy", "units": "1", "price": "50"}
    venue.place(rest | {"keeps": True})
    assert [(each.id, each.state) for each in broker.open_orders()] == [(own.id, State.OPEN)]
    assert isinstance(broker.submit(own, later(clock)), Accepted)  # it is there: no second one
    assert len(venue.orders()) == 1
    done = broker.cancel(own)
    assert isinstance(done, Accepted) and done.report.state == State.CANCELLED


@pytest.mark.parametrize(
    ("units", "limit", "code"),
    [
        ("1.000000001", None, "precision"),
        ("1", "100.12345", "precision"),
        ("0.00001", None, "minimum"),
        ("1000", None, "funds"),
        ("-1", None, "funds"),
    ],
)
def test_what_the_venue_does_not_take_is_refused(at, units, limit, code, server):
    broker, clock, venue = at
    outcome, found = sent(broker, clock, order(broker, units, limit))
    # Binance says too little money as it says any refusal, so does ccxt
    assert isinstance(outcome, Refused) and outcome.code in (code, "refused"), outcome
    assert found == NotFound() and not venue.orders()
    assert bool(server.orders_asked) == (code == "funds")


@pytest.mark.parametrize(
    ("fault", "executed", "outcome"),
    [
        ("unheard", True, Unknown),
        ("failed", True, Unknown),
        ("lost", False, Unknown),
        ("late", True, Unknown),
        (503, False, Unknown),
        (429, False, Refused),
        ("expired", False, Refused),
        ("funds", False, Refused),
    ],
)
def test_no_answer_is_not_no_and_nothing_is_sent_twice(at, fault, executed, outcome, server):
    broker, clock, venue = at
    server.order_faults = {0: fault}
    own = order(broker, "1")
    assert isinstance(broker.submit(own, later(clock)), outcome)
    assert len(server.orders_asked) == 1
    clock.sleep(np.timedelta64(30, "s"))
    found = broker.find(own)
    assert len(venue.orders()) == executed
    assert (found.filled == 1) if executed else (found == NotFound())


def test_a_late_order_is_dead_once_its_time_is_over(at, server):
    broker, clock, venue = at
    server.order_faults = {0: "late"}
    own = order(broker, "1")
    assert isinstance(broker.submit(own, later(clock, 2)), Unknown)
    clock.sleep(np.timedelta64(30, "s"))
    assert broker.find(own) == NotFound() and not venue.orders()
    clock.sleep(np.timedelta64(-1, "s"))
    assert broker.submit(own, clock.now()).code == "expired"
    assert len(server.orders_asked) == 1


@pytest.mark.parametrize("fault", [500, 503, 429])
def test_reading_is_repeated_and_silence_is_unknown(at, fault, server):
    broker, _, _ = at
    start = server.accounts_asked
    server.account_faults = {start: fault}
    assert broker.balances().cash == 10_000
    server.account_faults = dict.fromkeys(range(start, start + 99), fault)
    for told in (broker.balances(), broker.open_orders(), broker.find(order(broker, "1"))):
        assert isinstance(told, Unknown)
    assert isinstance(broker.activity(""), Unknown)


@pytest.mark.parametrize("name", DIALECTS)
def test_the_clock_of_the_venue_is_used(name, server, tmp_path):
    with opened(server, name, tmp_path, offset_ms=3_600_000) as (broker, clock, _):
        assert broker.time() - clock.now() == np.timedelta64(1, "h")
        own = order(broker, "1")
        outcome = broker.submit(own, broker.time() + np.timedelta64(10, "s"))
        assert isinstance(outcome, Accepted)
        broker._longest = np.timedelta64(-1, "ns")
        assert broker.submit(order(broker, "1"), later(clock, 7200)).code == "clock"


@pytest.mark.parametrize("fee_in", ["received", "BNB"])
def test_fees_in_other_currencies_are_told_as_they_are(fee_in, server, tmp_path):
    with opened(server, "binance", tmp_path, fee_in, others=("BNB",)) as (broker, clock, _):
        cursor = broker.activity("").cursor
        clock.sleep(np.timedelta64(1, "s"))
        sent(broker, clock, buy := order(broker, "1"))
        (fill,) = broker.activity(cursor).fills
        assert fill.fee_asset == (buy.asset if fee_in == "received" else "BNB")
        held = broker.balances().units
        assert held[buy.asset] == 1 - (fill.fee if fee_in == "received" else 0)
        assert held["BNB"] == 5 - (fill.fee if fee_in == "BNB" else 0)


def test_books_outlive_the_client(at, tmp_path, server):
    broker, clock, _ = at
    cursor = broker.activity("").cursor
    clock.sleep(np.timedelta64(1, "s"))
    sent(broker, clock, own := order(broker, "1"))
    again = ExchangeBroker(
        sandbox(broker.name, address=f"{server.base}/{broker.name}", keys=KEYS),
        list(broker._symbols),
        clock,
    )
    assert again.find(own).filled == 1
    assert [fill.order_id for fill in again.activity(cursor).fills] == [own.id]
    again.exchange.session.close()


# There is no way to real money.


@pytest.fixture(scope="module")
def all_exchanges():
    return [getattr(ccxt, name)() for name in ccxt.exchanges]


def test_every_exchange_is_refused_at_its_real_address(all_exchanges):
    for exchange in all_exchanges:
        with pytest.raises(ArgumentError):
            ExchangeBroker(exchange, ["BTC/USDT"], SimulatedClock(BAR))
        with pytest.raises(AddressError):
            guard(exchange)


def test_a_test_network_leads_to_no_real_address(all_exchanges):
    """Whatever is set later; nothing is sent to find out."""
    tried = []
    for exchange in all_exchanges:
        real = [exchange.implode_hostname(url) for url in addresses(exchange.urls["api"])]
        try:
            exchange.set_sandbox_mode(True)
            guard(exchange)
        except (ccxt.NotSupported, TypeError, AddressError):  # it has no test network
            continue
        tried.append(exchange.id)
        for url in real:
            with pytest.raises(AddressError):
                exchange.fetch(url)
            with pytest.raises(AddressError):
                exchange.session.get(url)
        exchange.set_sandbox_mode(False)
        exchange.urls["test"] = exchange.urls["api"]  # what the class says counts
        with pytest.raises(AddressError):
            guard(exchange)
    assert "binance" in tried


def test_redirects_and_proxies_are_not_followed(at, server):
    broker, clock, venue = at
    server.order_faults = {0: 302, 1: 307}
    for _ in range(2):
        own = order(broker, "1")
        assert isinstance(broker.submit(own, later(clock)), Unknown)
    assert len(server.orders_asked) == 2 and not venue.orders()
    broker.exchange.httpProxy = server.base
    with pytest.raises(AddressError, match="proxy"):
        broker.submit(order(broker, "1"), later(clock))
    broker.exchange.httpProxy, broker.exchange.session.proxies = None, {"http": server.base}
    with pytest.raises(AddressError, match="proxy"):
        broker.submit(order(broker, "1"), later(clock))
    assert len(server.orders_asked) == 2


def test_ccxt_repeats_no_order(at, server):
    broker, clock, venue = at
    repeated = {"maxRetriesOnFailure": 5}
    broker.exchange.options |= repeated | {"order": repeated, "AddOrder": repeated}
    server.order_faults = dict.fromkeys(range(9), "unheard")
    broker.submit(order(broker, "1"), later(clock))
    assert len(server.orders_asked) == len(venue.orders()) == 1


def test_venues_that_cannot_look_up_are_refused():
    with pytest.raises(ArgumentError, match="exchange='coinbase' must be one of binance, kraken"):
        sandbox("coinbase")
    with pytest.raises(ArgumentError, match="kraken has no test network"):
        sandbox("kraken")
