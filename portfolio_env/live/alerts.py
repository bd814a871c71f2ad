"""Alerts: what a person should look at before trading, each with its value and its bound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from portfolio_env.checks import check_number
from portfolio_env.errors import DataError
from portfolio_env.live.orders import Orders
from portfolio_env.live.risk_limits import DrawdownStop
from portfolio_env.market import Market
from portfolio_env.market.timeline import Timestamps, bar_spacing, time_text

_RECENT = 60  # bars in whose pauses it is seen how long a market closes


@dataclass(frozen=True)
class AlertBounds:
    """Bounds beyond which an alert fires; None switches an alert off.

    Attributes:
        drift: Half the sum of differences between what is held and what is to be held, once
            anything is.
        target: The same between what is to be held now and what was to be held before.
        drawdown: Share of the highest value so far that is lost.
        age: Days since the last bar; by default more than the longest pause in the last 60 bars
            and one bar on top, so that weekends fire nothing.
        costs: Share of the money traded that costs are above those of the environment; in paper
            trading.
        features: Share of the features' values that are outside of their usual range; likewise.
    """

    drift: float | None = 0.05
    target: float | None = 0.1
    drawdown: float | None = 0.1
    age: float | None = None
    costs: float | None = 5e-4
    features: float | None = 0.1

    def __post_init__(self) -> None:
        """Check the bounds."""
        for each in fields(self):
            if (value := getattr(self, each.name)) is not None:
                most = 36_525 if each.name == "age" else math.inf  # a century of days
                check_number(f"alert_{each.name}", value, 0, most)


@dataclass(frozen=True)
class Record:
    """Record of the orders of one day, for the next.

    Attributes:
        bar: Bar that was decided at.
        target: Weights that were to be held, by asset, cash among them; None where another
            strategy decided.
        peak: Highest value of the account so far.
        stop: State of the drawdown stop of the account's risk limits.
    """

    bar: np.datetime64
    target: Mapping[str, float] | None
    peak: float
    stop: DrawdownStop


def targets(orders: Orders) -> dict[str, float]:
    """Return the weights to hold after trading, by asset, cash first."""
    return dict(zip(["cash", *orders.plan.assets], orders.plan.held.tolist(), strict=True))


def alerts(
    orders: Orders,
    market: Market,
    now: np.datetime64,
    bounds: AlertBounds,
    before: Record | None = None,
) -> list[str]:
    """Return the alerts that fire, a sentence each.

    Args:
        orders: The orders.
        market: The market they are for.
        now: The present moment.
        bounds: The bounds.
        before: Record of the orders before these; None where there are none.
    """
    found = _stale(orders, market, now, bounds.age)
    own, held = targets(orders), orders.plan.weights
    drift = float(np.abs(held - orders.plan.held).sum() / 2) if held[1:].any() else 0.0
    found += beyond("drift", drift, bounds.drift, "of the account is not what is to be held")
    for name, excess in orders.broken.items():
        found += beyond(f"risk limit {name}", excess, 0.0, "of wealth are beyond it")
    if before is not None and before.target is not None:
        names = own.keys() | before.target.keys()
        moved = sum(abs(own.get(n, 0.0) - before.target.get(n, 0.0)) for n in names) / 2
        what = "of the account is to be held otherwise than before"
        found += beyond("change of target", moved, bounds.target, what)
    if before is not None:
        lost = 1 - orders.plan.value / max(before.peak, orders.plan.value)
        what = f"below the highest value so far, {before.peak:,.2f}"
        found += beyond("drawdown", lost, bounds.drawdown, what)
    return found


def beyond(name: str, value: float, bound: float | None, what: str) -> list[str]:
    """Return the alert that a share is beyond a bound, or none; it begins with its name."""
    if bound is None or value <= bound:
        return []
    digits = 1 if bound >= 0.01 or not bound else 2
    return [f"{name}: {100 * value:.{digits}f} % {what} (bound {100 * bound:g} %)"]


def _stale(orders: Orders, market: Market, now: np.datetime64, age: float | None) -> list[str]:
    """Return alerts on old bars: of the market, and of single assets held or to be held."""
    times = market.timestamps
    if now < times[-1]:
        raise DataError(
            f"the data end at {time_text(times[-1])}, after the present {time_text(now)}: give the "
            "moment to decide at as as_of, or check the clock"
        )
    if late := _late("the last bar", times, now, age):
        return [late]
    found = []
    for place, name in enumerate(market.assets):
        if orders.before.units[place] or orders.plan.held[place + 1]:
            own = times[np.isfinite(market.close[:, place])]
            if len(own) and (late := _late(f"the last bar of {name}", own, now, age)):
                found.append(late)
    return found


def _late(what: str, times: Timestamps, now: np.datetime64, age: float | None) -> str:
    """Return a sentence if the last of some times is too long ago, else nothing."""
    spacing, _ = bar_spacing(times)
    pauses = np.diff(times[-_RECENT:])
    bound = spacing + max(pauses.max(), spacing) if len(pauses) else spacing * 2
    if age is not None:
        bound = np.timedelta64(round(age * 86_400e9), "ns")
    old = now - times[-1]
    if old <= bound:
        return ""
    return f"stale data: {what} is of {time_text(times[-1])}, {days(old)} ago (bound {days(bound)})"


def days(duration: np.timedelta64) -> str:
    """Return a duration in words.

    >>> [days(np.timedelta64(minutes, "m")) for minutes in (2160, 90, 3)]
    ['1.5 days', '1.5 hours', '3.0 minutes']
    """
    hours = float(duration / np.timedelta64(1, "s")) / 3600
    if hours < 1:
        return f"{60 * hours:.1f} minutes"
    return f"{hours / 24:.1f} days" if hours >= 24 else f"{hours:.1f} hours"
