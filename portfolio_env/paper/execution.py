"""Execution: a request leaves only after the ledger holds it, and no answer is never taken for no.

For each order: the intent is committed with its plan, ``sending`` is committed, the request is
sent, its outcome is committed. An order without an outcome is unknown; it is looked up, and counts
as not accepted only where the venue cannot accept the request any more and still does not know it.

In a reconciliation the venue says what is held, and the ledger what was meant. Nothing is invented:
no fill without a trade of the venue, no flow without its record or a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from portfolio_env.errors import DataError, PortfolioError
from portfolio_env.live.instruments import Instrument
from portfolio_env.live.money import ZERO, exactly
from portfolio_env.paper.broker import (
    SECOND,
    Accepted,
    Activity,
    Broker,
    Clock,
    NotFound,
    OrderReport,
    Refused,
    Unknown,
)
from portfolio_env.paper.decisions import fit_purchases
from portfolio_env.paper.ledger import ACTIVE, DONE, FLAT, HALTED, HELD, PARTIAL, REDUCING, Ledger
from portfolio_env.paper.orders import ENDED, UNFINISHED, Fill, Flow, Order, State

VALIDITY = 5 * SECOND
"""Time in which a request may be accepted."""

PATIENCE = 3600 * SECOND
"""Time after which an order that cannot be looked up halts the session."""

SKEW = SECOND
"""Largest difference of the clocks of machine and venue at which orders are sent."""

ATTEMPTS = 3
"""Requests of one order, each after the one before is known not to have been accepted."""


class Unresolved(PortfolioError):  # noqa: N818 (a state, not a fault of the program)
    """The state of an order cannot be found out."""


def send(ledger: Ledger, broker: Broker, clock: Clock, order: Order) -> None:
    """Send an order once; one that may not be sent is denied."""
    now = clock.now()
    if reason := _denial(ledger, order, now):
        if ledger.order_state(order.id) is State.PLANNED:
            ledger.move(order, State.DENIED, now, reason=reason)
        return
    valid_until = min(now + VALIDITY, order.deadline)
    ledger.move(order, State.SENDING, now, valid_until=str(valid_until))
    outcome = broker.submit(order, valid_until)
    now = clock.now()
    match outcome:
        case Accepted():
            _settle(ledger, broker, clock, order, outcome.report)
        case Refused():
            ledger.move(order, State.REJECTED, now, reason=f"{outcome.code}: {outcome.reason}")
        case _:
            ledger.move(order, State.UNKNOWN, now, reason=outcome.error)


def _denial(ledger: Ledger, order: Order, now: np.datetime64) -> str:
    """Return why an order may not be sent now; "" if it may."""
    trading, _ = ledger.trading
    if now > order.deadline:
        return "too late"
    if trading == HALTED:
        return "halted"
    if trading in (REDUCING, FLAT):
        held = ledger.all_units().get(order.asset, ZERO)
        with exactly():
            if abs(held + order.units) > abs(held) or held * (held + order.units) < 0:
                return "only what lowers a position is sent"
    return "" if trading in (ACTIVE, REDUCING, FLAT) else f"the state {trading} is unknown"


def _settle(
    ledger: Ledger, broker: Broker, clock: Clock, order: Order, report: OrderReport
) -> bool:
    """Write the state that a venue reports once its fills are booked; return whether they are."""
    filled = ledger.filled(order.id)
    found = None if filled == report.filled else broker.activity(ledger.cursor)
    with ledger.batch():
        if isinstance(found, Activity):
            record(ledger, found, clock.now())
            filled = ledger.filled(order.id)
        ended = filled == report.filled and report.state in ENDED
        state = report.state if ended or report.state not in ENDED else State.OPEN
        if ledger.order_state(order.id) is not state:
            ledger.move(order, state, clock.now(), reason=report.reason)
    return filled == report.filled


def resolve(ledger: Ledger, broker: Broker, clock: Clock) -> None:
    """Find out the state of every order that was sent, and book its fills.

    Raises:
        Unresolved: If the venue does not say within ``PATIENCE``.
    """
    for order in ledger.orders(states=(State.SENDING, State.UNKNOWN, State.OPEN)):
        state = ledger.order_state(order.id)
        if state is State.SENDING:
            reason = "stopped before the answer"
            ledger.move(order, State.UNKNOWN, clock.now(), reason=reason)
        if state in (State.SENDING, State.UNKNOWN):
            _look_up(ledger, broker, clock, order)
        if ledger.order_state(order.id) is State.OPEN:
            _await_end(ledger, broker, clock, order)


def _look_up(ledger: Ledger, broker: Broker, clock: Clock, order: Order) -> None:
    """Bring an unknown order to a state: the venue knows it, or cannot accept it any more."""
    rules, started, looks = broker.capabilities, clock.now(), 0
    closed = ledger.valid_until(order.id) + rules.window
    while True:
        found = broker.find(order)
        match found:
            case OrderReport():
                _settle(ledger, broker, clock, order, found)
                return
            case NotFound() if clock.now() <= closed:
                wait = closed - clock.now() + np.timedelta64(1, "ns")
                if wait <= VALIDITY + rules.window:
                    clock.sleep(wait)
                    continue
                looks = 0  # the clock went back: it may be right again at the next look
            case NotFound():
                seen = isinstance(poll(ledger, broker, clock), Activity)
                looks = looks + 1 if seen and not ledger.filled(order.id) else 0
                if looks >= rules.looks:
                    reason = f"not found {looks} times after {closed}"
                    ledger.move(order, State.NOT_ACCEPTED, clock.now(), reason=reason)
                    return
            case _:
                looks = 0  # a look that fails says nothing
        _check_patience(order, clock, started)
        clock.sleep(rules.pause)


def _await_end(ledger: Ledger, broker: Broker, clock: Clock, order: Order) -> None:
    """Wait until an open order has ended and its fills are booked; cancel it at its deadline."""
    started = clock.now()
    while True:
        found = broker.find(order)
        if isinstance(found, OrderReport):
            if _settle(ledger, broker, clock, order, found) and found.state in ENDED:
                return
            if found.state is State.OPEN and clock.now() > order.deadline:
                broker.cancel(order)
        _check_patience(order, clock, max(started, order.deadline))
        clock.sleep(min(broker.capabilities.pause, SECOND))


def _check_patience(order: Order, clock: Clock, started: np.datetime64) -> None:
    if clock.now() - started > PATIENCE:
        raise Unresolved(
            f"the state of the order of {order.units:f} {order.asset} ({order.id}) cannot be found "
            f"out: look at the venue, then trade.py resolve FOLDER {order.id}"
        )


def write_off(ledger: Ledger, order_id: str, at: np.datetime64, reason: str) -> None:
    """Write that an order has ended at the venue, in the words of a person who has looked there.

    It is not sent again. What was filled of it is known by the venue's records alone, as always.

    Raises:
        DataError: If there is no such order under way.
    """
    under_way = {own.id: own for own in ledger.orders(states=UNFINISHED)}
    order = under_way.get(order_id)
    if order is None:
        names = ", ".join(under_way) or "none"
        raise DataError(f"order {order_id} is not under way: those that are: {names}")
    state = ledger.order_state(order.id)
    with ledger.batch():
        if state is State.SENDING:
            ledger.move(order, State.UNKNOWN, at, reason="stopped before the answer")
        end = State.DENIED if state is State.PLANNED else State.CANCELLED
        ledger.move(order, end, at, reason=reason)


def carry_out(
    ledger: Ledger, broker: Broker, clock: Clock, bar: np.datetime64, *, buys: bool
) -> None:
    """Bring one side of a bar's orders to an end: send those that are not at the venue.

    Raises:
        Unresolved: As of ``resolve``.
    """
    resolve(ledger, broker, clock)
    for _ in range(ATTEMPTS):
        waiting = ledger.orders(bar, states=(State.PLANNED, State.NOT_ACCEPTED))
        own = [order for order in waiting if (order.units > 0) == buys]
        for order in own:
            send(ledger, broker, clock, order)
        if not own:
            return
        resolve(ledger, broker, clock)


def rebalance(
    ledger: Ledger,
    broker: Broker,
    clock: Clock,
    bar: np.datetime64,
    instruments: Mapping[str, Instrument],
) -> tuple[str, str]:
    """Carry out the plan of a bar, sales before purchases.

    Returns:
        How the bar ended, and what was not filled as a whole.

    Raises:
        Unresolved: If the state of an order cannot be found out.
    """
    carry_out(ledger, broker, clock, bar, buys=False)
    if not broker.capabilities.margin:
        fit_purchases(ledger, clock, bar, instruments)
    carry_out(ledger, broker, clock, bar, buys=True)
    states = ledger.order_states(bar)
    if unended := [own for own, state in states.items() if state not in ENDED]:
        raise Unresolved(f"the order {unended[0].id} of {unended[0].asset} has not ended")
    replaced = {own.asset for own in states if own.revision > 0}
    short = [
        f"{own.asset} {state}"
        for own, state in states.items()
        if state is not State.FILLED and not (own.revision == 0 and own.asset in replaced)
    ]
    if not states:
        return HELD, ""
    return (PARTIAL, ", ".join(short[:5])) if short else (DONE, "")


@dataclass(frozen=True)
class Reconciled:
    """Outcome of a reconciliation.

    Attributes:
        differences: Units at the venue and in the ledger by asset, "" for money, where they differ
            and nothing explains it.
        foreign: Ids of open orders that are not ours: they are never touched.
        fault: Sentence on what could not be checked; "" where all was.
    """

    differences: Mapping[str, tuple[Decimal, Decimal]]
    foreign: tuple[str, ...] = ()
    fault: str = ""

    @property
    def reason(self) -> str:
        """Return what is wrong in a sentence; "" if nothing is."""
        if self.fault or not self.differences:
            return self.fault
        parts = [
            f"{name or 'cash'} {venue:f} at the venue and {own:f} in the ledger"
            for name, (venue, own) in list(self.differences.items())[:5]
        ]
        return f"holdings differ and nothing explains it: {'; '.join(parts)}"


def poll(ledger: Ledger, broker: Broker, clock: Clock) -> Activity | Unknown:
    """Book what the venue has recorded since the last time; each record once."""
    found = broker.activity(ledger.cursor)
    if isinstance(found, Activity):
        record(ledger, found, clock.now())
    return found


def record(ledger: Ledger, found: Activity, now: np.datetime64) -> None:
    """Book fills and flows that a venue has reported; each record once."""
    moved = found.cursor != ledger.cursor
    if not (found.fills or found.flows or moved):
        return
    records: list[Fill | Flow] = [*found.fills, *found.flows]
    with ledger.batch():
        for each in sorted(records, key=lambda own: own.at):
            ledger.book(each, now)
        if moved:
            ledger.append("cursor", now, cursor=found.cursor)


def reconcile(
    ledger: Ledger, broker: Broker, clock: Clock, instruments: Mapping[str, Instrument]
) -> Reconciled:
    """Compare the ledger with the venue, some times over where they differ: reports may lag.

    Args:
        ledger: The ledger.
        broker: The venue.
        clock: The clock.
        instruments: Rules of trading by asset: less than a lot is no difference.
    """
    found = Reconciled({}, fault="the venue was not asked")
    looks = broker.capabilities.looks + 1
    for look in range(looks):
        if look:
            clock.sleep(broker.capabilities.pause)
        found = _compared(ledger, broker, clock, instruments)
        if not found.reason:
            break
    if found.differences or found.foreign:
        differences = {name: [f"{n:f}" for n in pair] for name, pair in found.differences.items()}
        foreign = list(found.foreign)
        told = {"reason": found.reason, "differences": differences, "foreign": foreign}
        ledger.append("note", clock.now(), note="reconciliation", **told)
    return found


def _compared(
    ledger: Ledger, broker: Broker, clock: Clock, instruments: Mapping[str, Instrument]
) -> Reconciled:
    moment, now = broker.time(), clock.now()
    if isinstance(moment, Unknown):
        return Reconciled({}, fault=f"the venue cannot be asked: {moment.error}")
    if abs(moment - now) > SKEW:
        seconds = float((moment - now) / SECOND)
        return Reconciled({}, fault=f"the venue's clock is {seconds:+.1f} s off: set the clock")
    listed, before = broker.open_orders(), poll(ledger, broker, clock)
    held, after = broker.balances(), poll(ledger, broker, clock)
    for answer in (listed, before, held, after):
        if isinstance(answer, Unknown):
            return Reconciled({}, fault=f"the venue cannot be asked: {answer.error}")
    assert not isinstance(held, Unknown)
    assert not isinstance(listed, Unknown)
    rounded = broker.capabilities.cash_step * ledger.count("fills")
    own, venue = ledger.all_units(), {"": held.cash, **held.units}
    differences = {}
    for name in sorted({*own, *venue}):
        pair = venue.get(name, ZERO), own.get(name, ZERO)
        rules = instruments.get(name)
        with exactly():
            off = abs(pair[0] - pair[1])
        if not off.is_finite() or (
            off and not (off < rules.lot if rules else not name and off <= rounded)
        ):
            differences[name] = pair
    foreign = tuple(each.id for each in listed if ledger.order(each.id) is None)
    return Reconciled(differences, foreign)


def accept(ledger: Ledger, at: np.datetime64, reason: str) -> dict[str, Decimal]:
    """Book the differences that were found last as external flows, in the words of a person.

    The venue is not asked: nothing but what was shown is accepted, and the next comparison says
    whether that was all.

    Returns:
        Change by asset, "" for money.

    Raises:
        DataError: If there are none, or the ledger has moved on since they were found.
    """
    notes = [each for each in ledger.events("note") if each.body.get("note") == "reconciliation"]
    found, changes = notes[-1].body["differences"] if notes else {}, {}
    own = ledger.all_units()
    for name, (venue, before) in found.items():
        if own.get(name, ZERO) != Decimal(before):
            raise DataError(
                f"{name or 'cash'} was {before} in the ledger when it was compared, and is "
                f"{own.get(name, ZERO):f} now: let the session compare again"
            )
        with exactly():
            changes[name] = Decimal(venue) - Decimal(before)
    if not changes:
        raise DataError("no differences were found: there is nothing to accept")
    with ledger.batch():
        for name, change in changes.items():
            key = f"accepted|{name}|{at}|{ledger.head()[0]}"
            ledger.book(Flow(key, "external", name, change, at, reason), at)
    return changes
