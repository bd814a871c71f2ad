"""Checks of arguments, with errors that name the argument, its value and the bound."""

from typing import Any

import numpy as np

from portfolio_env.errors import ArgumentError


def check_integer(name: str, value: Any) -> None:
    """Raise an ArgumentError unless a value is an integer of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ArgumentError(f"{name}={value!r} must be an integer of 1 or more.")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise an ArgumentError unless a value is one of a few."""
    if value not in choices:
        raise ArgumentError(f"{name}={value!r} must be one of {', '.join(map(repr, choices))}.")


def check_range(name: str, value: Any, high: float, low: float = 0.0) -> None:
    """Raise an ArgumentError unless a value is a number in [low, high] and not 0."""
    if not isinstance(value, int | float) or not low <= value <= high or value == 0:
        least = f"[{low:g}" if low else "(0"
        raise ArgumentError(f"{name}={value!r} must be a number in {least}, {high:g}].")
