"""Sweeps over machines that share no disk: a PostgreSQL server locks the cells and keeps the runs.

Every machine has a folder of its own. The server holds the plan, the state of every cell and the
archives of those that are done (``agents.store.archives``). A cell is claimed by an advisory lock
of the connection, which the server frees when that ends. A worker that dies loses what it has
trained of its cell, unless it is started again on the same machine.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agents.settings.plugins import FILE as PLUGINS
from agents.store.archives import export_run, import_run
from agents.sweep.plan import FILE, Cell, cells
from agents.sweep.queue import attempt, check_root, has_failed, write_cards
from agents.sweep.queue import failure as failure_of
from agents.sweep.queue import retry as retry_here
from agents.sweep.workers import PAUSE
from agents.training.run_folder import WALK_FORWARD, one_process
from agents.training.run_records import is_complete
from portfolio_env.errors import DataError, PortfolioError
from portfolio_env.files.atomic import parse_json, read_json, replacing
from portfolio_env.files.removal import remove_folder

_TABLES = """
CREATE TABLE IF NOT EXISTS sweep_files (
    sweep text, path text, content text NOT NULL, PRIMARY KEY (sweep, path));
CREATE TABLE IF NOT EXISTS sweep_cells (
    sweep text, cell text, state text NOT NULL, error text, archive bytea,
    PRIMARY KEY (sweep, cell));
"""
_MAKING = 7_201_734_112  # key of the lock under which the tables are made


class Server:
    """A sweep on a PostgreSQL server; its name there is that of the local folder.

    Args:
        root: Local folder of the sweep.
        address: Connection string, e.g. "postgresql://user@host/database".

    Raises:
        PortfolioError: If psycopg is not installed, or the server refuses.
    """

    def __init__(self, root: Path, address: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise PortfolioError(
                "a sweep on PostgreSQL needs the extra postgres; pip install 'psycopg[binary]'"
            ) from error
        self.root, self.name = root, root.resolve().name
        self._errors = psycopg.Error
        with self._told():
            self._connection = psycopg.connect(address, autocommit=True)
            with self._connection.transaction():
                self._run("SELECT pg_advisory_xact_lock(%s)", _MAKING)
                self._connection.execute(_TABLES)

    def push(self) -> None:
        """Write the plan of the local folder to the server; settings that it lacks are added.

        Raises:
            DataError: If the server has another sweep of that name.
        """
        with self._told():
            known = self._files()
            own = read_json(self.root / FILE)
            if FILE in known and parse_json(known[FILE]).get("id") != own["id"]:
                raise DataError(
                    f"the server has another sweep {self.name!r}; rename the folder {self.root}"
                )
            names = [
                f"{name}/{file}" for name in own["settings"] for file in (WALK_FORWARD, PLUGINS)
            ]
            for name in [*names, FILE]:
                if (self.root / name).exists():
                    content = (self.root / name).read_text(encoding="utf-8")
                    self._run(
                        "INSERT INTO sweep_files VALUES (%s, %s, %s) ON CONFLICT (sweep, path) "
                        "DO UPDATE SET content = excluded.content",
                        *(self.name, name, content),
                    )
            for cell in cells(self.root):
                self._run(
                    "INSERT INTO sweep_cells VALUES (%s, %s, 'open') ON CONFLICT DO NOTHING",
                    *(self.name, str(cell)),
                )

    def pull_plan(self) -> None:
        """Write the plan of the server into the local folder.

        Raises:
            DataError: If the server has no sweep of that name.
        """
        with self._told():
            known = self._files()
        if FILE not in known:
            raise DataError(
                f"the server has no sweep {self.name!r}; begin it with sweep.py run "
                f"{self.root} --executor postgres"
            )
        for name in sorted(known, key=FILE.__eq__):  # the plan comes last
            if name.count("/") > 1 or ".." in name or Path(name).is_absolute():
                raise DataError(f"the server names the file {name!r:.80}, which no plan has")
            with replacing(self.root / name) as beside:
                beside.write_text(known[name], encoding="utf-8")
            read_json(self.root / name)

    def states(self) -> dict[str, str]:
        """Return the state of every cell on the server: "open", "done" or "failed"."""
        with self._told():
            found = self._run("SELECT cell, state FROM sweep_cells WHERE sweep = %s", self.name)
        return {str(cell): str(state) for cell, state in found}

    def pull_runs(self) -> None:
        """Take the runs that are done and not here yet from the server."""
        states = self.states()
        for cell in cells(self.root):
            folder = cell.folder(self.root)
            if states.get(str(cell)) != "done" or is_complete(folder):
                continue
            with self._told():
                found = self._run(
                    "SELECT archive FROM sweep_cells WHERE sweep = %s AND cell = %s",
                    *(self.name, str(cell)),
                )
            if folder.exists():  # begun here, and ended elsewhere
                with one_process(folder):
                    remove_folder(folder)
            with tempfile.TemporaryDirectory() as place:
                file = Path(place) / "run.zip"
                file.write_bytes(bytes(found[0][0]))
                folder.parent.mkdir(parents=True, exist_ok=True)
                import_run(file, folder.parent, name=folder.name)

    def attempt(self, cell: Cell) -> bool:
        """Train a cell that no other connection has claimed; return whether anything was done."""
        with self._told(), self._claimed(cell) as claimed:
            if not claimed or self.states().get(str(cell)) != "open":
                return False
            outcome, folder = attempt(self.root, cell), cell.folder(self.root)
            if outcome == "done":
                with tempfile.TemporaryDirectory() as place:
                    export_run(folder, file := Path(place) / "run.zip")
                    self._end(cell, "done", None, file.read_bytes())
            elif has_failed(folder):
                self._end(cell, "failed", (failure_of(folder) or {}).get("error"), None)
            return outcome != "busy"

    def retry(self) -> int:
        """Let cells that failed be tried again; return how many."""
        failed = [cell for cell, state in self.states().items() if state == "failed"]
        retry_here(self.root)
        with self._told():
            self._run(
                "UPDATE sweep_cells SET state = 'open', error = NULL "
                "WHERE sweep = %s AND state = 'failed' RETURNING cell",
                self.name,
            )
        return len(failed)

    def failures(self) -> dict[str, str]:
        """Return the last error of every cell that has failed."""
        with self._told():
            found = self._run(
                "SELECT cell, error FROM sweep_cells WHERE sweep = %s AND state = 'failed'",
                self.name,
            )
        return {str(cell): str(error) for cell, error in found}

    def close(self) -> None:
        """End the connection, and with it every claim."""
        self._connection.close()

    def _end(self, cell: Cell, state: str, error: str | None, archive: bytes | None) -> None:
        # Of two that trained a cell, as one had lost its connection, the first counts.
        self._run(
            "UPDATE sweep_cells SET state = %s, error = %s, archive = %s "
            "WHERE sweep = %s AND cell = %s AND state = 'open' RETURNING cell",
            *(state, error, archive, self.name, str(cell)),
        )

    @contextmanager
    def _claimed(self, cell: Cell) -> Iterator[bool]:
        name = hashlib.sha256(f"{self.name}/{cell}".encode()).digest()[:8]
        key = int.from_bytes(name, "big", signed=True)
        claimed = bool(self._run("SELECT pg_try_advisory_lock(%s)", key)[0][0])
        try:
            yield claimed
        finally:
            if claimed:
                self._run("SELECT pg_advisory_unlock(%s)", key)

    def _files(self) -> dict[str, str]:
        return dict(self._run("SELECT path, content FROM sweep_files WHERE sweep = %s", self.name))

    def _run(self, statement: str, *values: Any) -> list[Any]:
        cursor = self._connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            reason = " ".join(str(error).split())
            raise PortfolioError(f"PostgreSQL: {reason:.300}; the same command goes on") from error


def work_on_server(root: Path, address: str) -> None:
    """Train cells of a sweep on a server until none is open there.

    Args:
        root: Local folder, whose name is that of the sweep; the plan is written into it.
        address: Connection string.
    """
    root.mkdir(parents=True, exist_ok=True)
    server = Server(root, address)
    try:
        server.pull_plan()
        check_root(root)
        while True:
            states = server.states()
            waiting = [cell for cell in cells(root) if states.get(str(cell)) == "open"]
            if not waiting:
                break
            if not any(server.attempt(cell) for cell in waiting):
                time.sleep(PAUSE)
    finally:
        server.close()


def run_on_server(root: Path, address: str) -> None:
    """Write the plan of a folder to a server, work beside all others, and take what was trained.

    Args:
        root: Folder of the sweep.
        address: Connection string.
    """
    server = Server(root, address)
    try:
        server.push()
        work_on_server(root, address)
        server.pull_runs()
    finally:
        server.close()
    write_cards(root, cells(root))
