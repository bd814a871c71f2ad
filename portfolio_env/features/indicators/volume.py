"""Volume: its size, changes and direction."""

from __future__ import annotations

import numpy as np

from portfolio_env.features.bars import Bars
from portfolio_env.features.indicators.momentum import share
from portfolio_env.features.registry import indicator
from portfolio_env.features.windows import lagged, mean, total
from portfolio_env.market.panel import FloatArray


def positive(x: FloatArray) -> FloatArray:
    """Return the values that are > 0, NaN elsewhere."""
    return np.where(x > 0, x, np.nan)


def balance(bars: Bars, w: int) -> FloatArray:
    """Return volume of rising less that of falling bars over w bars, per total, in [-1, 1]."""
    return total(bars.signed_volume, w) / positive(total(bars.volume, w))


@indicator("volume", "ln(v_t / v_(t-1))", inputs="volume", lookback=lambda _: 1)
def volume_change(bars: Bars) -> FloatArray:
    """Log change of volume."""
    volume = positive(bars.volume)
    return np.log(volume / lagged(volume, 1))


@indicator("volume", "ln(v / mean(v, w))", inputs="volume", windows=(5, 10, 20, 21))
def volume_ratio(bars: Bars, w: int) -> FloatArray:
    """Volume over its moving average, in logs."""
    return np.log(positive(bars.volume) / positive(mean(bars.volume, w)))


@indicator(
    "volume",
    "ln(v / mean(v, w))",
    inputs="volume",
    windows=(5, 20),
    alias_of="volume_ratio",
)
def volume_strength(bars: Bars, w: int) -> FloatArray:
    """Volume over its moving average, in logs."""
    return volume_ratio(bars, w)


@indicator(
    "volume",
    "ln(mean(v, w)_t / mean(v, w)_(t-w))",
    inputs="volume",
    windows=(20,),
    lookback=lambda w: 2 * w - 1,
)
def volume_sma_change(bars: Bars, w: int) -> FloatArray:
    """Log change of the moving average of volume over its own window."""
    average = positive(mean(bars.volume, w))
    return np.log(average / lagged(average, w))


@indicator(
    "volume",
    "sum(sign(r) v, w) / sum(v, w)",
    inputs="close volume",
    source="Granville 1963, New Key to Stock Market Profits: the change of OBV",
    windows=(10, 20),
    lookback=lambda w: w,
)
def obv_change(bars: Bars, w: int) -> FloatArray:
    """Change of on-balance volume as a share of all volume, in [-1, 1]."""
    return balance(bars, w)


@indicator(
    "volume",
    "P / (P + M), sums over w of typical price x volume of bars that rose and fell",
    inputs="high low close volume",
    source="Quong & Soudack 1989, Stocks & Commodities 7:3",
    windows=(14,),
    lookback=lambda w: w,
)
def mfi(bars: Bars, w: int) -> FloatArray:
    """Money flow index / 100, in [0, 1]; 1/2 where no money flowed."""
    flow = np.sign(bars.typical - lagged(bars.typical, 1)) * bars.typical * bars.volume
    gain = total(np.maximum(flow, 0.0), w)
    return share(gain, gain + total(np.maximum(-flow, 0.0), w))


@indicator(
    "volume",
    "c sum(v, w) / sum(typical price v, w) - 1",
    inputs="high low close volume",
    windows=(20,),
)
def vwap_ratio(bars: Bars, w: int) -> FloatArray:
    """Close over the volume-weighted average price, less 1."""
    average = total(bars.typical * bars.volume, w) / positive(total(bars.volume, w))
    return bars.close / average - 1
