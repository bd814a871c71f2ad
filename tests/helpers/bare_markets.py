"""Markets of nothing but closing prices and whether an asset trades."""

import numpy as np
import pandas as pd

from portfolio_env import Market, PricePanel


def market_of(close, tradable=None) -> Market:
    dates = pd.date_range("2021-01-04", periods=len(close), freq="D").to_numpy("datetime64[ns]")
    volume = None if tradable is None else tradable.astype(float)
    names = tuple(f"A{i}" for i in range(close.shape[1]))
    panel = PricePanel(timestamps=dates, assets=names, close=close, volume=volume)
    return Market(panel, np.zeros((*close.shape, 0), np.float32), ())


def random_market(seed, bars, n, halted=0.0) -> Market:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, (bars, n)), axis=0))
    return market_of(close, rng.random((bars, n)) >= halted)
