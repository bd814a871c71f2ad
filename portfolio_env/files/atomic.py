"""Atomic and locked files: never half written, never read damaged, one writer at a time."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import platform
import stat
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from portfolio_env.checks import shortened
from portfolio_env.errors import ArgumentError, BusyError, DataError

CHECKSUM = "sha256"
"""The last key of a written JSON object: SHA-256 of the others."""

_DAY = 86_400.0  # seconds
_serial = count()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file beside its destination and rename it once it is complete.

    A process that dies while writing leaves the old file as it was; what it leaves beside it, the
    next one that writes this file removes. A machine that loses power leaves the old file or the
    new one. A missing folder is created.

    Args:
        path: The destination.

    Yields:
        The temporary path to write to, in the same folder and with the same suffix.

    Raises:
        DataError: If the system refuses to write: a full disk, a read-only folder; or what is there
            is no file.
    """
    path = Path(path)
    family = f".writing-{zlib.crc32(os.fsencode(path.name)):08x}"
    here = f"{family}-{zlib.crc32(platform.node().encode()):08x}-"
    beside = path.with_name(f"{here}{os.getpid()}-{next(_serial)}{path.suffix}")
    try:
        if path.exists() and not path.is_file():  # a rename would remove a device, e.g. /dev/null
            raise DataError(f"{path} is a folder or a device, and no file: give the path of a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_strays(path.parent, family, here)
        beside.touch()
        mode = beside.stat().st_mode  # of a new file; some writers put one in its place, mode 0600
        yield beside
        beside.chmod(mode)
        # A rename can reach the disk before what was written: after a power cut the file would be
        # there, and empty. The folder's own entry follows, so that a process that reads the
        # new file can rely on it.
        _to_disk(beside, os.O_RDWR)
        os.replace(beside, path)
        if os.name == "posix":
            with suppress(OSError):  # some network file systems cannot flush folders
                _to_disk(path.parent, os.O_RDONLY)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise DataError(
            f"{path} cannot be written ({reason}); what was there is unchanged: give room or rights"
        ) from error
    finally:
        _unlink(beside)


def _to_disk(path: Path, flags: int) -> None:
    """Wait until the system has written a file or folder to the disk."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_strays(folder: Path, family: str, here: str) -> None:
    """Remove what processes of this machine left when they died; of others, what is a day old."""
    for stray in folder.glob(f"{family}-*"):
        if stray.name.startswith(here):
            pid = int(stray.name.removeprefix(here).partition("-")[0])
            dead = not _alive(pid)
        else:
            dead = False
        try:
            if dead or time.time() - stray.stat().st_mtime > _DAY:
                _unlink(stray)
        except FileNotFoundError:  # its writer has finished
            continue


def _unlink(path: Path) -> None:
    """Remove a temporary file, if the system allows it: a stray one is no reason to fail."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def _alive(pid: int) -> bool:
    """Return whether a process may still run; where the system cannot be asked safely, it may."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def write_json(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write an object as indented JSON with its checksum, whole or not at all.

    The last entry, ``"sha256"``, is the checksum of the others however they are laid out;
    ``read_json`` checks it and takes it away.

    Args:
        path: The file.
        value: JSON value: strings, finite numbers, bools, None, lists, and objects of these.

    Raises:
        ArgumentError: If a number is not finite, or the object has an entry of the checksum's name.
        DataError: If the system refuses to write.
    """
    if CHECKSUM in value:
        raise ArgumentError(f"{path} cannot have an entry {CHECKSUM!r}: it is the checksum's name")
    try:
        plain = json.loads(json.dumps(value, allow_nan=False))
    except ValueError as error:
        raise ArgumentError(
            f"{path} cannot hold its content ({error}); give None instead"
        ) from error
    with replacing(path) as beside:
        text = json.dumps({**plain, CHECKSUM: digest(plain)}, indent=2)
        beside.write_text(text + "\n", encoding="utf-8")


def is_writable(path: Path) -> bool:
    """Return whether this process may write into a folder; a folder that is missing counts so."""
    return not path.is_dir() or os.access(path, os.W_OK | os.X_OK)


def refuse_file(name: str, path: str | os.PathLike[str]) -> None:
    """Refuse a file where an argument of this name must be a folder; one that is missing may come.

    Raises:
        ArgumentError: If it is a file.
    """
    if os.path.exists(path) and not os.path.isdir(path):
        raise ArgumentError(f"{name} is {os.fspath(path)}, a file; give a folder")


def regular(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file to be read; a pipe or a device might never end.

    Raises:
        OSError: If there is no such file, or it is a pipe, a socket or a device.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a regular file")
    return Path(path)


def remedy(error: Exception) -> str:
    """Return what to do about a path that the system refuses."""
    if isinstance(error, (NotADirectoryError, FileExistsError)):
        return "a file is where its folder should be: give another"
    if isinstance(error, FileNotFoundError):
        return "check its name and folder"
    if isinstance(error, IsADirectoryError):
        return "it is a folder: give a file"
    return "give rights to it"


def read_json(path: str | Path, *, bare: str | None = None) -> dict[str, Any]:
    """Read a JSON file that holds an object, and check what ``write_json`` wrote.

    Args:
        path: The file.
        bare: Read a bare list, as earlier versions wrote some files, as the entry of this name.

    Raises:
        FileNotFoundError: If there is no such file.
        DataError: If it cannot be read, is not a JSON object, or is not what was written.
    """
    try:
        value = parse_json(regular(path).read_bytes())
        if isinstance(value, list) and bare is not None:
            return {bare: value}
        items = value if isinstance(value, dict) else {}
        last = next(reversed(items), None)
        kept = {key: entry for key, entry in items.items() if key != last}
        intact = last is not None and items[last] == digest(kept)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {remedy(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is damaged or no valid JSON ({error}); fix it, or restore it from a copy"
        ) from error
    if not isinstance(value, dict):
        raise DataError(
            f"{path} holds {shortened(value)}; it must hold an object of names and values, such as "
            '{"seed": 3}'
        )
    if intact is not (CHECKSUM in value):  # a fitting one of another name: its name is damaged
        raise DataError(
            f"{path} is damaged or edited by hand: its checksum does not fit; restore it from a "
            f'copy, or remove the entry "{CHECKSUM}" to accept it as it is'
        )
    return kept if intact else value


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text, read strictly.

    Args:
        text: The text, or its bytes in UTF-8.

    Raises:
        ValueError: If it is not JSON, names a key twice, nests too deeply, or holds a number that
            is not finite or beyond float64.
    """
    try:
        return json.loads(
            text.decode("utf-8-sig") if isinstance(text, bytes) else text,
            object_pairs_hook=_unique,
            parse_constant=_finite,
            parse_float=_finite,
            parse_int=_whole,
        )
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def digest(value: Any) -> str:
    """Return SHA-256, hexadecimal, of a JSON value however its text is laid out."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(key for at, (key, _) in enumerate(pairs) if key in dict(pairs[:at]))
        raise ValueError(f"it names {twice[:40]!r} twice")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it holds the number {text[:40]}")
    return number


def _whole(text: str) -> int:
    if len(text) > 300:  # float64 ends at 1.8e308
        raise ValueError(f"it holds a number of {len(text)} digits")
    return int(text)


@contextmanager
def locked(path: str | Path, *, busy: str | None = None) -> Iterator[None]:
    """Lock what ``path`` protects against other processes; the lock ends with the process.

    Args:
        path: The lock's file, created if missing and left in place.
        busy: Message for the second process; None lets it wait for the first.

    Raises:
        BusyError: With ``busy``, if another process holds the lock.
        DataError: If the system refuses a lock.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    lock = FileLock(path, timeout=-1 if busy is None else 0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise BusyError(busy or f"{path} is locked") from None
    except (OSError, NotImplementedError) as error:
        reason = os.strerror(number) if (number := getattr(error, "errno", None)) else error
        raise DataError(f"{path} cannot be locked ({reason}); {remedy(error)}") from error
    try:
        yield
    finally:
        lock.release()
