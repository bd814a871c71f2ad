"""Checks of arguments and settings, with errors that name them, the value and the bound."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from portfolio_env.errors import ArgumentError
from portfolio_env.names import check_keywords


def check_integer(name: str, value: Any) -> None:
    """Raise an ArgumentError unless a value is an integer of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ArgumentError(f"{name}={value!r} must be an integer of 1 or more.")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise an ArgumentError unless a value is one of a few."""
    if value not in choices:
        raise ArgumentError(f"{name}={value!r} must be one of {', '.join(map(repr, choices))}.")


def check_positive(name: str, value: Any, high: float, low: float = 0.0) -> None:
    """Raise an ArgumentError unless a value is a positive number in [low, high]."""
    if not isinstance(value, int | float) or not low <= value <= high or value == 0:
        least = f"[{low:g}" if low else "(0"
        raise ArgumentError(f"{name}={value!r} must be a number in {least}, {high:g}].")


T = TypeVar("T")
_LONGEST = 60  # characters of a value in a message
_WORDS = {
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    bool: "True or False",
    NoneType: "None",
}


def shortened(value: Any) -> str:
    """A value as a message shows it, in at most 60 characters.

    >>> shortened("x" * 100)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..."
    """
    if isinstance(value, int) and abs(value) >= 10**_LONGEST:  # Python refuses to write some out
        return f"a number of {round(value.bit_length() * math.log10(2))} digits"
    shown = repr(value[:_LONGEST] if isinstance(value, str) else value)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."


def check_fields(settings: Any, owner: str = "") -> None:
    """Refuse a dataclass with a value that is not of its annotated type; call it first of all.

    Numbers and arrays of NumPy become Python's own, so that the settings can be written as JSON.

    Args:
        settings: The instance, frozen or not.
        owner: What precedes the names of its fields in a message, e.g. ``"stages."``.

    Raises:
        ArgumentError: For the first such field, with what it must be.
    """
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        value = checked(owner + field.name, getattr(settings, field.name), hints[field.name])
        object.__setattr__(settings, field.name, value)


def checked(name: str, value: Any, annotation: Any) -> Any:
    """The value, if it is what an annotation says; numbers must be finite, and truths are none.

    Args:
        name: What the value is called in the message.
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
        raise ArgumentError(f"{name} is {shortened(value)}; it must be {wording(annotation)}")
    return value


def check_range(name: str, value: float | None, low: float, high: float = math.inf) -> None:
    """Refuse a number outside of its range; None stands for no number.

    Raises:
        ArgumentError: With the bound that it misses.
    """
    if value is not None and not low <= value <= high:
        bound = f"at least {low:g}" if not value >= low else f"at most {high:.17g}"
        raise ArgumentError(f"{name} is {shortened(value)}; it must be {bound}")


def from_object(kind: type[T], values: Any, name: str, *, later: Sequence[str] = ()) -> T:
    """A dataclass from the JSON object that it was written as.

    Args:
        kind: The dataclass.
        values: What was read.
        name: What the object is called in a message.
        later: Fields that what was written earlier lacks; they take their defaults.

    Raises:
        ArgumentError: If it is no object, lacks a field or has one too many, or a field is refused.
    """
    if not isinstance(values, Mapping):
        raise ArgumentError(f"{name} is {shortened(values)}; it must be a JSON object")
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    check_keywords(name, "field", (key[:_LONGEST] for key in values), known)
    for field in known:
        if field not in values and field not in later:
            raise ArgumentError(f"{name} lacks the field {field!r}")
    return kind(**values)


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value is what an annotation says."""
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
    """What a value of an annotation must be, in words.

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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
