"""Definition of a feature, and the decorator that declares indicators."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from numbers import Integral
from typing import Any

import numpy as np

from portfolio_env.errors import ArgumentError, user_code
from portfolio_env.features.bars import Bars
from portfolio_env.market.panel import BAR_FIELDS, FloatArray
from portfolio_env.names import unknown

ALL = -1
"""Memory of a feature that depends on every bar before."""
MOST_ROWS = 10_000_000
"""Bars that a feature may look back on: two decades of minutes."""


@dataclass(frozen=True)
class Feature:
    """One causal channel: an indicator at a window, on the bars of one timeframe.

    Attributes:
        name: Name among ``Market.feature_names``.
        group: The group that switches it on.
        inputs: The bar fields it reads.
        window: Window in bars, or None.
        formula: Formula, w being the window.
        source: Source of the formula.
        lookback: Number of the asset's own bars before t that must exist for a known value at t.
        memory: Number of own bars before t that give the value at t to 1e-12; ``ALL`` where only
            all do.
        scaled: Whether scalers apply; flags, ranks and angles are bounded by nature.
        compute: Bars -> (T, N) float64 or what broadcasts to it; row t uses rows <= t only, NaN
            where unknown.
        function: The user's function that it calls; None where it is built in.
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
    function: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Indicator:
    """A family of features that differ in their window; the attributes are those of ``Feature``.

    Attributes:
        windows: The windows of its group's features, or None if it takes none.
        lookback: Window -> rows.
        memory: Window -> rows.
        smallest: The smallest window that makes sense.
        alias_of: The indicator it equals up to a factor, which stands for it in groups.
        per_asset: Whether it reads each asset by itself, and so is given ``Bars.own``.
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
    per_asset: bool = False

    def at(self, window: int | None) -> Feature:
        """Return the feature of a window, or of none.

        Raises:
            ArgumentError: If the indicator takes no such window.
        """
        if window is None and self.windows is not None:
            raise ArgumentError(f"feature {self.name!r} needs a window: write {self.name}_20, say")
        if window is not None and self.windows is None:
            raise ArgumentError(
                f"feature {self.name!r} has no window, and {window} was given: write {self.name}"
            )
        if window is not None and window < self.smallest:
            raise ArgumentError(
                f"the window of {self.name}_{window} is too short: it must be at least "
                f"{self.smallest}"
            )
        rows: dict[str, Any] = {}
        for name in ("lookback", "memory"):
            with user_code(f"{name} of {self.name!r} at window {window}"):
                rows[name] = getattr(self, name)(window or 0)
        for name, value in rows.items():
            least = 0 if name == "lookback" else ALL
            if not isinstance(value, Integral) or not least <= int(value) <= MOST_ROWS:
                raise ArgumentError(
                    f"{name} of {self.name!r} at window {window} is {value!r}; it must be a number "
                    f"of rows up to {MOST_ROWS:,}{', or ALL' * (name == 'memory')}"
                )
        compute = self.plain(window)
        return Feature(
            self.name if window is None else f"{self.name}_{window}",
            self.group,
            self.inputs,
            window,
            self.formula,
            self.source,
            rows["lookback"],
            rows["memory"],
            self.scaled,
            partial(on_own_bars, function=compute) if self.per_asset else compute,
        )

    def plain(self, window: int | None) -> Callable[[Bars], FloatArray]:
        """Return the declared function at a window, of the bars that it is given."""
        return partial(self.compute, **({} if window is None else {"w": window}))


def on_own_bars(bars: Bars, function: Callable[[Bars], FloatArray]) -> FloatArray:
    """Return a function of each asset's own bars on the calendar, (T, N); NaN between them."""
    values = np.broadcast_to(function(bars.own), bars.close.shape)
    return values if bars.own is bars else bars.rows.apart(values)


INDICATORS: dict[str, Indicator] = {}
"""Every indicator that is built in by name, in the order of its declaration."""
_OTHERS: dict[str, Indicator] = {}  # those of other modules, by "module:name"
_BUILT_IN = "portfolio_env.features.indicators."


def indicator(
    group: str,
    formula: str,
    *,
    inputs: str = "close",
    source: str = "by definition",
    windows: tuple[int, ...] | None = None,
    lookback: Callable[[int], int] | None = None,
    memory: Callable[[int], int] | None = None,
    scaled: bool = True,
    smallest: int = 2,
    alias_of: str | None = None,
    per_asset: bool | None = None,
) -> Callable[[Callable[..., FloatArray]], Callable[..., FloatArray]]:
    """Declare the decorated function ``(bars)`` or ``(bars, w)`` as the indicator of its name.

    One that stands in a module of your own is asked for as ``"module:name"`` or
    ``"module:name_20"``, 20 being the window, or as the function itself; it joins no group.

    Args:
        group: See ``Indicator``, as for the rest.
        formula: Plain text; w is the window, c, o, h, l, v the bar fields, r the one-bar return.
        inputs: Names of bar fields, separated by blanks.
        source: Paper or book, where the formula does not say it all.
        windows: Default windows; None for indicators without one, or without a default.
        lookback: Window -> rows; all of the window but the row itself by default.
        memory: Window -> rows; as many as the lookback by default.
        scaled: Whether scalers apply.
        smallest: Smallest window.
        alias_of: The indicator it repeats.
        per_asset: Whether the function reads each asset by itself. It is then given each asset's
            own bars in line, so that no window meets a gap, and may not compare assets or read
            the timestamps; otherwise bars on the calendar, NaN where an asset has none. By
            default only built-in groups of single assets are.

    Raises:
        ArgumentError: If another file has declared an indicator of that name, or what is declared
            is of another kind than it must be.
    """
    _check_declared(inputs, windows, {"lookback": lookback, "memory": memory})

    def declare(function: Callable[..., FloatArray]) -> Callable[..., FloatArray]:
        name: Any = function.__name__
        before = lookback or (lambda w: max(0, w - 1))
        windowed = "w" in signature(function).parameters
        declared = Indicator(
            name,
            group,
            tuple(inputs.split()),
            () if windows is None and windowed else windows,
            formula,
            source,
            before,
            memory or before,
            scaled,
            smallest,
            alias_of,
            function,
            _reads_one_asset(function, group) if per_asset is None else per_asset,
        )
        _register(declared)
        vars(function)["indicator"] = declared
        return function

    return declare


def _reads_one_asset(function: Callable[..., Any], group: str) -> bool:
    built_in = str(function.__module__).startswith(_BUILT_IN)
    return built_in and group not in ("cross_asset", "calendar")


def _check_declared(inputs: Any, windows: Any, functions: dict[str, Any]) -> None:
    for name in inputs.split():
        if name not in BAR_FIELDS:
            raise unknown("input of an indicator", name, BAR_FIELDS)
    if windows is not None and not (
        isinstance(windows, tuple) and all(isinstance(window, Integral) for window in windows)
    ):
        raise ArgumentError(f"windows={windows!r} must be a tuple of bars, e.g. (10, 20)")
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise ArgumentError(
                f"{name}={function!r} must be a function of the window, e.g. lambda w: 20"
            )


def _register(declared: Indicator) -> None:
    """Register an indicator under its name, unless that is taken by another file's."""
    function: Any = declared.compute
    # Code run by exec(), as in some notebooks, has no module: it is treated as a notebook's.
    module, name = function.__module__ or "__main__", function.__qualname__
    if module.startswith(_BUILT_IN):
        known, key = INDICATORS, declared.name
    else:  # a notebook's cell or a function's own may be run again, and nothing names them
        if module == "__main__" or "<locals>" in name:
            if name in INDICATORS:
                raise _taken(name, INDICATORS[name], declared)
            return
        known, key = _OTHERS, f"{module}:{name}"
    if key in known and _stands(known[key]) and _file(known[key]) != _file(declared):
        raise _taken(key, known[key], declared)
    known[key] = declared


def _stands(one: Indicator) -> bool:
    """Return whether its module is still imported as it was."""
    function: Any = one.compute
    module = sys.modules.get(function.__module__)
    return module is not None and function.__globals__ is vars(module)


def _file(one: Indicator) -> str:
    code = getattr(one.compute, "__code__", None)
    return code.co_filename if code is not None else ""


def _taken(key: str, first: Indicator, second: Indicator) -> ArgumentError:
    return ArgumentError(
        f"the indicator {key!r} is declared twice, in {_file(first)} and in {_file(second)}: "
        "give one of them another name"
    )
