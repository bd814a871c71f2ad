"""A bar is traded once, when it is final, complete and fresh, and never otherwise."""

from dataclasses import fields
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from baselines import make_baseline
from portfolio_env import PortfolioEnv, load_market
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.live import Predictor
from portfolio_env.live.alerts import AlertBounds
from portfolio_env.market.panel import PricePanel
from portfolio_env.paper import SimulatedClock, Unknown
from portfolio_env.paper.broker import Quote
from portfolio_env.paper.exchange import Reading, Scheduler, Timing
from portfolio_env.paper.exchange.command import PaperOptions
from portfolio_env.paper.faults import Faults
from portfolio_env.paper.ledger import Ledger
from portfolio_env.paper.session import Session
from portfolio_env.paper.simulated import SimulatedBroker

HOUR, SECOND = np.timedelta64(3600, "s"), np.timedelta64(1, "s")
NAMES = ("A", "B", "C", "D", "E")
BARS, KNOWN = 60, 40


def hourly():
    """Five assets, sixty hours; labels are when bars open."""
    draw = np.random.default_rng(1)
    dates = pd.date_range("2024-01-01", periods=BARS, freq="h")
    close = 100 * np.exp(np.cumsum(0.01 * draw.standard_normal((BARS, 5)), axis=0))
    frame = pd.DataFrame(close, dates, NAMES).rename_axis("date").reset_index()
    return load_market(frame.melt("date", var_name="symbol", value_name="close"))


MARKET = hourly()


class Candles:
    """A feed that knows all candles and shows those that have opened, with faults."""

    length = HOUR.astype("timedelta64[ns]")

    def __init__(self, clock):
        self.clock, self.offset = clock, np.timedelta64(0, "ns")
        self.late = {}  # {(name, row): time after the close until it is shown}
        self.silent, self.newer, self.changes = False, True, 0

    def time(self):
        return Unknown("silence") if self.silent else self.clock.now() + self.offset

    def read(self, since):
        now = self.time()
        if isinstance(now, Unknown):
            return now
        found = {name: {} for name in NAMES}
        for row, opens in enumerate(MARKET.timestamps):
            for column, name in enumerate(NAMES):
                closes = opens + HOUR
                shown = opens if now < closes else closes + self.late.get((name, row), 0 * SECOND)
                newer = opens < now - HOUR or self.newer
                if since <= opens <= now and shown <= now and newer:
                    price = MARKET.panel.close[row, column]
                    if now < closes:
                        price *= 1.5
                    if self.changes:
                        self.changes -= 1
                        price *= 1.1
                    found[name][opens] = (price,) * 4 + (1.0,)
        return Reading(now, found)


class Closes:
    """Prices of a simulated venue: those of the last closed bar."""

    def quote(self, asset, at):
        row = int(np.searchsorted(MARKET.timestamps + HOUR, at, side="right")) - 1
        return Quote(Decimal(repr(float(MARKET.panel.close[row, NAMES.index(asset)]))))

    def impact(self, asset, at):
        return 0.0

    def capacity(self, asset, at):
        return None

    def share(self, asset, bar):
        return Decimal(1)

    def accruals(self, since, until):
        return iter(())


def close_of(row):
    return (MARKET.timestamps[row] + HOUR).astype("datetime64[ns]")


def session_of(clock, folder=None, broker=None, history=None):
    env = PortfolioEnv(MARKET.past(KNOWN - 1), observation="index", action="weights", window=1)
    policy = make_baseline("inverse_volatility", env.market, every=1, lookback=10)
    broker = broker or SimulatedBroker(
        NAMES, Closes(), clock, costs=env.simulator.costs, capital=10_000
    )
    session = Session(folder, "test", Predictor(policy, env), broker, clock)
    return session.open(history)


def started(at, **timing):
    """A scheduler at a moment."""
    clock = SimulatedClock(at)
    session = session_of(clock)
    feed = Candles(clock)
    return Scheduler(session, feed, clock, Timing(**timing)), session, feed, clock


def decided(session):
    rows = session.ledger.query("SELECT bar FROM decisions ORDER BY bar")
    return [np.datetime64(row[0], "ns") for row in rows]


# Sweeps around each bound, and a second on each side of it.


@pytest.mark.parametrize(
    ("seconds", "trades"), [(-3600, False), (-1, False), (9, False), (10, True)]
)
def test_a_bar_is_due_a_grace_after_its_close(seconds, trades):
    scheduler, session, _, _ = started(close_of(KNOWN) + seconds * SECOND)
    assert (scheduler.step() is not None) == trades
    assert decided(session) == ([MARKET.timestamps[KNOWN]] if trades else [])
    assert scheduler.step() is None  # not twice


@pytest.mark.parametrize(("seconds", "trades"), [(899, True), (900, True), (901, False)])
def test_a_stale_bar_is_missed(seconds, trades):
    scheduler, session, _, _ = started(close_of(KNOWN) + seconds * SECOND)
    assert scheduler.step() == ("done" if trades else "missed")
    assert len(decided(session)) == trades


@pytest.mark.parametrize(("seconds", "phase"), [(200, "done"), (440, "done"), (3000, "skipped")])
def test_late_candles_are_waited_for(seconds, phase):
    """All but one asset are there at once: one of five may lack, two may not."""
    scheduler, session, feed, clock = started(close_of(KNOWN) + 10 * SECOND)
    feed.late = {("A", KNOWN): seconds * SECOND, ("B", KNOWN): seconds * SECOND}
    assert scheduler.step() == phase
    waited = (clock.now() - close_of(KNOWN)) / SECOND
    assert waited >= min(seconds, 450)
    assert len(decided(session)) == (phase == "done")


@pytest.mark.parametrize(("quorum", "phase"), [(0.8, "done"), (0.81, "skipped")])
def test_without_a_quorum_nothing_is_traded(quorum, phase):
    scheduler, session, feed, _ = started(close_of(KNOWN) + 10 * SECOND, quorum=quorum)
    feed.late = {("A", KNOWN): HOUR}
    assert scheduler.step() == phase
    if phase == "done":
        market = session.predictor.market
        assert np.isnan(market.close[-1, 0]) and not market.tradable[-1, 0]
        assert all(order.asset != "A" for order in session.ledger.orders())


def test_what_is_held_counts_in_the_quorum():
    scheduler, session, feed, clock = started(close_of(KNOWN) + 10 * SECOND)
    assert scheduler.step() == "done"
    units = np.array(session.ledger.holdings.units, float)
    most = NAMES[int(np.argmax(units * MARKET.close[KNOWN]))]
    feed.late = {(most, KNOWN + 1): HOUR}  # one of five assets, and more of the money
    clock.set(close_of(KNOWN + 1) + 10 * SECOND)
    assert scheduler.step() == "skipped"


def test_a_candle_is_final_when_a_later_one_is_there_or_it_was_read_twice():
    scheduler, session, feed, clock = started(close_of(KNOWN) + 10 * SECOND)
    feed.newer, feed.changes = False, 10  # the first reading is another
    assert scheduler.step() == "done"
    assert clock.now() >= close_of(KNOWN) + 14 * SECOND  # three readings, 2 s apart at least
    assert session.predictor.market.close[-1].tolist() == MARKET.close[KNOWN].tolist()


@pytest.mark.parametrize("offset", [-3600, -1, 1, 3600])
def test_the_time_of_the_source_counts(offset):
    scheduler, session, feed, clock = started(close_of(KNOWN) + 10 * SECOND)
    feed.offset = offset * SECOND
    scheduler.step()
    now = clock.now() + feed.offset
    assert all(bar + HOUR + 10 * SECOND <= now for bar in decided(session))
    for row in session.predictor.market.close[KNOWN:]:
        assert any((row == known).all() for known in MARKET.close)  # none unfinished


def test_silence_is_waited_out():
    scheduler, session, feed, clock = started(close_of(KNOWN) + 10 * SECOND)
    feed.silent = True
    assert scheduler.step() is None
    scheduler.run(until=clock.now() + 30 * SECOND)
    assert not decided(session)
    feed.silent = False
    assert scheduler.step() == "done"


def test_after_downtime_the_latest_bar_alone_is_traded():
    scheduler, session, _, clock = started(close_of(KNOWN) + 10 * SECOND)
    assert scheduler.step() == "done"
    clock.set(close_of(KNOWN + 7) + 12 * SECOND)
    assert scheduler.step() == "done"
    phases = {row["bar"]: row["phase"] for row in session.ledger.query("SELECT * FROM bars")}
    assert list(phases.values()) == ["done", *["missed"] * 6, "done"]
    assert decided(session) == [MARKET.timestamps[KNOWN], MARKET.timestamps[KNOWN + 7]]
    market = session.predictor.market
    assert market.close.tolist() == MARKET.close[: KNOWN + 8].tolist()
    other = started(close_of(KNOWN + 7) + 12 * SECOND)
    assert other[0].step() == "done"  # the policy has seen all bars in between
    bodies = [s.ledger.body("decisions", market.timestamps[-1]) for s in (session, other[1])]
    assert bodies[0]["action"] == bodies[1]["action"]


def missed(session):
    events = session.ledger.events("phase")
    return [event.body["reason"] for event in events if event.body["phase"] == "missed"]


def test_why_nobody_looked_at_a_bar_is_told_apart():
    scheduler, session, feed, clock = started(close_of(KNOWN) + 10 * SECOND)
    scheduler.run(once=True)
    scheduler._pulse = lambda: clock.set(close_of(KNOWN + 3) + 30 * SECOND)  # alerts take so long
    clock.set(close_of(KNOWN + 1) + 10 * SECOND)
    scheduler.run(until=close_of(KNOWN + 3))
    scheduler._pulse = lambda: None
    scheduler.run(until=close_of(KNOWN + 3) + 60 * SECOND)
    assert missed(session) == ["busy with a bar before it"]
    feed.silent = True
    scheduler.run(until=close_of(KNOWN + 5) + 60 * SECOND)
    feed.silent = False
    scheduler.run(until=close_of(KNOWN + 6) + 60 * SECOND)
    assert missed(session)[1:] == ["the source did not answer, or this machine slept"]
    clock.set(close_of(KNOWN + 8) + 12 * SECOND)
    assert Scheduler(session, feed, clock).step() == "done"
    assert missed(session)[2:] == ["nobody was there"]


def test_the_loop_trades_every_bar_once_and_ends_after_one_if_asked():
    scheduler, session, _, clock = started(close_of(KNOWN - 1) + 20 * SECOND)
    scheduler.run(until=close_of(KNOWN + 5) + 60 * SECOND)
    assert decided(session) == list(MARKET.timestamps[KNOWN : KNOWN + 6])
    scheduler.run(once=True)  # none is due
    assert clock.now() < close_of(KNOWN + 6)
    clock.set(close_of(KNOWN + 6) + SECOND)
    scheduler.run(once=True)  # one has closed
    assert decided(session)[-1] == MARKET.timestamps[KNOWN + 6]
    assert clock.now() < close_of(KNOWN + 6) + 60 * SECOND


def test_a_clock_that_jumps_back_trades_nothing_again():
    scheduler, session, feed, _ = started(close_of(KNOWN + 1) + 10 * SECOND)
    assert scheduler.step() == "done"
    feed.offset = -HOUR
    assert scheduler.step() is None
    feed.offset = 0 * SECOND
    assert scheduler.step() is None
    assert len(decided(session)) == 1


def test_a_session_goes_on_after_a_restart(tmp_path):
    clock = SimulatedClock(close_of(KNOWN) + 10 * SECOND)
    session = session_of(clock, tmp_path)
    feed = Candles(clock)
    assert Scheduler(session, feed, clock).step() == "done"
    session.close()
    clock.set(close_of(KNOWN + 1) + 10 * SECOND)
    history = MARKET.past(KNOWN).panel
    again = session_of(clock, tmp_path, session.broker, history)
    assert Scheduler(again, feed, clock).step() == "done"
    assert decided(again) == list(MARKET.timestamps[KNOWN : KNOWN + 2])
    again.close()
    assert Ledger.of(tmp_path, read_only=True).verify()


@pytest.mark.parametrize("ahead", [2, 24 * 365 * 100], ids=["hours", "a century"])
@pytest.mark.parametrize("slow", [False, True], ids=["the source is fast", "the machine is slow"])
def test_clocks_that_differ_for_a_while_cost_no_bar(slow, ahead):
    """Nothing is written of bars that have not closed by both clocks."""
    scheduler, session, feed, clock = started(close_of(KNOWN) + 10 * SECOND)
    jump = ahead * HOUR
    if slow:
        true, clock.now = clock.now, lambda: true() - jump
    feed.offset = jump
    for _ in range(3):
        assert scheduler.step() is None
    assert not session.ledger.query("SELECT * FROM bars")
    alerts = session.ledger.query("SELECT name, text FROM alerts")
    assert [row["name"] for row in alerts] == ["skipped"] and "clock" in alerts[0]["text"]
    feed.offset = 0 * SECOND
    if slow:
        clock.now = true
    assert scheduler.step() == "done"
    assert not session.ledger.query("SELECT * FROM alerts WHERE closed = ''")


def test_a_machine_whose_clock_is_fast_for_a_while_costs_no_bar():
    scheduler, session, feed, clock = started(close_of(KNOWN) + 10 * SECOND)
    feed.offset = -HOUR
    clock.set(clock.now() + HOUR)
    assert scheduler.step() is None
    text = session.ledger.query("SELECT text FROM alerts")[0]["text"]
    assert "the clock of this machine is fast" in text
    clock._now -= HOUR
    feed.offset = 0 * SECOND
    assert scheduler.step() == "done"


@pytest.mark.parametrize(
    ("zone", "frequency"), [("Europe/Berlin", "D"), ("Europe/London", "D"), ("UTC", "h")]
)
def test_bars_that_open_at_other_times_than_candles_are_refused(zone, frequency):
    """Days of local midnight move with daylight saving; hours are labelled a minute early here."""
    dates = pd.date_range("2023-06-01", periods=300, freq=frequency, tz=zone).tz_convert("UTC")
    late = pd.Timedelta(minutes=-1) if frequency == "h" else pd.Timedelta(0)
    frame = pd.DataFrame({"A": 1.0, "B": 2.0}, dates.tz_localize(None) + late)
    env = PortfolioEnv(load_market(frame), observation="index", action="weights", window=1)
    _, session, feed, clock = started(close_of(KNOWN))
    session.predictor = Predictor(make_baseline("equal_weight", env.market), env)
    feed.length = np.timedelta64(1, frequency).astype("timedelta64[ns]")
    with pytest.raises(ArgumentError, match="decide on candles of this source"):
        Scheduler(session, feed, clock)


def test_a_held_asset_without_a_price_keeps_the_others_tradable():
    """It is halted or delisted: it counts at its last close, and no order of it is sent."""
    scheduler, session, feed, clock = started(close_of(KNOWN) + 10 * SECOND)
    assert scheduler.step() == "done"
    prices = session.broker.prices
    own, prices.quote = prices.quote, lambda name, at: None if name == "C" else own(name, at)
    feed.late = dict.fromkeys((("C", row) for row in range(KNOWN + 1, BARS)), 1000 * HOUR)
    before = session.ledger.all_units()["C"]
    clock.set(close_of(KNOWN + 6) + 10 * SECOND)  # it is waited for no longer
    assert scheduler.step() == "done"
    bar = MARKET.timestamps[KNOWN + 6]
    assert "C" not in {order.asset for order in session.ledger.orders(bar)}
    session.ledger.steer(clock.now(), "flat", "out")
    clock.set(close_of(KNOWN + 7) + 10 * SECOND)
    assert scheduler.step() == "done"
    held = {name: units for name, units in session.ledger.all_units().items() if units and name}
    assert held == {"C": before}
    prices.quote = lambda name, at: None
    clock.set(close_of(KNOWN + 8) + 10 * SECOND)
    assert scheduler.step() == "blocked"  # a venue without any price


def test_a_revised_past_halts_once_and_a_person_lets_it_go_on(tmp_path):
    """Each decision that the revised candle is part of is compared; one resume sees to all."""
    clock = SimulatedClock(close_of(KNOWN) + 10 * SECOND)
    session, feed = session_of(clock, tmp_path), Candles(clock)
    scheduler = Scheduler(session, feed, clock)
    scheduler.run(until=close_of(KNOWN + 2) + 60 * SECOND)
    assert len(decided(session)) == 3
    session.close()
    close = MARKET.panel.close.copy()
    close[KNOWN, 2] *= 1.05
    revised = PricePanel(MARKET.timestamps, NAMES, close=close)
    for row in range(KNOWN + 3, KNOWN + 6):  # another process each time, as of cron
        clock.set(close_of(row) + 10 * SECOND)
        history = revised.subset(slice(0, row))
        again = session_of(clock, tmp_path, session.broker, history)
        phase = Scheduler(again, feed, clock).step()
        assert phase == ("skipped" if row == KNOWN + 3 else "done")
        if phase == "skipped":
            assert "otherwise than before at 3 bars up to" in again.ledger.trading[1]
            again.resume("the exchange has revised a candle")
        again.close()


def test_a_market_that_begins_after_the_first_decision_is_named(tmp_path):
    clock = SimulatedClock(close_of(KNOWN) + 10 * SECOND)
    session, feed = session_of(clock, tmp_path), Candles(clock)
    assert Scheduler(session, feed, clock).step() == "done"
    session.close()
    later = load_market(MARKET.panel.subset(slice(KNOWN + 1, None)), features=[])
    env = PortfolioEnv(later, observation="index", action="weights", window=1)
    policy = make_baseline("equal_weight", env.market)
    again = Session(tmp_path, "test", Predictor(policy, env), session.broker, clock)
    with pytest.raises(DataError, match="give a market with the bars before it"):
        again.open(MARKET.panel)


def test_a_revised_candle_is_told():
    scheduler, session, feed, clock = started(close_of(KNOWN) + 10 * SECOND)
    scheduler.step()
    clock.set(close_of(KNOWN + 1) + 10 * SECOND)
    feed.changes = 1
    scheduler.step()
    assert [row["name"] for row in session.ledger.query("SELECT name FROM alerts")] == ["revised"]


def test_bars_of_another_length_are_refused():
    _, session, feed, clock = started(close_of(KNOWN))
    feed.length = 2 * feed.length
    with pytest.raises(ArgumentError, match="must be as long as the bars of the market"):
        Scheduler(session, feed, clock)


@pytest.mark.parametrize(
    "made", [Timing, AlertBounds, Faults, PaperOptions], ids=lambda made: made.__name__
)
def test_durations_that_no_clock_can_count_are_refused(made):
    """Nanoseconds of 64 bits end after 292 years."""
    names = {"grace", "pause", "age", "outage_seconds", "latency"}
    own = names & {field.name for field in fields(made)}
    assert own
    for name in own:
        with pytest.raises(ArgumentError, match=f"{name}=1e\\+300 must be a finite number"):
            made(**{name: 1e300})
