"""Volatility: dispersion of returns, ranges and bands of one asset's own prices."""

from __future__ import annotations

import numpy as np

from portfolio_env.features.bars import Bars
from portfolio_env.features.registry import indicator
from portfolio_env.features.windows import deviation, mean, wilder
from portfolio_env.market.panel import FloatArray

_BOLLINGER = "Bollinger 2001, Bollinger on Bollinger Bands"


@indicator(
    "volatility",
    "standard deviation (ddof 1) of r over w bars",
    windows=(5, 10, 20, 21, 60, 63),
    lookback=lambda w: w,
)
def volatility(bars: Bars, w: int) -> FloatArray:
    """Standard deviation of one-bar simple returns, per bar."""
    return deviation(bars.returns, w, 1)


@indicator(
    "volatility",
    "wilder(max(h, c_(t-1)) - min(l, c_(t-1)), w) / c",
    inputs="high low close",
    source="Wilder 1978, New Concepts in Technical Trading Systems",
    windows=(7, 14, 21),
    lookback=lambda w: w,
    memory=lambda w: 30 * w,
)
def atr(bars: Bars, w: int) -> FloatArray:
    """Average true range, relative to the close."""
    return wilder(bars.true_range, w) / bars.close


@indicator(
    "volatility",
    "(mean(c, w) + 2 std(c, w)) / c - 1, ddof 0",
    source=_BOLLINGER,
    windows=(20,),
)
def bb_high(bars: Bars, w: int) -> FloatArray:
    """Upper Bollinger band, relative to the close."""
    return (mean(bars.close, w) + 2 * deviation(bars.close, w, 0)) / bars.close - 1


@indicator(
    "volatility",
    "(mean(c, w) - 2 std(c, w)) / c - 1, ddof 0",
    source=_BOLLINGER,
    windows=(20,),
)
def bb_low(bars: Bars, w: int) -> FloatArray:
    """Lower Bollinger band, relative to the close."""
    return (mean(bars.close, w) - 2 * deviation(bars.close, w, 0)) / bars.close - 1


@indicator("volatility", "4 std(c, w) / mean(c, w), ddof 0", source=_BOLLINGER, windows=(20,))
def bb_width(bars: Bars, w: int) -> FloatArray:
    """Width of the Bollinger bands, relative to their middle."""
    return 4 * deviation(bars.close, w, 0) / mean(bars.close, w)


@indicator(
    "volatility",
    "(c - lower band) / (upper - lower band); 1/2 if they are equal",
    source=_BOLLINGER,
    windows=(20,),
)
def bb_percent(bars: Bars, w: int) -> FloatArray:
    """Place of the close between the Bollinger bands: 0 on the lower, 1 on the upper one."""
    spread = deviation(bars.close, w, 0)
    off = (bars.close - mean(bars.close, w)) / np.where(spread == 0, 1.0, 4 * spread)
    return np.where(spread == 0, 0.5, 0.5 + off)


@indicator(
    "volatility",
    "sqrt(mean(ln(h / l)^2, w) / (4 ln 2))",
    inputs="high low close",
    source="Parkinson 1980, J. Business 53, eq. 12",
    windows=(20,),
)
def parkinson(bars: Bars, w: int) -> FloatArray:
    """Volatility per bar from the range of each bar."""
    return np.sqrt(mean(np.log(bars.high / bars.low) ** 2, w) / (4 * np.log(2)))


@indicator(
    "volatility",
    "sqrt(mean(ln(h / l)^2 / 2 - (2 ln 2 - 1) ln(c / o)^2, w))",
    inputs="open high low close",
    source="Garman & Klass 1980, J. Business 53, eq. 20",
    windows=(20,),
)
def garman_klass(bars: Bars, w: int) -> FloatArray:
    """Volatility per bar from the range and the body of each bar."""
    span, body = np.log(bars.high / bars.low), np.log(bars.close / bars.open)
    return np.sqrt(mean(span**2 / 2 - (2 * np.log(2) - 1) * body**2, w))
