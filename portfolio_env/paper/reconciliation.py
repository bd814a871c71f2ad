"""Reconciliation: the venue says what is held, the ledger what was meant; differences get a name.

Nothing is invented: no fill without a trade of the venue, no flow without its record or a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from portfolio_env.errors import DataError
from portfolio_env.live.instruments import Instrument
from portfolio_env.live.money import ZERO, exactly
from portfolio_env.paper.broker import Activity, Broker, Unknown
from portfolio_env.paper.clock import SECOND, Clock
from portfolio_env.paper.ledger import Ledger
from portfolio_env.paper.orders import Fill, Flow

SKEW = SECOND
"""Largest difference of the clocks of machine and venue at which orders are sent."""


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
