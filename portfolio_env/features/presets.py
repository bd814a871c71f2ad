"""Catalogue of features: names, groups and presets, and the features of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from portfolio_env.errors import ArgumentError
from portfolio_env.features import plugins
from portfolio_env.features.bars import Bars
from portfolio_env.features.indicators import (
    calendar,
    cross_asset,
    levels,
    library,
    liquidity,
    momentum,
    regime,
    returns,
    trend,
    volatility,
    volume,
)
from portfolio_env.features.registry import INDICATORS, Feature
from portfolio_env.features.timeframes import higher, on_timeframe
from portfolio_env.market.panel import FloatArray, PricePanel

_MODULES = (
    returns,
    trend,
    momentum,
    volatility,
    volume,
    cross_asset,
    regime,
    liquidity,
    calendar,
    levels,
    library,
)
GROUPS = (
    *("ta" if module is library else module.__name__.rpartition(".")[2] for module in _MODULES),
    "timeframes",
    "exogenous",
)
"""Names that switch on a group: the indicators of a module of that name at their default windows
("ta": those of ``indicators.library``), the higher timeframes, or the exogenous channels of the
panel."""

KNOWN = "known"
"""The feature that says which share of the others is known at a bar."""

_INTRADAY = ("hour_sin", "hour_cos", "session_asia", "session_europe", "session_us")
_HIGHER = (
    "return_1",
    "return_3",
    "sma_ratio_6",
    "volatility_6",
    "close_location",
    "volume_ratio_6",
)

PRESETS: dict[str, tuple[str, ...]] = {
    "minimal": (
        "return_1",
        "volatility_10",
        "momentum_5",
        "volume_change",
        "sma_ratio_20",
        "exogenous",
    ),
    "technical": (
        *(f"sma_ratio_{w}" for w in (7, 14, 20, 21, 50, 100)),
        *(f"ema_ratio_{w}" for w in (7, 14, 21, 50, 100)),
        *("macd", "macd_signal", "macd_diff", "adx_14", "adx_pos_14", "adx_neg_14"),
        *("rsi_7", "rsi_14", "rsi_21", "stoch_k_14", "stoch_d_14"),
        *("bb_high_20", "bb_low_20", "bb_width_20", "bb_percent_20"),
        *("atr_7", "atr_14", "atr_21"),
        *("obv_change_20", "mfi_14", "volume_sma_change_20", "volume_ratio_20"),
        *(f"return_{w}" for w in (1, 3, 5, 10, 20)),
        *("close_location", "gap", "exogenous"),
    ),
    "technical_ratios": (
        *(f"sma_ratio_{w}" for w in (10, 20, 50)),
        *("ema_ratio_12", "ema_ratio_26", "macd", "macd_signal", "macd_diff"),
        *("adx_14", "adx_pos_14", "adx_neg_14"),
        *("rsi_6", "rsi_14", "rsi_24", "stoch_k_14", "stoch_d_14"),
        *("bb_high_20", "bb_low_20", "bb_width_20", "bb_percent_20", "atr_14"),
        *("obv_change_20", "mfi_14", "volume_sma_change_20", "volume_ratio_20"),
        *(f"return_{w}" for w in (1, 5, 10, 20)),
        *("volatility_10", "volatility_20", "exogenous"),
    ),
    "factor": (
        *(f"return_{w}" for w in (1, 5, 10, 20, 60)),
        *(f"volatility_{w}" for w in (5, 10, 20, 60)),
        *(f"sma_ratio_{w}" for w in (5, 10, 20, 60)),
        *("rsi_14", "volume_change", "volume_ratio_20", "obv_change_10", "exogenous"),
    ),
    "full": (*(group for group in GROUPS if group not in ("levels", "ta")), KNOWN),
    "none": (),
}
"""What a preset consists of: features, groups, and so on; each ends with the panel's own channels.

- minimal: for a first experiment.
- technical: the classic indicators and returns. Level indicators are taken relative to the close
  (moving averages, MACD, bands, ATR) or to their past (on-balance volume, average volume). Not
  repeated: Williams %R (stoch_k_14 less 1) and rates of change (return_5, _10, _20).
- technical_ratios: a second selection of the same, with volatilities.
- factor: returns, volatilities and ratios of an equity factor model.
- full: every group but the levels and "ta".
- none: nothing, for what decides from prices alone.
"""


FeatureName: TypeAlias = str | Callable[..., Any]
"""A name, or a function of your own: an ``@indicator``, or ``(bars) -> (T, N)``."""


def select(names: str | Sequence[FeatureName], panel: PricePanel) -> list[Feature]:
    """Return the features of names of features, groups and presets, each once, in order.

    Args:
        names: One or more, also "minimal,liquidity"; "full" is a preset, "liquidity" a group,
            "rsi_9" an indicator at any window, "1w:rsi_9" the same on weekly bars,
            "my_features:skew_20" one of a module of your own, which may also be the function.
        panel: Panel whose frequency decides which higher timeframes and clock features there are,
            its exogenous channels can be named too.

    Raises:
        ArgumentError: For a name that stands for nothing, or for two different features.
    """
    found: dict[str, Feature] = {}
    for name in _expanded(separate(names), panel):
        for feature in _features(name, panel):
            first = found.setdefault(feature.name, feature)
            if first.function is not feature.function:
                raise ArgumentError(
                    f"two different features are called {feature.name!r}: rename one function"
                )
    return list(found.values())


def separate(names: str | Sequence[FeatureName]) -> list[FeatureName]:
    """Return the names of a list, of a comma-separated text, or of one function."""
    if isinstance(names, str):
        return [name.strip() for name in names.split(",")]
    return [*names] if isinstance(names, Iterable) else [names]


def describe(names: str | Sequence[FeatureName] = "full", panel: PricePanel | None = None) -> None:
    """Print a table of features: name, group, inputs, window, formula, source.

    Args:
        names: As for ``select``; "levels" lists the group that "full" leaves out.
        panel: As for ``select``; without one, that of daily bars.
    """
    print(table(names, panel).to_string(index=False, justify="left"))


def table(
    names: str | Sequence[FeatureName] = "full", panel: PricePanel | None = None
) -> pd.DataFrame:
    """Return the table that ``describe`` prints, as a frame with a few columns more."""
    rows = select(names, _daily() if panel is None else panel)
    columns = ("name", "group", "inputs", "window", "lookback", "formula", "source")
    frame = pd.DataFrame(
        [[getattr(row, name) for name in columns] for row in rows], columns=columns
    )
    frame["inputs"] = frame["inputs"].map(" ".join)
    frame["window"] = frame["window"].map(lambda w: "" if pd.isna(w) else str(int(w)))
    return frame


def _daily() -> PricePanel:
    days = pd.date_range("2020-01-01", periods=2).to_numpy("datetime64[ns]")
    return PricePanel(days, ("A", "B"), pd.DataFrame({"A": [1.0, 1.0], "B": 1.0}).to_numpy())


def _expanded(names: Sequence[FeatureName], panel: PricePanel) -> Iterator[FeatureName]:
    """Return names of features, and functions, only."""
    for name in names:
        if not isinstance(name, str):
            yield name
        elif name in PRESETS:
            yield from _expanded(PRESETS[name], panel)
        elif name == "exogenous":
            yield from panel.exogenous
        elif name == "timeframes":
            for timeframe in higher(panel.periods_per_year):
                yield from (f"{timeframe}:{indicator}" for indicator in _HIGHER)
        elif name in GROUPS:
            yield from _members(name, panel)
        else:
            yield name


def _members(group: str, panel: PricePanel) -> Iterator[str]:
    """Return the features of a group of indicators."""
    for one in INDICATORS.values():
        if one.group != group or one.alias_of is not None:
            continue
        if one.name in _INTRADAY and panel.periods_per_year <= 366:
            continue
        if one.windows is None:
            yield one.name
        else:
            yield from (f"{one.name}_{w}" for w in one.windows)


def _features(name: FeatureName, panel: PricePanel) -> list[Feature]:
    """Return the feature of a name; more if a user-defined name has several windows."""
    if not isinstance(name, str):
        return plugins.of_function(name)
    if name in panel.exogenous:
        text = "a channel of the panel, as known at the close of the bar"
        return [_flat(name, "exogenous", text, partial(_exogenous, name=name))]
    if name == KNOWN:
        return [_flat(KNOWN, KNOWN, "share of the other features that are known", _all_known)]
    timeframe, rest = plugins.split_timeframe(name)
    if timeframe:
        per_year = panel.periods_per_year
        return [on_timeframe(each, timeframe, per_year) for each in _features(rest, panel)]
    stem, _, number = name.rpartition("_")
    if name in INDICATORS:
        return [INDICATORS[name].at(None)]
    if stem in INDICATORS and number.isdecimal():
        return [INDICATORS[stem].at(int(number))]
    names = [*PRESETS, *GROUPS, *panel.exogenous, *_everything(panel)]
    return plugins.of_name(name, names)


def _everything(panel: PricePanel) -> list[str]:
    windows = {one.name: one.windows for one in INDICATORS.values()}
    plain = [name for name, taken in windows.items() if taken is None]
    return plain + [f"{name}_{w}" for name, taken in windows.items() for w in taken or ()]


def _flat(name: str, group: str, formula: str, compute: Callable[[Bars], FloatArray]) -> Feature:
    """Return a feature without window or history."""
    return Feature(
        name, group, (), None, formula, "by definition", 0, 0, group == "exogenous", compute
    )


def _exogenous(bars: Bars, name: str) -> FloatArray:
    return bars.panel.exogenous[name]


def _all_known(bars: Bars) -> FloatArray:
    """Return the start of ``KNOWN``, which the pipeline lowers for each feature that is unknown."""
    return np.ones_like(bars.close)
