"""Returns and the shape of single bars."""

from __future__ import annotations

from portfolio_env.features.bars import Bars
from portfolio_env.features.indicators.momentum import share
from portfolio_env.features.registry import indicator
from portfolio_env.features.windows import change, highest, lagged
from portfolio_env.market.panel import FloatArray


def simple_return(bars: Bars, w: int) -> FloatArray:
    """Simple return over w bars."""
    return change(bars.close, w)


simple_return.__name__ = "return"  # a keyword of Python, and the field's word
indicator(
    "returns",
    "c_t / c_(t-w) - 1",
    windows=(1, 3, 5, 10, 20, 21, 60),
    lookback=lambda w: w,
    smallest=1,
)(simple_return)


@indicator(
    "returns",
    "(c - l) / (h - l); 1/2 if they are equal",
    inputs="high low close",
    lookback=lambda _: 0,
)
def close_location(bars: Bars) -> FloatArray:
    """Place of the close in the bar's range, in [0, 1]."""
    return share(bars.close - bars.low, bars.high - bars.low)


@indicator("returns", "o_t / c_(t-1) - 1", inputs="open close", lookback=lambda _: 1)
def gap(bars: Bars) -> FloatArray:
    """Return from the close before to the open."""
    return bars.open / lagged(bars.close, 1) - 1


@indicator("returns", "c / o - 1", inputs="open close", lookback=lambda _: 0)
def intraday_return(bars: Bars) -> FloatArray:
    """Return from the open to the close."""
    return bars.close / bars.open - 1


@indicator("returns", "c / max(c, w) - 1", windows=(60,))
def drawdown(bars: Bars, w: int) -> FloatArray:
    """Distance to the highest close, in (-1, 0]."""
    return bars.close / highest(bars.close, w) - 1
