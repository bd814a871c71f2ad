"""A day of hourly trading on a loopback exchange, with outages and lost answers."""

import zlib
from decimal import Decimal
from functools import cache

import numpy as np
import pytest
from helpers.exchange_dialects import SYMBOLS, ms
from helpers.venue.book import Venue
from helpers.venue.dialects import rules

from baselines import make_baseline
from portfolio_env import PortfolioEnv, load_market
from portfolio_env.live import AlertBounds, Predictor
from portfolio_env.market.panel import PricePanel
from portfolio_env.paper import SimulatedClock
from portfolio_env.paper.exchange import (
    ExchangeBroker,
    ExchangeFeed,
    FileSink,
    Outbox,
    Scheduler,
    sandbox,
    watch,
)
from portfolio_env.paper.session import Session

HOUR = 3_600_000
START = ms("2024-01-05T00:00")
BEFORE, HOURS = 100, 24
KEYS = {"apiKey": "key", "secret": "c2VjcmV0"}


@cache
def price(symbol, hour):
    """The open of an hour: a random walk about 100."""
    if hour <= START // HOUR - BEFORE:
        return 100.0
    draw = np.random.default_rng([zlib.crc32(symbol.encode()), hour])
    return round(price(symbol, hour - 1) * float(np.exp(0.01 * draw.standard_normal())), 2)


def walk(symbol, timeframe, opens):
    start, close = price(symbol, opens // HOUR), price(symbol, opens // HOUR + 1)
    return start, max(start, close), min(start, close), close, 1000.0


class Served(SimulatedClock):
    """A clock that the exchange goes by: waiting takes no time."""

    def __init__(self, server):
        super().__init__(np.datetime64(START, "ms"))
        self.server = server

    def sleep(self, duration):
        super().sleep(duration)
        self.server.now = int(self.now().astype("datetime64[ms]").astype(np.int64))


def market_of(symbols):
    opens = np.arange(START - BEFORE * HOUR, START, HOUR)
    bars = np.array([[walk(s, "1h", int(t)) for s in symbols] for t in opens])
    names = ("open", "high", "low", "close", "volume")
    given = {name: bars[:, :, place] for place, name in enumerate(names)}
    times = opens.astype("datetime64[ms]").astype("datetime64[ns]")
    return load_market(PricePanel(times, symbols, **given))


def opened(clock, exchange, symbols, folder, history=None):
    env = PortfolioEnv(market_of(symbols), observation="index", action="weights", window=1)
    policy = make_baseline("inverse_volatility", env.market, every=1, lookback=6)
    broker = ExchangeBroker(exchange, symbols, clock)
    session = Session(folder, "day", Predictor(policy, env), broker, clock)
    return session.open(history)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["binance", "kraken"])
def test_a_day_with_outages_ends_reconciled(server, tmp_path, name):
    symbols = SYMBOLS[name]
    money = symbols[0].split("/")[1]
    server.formula, server.now = walk, START
    funds = {money: Decimal(10_000)}
    fee_in = "received" if name == "binance" else "quote"
    venue = server.venues[name] = Venue(tmp_path / "v.db", server, rules(name), funds, fee_in)
    server.down = [
        (START + int(hour * HOUR), START + int((hour + long) * HOUR))
        for hour, long in ((3.01, 0.02), (6.9, 0.15), (11.0, 0.5), (15.2, 3.1))
    ]
    server.order_faults = {
        2: "unheard", 5: "lost", 8: "late", 11: 503, 14: 429, 17: "failed", 20: "funds",
    }  # fmt: skip
    server.account_faults = {30: 503, 50: 502, 70: "unheard", 71: 429}
    exchange = sandbox(name, address=f"{server.base}/{name}", keys=KEYS)
    clock = Served(server)
    session = opened(clock, exchange, symbols, tmp_path / "session")
    feed = ExchangeFeed(exchange, {s: s for s in symbols}, "1h", clock)
    outbox = Outbox(session.ledger, [FileSink(tmp_path / "alerts.jsonl")], clock)

    def pulse():
        watch(session.ledger, AlertBounds(), clock)
        outbox.deliver()

    scheduler = Scheduler(session, feed, clock, pulse=pulse)
    scheduler.run(until=np.datetime64(START + HOURS * HOUR + 1_800_000, "ms"))
    assert session.reconcile().reason == ""
    ledger = session.ledger
    assert ledger.trading[0] == "active"
    held = venue.money()
    units = ledger.all_units()
    assert units[""] == held[money]
    for symbol in symbols:
        assert units.get(symbol, 0) == held.get(symbol.split("/")[0], 0)
    accepted = [order["client"] for order in venue.orders()]
    assert len(accepted) == len(set(accepted))  # no order twice
    mine = {order.id for order in ledger.orders()}
    assert set(accepted) <= mine
    assert len(ledger.fills()) == len(venue.trades())
    phases = [row["phase"] for row in ledger.query("SELECT phase FROM bars ORDER BY bar")]
    assert len(phases) == HOURS
    decisions = ledger.query("SELECT count(*) FROM decisions")[0][0]
    assert phases.count("missed") == 4  # of the long outages
    assert decisions == 20 and len(venue.trades()) >= 10
    assert (tmp_path / "alerts.jsonl").read_text().count('"open": true') == len(
        ledger.query("SELECT id FROM alerts")
    )
    ledger.verify()
    session.close()
    exchange.session.close()
    venue.close()
