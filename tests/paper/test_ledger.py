"""The ledger: events that only grow, an account that is their sum, and damage that is named."""

import json
import os
import shutil
import sqlite3
from contextlib import nullcontext
from decimal import Decimal
from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.paper import Fill, Flow, Ledger, Order, State, order_id
from portfolio_env.paper.journal import Journal, LedgerError
from portfolio_env.paper.orders import ENDED, TRANSITIONS

NOW = np.datetime64("2024-01-02", "ns")
LATER = NOW + np.timedelta64(1, "h")


def order_of(asset="A", units="2", revision=0):
    name = order_id("test", NOW, asset, revision)
    return Order(name, NOW, revision, asset, Decimal(units), Decimal("10.5"), LATER)


def fill_of(order, trade="t1", **changes):
    numbers = {"units": order.units, "price": Decimal("10.5"), "fee": Decimal("0.01"), "at": NOW}
    return Fill(trade, order.id, order.asset, **numbers | changes)


def ledger_of(folder=None):
    ledger = Ledger.of(folder)
    ledger.start(NOW, "test", ("A", "=B"), capital=100)
    ledger.book(Flow("d", "deposit", "", Decimal(100), NOW), NOW)
    order = order_of()
    ledger.append("plan", NOW, NOW, revision=0, orders=[order.to_json()])
    ledger.move(order, State.SENDING, NOW, valid_until=str(LATER))
    ledger.book(fill_of(order), NOW)
    ledger.move(order, State.FILLED, NOW)
    ledger.seal()
    return ledger


def test_the_account_is_the_sum_of_its_events():
    ledger = ledger_of()
    assert ledger.holdings.units == (2, 0)
    assert ledger.holdings.cash == Decimal("78.99")
    assert ledger.filled(order_of().id) == 2
    in_coin = fill_of(order_of(), "t2", fee_asset="A", fee=Decimal("0.002"))
    assert ledger.book(in_coin, NOW)
    assert ledger.holdings.units[0] == Decimal("3.998")
    assert ledger.holdings.cash == Decimal("57.99")
    ledger.verify()


def test_reports_in_any_order_and_number_give_one_account():
    order = order_of()
    reports = [
        fill_of(order, "a"),
        fill_of(order, "b", units=Decimal(-1)),
        Flow("f", "interest", "", Decimal("0.3"), NOW),
    ]
    found = set()
    for shuffled in permutations(reports):
        ledger = Ledger()
        ledger.start(NOW, "test", ("A",))
        for report in (*shuffled, *reports):
            ledger.book(report, NOW)
        found.add(tuple(sorted(ledger.all_units().items())))
    assert len(found) == 1
    with pytest.raises(DataError, match="otherwise than before"):
        ledger.book(fill_of(order, "a", fee=Decimal(9)), NOW)


def test_every_pair_of_states_is_allowed_or_refused():
    for before in State:
        for after in State:
            ledger, order = Ledger(), order_of()
            ledger.start(NOW, "test", ("A",))
            ledger.append("plan", NOW, NOW, revision=0, orders=[order.to_json()])
            ledger.db.execute("UPDATE orders SET state = ?", (before,))
            if after in TRANSITIONS[before]:
                ledger.move(order, after, NOW, valid_until=str(LATER))
                assert ledger.order_state(order.id) is after
            else:
                with pytest.raises(DataError, match="cannot become"):
                    ledger.move(order, after, NOW, valid_until=str(LATER))
                assert ledger.order_state(order.id) is before
    assert all(not TRANSITIONS[state] for state in ENDED - {State.NOT_ACCEPTED})


def test_what_may_be_there_once_is_there_once():
    ledger, order = ledger_of(), order_of()
    ledger.append("decision", NOW, NOW, row=1)
    before = ledger.head()
    for kind, body in (
        ("decision", {"row": 2}),
        ("plan", {"revision": 0, "orders": []}),
        ("plan", {"revision": 1, "orders": [order.to_json()]}),
        ("fill", fill_of(order).to_json()),
        ("alert", {"id": "x", "name": "x", "open": False}),
        ("order", {"id": "nobody", "state": "open"}),
    ):
        with pytest.raises(DataError):
            ledger.append(kind, NOW, NOW, **body)
        assert ledger.head() == before
    with pytest.raises(ArgumentError, match="cannot be written"):
        ledger.append("note", NOW, value=float("nan"))
    with pytest.raises(DataError, match="give another folder"):
        ledger.start(NOW, "other", ("A", "=B"))
    for bad in ("NaN", "Infinity", "0"):
        with pytest.raises(DataError, match="must be a number"):
            order_of(units=bad)
    ledger.verify()


def test_events_are_never_changed_or_removed():
    ledger = ledger_of()
    for statement in ("DELETE FROM events", "UPDATE events SET body = '{}'"):
        with pytest.raises(sqlite3.IntegrityError, match="events are never"):
            ledger.db.execute(statement)


def test_a_batch_is_whole_or_not_there():
    ledger = ledger_of()
    before = ledger.head()
    with pytest.raises(RuntimeError), ledger.batch():
        ledger.append("note", NOW, note="x")
        raise RuntimeError
    assert ledger.head() == before


def test_edits_with_any_tool_are_named(tmp_path):
    for number, (statement, message) in enumerate(
        (
            ("UPDATE events SET body = '{}' WHERE seq = 4", "event 4 is not what was written"),
            ("DELETE FROM events WHERE seq = 3", "event 3 is not"),
            ("DELETE FROM events WHERE seq = 6", "the table .* is not|is not there"),
            ("UPDATE holdings SET units = '999' WHERE asset = ''", "the table holdings is not"),
            ("DELETE FROM fills", "the table fills is not"),
        )
    ):
        folder = tmp_path / str(number)
        ledger_of(folder).close()
        raw = sqlite3.connect(folder / "ledger.db")
        raw.executescript(f"DROP TRIGGER no_update; DROP TRIGGER no_delete; {statement};")
        raw.close()
        with pytest.raises(DataError, match=message):
            Ledger.of(folder, read_only=True).verify()


def test_a_ledger_cut_back_to_an_earlier_one_is_named(tmp_path):
    ledger = ledger_of(tmp_path)
    ledger.close()
    shutil.copy(tmp_path / "ledger.db", tmp_path / "old.db")
    ledger = Ledger.of(tmp_path)
    ledger.append("note", NOW, note="x")
    ledger.seal()
    ledger.verify()
    ledger.close()
    shutil.copy(tmp_path / "old.db", tmp_path / "ledger.db")
    with pytest.raises(DataError, match=r"of head.json is not there"):
        Ledger.of(tmp_path).verify()


def contents(ledger):
    return [tuple(event) for event in ledger.events()], ledger.all_units()


def test_no_flipped_byte_is_read_as_something_else(tmp_path):
    ledger = ledger_of(tmp_path)
    whole = contents(ledger)
    ledger.close()
    data = (tmp_path / "ledger.db").read_bytes()
    rng = np.random.default_rng(0)
    places = [*rng.integers(0, len(data), 80), *range(0, 100, 9)]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.integers(0, 8)
        (tmp_path / "ledger.db").write_bytes(damaged)
        assert _named(tmp_path, whole)
    for length in (0, 1, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "ledger.db").write_bytes(data[:length])
        assert _named(tmp_path, whole)
    (tmp_path / "ledger.db").write_bytes(data)
    (tmp_path / "head.json").unlink()  # as where a process was killed: what is read is right
    for place in places[:40]:
        damaged = bytearray(data)
        damaged[place] ^= 1
        (tmp_path / "ledger.db").write_bytes(damaged)
        _named(tmp_path, whole)


def _named(folder, whole):
    try:
        ledger = Ledger.of(folder, read_only=True)
    except DataError:
        return True
    try:
        ledger.verify()
        assert contents(ledger) == whole
    except DataError:
        return True
    finally:
        ledger.close()
    return False


def test_a_second_writer_and_a_full_disk_are_told(tmp_path, monkeypatch):
    ledger = ledger_of(tmp_path)
    with ledger.batch():
        other = Ledger.of(tmp_path)
        other.db.execute("PRAGMA busy_timeout=20")
        with pytest.raises(LedgerError, match=r"cannot be read or written \(database is locked"):
            other.append("note", NOW, note="x")
        other.close()
        reader = Ledger.of(tmp_path, read_only=True)  # readers wait for nobody
        assert reader.holdings.units[0] == 2
        reader.close()
    ledger.db.execute(f"PRAGMA max_page_count={ledger.query('PRAGMA page_count')[0][0]}")
    before = ledger.head()
    with pytest.raises(LedgerError, match=r"cannot be read or written \(database or disk is full"):
        ledger.append("note", NOW, note="x" * 100_000)
    assert ledger.head() == before
    with pytest.raises(DataError, match="is not there: give the folder of a session"):
        Ledger.of(tmp_path / "nowhere", read_only=True)
    ledger.db.execute("PRAGMA user_version=9")
    with pytest.raises(DataError, match="has version 9 of its tables, and 1 is known here"):
        Ledger.of(tmp_path)


def test_tables_of_an_export_cannot_run_formulas(tmp_path):
    ledger = ledger_of(tmp_path)
    ledger.append("alert", NOW, id="1", name="=cmd", open=True, text="=1+1")
    files = ledger.export(tmp_path / "out")
    assert {"events.csv", "fills.csv", "orders.csv"} <= {file.name for file in files}
    alerts = (tmp_path / "out" / "alerts.csv").read_text()
    assert ",=" not in alerts and '"=' not in alerts
    events = pd.read_csv(tmp_path / "out" / "events.csv", dtype=str)
    assert json.loads(events["body"][0])["id"] == "test"
    assert events["digest"].iloc[-1] == ledger.head()[1]
    assert pd.read_csv(tmp_path / "out" / "fills.csv", dtype=str)["fee"][0] == "0.01"


def test_a_journal_of_another_kind_is_no_ledger(tmp_path):
    Journal(tmp_path / "ledger.db").close()
    with pytest.raises(DataError):
        ledger = Ledger.of(tmp_path)
        ledger.start(NOW, "test", ("A",))


def test_a_ledger_in_a_folder_without_rights_is_read_and_leaves_no_file(tmp_path, monkeypatch):
    ledger = ledger_of(tmp_path)
    ledger.close()
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(os, "access", lambda *_: False)
    reader = Ledger.of(tmp_path, read_only=True)
    assert reader.verify() and sorted(tmp_path.iterdir()) == before
    reader.close()


def test_a_copy_that_cannot_be_written_is_told_by_its_own_name(tmp_path, monkeypatch):
    file = tmp_path / "no folder" / "ledger.db"
    monkeypatch.setattr("portfolio_env.paper.journal.replacing", nullcontext)
    with pytest.raises(LedgerError, match=r"no folder/ledger\.db cannot be read or written"):
        ledger_of().copy_to(file)
