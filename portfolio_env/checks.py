"""Checks of arguments and settings, with errors that name them, the value and the bound."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import wraps
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from portfolio_env.errors import ArgumentError
from portfolio_env.names import check_keywords, nearest

T = TypeVar("T")
YEAR = 31_557_600.0
"""Seconds of a year, the longest duration that an option may be."""
_LONGEST = 60  # characters of a value in a message
_WORDS = {
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    bool: "True or False",
    NoneType: "None",
}


def shortened(value: Any) -> str:
    """Return a value as a message shows it, in at most 60 characters.

    >>> shortened("x" * 100)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..."
    """
    if isinstance(value, int) and abs(value) >= 10**_LONGEST:  # Python rejects very long integers
        return f"a number of {round(value.bit_length() * math.log10(2))} digits"
    shown = repr(value[:_LONGEST] if isinstance(value, str) else value)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."


def check_integer(name: str, value: Any, low: int = 1, high: int | None = None) -> int:
    """Return the value as an int, after a check of its bounds.

    Raises:
        ArgumentError: If it is not an integer in [low, high].

    >>> check_integer("window", np.int64(3))
    3
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        bound = f"of {low} or more" if high is None else f"in [{low}, {high}]"
        raise ArgumentError(f"{name}={shortened(value)} must be an integer {bound}.")
    return int(value)


def check_number(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """Return the value, a finite number in [low, high]; NumPy's become Python's.

    Args:
        name: Name of the value in the message.
        value: The value.
        low: The least that it may be.
        high: The most that it may be.
        above: In place of ``low``: what it must be greater than.
        below: In place of ``high``: what it must be less than.

    Raises:
        ArgumentError: If it is something else.

    >>> check_number("share", 0.5, 0, below=1)
    0.5
    """
    plain = value.item() if isinstance(value, np.generic) else value
    fitting = (
        _is_number(plain)
        and -math.inf < plain < math.inf
        and (plain >= low if above is None else plain > above)
        and (plain <= high if below is None else plain < below)
    )
    if not fitting:
        bounds = _bounds(low, high, above, below)
        raise ArgumentError(f"{name}={shortened(value)} must be a finite number{bounds}.")
    return plain


def check_seconds(name: str, value: Any, low: float = 0.0) -> np.timedelta64:
    """Return a number of seconds as a duration in nanoseconds, after a check of its bounds.

    Raises:
        ArgumentError: If it is no number in [low, a year].

    >>> check_seconds("latency", 1.5)
    np.timedelta64(1500000000,'ns')
    """
    return np.timedelta64(round(check_number(name, value, low, YEAR) * 1e9), "ns")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> Any:
    """Return the value if it is one of a few.

    Raises:
        ArgumentError: If it is none of them.

    >>> check_choice("action", "weights", ("logits", "weights"))
    'weights'
    """
    known = list(choices)
    if value not in known:
        listed = ", ".join(map(repr, known))
        near = nearest(value, known, 1) if isinstance(value, str) else []
        hint = f"; did you mean {near[0]}?" if near else "."
        raise ArgumentError(f"{name}={shortened(value)} must be one of {listed}{hint}")
    return value


def known_fields(kind: type[T]) -> type[T]:
    """Make a dataclass answer an unknown keyword with an ArgumentError and the nearest name.

    A decorator, to be written above ``@dataclass``.
    """
    built = kind.__init__
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # a dataclass

    @wraps(built)
    def checked_first(self: T, *values: Any, **named: Any) -> None:
        check_keywords(kind.__name__, "field", named, known)
        built(self, *values, **named)

    kind.__init__ = checked_first  # type: ignore[assignment, method-assign]
    return kind


def short_repr(settings: Any) -> str:
    """Return the repr of a dataclass with the fields that differ from their defaults alone."""
    default = type(settings)()
    own = (field.name for field in fields(settings))
    changed = [n for n in own if repr(getattr(settings, n)) != repr(getattr(default, n))]
    shown = ", ".join(f"{name}={getattr(settings, name)!r}" for name in changed)
    return f"{type(settings).__name__}({shown})"


def check_fields(settings: Any, owner: str = "") -> None:
    """Reject a dataclass with a value that is not of its annotated type; call it first of all.

    Numbers and arrays of NumPy become Python's own, so that the settings can be written as JSON.

    Args:
        settings: The instance, frozen or not.
        owner: Prefix of the names of its fields in a message, e.g. ``"stages."``.

    Raises:
        ArgumentError: For the first such field, with what it must be.
    """
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        value = checked(owner + field.name, getattr(settings, field.name), hints[field.name])
        object.__setattr__(settings, field.name, value)


def checked(name: str, value: Any, annotation: Any) -> Any:
    """Return the value if it fits an annotation; numbers must be finite, and bools are not numbers.

    Args:
        name: Name of the value in the message.
        value: The value; NumPy's numbers and arrays become Python's.
        annotation: A class, None, ``Any``, ``Literal``, ``Sequence``, ``Mapping``, or a union.

    Raises:
        ArgumentError: If it is something else.

    >>> checked("lanes", 8, int | None)
    8
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not fits(value, annotation):
        raise ArgumentError(f"{name}={shortened(value)} must be {wording(annotation)}.")
    if isinstance(value, str) and "\0" in value:  # valid in no path and no name
        raise ArgumentError(f"{name}={shortened(value)} must be a text without null characters.")
    return value


def check_range(name: str, value: float | None, low: float, high: float = math.inf) -> None:
    """Reject a number outside of [low, high], see ``check_number``; None passes."""
    if value is not None:
        check_number(name, value, low, high)


def from_object(kind: type[T], values: Any, name: str, *, later: Sequence[str] = ()) -> T:
    """Return a dataclass from the JSON object that it was written as.

    Args:
        kind: The dataclass.
        values: Object that was read.
        name: Name of the object in a message.
        later: Fields that what was written earlier lacks; they take their defaults.

    Raises:
        ArgumentError: If it is not an object, lacks a field, or has an unknown or invalid one.
    """
    if not isinstance(values, Mapping):
        raise ArgumentError(f"{name}={shortened(values)} must be a JSON object.")
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    check_keywords(name, "field", (key[:_LONGEST] for key in values), known)
    for field in known:
        if field not in values and field not in later:
            raise ArgumentError(f"{name} lacks the field {field!r}")
    return kind(**values)


def as_dataclass(kind: type[T], spec: T | Mapping[str, Any], name: str) -> T:
    """Return a dataclass that is given as itself or as a mapping of its fields.

    Raises:
        ArgumentError: If it is neither, or a field is unknown or out of its range.
    """
    if isinstance(spec, kind):
        return spec
    if not isinstance(spec, Mapping):
        raise ArgumentError(f"{name}={spec!r} must be {kind.__name__} or a mapping of its fields.")
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    check_keywords(name, "field", spec, known)
    return kind(**spec)


def fits(value: Any, annotation: Any) -> bool:
    """Return whether a value fits an annotation."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return True
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if annotation is None or annotation is NoneType:
        return value is None
    if annotation is float:
        return _is_number(value) and abs(value) <= sys.float_info.max
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is Callable:
        return callable(value)
    if origin is Sequence:
        listed = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return listed and all(fits(item, parts[0]) for item in value)
    if origin is Mapping:
        known = isinstance(value, Mapping)
        return known and all(fits(k, parts[0]) and fits(v, parts[1]) for k, v in value.items())
    return isinstance(value, origin or annotation)


def wording(annotation: Any) -> str:
    """Return the values that an annotation allows, in words.

    >>> wording(int | None)
    'a whole number or None'
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(map(wording, parts))
    if origin is Literal:
        return f"one of {', '.join(map(repr, parts))}"
    if origin is Sequence:
        return f"a list of which each is {wording(parts[0])}"
    if origin is Mapping:
        return f"a mapping from {wording(parts[0])} to {wording(parts[1])}"
    kind = NoneType if annotation is None else origin or annotation
    return _WORDS.get(kind, f"of type {getattr(kind, '__name__', kind)}")


def _bounds(low: float, high: float, above: float | None, below: float | None) -> str:
    """Return bounds in words, as they follow "a finite number"."""
    least = low if above is None else above
    most = high if below is None else below
    if least == -math.inf and most == math.inf:
        return ""
    if most == math.inf:
        return f" of {_short(least)} or more" if above is None else f" above {_short(least)}"
    if least == -math.inf:
        return f" of at most {_short(most)}" if below is None else f" below {_short(most)}"
    left, right = "[" if above is None else "(", "]" if below is None else ")"
    return f" in {left}{_short(least)}, {_short(most)}{right}"


def _short(number: float) -> str:
    """Return a number with no more digits than it has."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
