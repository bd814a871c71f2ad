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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from math import exp, floor, log
from typing import Any, Protocol, TypeAlias

import numpy as np

from agents.sweep.settings import refusals, setting_config
from agents.training.config import TrainConfig
from portfolio_env.errors import ArgumentError

Options: TypeAlias = dict[str, Any]
"""Options of a run by name, with dots for one within another."""

IN_JSON = {field.name for field in fields(TrainConfig) if field.default == "{}"}
"""Options that are JSON objects, to which a space may add parts."""
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
        return setting_config(config, self.joined(config, options))

    def joined(self, config: TrainConfig, options: Options) -> Options:
        """Return the options with those that a configuration has in the same JSON object."""
        found: Options = {}
        for name, value in options.items():
            whole, _, part = name.partition(".")
            if not part or whole not in IN_JSON:
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
        """Reject a space some of whose settings no training can begin with.

        Settings are drawn, and the learner of each is built. Half of the draws take the ends of
        intervals.

        Args:
            config: Settings of every run but for what the space changes, whose ranges are those of
                the first fold.

        Raises:
            ArgumentError: With the first such setting.
        """
        ends, inside = Draws(0, ends=True), Draws(0)
        drawn = [self.draw(source) for _ in range(_TRIED // 2) for source in (inside, ends)]
        settings = {json.dumps(options, default=str): options for options in drawn}
        configs, refused = {}, {}
        for shown, options in settings.items():
            try:
                configs[shown] = self.config(config, options).resolved()
            except ArgumentError as error:
                refused[shown] = str(error)
        for shown, reason in (refused or refusals(configs)).items():
            raise ArgumentError(
                f"the space gives {shown}, which cannot be trained: {reason}. Change the values, "
                "or say for which the option is there, as in when: {encoder: mlp}"
            )


class Draws:
    """Draws at random from a seed; of an interval perhaps its ends alone."""

    def __init__(self, seed: int, *, ends: bool = False) -> None:
        self.generator = np.random.default_rng(seed)
        self.ends = ends

    def index(self, name: str, count: int) -> int:
        """Return a whole number in [0, count)."""
        return int(self.generator.integers(count))

    def number(self, name: str, interval: Interval) -> float:
        """Return a number of the interval."""
        share = float(self.generator.random())
        if self.ends:
            return interval.low if share < 0.5 else interval.high
        return interval.between(share)


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
