"""Reading of spaces from YAML and JSON files, with a check of every name and every value."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from agents.search.space import IN_JSON, Choice, Interval, Layers, Parameter, Space
from agents.settings.data import DataOptions
from agents.settings.files import read_settings
from agents.settings.market import MarketConfig
from agents.training.config import TrainConfig
from portfolio_env.checks import check_integer, check_number, shortened
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.names import nearest

OF_TASK = {field.name for field in fields(MarketConfig)} - {"features", "data"}
"""Options that say what is traded, when, at which costs: settings with others do not compare."""
OF_RUN = {"seed", "out", "runs", "device", "track", "checkpoint_every"}
"""Options that a search sets itself, or that change nothing of what is learned."""
OF_FEATURES = ("scaler", "scaling", "reference")
_DOMAINS = ({"values"}, {"low", "high"}, {"each", "length"})


def read_space(file: Path) -> Space:
    """Read a space from a YAML or JSON file.

    Raises:
        DataError: If there is no such file, or it is neither.
        ArgumentError: If an entry names no option of ``train.py``, with the nearest, or its values
            are not as they must be.
    """
    stated = read_settings(file)
    try:
        json.dumps(stated, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{file} holds a value that JSON has not ({error}); quote it") from error
    return make_space(stated)


def make_space(stated: Mapping[str, Any]) -> Space:
    """Return the space that its entries state; see ``read_space``."""
    known = _known_options()
    parameters: dict[str, Parameter] = {}
    for name, entry in _entries(stated):
        _check_option(name, known)
        when = entry.get("when", {}) if isinstance(entry, Mapping) else {}
        if not isinstance(when, Mapping):
            raise ArgumentError(f"space: {name}: when={shortened(when)} must be a mapping.")
        for other in when:
            if other not in parameters:
                raise ArgumentError(
                    f"space: {name} is there when {other!r} has some value, which must be an entry "
                    f"before it; there are {', '.join(parameters) or 'none'}"
                )
        kept = {
            other: tuple(value) if isinstance(value, list) else (value,)
            for other, value in when.items()
        }
        parameters[name] = Parameter(_domain(name, entry), kept)
    if not parameters:
        raise ArgumentError("the space is empty; give at least one option with its values")
    return Space(parameters, stated)


def _entries(stated: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Return options with what they may be; groups of options become names with dots."""
    for key, entry in stated.items():
        name = f"{above}{key}"
        group = (
            isinstance(entry, Mapping)
            and not any(needed & entry.keys() for needed in _DOMAINS)
            and all(isinstance(inner, Mapping | list) for inner in entry.values())
        )
        if group and entry:
            yield from _entries(entry, f"{name}.")
        else:
            yield name, entry


def _known_options() -> list[str]:
    """Return the options that may be searched, but for those of algorithms and encoders."""
    hints = get_type_hints(TrainConfig)
    found = []
    for field in fields(TrainConfig):
        kind = hints[field.name]
        if field.name == "data":
            found += [f"data.{name}" for name in OF_FEATURES]
        elif field.name not in OF_TASK | OF_RUN:
            nested = isinstance(kind, type) and is_dataclass(kind)
            inner = [f"{field.name}.{each.name}" for each in fields(kind)] if nested else []
            found += inner or [field.name]
    return found


def _check_option(name: str, known: Sequence[str]) -> None:
    whole = name.partition(".")[0]
    if name in known or (whole in IN_JSON and whole in known):
        return
    of_data = {field.name for field in fields(DataOptions)}
    if whole in OF_TASK or (whole == "data" and name.removeprefix("data.") in of_data):
        raise ArgumentError(
            f"space: {name} says what is traded and at which costs: results with other values do "
            "not compare; give it on the command line"
        )
    if whole in OF_RUN:
        raise ArgumentError(f"space: {name} is not searched; give it on the command line")
    inner = (f"{each}.{name}" for each in ("algo_options", "encoder_options"))
    near = nearest(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else "see train.py --help."
    raise ArgumentError(
        f"space: train.py has no option {name!r}; {hint} Options of the algorithm and of the "
        f"encoder are named {' and '.join(inner)}"
    )


def _domain(name: str, entry: Any) -> Choice | Interval | Layers:
    if isinstance(entry, list):
        return _choice(name, entry)
    given = {key: value for key, value in entry.items() if key != "when"} if isinstance(
        entry, Mapping
    ) else {}  # fmt: skip
    if given.keys() == {"values"} and isinstance(given["values"], list):
        return _choice(name, given["values"])
    if {"low", "high"} <= given.keys() <= {"low", "high", "log", "step"}:
        return _interval(name, **given)
    if given.keys() == {"each", "length"} and isinstance(given["each"], list):
        length = given["length"]
        ends = length if isinstance(length, list) and len(length) == 2 else [length, length]
        for end in ends:
            check_integer(f"space: {name}: length", end)
        if ends[0] > ends[1]:
            raise ArgumentError(f"space: {name}: length={length} must be rising, e.g. [1, 3].")
        return Layers(_choice(name, given["each"]).values, *ends)
    raise ArgumentError(
        f"space: {name} is {shortened(entry)}; give a list of values, "
        "{low: 0.1, high: 1, log: true or step: 0.1}, or {each: [32, 64], length: [1, 3]}"
    )


def _choice(name: str, values: list[Any]) -> Choice:
    shown = [json.dumps(value, sort_keys=True) for value in values]
    if not values or len(set(shown)) < len(shown):
        raise ArgumentError(f"space: {name} has the values {shortened(values)}; give each once")
    return Choice(tuple(values))


def _interval(name: str, low: Any, high: Any, log: Any = False, step: Any = None) -> Interval:
    whole = all(isinstance(end, int) for end in (low, high))
    check_number(f"space: {name}: low", low)
    check_number(f"space: {name}: high", high, above=low)
    if not isinstance(log, bool):
        raise ArgumentError(f"space: {name}: log={shortened(log)} must be true or false.")
    if log:
        check_number(f"space: {name}: low", low, above=0)
        if step is not None:
            raise ArgumentError(f"space: {name} has log and step; give one of them")
    elif step is not None:
        check_number(f"space: {name}: step", step, above=0)
        whole = whole and isinstance(step, int)
    elif whole:
        step = 1
    return Interval(low, high, log, step, whole)
