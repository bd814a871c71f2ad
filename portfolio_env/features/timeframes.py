"""Features on higher timeframes, joined by bars that are closed already."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np

from portfolio_env.features.bars import Bars
from portfolio_env.features.registry import ALL, Feature
from portfolio_env.market.panel import FloatArray
from portfolio_env.resampling import TIMEFRAMES, closed_groups, has_weekends

_DAY = np.timedelta64(1, "D")
_USUAL = ((48, ("1h", "4h")), (12, ("4h", "1d")), (2, ("1d", "1w")), (0.9, ("1w", "1M")))


def bars_per_day(periods_per_year: float) -> float:
    """Return the bars on a day on which there are any."""
    return periods_per_year / (252 if has_weekends(periods_per_year) else 365)


def higher(periods_per_year: float) -> tuple[str, ...]:
    """Return the two timeframes of the group "timeframes" above bars of this frequency."""
    per_day = bars_per_day(periods_per_year)
    return next((names for least, names in _USUAL if per_day >= least), ())


def on_timeframe(feature: Feature, timeframe: str, periods_per_year: float) -> Feature:
    """Return the feature on the closed bars of a timeframe, held until the next one closes."""
    days = 31 if timeframe == "1M" else TIMEFRAMES[timeframe] / _DAY
    rows = math.ceil(days * max(1.0, bars_per_day(periods_per_year)))

    def reach(bars: int) -> int:  # so many closed bars, and the one that is not closed yet
        return ALL if bars == ALL else rows * (bars + 2)

    return replace(
        feature,
        name=f"{timeframe}:{feature.name}",
        group="timeframes",
        formula=f"on {timeframe} bars: {feature.formula}",
        lookback=reach(feature.lookback),
        memory=reach(feature.memory),
        compute=partial(_held, feature=feature, timeframe=timeframe),
    )


def _held(bars: Bars, feature: Feature, timeframe: str) -> FloatArray:
    """Return values at each asset's last bar of the timeframe that is closed at each row, (T, N).

    A period in which an asset has no bar leaves the bar before the last one.
    """
    upper = bars.at(timeframe)
    if upper is None:
        return np.full_like(bars.close, np.nan)
    if len(upper.timestamps) == len(bars.timestamps):  # of this timeframe already
        closed = np.arange(len(bars.timestamps))
    else:  # not by the labels: that a row is the last one of a session, only a later one tells
        closed = closed_groups(bars.timestamps, bars.panel.periods_per_year, timeframe)[1]
    rows = np.arange(len(upper.timestamps))[:, None]
    last = np.maximum.accumulate(np.where(upper.rows.present, rows, -1), axis=0)[closed]
    values = np.broadcast_to(feature.compute(upper), upper.close.shape)
    held = np.take_along_axis(values, last, axis=0)
    return np.where((closed[:, None] >= 0) & (last >= 0), held, np.nan)
