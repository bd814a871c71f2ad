"""Baselines with options as text, such as ``momentum(lookback=120)``, read without running code."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, NamedTuple

from portfolio_env.errors import ArgumentError

_OPENING, _CLOSING = "([{", ")]}"


class Spec(NamedTuple):
    """Name of a baseline with options.

    Attributes:
        name: The name, as ``make_baseline`` takes it.
        options: Its options by name, literals of Python.
    """

    name: str
    options: Mapping[str, Any]

    def label(self, short: str) -> str:
        """Return what the baseline is called in tables, by a short form of its name.

        >>> spec_of("my_rules:Trend( fast = 10, slow=50)").label("Trend")
        'Trend(fast=10, slow=50)'
        """
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{short}({options})" if options else short


def spec_of(text: str, kind: str = "baseline") -> Spec:
    """Return name and options of a text ``NAME`` or ``NAME(option=literal, ...)``.

    Raises:
        ArgumentError: If brackets are not closed, or what stands in them is anything else than
            keywords with literals.

    >>> spec_of("momentum(lookback=120, every='month')")
    Spec(name='momentum', options={'lookback': 120, 'every': 'month'})
    """
    name, bracket, rest = text.strip().partition("(")
    if not bracket:
        return Spec(name, {})
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("options are given by name")
        pairs = [(each.arg, ast.literal_eval(each.value)) for each in call.keywords]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ArgumentError(
            f"the {kind} {text.strip()!r} cannot be read; write options as NAME(option=value, "
            "...) with plain values such as 120, 0.5, True, 'month' or [1, 2]."
        ) from error
    if None in dict(pairs) or len(dict(pairs)) < len(pairs):
        raise ArgumentError(f"the {kind} {text.strip()!r} must give each option once, by name.")
    return Spec(name.strip(), {str(option): value for option, value in pairs})


def split_specs(text: str) -> list[str]:
    """Return the baselines of a comma-separated text; commas within brackets belong to options.

    >>> split_specs("momentum(lookback=120, top=0.5), hrp")
    ['momentum(lookback=120, top=0.5)', 'hrp']
    """
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        else:
            depth += (character in _OPENING) - (character in _CLOSING)
        if character == "," and depth <= 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]
