"""Spaces of settings: options of ``train.py``, each with the values that it may take.

A space is a YAML or JSON file. Each entry names an option, with dots for one within another, and
says what it may be::

    encoder: [per_asset, mlp]                               # one of a list
    algo_options.learning_rate: {low: 1e-4, high: 1e-2, log: true}
    adjustment: {low: 0.1, high: 1.0, step: 0.1}
    encoder_options.architecture: {each: [32, 64], length: [1, 3], when: {encoder: mlp}}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from math import exp, floor, log
from pathlib import Path
from typing import Any, Protocol, TypeAlias, get_type_hints

import numpy as np

from agents.direct.training import sorted_direct_options
from agents.networks import make_encoder
from agents.sb3.classes import ALGORITHMS, sorted_options
from agents.settings.data import DataOptions
from agents.settings.files import read_settings
from agents.settings.market import MarketConfig
from agents.sweep.plan import setting_config
from agents.training.config import TrainConfig
from portfolio_env.checks import check_integer, check_number, shortened
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.names import nearest

Options: TypeAlias = dict[str, Any]
"""Options of a run by name, with dots for one within another."""

OF_TASK = {field.name for field in fields(MarketConfig)} - {"features", "data"}
"""Options that say what is traded, when, at which costs: settings with others do not compare."""
OF_RUN = {"seed", "out", "runs", "device", "track", "checkpoint_every"}
"""Options that a search sets itself, or that change nothing of what is learned."""
OF_FEATURES = ("scaler", "scaling", "reference")
_IN_JSON = {field.name for field in fields(TrainConfig) if field.default == "{}"}
_DOMAINS = ({"values"}, {"low", "high"}, {"each", "length"})
_TRIED = 64  # draws by which a space is tried out


class Source(Protocol):
    """Source of draws from a space: at random, by Optuna, or one point of a grid after another."""

    def index(self, name: str, count: int) -> int:
        """Return a whole number in [0, count)."""

    def number(self, name: str, interval: Interval) -> float:
        """Return a number of the interval."""


@dataclass(frozen=True)
class Choice:
    """One of a list of values."""

    values: tuple[Any, ...]

    def draw(self, name: str, source: Source) -> Any:
        """Return one of the values."""
        return self.values[source.index(name, len(self.values))]


@dataclass(frozen=True)
class Interval:
    """Numbers from ``low`` to ``high``, both included.

    Attributes:
        low: The least.
        high: The largest.
        log: Draw evenly by the logarithm.
        step: Distance of the numbers from ``low`` on; None for all numbers.
        whole: Whole numbers.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    @property
    def points(self) -> int | None:
        """Return how many numbers there are; None where they are not counted."""
        if self.step is None:
            return None
        return floor((self.high - self.low) / self.step * (1 + 1e-12)) + 1

    def at(self, index: int) -> float:
        """Return one of the ``points``."""
        assert self.step is not None
        value = self.low + index * self.step
        return round(value) if self.whole else float(f"{value:.12g}")

    def between(self, share: float) -> float:
        """Return the number at a share in [0, 1) of the interval."""
        if self.step is not None and not self.log:
            return self.at(floor(share * (self.points or 1)))
        high = self.high + 1 if self.whole else self.high
        if self.log:
            value = exp(log(self.low) + share * (log(high) - log(self.low)))
        else:
            value = self.low + share * (high - self.low)
        value = min(floor(value) if self.whole else value, self.high)
        return int(value) if self.whole else float(f"{value:.6g}")  # as it is shown

    def draw(self, name: str, source: Source) -> float:
        """Return one of the numbers."""
        if self.points is not None and not self.log:
            return self.at(source.index(name, self.points))
        return source.number(name, self)


@dataclass(frozen=True)
class Layers:
    """A list of values, each drawn on its own, and of a length that is drawn: widths of layers."""

    each: tuple[Any, ...]
    shortest: int
    longest: int

    def draw(self, name: str, source: Source) -> list[Any]:
        """Return a list."""
        length = self.shortest + source.index(f"{name}.length", self.longest - self.shortest + 1)
        places = (source.index(f"{name}[{i}]", len(self.each)) for i in range(length))
        return [self.each[place] for place in places]


@dataclass(frozen=True)
class Parameter:
    """An option and what it may be.

    Attributes:
        domain: The values.
        when: Values of parameters before it, by name, for which it is there at all.
    """

    domain: Choice | Interval | Layers
    when: Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Space:
    """Space of settings.

    Attributes:
        parameters: By the name of the option, in order.
        stated: The space as it was given, JSON-able.
    """

    parameters: Mapping[str, Parameter]
    stated: Mapping[str, Any]

    def draw(self, source: Source) -> Options:
        """Return one setting."""
        drawn: Options = {}
        for name, parameter in self.parameters.items():
            if all(drawn.get(other) in kept for other, kept in parameter.when.items()):
                drawn[name] = parameter.domain.draw(name, source)
        return drawn

    def grid(self) -> Iterator[Options]:
        """Return all settings in order.

        Raises:
            ArgumentError: If a parameter is an interval without steps.
        """
        odometer = _Odometer()
        yield self.draw(odometer)
        while odometer.advance():
            yield self.draw(odometer)

    def config(self, config: TrainConfig, options: Options) -> TrainConfig:
        """Return the settings of a run with some options.

        Options of the encoder and of the algorithm join those of the configuration, unless the
        encoder or the algorithm itself changes.
        """
        return setting_config(config, self.joined(config, options), "space")

    def joined(self, config: TrainConfig, options: Options) -> Options:
        """Return the options with those that a configuration has in the same JSON object."""
        found: Options = {}
        for name, value in options.items():
            whole, _, part = name.partition(".")
            if not part or whole not in _IN_JSON:
                found[name] = value
                continue
            owner = whole.removesuffix("_options")
            own = owner not in options or options[owner] == getattr(config, owner)
            before = json.loads(getattr(config, whole)) if own else {}
            inner = found.setdefault(whole, before)
            *above, last = part.split(".")
            for each in above:
                inner = inner.setdefault(each, {})
            inner[last] = value
        return found

    def check(self, config: TrainConfig) -> None:
        """Try settings out that the space draws, as far as they show without a market.

        Raises:
            ArgumentError: If settings do not go together, with those.
        """
        source = Draws(0)
        for _ in range(_TRIED):
            self.check_setting(config, self.draw(source))

    def check_setting(self, config: TrainConfig, options: Options) -> None:
        """Reject a setting with a value that does not fit, or with values that exclude others."""
        try:
            check_network(self.config(config, options))
        except ArgumentError as error:
            raise ArgumentError(
                f"the space gives {json.dumps(options, default=str)}, which cannot be trained: "
                f"{error}. Change the values, or say for which the option is there, as in "
                "when: {encoder: mlp}"
            ) from error


def check_network(config: TrainConfig) -> None:
    """Reject options of an algorithm or an encoder that it lacks; nothing is kept.

    Raises:
        ArgumentError: With the nearest option.
    """
    config = config.resolved()
    if config.algo == "direct":
        sorted_direct_options(config.algo_kwargs)
    elif config.algo in ALGORITHMS:
        sorted_options(config.algo, config.policy, config.algo_kwargs)
    if config.has_encoder:
        import torch as th

        with th.random.fork_rng(devices=[]):
            make_encoder(config.encoder, 4, config.bars, **config.encoder_kwargs)


class Draws:
    """Draws at random from a seed."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def index(self, name: str, count: int) -> int:
        """Return a whole number in [0, count)."""
        return int(self.generator.integers(count))

    def number(self, name: str, interval: Interval) -> float:
        """Return a number of the interval."""
        return interval.between(float(self.generator.random()))


class _Odometer:
    """Gives every point of a grid in turn; the last digit moves first."""

    def __init__(self) -> None:
        self._digits: list[int] = []
        self._counts: list[int] = []

    def index(self, name: str, count: int) -> int:
        place = len(self._counts)
        self._counts.append(count)
        if place == len(self._digits):
            self._digits.append(0)
        return self._digits[place]

    def number(self, name: str, interval: Interval) -> float:
        raise ArgumentError(
            f"the grid cannot count {name} from {interval.low:g} to {interval.high:g}; give a list "
            "of values, or a step without log"
        )

    def advance(self) -> bool:
        """Go to the next point; return whether there is one."""
        while self._digits and self._digits[-1] + 1 == self._counts[len(self._digits) - 1]:
            self._digits.pop()
        self._counts = []
        if not self._digits:
            return False
        self._digits[-1] += 1
        return True


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
    if name in known or (whole in _IN_JSON and whole in known):
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
