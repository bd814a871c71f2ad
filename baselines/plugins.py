"""User-defined baselines: subclasses of ``Baseline``, and functions of past prices.

By name, options reach subclasses of ``Baseline`` and nothing else; a function is given the past.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from types import FunctionType
from typing import Any, TypeAlias

from baselines.base import BASELINES, Baseline, Every, PortfolioModel, Weights
from portfolio_env.errors import ArgumentError, PortfolioError, raised
from portfolio_env.market import Market
from portfolio_env.market.panel import PricePanel
from portfolio_env.names import check_keywords, find
from portfolio_env.simulation.constraints import PortfolioConstraints

KIND = "baseline"
BaselineName: TypeAlias = str | type[Baseline] | Callable[[PricePanel], Any]
"""A name, a class, or a function ``(past) -> weights``."""


class FunctionRule(PortfolioModel):
    """Baseline of a function ``(past: PricePanel) -> weights``, whose weights are held.

    Args:
        market: The market its environments trade.
        function: Gives (N + 1,) weights, cash first, from the bars up to the decision.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
    """

    def __init__(
        self,
        market: Market,
        function: Callable[[PricePanel], Any],
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = 1,
    ) -> None:
        super().__init__(market, constraints=constraints, every=every)
        self.function = function

    def target(self, past: PricePanel) -> Weights:
        """Return the function's weights."""
        answer: Weights = self.function(past)
        return answer

    @property
    def definition(self) -> Any:
        """Return the function."""
        return self.function

    def model_info(self) -> dict[str, Any]:
        """Return a description, see ``PortfolioModel``; the name is the function's."""
        return super().model_info() | {"name": short_name(self)}


def found_baseline(name: BaselineName) -> type[Baseline] | partial[FunctionRule]:
    """Return the constructor of a baseline, ``(market, **options)``.

    Raises:
        ArgumentError: If there is no baseline of that name.
    """
    thing: Any = find(KIND, name, BASELINES) if isinstance(name, str) else name
    if isinstance(thing, type) and issubclass(thing, Baseline):
        return thing
    is_rule = callable(thing) and not isinstance(thing, type | Baseline)
    if isinstance(name, str):
        is_rule = isinstance(thing, FunctionType) and len(inspect.signature(thing).parameters) == 1
    if not is_rule:
        raise ArgumentError(
            f"baseline {name!r} must be a subclass of baselines.Baseline or a function (past) -> "
            "weights, and is neither."
        )
    return partial(FunctionRule, function=thing)


def make_baseline(name: BaselineName, market: Market, **options: Any) -> Baseline:
    """Build a baseline by name.

    Args:
        name: One of ``BASELINES``; ``"module:Name"`` or an entry point ``baseline.NAME`` of a
            subclass of ``Baseline``, or of a function from past prices, a ``PricePanel``, to
            (N + 1,) weights; or the class or function itself.
        market: The market its environments trade.
        **options: Options of that baseline; a function has ``constraints`` and ``every``.

    Returns:
        The baseline; its ``predict`` answers like that of a trained SB3 model.

    Raises:
        ArgumentError: If there is no baseline of that name, or it takes no such option.
    """
    build = found_baseline(name)
    check_options(f"make_baseline({short_name(name)!r}, ...)", build, options)
    try:
        inspect.signature(build).bind(market, **options)
    except TypeError as error:
        raise ArgumentError(
            f"baseline {short_name(name)} does not take the market and {sorted(options)}: {error}"
        ) from error
    if build in BASELINES.values():
        return build(market, **options)
    try:
        return build(market, **options)
    except PortfolioError:
        raise
    except Exception as error:
        raise ArgumentError(f"baseline {short_name(name)} raised {raised(error)}") from error


def check_options(
    owner: str, build: type[Baseline] | partial[FunctionRule], options: Iterable[str]
) -> None:
    """Reject names of options that a baseline does not have.

    Args:
        owner: Owner of the options in a message.
        build: Its constructor, see ``found_baseline``.
        options: The names.

    Raises:
        ArgumentError: For the first that is unknown, with the nearest one, or else all.
    """
    known = ["constraints", "every"] if isinstance(build, partial) else _keywords(build)
    check_keywords(owner, "option", options, known)


def _keywords(cls: type[Baseline]) -> list[str]:
    """Return the options of a baseline's constructor, those of its parents included."""
    own = inspect.signature(cls).parameters.values()
    named = [each.name for each in own if each.kind is each.POSITIONAL_OR_KEYWORD][1:]
    return [*named, *(name for name in cls._options() if name not in cls.preset)]


def short_name(thing: Any) -> str:
    """Return the last part of the name of a baseline, its class or function.

    >>> short_name("my_rules:TrendRule")
    'TrendRule'
    """
    return full_name(thing).rpartition(":")[2].rpartition(".")[2]


def full_name(thing: Any) -> str:
    """Return ``"module:Name"`` of a baseline, its class or function; a name stays as it is."""
    if isinstance(thing, str):
        return thing
    known = thing.definition if isinstance(thing, Baseline) else thing
    return f"{known.__module__}:{getattr(known, '__qualname__', type(known).__name__)}"
