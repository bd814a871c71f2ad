"""The queue of a sweep: which cells are done, which failed, and who may train which.

A cell is claimed by the lock of its run folder, which ``train.py --resume`` takes too. The kernel
frees it with the process that held it, however that ended, and keeps it for one that is slow or
stopped. A cell is done when its models and its card are written. ``events.jsonl`` tells what
happened; nothing but the count of dead processes is read from it.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from agents.sweep.plan import FILE, Cell, cells, check_folders
from agents.sweep.settings import reason_of
from agents.training.cards import write_card
from agents.training.run_folder import (
    FAILED,
    latest_checkpoint,
    one_process,
)
from agents.training.run_records import CARD, is_complete, is_running
from agents.training.train import train_to_end
from agents.training.walk_forward_training import run_config
from portfolio_env.errors import ArgumentError, BusyError, DataError, out_of_space
from portfolio_env.files.atomic import locked, read_json, write_json
from portfolio_env.files.locks import check_locks

EVENTS = "events.jsonl"
ATTEMPTS = 3
"""Errors that a cell may end in before it has failed."""
DEATHS = 12
"""Processes in a row that may die in a cell without reaching a checkpoint before it has failed."""
_LOGGER = logging.getLogger(__name__)
Outcome = Literal["done", "failed", "busy"]
State = Literal["done", "failed", "running", "open"]


def attempt(root: Path, cell: Cell, *, progress_bar: bool = False) -> Outcome:
    """Train a cell to its end, unless another process is at work in it.

    Args:
        root: Folder of the sweep or of the walk forward.
        cell: The cell.
        progress_bar: Show one on the terminal.

    Returns:
        "done", by this process or another; "failed", this time; "busy" in another process.

    Raises:
        DataError: If the disk is full; the cell stays open, and has not failed.
    """
    folder = cell.folder(root)
    try:
        with one_process(folder):
            if is_complete(folder):
                return "done"
            if has_failed(folder):
                return "failed"
            outcome = _trained(root, cell, folder, progress_bar)
    except BusyError:
        return "busy"
    if outcome == "done" and cell.setting:
        write_cards(root, [cell])
    return outcome


def has_failed(folder: Path) -> bool:
    """Return whether a cell was given up."""
    found = failure(folder)
    return found is not None and int(found["attempts"]) >= ATTEMPTS


def failure(folder: Path) -> dict[str, Any] | None:
    """Return the errors that the run of a folder ended in: "attempts", and the last "error"."""
    try:
        return read_json(folder / FAILED)
    except FileNotFoundError:
        return None


def retry(root: Path, wanted: Sequence[Cell] | None = None) -> list[Cell]:
    """Let cells that failed be tried again; return them.

    Args:
        root: Folder of the sweep or of the walk forward.
        wanted: The cells; all by default.
    """
    found = []
    for cell in cells(root) if wanted is None else wanted:
        if failure(cell.folder(root)) is not None:
            with one_process(cell.folder(root)):
                (cell.folder(root) / FAILED).unlink(missing_ok=True)
            log(root, cell, "retried")
            found.append(cell)
    return found


def state(root: Path, cell: Cell) -> State:
    """Return the state of a cell now."""
    folder = cell.folder(root)
    if is_complete(folder):
        return "done"
    if is_running(folder):
        return "running"
    return "failed" if has_failed(folder) else "open"


def write_cards(root: Path, wanted: Sequence[Cell]) -> None:
    """Write the cards of the settings of some cells, where they are trained and lack one."""
    for setting in dict.fromkeys(cell.setting for cell in wanted):
        path = root / setting
        own = [cell for cell in cells(root) if cell.setting == setting]
        if (path / CARD).is_file() or not all(is_complete(cell.folder(root)) for cell in own):
            continue
        try:
            with one_process(path):
                write_card(path)
        except BusyError:  # another does
            continue


def check_root(root: Path) -> None:
    """Reject a folder that is no whole sweep, or whose file system has no locks that work.

    Raises:
        DataError: If it is so.
    """
    cells(root)
    if (root / FILE).exists():
        check_folders(root)
    check_locks(root)


def log(root: Path, cell: Cell, event: str, **more: Any) -> None:
    """Add a line to the events of a sweep."""
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "cell": str(cell),
        "event": event,
        "host": platform.node(),
        "pid": os.getpid(),
        **more,
    }
    with _events(root), (root / EVENTS).open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size and file.seek(size - 1) == size - 1 and file.read(1) != b"\n":
            file.write(b"\n")  # a process died while it wrote the line before
        file.write(json.dumps(line).encode() + b"\n")


def events(root: Path) -> list[dict[str, Any]]:
    """Return what happened in a sweep, in order; a line that a dying process cut is left out."""
    try:
        lines = (root / EVENTS).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and {"cell", "event"} <= event.keys():
            found.append(event)
    return found


def _trained(root: Path, cell: Cell, folder: Path, progress_bar: bool) -> Outcome:
    """Train a cell whose lock is held; an error is recorded."""
    checkpoint = latest_checkpoint(folder)
    step = int(checkpoint.stem) if checkpoint is not None else 0
    if _deaths(root, cell, step) >= DEATHS:
        reason = (
            f"{DEATHS} processes in a row ended at step {step} without an error, perhaps for want "
            "of memory"
        )
        return _failed(root, cell, reason, ATTEMPTS)
    log(root, cell, "started", step=step)
    _LOGGER.info("%s", cell)
    clock = time.perf_counter(), time.process_time()
    try:
        config = run_config(root / cell.setting, cell.fold, cell.seed)
        train_to_end(folder, config, progress_bar=progress_bar)
    except KeyboardInterrupt:
        log(root, cell, "stopped")
        raise
    except Exception as error:
        if out_of_space(error):  # no fault of the cell; another would end in it too
            with suppress(DataError):
                log(root, cell, "stopped")
            raise
        before = failure(folder)
        attempts = 1 + (int(before["attempts"]) if before else 0)
        # What the settings cannot do they cannot do the next time either.
        final = isinstance(error, ArgumentError)
        return _failed(root, cell, reason_of(error), ATTEMPTS if final else attempts)
    seconds = time.perf_counter() - clock[0], time.process_time() - clock[1]
    log(root, cell, "done", seconds=round(seconds[0], 2), processor_seconds=round(seconds[1], 2))
    (folder / FAILED).unlink(missing_ok=True)
    return "done"


def _failed(root: Path, cell: Cell, reason: str, attempts: int) -> Outcome:
    write_json(cell.folder(root) / FAILED, {"attempts": attempts, "error": reason[:2000]})
    log(root, cell, "failed", attempts=attempts, error=reason[:200])
    return "failed"


def _deaths(root: Path, cell: Cell, step: int) -> int:
    """Return how many of the last processes began a cell at a step and left no word."""
    count = 0
    for event in reversed(events(root)):
        if event["cell"] == str(cell):
            if event["event"] != "started" or event.get("step") != step:
                break
            count += 1
    return count


@contextmanager
def _events(root: Path) -> Iterator[None]:
    try:
        with locked(root / ".events.lock"):
            yield
    except OSError as error:
        raise DataError(
            f"{root / EVENTS} cannot be written ({error.strerror or error}); give room or rights"
        ) from error
