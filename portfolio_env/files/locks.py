"""Checks whether locks of files work where a folder lies, on this machine and between machines."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

from portfolio_env.errors import DataError

_LOCAL = {"nolock", "localflock", "local_lock=all", "local_lock=flock"}
"""Options of a mount by which locks are seen on one machine only."""
_TRY = """
import sys
from filelock import FileLock, Timeout
try:
    FileLock(sys.argv[1], timeout=0).acquire()
except Timeout:
    sys.exit(7)
"""
_REFUSED = 7


def check_locks(folder: Path) -> None:
    """Reject a folder in which two processes could hold the same lock.

    One is locked here, and another process must not get it. Where the folder is mounted from
    elsewhere, the options of the mount must not keep locks from other machines.

    Raises:
        DataError: If locks do not work there.
    """
    if option := local_option(folder, _mounts()):
        raise DataError(
            f"{folder} is mounted with {option!r}: other machines do not see its locks, so two "
            "could train the same run; mount it without that option"
        )
    from filelock import FileLock, SoftFileLock

    lock = FileLock(folder / ".check.lock")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it falls back to files that outlive their process
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise DataError(f"{folder} cannot be locked ({error}); give a folder with rights") from None
    try:
        second = subprocess.run(
            [sys.executable, "-c", _TRY, str(folder / ".check.lock")],
            stderr=subprocess.DEVNULL,
            check=False,
        )
    finally:
        lock.release()
    if type(lock) is SoftFileLock or second.returncode != _REFUSED:
        raise DataError(
            f"the file system of {folder} has no locks that work, so two processes could train the "
            "same run; take a local disk, or NFS version 4"
        )


def local_option(folder: Path, mounts: str) -> str | None:
    """Return the option of a folder's mount that keeps its locks on this machine, if one does.

    Args:
        folder: The folder.
        mounts: Table of mounts, as in ``/proc/mounts``.
    """
    place, found = folder.resolve(), None
    longest = -1
    for line in mounts.splitlines():
        _, where, kind, options, *_ = [*line.split(" "), "", "", "", ""]
        point = Path(where.replace("\\040", " "))
        if place.is_relative_to(point) and len(point.parts) >= longest:
            longest = len(point.parts)
            shared = kind.startswith("nfs") or kind == "lustre"
            local = set(options.split(",")) & _LOCAL if shared else set()
            found = min(local, default=None)
    return found


def _mounts() -> str:
    try:
        return Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""
