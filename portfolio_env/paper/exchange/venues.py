"""Venues that orders may be sent to, and what ccxt does not make alike in them.

A venue is in the table if an order can be looked up by our id, open or not, and if a request can
say until when it may be accepted: without either, an order whose answer is lost could not be
distinguished from one that was never placed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from portfolio_env.errors import ArgumentError

Found = list[dict[str, Any]]
_PAGE, _MOST = 1_000, 60_000


@dataclass(frozen=True)
class Venue:
    """Ways of one venue.

    Attributes:
        shortest: Least time, in ms, that a request can be valid for; less is not sent.
        longest: Most of it; more is asked for as this.
        validity: Gives the fields of a request that is valid from now for some time, both in ms.
        find: Gives the orders of our id: ``(exchange, symbol, id)``.
        trades: Gives our trades since a moment in ms, oldest first: ``(exchange, symbols, since)``.
        not_accepted: Classes of ccxt's errors, by name, that prove that an order was not accepted
            although others of their kind do not.
        refusal: Text of an answer that proves the same, of whatever class.
        duplicate: Text of the refusal of an id that is in use.
    """

    shortest: int
    longest: int
    validity: Callable[[int, int], dict[str, Any]]
    find: Callable[[Any, str, str], Found]
    trades: Callable[[Any, Sequence[str], int], Found]
    not_accepted: tuple[str, ...]
    refusal: str
    duplicate: str


def venue_of(name: str) -> Venue:
    """Return the ways of a venue.

    Raises:
        ArgumentError: If orders cannot be looked up there, or it was not tested.
    """
    if name not in VENUES:
        raise ArgumentError(
            f"exchange={name!r} must be one of {', '.join(VENUES)} to send orders to: others are "
            "not known to find an order by its client's id and to bound when it may arrive."
        )
    return VENUES[name]


def _binance_find(exchange: Any, symbol: str, own: str) -> Found:
    import ccxt

    try:
        return [exchange.fetch_order(None, symbol, {"origClientOrderId": own})]
    except ccxt.OrderNotFound:
        return []


def _binance_trades(exchange: Any, symbols: Sequence[str], since: int) -> Found:
    found: Found = []
    for symbol in symbols:
        page = exchange.fetch_my_trades(symbol, since, _PAGE)
        found += page
        while len(page) == _PAGE:
            page = exchange.fetch_my_trades(
                symbol, None, _PAGE, {"fromId": int(page[-1]["id"]) + 1}
            )
            found += page
    return sorted(found, key=lambda trade: trade["timestamp"])


def _kraken_find(exchange: Any, symbol: str, own: str) -> Found:
    given = {"clientOrderId": own}  # open ones first: an order only ever moves to the closed ones
    found = exchange.fetch_open_orders(symbol, None, None, given)
    found += exchange.fetch_closed_orders(symbol, None, None, given)
    return [order for order in found if order["clientOrderId"] == own]


def _kraken_trades(exchange: Any, symbols: Sequence[str], since: int) -> Found:
    found: dict[str, dict[str, Any]] = {}
    offset = 0
    while True:  # the newest first; what comes meanwhile moves the pages on, and repeats some
        page = exchange.fetch_my_trades(None, max(since - 1000, 0), None, {"ofs": offset})
        found |= {trade["id"]: trade for trade in page if trade["symbol"] in symbols}
        if not page:
            return sorted(found.values(), key=lambda trade: trade["timestamp"])
        offset += len(page)


def _deadline(now: int, duration: int) -> dict[str, Any]:
    until = datetime.fromtimestamp((now + duration) / 1000, UTC)
    return {"deadline": until.isoformat(timespec="milliseconds")}


VENUES: Mapping[str, Venue] = {
    "binance": Venue(
        shortest=1,
        longest=_MOST,
        validity=lambda now, duration: {"recvWindow": duration},
        find=_binance_find,
        trades=_binance_trades,
        # limits are counted before an order is looked at; its time, too
        not_accepted=("DDoSProtection", "RateLimitExceeded", "InvalidNonce"),
        refusal='"code":-2010',
        duplicate="duplicate order",
    ),
    "kraken": Venue(
        shortest=2_000,
        longest=_MOST,
        validity=_deadline,
        find=_kraken_find,
        trades=_kraken_trades,
        not_accepted=("DDoSProtection", "RateLimitExceeded", "InvalidNonce"),
        refusal='"EOrder:',
        duplicate="already in use",
    ),
}
"""Venues by ccxt's id."""
