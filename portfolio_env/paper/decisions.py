"""Decisions and plans of a session in its ledger: exact money as text, floats as hexadecimal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import DataError
from portfolio_env.live.holdings import Holdings
from portfolio_env.live.instruments import Instrument
from portfolio_env.live.money import ZERO, decimal_of, exactly, scaled_down
from portfolio_env.live.orders import Orders
from portfolio_env.live.planning import last_prices
from portfolio_env.live.predictor import Decision, Predictor
from portfolio_env.market import Market
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.timeline import time_text
from portfolio_env.paper.attribution import ideal_trade
from portfolio_env.paper.broker import Clock
from portfolio_env.paper.journal import hexadecimal, numbers
from portfolio_env.paper.ledger import DECIDED, PLANNED, Ledger
from portfolio_env.paper.orders import Order, State, moment, order_id


def closes(predictor: Predictor, bars: PricePanel) -> tuple[Decimal, ...]:
    """Return the last closes of each asset, those of new bars where there are any."""
    market = predictor.market
    known = int(np.searchsorted(market.timestamps, bars.timestamps[-1], side="right"))
    prices = last_prices(market, known - 1)
    for close in bars.close[bars.timestamps > market.timestamps[-1]]:
        prices = np.where(np.isfinite(close), close, prices)
    return tuple(map(decimal_of, prices))


def valued(account: Holdings, prices: Sequence[Decimal]) -> dict[str, Any]:
    """Return an account as JSON."""
    named = list(zip(account.assets, account.units, prices, strict=True))
    return {
        "value": f"{account.value(prices):f}",
        "cash": f"{account.cash:f}",
        "units": {name: f"{units:f}" for name, units, _ in named if units},
        "prices": {name: f"{price:f}" for name, _, price in named if price.is_finite()},
    }


def account_of(body: Mapping[str, Any], assets: Sequence[str]) -> Holdings:
    """Return the account that ``valued`` described."""
    units = tuple(Decimal(body["units"].get(name, "0")) for name in assets)
    return Holdings(tuple(assets), units, Decimal(body["cash"]))


def described(sized: Orders, row: int) -> dict[str, Any]:
    """Return what orders were made of, as JSON: exact money as text, floats as hexadecimal."""
    own = sized.plan
    return {
        "row": row,
        "turnover": own.turnover.hex(),
        "planned_cost": own.cost.hex(),
        "weights": hexadecimal(own.weights),
        "target": hexadecimal(own.held),
        "prices": {
            name: f"{price:f}"
            for name, price in zip(own.assets, sized.prices, strict=True)
            if price.is_finite()
        },
        "tradable": own.tradable.tolist(),
        "costs": {
            name: f"{cost:f}" for name, cost in zip(own.assets, sized.costs, strict=True) if cost
        },
        "fee": f"{sized.fee:f}",
        "reasons": {
            name: text for name, text in zip(own.assets, sized.reasons, strict=True) if text
        },
        "risk": [] if own.risk is None else list(own.risk.bound),
        **valued(sized.before, sized.prices),
    }


def decision_of(ledger: Ledger, bar: np.datetime64) -> Decision:
    """Return the decision that was taken at a bar."""
    body = ledger.body("decisions", bar)
    if body is None:
        raise DataError(f"there is no decision at {time_text(bar)}")
    action = numbers(body["action"]).astype(body["dtype"])
    return Decision(body["row"], bar, numbers(body["weights"]), action)


Range = tuple[NDArray[np.float32], NDArray[np.float32]]


def usual_range(market: Market, start: int) -> Range | None:
    """Return the (F,) bounds of 99 % of each feature's values in the 1,000 bars before a session.

    Args:
        market: The market.
        start: Row of the first decision of the session.

    Returns:
        Quantiles of 0.5 % and 99.5 % over all assets that could be traded; None with fewer than 100
        such bars, or without features.
    """
    rows = slice(max(market.warmup, start - 1000), start)
    known = market.features[rows][market.tradable[rows]]
    if start - rows.start < 100 or not known.size:
        return None
    low, high = np.quantile(known, (0.005, 0.995), axis=0)
    return low, high


def outside(market: Market, row: int, usual: Range | None) -> float | None:
    """Return the share of the features' values of a bar outside of a range; None without one."""
    now = market.features[row][market.tradable[row]]
    if usual is None or not now.size:
        return None
    return float(((now < usual[0]) | (now > usual[1])).mean())


def write_decision(
    ledger: Ledger,
    predictor: Predictor,
    now: np.datetime64,
    decision: Decision,
    value: float,
    *,
    delisted: Sequence[str],
    turnovers: Sequence[float],
    usual: Range | None,
) -> None:
    """Commit the answer of a policy, with what the ideal account holds by it.

    Args:
        ledger: The ledger.
        predictor: The policy, asked at this bar last.
        now: The present.
        decision: The answer.
        value: Money of the account at the close.
        delisted: Names of the assets that had their last bar before.
        turnovers: Turnovers of the steps before, the latest last.
        usual: Range that the features had before the session.
    """
    bar = decision.timestamp.astype("datetime64[ns]")
    how = decision, predictor.simulator, value, decision.weights
    with ledger.batch():
        ledger.append(
            "decision", now, bar,
            row=decision.row,
            dtype=str(decision.action.dtype),
            action=hexadecimal(decision.action),
            weights=hexadecimal(decision.weights),
            value=value.hex(),
            delisted=list(delisted),
            outside=outside(predictor.market, decision.row, usual),
            ideal=ideal_trade(*how, turnovers=turnovers),
            missed=_missed_before(ledger, predictor, bar),
        )  # fmt: skip
        ledger.append("phase", now, bar, phase=DECIDED)


def _missed_before(ledger: Ledger, predictor: Predictor, bar: np.datetime64) -> dict[str, Any]:
    """Return what the account would have done at the bars since the last decision, by bar."""
    sql = "SELECT max(bar) FROM decisions WHERE bar < ?"
    last, found = ledger.query(sql, str(bar))[0][0], {}
    for each in predictor.answers if last is not None else ():
        time = each.timestamp.astype("datetime64[ns]")
        if moment(last) < time < bar:
            held = ledger.body("valuations", time) or ledger.body("valuations", bar) or {}
            account = account_of(held, ledger.assets)
            prices = tuple(map(decimal_of, last_prices(predictor.market, each.row)))
            told = valued(account, prices)
            given = predictor.simulator, float(told["value"]), account.weights(prices)
            found[str(time)] = {
                "value": told["value"],
                "prices": told["prices"],
                "ideal": ideal_trade(each, *given),
            }
    return found


def commit_plan(
    ledger: Ledger,
    clock: Clock,
    bar: np.datetime64,
    units: Sequence[Decimal],
    prices: Sequence[Decimal],
    deadline: np.datetime64,
    body: Mapping[str, Any],
    revision: int = 0,
) -> None:
    """Commit the intent to send orders, sales first and the largest of each side first.

    Args:
        ledger: The ledger.
        clock: The clock.
        bar: The bar that was decided at.
        units: (N,) signed units; 0 is no order.
        prices: (N,) prices that they were sized at.
        deadline: Moment after which nothing of them may be filled.
        body: The other entries of the event of the plan.
        revision: Number of the plan of this bar.
    """
    orders = [
        Order(
            order_id(ledger.session, bar, name, revision), bar, revision, name, own, price, deadline
        )
        for name, own, price in zip(ledger.assets, units, prices, strict=True)
        if own
    ]
    # the largest first: it pays a fixed fee that a small one cannot
    orders.sort(key=lambda own: (own.units > 0, -abs(own.units) * own.reference))
    with ledger.batch():
        told = [order.to_json() for order in orders]
        ledger.append("plan", clock.now(), bar, revision=revision, orders=told, **body)
        ledger.append("phase", clock.now(), bar, phase=PLANNED)


def fit_purchases(
    ledger: Ledger, clock: Clock, bar: np.datetime64, instruments: Mapping[str, Instrument]
) -> None:
    """Cut all purchases by one factor where the money for them is short, in a second plan."""
    body = ledger.body("plans", bar) or {}
    states = ledger.order_states(bar)
    orders = [own for own in states if own.revision == body["revision"]]
    planned = [own for own in orders if states[own] is State.PLANNED]
    if not planned or body["revision"] > 0 or any(own.units < 0 for own in planned):
        return
    costs = {name: Decimal(cost) for name, cost in body["costs"].items()}
    paid = any(ledger.filled(own.id) for own in orders)
    with exactly():
        parts = (own.units * own.reference + costs.get(own.asset, ZERO) for own in planned)
        needed = sum(parts, ZERO)
        room = max(ledger.holdings.cash - (ZERO if paid else Decimal(body["fee"])), ZERO)
    if needed <= room:
        return
    cut = dict.fromkeys(ledger.assets, (ZERO, Decimal(1)))
    for own in planned:
        rules = instruments[own.asset]
        units = rules.whole(scaled_down(own.units, room, needed), strictly=True)
        with exactly():
            worthwhile = units * own.reference >= rules.min_notional
        cut[own.asset] = (units if worthwhile else ZERO, own.reference)
    told = {name: body[name] for name in ("row", "turnover", "costs", "fee")}
    sizes, prices = zip(*cut.values(), strict=True)
    with ledger.batch():
        for own in planned:
            ledger.move(own, State.DENIED, clock.now(), reason="money is short")
        more = {**told, "reason": "money is short"}
        commit_plan(ledger, clock, bar, sizes, prices, planned[0].deadline, more, 1)
