"""One step of one lane, slowly, from the price panel alone: what the ledger should say of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from helpers.oracles.account import Account
from helpers.oracles.targets import (
    Limits,
    Rounding,
    clipped_to_box,
    kept_as_observed,
    scored,
    target,
    violation,
)

YEAR = 365.25 * 24 * 60 * 60  # seconds


@dataclass
class Setting:
    """An environment's options as plain numbers and lists; assets are those the lane trades."""

    seconds: list[float]  # time of every bar
    close: list[list[float]]  # per bar and asset, NaN where there is no bar
    open: list[list[float]] | None
    tradable: list[list[bool]]
    impact: list[list[float]] | None  # b sigma / sqrt(money volume)
    buy: list[float]
    sell: list[float]
    costs: dict  # the other fields of TransactionCosts; the cash rate as (second, rate) in order
    constraints: dict
    next_open: bool
    logits_scale: float | None  # None for weights
    adjustment: float
    initial_value: float
    participation: float | None = None
    volume: list[list[float]] | None = None  # units traded per bar and asset


@dataclass
class State:
    """A lane between two steps."""

    t: int
    weights: list[float]
    value: float
    peak: float
    turnovers: list[float]  # of the steps of this episode


class Prices:
    """The latest price of every asset as time goes on, and which are listed."""

    def __init__(self, close: list[list[float]]) -> None:
        n = len(close[0])
        bars = [[t for t, row in enumerate(close) if not math.isnan(row[i])] for i in range(n)]
        self.last_bar = [max(own, default=-1) for own in bars]
        self.first_bar = [min(own, default=len(close)) for own in bars]
        self.latest = [[1.0] * n]
        for row in close:
            pairs = zip(row, self.latest[-1], strict=True)
            self.latest.append([old if math.isnan(new) else new for new, old in pairs])

    def at(self, t: int) -> list[float]:
        """The close of the latest bar up to t; 1 where there was none yet."""
        return list(self.latest[t + 1])


def step(
    setting: Setting,
    prices: Prices,
    state: State,
    action: list[float],
    rounded: Rounding = list,
    shares: list[float] | None = None,
) -> dict:
    """What the step of a lane does: its ledger, held and drifted weights, value and turnover.

    ``shares`` are the largest shares of the orders that are filled; None is all of each.
    """
    t, n = state.t, len(state.weights) - 1
    limits = Limits(setting.constraints, n)
    marks = prices.at(t)
    account = opened(setting, state, marks)
    weights_asked = setting.logits_scale is None
    wanted = (
        clipped_to_box(action, limits)
        if weights_asked
        else scored(action, setting.logits_scale, limits)
    )
    kept = kept_as_observed(wanted, state.weights) if weights_asked else [False] * n
    if setting.next_open:
        move(account, setting, prices, t, marks, setting.open)
    wealth = account.value(marks)
    tradable = setting.tradable[t + 1 if setting.next_open else t]
    held = [1.0] + [0.0] * n
    if wealth > 0:
        asked, to_trade = target(
            wanted,
            account.weights(marks),
            [not x for x in tradable],
            kept,
            limits,
            setting.adjustment,
            rounded,
        )
        impact = setting.impact[t] if setting.impact else None
        limit = turnover_limit(setting, state)
        trade = asked, marks, to_trade, impact, limit, limits.cash_low, limits.may_borrow
        if shares is None:
            account.rebalance(*trade)
        else:
            account.rebalance_as_filled(partial(filled, setting, t, marks, shares), *trade)
        invested = account.value(marks)
        held = account.weights(marks) if invested > 0 else held
        account.carry(marks, (setting.seconds[t + 1] - setting.seconds[t]) / YEAR)
        move(account, setting, prices, t, marks, setting.close)
    value = account.value(marks)  # an account that is ruined overnight ends at that open
    floor = 1e-6 * setting.initial_value
    return {
        "portfolio_value": value,
        "log_return": math.log(max(value, floor) / max(state.value, floor)),
        "turnover": account.traded / wealth if wealth > 0 else 0.0,
        "unfilled": account.unfilled / wealth if wealth > 0 else 0.0,
        "cost": account.paid,
        "carry": account.interest,
        "drawdown": 1 - value / max(state.peak, value),
        "benchmark_log_return": benchmark(setting, prices, t),
        "ruined": value <= 1e-3 * setting.initial_value,
        "weights": account.weights(marks) if value > 0 else [1.0] + [0.0] * n,
        "held": held,
        "cash": held[0],
        "concentration": math.fsum(w * w for w in held),
        "constraint_violation": violation(held, limits),
    }


def filled(
    setting: Setting, t: int, marks: list[float], shares: list[float], i: int, money: float
) -> float:
    """What of an order of so much money is executed: no more units than the share of the volume."""
    part = shares[i] * money
    if setting.participation is None:
        return part
    traded = setting.volume[t + 1 if setting.next_open else t][i]
    units = 0.0 if math.isnan(traded) else setting.participation * traded
    return math.copysign(min(abs(part) / marks[i], units) * marks[i], money)


def opened(setting: Setting, state: State, marks: list[float]) -> Account:
    """The lane's account, in money and units at these prices."""
    costs, now = setting.costs, setting.seconds[state.t]
    return Account(
        cash=state.value * state.weights[0],
        units=[state.value * w / p for w, p in zip(state.weights[1:], marks, strict=True)],
        buy=setting.buy,
        sell=setting.sell,
        fixed_fee=costs["fixed_fee"],
        cash_rate=[rate for when, rate in costs["cash_rates"] if when <= now][-1],
        margin_rate=costs["margin_rate"],
        borrow_rate=costs["borrow_rate"],
    )


def move(
    account: Account,
    setting: Setting,
    prices: Prices,
    t: int,
    marks: list[float],
    bars: list[list[float]],
) -> None:
    """On to the next bar's prices, in ``marks``; what was delisted at t becomes cash."""
    for i in range(len(marks)):
        if prices.last_bar[i] == t:
            account.liquidate(i, marks[i], setting.costs["delisting_haircut"])
        elif not math.isnan(bars[t + 1][i]):
            marks[i] = bars[t + 1][i]


def turnover_limit(setting: Setting, state: State) -> float:
    fields = setting.constraints
    limit = fields.get("max_turnover") or math.inf
    if fields.get("turnover_period"):
        before = state.turnovers[max(len(state.turnovers) - fields["turnover_period"] + 1, 0) :]
        limit = min(limit, fields["max_period_turnover"] - math.fsum(before))
    return max(limit, 0.0)


def benchmark(setting: Setting, prices: Prices, t: int) -> float:
    """Log return of equal weight in what can be traded or is delisted in the step from bar t."""
    row = t + 1 if setting.next_open else t
    before, after = prices.at(t), prices.at(t + 1)
    moves = []
    for i, price in enumerate(before):
        if prices.last_bar[i] == t:
            moves.append(1 - setting.costs["delisting_haircut"])
        elif setting.tradable[row][i]:
            start = setting.open[t + 1][i] if prices.first_bar[i] > t else price
            moves.append(after[i] / start)
    mean = math.fsum(moves) / len(moves) if moves else 1.0
    return math.log(mean) if mean > 0 else 0.0
