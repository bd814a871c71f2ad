"""Ledger: the truth about what a session meant and did; its account is the sum of its events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from portfolio_env.errors import DataError
from portfolio_env.files.atomic import read_json, write_json
from portfolio_env.files.csv_files import write_csv
from portfolio_env.live.holdings import Holdings
from portfolio_env.live.money import ZERO, exactly
from portfolio_env.paper.journal import Event, Journal
from portfolio_env.paper.orders import (
    Fill,
    Flow,
    Order,
    State,
    changes_of,
    check_transition,
    moment,
)

LEDGER, HEAD = "ledger.db", "head.json"
ACTIVE, REDUCING, FLAT, HALTED = "active", "reducing", "flat", "halted"
"""Trading states: all orders are sent; those that lower a position; those that sell all; none."""
DECIDED, PLANNED = "decided", "planned"
DONE, HELD, PARTIAL = "done", "held", "partial"
BLOCKED, SKIPPED, MISSED = "blocked", "skipped", "missed"
PHASES = (DECIDED, PLANNED, DONE, HELD, PARTIAL, BLOCKED, SKIPPED, MISSED)
"""Phases of a bar: decided, planned, and how it ended: all orders filled, nothing to trade, not all
filled, refused by a check, not decided on, passed while nobody looked."""
ENDINGS = frozenset(PHASES[2:])
REVISED = "revised"
TROUBLES = (PARTIAL, BLOCKED, SKIPPED, MISSED, REVISED)
"""Alerts that are over once a bar is traded as it was planned."""

Bar = np.datetime64


class Ledger(Journal):
    """Ledger of a session: events, and tables that can be rebuilt from them at any time.

    Kinds of events, and what they hold besides the bar:

    - ``session``: the first one; ``id``, ``assets``, ``settings``.
    - ``phase``: ``phase`` of the bar and ``reason``; see ``PHASES``.
    - ``decision``: one per bar; ``row``, ``weights``, ``action`` and ``value`` as hexadecimal
      floats, ``dtype``, ``holdings``.
    - ``plan``: one per bar and revision; ``orders`` and what they were made of.
    - ``order``: ``id``, ``state``, and ``reason`` or ``valid_until``.
    - ``fill``, ``flow``: see ``orders.Fill``, ``orders.Flow``. The account is their sum.
    - ``cursor``: ``cursor`` up to which the venue's records are in the ledger.
    - ``valuation``: one per bar; ``value``, ``cash``, ``units``, ``prices``.
    - ``trading``: ``state`` (active, reducing, flat, halted) and ``reason``.
    - ``alert``: ``id``, ``name``, ``open``, ``text``; ``delivery``: ``alert``, ``sink``.
    - ``note``: anything else worth keeping, such as a reconciliation.
    """

    schema: ClassVar[str] = """
CREATE TABLE bars (bar TEXT PRIMARY KEY, phase TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE decisions (bar TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE plans (
    bar TEXT NOT NULL, revision INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (bar, revision)
);
CREATE TABLE orders (
    id TEXT PRIMARY KEY, bar TEXT NOT NULL, asset TEXT NOT NULL, revision INTEGER NOT NULL,
    state TEXT NOT NULL, reason TEXT NOT NULL, valid_until TEXT NOT NULL, attempts INTEGER NOT NULL,
    body TEXT NOT NULL, UNIQUE (bar, asset, revision)
);
CREATE INDEX orders_by_state ON orders (state);
CREATE TABLE fills (
    trade_id TEXT PRIMARY KEY, order_id TEXT NOT NULL, bar TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX fills_of_order ON fills (order_id);
CREATE TABLE flows (id TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE holdings (asset TEXT PRIMARY KEY, units TEXT NOT NULL CHECK (units GLOB '*[0-9]*'));
CREATE TABLE valuations (bar TEXT PRIMARY KEY, value TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE alerts (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, text TEXT NOT NULL, opened TEXT NOT NULL,
    closed TEXT NOT NULL
);
CREATE TABLE deliveries (alert TEXT, sink TEXT, PRIMARY KEY (alert, sink));
"""

    @classmethod
    def of(cls, folder: Path | None, *, read_only: bool = False) -> Ledger:
        """Return the ledger of a session's folder; None is one in memory."""
        return cls(None if folder is None else folder / LEDGER, read_only=read_only)

    # ---- projections

    def project(self, event: Event) -> None:
        """Bring the tables up to date with an event; one that contradicts them is refused.

        Raises:
            DataError: If an order may not change as it says, or is not known.
        """
        body, bar = event.body, event.bar
        told = event.kind in ("decision", "plan", "fill", "flow", "valuation", "trading")
        text = json.dumps(body, sort_keys=True) if told else ""
        match event.kind:
            case "session":
                for name in ("id", "assets"):
                    self._insert("state", name, json.dumps(body[name]))
                self._insert("holdings", "", "0")
            case "phase":
                self._insert("bars", bar, body["phase"], body.get("reason", ""), replace=True)
            case "decision":
                self._insert("decisions", bar, text)
            case "plan":
                self._insert("plans", bar, body["revision"], text)
                for own in body["orders"]:
                    own_text = json.dumps(own, sort_keys=True)
                    known = (own["id"], bar, own["asset"], body["revision"], State.PLANNED)
                    self._insert("orders", *known, "", "", 0, own_text)
            case "order":
                self._move_order(body)
            case "fill":
                self._insert("fills", body["trade_id"], body["order_id"], bar, text)
                with exactly():
                    self._add(changes_of(Fill.from_json(body)))
            case "flow":
                self._insert("flows", body["id"], text)
                self._add({body["asset"]: Decimal(body["units"])})
            case "cursor":
                self._insert("state", "cursor", json.dumps(body["cursor"]), replace=True)
            case "valuation":
                self._insert("valuations", bar, body["value"], text)
            case "trading":
                self._insert("state", "trading", text, replace=True)
            case "alert" if body["open"]:
                self._insert("alerts", body["id"], body["name"], body["text"], event.at, "")
            case "alert":
                closing = "UPDATE alerts SET closed = ? WHERE id = ? AND closed = ''"
                if self.db.execute(closing, (event.at, body["id"])).rowcount != 1:
                    raise DataError(f"alert {body['id']} is not open and cannot be closed")
            case "delivery":
                self._insert("deliveries", body["alert"], body["sink"])

    def _insert(self, table: str, *values: Any, replace: bool = False) -> None:
        how = "REPLACE" if replace else "INSERT"
        marks = ", ".join("?" * len(values))
        self.db.execute(f"{how} INTO {table} VALUES ({marks})", values)

    def _move_order(self, body: Mapping[str, Any]) -> None:
        found = self.db.execute("SELECT state FROM orders WHERE id = ?", (body["id"],)).fetchone()
        if found is None:
            raise DataError(f"order {body['id']} is not in the ledger")
        check_transition(body["id"], State(found[0]), State(body["state"]))
        sets, values = "state = ?, reason = ?", [body["state"], body.get("reason", "")]
        if body["state"] == State.SENDING:
            sets += ", valid_until = ?, attempts = attempts + 1"
            values.append(body["valid_until"])
        sql = f"UPDATE orders SET {sets} WHERE id = ?"
        self.db.execute(sql, (*values, body["id"]))

    def _add(self, changes: dict[str, Decimal]) -> None:
        for asset, change in changes.items():
            row = self.db.execute("SELECT units FROM holdings WHERE asset = ?", (asset,)).fetchone()
            with exactly():
                units = change if row is None else Decimal(row[0]) + change
            if not units.is_finite():
                raise DataError(f"{change} of {asset or 'money'} is no amount")
            self._insert("holdings", asset, f"{units:f}", replace=True)

    # ---- writing

    def start(self, at: Bar, session: str, assets: Sequence[str], **settings: Any) -> None:
        """Write the first event; a session that goes on must have the same id and assets.

        Raises:
            DataError: If the ledger is that of another session.
        """
        if self.head()[0] == 0:
            self.append("session", at, id=session, assets=list(assets), settings=settings)
        elif (self.session, self.assets) != (session, tuple(assets)):
            raise DataError(
                f"{self.name} is of session {self.session} of {len(self.assets)} assets, and this "
                f"is {session} of {len(assets)}: give another folder"
            )

    def move(self, order: Order, state: State, at: Bar, **more: str) -> None:
        """Write a change of an order's state."""
        self.append("order", at, order.bar, id=order.id, state=state, **more)

    def book(self, record: Fill | Flow, at: Bar) -> bool:
        """Write a fill or a flow unless it is there already; return whether it is new.

        Raises:
            DataError: If one of its id is there, and it is another.
        """
        body = record.to_json()
        is_fill = isinstance(record, Fill)
        table, key = ("fills", "trade_id") if is_fill else ("flows", "id")
        found = self.query(f"SELECT body FROM {table} WHERE {key} = ?", body[key])
        if found:
            if json.loads(found[0][0]) != body:
                raise DataError(
                    f"the venue reports {table[:-1]} {body[key]} otherwise than before: "
                    f"{found[0][0]}, and now {json.dumps(body, sort_keys=True)}"
                )
            return False
        order = self.order(record.order_id) if isinstance(record, Fill) else None
        bar = None if order is None else order.bar
        self.append("fill" if is_fill else "flow", at, bar, **body)
        return True

    def close_alerts(self, at: Bar, *names: str) -> None:
        """Write that the open alerts of some names are over."""
        marks = ", ".join("?" * len(names))
        sql = f"SELECT id, name FROM alerts WHERE closed = '' AND name IN ({marks})"
        for key, name in self.query(sql, *names):
            self.append("alert", at, id=key, name=name, open=False, text=f"{name}: it is over")

    def steer(self, at: Bar, state: str, reason: str) -> None:
        """Write a trading state, in the words of the person who says so."""
        with self.batch():
            self.append("trading", at, state=state, reason=reason)
            if state != HALTED:
                self.close_alerts(at, HALTED)

    def seal(self, **more: str) -> None:
        """Write number and digest of the last event beside the file: ``verify`` looks for it."""
        if self.path is not None:
            seq, own = self.head()
            write_json(self.path.with_name(HEAD), {"seq": seq, "digest": own, **more})

    def close(self) -> None:
        """Close the file, and seal all of its bytes where this process could write."""
        if self.path is not None and not self.read_only:
            with self._told:
                self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.seal(file=_digest(self.path))
        super().close()

    def verify(self) -> tuple[int, str]:
        """Check the file, the chain, the tables, and that nothing was cut off; return the head.

        Raises:
            DataError: If anything differs from what was written; the message says where.
        """
        found = super().verify()
        if self.path is not None and self.path.with_name(HEAD).exists():
            sealed = read_json(self.path.with_name(HEAD))
            rows = self.query("SELECT digest FROM events WHERE seq = ?", sealed["seq"])
            if not rows or rows[0][0] != sealed["digest"]:
                raise DataError(
                    f"{self.path} ends at event {found[0]}, or differs before: event "
                    f"{sealed['seq']} of {HEAD} is not there; restore both from a copy"
                )
            closed = sealed["seq"] == found[0] and "file" in sealed
            if closed and sealed["file"] != _digest(self.path):
                raise DataError(f"{self.path} is not as it was closed: restore it from a copy")
        return found

    # ---- reading

    def state(self, name: str, default: Any = None) -> Any:
        """Return an entry of the table of states: "id", "assets", "cursor" or "trading"."""
        rows = self.query("SELECT value FROM state WHERE name = ?", name)
        return json.loads(rows[0][0]) if rows else default

    @property
    def cursor(self) -> str:
        """Return the cursor up to which the venue's records are in the ledger; "" at first."""
        return str(self.state("cursor", ""))

    @property
    def session(self) -> str:
        """Return the id of the session."""
        return str(self.state("id", ""))

    @property
    def assets(self) -> tuple[str, ...]:
        """Return the assets of the session."""
        return tuple(self.state("assets", ()))

    @property
    def trading(self) -> tuple[str, str]:
        """Return the trading state and its reason."""
        found = self.state("trading", {"state": ACTIVE})
        return found["state"], found.get("reason", "")

    @property
    def holdings(self) -> Holdings:
        """Return units and cash, exactly: the sum of all fills and flows."""
        units = self.all_units()
        own = tuple(units.get(name, ZERO) for name in self.assets)
        return Holdings(self.assets, own, units.get("", ZERO))

    def all_units(self) -> dict[str, Decimal]:
        """Return units by asset, "" for money, those of foreign assets too."""
        return {row[0]: Decimal(row[1]) for row in self.query("SELECT * FROM holdings")}

    def order(self, order_id: str) -> Order | None:
        """Return an order by its id."""
        rows = self.query("SELECT body FROM orders WHERE id = ?", order_id)
        return Order.from_json(json.loads(rows[0][0])) if rows else None

    def order_state(self, order_id: str) -> State:
        """Return the state of an order."""
        return State(self.query("SELECT state FROM orders WHERE id = ?", order_id)[0][0])

    def valid_until(self, order_id: str) -> Bar:
        """Return the moment until which the venue could accept the last request of an order."""
        rows = self.query("SELECT valid_until FROM orders WHERE id = ?", order_id)
        return moment(rows[0][0])

    def order_states(
        self, bar: Bar | str | None = None, *, states: Iterable[State] = ()
    ) -> dict[Order, State]:
        """Return orders and their states, of a bar or of all, in some states or in any."""
        where, values = ["1"], list(map(str, states))
        if values:
            where.append(f"state IN ({', '.join('?' * len(values))})")
        if bar is not None:
            where.append("bar = ?")
            values.append(str(bar))
        sql = f"SELECT body, state FROM orders WHERE {' AND '.join(where)} ORDER BY rowid"
        rows = self.query(sql, *values)
        return {Order.from_json(json.loads(body)): State(state) for body, state in rows}

    def orders(self, bar: Bar | str | None = None, *, states: Iterable[State] = ()) -> list[Order]:
        """Return orders as planned, see ``order_states``."""
        return list(self.order_states(bar, states=states))

    def fills(self, order_id: str | None = None) -> list[Fill]:
        """Return the fills of an order, or all."""
        where, values = ("", ()) if order_id is None else ("WHERE order_id = ?", (order_id,))
        rows = self.query(f"SELECT body FROM fills {where} ORDER BY rowid", *values)
        return [Fill.from_json(json.loads(row[0])) for row in rows]

    def filled(self, order_id: str) -> Decimal:
        """Return the signed units of an order that are filled."""
        sql = "SELECT json_extract(body, '$.units') FROM fills WHERE order_id = ?"
        with exactly():
            return sum((Decimal(row[0]) for row in self.query(sql, order_id)), ZERO)

    def phase(self, bar: Bar) -> str:
        """Return the phase of a bar; "" before the first."""
        rows = self.query("SELECT phase FROM bars WHERE bar = ?", str(bar))
        return str(rows[0][0]) if rows else ""

    def body(
        self, table: str, bar: Bar | str, revision: int | None = None
    ) -> dict[str, Any] | None:
        """Return the body of a bar's decision, plan or valuation, by the name of the table."""
        extra, values = ("", ()) if revision is None else (" AND revision = ?", (revision,))
        sql = f"SELECT body FROM {table} WHERE bar = ?{extra}"
        rows = self.query(sql, str(bar), *values)
        return dict(json.loads(rows[-1][0])) if rows else None

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        return int(self.query(f"SELECT count(*) FROM {table}")[0][0])

    def table(self, name: str) -> pd.DataFrame:
        """Return a table as text, a column per field of its bodies; events are a table too."""
        rows = [dict(row) for row in self.query(f"SELECT * FROM {name}")]
        for row in rows:
            if "body" in row:
                row |= json.loads(row.pop("body"))
        return pd.DataFrame(rows)

    def export(self, folder: Path) -> list[Path]:
        """Write every table as CSV into a folder, and all events as JSON lines; return the files.

        Text that a spreadsheet would take for a formula is quoted.
        """
        names = [row[0] for row in self.query("SELECT name FROM sqlite_master WHERE type='table'")]
        written = []
        for name in sorted(names):
            frame = self.table(name)
            if name == "events":
                frame = pd.DataFrame(
                    [each._asdict() | {"body": json.dumps(each.body)} for each in self.events()]
                )
            frame = frame.map(
                lambda cell: json.dumps(cell) if isinstance(cell, dict | list) else cell
            )
            write_csv(folder / f"{name}.csv", frame, index=False)
            written.append(folder / f"{name}.csv")
        return written


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
