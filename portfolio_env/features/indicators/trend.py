"""Trend: price against its averages, MACD and directional movement."""

from __future__ import annotations

import numpy as np

from portfolio_env.features.bars import Bars
from portfolio_env.features.registry import indicator
from portfolio_env.features.windows import ema, lagged, mean, wilder
from portfolio_env.market.panel import FloatArray

_APPEL = "Appel 2005, Technical Analysis"
_WILDER = "Wilder 1978, New Concepts in Technical Trading Systems"


@indicator("trend", "c / mean(c, w) - 1", windows=(5, 7, 10, 14, 20, 21, 50, 60, 100))
def sma_ratio(bars: Bars, w: int) -> FloatArray:
    """Close over its simple moving average, less 1."""
    return bars.close / mean(bars.close, w) - 1


@indicator(
    "trend",
    "c / ema(c, w) - 1, alpha = 2 / (w + 1)",
    windows=(7, 12, 14, 21, 26, 50, 100),
    memory=lambda w: 15 * (w + 1),
)
def ema_ratio(bars: Bars, w: int) -> FloatArray:
    """Close over its exponential moving average, less 1."""
    return bars.close / ema(bars.close, w) - 1


def macd_line(bars: Bars) -> FloatArray:
    """EMA of 12 bars less that of 26, a price difference."""
    return ema(bars.close, 12) - ema(bars.close, 26)


@indicator(
    "trend",
    "(ema(c, 12) - ema(c, 26)) / c",
    source=_APPEL,
    lookback=lambda _: 25,
    memory=lambda _: 405,
)
def macd(bars: Bars) -> FloatArray:
    """Moving average convergence divergence, relative to the close."""
    return macd_line(bars) / bars.close


@indicator(
    "trend",
    "ema(ema(c, 12) - ema(c, 26), 9) / c",
    source=_APPEL,
    lookback=lambda _: 33,
    memory=lambda _: 555,
)
def macd_signal(bars: Bars) -> FloatArray:
    """Signal line of MACD, relative to the close."""
    return ema(macd_line(bars), 9) / bars.close


@indicator(
    "trend",
    "macd - macd_signal",
    source=_APPEL,
    lookback=lambda _: 33,
    memory=lambda _: 555,
)
def macd_diff(bars: Bars) -> FloatArray:
    """Histogram of MACD, relative to the close."""
    line = macd_line(bars)
    return (line - ema(line, 9)) / bars.close


def directional(bars: Bars, w: int) -> tuple[FloatArray, FloatArray]:
    """Wilder's +DI and -DI as shares of the true range, in [0, 1]; 0 where nothing moved."""
    up = bars.high - lagged(bars.high, 1)
    down = lagged(bars.low, 1) - bars.low
    unknown = np.isnan(up + down)
    plus = np.where(unknown, np.nan, np.where((up > down) & (up > 0), up, 0.0))
    minus = np.where(unknown, np.nan, np.where((down > up) & (down > 0), down, 0.0))
    span = wilder(bars.true_range, w)
    flat = np.where(span == 0, 1.0, span)
    return wilder(plus, w) / flat, wilder(minus, w) / flat


@indicator(
    "trend",
    "wilder(|+DI - -DI| / (+DI + -DI), w) / 100",
    inputs="high low close",
    source=_WILDER,
    windows=(14,),
    lookback=lambda w: 2 * w - 1,
    memory=lambda w: 60 * w,
)
def adx(bars: Bars, w: int) -> FloatArray:
    """Average directional index, in [0, 1]."""
    plus, minus = directional(bars, w)
    both = plus + minus
    return wilder(np.abs(plus - minus) / np.where(both == 0, 1.0, both), w)


@indicator(
    "trend",
    "wilder(+DM, w) / wilder(true range, w)",
    inputs="high low close",
    source=_WILDER,
    windows=(14,),
    lookback=lambda w: w,
    memory=lambda w: 30 * w,
)
def adx_pos(bars: Bars, w: int) -> FloatArray:
    """Positive directional indicator +DI, in [0, 1]."""
    return directional(bars, w)[0]


@indicator(
    "trend",
    "wilder(-DM, w) / wilder(true range, w)",
    inputs="high low close",
    source=_WILDER,
    windows=(14,),
    lookback=lambda w: w,
    memory=lambda w: 30 * w,
)
def adx_neg(bars: Bars, w: int) -> FloatArray:
    """Negative directional indicator -DI, in [0, 1]."""
    return directional(bars, w)[1]
