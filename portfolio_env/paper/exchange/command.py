"""Paper trading as a command: a policy, an exchange's candles, and a venue without real money."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from portfolio_env.checks import check_seconds
from portfolio_env.data.downloads import exchange as exchanges
from portfolio_env.data.downloads.store import milliseconds
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.atomic import read_json, write_json
from portfolio_env.live.account import AccountOptions
from portfolio_env.live.alerts import AlertBounds
from portfolio_env.live.instruments import Instrument, read_instruments
from portfolio_env.live.money import decimal_of
from portfolio_env.live.predictor import Predictor
from portfolio_env.live.risk_limits import read_limits
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.timeline import bar_spacing, time_text
from portfolio_env.paper.attribution import RunningShortfall
from portfolio_env.paper.broker import Broker, Clock, SystemClock, Unknown
from portfolio_env.paper.exchange import ExchangeBroker, sandbox
from portfolio_env.paper.exchange.alerts import FileSink, LogSink, Outbox, Sink, WebhookSink, watch
from portfolio_env.paper.exchange.broker import ALLOWANCE
from portfolio_env.paper.exchange.market_data import (
    ExchangeFeed,
    Feed,
    TickerPrices,
    client_of,
    currency_of,
    instrument_of,
    panel_of,
    symbols_of,
)
from portfolio_env.paper.exchange.scheduler import Scheduler, Timing
from portfolio_env.paper.ledger import DONE, HELD, LEDGER, Ledger
from portfolio_env.paper.orders import moment
from portfolio_env.paper.session import Session
from portfolio_env.paper.simulated import SimulatedBroker
from portfolio_env.paper.status import PAGE, session_status, write_status
from portfolio_env.simulation.cost_models import checked_rates

ALERTS, IDENTITY, PULSE, VENUE = "alerts.jsonl", "session.json", "pulse.json", "venue.db"
KEY, SECRET = "PORTFOLIO_ENV_API_KEY", "PORTFOLIO_ENV_API_SECRET"
"""Environment variables of the credentials of a test network; they are stored nowhere."""


@dataclass(frozen=True)
class PaperOptions:
    """Paper trading: where candles come from, and where orders go."""

    session: Path | None = None
    """Folder of a session of paper trading; the same folder goes on with it."""
    exchange: str | None = None
    """Exchange whose candles are traded on, e.g. binance."""
    sandbox: bool = False
    """Send orders to the exchange's test network (binance), with keys from the environment; by
    default a simulated venue fills them at the exchange's public prices."""
    address: str | None = None
    """Address of an exchange on this machine that speaks as --exchange does; orders go there."""
    once: bool = False
    """Trade one bar if one has closed, and end."""
    grace: float = 10.0
    """Seconds after the close of a bar before it is looked at."""
    quorum: float = 0.8
    """Least share of the assets, and of the money held, whose candles must be there."""
    latency: float = 2.0
    """Seconds from an order to its execution at the simulated venue."""
    webhook: str | None = None
    """Address that alerts are posted to, on this machine."""
    webhook_host: tuple[str, ...] = ()
    """Further hosts that --webhook may be at, with https."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_seconds("latency", self.latency)
        Timing(grace=self.grace, quorum=self.quorum)


def paper(
    predictor: Predictor,
    account: AccountOptions,
    options: PaperOptions,
    *,
    name: str,
    bounds: AlertBounds = AlertBounds(),  # noqa: B008 (frozen)
    notes: Sequence[str] = (),
    clock: Clock | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """Trade on paper until stopped, or one bar; return in a sentence or two what was done.

    Args:
        predictor: The policy.
        account: Capital of the simulated venue, rules of trading in place of the exchange's, and
            risk limits; an account at a venue is taken as it is found.
        options: The options.
        name: Name of the strategy.
        bounds: Bounds of the alerts.
        notes: Sentences that a reader must know.
        clock: The time and the waiting; that of the machine by default.
        say: Takes sentences for a terminal: one at the start of a session without end, and one for
            every bar that ends as it was meant to. What happens to others, alerts say.

    Raises:
        ArgumentError: If an option is missing or contradicts another.
        DataError: If the session is used by another process, is another's, or the exchange does
            not answer.
    """
    if options.session is None or options.exchange is None:
        raise ArgumentError("paper trading needs --session DIR and --exchange, e.g. binance.")
    folder, clock = options.session, SystemClock() if clock is None else clock
    timing = Timing(grace=options.grace, quorum=options.quorum)
    sinks: list[Sink] = [LogSink(), FileSink(folder / ALERTS)]
    if options.webhook is not None:
        sinks.append(WebhookSink(options.webhook, options.webhook_host))
    with ExitStack() as resources:
        exchange = _exchange(options)
        resources.callback(exchange.session.close)
        broker, feed, rules = _venue(predictor, account, options, exchange, clock)
        if isinstance(broker, SimulatedBroker) and broker.journal is not None:
            resources.callback(broker.journal.close)
        own = _identity(folder, {"strategy": name, "exchange": options.exchange})
        limits = None if account.risk_limits is None else read_limits(account.risk_limits)
        if account.lots is not None:
            rules = read_instruments(account.lots)
        session = Session(
            *(folder, own["id"], predictor, broker, clock),
            instruments=rules,
            limits=limits,
            settings={"notes": list(notes), **own},
        )
        resources.enter_context(_opened(session, feed, folder))
        outbox, running = Outbox(session.ledger, sinks, clock), RunningShortfall(session.ledger)
        shown = [-1]  # event that the page was last written after
        told = [_last(session.ledger)[0]]

        def pulse() -> None:
            watch(session.ledger, bounds, clock)
            outbox.deliver()
            beat = {"at": str(clock.now()), "process": os.getpid()}
            write_json(folder / PULSE, beat)
            if (head := session.ledger.head()[0]) != shown[0]:
                write_status(session_status(session.ledger, clock.now(), running), folder)
                shown[0] = head
            bar, phase, _ = _last(session.ledger)
            if phase in (DONE, HELD) and bar != told[0]:
                told[0] = bar
                say(_told(session.ledger))

        scheduler = Scheduler(session, feed, clock, timing, pulse)
        pulse()
        if not options.once:
            assets = len(session.ledger.assets)
            say(
                f"{name} trades {assets} assets at {options.exchange} until Ctrl-C: {folder / PAGE}"
            )
        with _stoppable(scheduler):
            scheduler.run(once=options.once)
        return _told(session.ledger)


def _exchange(options: PaperOptions) -> Any:
    """Return the exchange that is asked for candles, and that orders go to if they go anywhere."""
    if not options.sandbox and options.address is None:
        return exchanges.public_exchange(str(options.exchange), ())
    keys = {"apiKey": os.environ.get(KEY, ""), "secret": os.environ.get(SECRET, "")}
    if not all(keys.values()):
        raise ArgumentError(
            f"orders need keys: set {KEY} and {SECRET}, of the test network and of no other."
        )
    return sandbox(str(options.exchange), address=options.address, keys=keys)


def _venue(
    predictor: Predictor,
    account: AccountOptions,
    options: PaperOptions,
    exchange: Any,
    clock: Clock,
) -> tuple[Broker, Feed, Mapping[str, Instrument] | None]:
    """Return the venue that orders go to, the candles, and rules of trading if not the venue's."""
    assets, money = predictor.market.assets, currency_of(predictor.market.assets)
    client = client_of(exchange, clock)
    broker: Broker
    rules = None
    if options.sandbox or options.address is not None:
        if account.capital is not None or account.holdings is not None:
            raise ArgumentError(
                "the account is what the venue says: leave out --capital and --holdings with "
                "--sandbox and --address."
            )
        broker = ExchangeBroker(exchange, assets, clock, money=money)
    else:
        if account.capital is None or account.holdings is not None:
            raise ArgumentError("give the simulated account as --capital 10000, in cash.")
        with client.ready():
            pass
    symbols = symbols_of(exchange.markets, assets, money)
    if lacking := [name for name in assets if name not in symbols]:
        raise ArgumentError(f"{options.exchange} lacks {', '.join(lacking[:5])}: leave it out.")
    spacing = bar_spacing(predictor.market.timestamps)[0]
    names = {milliseconds(each) * 1_000_000: each for each in exchanges.TIMEFRAMES}
    frame = names.get(int(spacing.astype("timedelta64[ns]").astype(np.int64)))
    if frame is None or frame not in (exchange.timeframes or {}):
        raise ArgumentError(f"{options.exchange} has no candles of the length of a bar, {spacing}.")
    if not options.sandbox and options.address is None:
        stated = {name: instrument_of(exchange.markets[symbol]) for name, symbol in symbols.items()}
        if bare := [name for name, own in stated.items() if own is None]:
            raise ArgumentError(f"{options.exchange} states no steps of {', '.join(bare[:5])}.")
        costs = predictor.simulator.costs
        own = {name: each for name, each in stated.items() if each is not None}
        rates = checked_rates(costs, assets).max(axis=0).tolist()
        rules = {
            name: replace(own[name], fee_bps=decimal_of(round(rate * 1e4 + ALLOWANCE, 6)))
            for name, rate in zip(assets, rates, strict=True)
        }
        broker = SimulatedBroker(
            assets,
            TickerPrices(client, {symbol: name for name, symbol in symbols.items()}, clock),
            clock,
            costs=costs,
            capital=account.capital or 0.0,
            instruments=own,
            delay=check_seconds("latency", options.latency),
            path=_made(options.session) / VENUE,
        )
    return broker, ExchangeFeed(exchange, symbols, frame, clock), rules


def _made(folder: Path | None) -> Path:
    assert folder is not None
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _identity(folder: Path, told: dict[str, str]) -> dict[str, str]:
    """Return the id of a session, and of what: made once, and the same ever after.

    Raises:
        DataError: If the folder is that of another strategy or exchange.
    """
    path = _made(folder) / IDENTITY
    try:
        known = read_json(path)
    except FileNotFoundError:
        if (folder / LEDGER).exists():
            raise DataError(f"{folder} has a ledger and no {IDENTITY}: give another") from None
        known = {"id": uuid.uuid4().hex, **told}
        write_json(path, known)
    for what, own in told.items():
        if known.get(what) != own:
            raise DataError(
                f"the session of {folder} is of {what} {known.get(what)!r}, and this is {own!r}: "
                "give another folder"
            )
    return {str(key): str(value) for key, value in known.items()}


@contextmanager
def _opened(session: Session, feed: Feed, folder: Path) -> Iterator[Session]:
    """Open a session, with the bars since its first decision if it has one."""
    history: PricePanel | None = None
    if (folder / LEDGER).exists():
        ledger = Ledger.of(folder, read_only=True)
        try:
            rows = ledger.query("SELECT min(bar), max(bar) FROM decisions")
        finally:
            ledger.close()
        if rows[0][0] is not None:
            first, last = (moment(text) for text in rows[0])
            history = _history(session.predictor.market.panel, feed, first, last)
    session.open(history)
    try:
        yield session
    finally:
        session.close()


def _history(
    known: PricePanel, feed: Feed, first: np.datetime64, last: np.datetime64
) -> PricePanel:
    rows = int(np.searchsorted(known.timestamps, first, side="left"))
    before = known.subset(slice(0, max(rows, 1)))
    reading = feed.read(before.timestamps[-1])
    if isinstance(reading, Unknown):
        raise DataError(f"the bars since {time_text(first)} are not to be had: {reading.error}")
    final = tuple(name for name in known.assets if last in reading.candles.get(name, {}))
    return panel_of(before, reading, last, final)


@contextmanager
def _stoppable(scheduler: Scheduler) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the loop after the bar in hand, and a second one at once."""

    def stop(*_: Any) -> None:
        if scheduler.stopping or scheduler.idle:
            raise KeyboardInterrupt
        scheduler.stopping = True

    before = {each: signal.signal(each, stop) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except KeyboardInterrupt:
        pass  # what was under way is in the ledger, and is resolved at the next start
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _last(ledger: Ledger) -> tuple[str, str, str]:
    """Return the last bar, how it ended, and why; "" before the first."""
    rows = ledger.query("SELECT bar, phase, reason FROM bars ORDER BY bar DESC LIMIT 1")
    return (rows[0]["bar"], rows[0]["phase"], rows[0]["reason"]) if rows else ("", "", "")


def _told(ledger: Ledger) -> str:
    """Return the last bar's end and the account in words."""
    last, phase, why = _last(ledger)
    if not last:
        return "No bar has closed yet; nothing was traded."
    bar, reason = moment(last), f" ({why})" if why else ""
    value = ledger.query("SELECT value FROM valuations ORDER BY bar DESC LIMIT 1")
    worth = f"; the account is worth {float(value[0][0]):,.2f}" if value else ""
    count = len(ledger.query("SELECT trade_id FROM fills"))
    return f"Bar {time_text(bar)}: {phase}{reason}{worth}; {count} fills so far."
