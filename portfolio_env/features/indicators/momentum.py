"""Momentum: oscillators of one asset's own prices."""

from __future__ import annotations

import numpy as np

from portfolio_env.features.bars import Bars
from portfolio_env.features.registry import indicator
from portfolio_env.features.windows import change, highest, lowest, mean, wilder
from portfolio_env.market.panel import FloatArray

_LANE = "Lane 1984, Lane's Stochastics"


def share(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Return the part of a whole, and 1/2 where both are 0."""
    return np.where(whole == 0, 0.5, part / np.where(whole == 0, 1.0, whole))


@indicator(
    "momentum",
    "U / (U + D), U and D the Wilder averages of rises and falls; 1/2 if nothing moved",
    source="Wilder 1978, New Concepts in Technical Trading Systems",
    windows=(6, 7, 14, 21, 24),
    lookback=lambda w: w,
    memory=lambda w: 30 * w,
)
def rsi(bars: Bars, w: int) -> FloatArray:
    """Relative strength index / 100, in [0, 1]."""
    step = np.diff(bars.close, axis=0, prepend=np.nan)
    rise = wilder(np.maximum(step, 0.0), w)
    return share(rise, rise + wilder(np.maximum(-step, 0.0), w))


@indicator(
    "momentum",
    "(c - min(l, w)) / (max(h, w) - min(l, w)); 1/2 if they are equal",
    inputs="high low close",
    source=_LANE,
    windows=(14,),
)
def stoch_k(bars: Bars, w: int) -> FloatArray:
    """Stochastic oscillator %K / 100, in [0, 1]."""
    low = lowest(bars.low, w)
    return share(bars.close - low, highest(bars.high, w) - low)


@indicator(
    "momentum",
    "mean(stoch_k_w, 3)",
    inputs="high low close",
    source=_LANE,
    windows=(14,),
    lookback=lambda w: w + 1,
)
def stoch_d(bars: Bars, w: int) -> FloatArray:
    """Stochastic oscillator %D / 100, in [0, 1]."""
    return mean(stoch_k(bars, w), 3)


@indicator(
    "momentum",
    "stoch_k_w - 1",
    inputs="high low close",
    source="Williams 1973, How I Made One Million Dollars",
    windows=(14,),
    alias_of="stoch_k",
)
def williams_r(bars: Bars, w: int) -> FloatArray:
    """Williams %R / 100, in [-1, 0]."""
    return stoch_k(bars, w) - 1


@indicator(
    "momentum",
    "c_t / c_(t-w) - 1",
    windows=(5, 10, 20),
    lookback=lambda w: w,
    smallest=1,
    alias_of="return",
)
def roc(bars: Bars, w: int) -> FloatArray:
    """Rate of change / 100."""
    return change(bars.close, w)


@indicator(
    "momentum",
    "c_t / c_(t-w) - 1",
    windows=(5, 10, 20, 60),
    lookback=lambda w: w,
    smallest=1,
    alias_of="return",
)
def momentum(bars: Bars, w: int) -> FloatArray:
    """Relative momentum."""
    return change(bars.close, w)
