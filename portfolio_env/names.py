"""Names: looked up with an error that lists the nearest ones, and made safe to show and to store.

Names of assets, events and labels come from strangers: they may hold anything.
"""

import hashlib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from urllib.parse import quote

from portfolio_env.errors import ArgumentError


def unknown(kind: str, name: str, available: Iterable[str]) -> ArgumentError:
    """The error for a name that is not among the available ones.

    Args:
        kind: What the name stands for, e.g. "asset".
        name: The name that was given.
        available: The names that exist.
    """
    names = list(available)
    close = _nearest(name, names, 5)
    hint = f"did you mean {', '.join(close)}?" if close else ""
    listed = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
    return ArgumentError(f"unknown {kind} {name!r}: {hint or f'choose from {listed}'}")


def check_keywords(owner: str, noun: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse keywords that mean nothing, instead of ignoring them.

    Args:
        owner: What they were given to, e.g. "PortfolioEnv".
        noun: What it calls them, e.g. "keyword" or "field".
        given: The names that were given.
        known: The names that exist.

    Raises:
        ArgumentError: For the first that is unknown, with the nearest one, or else all.
    """
    names = list(known)
    for name in given:
        if name not in names:
            near = _nearest(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(names))}."
            raise ArgumentError(f"{owner} has no {noun} {name!r}; {hint}")


def positions(kind: str, names: Sequence[str], available: Sequence[str]) -> list[int]:
    """Where each name stands among the available ones.

    Raises:
        ArgumentError: For a name that is not there, with its near matches.
    """
    place = {name: i for i, name in enumerate(available)}
    for name in names:
        if name not in place:
            raise unknown(kind, name, available)
    return [place[name] for name in names]


def _nearest(name: str, names: Sequence[str], count: int) -> list[str]:
    """Up to so many of the names that are spelt alike, the nearest first."""
    folded = {candidate.casefold(): candidate for candidate in names}
    close = get_close_matches(str(name).casefold(), folded, n=count, cutoff=0.5)
    return [folded[match] for match in close]


_LONGEST = 200  # characters of a file's name, most file systems take 255 bytes
_DEVICES = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{port}{n}" for port in ("COM", "LPT") for n in "0123456789"),
}


def printable(text: str) -> str:
    r"""A text in one line, with control and invisible characters written out; "(empty)" if it is.

    >>> print(printable("a\tb\x1b[31m"))
    a\tb\x1b[31m
    """
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
    return shown or "(empty)"


def file_name(name: str, safe: str = " ()+,=@") -> str:
    """The name of a file or folder for a name: it stays where it is put, on every system.

    Different names have different files, as far as a system tells upper from lower case. What is
    unusual in names of files is percent-encoded; names beyond 200 characters end in their SHA-256.

    Args:
        name: Any text.
        safe: Characters that are kept, beside letters, digits and ``_.-~``.

    >>> file_name("BRK.B"), file_name("../x"), file_name("CON")
    ('BRK.B', '%2E.%2Fx', '%43ON')
    """
    found = quote(name.encode(errors="surrogatepass"), safe=safe)
    if found[:1] in (".", " ") or found.partition(".")[0].strip().upper() in _DEVICES:
        found = f"%{ord(found[0]):02X}{found[1:]}"
    if found[-1:] in (".", " "):
        found = f"{found[:-1]}%{ord(found[-1]):02X}"
    if len(found) > _LONGEST:
        found = f"{found[: _LONGEST - 66]}%~{hashlib.sha256(found.encode()).hexdigest()}"
    return found or "%"
