"""Files that are written whole or not at all, and by one process at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from portfolio_env.errors import DataError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file beside its destination and rename it once it is complete.

    A process that dies while writing leaves the old file as it was. A missing folder is created.

    Args:
        path: The destination.

    Yields:
        The temporary path to write to, in the same folder and with the same suffix.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(path: str | Path, kind: type = dict) -> Any:
    """Read a JSON file that holds an object, or a value of another ``kind`` (``list``).

    Raises:
        FileNotFoundError: If there is no such file.
        DataError: If the file is damaged: not text, not JSON, or of another kind.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # JSON and Unicode errors alike
        raise DataError(f"{path} is damaged ({error}); restore it from a copy") from error
    if not isinstance(value, kind):
        raise DataError(
            f"{path} is damaged: it holds no JSON {kind.__name__}; restore it from a copy"
        )
    return value


@contextmanager
def locked(path: str | Path, *, busy: str | None = None) -> Iterator[None]:
    """Keep other processes out of what ``path`` protects; the lock ends with the process.

    Args:
        path: The lock's file, created if missing and left in place.
        busy: What to tell the second process; None lets it wait for the first.

    Raises:
        DataError: With ``busy``, if another process holds the lock.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=-1 if busy is None else 0):
            yield
    except Timeout:
        raise DataError(busy or f"{path} is locked") from None
