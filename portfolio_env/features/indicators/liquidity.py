"""Liquidity: cost of trading an asset and its capacity."""

from __future__ import annotations

import numpy as np

from portfolio_env.features.bars import Bars
from portfolio_env.features.indicators.volume import balance, positive
from portfolio_env.features.registry import indicator
from portfolio_env.features.windows import deviation, lagged, mean
from portfolio_env.market.panel import FloatArray

_SAMPLE = 120  # bars of a variance ratio


def illiquidity(bars: Bars, w: int) -> FloatArray:
    """Mean of |r| per unit of money over w bars that traded (Amihud 2002, eq. 1)."""
    return bars.by_trade(mean, w, np.abs(bars.returns) / bars.dollar_volume)


@indicator(
    "liquidity",
    "(ln d - mean(ln d, w)) / std(ln d, w), d = typical price x v, ddof 0",
    inputs="high low close volume",
    windows=(60,),
)
def dollar_volume_zscore(bars: Bars, w: int) -> FloatArray:
    """Money traded against its own past."""

    def score(log: FloatArray, w: int) -> FloatArray:
        return (log - mean(log, w)) / positive(deviation(log, w, 0))

    return bars.by_trade(score, w, np.log(bars.dollar_volume))


@indicator(
    "liquidity",
    "ln(mean(|r| / d, w) / mean(|r| / d, 5 w)), d = typical price x v",
    inputs="high low close volume",
    source="Amihud 2002, J. Financial Markets 5, eq. 1",
    windows=(20,),
    lookback=lambda w: 5 * w,
    smallest=1,
)
def amihud(bars: Bars, w: int) -> FloatArray:
    """Illiquidity against its own past."""
    return np.log(positive(illiquidity(bars, w)) / positive(illiquidity(bars, 5 * w)))


@indicator("liquidity", "(h - l) / typical price", inputs="high low close", lookback=lambda _: 0)
def hl_spread(bars: Bars) -> FloatArray:
    """Range of the bar, relative to its price."""
    return (bars.high - bars.low) / bars.typical


@indicator(
    "liquidity",
    "mean(max(S, 0), w), S the spread that explains the ranges of two bars",
    inputs="high low close",
    source="Corwin & Schultz 2012, J. Finance 67, eqs. 14, 18",
    windows=(20,),
    lookback=lambda w: w,
    smallest=1,
)
def corwin_schultz(bars: Bars, w: int) -> FloatArray:
    """Estimate of the bid-ask spread from highs and lows, a fraction of the price."""
    one = np.log(bars.high / bars.low) ** 2
    both = one + lagged(one, 1)
    high = np.maximum(bars.high, lagged(bars.high, 1))
    low = np.minimum(bars.low, lagged(bars.low, 1))
    root = 3 - 2 * np.sqrt(2)
    alpha = (np.sqrt(2 * both) - np.sqrt(both)) / root - np.log(high / low) / np.sqrt(root)
    return mean(np.maximum(2 * np.tanh(alpha / 2), 0.0), w)


@indicator("liquidity", "std(v, w) / mean(v, w), ddof 1", inputs="volume", windows=(5, 20))
def volume_volatility(bars: Bars, w: int) -> FloatArray:
    """Coefficient of variation of volume."""
    return deviation(bars.volume, w, 1) / positive(mean(bars.volume, w))


@indicator(
    "liquidity",
    "|sum(sign(r) v, w)| / sum(v, w)",
    inputs="close volume",
    source="after VPIN (Easley, Lopez de Prado & O'Hara 2012, Rev. Financial Studies 25)",
    windows=(20,),
    lookback=lambda w: w,
)
def flow_toxicity(bars: Bars, w: int) -> FloatArray:
    """Imbalance of the order flow, in [0, 1]; bars stand for trades, so it is not VPIN."""
    return np.abs(balance(bars, w))


@indicator(
    "liquidity",
    f"var(ln c_t / c_(t-w)) / (w var(ln c_t / c_(t-1))) over {_SAMPLE} bars",
    source="Lo & MacKinlay 1988, Rev. Financial Studies 1",
    windows=(5, 20),
    lookback=lambda w: _SAMPLE - 1 + w,
)
def variance_ratio(bars: Bars, w: int) -> FloatArray:
    """1 for a random walk, above it for trends, below it for reversals."""
    log = np.log(bars.close)
    long = deviation(log - lagged(log, w), _SAMPLE, 1)
    return long**2 / (w * positive(deviation(bars.log_returns, _SAMPLE, 1)) ** 2)


@indicator(
    "liquidity",
    "ln(mean(v, w)_t / v_(t-w))",
    inputs="volume",
    windows=(5,),
    lookback=lambda w: w,
    smallest=1,
)
def liquidity_resilience(bars: Bars, w: int) -> FloatArray:
    """Share of the volume of a bar that was still there in the w bars after it."""
    return np.log(positive(mean(bars.volume, w)) / positive(lagged(bars.volume, w)))
