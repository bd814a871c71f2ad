"""What a feature is, and how indicators are declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from portfolio_env.errors import ArgumentError
from portfolio_env.features.bars import Bars
from portfolio_env.market.panel import FloatArray

ALL = -1
"""Memory of a feature that depends on every bar before."""


@dataclass(frozen=True)
class Feature:
    """One causal channel: an indicator at a window, on the bars of one timeframe.

    Attributes:
        name: Its name among ``Market.feature_names``.
        group: The group that switches it on.
        inputs: The bar fields it reads.
        window: Its window in bars, or None.
        formula: What it computes, w being the window.
        source: Where the formula comes from.
        lookback: How many rows before t must exist for the value at t to be known.
        memory: How many rows before t give the value at t to 1e-12; ``ALL`` where only all do.
        scaled: Whether scalers apply; flags, ranks and angles are bounded by nature.
        compute: Bars -> (T, N) float64 or what broadcasts to it; row t uses rows <= t only, NaN
            where unknown.
    """

    name: str
    group: str
    inputs: tuple[str, ...]
    window: int | None
    formula: str
    source: str
    lookback: int
    memory: int
    scaled: bool
    compute: Callable[[Bars], FloatArray]


@dataclass(frozen=True)
class Indicator:
    """A family of features that differ in their window; the attributes are those of ``Feature``.

    Attributes:
        windows: The windows of its group's features, or None if it takes none.
        lookback: Window -> rows.
        memory: Window -> rows.
        smallest: The smallest window that makes sense.
        alias_of: The indicator it equals up to a factor, which stands for it in groups.
    """

    name: str
    group: str
    inputs: tuple[str, ...]
    windows: tuple[int, ...] | None
    formula: str
    source: str
    lookback: Callable[[int], int]
    memory: Callable[[int], int]
    scaled: bool
    smallest: int
    alias_of: str | None
    compute: Callable[..., FloatArray]

    def at(self, window: int | None) -> Feature:
        """The feature of a window, or of none.

        Raises:
            ArgumentError: If the indicator takes no such window.
        """
        if (window is None) != (self.windows is None):
            mend = f"name it {self.name}" if self.windows is None else f"name it {self.name}_20"
            raise ArgumentError(f"feature {self.name!r} with window {window}: {mend}, say")
        if window is not None and window < self.smallest:
            raise ArgumentError(
                f"the window of {self.name}_{window} is too short: it must be at least "
                f"{self.smallest}"
            )
        bound = {} if window is None else {"w": window}
        return Feature(
            self.name if window is None else f"{self.name}_{window}",
            self.group,
            self.inputs,
            window,
            self.formula,
            self.source,
            self.lookback(window or 0),
            self.memory(window or 0),
            self.scaled,
            partial(self.compute, **bound),
        )


INDICATORS: dict[str, Indicator] = {}
"""Every indicator by name, in the order of its declaration."""


def indicator(
    group: str,
    formula: str,
    *,
    inputs: str = "close",
    source: str = "by definition",
    windows: tuple[int, ...] | None = None,
    lookback: Callable[[int], int] = lambda w: w - 1,
    memory: Callable[[int], int] | None = None,
    scaled: bool = True,
    smallest: int = 2,
    alias_of: str | None = None,
) -> Callable[[Callable[..., FloatArray]], Callable[..., FloatArray]]:
    """Declare the decorated function ``(bars)`` or ``(bars, w)`` as the indicator of its name.

    Args:
        group: See ``Indicator``, as for the rest.
        formula: Plain text; w is the window, c, o, h, l, v the bar fields, r the one-bar return.
        inputs: Names of bar fields, separated by blanks.
        source: Paper or book, where the formula does not say it all.
        windows: Default windows; None for indicators without one.
        lookback: Window -> rows.
        memory: Window -> rows; as many as the lookback by default.
        scaled: Whether scalers apply.
        smallest: Smallest window.
        alias_of: The indicator it repeats.
    """

    def declare(function: Callable[..., FloatArray]) -> Callable[..., FloatArray]:
        name: Any = function.__name__
        INDICATORS[name] = Indicator(
            name,
            group,
            tuple(inputs.split()),
            windows,
            formula,
            source,
            lookback,
            memory or lookback,
            scaled,
            smallest,
            alias_of,
            function,
        )
        return function

    return declare
