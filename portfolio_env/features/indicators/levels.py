"""Levels: indicators in the units of prices and volumes, not stationary.

They wander with the price, so that a network trained on one range has never seen the next: the
other groups hold the same indicators relative to the close, to their average or to their past.
Fit scalers when using them: unscaled levels are cut off at the bound of features.
"""

from __future__ import annotations

import numpy as np

from portfolio_env.features.bars import Bars
from portfolio_env.features.indicators.liquidity import illiquidity
from portfolio_env.features.indicators.trend import macd_line
from portfolio_env.features.indicators.volume import positive
from portfolio_env.features.registry import ALL, indicator
from portfolio_env.features.windows import deviation, ema, lagged, mean, total, wilder
from portfolio_env.market.panel import FloatArray


@indicator("levels", "c", lookback=lambda _: 0)
def close_level(bars: Bars) -> FloatArray:
    """Closing price."""
    return bars.close


@indicator("levels", "v", inputs="volume", lookback=lambda _: 0)
def volume_level(bars: Bars) -> FloatArray:
    """Units traded."""
    return bars.volume


@indicator("levels", "mean(c, w)", windows=(7, 10, 14, 20, 21, 50, 100))
def sma_level(bars: Bars, w: int) -> FloatArray:
    """Simple moving average of the close."""
    return mean(bars.close, w)


@indicator(
    "levels",
    "ema(c, w), alpha = 2 / (w + 1)",
    windows=(7, 12, 14, 21, 26, 50, 100),
    memory=lambda w: 15 * (w + 1),
)
def ema_level(bars: Bars, w: int) -> FloatArray:
    """Exponential moving average of the close."""
    return ema(bars.close, w)


@indicator("levels", "ema(c, 12) - ema(c, 26)", lookback=lambda _: 25, memory=lambda _: 405)
def macd_level(bars: Bars) -> FloatArray:
    """MACD in units of price."""
    return macd_line(bars)


@indicator(
    "levels",
    "ema(ema(c, 12) - ema(c, 26), 9)",
    lookback=lambda _: 33,
    memory=lambda _: 555,
)
def macd_signal_level(bars: Bars) -> FloatArray:
    """Signal line of MACD in units of price."""
    return ema(macd_line(bars), 9)


@indicator("levels", "mean(c, w) + 2 std(c, w), ddof 0", windows=(20,))
def bb_high_level(bars: Bars, w: int) -> FloatArray:
    """Upper Bollinger band."""
    return mean(bars.close, w) + 2 * deviation(bars.close, w, 0)


@indicator("levels", "mean(c, w) - 2 std(c, w), ddof 0", windows=(20,))
def bb_low_level(bars: Bars, w: int) -> FloatArray:
    """Lower Bollinger band."""
    return mean(bars.close, w) - 2 * deviation(bars.close, w, 0)


@indicator(
    "levels",
    "wilder(max(h, c_(t-1)) - min(l, c_(t-1)), w)",
    inputs="high low close",
    windows=(7, 14, 21),
    lookback=lambda w: w,
    memory=lambda w: 30 * w,
)
def atr_level(bars: Bars, w: int) -> FloatArray:
    """Average true range in units of price."""
    return wilder(bars.true_range, w)


@indicator("levels", "c_t - c_(t-w)", windows=(10,), lookback=lambda w: w, smallest=1)
def momentum_level(bars: Bars, w: int) -> FloatArray:
    """Change of price."""
    return bars.close - lagged(bars.close, w)


@indicator(
    "levels",
    "cumulative sum of sign(r) v",
    inputs="close volume",
    lookback=lambda _: 1,
    memory=lambda _: ALL,
)
def obv_level(bars: Bars) -> FloatArray:
    """On-balance volume since the asset's first bar; a missing bar adds nothing."""
    steps = bars.signed_volume
    return np.where(np.isnan(steps), np.nan, np.nancumsum(steps, axis=0))


@indicator("levels", "mean(v, w)", inputs="volume", windows=(5, 10, 20, 21))
def volume_sma_level(bars: Bars, w: int) -> FloatArray:
    """Moving average of volume."""
    return mean(bars.volume, w)


@indicator(
    "levels",
    "sum(typical price v, w) / sum(v, w)",
    inputs="high low close volume",
    windows=(20,),
)
def vwap_level(bars: Bars, w: int) -> FloatArray:
    """Volume-weighted average price."""
    return total(bars.typical * bars.volume, w) / positive(total(bars.volume, w))


@indicator(
    "levels",
    "ln(typical price x v)",
    inputs="high low close volume",
    lookback=lambda _: 0,
)
def dollar_volume_level(bars: Bars) -> FloatArray:
    """Log of the money traded."""
    return np.log(bars.dollar_volume)


@indicator(
    "levels",
    "ln(1e6 mean(|r| / (typical price x v), w))",
    inputs="high low close volume",
    source="Amihud 2002, J. Financial Markets 5, eq. 1",
    windows=(1, 20),
    lookback=lambda w: w,
    smallest=1,
)
def amihud_level(bars: Bars, w: int) -> FloatArray:
    """Log of Amihud's illiquidity, per million of money."""
    return np.log(positive(1e6 * illiquidity(bars, w)))
