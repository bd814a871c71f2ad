"""A slow, obvious account in plain Python: units of assets and cash in money, roots by bisection.

It shares no code with the package and serves as an independent check of its economics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Account:
    cash: float
    units: list[float]
    buy: list[float]
    sell: list[float]
    fixed_fee: float = 0.0
    cash_rate: float = 0.0
    margin_rate: float = 0.0
    borrow_rate: float = 0.0
    paid: float = field(default=0.0, init=False)
    traded: float = field(default=0.0, init=False)

    def value(self, prices: list[float]) -> float:
        return self.cash + math.fsum(u * p for u, p in zip(self.units, prices, strict=True))

    def weights(self, prices: list[float]) -> list[float]:
        value = self.value(prices)
        return [self.cash / value] + [
            u * p / value for u, p in zip(self.units, prices, strict=True)
        ]

    def rebalance(
        self,
        target: list[float],
        prices: list[float],
        tradable: list[bool],
        impact: list[float] | None = None,
    ) -> None:
        """Move to the asked proportions of what can be traded, paying the costs out of it.

        ``impact`` is b * sigma / sqrt(money volume) per asset: the rate per sqrt of the money
        traded.
        """
        n = len(prices)
        impact = impact or [0.0] * n
        before = self.value(prices)
        frozen = math.fsum(self.units[i] * prices[i] for i in range(n) if not tradable[i])
        asked = target[0] + math.fsum(target[i + 1] for i in range(n) if tradable[i])
        share = [target[0] / asked if asked > 1e-12 else 1.0] + [
            (target[i + 1] / asked if tradable[i] and asked > 1e-12 else 0.0) for i in range(n)
        ]

        def trades(wealth: float) -> list[float]:
            return [
                share[i + 1] * (wealth - frozen) - self.units[i] * prices[i] if tradable[i] else 0.0
                for i in range(n)
            ]

        def cost(money: list[float]) -> float:
            total = self.fixed_fee if any(abs(q) > 1e-9 for q in money) else 0.0
            for i, q in enumerate(money):
                rate = self.buy[i] if q > 0 else self.sell[i]
                total += (rate + impact[i] * math.sqrt(abs(q))) * abs(q)
            return total

        low, high = 0.0, before
        for _ in range(200):
            middle = (low + high) / 2
            if before - cost(trades(middle)) - middle > 0:
                low = middle
            else:
                high = middle
        money = trades(high)
        self.paid = cost(money)
        self.traded = math.fsum(abs(q) for q in money)
        self.cash -= math.fsum(money) + self.paid
        for i, q in enumerate(money):
            self.units[i] += q / prices[i]

    def carry(self, prices: list[float]) -> None:
        """Interest of one bar, on what is held at its start."""
        rate = self.cash_rate if self.cash > 0 else self.margin_rate
        short = math.fsum(-min(u * p, 0.0) for u, p in zip(self.units, prices, strict=True))
        self.cash += self.cash * rate - short * self.borrow_rate

    def liquidate(self, asset: int, price: float, haircut: float) -> None:
        self.cash += self.units[asset] * price * (1 - haircut)
        self.units[asset] = 0.0
