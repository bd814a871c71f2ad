"""User-defined features: found by ``"module:name"`` or an entry point, or given as functions.

By name only what ``@indicator`` declares is called: no name in a file can run anything else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from portfolio_env import names
from portfolio_env.errors import ArgumentError, user_code
from portfolio_env.features.bars import Bars
from portfolio_env.features.registry import ALL, INDICATORS, Feature, Indicator, on_own_bars
from portfolio_env.files import plugins as files
from portfolio_env.market.panel import FloatArray
from portfolio_env.resampling import TIMEFRAMES

FAR = 1e100
"""Size from which on a value counts as infinite: scalers square it."""
_KIND = "feature"
_DECLARE = "declare it with @indicator of portfolio_env.features, at the top of a module of its own"


def split_timeframe(name: str) -> tuple[str, str]:
    """Return the timeframe before a name, or "", and the rest.

    >>> split_timeframe("1w:my_features:skew_20")
    ('1w', 'my_features:skew_20')
    """
    first, _, rest = name.partition(":")
    nested = rest.partition(":")[0] in TIMEFRAMES
    return (first, rest) if first in TIMEFRAMES and not nested else ("", name)


def of_name(name: str, known: Iterable[str]) -> list[Feature]:
    """Return the features of a name that is not built in.

    Args:
        name: ``"module:name"``, or that of an entry point, with a window or without.
        known: Built-in names, for the message.

    Raises:
        ArgumentError: If it stands for no indicator.
    """
    base, window = _with_window(name)
    if window is None:
        function = names.find(_KIND, base, dict.fromkeys(known))
    else:
        try:
            function = names.find(_KIND, base, {})
        except ArgumentError:  # the number may be part of the name
            base, window = name, None
            function = names.find(_KIND, name, dict.fromkeys(known))
    declared = getattr(function, "indicator", None)
    if not isinstance(declared, Indicator):
        raise ArgumentError(f"feature {name!r} stands for no indicator: {_DECLARE}")
    return _at_windows(base, declared, window)


def of_function(function: Any) -> list[Feature]:
    """Return a function's features: an ``@indicator`` at its windows, or ``(bars) -> (T, N)``.

    Raises:
        ArgumentError: If it is not a function.
    """
    if not callable(function):
        raise ArgumentError(f"feature {function!r} must be a name or a function of bars")
    declared = getattr(function, "indicator", None)
    if not isinstance(declared, Indicator):
        label = _label(function)
        compute = partial(_computed, name=label, function=function)
        text = "a function of your own"
        return [
            Feature(label, "own", (), None, text, text, 0, ALL, True, compute, function)
        ]  # fmt: skip
    if INDICATORS.get(declared.name) is declared:
        return [declared.at(window) for window in declared.windows or (None,)]
    return _at_windows(_label(function), declared, None)


def _with_window(name: str) -> tuple[str, int | None]:
    stem, _, number = name.rpartition("_")
    usual = number.isdecimal() and stem and not stem.endswith(":")
    return (stem, int(number)) if usual else (name, None)


def _at_windows(label: str, declared: Indicator, window: int | None) -> list[Feature]:
    """Return the features of an indicator at a window, or at its own."""
    if window is None and declared.windows == ():
        raise ArgumentError(f"feature {label!r} needs a window: write {label}_20, say")
    windows = (window,) if window is not None else declared.windows or (None,)
    found = []
    for w in windows:
        name = label if w is None else f"{label}_{w}"
        feature = declared.at(w)
        compute = partial(_computed, name=name, function=declared.plain(w))
        if declared.per_asset:
            compute = partial(on_own_bars, function=compute)
        found.append(replace(feature, name=name, compute=compute, function=declared.compute))
    return found


def _label(function: Any) -> str:
    try:
        return names.plugin_name(function)
    except ArgumentError:
        return str(getattr(function, "__name__", type(function).__name__))


def _computed(bars: Bars, *, name: str, function: Callable[[Bars], Any]) -> FloatArray:
    """Compute and check a user's function of bars; errors name the feature.

    Infinite values stay, so that a pipeline can tell them from unknown ones.
    """
    own = Bars(bars.panel, bars.reference)  # a copy: its writes do not reach other features
    with user_code(f"feature {name!r}", leave=()):
        array = np.asarray(function(own))
    bars_and_assets = bars.close.shape
    if array.shape not in (bars_and_assets, (bars_and_assets[0], 1)):
        raise ArgumentError(
            f"feature {name!r} returned the shape {array.shape}: it must be (bars, assets) = "
            f"{bars_and_assets}, or {(bars_and_assets[0], 1)} for all assets alike"
        )
    if array.dtype.kind not in "fiub":
        raise ArgumentError(
            f"feature {name!r} returned values of type {array.dtype}: they must be numbers, NaN "
            "where unknown"
        )
    known = array.astype(np.float64)
    known[np.abs(known) > FAR] = np.inf
    return known


def plain_names(features: Iterable[Any]) -> list[str]:
    """Return names by which the same features are found again, for a file.

    Raises:
        ArgumentError: For a function that has none.
    """
    found = []
    for each in features:
        if isinstance(each, str):
            found.append(each)
        elif isinstance(declared := getattr(each, "indicator", None), Indicator):
            found += (
                [one.name for one in of_function(each)]
                if INDICATORS.get(declared.name) is declared
                else [names.plugin_name(each)]
            )
        else:
            raise ArgumentError(
                f"{each!r} cannot be saved as a feature, for which it needs a name: {_DECLARE}"
            )
    return found


def sources(features: Iterable[Any]) -> dict[str, str]:
    """Return SHA-256 of the source of each plug-in among names of features; none is imported.

    Raises:
        ArgumentError: If one has no source.
    """
    return {name: names.source_hash(name, _KIND) for name in _plugins(features)}


def admit(features: Iterable[Any], recorded: Any, file: Path) -> None:
    """Reject features that a file may not name; see ``portfolio_env.files.plugins.admit``.

    Args:
        features: Names of features.
        recorded: Result of ``sources`` when the file was written.
        file: Path of the file.
    """
    files.admit({_KIND: _plugins(features)}, {_KIND: recorded}, file)


def say_changes(pipeline: Any, file: Path) -> None:
    """Log which features of a saved market have another source now; they are not recomputed.

    Args:
        pipeline: Record of the features in the market's file.
        file: Path of the market.
    """
    if isinstance(pipeline, Mapping) and "sources" in pipeline:
        files.say_changes({_KIND: pipeline["sources"]}, file)


def check_imported(features: Iterable[Any]) -> None:
    """Reject features that would have to be imported.

    Raises:
        ArgumentError: For the first whose module this program has not imported.
    """
    for name in _plugins(features):
        module = names.module_of(_KIND, name)
        if module not in sys.modules:
            raise ArgumentError(
                f"the market names the feature {name!r}: import {module} first, if you trust it; a "
                "market imports nothing"
            )


def _plugins(features: Iterable[Any]) -> list[str]:
    """Return names of plug-ins among names of features, as their sources are looked up."""
    found = []
    for each in features:
        if isinstance(each, str):
            name = split_timeframe(each)[1]
            for one in (_with_window(name)[0], name):
                if names.is_plugin(one) or names.is_entry_point(_KIND, one):
                    found.append(one)
                    break
    return list(dict.fromkeys(found))
