"""Today: the orders of a bar with all that a person needs to know of them, printed and written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from portfolio_env.errors import MALFORMED, DataError
from portfolio_env.files.atomic import read_json, write_json
from portfolio_env.files.csv_files import write_csv
from portfolio_env.files.safe_names import printable
from portfolio_env.live.account import Account, AccountOptions, orders_at, read_account
from portfolio_env.live.alerts import AlertBounds, Record, alerts, days, targets
from portfolio_env.live.orders import Orders
from portfolio_env.live.planning import last_prices
from portfolio_env.live.predictor import Decision, Predictor
from portfolio_env.live.risk_limits import DrawdownStop, RiskLimits
from portfolio_env.market import Market
from portfolio_env.market.timeline import time_text

TABLE, RECORD = "orders.csv", "today.json"
_LINE = 80  # characters
_REACHED = 0.01  # of the account: what rounding to lots, and prices of fills, may leave away
_FEW = 5  # assets that are named, or have lines of their own, where many are alike
_WIDTHS = (10, 11, 7, 8, 11, 12)  # with a reason of 15 and spaces between them 80 columns
_HEADER = ("asset", "held units", "held %", "target %", "order units", "order money")


@dataclass(frozen=True, eq=False)
class Today:
    """Orders of the last bar, and what there is to say of them.

    Attributes:
        name: Strategy that decided.
        orders: The orders.
        now: Moment at which they are given.
        age: Age of the last bar then.
        execution: When they are to be filled, "close" or "next_open".
        alerts: Alerts, a sentence each.
        notes: Sentences that a reader must know, the validation gate's among them.
        peak: Highest value of the account so far.
        stop: State of the drawdown stop of the account's risk limits.
    """

    name: str
    orders: Orders
    now: np.datetime64
    age: np.timedelta64
    execution: str
    alerts: tuple[str, ...]
    notes: tuple[str, ...]
    peak: float
    stop: DrawdownStop

    def text(self) -> str:
        """Return it in lines of at most 80 characters."""
        orders, plan = self.orders, self.orders.plan
        before, after = float(orders.before.cash), float(orders.after.cash)
        filled = "that close" if self.execution == "close" else "the next open"
        lines = [
            fill(
                f"Orders of {printable(self.name)}, decided at the close of "
                f"{time_text(plan.timestamp)} ({days(self.age)} ago) for execution at {filled}, "
                "sized at the last closes.",
                _LINE,
            ),
            "",
            _line(*_HEADER, "reason"),
        ]
        table = orders.table().iloc[:-1]
        idle = table[["held_units", "target_weight", "order_units"]].eq(0).all(axis=1)
        idle &= table["reason"].eq("")
        small = table[table["reason"].str.startswith("under ")]
        folded = [rows for _, rows in small.groupby("reason") if len(rows) > _FEW]
        shown = table[~idle].drop([name for rows in folded for name in rows.index])
        lines += [_asset_line(str(name), row) for name, row in shown.iterrows()]
        lines.append(_line("cash", "", *_shares(plan.weights[0], plan.held[0]), "", "", ""))
        lines += [fill(_folded(rows, plan.value), _LINE) for rows in folded]
        if idle.any():
            lines.append(
                fill(f"Neither held nor wanted: {_names(list(table.index[idle]))}.", _LINE)
            )
        lines.append("")
        money = (
            f"Value {plan.value:,.2f}; cash {before:,.2f} before, {after:,.2f} after; costs "
            f"{float(orders.cost):,.2f}.",
            f"Cash that was not planned {round(orders.unplanned_cash, 2) + 0.0:,.2f}; tracking "
            f"error of rounding {100 * orders.tracking_error:.2f} %.",
        )
        lines += [fill(line, _LINE) for line in money]
        remarks = [f"Note: {note}" for note in self.notes] + [
            f"ALERT: {each}" for each in self.alerts
        ]
        return "\n".join([*lines, *(fill(printable(line), _LINE) for line in remarks)])

    def print(self, form: Literal["table", "json"] = "table") -> None:
        """Print the text, or the JSON."""
        print(self.text() if form == "table" else json.dumps(self.to_json(), indent=2))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON; money and units are exact, as text."""
        orders, plan = self.orders, self.orders.plan
        parts = zip(
            plan.assets, orders.before.units, plan.weights[1:].tolist(), plan.held[1:].tolist(),
            orders.prices, orders.units, orders.costs, orders.after.units, orders.reasons,
            strict=True,
        )  # fmt: skip
        return {
            "strategy": self.name,
            "bar": str(plan.timestamp),
            "now": str(self.now),
            "age_seconds": float(self.age / np.timedelta64(1, "s")),
            "execution": self.execution,
            "value": plan.value,
            "peak": self.peak,
            "drawdown_stop": {"peak": self.stop.peak, "bars": self.stop.bars},
            "risk_limits": _risk_of(orders),
            "cash_before": f"{orders.before.cash:f}",
            "cash_after": f"{orders.after.cash:f}",
            "cost": f"{orders.cost:f}",
            "unplanned_cash": orders.unplanned_cash,
            "tracking_error": orders.tracking_error,
            "target": targets(orders),
            "orders": [
                {
                    "asset": asset,
                    "held_units": f"{held:f}",
                    "held_weight": weight,
                    "target_weight": target,
                    "price": f"{price:f}" if price.is_finite() else None,
                    "order_units": f"{units:f}",
                    "cost": f"{cost:f}",
                    "units_after": f"{after:f}",
                    "reason": reason,
                }
                for asset, held, weight, target, price, units, cost, after, reason in parts
            ],
            "notes": list(self.notes),
            "alerts": list(self.alerts),
        }

    def write(self, folder: str | Path) -> None:
        """Write ``orders.csv`` and ``today.json`` into a folder, each in one piece."""
        write_csv(Path(folder) / TABLE, self.orders.table())
        write_json(Path(folder) / RECORD, self.to_json())


def today(
    predictor: Predictor,
    account: AccountOptions,
    *,
    name: str,
    now: np.datetime64,
    bounds: AlertBounds = AlertBounds(),  # noqa: B008 (frozen)
    notes: Sequence[str] = (),
    folder: str | Path | None = None,
) -> Today:
    """Return the orders of an account at the last bar of a policy's market.

    Args:
        predictor: The policy.
        account: The account.
        name: Name of the strategy.
        now: The present moment, UTC.
        bounds: Bounds of the alerts.
        notes: Sentences that a reader must know.
        folder: Folder that the orders before these were written to: the highest value and the
            drawdown stop go on from there, and the targets are compared if the same strategy
            decided; None knows of none.

    Raises:
        ArgumentError: As of ``orders_at``.
        DataError: As of ``orders_at``, or if the data end after the present.
    """
    simulator = predictor.simulator
    market = simulator.market
    long_only = bool(simulator.bounds["long_only"][0])
    own = read_account(account, market, market.n_bars - 1, simulator.costs, long_only=long_only)
    before = None if folder is None else _read_record(Path(folder) / RECORD, name)
    passed = 1 if before is None else int((market.timestamps > before.bar).sum())
    stop = DrawdownStop() if before is None else before.stop
    if own.limits is not None:
        stop = stop.after(passed, own.value, own.limits)
    elif stop.bars is not None:  # a call without limits ends no stop
        stop = replace(stop, bars=stop.bars + passed)
    held_back = own.limits is not None and stop.bars is not None
    decision, remarks = _decided(predictor, own, before)
    orders = orders_at(predictor, own, decision=decision, stopped=held_back)
    found = alerts(orders, market, now, bounds, before)
    return Today(
        name,
        orders,
        now,
        now - market.timestamps[-1],
        "next_open" if simulator.rules["next_open"][0] else "close",
        tuple(found),
        (*notes, *remarks, *_risk_sentences(orders, stop, own.limits)),
        max(orders.plan.value, 0.0 if before is None else before.peak),
        stop,
    )


def _decided(
    predictor: Predictor, account: Account, before: Record | None
) -> tuple[Decision, list[str]]:
    """Return the decision at the last bar, and what there is to say of it.

    A baseline that holds between its rebalancing dates reads what it holds from the account, which
    may be what another held, or short of what it ordered. At the first call it therefore decides
    as from cash; later it holds what was to be held at the call before, as the market has
    moved it, where the account is farther away from that than ``_REACHED``.
    """
    held = account.holdings.weights(account.prices)
    if not getattr(predictor.policy, "carries_on", False):
        return predictor.decide(held), []
    if before is None or before.target is None:
        return replace(predictor.decide(np.eye(1, len(held))[0]), weights=held), []
    found = predictor.decide(held)
    if not np.array_equal(found.action.astype(np.float32), held.astype(np.float32)):
        return found, []
    target = _moved(before.target, predictor.simulator.market, before.bar)
    if np.abs(target - held).sum() / 2 > _REACHED:
        when = time_text(before.bar)
        return replace(found, action=target), [f"The target of {when} was not reached: carried on."]
    return found, ["It is no rebalancing date: what is held is held on."]


def _moved(target: Mapping[str, float], market: Market, bar: np.datetime64) -> NDArray[np.float64]:
    """Return (N + 1,) a target by name, as prices have moved it from a bar to the last one."""
    first = max(int(np.searchsorted(market.timestamps, bar, side="right")) - 1, 0)
    then, now = last_prices(market, first), last_prices(market, market.n_bars - 1)
    money = np.array([target.get(name, 0.0) for name in ("cash", *market.assets)])
    money[1:] *= np.where(np.isfinite(then), now / then, 1.0)
    moved: NDArray[np.float64] = money / money.sum()
    return moved


def _risk_of(orders: Orders) -> dict[str, Any] | None:
    """Return the decision of the risk manager as JSON; None without limits."""
    risk = orders.plan.risk
    if risk is None:
        return None
    return {"bound": list(risk.bound), "step": risk.step, "broken": orders.broken}


def _risk_sentences(orders: Orders, stop: DrawdownStop, limits: RiskLimits | None) -> list[str]:
    risk = orders.plan.risk
    if risk is None or limits is None:
        return []
    if stop.bars is not None:
        again = limits.reentry_after
        rest = "" if again is None else f"; {again - stop.bars} bars until the policy is followed"
        return [f"The drawdown stop holds: cash is held, for {stop.bars} bars so far{rest}."]
    if not risk.bound:
        return ["All risk limits hold on what was asked for."]
    way = "" if risk.step == 1 else f", and {100 * risk.step:.0f} % of the way there is traded"
    return [f"Risk limits changed what was asked for ({', '.join(risk.bound)}){way}."]


def _read_record(path: Path, strategy: str) -> Record | None:
    try:
        record = read_json(path)
    except FileNotFoundError:
        return None
    try:
        target = {str(name): float(weight) for name, weight in record["target"].items()}
        peak, stop = float(record["peak"]), record.get("drawdown_stop") or {}
        bars = stop.get("bars")
        return Record(
            np.datetime64(record["bar"]),
            target if record.get("strategy") == strategy else None,
            peak,
            DrawdownStop(float(stop.get("peak", peak)), None if bars is None else int(bars)),
        )
    except MALFORMED as error:
        raise DataError(f"{path} is no record of orders ({error}); move it away") from error


def _folded(rows: pd.DataFrame, value: float) -> str:
    """Return a sentence on assets that are not traded for one reason, with what is left undone."""
    held, target = rows["held_weight"], rows["target_weight"]
    parts = _shares(float(held.sum()), float(target.sum()))
    missing = float((target - held).abs().sum()) * value
    return (
        f"{rows['reason'].iloc[0].capitalize()}, {len(rows)} assets: together held {parts[0]} %, "
        f"target {parts[1]} %, orders of {missing:,.2f} left out: {_names(list(rows.index))}."
    )


def _asset_line(name: str, row: Any) -> str:
    shares = _shares(row["held_weight"], row["target_weight"])
    order = _units(row["order_units"]), f"{row['order_money']:,.2f}"
    return _line(name, _units(row["held_units"]), *shares, *order, row["reason"])


def _shares(held: float, target: float) -> tuple[str, str]:
    return f"{100 * held + 0.0:.1f}", f"{100 * target + 0.0:.1f}"


def _line(name: str, *cells: str) -> str:
    """Return a line of the table; a name that its column cannot hold stands whole above it."""
    shown, width = printable(name), _WIDTHS[0]
    first = f"{shown}\n{'':{width}}" if len(shown) > width else f"{shown:<{width}}"
    parts = [f"{cell:>{width}}" for cell, width in zip(cells[:-1], _WIDTHS[1:], strict=True)]
    return " ".join([first, *parts, cells[-1]]).rstrip()


def _units(units: float) -> str:
    """Return units in at most 11 characters."""
    text = f"{units:,.6f}".rstrip("0").rstrip(".")
    return text if len(text) <= _WIDTHS[1] else f"{units:.5g}"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:_FEW])
    return f"{shown} and {len(names) - _FEW} more" if len(names) > _FEW else shown
