"""Orders and fills, and the states that an order may pass through: pure values, no network."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Any, Self

import numpy as np

from portfolio_env.errors import DataError
from portfolio_env.live.money import ZERO

_NAMES = uuid.UUID("8c9a1f0e-7b0d-5f43-9d0c-3f5b1f6f2a11")  # namespace of the ids of orders


class State(StrEnum):
    """State of an order; an order that is filled in part and may be filled further is open."""

    PLANNED = "planned"
    DENIED = "denied"
    SENDING = "sending"
    UNKNOWN = "unknown"
    OPEN = "open"
    FILLED = "filled"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    NOT_ACCEPTED = "not_accepted"


_ENDS = frozenset({State.FILLED, State.CANCELLED, State.EXPIRED, State.REJECTED})
_ANSWERS = _ENDS | {State.OPEN}
TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.PLANNED: frozenset({State.DENIED, State.SENDING}),
    State.SENDING: _ANSWERS | {State.UNKNOWN},
    State.UNKNOWN: _ANSWERS | {State.NOT_ACCEPTED},
    State.OPEN: _ENDS,
    # the same id again, within the bar, once the venue cannot accept the first request any more
    State.NOT_ACCEPTED: frozenset({State.SENDING}),
    State.DENIED: frozenset(),
    **dict.fromkeys(_ENDS, frozenset()),
}
"""States that may follow each state. A late fill adds units in any state and changes none."""

ENDED = _ENDS | {State.DENIED, State.NOT_ACCEPTED}
"""States in which nothing of an order is at the venue, or will be."""

UNFINISHED = frozenset(State) - ENDED
"""All other states."""


def check_transition(order_id: str, before: State, after: State) -> None:
    """Reject a change of state that is not in ``TRANSITIONS``.

    Raises:
        DataError: If the state may not follow.
    """
    if after not in TRANSITIONS[before]:
        allowed = ", ".join(sorted(TRANSITIONS[before])) or "nothing"
        raise DataError(
            f"order {order_id} is {before} and cannot become {after}: what may follow is {allowed}"
        )


def moment(text: str) -> np.datetime64:
    """Return a moment of its text, in nanoseconds."""
    return np.datetime64(text, "ns")


class Record:
    """Base of frozen records that are stored as JSON: times and decimals become text."""

    @classmethod
    @cache
    def _readers(cls) -> dict[str, Callable[[Any], Any]]:
        """Return the functions that make the values of the fields of their JSON values."""
        kinds: dict[str, Callable[[Any], Any]]
        kinds = {"str": str, "int": int, "Decimal": Decimal, "np.datetime64": moment}
        # annotations are text: Decimal | None is read as Decimal
        return {each.name: kinds[str(each.type).split(" |")[0]] for each in fields(cls)}  # type: ignore[arg-type]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; those that are None are left out."""
        found = {name: value for name, value in vars(self).items() if value is not None}
        for name, value in found.items():
            if isinstance(value, Decimal):
                found[name] = f"{value:f}"
            elif isinstance(value, np.datetime64):
                found[name] = str(value)
        return found

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the record of what ``to_json`` gave."""
        readers = cls._readers()
        return cls(**{name: readers[name](own) for name, own in value.items() if name in readers})


@dataclass(frozen=True)
class Order(Record):
    """Order that a plan asks for: to be filled at once, and what is not filled lapses.

    Attributes:
        id: 32 hexadecimal digits, see ``order_id``.
        bar: Time of the bar that was decided at.
        revision: Number of the plan of that bar, from 0.
        asset: Name.
        units: Signed units, negative for sales; not 0.
        reference: Price that it was sized at.
        deadline: Moment after which nothing of it may be filled.
        limit: Worst price that it may be filled at; None is any.
    """

    id: str
    bar: np.datetime64
    revision: int
    asset: str
    units: Decimal
    reference: Decimal
    deadline: np.datetime64
    limit: Decimal | None = None

    def __post_init__(self) -> None:
        """Reject numbers that are none: nothing of the kind may be sent."""
        for name in ("units", "reference", "limit"):
            number = getattr(self, name)
            if number is not None and not (number.is_finite() and number != 0):
                raise DataError(f"{name}={number} of the order of {self.asset} must be a number")
        if self.reference <= 0 or (self.limit is not None and self.limit <= 0):
            raise DataError(f"the prices of the order of {self.asset} must be above 0")


@dataclass(frozen=True)
class Fill(Record):
    """Execution of an order or of a part of it, as the venue reports it.

    Attributes:
        trade_id: Id that the venue gave it, by which a repeated report is recognised.
        order_id: Id of our order; that of the venue where the order is not ours.
        asset: Name.
        units: Signed units.
        price: Money paid or received per unit.
        fee: Fee, >= 0, in the asset that ``fee_asset`` names.
        at: Moment.
        fee_asset: Asset that the fee is taken in; "" is money.
        mid: Price in the middle of bid and ask, where the venue knows it.
        spread: Money that the half-spread cost, a part of the distance from ``mid``; likewise.
        impact: Money that the impact of the order on the price cost; likewise.
    """

    trade_id: str
    order_id: str
    asset: str
    units: Decimal
    price: Decimal
    fee: Decimal
    at: np.datetime64
    fee_asset: str = ""
    mid: Decimal | None = None
    spread: Decimal | None = None
    impact: Decimal | None = None


@dataclass(frozen=True)
class Flow(Record):
    """Change of the holdings that no order made, as a record of the venue says or a person.

    Attributes:
        id: Id, by which a repeated report is recognised.
        kind: "deposit", "withdrawal", "interest", "delisting", "fee", "external", ...
        asset: Asset whose units change; "" is money.
        units: Change, signed.
        at: Moment.
        reason: Words of the person who accepted it, or of the venue.
    """

    id: str
    kind: str
    asset: str
    units: Decimal
    at: np.datetime64
    reason: str = ""


def order_id(session: str, bar: np.datetime64, asset: str, revision: int) -> str:
    """Return the id of an order: the same for the same plan, on any machine.

    32 hexadecimal digits without dashes, so that it fits into the id of every venue known here.
    """
    return uuid.uuid5(_NAMES, "|".join((session, str(bar), asset, str(revision)))).hex


def changes_of(fill: Fill) -> dict[str, Decimal]:
    """Return the exact change of holdings by a fill: by asset, "" is money. Call it ``exactly``."""
    found = {fill.asset: fill.units, "": -(fill.units * fill.price)}
    found[fill.fee_asset] = found.get(fill.fee_asset, ZERO) - fill.fee
    return found
