"""Workers of a sweep: processes that train the cells of a folder until none is left."""

from __future__ import annotations

import hashlib
import logging
import math
import multiprocessing.connection
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agents.compute.estimate import count_workers
from agents.sweep.plan import Cell, cells
from agents.sweep.processes import end_with_parent, one_thread, process_context
from agents.sweep.queue import ATTEMPTS, attempt, check_root, failure, has_failed, write_cards
from agents.training.run_folder import WALK_FORWARD
from agents.training.run_records import is_complete
from portfolio_env.command_line import exit_status
from portfolio_env.errors import PortfolioError
from portfolio_env.machine import cores

_ERROR = 3  # exit status of a worker that has printed an error; Python's own is 1
PAUSE = 0.5  # seconds between two looks at cells that others are at work in
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """Cells of a sweep by state.

    Attributes:
        done: Trained to their end.
        failed: Given up after errors.
        left: Neither.
    """

    done: int
    failed: int
    left: int


class Tally:
    """Counts of cells, which remember what is done.

    Args:
        root: Folder of the sweep or of the walk forward.
        only: The cells that count; all that are wanted by default.
    """

    def __init__(self, root: Path, only: Collection[Cell] | None = None) -> None:
        self.root = root
        self.only = None if only is None else list(only)
        self._done: set[Cell] = set()

    def wanted(self) -> list[Cell]:
        """Return all cells."""
        return cells(self.root) if self.only is None else self.only

    def open(self) -> list[Cell]:
        """Return the cells that are neither done nor failed."""
        waiting = [cell for cell in self.wanted() if cell not in self._done]
        self._done |= {cell for cell in waiting if is_complete(cell.folder(self.root))}
        return [
            cell
            for cell in waiting
            if cell not in self._done and not has_failed(cell.folder(self.root))
        ]

    def counts(self) -> Counts:
        """Return how many cells are done, failed and neither."""
        total, left = len(self.wanted()), len(self.open())
        return Counts(len(self._done), total - left - len(self._done), left)


def work(
    root: Path,
    only: Collection[Cell] | None = None,
    *,
    place: int = 0,
    wait: float = 0.0,
    progress_bar: bool = False,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Train cells until none is open; any number of processes on any machines may do so.

    Args:
        root: Folder of the sweep or of the walk forward.
        only: The cells; all that are wanted by default.
        place: Number of the worker: each begins at another cell.
        wait: Seconds to wait for new cells once none is open.
        progress_bar: Show one of each run on the terminal.
        after: Called after every attempt.

    Raises:
        DataError: If the folder is no sweep, or cells cannot be written.
    """
    tally, idle = Tally(root, only), time.monotonic()
    while True:
        waiting = tally.open()
        if not waiting and time.monotonic() - idle >= wait:
            return
        moved = False
        first = place % max(len(waiting), 1)
        for cell in waiting[first:] + waiting[:first]:
            outcome = attempt(root, cell, progress_bar=progress_bar)
            after()
            if outcome != "busy":
                moved, idle = True, time.monotonic()
                break  # the plan may have grown
        if not moved:
            time.sleep(PAUSE)


def run_cells(
    root: str | Path,
    workers: int = 0,
    *,
    only: Sequence[Cell] | None = None,
    progress_bar: bool = False,
) -> Counts:
    """Train the cells of a sweep or a walk forward on this machine until none is open.

    What was trained before is left alone, what was begun goes on. Workers that die are replaced,
    and end with this process. Other calls, here or on machines that share the folder, may be at
    work in it too. In a script of one's own the call belongs below ``if __name__ == "__main__":``.

    Args:
        root: The folder.
        workers: Number of processes; 0 is one for each core, 1 is this process.
        only: The cells; all that are wanted by default.
        progress_bar: Show one on the terminal.

    Raises:
        DataError: If the folder is no sweep, or has no locks that work.
        PortfolioError: If workers end in errors that are not of a cell, e.g. a full disk.
    """
    root = Path(root)
    check_root(root)
    tally = Tally(root, only)
    workers = workers or cores()
    if workers > cores() and len(tally.open()) > cores():
        _LOGGER.warning(
            "%d workers on %d cores train no faster than one on each, and each takes its memory",
            workers,
            cores(),
        )
    by_run = workers == 1 and (root / WALK_FORWARD).exists()  # a bar for each run then
    with progress(tally, progress_bar and not by_run) as advance, TemporaryDirectory() as told:
        if workers == 1:
            with each_once(Path(told)):
                work(root, tally.only, progress_bar=progress_bar and by_run, after=advance)
        else:
            _run_processes(tally, workers, advance, Path(told))
    write_cards(root, tally.wanted())
    return tally.counts()


def failures(root: Path, wanted: Sequence[Cell] | None = None) -> dict[Cell, str]:
    """Return the last error of every cell that has failed."""
    found = {}
    for cell in cells(root) if wanted is None else wanted:
        known = failure(cell.folder(root))
        if known is not None and int(known["attempts"]) >= ATTEMPTS:
            found[cell] = str(known["error"])
    return found


def _run_processes(tally: Tally, workers: int, advance: Callable[[], None], told: Path) -> None:
    context = process_context()
    running: dict[int, BaseProcess] = {}
    try:
        with one_thread():
            errors, at_once = 0, min(workers, len(tally.open()))
            while (left := len(tally.open())) or running:
                for place in range(workers):
                    process = running.get(place)
                    if process is not None and not process.is_alive():
                        errors += process.exitcode == _ERROR  # it has printed it
                        del running[place]
                    if place not in running and left > len(running):
                        running[place] = _start(context, tally, place, told, at_once)
                if errors >= ATTEMPTS:
                    raise PortfolioError(
                        f"workers of {tally.root} ended in errors, which are printed above; fix "
                        "the cause, and start it again"
                    )
                advance()
                multiprocessing.connection.wait(
                    [process.sentinel for process in running.values()], timeout=PAUSE
                )
    finally:
        for process in running.values():
            process.kill()
        for process in running.values():
            process.join()


def _start(context: BaseContext, tally: Tally, place: int, told: Path, workers: int) -> BaseProcess:
    process = context.Process(  # type: ignore[attr-defined]  # of every context
        target=_worker, args=(tally.root, tally.only, place, told, workers), daemon=True
    )
    process.start()
    started: BaseProcess = process
    return started


def _worker(
    root: Path, only: Collection[Cell] | None, place: int, told: Path, workers: int
) -> None:
    """Work in a process of its own; the first speaks of the memory of all."""
    end_with_parent()
    count_workers(workers if place == 0 else 1)
    logging.basicConfig(format="%(message)s")

    def train() -> None:
        with each_once(told):
            work(root, only, place=place)

    if exit_status(train, stopped=""):
        sys.exit(_ERROR)


class _Once(logging.Filter):
    """Let every message pass once, over all processes that share a folder, killed ones too.

    The cells of a setting warn of the same, and so does every worker.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a message is new."""
        facts = vars(record)
        if "new" not in facts:  # else another handler has asked
            facts["new"] = self._is_new(record.getMessage())
        return bool(facts["new"])

    def _is_new(self, message: str) -> bool:
        name = hashlib.sha256(message.encode(errors="replace")).hexdigest()
        try:
            (self._folder / name).touch(exist_ok=False)
        except FileExistsError:
            return False
        except OSError:  # a full disk: rather twice than not at all
            return True
        return True


@contextmanager
def each_once(folder: Path) -> Iterator[None]:
    """Log every message once, see ``_Once``, and Python's warnings as messages."""
    once, handlers = _Once(folder), logging.getLogger().handlers

    def as_message(text: Any, kind: type[Warning], *_: Any, **__: Any) -> None:
        _LOGGER.warning("%s", text)

    with warnings.catch_warnings():
        warnings.showwarning = as_message  # type: ignore[assignment]  # as warnings asks
        for handler in handlers:
            handler.addFilter(once)
        try:
            yield
        finally:
            for handler in handlers:
                handler.removeFilter(once)


@contextmanager
def progress(tally: Tally, shown: bool) -> Iterator[Callable[[], None]]:
    """Show how many cells are done, and how long the others will take at the pace so far."""
    if not shown:
        yield lambda: None
        return
    from tqdm import tqdm

    counts = tally.counts()
    total = counts.done + counts.failed + counts.left
    with tqdm(
        total=total,
        initial=counts.done,
        unit="cell",
        smoothing=0,
        miniters=math.inf,
        dynamic_ncols=True,
    ) as bar:

        def advance() -> None:
            now = tally.counts()
            before = bar.n, bar.total, bar.postfix
            bar.total = now.done + now.failed + now.left
            if now.failed:
                bar.set_postfix_str(f"{now.failed} failed", refresh=False)
            bar.n = now.done
            # A file gets a line for every change; on a terminal the clock moves too.
            if sys.stderr.isatty() or before != (bar.n, bar.total, bar.postfix):
                bar.refresh()

        yield advance
        advance()
