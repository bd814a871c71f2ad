"""Alerts: rules over the ledger that open and close them, and their way to log, file and webhook.

An alert is written to the ledger when it opens and when it closes. What a sink has taken is written
too, afterwards: a process that is killed in between delivers again, with the same id.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import urllib.request
from collections.abc import Mapping, Sequence
from email.message import Message
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

import numpy as np

from portfolio_env.errors import ArgumentError
from portfolio_env.live.alerts import AlertBounds, beyond
from portfolio_env.paper.attribution import cost_excess
from portfolio_env.paper.broker import SECOND, Clock
from portfolio_env.paper.exchange.venues import LOOPBACK
from portfolio_env.paper.journal import numbers
from portfolio_env.paper.ledger import ACTIVE, Ledger
from portfolio_env.paper.orders import State, moment

RELEASE = 0.8
"""Share of its bound that a value must fall below before its alert closes."""

RECENT = 20
"""Bars by which costs and features are judged."""

LEAST_DISK = 200e6
"""Bytes that must be free where the ledger is."""


def firing(ledger: Ledger, bounds: AlertBounds) -> dict[str, str]:
    """Return the alerts that hold by what the ledger says, in words, by name.

    Args:
        ledger: The ledger.
        bounds: The bounds: of drift after trading, of the change of the target between two bars,
            of the drawdown since the session began, and over the last 20 bars of costs above those
            of the environment, the lower end of a 95 % interval of their mean, and of the features
            outside of their range before the session, see ``decisions.outside``.
    """
    found: list[str] = []
    plans = [
        body
        for row in ledger.query("SELECT DISTINCT bar FROM plans ORDER BY bar DESC LIMIT 2")
        if (body := ledger.body("plans", moment(row["bar"]), 0)) is not None
    ]
    targets = [numbers(body["target"]) for body in plans]
    if targets:
        prices = plans[0]["prices"]
        worth = [
            float(units) * float(prices.get(name, 0.0))
            for name, units in zip(ledger.assets, ledger.holdings.units, strict=True)
        ]
        whole = sum(worth) + float(ledger.holdings.cash)
        held = np.array([float(ledger.holdings.cash), *worth]) / whole if whole > 0 else targets[0]
        drift = float(np.abs(held - targets[0]).sum() / 2)
        found += beyond("drift", drift, bounds.drift, "of the account is not what is to be held")
    if len(targets) == 2:
        moved = float(np.abs(targets[0] - targets[1]).sum() / 2)
        what = "of the account is to be held otherwise than before"
        found += beyond("change of target", moved, bounds.target, what)
    peak = ledger.query("SELECT max(CAST(value AS REAL)) FROM valuations")[0][0] or 0.0
    last = ledger.query("SELECT value FROM valuations ORDER BY bar DESC LIMIT 1")
    if last and peak > 0:
        what = f"below the highest value so far, {peak:,.2f}"
        found += beyond("drawdown", 1 - float(last[0][0]) / peak, bounds.drawdown, what)
    if bounds.costs is not None and len(excess := cost_excess(ledger, RECENT)) == RECENT:
        low = float(excess.mean() - 1.96 * excess.std(ddof=1) / RECENT**0.5)
        what = f"of the money traded is paid beyond the environment's costs, over {RECENT} bars"
        found += beyond("costs", low, bounds.costs, f"or more {what}")
    bodies = ledger.query("SELECT body FROM decisions ORDER BY bar DESC LIMIT ?", RECENT)
    shares = [json.loads(row[0]).get("outside") for row in bodies]
    if len(shares) == RECENT and None not in shares:
        what = f"of the features' values of {RECENT} bars are outside of their usual range"
        found += beyond("features", float(np.mean(shares)), bounds.features, what)
    waiting = ledger.query("SELECT id FROM orders WHERE state = ?", State.UNKNOWN)
    if waiting:
        found.append(f"unresolved: the state of order {waiting[0][0]} is not known yet")
    trading, reason = ledger.trading
    if trading != ACTIVE:
        found.append(f"trading: it is {trading}: {reason}; trade.py resume goes on")
    if ledger.path is not None:
        free = shutil.disk_usage(ledger.path.parent).free
        if free < LEAST_DISK:
            found.append(f"disk: {free / 1e6:.0f} MB are free (bound {LEAST_DISK / 1e6:.0f} MB)")
    return {text.partition(":")[0]: text for text in found}


def watch(ledger: Ledger, bounds: AlertBounds, clock: Clock) -> None:
    """Write which alerts open and close now.

    One that is open stays so until its value is below ``RELEASE`` of the bound.

    Args:
        ledger: The ledger.
        bounds: The bounds.
        clock: The time.
    """
    rows = ledger.query("SELECT id, name FROM alerts WHERE closed = '' AND id LIKE 'watch-%'")
    opened = {row["name"]: row["id"] for row in rows}
    now = firing(ledger, bounds)
    eased = AlertBounds(
        **{
            name: None if (bound := getattr(bounds, name)) is None else bound * RELEASE
            for name in ("drift", "target", "drawdown", "costs", "features")
        }
    )
    still = firing(ledger, eased) if opened else {}
    with ledger.batch():
        _write(ledger, now, opened, still, clock)


def _write(
    ledger: Ledger,
    now: Mapping[str, str],
    opened: Mapping[str, str],
    still: Mapping[str, str],
    clock: Clock,
) -> None:
    for name in sorted(opened.keys() - still.keys()):
        text = f"{name}: it is over"
        ledger.append("alert", clock.now(), id=opened[name], name=name, open=False, text=text)
    for name in sorted(now.keys() - opened.keys()):
        key = f"watch-{name.replace(' ', '-')}-{ledger.head()[0]}"
        ledger.append("alert", clock.now(), id=key, name=name, open=True, text=now[name])


TOKEN = "PORTFOLIO_ENV_WEBHOOK_TOKEN"
"""Environment variable of the secret that webhooks are sent with; it is stored nowhere."""

_TIMEOUT = 3.0  # seconds
_LONGEST = 600 * SECOND  # between two attempts at a sink
_LOG = logging.getLogger("portfolio_env.paper")


class Sink(Protocol):
    """Sink protocol: a place that alerts go to.

    Attributes:
        name: Name that deliveries are written under.
    """

    name: str

    def send(self, alert: Mapping[str, Any]) -> bool:
        """Deliver an alert; return whether it has arrived."""
        ...


class LogSink:
    """Sink that writes to Python's log, logger ``portfolio_env.paper``."""

    name = "log"

    def send(self, alert: Mapping[str, Any]) -> bool:
        """Write a warning when an alert opens, and a message when it closes."""
        level = logging.WARNING if alert["open"] else logging.INFO
        own, text = f"{alert['name']}: ", str(alert["text"])
        _LOG.log(level, "%s", text if text.startswith(own) else own + text)
        return True


class FileSink:
    """Sink that adds a line of JSON to a file.

    Args:
        path: The file. A line that a killed process left unfinished stays as it is, on its own.
    """

    name = "file"

    def __init__(self, path: Path) -> None:
        self.path = path

    def send(self, alert: Mapping[str, Any]) -> bool:
        """Add a line, on disk when this returns."""
        line = json.dumps(alert, sort_keys=True) + "\n"
        try:
            with self.path.open("ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    line = line if file.read(1) == b"\n" else "\n" + line
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            _LOG.error("%s cannot be written: %s", self.path, error)
            return False
        return True


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Follow nothing."""


class WebhookSink:
    """Sink that posts an alert as JSON; a receiver knows a repeated one by its id.

    It takes no redirects and no proxies. The secret of the environment variable ``TOKEN`` is sent
    as a bearer token.

    Args:
        url: The address: http or https on this machine, https elsewhere.
        hosts: Hosts beside this machine that it may be at.

    Raises:
        ArgumentError: If the address is of another host, or holds a name or a secret.
    """

    name = "webhook"

    def __init__(self, url: str, hosts: Sequence[str] = ()) -> None:
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ArgumentError(f"webhook must hold no secret; give it in {TOKEN}.")
        own = parts.scheme in ("http", "https") and parts.hostname in LOOPBACK
        if not own and not (parts.scheme == "https" and parts.hostname in hosts):
            raise ArgumentError(
                f"webhook={url!r} must be on this machine, or https at a host that is named: "
                "--webhook-host example.com."
            )
        self.url = url
        none = urllib.request.ProxyHandler({})
        self._opener = urllib.request.build_opener(none, _NoRedirects)

    def send(self, alert: Mapping[str, Any]) -> bool:
        """Post it, once; the answer must be of status 2xx within three seconds."""
        headers = {"Content-Type": "application/json"}
        if token := os.environ.get(TOKEN):
            headers["Authorization"] = f"Bearer {token}"
        body = json.dumps(alert, sort_keys=True).encode()
        request = urllib.request.Request(self.url, body, headers, method="POST")
        try:
            with self._opener.open(request, timeout=_TIMEOUT) as answer:
                return 200 <= int(answer.status) < 300
        except (OSError, ValueError) as error:  # HTTPError and timeouts are of OSError
            _LOG.error("the webhook did not take alert %s: %s", alert["id"], type(error).__name__)
            return False


class Outbox:
    """Alerts of a ledger on their way to sinks.

    Args:
        ledger: The ledger.
        sinks: The sinks; one that fails is tried again after 1, 2, 4, ... seconds, 10 minutes at
            most, and holds no other up.
        clock: The time.
    """

    def __init__(self, ledger: Ledger, sinks: Sequence[Sink], clock: Clock) -> None:
        self.ledger, self.sinks, self.clock = ledger, tuple(sinks), clock
        self._failures: dict[str, int] = {}
        self._again: dict[str, np.datetime64] = {}
        self._after: dict[str, int] = {}  # event up to which all was delivered

    def deliver(self) -> int:
        """Deliver what was not yet, in the order in which it was written; return how many."""
        done = 0
        for sink in self.sinks:
            wait = self._again.get(sink.name, now := self.clock.now()) - now
            if 0 * SECOND < wait <= _LONGEST:  # more is left only where the clock went back
                continue
            for seq, key, alert in self._waiting(sink.name):
                if not sink.send(alert):
                    count = self._failures[sink.name] = self._failures.get(sink.name, 0) + 1
                    wait = min(2 ** min(count - 1, 20) * SECOND, _LONGEST)
                    self._again[sink.name] = self.clock.now() + wait
                    break
                self.ledger.append("delivery", self.clock.now(), alert=key, sink=sink.name)
                self._failures.pop(sink.name, None)
                self._after[sink.name] = seq
                done += 1
        return done

    def _waiting(self, sink: str) -> list[tuple[int, str, dict[str, Any]]]:
        rows = self.ledger.query("SELECT alert FROM deliveries WHERE sink = ?", sink)
        taken, found = {row[0] for row in rows}, []
        for event in self.ledger.events("alert", after=self._after.get(sink, 0)):
            body = event.body
            key = body["id"] if body["open"] else f"{body['id']}:closed"
            if key not in taken:
                told = {name: body.get(name, "") for name in ("id", "name", "open", "text")}
                alert = {**told, "at": event.at, "session": self.ledger.session}
                found.append((event.seq, key, alert))
        return found
