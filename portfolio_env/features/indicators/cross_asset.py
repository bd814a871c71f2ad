"""Cross-asset features: an asset relative to the others, and aggregates of all.

Windows of an asset's values count its own bars, and pair its returns with those of the market over
the same time. Ranks and means across assets are of those that trade in the row.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from portfolio_env.features.bars import Bars, across
from portfolio_env.features.indicators.volume import positive
from portfolio_env.features.registry import indicator
from portfolio_env.features.windows import (
    change,
    correlation,
    covariance,
    lagged,
    mean,
    mean_of_known,
    total,
)
from portfolio_env.market.panel import FloatArray


def ranked(x: FloatArray) -> FloatArray:
    """Return ranks among the assets that have a value, ties sharing theirs, (T, N) in [-1, 1]."""
    rank = pd.DataFrame(x).rank(axis=1).to_numpy()
    count = (~np.isnan(x)).sum(axis=1, keepdims=True)
    return np.where(count > 1, 2 * (rank - 1) / np.maximum(count - 1, 1) - 1, 0.0 * rank)


@indicator("cross_asset", "corr(r, market r) over w bars", windows=(20, 60), lookback=lambda w: w)
def market_corr(bars: Bars, w: int) -> FloatArray:
    """Correlation of one-bar returns with those of the reference, in [-1, 1]."""
    return bars.by_asset(correlation, w, bars.returns, bars.market_since)


@indicator(
    "cross_asset",
    "cov(r, market r) / var(market r) over w bars",
    source="Sharpe 1964, J. Finance 19",
    windows=(60,),
    lookback=lambda w: w,
)
def market_beta(bars: Bars, w: int) -> FloatArray:
    """Slope of one-bar returns on those of the reference."""

    def slope(own: FloatArray, market: FloatArray, w: int) -> FloatArray:
        both, _, variance = covariance(own, market, w)
        return both / positive(variance)

    return bars.by_asset(slope, w, bars.returns, bars.market_since)


@indicator(
    "cross_asset",
    "corr(r_t, market r_(t-1)) over w bars",
    source="Lo & MacKinlay 1990, Rev. Financial Studies 3",
    windows=(20,),
    lookback=lambda w: w + 1,
)
def lead_lag_corr(bars: Bars, w: int) -> FloatArray:
    """Correlation with the reference one bar earlier, in [-1, 1]."""

    def led(own: FloatArray, market: FloatArray, w: int) -> FloatArray:
        return correlation(own, lagged(market, 1), w)

    return bars.by_asset(led, w, bars.returns, bars.market_since)


@indicator(
    "cross_asset",
    "product of (1 + market r) over w bars, less 1",
    windows=(1, 5, 20),
    lookback=lambda w: w,
    smallest=1,
)
def market_return(bars: Bars, w: int) -> FloatArray:
    """Return of the reference, the same for every asset."""
    return np.expm1(total(np.log1p(bars.market_returns), w))


@indicator(
    "cross_asset",
    "mean over w rows of the standard deviation (ddof 1) of r over assets",
    windows=(20, 60),
    lookback=lambda w: w,
)
def return_dispersion(bars: Bars, w: int) -> FloatArray:
    """Dispersion of the assets' returns in one bar, the same for every asset.

    Rows in which fewer than two assets trade do not count; half of the w rows must.
    """
    off = (bars.returns - across(bars.returns)) ** 2
    count = (~np.isnan(off)).sum(axis=1, keepdims=True)
    spread = np.sqrt(across(off) * count / np.where(count > 1, count - 1, np.nan))
    return np.broadcast_to(mean_of_known(spread, w), bars.close.shape)


@indicator(
    "cross_asset",
    "return_w - mean of return_w over assets",
    windows=(5, 20, 60),
    lookback=lambda w: w,
    smallest=1,
)
def relative_strength(bars: Bars, w: int) -> FloatArray:
    """Return beyond that of the average asset."""
    own = bars.by_asset(change, w, bars.close)
    return own - across(own)


@indicator(
    "cross_asset",
    "rank of return_w among assets, from -1 to 1",
    windows=(1, 5, 20),
    lookback=lambda w: w,
    scaled=False,
    smallest=1,
)
def return_rank(bars: Bars, w: int) -> FloatArray:
    """Cross-sectional rank of the return, in [-1, 1]."""
    return ranked(bars.by_asset(change, w, bars.close))


@indicator(
    "cross_asset",
    "rank of mean(typical price x v, w) among assets, from -1 to 1",
    inputs="high low close volume",
    windows=(20,),
    scaled=False,
    smallest=1,
)
def dollar_volume_rank(bars: Bars, w: int) -> FloatArray:
    """Cross-sectional rank of the money traded, in [-1, 1]."""
    return ranked(bars.by_asset(mean, w, bars.typical * bars.volume))
