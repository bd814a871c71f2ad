"""Protocols of a session's outside: the clock, the venue, and prices of a simulated one.

A broker never raises for what a venue can do: no answer is ``Unknown``, and that is not "no".
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple, Protocol

import numpy as np

from portfolio_env.live.instruments import Instrument
from portfolio_env.live.money import ZERO
from portfolio_env.paper.orders import Fill, Flow, Order, State

SECOND = np.timedelta64(1_000_000_000, "ns")


class Clock(Protocol):
    """Clock protocol: the present in UTC, and a way to wait."""

    def now(self) -> np.datetime64:
        """Return the present, datetime64[ns] in UTC."""
        ...

    def sleep(self, duration: np.timedelta64) -> None:
        """Wait."""
        ...


class SystemClock:
    """Clock of the machine."""

    def now(self) -> np.datetime64:
        """Return the present."""
        return np.datetime64(time.time_ns(), "ns")

    def sleep(self, duration: np.timedelta64) -> None:
        """Wait."""
        time.sleep(max(0.0, float(duration / SECOND)))


class SimulatedClock:
    """Clock that stands still until it is set or waited for: waiting takes no time.

    Args:
        start: Its first present.
    """

    def __init__(self, start: np.datetime64) -> None:
        self._now = start.astype("datetime64[ns]")

    def now(self) -> np.datetime64:
        """Return the present."""
        return self._now

    def sleep(self, duration: np.timedelta64) -> None:
        """Go on by a duration."""
        self._now = self._now + max(duration, np.timedelta64(0, "ns"))

    def set(self, moment: np.datetime64) -> None:
        """Go on to a moment; one that has passed changes nothing."""
        self._now = max(self._now, moment.astype("datetime64[ns]"))


class Quote(NamedTuple):
    """Price of an asset now.

    Attributes:
        price: The middle of bid and ask; the last price where there is none.
        tradable: An order would be filled now.
    """

    price: Decimal
    tradable: bool = True


@dataclass(frozen=True)
class OrderReport:
    """State of an order as the venue says it.

    Attributes:
        id: Our id of it; that of the venue where the order is not ours.
        state: OPEN, FILLED, CANCELLED, EXPIRED or REJECTED.
        filled: Signed units that were filled so far.
        reason: Words of the venue, where it gave any.
    """

    id: str
    state: State
    filled: Decimal = ZERO
    reason: str = ""


@dataclass(frozen=True)
class Accepted:
    """Outcome of a request that the venue has accepted."""

    report: OrderReport


@dataclass(frozen=True)
class Refused:
    """Outcome of a request that the venue has refused: nothing of it is there, or will be.

    Attributes:
        reason: Words of the venue.
        code: Word for a kind of refusal, e.g. "funds", "precision", "minimum", "halted".
    """

    reason: str
    code: str = "refused"


@dataclass(frozen=True)
class NotFound:
    """Answer of a venue that knows no order of an id, at this moment."""


@dataclass(frozen=True)
class Unknown:
    """Outcome of a request without an answer that can be relied on: it may have happened.

    Attributes:
        error: The fault, in words.
    """

    error: str


@dataclass(frozen=True)
class Balances:
    """Holdings as the venue says them, all that open orders reserve included.

    Attributes:
        cash: Money.
        units: Units by asset; an asset that it lacks is not held.
    """

    cash: Decimal
    units: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True)
class Activity:
    """Fills and flows since a cursor; some may have been reported before.

    Attributes:
        fills: Fills, of orders that are not ours too.
        flows: Flows of which the venue has a record.
        cursor: Text to ask from the next time.
    """

    fills: tuple[Fill, ...]
    flows: tuple[Flow, ...]
    cursor: str


@dataclass(frozen=True)
class Capabilities:
    """Properties of a venue that the protocol for orders relies on.

    Attributes:
        window: Longest time after the validity of a request has ended in which it may still be
            accepted: delays and differences of clocks.
        looks: Number of look-ups without a result, after that, by which an order counts as not
            accepted.
        pause: Time between them.
        margin: Cash and holdings may be negative.
        cash_step: Money is booked in multiples of it, so that each fill may be off by one; 0 is
            exact.
    """

    window: np.timedelta64 = SECOND
    looks: int = 3
    pause: np.timedelta64 = 5 * SECOND
    margin: bool = False
    cash_step: Decimal = ZERO


class Broker(Protocol):
    """Broker protocol: a venue as the engine sees it. Every method is one request, and returns.

    Attributes:
        name: Name of the venue.
        capabilities: Its properties.
    """

    name: str
    capabilities: Capabilities

    def time(self) -> np.datetime64 | Unknown:
        """Return the venue's clock, in UTC."""
        ...

    def instruments(self, assets: Sequence[str]) -> Mapping[str, Instrument] | Unknown:
        """Return the rules of trading of each asset; one that it lacks cannot be traded."""
        ...

    def quotes(self, assets: Sequence[str]) -> Mapping[str, Quote] | Unknown:
        """Return prices by asset; an asset without a price so far is left out."""
        ...

    def balances(self) -> Balances | Unknown:
        """Return cash and holdings."""
        ...

    def submit(self, order: Order, valid_until: np.datetime64) -> Accepted | Refused | Unknown:
        """Send an order, which the venue must not accept after a moment."""
        ...

    def cancel(self, order: Order) -> Accepted | Refused | Unknown:
        """Cancel an order, which may be filled in the meantime: the report says."""
        ...

    def find(self, order: Order) -> OrderReport | NotFound | Unknown:
        """Return the state of an order by our id, be it open or not."""
        ...

    def open_orders(self) -> Sequence[OrderReport] | Unknown:
        """Return all open orders, those that are not ours too."""
        ...

    def activity(self, cursor: str) -> Activity | Unknown:
        """Return fills and flows since a cursor, "" for all."""
        ...


class Accrual(NamedTuple):
    """Interest and delistings of a moment.

    Attributes:
        at: The moment.
        rates: Interest that a unit of cash earns, of debt pays, of a short position pays.
        prices: Prices by asset at which short positions pay.
        delisted: Money by asset that a unit becomes.
    """

    at: np.datetime64
    rates: tuple[Decimal, Decimal, Decimal]
    prices: Mapping[str, Decimal]
    delisted: Mapping[str, Decimal]


class Prices(Protocol):
    """Prices protocol: what a simulated venue knows of the market."""

    def quote(self, asset: str, at: np.datetime64) -> Quote | None:
        """Return the price of an asset at a moment; None where it never had one."""
        ...

    def impact(self, asset: str, at: np.datetime64) -> float:
        """Return the coefficient of the square root of the money traded."""
        ...

    def capacity(self, asset: str, at: np.datetime64) -> Decimal | None:
        """Return the money that orders of the bar can be filled with; None is any."""
        ...

    def share(self, asset: str, bar: np.datetime64) -> Decimal:
        """Return the largest share of an order of a bar that is filled."""
        ...

    def accruals(self, since: np.datetime64, until: np.datetime64) -> Iterator[Accrual]:
        """Yield interest and delistings after a moment, until another."""
        ...
