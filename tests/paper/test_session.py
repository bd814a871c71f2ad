"""A session: nothing is sent that may not be, and it goes on where it stopped."""

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from helpers.paper.crashes import SECONDS, START, World

from portfolio_env.errors import DataError
from portfolio_env.paper import Balances, Flow, Quote, Refused, Unknown, execution
from portfolio_env.paper.execution import SKEW, accept
from portfolio_env.paper.faults import Faults
from portfolio_env.paper.orders import UNFINISHED
from portfolio_env.paper.session import Session


def sent(world):
    return len(world.venue._book.placed)


def test_a_bar_is_decided_on_once():
    world = World()
    phase, session = world.trade(START)
    assert phase == "done"
    before = world.ledger.head(), sent(world)
    assert session.on_bar(world.bars(START)) == "done"
    assert world.trade(START)[0] == "done"  # by another process
    assert (world.ledger.head(), sent(world)) == before
    with pytest.raises(DataError, match="refuses what is there"):
        world.ledger.append("decision", world.clock.now(), world.market.timestamps[START], row=0)


@pytest.mark.parametrize("late", [-1, 0, 1])
def test_no_order_of_a_stale_bar_or_one_that_is_not_closed(late):
    world = World()
    session = world.session()
    world.clock.sleep(session.max_delay + late * SECONDS)
    assert session.on_bar(world.bars(START)) == ("skipped" if late > 0 else "done")
    assert (sent(world) == 0) == (late > 0)
    early = World()
    session = early.session()
    with pytest.raises(DataError, match="is not closed yet"):
        session.on_bar(early.bars(START + 1))
    assert sent(early) == 0
    early.trade(START + 1)
    assert session.on_bar(early.bars(START)) == "blocked"  # an earlier one than the last


def test_nothing_is_sent_while_halted_until_it_is_resumed(tmp_path):
    world = World()
    _, session = world.trade(START)
    before = sent(world)
    session.halt("somebody says so")
    assert world.trade(START + 1, session)[0] == "skipped"
    assert world.ledger.trading == ("halted", "somebody says so")
    assert world.trade(START + 2)[0] == "skipped"  # in another process too
    assert sent(world) == before
    session.resume("it is well again", reducing=True)
    phase = world.trade(START + 3, session)[0]
    bar = world.market.timestamps[START + 3]
    assert phase == "partial"
    units = world.ledger.all_units()
    for order in world.ledger.orders(bar):
        state = world.ledger.order_state(order.id)
        assert (state == "denied") == (order.units > 0)
    assert all(own >= 0 for own in units.values())
    session.resume("all is well")
    assert world.trade(START + 4, session)[0] == "done"
    world.check()


def test_what_is_no_number_sends_nothing():
    nan = Decimal("NaN")

    class Mad:
        action = "weights"

        def predict(self, observation, state=None, *_, **__):
            return np.full((1, 4), np.nan), state

    world = World()
    session = world.session()
    session.predictor.policy = Mad()
    assert session.on_bar(world.bars(START)) == "blocked"
    assert world.ledger.trading[0] == "halted"
    assert sent(world) == 0
    world = World()
    world.venue.quotes = lambda names: dict.fromkeys(names, Quote(nan))
    assert world.trade(START)[0] == "held"
    assert sent(world) == 0
    world = World()
    world.trade(START)
    world.venue.quotes = lambda names: dict.fromkeys(names, Quote(nan))
    before = sent(world)
    assert world.trade(START + 1)[0] == "blocked"
    assert sent(world) == before
    del world.venue.quotes
    world.venue.balances = lambda: Balances(nan)
    assert world.trade(START + 2)[0] == "skipped"
    assert sent(world) == before


def test_a_venue_that_does_not_answer_or_has_another_clock_is_waited_for():
    world = World()
    _, session = world.trade(START)
    before, venue = sent(world), world.venue
    venue.balances = lambda: Unknown("gone")
    assert world.trade(START + 1, session)[0] == "skipped"
    assert sent(world) == before
    del venue.balances
    for skew in (SKEW, 2 * SKEW):
        venue.time = lambda skew=skew: world.clock.now() + skew
        row = START + 1 + int(skew / SECONDS)
        assert world.trade(row, session)[0] == ("done" if skew <= SKEW else "skipped")
    assert (
        "clock is +2.0 s off"
        in world.ledger.query("SELECT reason FROM bars ORDER BY bar DESC LIMIT 1")[0][0]
    )


def test_an_order_that_nobody_can_say_anything_of_halts(monkeypatch):
    world = World()
    world.venue.find = lambda order: Unknown("down")
    world.venue.submit = lambda order, valid_until: Unknown("down")
    phase, _ = world.trade(START)
    assert phase == "planned"
    assert world.ledger.trading[0] == "halted"
    assert "cannot be found out" in world.ledger.trading[1]
    (order, *_) = world.ledger.orders(states=UNFINISHED)
    assert world.ledger.order_state(order.id) == "unknown"  # never at an end by exhaustion
    del world.venue.find, world.venue.submit
    with pytest.raises(DataError, match=f"those that are: {order.id}"):
        execution.write_off(world.ledger, "0" * 32, world.clock.now(), "none")
    execution.write_off(world.ledger, order.id, world.clock.now(), "it is not there")
    phase, _ = world.trade(START)
    assert phase == "partial"  # the rest is not sent: halted
    assert sent(world) == 0
    world.ledger.steer(world.clock.now(), "active", "seen to")
    assert world.trade(START + 1)[0] == "done"
    assert not world.ledger.query("SELECT 1 FROM alerts WHERE closed = ''")
    world.check()


def test_a_clock_that_goes_back_while_an_order_is_unknown_is_not_waited_for():
    """The half hour until its validity ends by that clock is not slept through."""
    world, slept = World(), []
    lost, sleep = iter([True]), world.clock.sleep

    def submit(order, valid_until):
        if next(lost, False):
            world.clock._now -= np.timedelta64(30, "m")
            return Unknown("no answer")
        return type(world.venue).submit(world.venue, order, valid_until)

    def waited(duration):
        slept.append(duration / SECONDS)
        if len(slept) == 3:  # it is set again
            world.clock._now += np.timedelta64(30, "m")
        sleep(duration)

    session = world.session()
    world.venue.submit, world.clock.sleep = submit, waited
    assert session.on_bar(world.bars(START)) in ("done", "partial")
    assert max(slept) < 60 and len(slept) > 3
    del world.venue.submit, world.clock.sleep
    world.check()


def test_all_is_sold_whatever_the_policy_says():
    world = World()
    world.trade(START)
    world.ledger.steer(world.clock.now(), "flat", "enough")
    world.baseline = "equal_weight"  # another answer, which would halt
    assert world.trade(START + 1)[0] == "done"
    assert not any(world.ledger.holdings.units) and world.ledger.holdings.cash > 9000
    assert world.trade(START + 2)[0] == "held"
    assert world.ledger.trading == ("flat", "enough")
    world.check()


@pytest.mark.parametrize("asset", ["", "A01", "FOREIGN"])
def test_differences_that_nothing_explains_halt_until_a_person_accepts_them(asset):
    world = World()
    _, session = world.trade(START)
    units = world.venue._book.units
    units[asset] = units.get(asset, Decimal(0)) + Decimal("0.5")  # without any record
    before = sent(world)
    assert world.trade(START + 1, session)[0] == "skipped"
    assert sent(world) == before
    state, reason = world.ledger.trading
    assert state == "halted" and f"{asset or 'cash'} " in reason and "nothing explains" in reason
    assert not world.ledger.query("SELECT 1 FROM fills WHERE order_id = ''")
    accept(world.ledger, world.clock.now(), "a gift")
    with pytest.raises(DataError, match="when it was compared"):
        accept(world.ledger, world.clock.now(), "again")
    session.resume("seen to")
    assert not session.reconcile().reason
    assert world.trade(START + 2, session)[0] == "done"
    assert [event.body["reason"] for event in world.ledger.events("flow")][-1] == "a gift"


@pytest.mark.parametrize("steps", [1, 2])
def test_each_fill_may_be_off_by_a_step_of_money(steps):
    world, step = World(), Decimal("0.01")
    _, session = world.trade(START)
    world.network.capabilities = replace(world.venue.capabilities, cash_step=step)
    off = (steps * len(world.ledger.fills()) - Decimal("0.5")) * step
    world.venue._book.units[""] += off
    assert bool(session.reconcile().differences) == (steps > 1)


def test_what_the_venue_has_a_record_of_is_booked_by_itself():
    world = World()
    _, session = world.trade(START)
    for number, (kind, asset, units) in enumerate(
        [("deposit", "", "500"), ("withdrawal", "", "-1"), ("external", "A01", "0.25")]
    ):
        flow = Flow(f"x{number}", kind, asset, Decimal(units), world.clock.now())
        world.venue.deposit(flow)
    assert world.trade(START + 1, session)[0] == "done"
    world.check()
    assert world.ledger.trading[0] == "active"


def test_foreign_orders_are_named_and_left_alone(monkeypatch):
    world = World()
    _, session = world.trade(START)
    report = world.venue._book.placed[0].report
    foreign = type(report)("theirs", type(report.state)("open"))
    monkeypatch.setattr(world.venue, "open_orders", lambda: [foreign])
    monkeypatch.setattr(world.venue, "cancel", lambda order: pytest.fail("it was touched"))
    assert session.reconcile().foreign == ("theirs",)
    assert world.trade(START + 1, session)[0] == "done"


def test_a_policy_that_answers_otherwise_after_a_restart_halts():
    world = World()
    world.trade(START)
    world.baseline = "equal_weight"
    assert world.trade(START + 1)[0] == "skipped"
    assert "answers otherwise than before" in world.ledger.trading[1]


def test_two_processes_on_one_folder(tmp_path):
    world = World()
    make = lambda: Session(tmp_path, "test", world.predictor(), world.venue, world.clock)  # noqa: E731
    with make(), pytest.raises(DataError, match="is used by another process"):
        make().open()
    make().open().close()
    other = Session(tmp_path, "other", world.predictor(), world.venue, world.clock)
    with pytest.raises(DataError, match="give another folder"):
        other.open()


def test_a_refusal_says_why_and_the_bar_ends_in_part():
    world = World()
    world.venue.submit = lambda order, valid_until: Refused("closed for today", "session")
    assert world.trade(START)[0] == "partial"
    reasons = world.ledger.query("SELECT DISTINCT reason FROM orders")
    assert [row[0] for row in reasons] == ["session: closed for today"]
    assert world.ledger.query("SELECT 1 FROM alerts WHERE name = 'partial'")


def test_an_open_order_is_cancelled_at_its_deadline():
    world = World()
    world.venue.delay = np.timedelta64(3, "h")
    assert world.trade(START)[0] == "partial"
    states = world.ledger.query("SELECT DISTINCT state FROM orders WHERE attempts > 0")
    assert [row[0] for row in states] == ["cancelled"]
    world.check()


def test_faults_of_all_kinds_at_once_for_many_bars():
    faults = Faults(
        seed=7, refused=0.1, partial=0.2, halted=0.1, gap=0.2, lost_request=0.15,
        lost_answer=0.15, late_request=0.15, outage=0.05, repeated=0.3, lagging=0.2,
    )  # fmt: skip
    world, session = World(faults=faults), None
    for row in range(START, START + 12):
        world.boundaries.arm(row % 5 * 9)
        session = world.trade(row, session if row % 3 else None)[1]
        world.check()
    assert execution.ATTEMPTS >= world.ledger.query("SELECT max(attempts) FROM orders")[0][0] > 1
