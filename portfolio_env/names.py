"""Looking names up, with an error that lists the nearest ones."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from portfolio_env.errors import ArgumentError


def unknown(kind: str, name: str, available: Iterable[str]) -> ArgumentError:
    """The error for a name that is not among the available ones.

    Args:
        kind: what the name stands for, e.g. "asset".
        name: the name that was given.
        available: the names that exist.
    """
    names = list(available)
    folded = {candidate.casefold(): candidate for candidate in names}
    close = get_close_matches(name.casefold(), folded, n=5, cutoff=0.5)
    hint = f"did you mean {', '.join(folded[match] for match in close)}?" if close else ""
    listed = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
    return ArgumentError(f"unknown {kind} {name!r}: {hint or f'choose from {listed}'}")


def positions(kind: str, names: Sequence[str], available: Sequence[str]) -> list[int]:
    """Where each name stands among the available ones.

    Raises:
        ArgumentError: for a name that is not there, with its near matches.
    """
    place = {name: i for i, name in enumerate(available)}
    for name in names:
        if name not in place:
            raise unknown(kind, name, available)
    return [place[name] for name in names]
