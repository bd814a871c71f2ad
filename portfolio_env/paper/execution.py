"""Execution: a request leaves only after the ledger holds it, and no answer is never taken for no.

For each order: the intent is committed with its plan, ``sending`` is committed, the request is
sent, its outcome is committed. An order without an outcome is unknown; it is looked up, and counts
as not accepted only where the venue cannot accept the request any more and still does not know it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from portfolio_env.errors import DataError, PortfolioError
from portfolio_env.live.instruments import Instrument
from portfolio_env.live.money import ZERO, exactly, scaled_down
from portfolio_env.paper.broker import Accepted, Activity, Broker, NotFound, OrderReport, Refused
from portfolio_env.paper.clock import SECOND, Clock
from portfolio_env.paper.ledger import ACTIVE, FLAT, HALTED, REDUCING, Ledger
from portfolio_env.paper.orders import ENDED, UNFINISHED, Order, State, order_id
from portfolio_env.paper.reconciliation import poll, record

DECIDED, PLANNED = "decided", "planned"
DONE, HELD, PARTIAL = "done", "held", "partial"
BLOCKED, SKIPPED, MISSED = "blocked", "skipped", "missed"
PHASES = (DECIDED, PLANNED, DONE, HELD, PARTIAL, BLOCKED, SKIPPED, MISSED)
"""Phases of a bar: decided, planned, and how it ended: all orders filled, nothing to trade, not all
filled, refused by a check, not decided on, passed while nobody was there."""

VALIDITY = 5 * SECOND
"""Time in which a request may be accepted."""

PATIENCE = 3600 * SECOND
"""Time after which an order that cannot be looked up halts the session."""

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
                clock.sleep(closed - clock.now() + np.timedelta64(1, "ns"))
                continue
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


def commit_plan(
    ledger: Ledger,
    clock: Clock,
    bar: np.datetime64,
    units: Sequence[Decimal],
    prices: Sequence[Decimal],
    deadline: np.datetime64,
    body: Mapping[str, Any],
    revision: int = 0,
) -> None:
    """Commit the intent to send orders, sales first and the largest of each side first.

    Args:
        ledger: The ledger.
        clock: The clock.
        bar: The bar that was decided at.
        units: (N,) signed units; 0 is no order.
        prices: (N,) prices that they were sized at.
        deadline: Moment after which nothing of them may be filled.
        body: The other entries of the event of the plan.
        revision: Number of the plan of this bar.
    """
    orders = [
        Order(
            order_id(ledger.session, bar, name, revision), bar, revision, name, own, price, deadline
        )
        for name, own, price in zip(ledger.assets, units, prices, strict=True)
        if own
    ]
    # the largest first: it pays a fixed fee that a small one cannot
    orders.sort(key=lambda own: (own.units > 0, -abs(own.units) * own.reference))
    with ledger.batch():
        told = [order.to_json() for order in orders]
        ledger.append("plan", clock.now(), bar, revision=revision, orders=told, **body)
        ledger.append("phase", clock.now(), bar, phase=PLANNED)


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
        _fit_purchases(ledger, clock, bar, instruments)
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


def _fit_purchases(
    ledger: Ledger, clock: Clock, bar: np.datetime64, instruments: Mapping[str, Instrument]
) -> None:
    """Cut all purchases by one factor where the money for them is short, in a second plan."""
    body = ledger.body("plans", bar) or {}
    states = ledger.order_states(bar)
    orders = [own for own in states if own.revision == body["revision"]]
    planned = [own for own in orders if states[own] is State.PLANNED]
    if not planned or body["revision"] > 0 or any(own.units < 0 for own in planned):
        return
    costs = {name: Decimal(cost) for name, cost in body["costs"].items()}
    paid = any(ledger.filled(own.id) for own in orders)
    with exactly():
        parts = (own.units * own.reference + costs.get(own.asset, ZERO) for own in planned)
        needed = sum(parts, ZERO)
        room = max(ledger.holdings.cash - (ZERO if paid else Decimal(body["fee"])), ZERO)
    if needed <= room:
        return
    cut = dict.fromkeys(ledger.assets, (ZERO, Decimal(1)))
    for own in planned:
        rules = instruments[own.asset]
        units = rules.whole(scaled_down(own.units, room, needed), strictly=True)
        with exactly():
            worthwhile = units * own.reference >= rules.min_notional
        cut[own.asset] = (units if worthwhile else ZERO, own.reference)
    told = {name: body[name] for name in ("row", "turnover", "costs", "fee")}
    sizes, prices = zip(*cut.values(), strict=True)
    with ledger.batch():
        for own in planned:
            ledger.move(own, State.DENIED, clock.now(), reason="money is short")
        more = {**told, "reason": "money is short"}
        commit_plan(ledger, clock, bar, sizes, prices, planned[0].deadline, more, 1)
