"""Lookup of names: built in, of a package's entry point, or ``"module:Name"``.

What is chosen by name, be it an encoder, a feature, a reward or a baseline, is found by ``find``.
"""

import hashlib
import importlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from portfolio_env.errors import ArgumentError, DataError, raised, user_code

T = TypeVar("T")
ENTRY_POINTS = "portfolio_env.plugins"
"""Group of entry points; their names are ``kind.name``, e.g. ``encoder.my_net``."""
_PLUGIN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_plugin(name: object) -> bool:
    """Return whether a name is of the form ``"module:Name"``."""
    return isinstance(name, str) and _PLUGIN.fullmatch(name) is not None


def names_plugin(kind: str, name: object) -> bool:
    """Return whether a name that is not built in is an entry point's or "module:Name".

    Args:
        kind: See ``find``.
        name: The name.
    """
    return is_plugin(name) or (isinstance(name, str) and name in _entry_points(kind))


def module_of(kind: str, name: str) -> str:
    """Return the module of a plug-in; nothing is imported.

    Args:
        kind: See ``find``.
        name: A name for which ``names_plugin`` holds.
    """
    return _entry_points(kind).get(name, name).partition(":")[0]


def last_name(name: str) -> str:
    """Return a name as folders and tables show it: of a plug-in the last part.

    >>> last_name("my_algos:MyPPO")
    'MyPPO'
    """
    return re.split("[:.]", name)[-1] if is_plugin(name) else name


def is_entry_point(kind: str, name: str) -> bool:
    """Return whether an installed package has an entry point ``kind.name``."""
    return name in _entry_points(kind)


def find(kind: str, name: str, known: Mapping[str, T]) -> T:
    """Return the object of a name.

    Args:
        kind: Kind of object in one word, e.g. "encoder".
        name: A name of ``known``, of an installed package's entry point ``kind.name``, or
            ``"module:Name"``, which is imported.
        known: Built-in objects by name.

    Raises:
        ArgumentError: If there is nothing of that name, or its module cannot be imported.
    """
    points = _entry_points(kind)
    if not isinstance(name, str):
        raise unknown(kind, name, [*known, *points])
    if name in known:
        return known[name]
    if name in points:
        return _imported(kind, name, points[name])
    if is_plugin(name):
        return _imported(kind, name, name)
    raise unknown(kind, name, [*known, *points])


@cache
def _entry_points(kind: str) -> dict[str, str]:
    """Return ``"module:Name"`` of installed packages' entry points, by name."""
    prefix = f"{kind}."
    found = (point for point in entry_points(group=ENTRY_POINTS) if point.name.startswith(prefix))
    return {point.name.removeprefix(prefix): point.value.replace(" ", "") for point in found}


def _imported(kind: str, name: str, where: str) -> Any:
    module, _, path = where.partition(":")
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise ArgumentError(
            f"{kind} {name!r} names a module of Python itself, which holds no {kind}; name one of "
            "a module of your own"
        )
    importing = f"{kind} {name!r} cannot be used: to import {module}"
    try:
        with user_code(importing, leave=(ModuleNotFoundError,)):
            found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise ArgumentError(f"{importing} raised {raised(error)}") from error
        raise ArgumentError(
            f"{kind} {name!r} needs the module {error.name!r}, which Python does not find; run "
            "where it lies, install it, or add its folder to PYTHONPATH"
        ) from error
    for attribute in path.split("."):
        try:
            with user_code(importing, leave=(AttributeError,)):
                found = getattr(found, attribute)
        except AttributeError:
            public = [each for each in sorted(dir(found)) if not each.startswith("_")]
            raise unknown(f"{kind} in {module}:", path, public) from None
    return found


def plugin_name(thing: Any) -> str:
    """Return the ``"module:Name"`` by which ``find`` finds a class or function again.

    Raises:
        ArgumentError: If it cannot be found by a name: it stands in a notebook, a script, or a
            function, or has no name.
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    found: Any = sys.modules.get(module or "")
    for attribute in (name or "").split("."):
        found = getattr(found, attribute, None)
    if module == "__main__" or found is not thing:
        raise ArgumentError(
            f"{thing!r} cannot be found again by a name; define it at the top of a module of its "
            "own and import it"
        )
    return f"{module}:{name}"


def source_hash(name: str, kind: str = "") -> str:
    """Return SHA-256 of the file of a plug-in, which is found without running anything.

    Args:
        name: ``"module:Name"``, or the name of an entry point of ``kind``.
        kind: See ``find``.

    Raises:
        ArgumentError: If there is no such Python file.
    """
    return hashlib.sha256(_sources(_entry_points(kind).get(name, name))[-1][1]).hexdigest()


def changed_sources(
    recorded: Mapping[str, str],
    folder: Path,
    kind: str = "",
    *,
    fix: str = "move it to where your own modules are",
) -> list[str]:
    """Return the plug-ins whose source is not what it was when a file named them.

    To be asked before anything that a file names is imported: a plug-in is the user's own code,
    found where Python looks for code, and never part of what was loaded.

    Args:
        recorded: SHA-256 of each by its name, see ``source_hash``.
        folder: Folder of the file that names them.
        kind: See ``find``.
        fix: Fix that the message suggests for one that lies there.

    Raises:
        DataError: If one lies within the folder, or a package that it is in; links count as where
            they are and as what they lead to.
        ArgumentError: If one is missing.
    """
    changed = []
    for name, sha256 in recorded.items():
        sources = _sources(_entry_points(kind).get(name, name))
        for file, _ in sources:
            if _lies_within(file, folder):
                raise DataError(
                    f"{folder} names {name!r}, which lies in that folder ({file}); nothing that is "
                    f"loaded can bring code: if you trust it, {fix}"
                )
        if hashlib.sha256(sources[-1][1]).hexdigest() != sha256:
            changed.append(name)
    return changed


def _lies_within(file: Path, folder: Path) -> bool:
    places = (file.absolute(), file.parent.resolve(), file.resolve())
    return any(
        place.is_relative_to(where)
        for place in places
        for where in (folder.absolute(), folder.resolve())
    )


def _sources(name: str) -> list[tuple[Path, bytes]]:
    """Return the files that run when the module of ``"module:Name"`` is imported, its own last.

    They are those of its packages too, and may lie in a zip. No module is imported.
    """
    module = name.partition(":")[0]
    sources: list[tuple[Path, bytes]] = []
    found: ModuleSpec | None = None
    path: Sequence[str] | None = None
    for depth in range(1, module.count(".") + 2):
        part = ".".join(module.split(".")[:depth])
        if part == "__main__":  # a notebook or a script, which another process does not have
            found = None
        else:
            try:
                found = find_spec(part) if path is None else PathFinder.find_spec(part, path)
            except ValueError:  # a module that a program made, of no file
                found = None
        data = None if found is None else _data(found)
        if found is None or found.origin is None or data is None:
            raise ArgumentError(
                f"{name!r} needs the module {part!r}, of which Python finds no source; run where "
                "it lies, install it, or add its folder to PYTHONPATH (a package needs an "
                "__init__.py)"
            )
        sources.append((Path(found.origin), data))
        path = found.submodule_search_locations
    return sources


def _data(spec: ModuleSpec) -> bytes | None:
    """Return the source of a module; None without one.

    A package without __init__.py has none: it may be any folder, one of loaded files too.
    """
    if spec.origin is None or not spec.origin.endswith(".py"):
        return None
    read = getattr(spec.loader, "get_data", None)  # of a zip too
    data: bytes | None = read(spec.origin) if read is not None else None
    return data


def unknown(kind: str, name: str, available: Iterable[str]) -> ArgumentError:
    """Return the error for a name that is not among the available ones.

    Args:
        kind: Kind of the name, e.g. "asset".
        name: The name that was given.
        available: The names that exist.
    """
    names = list(available)
    close = nearest(name, names, 5)
    hint = f"did you mean {', '.join(close)}?" if close else ""
    listed = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
    return ArgumentError(f"unknown {kind} {name!r}: {hint or f'choose from {listed}'}")


def check_keywords(owner: str, noun: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Reject unknown keywords.

    Args:
        owner: Owner of the keywords, e.g. "PortfolioEnv".
        noun: Noun for them, e.g. "keyword" or "field".
        given: The names that were given.
        known: The names that exist.

    Raises:
        ArgumentError: For the first that is unknown, with the nearest one, or else all.
    """
    names = list(known)
    for name in given:
        if name not in names:
            near = nearest(name, names, 1)
            hint = (
                f"did you mean {near[0]!r}?"
                if near
                else f"it has {', '.join(sorted(names)) or 'none'}."
            )
            raise ArgumentError(f"{owner} has no {noun} {name!r}; {hint}")


def indices_of(kind: str, names: Sequence[str], available: Sequence[str]) -> list[int]:
    """Return the index of each name among the available ones.

    Raises:
        ArgumentError: For a name that is not there, with its near matches, and for a text in place
            of a list.
    """
    if isinstance(names, str):  # each of its letters would be taken for a name
        raise ArgumentError(f"{kind}s={names!r} must be a list of names, e.g. [{names!r}].")
    place = {name: i for i, name in enumerate(available)}
    for name in names:
        if name not in place:
            raise unknown(kind, name, available)
    return [place[name] for name in names]


def nearest(name: str, names: Sequence[str], count: int) -> list[str]:
    """Return up to so many of the names that are spelt alike, the nearest first."""
    folded = {candidate.casefold(): candidate for candidate in names}
    close = get_close_matches(str(name).casefold(), folded, n=count, cutoff=0.5)
    return [folded[match] for match in close]
