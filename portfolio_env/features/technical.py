"""Features of one asset's own bars: returns, volatility, momentum, volume, moving averages.

Windows of w bars include the decision bar t and reach back to t - w + 1. A value is NaN (unknown)
as long as a bar in its window is missing.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from portfolio_env.features.base import Feature
from portfolio_env.panel import FloatArray, PricePanel


def simple_return(panel: PricePanel, periods: int) -> FloatArray:
    """c_t / c_(t - periods) - 1, (T, N)."""
    change = np.full_like(panel.close, np.nan)
    change[periods:] = panel.close[periods:] / panel.close[:-periods] - 1
    return change


def volatility(panel: PricePanel, window: int) -> FloatArray:
    """Standard deviation (ddof 1) of the last ``window`` one-bar simple returns, (T, N)."""
    return pd.DataFrame(simple_return(panel, 1)).rolling(window).std().to_numpy()


def sma_ratio(panel: PricePanel, window: int) -> FloatArray:
    """c_t over the mean of the last ``window`` closes, less 1, (T, N)."""
    mean: FloatArray = pd.DataFrame(panel.close).rolling(window).mean().to_numpy()
    return panel.close / mean - 1


def volume_change(panel: PricePanel) -> FloatArray:
    """log(v_t / v_(t-1)), (T, N); unknown where nothing was traded in either bar."""
    assert panel.volume is not None
    log_volume = np.log(np.where(panel.volume > 0, panel.volume, np.nan))
    return np.diff(log_volume, axis=0, prepend=np.nan)


TECHNICAL = (
    Feature("return_1", partial(simple_return, periods=1), lookback=1),
    Feature("volatility_10", partial(volatility, window=10), lookback=10),
    Feature("momentum_5", partial(simple_return, periods=5), lookback=5),
    Feature("volume_change", volume_change, lookback=1, needs=("volume",)),
    Feature("sma_ratio_20", partial(sma_ratio, window=20), lookback=19),
)
