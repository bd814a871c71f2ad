"""Addresses that orders may be sent to: an exchange's test network, and this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from portfolio_env.errors import ArgumentError
from portfolio_env.paper.exchange.venues import venue_of

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
