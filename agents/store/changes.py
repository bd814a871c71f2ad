"""Changes of a store, made under the store's lock, whole or not at all.

A process that is killed leaves hidden folders at most, which the next change removes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from agents.training.run_folder import alone
from agents.training.run_records import is_run, member_runs
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.atomic import locked
from portfolio_env.files.removal import is_link, refuse_foreign_files, remove_folder

LOCK = ".store.lock"
_HIDDEN = (".deleted-", ".coming-")  # prefixes of the names of folders on their way out and in


@contextmanager
def changing(store: Path) -> Iterator[None]:
    """Lock a store against other changes, and remove what killed ones have left.

    Raises:
        DataError: If the system refuses to write there.
    """
    with locked(store / LOCK):
        for left in store.iterdir():
            if left.name.startswith(_HIDDEN):
                remove_folder(left)
        yield


def coming(store: Path, name: str) -> Path:
    """Provide a hidden place for a folder that is on its way into a store."""
    return store / f"{_HIDDEN[1]}{name}"


def delete(path: Path, store: Path) -> None:
    """Remove a run or a walk forward from a store.

    Args:
        path: Folder of the run.
        store: The folder of runs that it must lie in.

    Raises:
        ArgumentError: If it lies elsewhere, is a link or no run, or is a part of a walk forward.
        DataError: If a process is at work in it, it holds links or files that no run consists of,
            or the system refuses.
    """
    refuse_foreign(path, store)
    with changing(store), ExitStack() as locks:
        for folder in (path, *member_runs(path)):
            locks.enter_context(alone(folder))
        refuse_foreign_files(path)
        gone = store / f"{_HIDDEN[0]}{path.name}"
        _rename(path, gone)
        remove_folder(gone)


def refuse_foreign(path: Path, store: Path) -> None:
    """Reject the deletion of a folder that is not a run directly in a store.

    Raises:
        ArgumentError: With the reason.
    """
    if is_link(path):
        raise ArgumentError(f"{path} is a link: delete what it leads to, or the link by hand")
    if not path.is_dir() or not is_run(path):
        raise ArgumentError(f"{path} is not a run folder; nothing is deleted")
    real, home = path.resolve(), store.resolve()
    if real.parent != home:
        inside = home in real.parents
        raise ArgumentError(
            f"{path} is a part of a walk forward: delete that as a whole"
            if inside
            else f"{path} lies outside the store {store}: name its own folder with --runs"
        )


def put_in_place(path: Path, target: Path) -> None:
    """Rename a complete folder to its place, where nothing may be; within ``changing``.

    Raises:
        DataError: If something is there.
    """
    if target.exists() or target.is_symlink():
        raise DataError(f"{target} exists; give another --name, or delete it first")
    _rename(path, target)


def _rename(path: Path, target: Path) -> None:
    try:
        os.rename(path, target)
    except OSError as error:
        raise DataError(f"{path} cannot be moved ({error.strerror or error})") from error
