"""Regime: slow states of an asset, as flags or bounded numbers."""

from __future__ import annotations

import numpy as np

from portfolio_env.features.bars import Bars
from portfolio_env.features.registry import indicator
from portfolio_env.features.windows import change, correlation, deviation, mean, standing
from portfolio_env.market.panel import FloatArray


def flag(difference: FloatArray) -> FloatArray:
    """Return 1 where the difference is positive, 0 where not, NaN where it is unknown."""
    return np.where(np.isnan(difference), np.nan, (difference > 0).astype(np.float64))


@indicator("regime", "1 if mean(c, 50) > mean(c, 200)", lookback=lambda _: 199, scaled=False)
def trend_regime(bars: Bars) -> FloatArray:
    """1 above the golden cross, 0 below."""
    return flag(mean(bars.close, 50) - mean(bars.close, 200))


@indicator("regime", "1 if volatility_20 > volatility_60", lookback=lambda _: 60, scaled=False)
def volatility_regime(bars: Bars) -> FloatArray:
    """1 while volatility rises."""
    return flag(deviation(bars.returns, 20, 1) - deviation(bars.returns, 60, 1))


@indicator(
    "regime", "1 if return_w > 0", windows=(63, 252), lookback=lambda w: w, scaled=False, smallest=1
)
def momentum_regime(bars: Bars, w: int) -> FloatArray:
    """1 after a gain."""
    return flag(change(bars.close, w))


@indicator(
    "regime",
    "mean of trend_regime, 1 - volatility_regime and momentum_regime_63",
    lookback=lambda _: 199,
    scaled=False,
)
def composite_regime(bars: Bars) -> FloatArray:
    """1 in a calm rising market, 0 in a turbulent falling one."""
    return (trend_regime(bars) + 1 - volatility_regime(bars) + momentum_regime(bars, 63)) / 3


@indicator(
    "regime",
    "tercile of volatility_20 among its last w values: 0 low, 1/2 medium, 1 high",
    windows=(252,),
    lookback=lambda w: w + 19,
    scaled=False,
    smallest=3,
)
def volatility_tercile(bars: Bars, w: int) -> FloatArray:
    """Tercile of volatility relative to the asset's own past."""
    return np.minimum(np.floor(3 * standing(deviation(bars.returns, 20, 1), w)), 2) / 2


@indicator(
    "regime",
    "corr(r, mean(|r|, w)) over w bars",
    windows=(20, 60),
    lookback=lambda w: 2 * w - 1,
)
def vol_ret_corr(bars: Bars, w: int) -> FloatArray:
    """Correlation of returns with average absolute returns, in [-1, 1]: the leverage effect."""
    return correlation(bars.returns, mean(np.abs(bars.returns), w), w)


@indicator("regime", "mean(vol_ret_corr_20, 10)", lookback=lambda _: 48)
def risk_regime(bars: Bars) -> FloatArray:
    """Slow version of the leverage effect, in [-1, 1]."""
    return mean(vol_ret_corr(bars, 20), 10)
