"""Attribution: why a paper account is worth another amount than its ideal account.

The ideal account carries out every decision at once: at the close that was decided on, in any
fraction of a unit, at the environment's costs, in the size of the paper account at that bar. It is
the backtest, step by step, and what the ledger holds is all that it is made of. From one bar to the
next, closes going from ``c`` to ``c'``, the paper account is worth

    sum of (held - ideal) (c' - c) + sum over fills of q (c - f) - fees + costs of the ideal account

more than the ideal one. The units beyond the ideal ones are those of the plan less the ideal ones
(*risk* where a limit binds, else *timing*: the market moved before the plan), those of the orders
less the plan's (*rounding*: lots, least orders), and those held less the orders' (*unfilled*). Of a
bar without a plan all of it is *missed*. A fill of ``q`` units (sales negative) at ``f``, with the
price ``r`` that its order was sized at, and the middle ``m`` when it was filled, costs

    q (r - c) *timing*,  q (m - r) *delay*,  q (f - m) *spread* and *impact*,  and its *fees*,

the last three beyond those of the ideal account. Each term changes one thing, so that the sum is
exact. Flows, interest among them, and trades by hand go into both accounts. To compare with a
portfolio that trades on paper is the idea of Perold (1988), "The Implementation Shortfall: Paper
versus Reality".
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from portfolio_env.live.money import exactly
from portfolio_env.live.planning import plan
from portfolio_env.live.predictor import Decision
from portfolio_env.paper.journal import hexadecimal, numbers
from portfolio_env.paper.ledger import Ledger
from portfolio_env.paper.orders import Fill, Order, changes_of
from portfolio_env.simulation.cost_models import half_spreads
from portfolio_env.simulation.simulator import Simulator

Float = NDArray[np.float64]
KINDS = (
    *("timing", "delay", "spread", "impact", "fees"),
    *("rounding", "unfilled", "risk", "missed"),
)
"""Causes, in the order of the columns of ``shortfall``."""
_COSTS = ("spread", "impact", "fees")


def ideal_trade(
    decision: Decision, simulator: Simulator, value: float, weights: Float, **how: Any
) -> dict[str, Any]:
    """Return what the ideal account holds after a decision, and what that costs, as JSON.

    Args:
        decision: The decision.
        simulator: Rules of trading, constraints and costs; limits of risk are none of them.
        value: Money of the account at the close.
        weights: (N + 1,) its weights there, cash first.
        how: Further arguments of ``plan``.
    """
    own = plan(decision, simulator, value, weights=weights, **how)
    traded = own.money[1:] - value * weights[1:]
    size, side = np.abs(traded), (traded < 0).astype(np.int64)
    halves = half_spreads(simulator.costs, own.assets)[side, np.arange(len(size))]
    spread, impact = float(size @ halves), float((own.impact * size**1.5).sum())
    costs = {"spread": spread, "impact": impact, "fees": own.cost - spread - impact}
    told = {name: money.hex() for name, money in costs.items()}
    return {"target": hexadecimal(own.held), "costs": told, "traded": float(size.sum()).hex()}


@dataclass(eq=False)
class _Point:
    """The paper account at a close, and what happened to it until the next."""

    bar: str
    value: float
    prices: Float
    units: Float
    ideal: Mapping[str, Any] | None = None  # what ``ideal_trade`` gave
    plan: Mapping[str, Any] | None = None
    fills: list[tuple[Fill, Order]] = field(default_factory=list)


def shortfall(ledger: Ledger, after: int = 0) -> pd.DataFrame:
    """Return what each cause adds to the value of a paper account, less that of its ideal account.

    Args:
        ledger: The ledger.
        after: Number of the event after which valuations are looked at; 0 is all.

    Returns:
        Money by bar, from its close to the next, with a column for each of ``KINDS``: negative
        where the paper account loses. Rows of 0 where the policy's answer is not known. The sum is
        what the account has earned, less what the ideal account has.
    """
    points, assets = _points(ledger, after), ledger.assets
    rows = [_row(point, later.prices, assets) for point, later in itertools.pairwise(points)]
    index = pd.Index([point.bar for point in points[:-1]], name="bar", dtype=object)
    return pd.DataFrame(rows, index, columns=list(KINDS), dtype=np.float64)


class RunningShortfall:
    """Sum of ``shortfall`` over a ledger that grows: what is settled is looked at once.

    Args:
        ledger: The ledger.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self._after = ledger, 0
        self._settled: pd.Series[float] = pd.Series(0.0, list(KINDS))
        self._since = ""

    def total(self) -> tuple[dict[str, float], str]:
        """Return money by cause over all bars so far, and the first bar; "" before there is one."""
        table = shortfall(self.ledger, self._after)
        self._since = self._since or (table.index[0] if len(table) else "")
        total = self._settled + table.sum()
        # later bars may still get their ideal trades: those before the last decision have them
        last = self.ledger.query("SELECT max(bar) FROM decisions")[0][0]
        sql = "SELECT min(seq) FROM events WHERE seq > ? AND kind = 'valuation' AND bar = ?"
        if seq := self.ledger.query(sql, self._after, last)[0][0]:
            self._settled = self._settled + table[table.index < last].sum()
            self._after = seq - 1
        return {str(name): float(money) for name, money in total.items()}, self._since


def cost_excess(ledger: Ledger, bars: int) -> Float:
    """Return the costs of the latest bars with fills, less those of the ideal account.

    Args:
        ledger: The ledger.
        bars: Most bars.

    Returns:
        Half-spread, impact and fees per money traded at each bar, less those of the ideal trade
        per its own. Where the venue knows no middle price, the price that the order was sized at
        stands for it.
    """
    rows = ledger.query("SELECT DISTINCT bar FROM fills ORDER BY bar DESC LIMIT ?", bars)
    found = []
    for (bar,) in rows:
        planned = ledger.body("plans", bar, 0) or {"prices": {}}
        prices = {name: float(price) for name, price in planned["prices"].items()}
        ideal = (ledger.body("decisions", bar) or {}).get("ideal", {})
        traded, paid = 0.0, 0.0
        for order in ledger.orders(bar):
            for fill in ledger.fills(order.id):
                middle = order.reference if fill.mid is None else fill.mid
                paid += float(fill.units) * float(fill.price - middle) + _fee(fill, prices)
                traded += abs(float(fill.units) * float(fill.price))
        if traded and (whole := float.fromhex(ideal.get("traded", "0"))):
            costs = sum(map(float.fromhex, ideal["costs"].values()))
            found.append(paid / traded - costs / whole)
    return np.array(found)


def _fee(fill: Fill, prices: Mapping[str, float]) -> float:
    """Return the fee of a fill in money; 0 where its asset has no price."""
    known = {**prices, fill.asset: float(fill.price), "": 1.0}
    return float(fill.fee) * known.get(fill.fee_asset, 0.0)


def _points(ledger: Ledger, after: int) -> list[_Point]:
    """Return the closes at which the account was valued or a decision was missed, in order."""
    assets, points = ledger.assets, list[_Point]()

    def numbers(named: Mapping[str, str], missing: float) -> Float:
        return np.array([float(named.get(name, missing)) for name in assets])

    for event in ledger.events("valuation", "decision", "plan", "fill", after=after):
        body = event.body
        if event.kind == "valuation":
            prices, units = numbers(body["prices"], np.nan), numbers(body["units"], 0.0)
            points.append(_Point(event.bar, float(body["value"]), prices, units))
        elif not points:
            continue
        elif event.kind == "fill":
            if (order := ledger.order(body["order_id"])) is not None:
                points[-1].fills.append((Fill.from_json(body), order))
        elif event.kind == "plan" and body["revision"] == 0:
            points[-1].plan = body
        elif event.kind == "decision":
            points[-1].ideal = body.get("ideal")
            known = {point.bar: point for point in points}
            for bar, missed in body.get("missed", {}).items():
                if bar not in known and len(points) > 1:  # else before all that is looked at
                    prices, value = numbers(missed["prices"], np.nan), float(missed["value"])
                    known[bar] = _Point(bar, value, prices, points[-1].units)
                    points.insert(-1, known[bar])
                if bar in known:
                    known[bar].ideal = missed["ideal"]
    return points


def _row(point: _Point, later: Float, assets: tuple[str, ...]) -> dict[str, float]:
    """Return what each cause makes from a close to the next."""
    made = dict.fromkeys(KINDS, 0.0)
    if point.ideal is None:
        return made
    column = {name: place for place, name in enumerate(assets)}
    close, held = point.prices.copy(), point.units.copy()
    for _, order in point.fills:  # the first price of an asset may be that of its order
        if not np.isfinite(close[column[order.asset]]):
            close[column[order.asset]] = float(order.reference)
    prices = dict(zip(assets, close.tolist(), strict=True))
    for fill, order in point.fills:
        price, reference = float(fill.price), float(order.reference)
        middle = reference if fill.mid is None else float(fill.mid)
        with exactly():
            changes = {name: float(change) for name, change in changes_of(fill).items() if name}
        units = changes[fill.asset]
        made["timing"] += units * (close[column[fill.asset]] - reference)
        made["delay"] += units * (reference - middle)
        # where the venue knows no middle, all that is off is spread
        impact = 0.0 if fill.impact is None else float(fill.impact)
        made["impact"] -= impact
        made["spread"] += units * (middle - price) + impact
        made["fees"] -= _fee(fill, prices)
        for name, change in changes.items():
            if name in column:
                held[column[name]] += change
    costs = {name: float.fromhex(text) for name, text in point.ideal["costs"].items()}
    for name in _COSTS:
        made[name if point.plan is not None else "missed"] += costs[name]
    weights = numbers(point.ideal["target"])[1:]
    ideal = _ratio((point.value - sum(costs.values())) * weights, close)
    moves = later - close
    steps = [("missed", held - ideal)]
    if point.plan is not None:
        planned, ordered = _planned(point.plan, assets)
        why = "risk" if point.plan["risk"] else "timing"
        steps = [
            (why, planned - ideal),
            ("rounding", ordered - planned),
            ("unfilled", held - ordered),
        ]
    for name, gap in steps:
        made[name] += float(np.where(gap == 0.0, 0.0, gap * np.where(gap == 0.0, 0.0, moves)).sum())
    return made


def _planned(body: Mapping[str, Any], assets: tuple[str, ...]) -> tuple[Float, Float]:
    """Return the units to hold by a plan, and by its orders."""
    prices = np.array([float(body["prices"].get(name, np.nan)) for name in assets])
    weights = numbers(body["target"])[1:]
    money = (float(body["value"]) - float.fromhex(body["planned_cost"])) * weights
    ordered = np.array([float(body["units"].get(name, 0.0)) for name in assets])
    for order in body["orders"]:
        ordered[assets.index(order["asset"])] += float(order["units"])
    return _ratio(money, prices), ordered


def _ratio(numbers: Float, of: ArrayLike) -> Float:
    """Return quotients, 0 where the numerator is."""
    return np.where(numbers == 0.0, 0.0, numbers / np.where(numbers == 0.0, 1.0, of))
