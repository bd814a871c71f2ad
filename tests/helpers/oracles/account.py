"""A slow, obvious account in plain Python: units of assets and cash in money, roots by bisection.

It shares no code with the package and serves as an independent check of its economics.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

NOTHING = 1e-12  # a trade of less than this share of the wealth is rounding


@dataclass
class Account:
    cash: float
    units: list[float]
    buy: list[float]
    sell: list[float]
    fixed_fee: float = 0.0
    cash_rate: float = 0.0  # per year, as the next two
    margin_rate: float = 0.0
    borrow_rate: float = 0.0
    paid: float = field(default=0.0, init=False)
    traded: float = field(default=0.0, init=False)
    interest: float = field(default=0.0, init=False)
    unfilled: float = field(default=0.0, init=False)

    def value(self, prices: list[float]) -> float:
        return self.cash + math.fsum(u * p for u, p in zip(self.units, prices, strict=True))

    def weights(self, prices: list[float]) -> list[float]:
        value = self.value(prices)
        return [self.cash / value] + [
            u * p / value for u, p in zip(self.units, prices, strict=True)
        ]

    def cost(self, money: list[float], impact: list[float]) -> float:
        """What trades of these amounts of money cost, purchases positive."""
        total = 0.0
        for i, q in enumerate(money):
            rate = self.buy[i] if q > 0 else self.sell[i]
            total += (rate + impact[i] * math.sqrt(abs(q))) * abs(q)
        return total

    def rebalance(
        self,
        target: list[float],
        prices: list[float],
        tradable: list[bool],
        impact: list[float] | None = None,
        limit: float = math.inf,
        least_cash: float = 0.0,
        may_borrow: bool = False,
    ) -> None:
        """Move to the asked proportions of what can be traded, paying the costs out of it.

        Where the account may borrow, assets are held as asked and cash makes up for the rest.

        ``impact`` is b * sigma / sqrt(money volume) per asset: the rate per sqrt of the money
        traded. Where the trades exceed ``limit`` times the wealth they are made in part, see
        ``rebalance_in_part``. What cannot be paid is not traded where frozen holdings are left,
        else the account is ruined.
        """
        n = len(prices)
        impact = impact or [0.0] * n
        before = self.value(prices)
        frozen = math.fsum(self.units[i] * prices[i] for i in range(n) if not tradable[i])
        self.paid = self.traded = 0.0
        if limit <= NOTHING or (before - frozen <= 1e-13 * before and not may_borrow):
            return
        asked = target[0] + math.fsum(target[i + 1] for i in range(n) if tradable[i])
        share = [target[0] / asked if asked > 1e-12 else 1.0] + [
            (target[i + 1] / asked if tradable[i] and asked > 1e-12 else 0.0) for i in range(n)
        ]

        if may_borrow:
            share, frozen = (
                [x if i == 0 or tradable[i - 1] else 0.0 for i, x in enumerate(target)],
                0.0,
            )

        def trades(wealth: float) -> list[float]:
            return [
                share[i + 1] * (wealth - frozen) - self.units[i] * prices[i] if tradable[i] else 0.0
                for i in range(n)
            ]

        def left_over(wealth: float) -> float:
            return before - self.cost(trades(wealth), impact) - self.fixed_fee - wealth

        if all(abs(q) <= NOTHING * before for q in trades(before)):
            return
        wealth = largest_root(left_over, max(frozen, 0.0), before)
        money = trades(before if math.isnan(wealth) else wealth)
        traded = math.fsum(abs(q) for q in money)
        if traded > (limit + NOTHING) * before:
            least = min(least_cash, self.cash / before, target[0])
            part = [q * limit * before / traded for q in money]
            self.rebalance_in_part(part, prices, impact, least)
        elif not math.isnan(wealth):
            self.trade(money, prices, impact)
        elif frozen <= NOTHING * before:
            self.paid, self.cash, self.units = before, 0.0, [0.0] * n

    def rebalance_as_filled(
        self,
        fill: Callable[[int, float], float],
        target: list[float],
        prices: list[float],
        tradable: list[bool],
        impact: list[float] | None = None,
        limit: float = math.inf,
        least_cash: float = 0.0,
        may_borrow: bool = False,
    ) -> None:
        """Plan to rebalance, and make what is filled of the planned trades.

        ``fill`` gives the money that is filled of an order of so much money in an asset. Where
        nothing is missing the plan is carried out; else purchases are cut to what there is cash
        for, see ``rebalance_in_part``. A plan that ruins orders the whole way to the target.
        """
        plan = copy.deepcopy(self)
        plan.rebalance(target, prices, tradable, impact, limit, least_cash, may_borrow)
        before, after = self.value(prices), plan.value(prices)
        held = [u * p for u, p in zip(self.units, prices, strict=True)]
        goal = [u * p for u, p in zip(plan.units, prices, strict=True)]
        if after <= 0:
            pairs = zip(target[1:], tradable, held, strict=True)
            goal = [w * before if can else own for w, can, own in pairs]
        orders = [new - own for new, own in zip(goal, held, strict=True)]
        orders = [q if abs(q) > NOTHING * before else 0.0 for q in orders]
        money = [fill(i, q) for i, q in enumerate(orders)]
        missing = [abs(q - done) > NOTHING * before for q, done in zip(orders, money, strict=True)]
        if not any(missing):
            vars(self).update(vars(plan))
            self.unfilled = 0.0
            return
        self.paid = self.traded = 0.0
        if math.fsum(map(abs, money)) > NOTHING * before:
            cash = plan.cash / after if after > 0 else target[0]
            least = min(least_cash, self.cash / before, cash)
            self.rebalance_in_part(money, prices, impact or [0.0] * len(prices), least)
        now = [u * p for u, p in zip(self.units, prices, strict=True)]
        left = [q - (new - own) for q, new, own in zip(orders, now, held, strict=True)]
        self.unfilled = math.fsum(map(abs, left))

    def trade(self, money: list[float], prices: list[float], impact: list[float]) -> None:
        self.paid = self.cost(money, impact) + self.fixed_fee
        self.traded = math.fsum(abs(q) for q in money)
        self.cash -= math.fsum(money) + self.paid
        for i, q in enumerate(money):
            self.units[i] += q / prices[i]

    def rebalance_in_part(
        self, money: list[float], prices: list[float], impact: list[float], least: float
    ) -> None:
        """Trade; purchases less by a factor where cash would fall below ``least`` of the wealth.

        The factor is worked out at the rates of the whole purchases. Nothing is traded where sales
        do not pay for themselves.
        """
        wealth = self.value(prices)
        sales, purchases = [min(q, 0.0) for q in money], [max(q, 0.0) for q in money]

        def taken(trades: list[float]) -> float:
            """By how much trades lower what cash is above its bound."""
            return math.fsum(trades) + (1 - least) * self.cost(trades, impact)

        room = self.cash - self.fixed_fee - least * (wealth - self.fixed_fee) - taken(sales)
        needed = taken(purchases)
        too_much = needed > max(room, 0.0) + 1e-15 * wealth
        fits = max(room, 0.0) / needed if too_much else 1.0
        money = [s + fits * p for s, p in zip(sales, purchases, strict=True)]
        is_paid = self.cost(money, impact) + self.fixed_fee < wealth
        if any(money) and room >= -1e-15 * wealth and is_paid:
            self.trade(money, prices, impact)

    def carry(self, prices: list[float], years: float) -> None:
        """Interest for so much time, on what is held at its start."""
        rate = self.cash_rate if self.cash > 0 else self.margin_rate
        short = math.fsum(-min(u * p, 0.0) for u, p in zip(self.units, prices, strict=True))
        self.interest = (self.cash * rate - short * self.borrow_rate) * years
        self.cash += self.interest

    def liquidate(self, asset: int, price: float, haircut: float) -> None:
        self.cash += self.units[asset] * price * (1 - haircut)
        self.units[asset] = 0.0


def largest_root(f, low: float, high: float) -> float:
    """The largest root in (low, high] of a concave f with f(high) <= 0; NaN if there is none."""
    if f(low + 1e-14 * (high - low)) <= 0:  # not positive near the left end: climb to the top first
        left, right = low, high
        for _ in range(200):
            third = (right - left) / 3
            if f(left + third) < f(right - third):
                left += third
            else:
                right -= third
        low = (left + right) / 2
        if f(low) <= 0:
            return math.nan
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if f(middle) > 0:
            low = middle
        else:
            high = middle
    return high
