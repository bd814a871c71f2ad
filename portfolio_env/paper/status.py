"""Status of a session: what it does and why, as one page that works offline and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from portfolio_env.checks import check_choice
from portfolio_env.errors import DataError
from portfolio_env.files.atomic import write_json
from portfolio_env.html import Section, bullets, facts, paragraph, table, write_page
from portfolio_env.live.alerts import days
from portfolio_env.market.timeline import time_text
from portfolio_env.paper.attribution import RunningShortfall
from portfolio_env.paper.ledger import ACTIVE, Ledger
from portfolio_env.paper.orders import UNFINISHED, Order, moment

PAGE, RECORD = "status.html", "status.json"
SEVERITIES = ("error", "warning", "note")
_REFRESH = 30  # seconds
_ALERTS = 50  # on the page
_ERRORS = frozenset({"halted", "trading", "unresolved", "disk"})
_IDEAL = (
    "What each cause adds to this account, less one that carries out every decision at once, at "
    "the close, at the costs of the environment; since the bar of "
)


@dataclass(frozen=True)
class Position:
    """Position in one asset.

    Attributes:
        asset: Name of the asset.
        units: Units held, negative for a short position.
        price: Last close; NaN where there is none.
        weight: Weight that is held.
        target: Weight that is to be held.
    """

    asset: str
    units: Decimal
    price: float
    weight: float
    target: float


@dataclass(frozen=True)
class OrderStatus:
    """Order that is planned or was sent.

    Attributes:
        asset: Name of the asset.
        units: Units, sales negative.
        filled: Units of it that are filled.
        state: State of the order in a word, e.g. "planned" or "sent".
        reason: Why it is given, or why not.
    """

    asset: str
    units: Decimal
    filled: Decimal = Decimal(0)
    state: str = "planned"
    reason: str = ""


@dataclass(frozen=True)
class Alarm:
    """Alert that is open.

    Attributes:
        text: The fault, with its value and its bound, and what to do.
        since: Moment since which it is.
        severity: "error", "warning" or "note".
    """

    text: str
    since: np.datetime64
    severity: str = "warning"

    def __post_init__(self) -> None:
        """Check the severity."""
        check_choice("severity", self.severity, SEVERITIES)


@dataclass(frozen=True, kw_only=True)
class SessionStatus:
    """Status of a session at a moment; times are UTC, money is in the account's currency.

    Attributes:
        session: Name of the session.
        strategy: Strategy that decides.
        state: State in a word, e.g. "active".
        reason: Why it is.
        sentence: The present business of the session, and the event it waits for.
        now: Moment of the status.
        bar: Time of the last closed bar; NaT before the first.
        value: Money that the account is worth.
        cash: Money in cash.
        cash_target: Weight of cash that is to be held.
        drawdown: Share of the highest value that is lost.
        positions: Holdings and targets by asset.
        open_orders: Orders that were sent and are not over.
        plan: Orders of the last decision, with reasons.
        shortfall: Money that each cause adds against the ideal account, see ``attribution``;
            negative is lost.
        since: First bar of the shortfall; NaT where there is none.
        alerts: Alerts that are open.
        notes: Sentences that a reader must know, e.g. the verdict of the validation gate.
        bars: Numbers of bars by how they ended.
        orders: Numbers of orders by state.
    """

    session: str
    strategy: str
    state: str
    sentence: str
    now: np.datetime64
    bar: np.datetime64
    value: float
    cash: float
    reason: str = ""
    cash_target: float = 0.0
    drawdown: float = 0.0
    positions: Sequence[Position] = ()
    open_orders: Sequence[OrderStatus] = ()
    plan: Sequence[OrderStatus] = ()
    shortfall: Mapping[str, float] = field(default_factory=dict)
    since: np.datetime64 = np.datetime64("NaT")  # noqa: RUF009 (immutable)
    alerts: Sequence[Alarm] = ()
    notes: Sequence[str] = ()
    bars: Mapping[str, int] = field(default_factory=dict)
    orders: Mapping[str, int] = field(default_factory=dict)

    @property
    def ideal(self) -> float:
        """Return the money that the ideal account is worth."""
        return self.value - sum(self.shortfall.values())

    @property
    def causes(self) -> dict[str, str]:
        """Return the shortfall in words, without the causes that come to nothing."""
        shown = {name: money for name, money in self.shortfall.items() if abs(money) >= 0.005}
        return {name: f"{money:+,.2f}" for name, money in shown.items()}

    @property
    def age(self) -> np.timedelta64:
        """Return the age of the last bar; NaT before the first."""
        return self.now - self.bar

    def to_json(self) -> dict[str, Any]:
        """Return all fields, and the age in seconds; exact units as text, no number as None."""
        age = None if np.isnat(self.age) else float(self.age / np.timedelta64(1, "s"))
        found: dict[str, Any] = _plain(asdict(self) | {"age_seconds": age})
        return found


def session_status(
    ledger: Ledger, now: np.datetime64 | None = None, running: RunningShortfall | None = None
) -> SessionStatus:
    """Return the status of a session by what its ledger holds.

    Args:
        ledger: The ledger.
        now: Moment of the status; that of the last event by default.
        running: Sum of the shortfall so far, by which a status that is made again does not look at
            the whole ledger again.
    """
    first, last = ledger.query("SELECT min(seq), max(seq) FROM events")[0]
    if last is None:
        raise DataError("the ledger is empty: trade a bar first")
    sql = "SELECT at, body FROM events WHERE seq = ?"
    settings = json.loads(ledger.query(sql, first)[0]["body"]).get("settings", {})
    present = moment(ledger.query(sql, last)[0]["at"]) if now is None else now
    values = ledger.query("SELECT bar, value, body FROM valuations ORDER BY bar DESC LIMIT 1")
    valued: dict[str, Any] = json.loads(values[0]["body"]) if values else {"prices": {}}
    prices = {name: float(price) for name, price in valued["prices"].items()}
    units = ledger.all_units()
    cash = float(units.pop("", Decimal(0)))
    worth = {name: float(own) * prices.get(name, math.nan) for name, own in units.items() if own}
    value = cash + sum(worth.values())
    bar = ledger.query("SELECT max(bar) FROM plans")[0][0]
    body = {} if bar is None else ledger.body("plans", moment(bar)) or {}
    weights = [float.fromhex(text) for text in body.get("target", [])] or [0.0]
    targets = dict(zip(ledger.assets, weights[1:], strict=False))
    positions = [
        Position(
            name,
            units.get(name, Decimal(0)),
            prices.get(name, math.nan),
            worth.get(name, 0.0) / value if value else math.nan,
            targets.get(name, 0.0),
        )
        for name in sorted({*worth, *(name for name, own in targets.items() if own)})
    ]
    planned = [] if bar is None else ledger.orders(moment(bar))
    state, reason = ledger.trading
    ended = ledger.query("SELECT bar, phase, reason FROM bars ORDER BY bar DESC LIMIT 1")
    told = [f"Trading is {state}{f': {reason}' if reason else ''}."]
    if ended:
        name, phase, why = ended[0]
        told.append(
            f"The bar of {time_text(np.datetime64(name))}: {phase}{f' ({why})' * bool(why)}."
        )
    alerts = ledger.query("SELECT * FROM alerts WHERE closed = '' ORDER BY rowid DESC")
    if len(alerts) > _ALERTS:
        told.append(f"{len(alerts)} alerts are open; the last {_ALERTS} are shown.")
    missing, since = (running or RunningShortfall(ledger)).total()
    # not by SQL, which takes what is damaged for 0
    peak = max((float(row[0]) for row in ledger.query("SELECT value FROM valuations")), default=0.0)
    return SessionStatus(
        session=ledger.session,
        strategy=str(settings.get("strategy", ledger.session)),
        state=state,
        reason=reason,
        sentence=" ".join(told),
        now=present,
        bar=moment(values[0]["bar"] if values else "NaT"),
        value=value,
        cash=cash,
        cash_target=weights[0],
        drawdown=1 - float(values[0]["value"]) / peak if peak > 0 else 0.0,
        positions=positions,
        open_orders=[_order(ledger, own) for own in ledger.orders(states=UNFINISHED)],
        plan=[_order(ledger, own) for own in planned],
        shortfall=missing,
        since=moment(since or "NaT"),
        notes=settings.get("notes", ()),
        bars=_counts(ledger, "bars", "phase"),
        orders=_counts(ledger, "orders", "state"),
        alerts=[
            Alarm(
                each["text"],
                moment(each["opened"]),
                "error" if each["name"] in _ERRORS else "warning",
            )
            for each in alerts[:_ALERTS]
        ],
    )


def _counts(ledger: Ledger, table: str, column: str) -> dict[str, int]:
    return dict(map(tuple, ledger.query(f"SELECT {column}, count(*) FROM {table} GROUP BY 1")))


def _order(ledger: Ledger, order: Order) -> OrderStatus:
    state, reason = ledger.query("SELECT state, reason FROM orders WHERE id = ?", order.id)[0]
    return OrderStatus(order.asset, order.units, ledger.filled(order.id), state, reason)


def write_status(status: SessionStatus, folder: str | Path) -> None:
    """Write ``status.html`` and ``status.json`` into a folder, each in one piece.

    The page needs no other file and no script; an open one is loaded again every 30 seconds. Names
    and texts are escaped, so that none of them can be markup.

    Args:
        status: The status.
        folder: Created where it is missing; earlier files are replaced.

    Raises:
        PortfolioError: If Jinja is not installed.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / RECORD, status.to_json())
    title = f"Paper account: {status.strategy}"
    if status.state != ACTIVE:
        title += f" ({status.state})"
    head = [paragraph(status.sentence), facts(_head(status))]
    write_page(place / PAGE, title, head, _sections(status), refresh=_REFRESH)


def _head(status: SessionStatus) -> dict[str, str]:
    known = not np.isnat(status.bar)
    ago = f", {days(status.age)} ago" if known and status.age else ""
    own = {} if status.strategy == status.session else {"session": status.session}
    return own | {
        "value": f"{status.value:,.2f}",
        "cash": f"{status.cash:,.2f}",
        "drawdown": _percent(status.drawdown),
        "last bar": f"{time_text(status.bar)}{ago}" if known else "none yet",
        "as of": f"{time_text(status.now)} UTC",
    }


def _sections(status: SessionStatus) -> list[Section]:
    """Return the sections of the page; those with nothing to show are left out."""
    found = []
    if status.alerts:
        lists = []
        for severity in SEVERITIES:
            own = [each for each in status.alerts if each.severity == severity]
            lines = [f"{severity}, since {time_text(each.since)}: {each.text}" for each in own]
            lists += [bullets(lines, "fault" if severity == "error" else "findings")] * bool(own)
        found.append(Section("Alerts", lists))
    else:
        found.append(Section("Alerts", [paragraph("No alert is open.")]))
    found.append(Section("Holdings", [table(_holdings(status))]))
    for title, orders in (("Open orders", status.open_orders), ("Plan", status.plan)):
        if orders:
            found.append(Section(title, [table(_orders(orders))]))
    if status.shortfall:
        told = pd.DataFrame(
            {"money": status.causes | {"all": f"{status.value - status.ideal:+,.2f}"}}
        )
        found.append(
            Section(
                "Against the ideal account",
                [paragraph(f"{_IDEAL}{time_text(status.since)}."), table(told)],
            )
        )
    if status.notes:
        found.append(Section("Notes", [bullets(status.notes)]))
    return found


def _holdings(status: SessionStatus) -> pd.DataFrame:
    rows = {
        each.asset: {
            "held": _percent(each.weight),
            "target": _percent(each.target),
            "away": _points(each.weight - each.target),
            "units": f"{_short(each.units):,f}",
            "price": _money(each.price),
            "money": _money(float(each.units) * each.price),
        }
        for each in status.positions
    }
    share = status.cash / status.value if status.value else 0.0
    rows["cash"] = {
        "held": _percent(share),
        "target": _percent(status.cash_target),
        "away": _points(share - status.cash_target),
        "units": "",
        "price": "",
        "money": _money(status.cash),
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _orders(orders: Sequence[OrderStatus]) -> pd.DataFrame:
    rows = [
        {
            "units": f"{_short(each.units):+,f}",
            "filled": f"{_short(each.filled):,f}",
            "state": each.state,
            "reason": each.reason,
        }
        for each in orders
    ]
    return pd.DataFrame(rows, [each.asset for each in orders])


def _short(units: Decimal) -> Decimal:
    """Return units to at most 8 decimals, without zeros at the end; the JSON holds them all."""
    return round(units, 8).normalize() + Decimal(0)  # no -0


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # no -0.0


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _money(value: float) -> str:
    return f"{value:,.2f}" if math.isfinite(value) else ""


def _plain(value: Any) -> Any:
    """Return a value as JSON-able data."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
