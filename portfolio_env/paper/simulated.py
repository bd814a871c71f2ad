"""Simulated broker: with every fault off it trades as the backtest does; with them, as a venue.

Money and units are exact decimals; what is charged by a rate is rounded to ``MONEY``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Context, Decimal
from pathlib import Path
from typing import Any

import numpy as np

from portfolio_env.live.instruments import Instrument, instruments_of
from portfolio_env.live.money import ZERO, decimal_of, exactly, scaled_down
from portfolio_env.paper.broker import (
    Accepted,
    Accrual,
    Activity,
    Balances,
    Capabilities,
    Clock,
    NotFound,
    OrderReport,
    Prices,
    Quote,
    Refused,
)
from portfolio_env.paper.faults import Faults
from portfolio_env.paper.journal import Journal
from portfolio_env.paper.orders import Fill, Flow, Order, State, changes_of, moment
from portfolio_env.simulation.cost_models import Costs, checked_rates, half_spreads

MONEY = Decimal("1e-20")
_WIDE = Context(prec=80)
_SHORT = Context(prec=34, rounding=ROUND_DOWN)
_NOW, _NEVER = np.timedelta64(0, "ns"), np.datetime64("1700-01-01", "ns")


@dataclass
class _Placed:
    """An order at the venue."""

    place: int
    order: Order
    due: np.datetime64
    state: State = State.OPEN
    filled: Decimal = ZERO
    reason: str = ""

    @property
    def report(self) -> OrderReport:
        return OrderReport(self.order.id, self.state, self.filled, self.reason)


@dataclass
class _Book:
    """All that the venue knows; it is rebuilt from its journal."""

    units: dict[str, Decimal] = field(default_factory=dict)
    placed: list[_Placed] = field(default_factory=list)
    open: dict[int, _Placed] = field(default_factory=dict)  # those of them that are open
    latest: dict[str, _Placed] = field(default_factory=dict)  # the last one of each id
    records: list[Fill | Flow] = field(default_factory=list)
    at: np.datetime64 = _NEVER
    charged: str = ""  # the last bar that paid the fixed fee
    used: dict[tuple[str, str], Decimal] = field(default_factory=dict)


class SimulatedBroker:
    """Venue with an account of its own, whose prices come from a market or from quotes.

    An order is executed ``delay`` after it is accepted, at the price of then: the middle, moved
    against the order by the half-spread and by the square-root impact of the environment's costs.
    What volume, cash or faults leave of it lapses. A request after its validity is refused, and so
    is the id of another open order; ids of orders at an end are taken again, as at real venues.

    Args:
        assets: N names.
        prices: Prices.
        clock: Clock.
        costs: Costs of the environment.
        capital: Money at the start.
        instruments: Rules of trading by asset, ``"*"`` for all others; any fraction by default.
        faults: Faults at the venue: refusals, partial fills, halts, gaps.
        delay: Time from acceptance to execution.
        margin: Cash and holdings may be negative.
        path: File in which its account outlives the process; None keeps it in memory.
    """

    name = "simulated"

    def __init__(
        self,
        assets: Sequence[str],
        prices: Prices,
        clock: Clock,
        *,
        costs: Costs,
        capital: float | Decimal,
        instruments: Mapping[str, Instrument] | None = None,
        faults: Faults = Faults(),  # noqa: B008 (frozen)
        delay: np.timedelta64 = _NOW,
        margin: bool = False,
        path: Path | None = None,
    ) -> None:
        self.assets, self.prices, self.clock = tuple(assets), prices, clock
        rules = instruments or {"*": Instrument(lot=ZERO)}
        found = instruments_of(rules, self.assets)
        self._instruments = dict(zip(self.assets, found, strict=True))
        self.faults, self.delay = faults, delay
        self.capabilities = Capabilities(margin=margin)
        self._fee, self._rates = decimal_of(costs.fixed_fee), _rates_of(costs, self._instruments)
        self._book = _Book()
        self.journal = None if path is None else Journal(path)
        for event in () if self.journal is None else self.journal.events():
            self._apply(event.kind, event.body)
        if not self._book.records:
            money = capital if isinstance(capital, Decimal) else decimal_of(capital)
            start = Flow("start", "deposit", "", money, clock.now(), "capital")
            self._write("flow", start.to_json())

    # ---- requests

    def time(self) -> np.datetime64:
        """Return the venue's clock."""
        return self.clock.now()

    def instruments(self, assets: Sequence[str]) -> Mapping[str, Instrument]:
        """Return the rules of trading of each asset."""
        return {name: self._instruments[name] for name in assets if name in self._instruments}

    def quotes(self, assets: Sequence[str]) -> Mapping[str, Quote]:
        """Return prices by asset."""
        self._advance()
        now = self.clock.now()
        found = {name: self.prices.quote(name, now) for name in assets}
        return {name: quote for name, quote in found.items() if quote is not None}

    def balances(self) -> Balances:
        """Return cash and holdings."""
        self._advance()
        held = {name: units for name, units in self._book.units.items() if units and name}
        return Balances(self._book.units.get("", ZERO), held)

    def submit(self, order: Order, valid_until: np.datetime64) -> Accepted | Refused:
        """Accept an order or refuse it; without delay it is executed at once."""
        self._advance()
        now = self.clock.now()
        if refused := self._refusal(order, valid_until, now):
            return refused
        self._write("accepted", {"order": order.to_json(), "due": str(now + self.delay)})
        self._advance()
        return Accepted(self._book.placed[-1].report)

    def cancel(self, order: Order) -> Accepted | Refused:
        """Cancel an order that is still open; the report says how far it came."""
        self._advance()
        placed = self._book.latest.get(order.id)
        if placed is None:
            return Refused("there is no such order", "unknown")
        if placed.state is State.OPEN:
            self._end(placed, State.CANCELLED, "cancelled")
        return Accepted(placed.report)

    def find(self, order: Order) -> OrderReport | NotFound:
        """Return the state of the last order of an id."""
        self._advance()
        placed = self._book.latest.get(order.id)
        return NotFound() if placed is None else placed.report

    def open_orders(self) -> Sequence[OrderReport]:
        """Return all open orders."""
        self._advance()
        return [each.report for each in self._book.open.values()]

    def activity(self, cursor: str) -> Activity:
        """Return fills and flows since a cursor."""
        self._advance()
        found = self._book.records[int(cursor or 0) :]
        fills = tuple(each for each in found if isinstance(each, Fill))
        flows = tuple(each for each in found if isinstance(each, Flow))
        return Activity(fills, flows, str(len(self._book.records)))

    def deposit(self, flow: Flow) -> None:
        """Change the account by what no order did: a deposit, a withdrawal, a trade by hand."""
        self._advance()
        self._write("flow", flow.to_json())

    # ---- the venue itself

    def _refusal(
        self, order: Order, valid_until: np.datetime64, now: np.datetime64
    ) -> Refused | None:
        rules, quote = self._instruments.get(order.asset), self._quote(order)
        if rules is None:
            return Refused(f"{order.asset} is not traded here", "asset")
        if now > valid_until:
            return Refused("the request came after its validity", "late")
        placed = self._book.latest.get(order.id)
        if placed is not None and placed.state is State.OPEN:
            return Refused("an open order has this id", "duplicate")
        if rules.whole(order.units, strictly=True) != order.units:
            return Refused(f"{order.units} is no multiple of the lot {rules.lot}", "precision")
        with exactly():
            small = abs(order.units) * order.reference < rules.min_notional
        if small:
            return Refused(f"less than {rules.min_notional} of money", "minimum")
        if quote is None or not quote.tradable:
            return Refused(f"{order.asset} is halted", "halted")
        if self.faults.happens("refused", order.bar, order.id):
            return Refused("the venue refuses it", "fault")
        if not self.capabilities.margin and order.units < 0:
            with exactly():
                left = self._book.units.get(order.asset, ZERO) + order.units
            if left < 0:
                return Refused(f"{-left} of {order.asset} are lacking", "holdings")
        if not self.capabilities.margin and order.units > 0 and self._book.units.get("", ZERO) <= 0:
            return Refused("there is no money", "funds")
        return None

    def _advance(self) -> None:
        """Let happen what is due until now: executions, interest, delistings."""
        now, book = self.clock.now(), self._book
        due: list[tuple[np.datetime64, int, Any]] = [
            (each.due, 0, each) for each in book.open.values() if each.due <= now
        ]
        if now > book.at:
            due += [(each.at, 1, each) for each in self.prices.accruals(book.at, now)]
        for _, _, each in sorted(due, key=lambda entry: entry[:2]):
            with self._together():
                self._accrue(each) if isinstance(each, Accrual) else self._execute(each)
        book.at = max(book.at, now)

    def _quote(self, order: Order) -> Quote | None:
        """Return the price at which an order would be executed now, before spread and impact."""
        quote = self.prices.quote(order.asset, self.clock.now())
        if quote is None or self.faults.happens("halted", order.bar, order.asset):
            return None
        factor = self.faults.jump(order.bar, order.asset)
        if factor == 1.0:
            return quote
        return Quote(_WIDE.multiply(quote.price, decimal_of(factor)), quote.tradable)

    def _execute(self, placed: _Placed) -> None:
        """Fill an order as far as volume, money and faults let it; the rest lapses."""
        order, at = placed.order, placed.due
        quote = self._quote(order)
        if at > order.deadline or quote is None or not quote.tradable:
            late = at > order.deadline
            return self._end(placed, State.EXPIRED, "too late" if late else "halted")
        units, reason = self._fillable(order, quote.price, at)
        if units:
            fill = self._fill(order, units, quote.price, at)
            side = 1 if units > 0 else -1
            if order.limit is not None and side * fill.price > side * order.limit:
                return self._end(placed, State.EXPIRED, "beyond its limit")
            with exactly():
                rest = abs(units) * quote.price * self._rates[order.asset][units < 0][0]
            charged = fill.fee != rest
            self._write("fill", {"place": placed.place, "charged": charged, **fill.to_json()})
        full = placed.filled == order.units
        return self._end(placed, State.FILLED if full else State.EXPIRED, "" if full else reason)

    def _fillable(self, order: Order, mid: Decimal, at: np.datetime64) -> tuple[Decimal, str]:
        """Return the units of an order that are filled, and why no more are."""
        rules, units, reason = self._instruments[order.asset], order.units, ""
        share = self.prices.share(order.asset, order.bar)
        if self.faults.happens("partial", order.bar, order.id):
            share = min(share, decimal_of(self.faults.draw("share", order.bar, order.id)))
        if share < 1:
            units, reason = rules.whole(_SHORT.multiply(units, share), strictly=True), "partial"
        capacity = self.prices.capacity(order.asset, at)
        if capacity is not None:
            used = self._book.used.get((str(order.bar), order.asset), ZERO)
            with exactly():
                room, wanted = max(capacity - used, ZERO), abs(units) * mid
            if wanted > room:
                cut = scaled_down(units, room, wanted)
                units, reason = rules.whole(cut, strictly=True), "volume"
        if units and not self.capabilities.margin:
            held = self._book.units
            with exactly():
                if units < 0 and held.get(order.asset, ZERO) + units < 0:
                    units, reason = -held.get(order.asset, ZERO), "holdings"
            for _ in range(3):  # impact is rounded as a float: a second time a little more is cut
                if not units:
                    break
                fill = self._fill(order, units, mid, at)
                with exactly():
                    spent = units * fill.price + fill.fee
                    cash = max(held.get("", ZERO), ZERO)
                if spent <= cash or spent <= 0:
                    break
                if units < 0:  # a sale that does not pay for its own fee
                    units = ZERO
                    break
                fee = self._fee_of(order)
                with exactly():
                    room, wanted = max(cash - fee, ZERO), spent - fee
                cut = rules.whole(scaled_down(units, room, wanted), strictly=True)
                units, reason = (cut if cut < units else ZERO), "funds"
        return units, reason

    def _fee_of(self, order: Order) -> Decimal:
        """Return the fixed fee, which is due once for all orders of a bar."""
        return ZERO if self._book.charged == str(order.bar) else self._fee

    def _fill(self, order: Order, units: Decimal, mid: Decimal, at: np.datetime64) -> Fill:
        """Return the fill of some units of an order at a price in the middle."""
        side = 1 if units > 0 else -1
        commission, half_spread = self._rates[order.asset][0 if side > 0 else 1]
        with exactly():
            notional = abs(units) * mid
            spread, fee = notional * half_spread, notional * commission
        push = self.prices.impact(order.asset, at) * float(notional) ** 1.5
        # towards the trader by less than 1e-34: money that was planned for is enough
        per_unit = _SHORT.divide(decimal_of(push), abs(units)) if push else ZERO
        with exactly():
            price = mid + side * (mid * half_spread + per_unit)
            if price <= 0:  # no impact takes more than all of a sale
                per_unit, price = mid - mid * half_spread, ZERO
            impact, fixed = per_unit * abs(units), self._fee_of(order)
            left = self._book.units.get("", ZERO) - units * price - fee - fixed
            if units > 0 or self.capabilities.margin or left >= 0:
                fee += fixed  # else a larger sale pays it
        trade = f"{len(self._book.records)}"
        return Fill(trade, order.id, order.asset, units, price, fee, at, "", mid, spread, impact)

    def _accrue(self, accrual: Accrual) -> None:
        """Book interest, then delistings."""
        book, (earned, owed, shorted) = self._book, accrual.rates
        cash, short = book.units.get("", ZERO), ZERO
        with exactly():
            for name, units in book.units.items():
                if name and units < 0:
                    short += units * accrual.prices.get(name, ZERO)
            interest = cash * (earned if cash > 0 else owed) + short * shorted
        interest = interest.quantize(MONEY, context=_WIDE)
        changes = [("interest", "", interest)] if interest else []
        for name, money in accrual.delisted.items():
            if units := book.units.get(name, ZERO):
                with exactly():
                    changes += [("delisting", name, -units), ("delisting", "", units * money)]
        for kind, name, change in changes:
            if change:
                key = f"{kind}|{name}|{accrual.at}|{len(book.records)}"
                self._write("flow", Flow(key, kind, name, change, accrual.at).to_json())

    def _end(self, placed: _Placed, state: State, reason: str) -> None:
        self._write("ended", {"place": placed.place, "state": state, "reason": reason})

    # ---- its own records

    def _together(self) -> AbstractContextManager[None]:
        """Return the context in which all that happens outlives the process, or nothing of it."""
        return nullcontext() if self.journal is None else self.journal.batch()

    def _write(self, kind: str, body: dict[str, Any]) -> None:
        """Let something happen, in the journal first."""
        if self.journal is not None:
            self.journal.append(kind, self.clock.now(), None, **body)
        self._apply(kind, body)

    def _apply(self, kind: str, body: Mapping[str, Any]) -> None:
        book = self._book
        match kind:
            case "accepted":
                due, order = moment(body["due"]), Order.from_json(body["order"])
                placed = _Placed(len(book.placed), order, due)
                book.placed.append(placed)
                book.open[placed.place] = book.latest[order.id] = placed
            case "ended":
                placed = book.open.pop(body["place"])
                placed.state, placed.reason = State(body["state"]), body["reason"]
            case "fill":
                fill, placed = Fill.from_json(body), book.placed[body["place"]]
                bar = str(placed.order.bar)
                with exactly():
                    placed.filled += fill.units
                    used = book.used.get((bar, fill.asset), ZERO)
                    book.used[bar, fill.asset] = used + abs(fill.units) * (fill.mid or ZERO)
                    changes = changes_of(fill)
                book.charged = bar if body["charged"] else book.charged
                self._add(changes)
                book.records.append(fill)
            case "flow":
                flow = Flow.from_json(body)
                self._add({flow.asset: flow.units})
                book.records.append(flow)
                book.at = max(book.at, flow.at)

    def _add(self, changes: Mapping[str, Decimal]) -> None:
        units = self._book.units
        with exactly():
            for name, change in changes.items():
                units[name] = units.get(name, ZERO) + change


Sides = tuple[tuple[Decimal, Decimal], tuple[Decimal, Decimal]]


def _rates_of(costs: Costs, instruments: Mapping[str, Instrument]) -> dict[str, Sides]:
    """Return (commission, half-spread) of purchases and of sales by asset."""
    names = tuple(instruments)
    whole, spreads, found = checked_rates(costs, names), half_spreads(costs, names), {}
    for place, (name, each) in enumerate(instruments.items()):
        sides = []
        for side in (0, 1):
            rate, spread = decimal_of(whole[side, place]), decimal_of(spreads[side, place])
            if each.fee_bps is not None:
                rate, spread = each.fee_bps.scaleb(-4), ZERO
            with exactly():
                sides.append((max(rate - spread, ZERO), min(spread, rate)))
        found[name] = (sides[0], sides[1])
    return found
