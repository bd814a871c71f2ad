"""Faults: what goes wrong at a venue or on the way to it, seeded and independent of call order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np

from portfolio_env.checks import YEAR, check_integer, check_number
from portfolio_env.live.instruments import Instrument
from portfolio_env.names import check_keywords
from portfolio_env.paper.broker import (
    SECOND,
    Accepted,
    Activity,
    Balances,
    Broker,
    Clock,
    NotFound,
    OrderReport,
    Quote,
    Refused,
    Unknown,
)
from portfolio_env.paper.orders import Order

T = TypeVar("T")
TIMEOUT = 10 * SECOND
"""Time that a caller waits for an answer that does not come."""


@dataclass(frozen=True)
class Faults:
    """Probabilities of faults, each a function of the seed, its kind, the bar and the order alone.

    Attributes:
        seed: Seed.
        refused: An order is refused.
        partial: An order is filled in part, a share uniform in (0, 1), and the rest lapses.
        halted: An asset cannot be traded at a bar.
        gap: The price of an asset jumps between the decision and the fill.
        gap_size: Standard deviation of the logarithm of that jump.
        lost_request: A request to trade does not arrive, and the caller is not answered.
        lost_answer: It is carried out, and the caller is not answered.
        late_request: It arrives after the caller has given up waiting.
        outage: No request is answered, for a time of ``outage_seconds`` in which it falls.
        outage_seconds: Length of outages.
        repeated: Fills are reported once more.
        lagging: A balance is that of the request before.
    """

    seed: int = 0
    refused: float = 0.0
    partial: float = 0.0
    halted: float = 0.0
    gap: float = 0.0
    gap_size: float = 0.05
    lost_request: float = 0.0
    lost_answer: float = 0.0
    late_request: float = 0.0
    outage: float = 0.0
    outage_seconds: float = 60.0
    repeated: float = 0.0
    lagging: float = 0.0

    def __post_init__(self) -> None:
        """Check every number."""
        check_integer("seed", self.seed, 0)
        for each in fields(self):
            if each.name != "seed":
                high = {"gap_size": 10.0, "outage_seconds": YEAR}.get(each.name, 1.0)
                check_number(each.name, getattr(self, each.name), 0, high)

    def draw(self, kind: str, *key: object) -> float:
        """Return a number in [0, 1) that depends on the seed, the kind and the key alone."""
        text = "|".join(map(str, (self.seed, kind, *key)))
        found = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return (int.from_bytes(found, "big") >> 11) * 2.0**-53

    def happens(self, kind: str, *key: object) -> bool:
        """Return whether a fault happens."""
        share = getattr(self, kind)
        return share > 0 and self.draw(kind, *key) < share

    def jump(self, *key: object) -> float:
        """Return the factor of a price by a gap; 1 without one."""
        if not self.happens("gap", *key):
            return 1.0
        across, around = (max(self.draw(f"gap {n}", *key), 1e-300) for n in (1, 2))
        normal = np.sqrt(-2 * np.log(across)) * np.cos(2 * np.pi * around)
        return float(np.exp(self.gap_size * normal))

    @property
    def on_the_way(self) -> bool:
        """Return whether anything goes wrong between caller and venue."""
        names = ("lost_request", "lost_answer", "late_request", "outage", "repeated", "lagging")
        return any(getattr(self, name) for name in names)


SCENARIOS: Mapping[str, Faults] = {
    "none": Faults(),
    "flaky": Faults(
        refused=0.02, partial=0.1, lost_request=0.05, lost_answer=0.05, late_request=0.05,
        outage=0.02, repeated=0.2, lagging=0.1,
    ),
    "outage": Faults(outage=0.2, outage_seconds=600.0),
    "gap": Faults(gap=0.2, gap_size=0.05),
}  # fmt: skip
"""Faults by the name of a scenario."""


def with_seed(name: str, seed: int) -> Faults:
    """Return the faults of a scenario by its name.

    Raises:
        ArgumentError: If there is none of this name.
    """
    check_keywords("faults", "scenario", [name], list(SCENARIOS))
    return replace(SCENARIOS[name], seed=seed)


class Flaky:
    """A broker behind an unreliable network.

    Args:
        broker: The broker.
        faults: The faults on the way to it.
        clock: The clock that passes while a caller waits.
    """

    def __init__(self, broker: Broker, faults: Faults, clock: Clock) -> None:
        self.broker, self.faults, self.clock = broker, faults, clock
        self.name, self.capabilities = broker.name, broker.capabilities
        self._sent: dict[str, int] = {}
        self._balances: Balances | Unknown | None = None
        self._asked = 0

    def _asked_for(self, ask: Callable[[], T]) -> T | Unknown:
        """Return what the venue answers, unless there is an outage."""
        now, length = self.clock.now(), max(int(self.faults.outage_seconds * 1e9), 1)
        since = int(now.astype("datetime64[ns]").astype(np.int64))
        if self.faults.happens("outage", since // length):
            self.clock.sleep(TIMEOUT)
            return Unknown("the venue does not answer")
        self._asked += 1
        return ask()

    def time(self) -> np.datetime64 | Unknown:
        """Return the venue's clock."""
        return self._asked_for(self.broker.time)

    def instruments(self, assets: Sequence[str]) -> Mapping[str, Instrument] | Unknown:
        """Return the rules of trading."""
        return self._asked_for(lambda: self.broker.instruments(assets))

    def quotes(self, assets: Sequence[str]) -> Mapping[str, Quote] | Unknown:
        """Return prices by asset."""
        return self._asked_for(lambda: self.broker.quotes(assets))

    def balances(self) -> Balances | Unknown:
        """Return cash and holdings, at times as they were at the request before."""
        before, self._balances = self._balances, self._asked_for(self.broker.balances)
        lags = self.faults.happens("lagging", self._asked)
        return before if lags and isinstance(before, Balances) else self._balances

    def submit(self, order: Order, valid_until: np.datetime64) -> Accepted | Refused | Unknown:
        """Send an order, whose request or answer may be lost or late."""
        attempt = self._sent[order.id] = self._sent.get(order.id, 0) + 1
        key = (order.bar, order.id, attempt)
        if self.faults.happens("lost_request", *key):
            self.clock.sleep(TIMEOUT)
            return Unknown("no answer")
        if self.faults.happens("late_request", *key):
            waits = np.timedelta64(int(self.faults.draw("lateness", *key) * 1e10), "ns")
            self.clock.sleep(waits)
            self.broker.submit(order, valid_until)
            self.clock.sleep(TIMEOUT - waits)
            return Unknown("no answer")
        found = self._asked_for(lambda: self.broker.submit(order, valid_until))
        if self.faults.happens("lost_answer", *key):
            self.clock.sleep(TIMEOUT)
            return Unknown("no answer")
        return found

    def cancel(self, order: Order) -> Accepted | Refused | Unknown:
        """Cancel an order."""
        return self._asked_for(lambda: self.broker.cancel(order))

    def find(self, order: Order) -> OrderReport | NotFound | Unknown:
        """Return the state of an order."""
        return self._asked_for(lambda: self.broker.find(order))

    def open_orders(self) -> Sequence[OrderReport] | Unknown:
        """Return all open orders."""
        return self._asked_for(self.broker.open_orders)

    def activity(self, cursor: str) -> Activity | Unknown:
        """Return fills and flows since a cursor, at times all over again and backwards."""
        again = self.faults.happens("repeated", self._asked)
        found = self._asked_for(lambda: self.broker.activity("" if again else cursor))
        if again and isinstance(found, Activity):
            return Activity(found.fills[::-1], found.flows[::-1], found.cursor)
        return found
