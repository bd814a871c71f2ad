"""Orders: a plan in whole lots, with the cash that there is; every sum of money is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from portfolio_env.live.holdings import Holdings
from portfolio_env.live.instruments import Instrument
from portfolio_env.live.money import ZERO, decimal_of, exactly, scaled_down
from portfolio_env.live.planning import Plan
from portfolio_env.live.risk import TOLERANCE

_NOTHING = 1e-13  # of the value of the account: a trade of less is rounding
_ROUNDING = Decimal("1e-15")
Amounts = tuple[Decimal, ...]


@dataclass(frozen=True, eq=False)
class Orders:
    """Trades to make now, and the holdings before and after them.

    Attributes:
        plan: The plan that the orders come as near to as lots and cash let them.
        prices: Price of each asset, to its tick.
        before: Holdings before trading.
        after: Holdings after it, if the orders are filled at these prices.
        units: Units of each order, negative for sales; 0 where there is none.
        costs: Cost of each order.
        fee: Money charged once for all.
        reasons: The trade in each asset in words, or why there is none.
    """

    plan: Plan
    prices: Amounts
    before: Holdings
    after: Holdings
    units: Amounts
    costs: Amounts
    fee: Decimal
    reasons: tuple[str, ...]

    @property
    def cost(self) -> Decimal:
        """Return the cost of all orders."""
        with exactly():
            return sum(self.costs, self.fee)

    @property
    def unplanned_cash(self) -> float:
        """Return the cash after trading less what was planned: what rounding left over."""
        return float(self.after.cash) - float(self.plan.money[0])

    @property
    def tracking_error(self) -> float:
        """Return half the sum of differences between weights after trading and planned ones."""
        after = self.after.weights(self.prices) if self.after.value(self.prices) > 0 else np.nan
        return float(np.abs(after - self.plan.held).sum() / 2)

    @property
    def broken(self) -> dict[str, float]:
        """Return the excess over every risk limit that the weights after trading break."""
        risk = self.plan.risk
        return {} if risk is None else risk.excess.broken(self.after.weights(self.prices))

    def table(self) -> pd.DataFrame:
        """Return a row per asset and one for cash, in floats.

        Returns:
            Columns ``held_units``, ``held_weight``, ``target_weight``, ``price``, ``order_units``,
            ``order_money``, ``cost``, ``units_after``, ``money_after``, ``weight_after`` and
            ``reason``. The row "cash" holds the money before and after, what all orders take from
            it, and the fee for all of them.
        """
        after = self.after.weights(self.prices)
        taken = self.after.cash - self.before.cash
        rows: dict[str, Sequence[Any] | np.ndarray[Any, Any]] = {
            "held_units": [*self.before.units, self.before.cash],
            "held_weight": np.roll(self.plan.weights, -1),
            "target_weight": np.roll(self.plan.held, -1),
            "price": [*self.prices, Decimal(1)],
            "order_units": [*self.units, taken],
            "order_money": [*_products(self.units, self.prices), taken],
            "cost": [*self.costs, self.fee],
            "units_after": [*self.after.units, self.after.cash],
            "money_after": [*self.after.worth(self.prices), self.after.cash],
            "weight_after": np.roll(after, -1),
        }
        frame = pd.DataFrame(
            {name: np.array(list(map(float, column))) for name, column in rows.items()},
            [*self.before.assets, "cash"],
        )
        return frame.rename_axis("asset").assign(reason=[*self.reasons, ""])


def orders_of(
    plan: Plan,
    holdings: Holdings,
    instruments: Sequence[Instrument],
    prices: Sequence[Decimal],
) -> Orders:
    """Return the orders that lead from holdings towards a plan.

    Trades are cut to whole lots, towards zero, and left out below the least money of an order.
    Sales pay for purchases; where that falls short of the least cash, of the constraints or of the
    plan if that is less, all purchases are cut by one factor. Where rounding breaks a risk limit,
    lots are taken from the orders or added to them, the one first that lessens the excess most.

    Args:
        plan: The plan, for these holdings.
        holdings: The holdings before trading.
        instruments: Rules of trading of each asset.
        prices: (N,) price of each asset, to its tick; NaN where there is none.
    """
    units, reasons = [], []
    for place, each in enumerate(instruments):
        own, reason = _order(plan, place, holdings.units[place], each, prices[place])
        units.append(own)
        reasons.append(reason)
    after = plan.value - plan.cost
    least = decimal_of(min(plan.money[0], plan.min_cash * after))
    _fit_cash(plan, holdings, instruments, prices, units, reasons, least)
    _fit_limits(plan, holdings, instruments, prices, units, reasons, least)
    new, costs, fee = _settled(plan, holdings, instruments, prices, units)
    for place, (own, each) in enumerate(zip(units, instruments, strict=True)):
        if own and plan.held[place + 1] == 0:
            left, side = new.units[place], _side(own)
            reasons[place] = f"{side}, dust left" if left and each.lot else f"{side} all"
    return Orders(plan, tuple(prices), holdings, new, tuple(units), costs, fee, tuple(reasons))


def _order(
    plan: Plan, place: int, held: Decimal, each: Instrument, price: Decimal
) -> tuple[Decimal, str]:
    """Return the units of one order before cash is looked at, and what is done or why nothing."""
    if not price.is_finite():
        return ZERO, "no price yet"
    if not plan.tradable[place]:
        return ZERO, "no bar now"
    target = plan.held[place + 1]
    with exactly():
        wanted = (decimal_of(plan.units[place]) if target else ZERO) - held
        notional = float(abs(wanted) * price)
    if plan.turnover == 0 or notional <= _NOTHING * plan.value:
        return ZERO, "stays" if held else ""
    units = each.whole(wanted)
    if units == 0:
        return ZERO, "under a lot"
    return _worthwhile(units, each, price)


def _worthwhile(units: Decimal, each: Instrument, price: Decimal) -> tuple[Decimal, str]:
    with exactly():
        if abs(units) * price < each.min_notional:
            return ZERO, f"under min {each.min_notional:f}"
    return units, _side(units)


def _side(units: Decimal) -> str:
    return "buy" if units > 0 else "sell"


def _fit_cash(
    plan: Plan,
    holdings: Holdings,
    instruments: Sequence[Instrument],
    prices: Sequence[Decimal],
    units: list[Decimal],
    reasons: list[str],
    least: Decimal,
) -> None:
    """Cut purchases, in place, until the cash after trading is at least ``least``."""

    def cash_after() -> Decimal:
        return _settled(plan, holdings, instruments, prices, units)[0].cash

    margin = ZERO  # impact is rounded as a float: a second time a little more is cut
    for last in (False, False, True):
        with exactly():
            short = least - cash_after()
            costs, _ = _costs(plan, instruments, prices, units)
            paid = zip(units, _products(units, prices), costs, strict=True)
            needed = sum((part + cost for own, part, cost in paid if own > 0), ZERO)
            room = ZERO if last else max(needed - short - margin, ZERO)
            margin = needed * _ROUNDING
        if short <= 0:
            return
        for place, own in enumerate(units):
            if own > 0:
                each = instruments[place]
                cut = each.whole(scaled_down(own, room, needed), strictly=True)
                units[place], _ = _worthwhile(cut, each, prices[place])
                reasons[place] = "buy, cash short" if units[place] else "no cash for it"
    with exactly():
        worthless = cash_after() < min(least, holdings.cash)
    if worthless:  # sales that do not pay for their own fee
        for place, own in enumerate(units):
            if own:
                units[place], reasons[place] = ZERO, "under its costs"


def _fit_limits(
    plan: Plan,
    holdings: Holdings,
    instruments: Sequence[Instrument],
    prices: Sequence[Decimal],
    units: list[Decimal],
    reasons: list[str],
    least: Decimal,
) -> None:
    """Change orders by lots, in place, while that lessens what rounding exceeds of risk limits."""
    if plan.risk is None:
        return
    excess = plan.risk.excess
    allowed = np.maximum(excess(plan.held), 0.0) + TOLERANCE / 2
    while True:
        after, costs, _ = _settled(plan, holdings, instruments, prices, units)
        money = np.array([float(after.cash), *map(float, after.worth(prices))])
        worst = (excess(money / money.sum()) - allowed).max()
        if worst <= 0:
            return
        moves, points = [], []
        for place, (each, price) in enumerate(zip(instruments, prices, strict=True)):
            if not (plan.tradable[place] and price.is_finite()):
                continue
            for new in _next_orders(units[place], holdings.units[place], each, price):
                with exactly():
                    paid = (new - units[place]) * price
                    cost = _cost(plan, place, each, new, abs(new * price)) - costs[place]
                    cash = after.cash - paid - cost
                if cash >= min(least, after.cash):
                    moves.append((place, new))
                    points.append(money.copy())
                    points[-1][0] = float(cash)
                    points[-1][1 + place] += float(paid)
        if not moves:
            return
        over = (excess(np.array([each / each.sum() for each in points])) - allowed).max(axis=-1)
        best = int(np.argmin(over))
        if over[best] >= worst:
            return
        place, units[place] = moves[best][0], moves[best][1]
        reasons[place] = "none, limit" if not units[place] else f"{_side(units[place])}, limit"


def _next_orders(units: Decimal, held: Decimal, each: Instrument, price: Decimal) -> list[Decimal]:
    """Return the orders that are a lot smaller and a lot larger, no position changing its side."""
    found = []
    for step in (-each.lot, each.lot):
        with exactly():
            new, after = units + step, held + units + step
            if new and abs(new) * price < each.min_notional:
                lots = each.min_notional // (price * each.lot)
                lots += lots * price * each.lot < each.min_notional
                new = ZERO if abs(new) < abs(units) else lots * step
                after = held + new
        if new != units and after * (held + units) >= 0 and after * held >= 0:
            found.append(new)
    return found


def _settled(
    plan: Plan,
    holdings: Holdings,
    instruments: Sequence[Instrument],
    prices: Sequence[Decimal],
    units: Sequence[Decimal],
) -> tuple[Holdings, Amounts, Decimal]:
    """Return the holdings after orders, the cost of each, and the fee for all."""
    costs, fee = _costs(plan, instruments, prices, units)
    with exactly():
        spent = sum(_products(units, prices), ZERO) + sum(costs, fee)
        after = tuple(a + b for a, b in zip(holdings.units, units, strict=True))
        return Holdings(holdings.assets, after, holdings.cash - spent), costs, fee


def _costs(
    plan: Plan,
    instruments: Sequence[Instrument],
    prices: Sequence[Decimal],
    units: Sequence[Decimal],
) -> tuple[Amounts, Decimal]:
    """Return the cost of every order, and the fee for all."""
    costs = []
    with exactly():
        for place, (own, part) in enumerate(zip(units, _products(units, prices), strict=True)):
            costs.append(_cost(plan, place, instruments[place], own, abs(part)))
    return tuple(costs), decimal_of(plan.fee) if any(units) else ZERO


def _cost(plan: Plan, place: int, each: Instrument, units: Decimal, notional: Decimal) -> Decimal:
    if not units:
        return ZERO
    side = plan.rates[0 if units > 0 else 1, place]
    rate = decimal_of(side) if each.fee_bps is None else each.fee_bps.scaleb(-4)
    return notional * rate + decimal_of(plan.impact[place] * float(notional) ** 1.5)


def _products(units: Sequence[Decimal], prices: Sequence[Decimal]) -> Amounts:
    with exactly():
        return tuple(own * price if own else ZERO for own, price in zip(units, prices, strict=True))
