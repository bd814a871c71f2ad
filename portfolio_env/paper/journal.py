"""Journal: events in an SQLite file that only grows, each chained to the one before by SHA-256."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.atomic import is_writable, parse_json, replacing

VERSION = 1
_SCHEMA = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, bar TEXT NOT NULL,
    body TEXT NOT NULL, digest TEXT NOT NULL
);
CREATE TRIGGER no_update BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER no_delete BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never removed'); END;
"""
_START = hashlib.sha256(b"portfolio_env.paper").hexdigest()


class LedgerError(DataError):
    """Events cannot be written or read: nothing may be sent then."""


class Event(NamedTuple):
    """Event of a journal.

    Attributes:
        seq: Number, from 1.
        at: Moment at which it was written, as text.
        kind: Kind.
        bar: Bar that it belongs to, as text; "" for none.
        body: JSON object.
        digest: SHA-256 of all of it and of the digest before.
    """

    seq: int
    at: str
    kind: str
    bar: str
    body: Mapping[str, Any]
    digest: str


class Journal:
    """Events in an SQLite file, which a killed process leaves whole and a power cut too.

    Args:
        path: The file, created where it is missing; None keeps all in memory.
        read_only: Only read: no writer is waited for or disturbed.

    Raises:
        DataError: If the file cannot be opened, is no journal, or is of a later version.
    """

    schema: ClassVar[str] = ""
    """Tables of projections, which ``project`` fills."""

    def __init__(self, path: Path | None = None, *, read_only: bool = False) -> None:
        self.path, self.read_only = path, read_only
        self.name = "the ledger in memory" if path is None else str(path)
        self._told = _Told(self.name)
        with self._told:
            if path is None:
                self.db = sqlite3.connect(":memory:", isolation_level=None)
            elif read_only:
                if not path.is_file():
                    raise DataError(f"{path} is not there: give the folder of a session")
                uri = f"{path.resolve().as_uri()}?mode=ro"
                if not is_writable(path.parent) and not Path(f"{path}-wal").exists():
                    uri += "&immutable=1"  # or SQLite makes files beside it, even to read
                self.db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.db = sqlite3.connect(path, isolation_level=None, timeout=10)
            self.db.row_factory = sqlite3.Row
            if not read_only:
                self.db.execute("PRAGMA journal_mode=WAL")
                # an intent that a power cut takes back is an order nobody knows of
                self.db.execute("PRAGMA synchronous=FULL")
            self.db.execute("PRAGMA trusted_schema=OFF")
            found = self.db.execute("PRAGMA user_version").fetchone()[0]
            if found == 0 and not read_only:
                self.db.executescript(
                    f"BEGIN IMMEDIATE; {_SCHEMA} {self.schema} PRAGMA user_version={VERSION};"
                    "COMMIT;"
                )
            elif found != VERSION:
                raise DataError(
                    f"{path} has version {found} of its tables, and {VERSION} is known here: "
                    "use the version of portfolio-env that wrote it"
                )
        self._within, self._last = False, (0, _START)

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    def copy_to(self, path: Path) -> None:
        """Write a copy of it as a file, whole or not at all."""
        with replacing(path) as beside, _Told(str(path)):
            self.db.execute("VACUUM INTO ?", (str(beside),))

    # ---- writing

    def batch(self) -> AbstractContextManager[None]:
        """Write all events of the block at once, or none of them; blocks within it are part of it.

        Raises:
            DataError: If they cannot be written: the disk is full, or another process writes.
        """
        return nullcontext() if self._within else self._batch()

    @contextmanager
    def _batch(self) -> Iterator[None]:
        with self._told:
            self.db.execute("BEGIN IMMEDIATE")
        self._within, self._last = True, self.head()
        try:
            yield
            with self._told:
                self.commit()
        finally:
            self._within = False
            if self.db.in_transaction:
                self.db.rollback()

    def commit(self) -> None:
        """Commit the batch: from here on it survives a power cut."""
        self.db.execute("COMMIT")

    def append(
        self, kind: str, at: np.datetime64, bar: np.datetime64 | None = None, /, **body: Any
    ) -> Event:
        """Write one event, in a batch of its own where none is open.

        Args:
            kind: Kind of event.
            at: The present.
            bar: Bar that it belongs to.
            **body: JSON values; money and units as text.

        Raises:
            ArgumentError: If a number is not finite, or a value is none of JSON.
            DataError: As of ``batch``, and if a projection refuses it, e.g. a second decision for
                one bar.
        """
        try:
            text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"an event {kind} cannot be written ({error})") from None
        with self.batch(), self._told:
            seq, before = self._last
            when = "" if bar is None else str(bar)
            row = (seq + 1, str(at), kind, when, text)
            own = _chained(before, row)
            self.db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", (*row, own))
            event, self._last = Event(*row[:4], json.loads(text), own), (row[0], own)
            self.project(event)
        return event

    def project(self, event: Event) -> None:
        """Bring the projections up to date with an event."""

    # ---- reading

    def head(self) -> tuple[int, str]:
        """Return number and digest of the last event; 0 and a constant before the first."""
        row = self.db.execute("SELECT seq, digest FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        return (0, _START) if row is None else (row[0], row[1])

    def events(self, *kinds: str, after: int = 0) -> Iterator[Event]:
        """Yield the events, oldest first, of some kinds or of all, after a number."""
        chosen = f"AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        rows = f"SELECT * FROM events WHERE seq > ? {chosen} ORDER BY seq"
        with self._told:
            for row in self.db.execute(rows, (after, *kinds)):
                yield _event(row)

    def query(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Return the rows of a query."""
        with self._told:
            return self.db.execute(sql, values).fetchall()

    def verify(self) -> tuple[int, str]:
        """Check the file, the chain of events and the projections; return the head.

        Raises:
            DataError: If anything differs from what was written; the message says where.
        """
        with self._told:
            said = self.db.execute("PRAGMA integrity_check").fetchone()[0]
            size = self.db.execute("PRAGMA page_size").fetchone()[0]
        if said == "ok" and self.path is not None and self.path.stat().st_size % size:
            said = "its last page is cut off"
        if said != "ok":
            raise DataError(f"{self.path} is damaged ({said}): restore it from a copy")
        before, number = _START, 0
        fresh = type(self)()
        try:
            for row in self.query("SELECT * FROM events ORDER BY seq"):
                number += 1
                if row["seq"] != number or row["digest"] != _chained(before, tuple(row)[:5]):
                    raise DataError(f"{self.path}: event {number} is not what was written")
                before = row["digest"]
                fresh.project(_event(row))
            for (name,) in fresh.query("SELECT name FROM sqlite_master WHERE type='table'"):
                rows = [
                    sorted(map(tuple, each.query(f"SELECT * FROM {name}")), key=repr)
                    for each in (self, fresh)
                    if name != "events"
                ]
                if rows and rows[0] != rows[1]:
                    raise DataError(f"{self.path}: the table {name} is not that of its events")
        except (ValueError, TypeError, LookupError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{self.path}: event {number} is damaged ({error})") from error
        finally:
            fresh.close()
        return number, before


class _Told:
    """Context in which an error of SQLite becomes one sentence about a file."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.IntegrityError):
            raise LedgerError(f"{self.name} refuses what is there already ({error})") from error
        if isinstance(error, sqlite3.Error | UnicodeDecodeError):
            raise LedgerError(
                f"{self.name} cannot be read or written ({error}): nothing was done; give it "
                "room and rights, or restore it from a copy"
            ) from error


def _event(row: sqlite3.Row) -> Event:
    seq, at, kind, bar, text, own = row
    return Event(seq, at, kind, bar, parse_json(text), own)


def _chained(before: str, row: tuple[Any, ...]) -> str:
    text = json.dumps([before, *row], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def hexadecimal(numbers: NDArray[np.floating[Any]]) -> list[str]:
    """Return floats as text that gives them back to the bit."""
    return [float(number).hex() for number in numbers]


def numbers(texts: Iterable[str]) -> NDArray[np.float64]:
    """Return floats of what ``hexadecimal`` gave."""
    return np.array([float.fromhex(text) for text in texts])
