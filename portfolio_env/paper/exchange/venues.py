"""Venues that orders may be sent to, and the addresses that they may be sent to: no real money.

An address is that of an exchange's test network, or on this machine.

A venue is in the table if an order can be looked up by our id, open or not, and if a request can
say until when it may be accepted: without either, an order whose answer is lost could not be
distinguished from one that was never placed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

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


LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
"""Hosts that are this machine."""


class AddressError(ArgumentError):
    """A request would leave for an address where money is real."""


def is_loopback(url: str) -> bool:
    """Return whether an address is on this machine.

    >>> is_loopback("http://127.0.0.1:8000/api"), is_loopback("http://127.0.0.1.example.com")
    (True, False)
    """
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and parts.hostname in LOOPBACK


def addresses(urls: Any) -> list[str]:
    """Return the addresses of an entry of ccxt's ``urls``, which may be nested."""
    if isinstance(urls, str):
        return [urls]
    if isinstance(urls, dict):
        return [each for value in urls.values() for each in addresses(value)]
    return []


def test_hosts(exchange: Any) -> frozenset[str]:
    """Return the hosts of an exchange's test network, none of them one where money is real.

    They are those that the class in ccxt states, whatever the urls of this object say.

    Args:
        exchange: An exchange of ccxt.
    """
    import ccxt

    own = getattr(ccxt, exchange.id)()
    real, test = (
        {urlsplit(own.implode_hostname(url)).hostname for url in addresses(own.urls.get(kind))}
        for kind in ("api", "test")
    )
    return frozenset(host for host in test - real if host)


def guard(exchange: Any) -> None:
    """Let an exchange of ccxt reach its test network or this machine, and nothing else.

    Every request is checked as it leaves, so that no option of ccxt leads elsewhere. Redirects and
    proxies are not followed, and no request is repeated.

    Args:
        exchange: An exchange of ccxt.

    Raises:
        AddressError: If it points to another place now; later, by the request that would go
            there.
    """
    import ccxt

    hosts = test_hosts(exchange)

    def check(url: str) -> None:
        parts = urlsplit(url)
        if not is_loopback(url) and not (parts.scheme == "https" and parts.hostname in hosts):
            raise AddressError(
                f"orders of {exchange.id} would go to {parts.scheme}://{parts.hostname}, where "
                "money may be real: there is no switch for that; use its test network, or an "
                "address on this machine"
            )

    for url in addresses(exchange.urls["api"]):
        check(exchange.implode_hostname(url))
    fetch, send = exchange.fetch, exchange.session.send

    def checked_fetch(url: str, *rest: Any, **named: Any) -> Any:
        check(url)
        return fetch(url, *rest, **named)

    def checked_send(request: Any, **how: Any) -> Any:
        check(request.url)
        if how.get("proxies"):
            raise AddressError(f"orders of {exchange.id} would go through a proxy: unset it")
        answer = send(request, **{**how, "allow_redirects": False})
        if answer.is_redirect:
            raise ccxt.BadResponse(f"{exchange.id} {request.url} leads elsewhere")
        return answer

    exchange.fetch, exchange.session.send = checked_fetch, checked_send
    exchange.session.trust_env = False  # no proxies from the environment
    exchange.options["maxRetriesOnFailure"] = 0


def sandbox(name: str, *, address: str | None = None, keys: Mapping[str, str] | None = None) -> Any:
    """Return an exchange of ccxt that is pointed to its test network, or to this machine.

    Args:
        name: A venue, "binance" or "kraken".
        address: Address of an exchange on this machine; None is the venue's test network.
        keys: Its credentials, "apiKey" and "secret".

    Raises:
        ArgumentError: If the venue has no test network and no address is given.
    """
    import ccxt

    venue_of(name)
    exchange = getattr(ccxt, name)({"enableRateLimit": address is None, **(keys or {})})
    if address is None:
        if not exchange.urls.get("test"):
            raise ArgumentError(f"{name} has no test network: give an address on this machine.")
        exchange.set_sandbox_mode(True)
    else:
        text = json.dumps(exchange.urls["api"])
        for host in sorted({url.split("/")[2] for url in addresses(exchange.urls["api"])}):
            text = text.replace(f"https://{host}", address.rstrip("/"))
        exchange.urls["api"] = json.loads(text)
    return exchange
