"""Watch: rules over the ledger, whose alerts open once, close once, and do not flutter."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from decimal import Decimal

import numpy as np

from portfolio_env.live.alerts import AlertBounds, beyond
from portfolio_env.live.money import ZERO
from portfolio_env.paper.clock import Clock
from portfolio_env.paper.ledger import ACTIVE, Ledger
from portfolio_env.paper.orders import State

RELEASE = 0.8
"""Share of its bound that a value must fall below before its alert closes."""

LEAST_DISK = 200e6
"""Bytes that must be free where the ledger is."""


def firing(ledger: Ledger, bounds: AlertBounds) -> dict[str, str]:
    """Return the alerts that hold by what the ledger says, in words, by name.

    Args:
        ledger: The ledger.
        bounds: The bounds: of drift after trading, of the change of the target between two bars,
            and of the drawdown since the session began.
    """
    found: list[str] = []
    plans = [
        body
        for row in ledger.query("SELECT DISTINCT bar FROM plans ORDER BY bar DESC LIMIT 2")
        if (body := ledger.body("plans", np.datetime64(row["bar"], "ns"), 0)) is not None
    ]
    targets = [np.array([float.fromhex(text) for text in body["target"]]) for body in plans]
    if targets:
        prices = plans[0]["prices"]
        worth = [
            float(units) * float(prices.get(name, 0.0))
            for name, units in zip(ledger.assets, ledger.holdings.units, strict=True)
        ]
        whole = sum(worth) + float(ledger.holdings.cash)
        held = np.array([float(ledger.holdings.cash), *worth]) / whole if whole > 0 else targets[0]
        drift = float(np.abs(held - targets[0]).sum() / 2)
        found += beyond("drift", drift, bounds.drift, "of the account are not what is to be held")
    if len(targets) == 2:
        moved = float(np.abs(targets[0] - targets[1]).sum() / 2)
        what = "of the account are to be held otherwise than before"
        found += beyond("change of target", moved, bounds.target, what)
    values = [Decimal(row[0]) for row in ledger.query("SELECT value FROM valuations ORDER BY bar")]
    if values and (peak := max(values)) > ZERO:
        what = f"below the highest value so far, {peak:,.2f}"
        found += beyond("drawdown", float(1 - values[-1] / peak), bounds.drawdown, what)
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
            for name in ("drift", "target", "drawdown")
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
