"""Records of plug-ins in files, and the check which of them may be imported.

A file that names a plug-in records the SHA-256 of its source too. When it is read, every name is
compared with that record before anything is imported.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.names import changed_sources, is_plugin, module_of, names_plugin, source_hash

Named = Mapping[str, Iterable[Any]]
"""Names by kind, e.g. "encoder"; those that are built in are left out."""
Recorded = dict[str, dict[str, str]]
"""SHA-256 of sources by kind and name."""

FIX = "move it to where your own modules are"
MEND_BESIDE = "import it in your program before you load the file, or move it elsewhere"

_LOGGER = logging.getLogger(__name__)


def record(named: Named) -> Recorded:
    """Return SHA-256 of the source of every plug-in among some names; {} without any.

    Raises:
        ArgumentError: If the source of one is not found.
    """
    found = {
        kind: {name: source_hash(name, kind) for name in names if names_plugin(kind, name)}
        for kind, names in named.items()
    }
    return {kind: hashes for kind, hashes in found.items() if hashes}


def admit(named: Named, recorded: Any, file: Path, *, within: Path | None = None) -> None:
    """Reject names that a file may not bring; log the sources that have changed since.

    To be called before anything that the file names is imported. A plug-in is the user's own code:
    found where Python looks for modules, but not in Python's own, and not in the folder that was
    loaded. Beside a single file it may lie if the program has imported it already.

    Args:
        named: The names that the file holds.
        recorded: Result of ``record`` when the file was written, as it was read.
        file: The file, or the folder that was loaded.
        within: The folder that it came in, where that is a larger one.

    Raises:
        DataError: If a name is rejected, or there is no such record.
        ArgumentError: If the source of one is not found.
    """
    for kind, hashes in check_recorded(named, recorded, file).items():
        alone = within is None and not file.is_dir()
        folder = within or (file.parent if alone else file)
        imported = {name for name in hashes if alone and module_of(kind, name) in sys.modules}
        fresh = {name: hashes[name] for name in hashes if name not in imported}
        changed = changed_sources(fresh, folder, kind, fix=MEND_BESIDE if alone else FIX)
        changed += [name for name in imported if source_hash(name, kind) != hashes[name]]
        for name in sorted(changed):
            _say_changed(kind, name, file)


def say_changes(recorded: Any, file: Path) -> None:
    """Log which sources have changed since a file was written that holds their results.

    Nothing is imported, and a source that is not there is no matter: its results are.

    Args:
        recorded: See ``admit``.
        file: See ``admit``.

    Raises:
        DataError: If it is no such record.
    """
    for kind, hashes in _checked(recorded, file).items():
        for name, sha256 in hashes.items():
            try:
                changed = source_hash(name, kind) != sha256
            except ArgumentError:
                continue
            if changed:
                _say_changed(kind, name, file)


def check_recorded(named: Named, recorded: Any, file: Path) -> Recorded:
    """Check a file's record of its plug-ins; their sources need not be there.

    Args:
        named: See ``admit``.
        recorded: See ``admit``.
        file: See ``admit``.

    Raises:
        DataError: If it names one without a record, or a module of Python itself.
    """
    checked = _checked(recorded, file)
    found: Recorded = {}
    for kind, names in named.items():
        for name in sorted({each for each in names if names_plugin(kind, each)}):
            if name not in checked.get(kind, {}):
                raise DataError(
                    f"{file} names the {kind} {name!r}, of which it has no record: whoever wrote "
                    "that name, this package did not; nothing was imported"
                )
            if module_of(kind, name).partition(".")[0] in sys.stdlib_module_names:
                raise DataError(
                    f"{file} names the {kind} {name!r}, a part of Python itself and no plug-in; "
                    "nothing was imported"
                )
            found.setdefault(kind, {})[name] = checked[kind][name]
    return found


def plugins_within(value: Any) -> Iterator[str]:
    """Return every text of the form ``"module:Name"`` among values of nested dicts and lists."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from plugins_within(item)
    elif is_plugin(value):
        yield value


def _checked(recorded: Any, file: Path) -> Recorded:
    """Return a record as it was read, if it is one."""
    kinds = recorded.values() if isinstance(recorded, Mapping) else [None]
    for hashes in kinds:
        if not isinstance(hashes, Mapping) or not all(
            isinstance(part, str) for pair in hashes.items() for part in pair
        ):
            raise DataError(f"{file} holds no record of plug-ins as it was written; restore it")
    return dict(recorded)


def _say_changed(kind: str, name: str, file: Path) -> None:
    _say_once(
        f"the source of the {kind} {name} has changed since {file} was written: results may differ"
    )


@cache
def _say_once(message: str) -> None:
    _LOGGER.warning(message)
