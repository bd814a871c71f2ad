"""Panels that features are tested on, and other futures for them."""

from dataclasses import replace

import numpy as np
import pandas as pd

from portfolio_env import PricePanel
from portfolio_env.data.generators.synthetic import synthetic_panel
from portfolio_env.market.panel import BAR_FIELDS


def panel_of(frequency, bars, assets=3, seed=5, ragged=True):
    """Synthetic bars at the timestamps of a pandas frequency ("D", "B", "h", ...)."""
    panel = synthetic_panel(seed=seed, bars=bars, assets=assets, ragged=ragged)
    times = pd.date_range("2021-01-01", periods=bars, freq=frequency).as_unit("ns").to_numpy()
    score = np.random.default_rng(seed).normal(size=panel.close.shape)
    return replace(panel, timestamps=times, exogenous={"score": score}, periods_per_year=np.nan)


def rewritten_after(panel, t, seed):
    """The same panel up to t, other bars, gaps and silent bars after it."""
    rng = np.random.default_rng(seed)
    other = synthetic_panel(seed=seed, bars=len(panel.timestamps), assets=len(panel.assets))
    bars = {name: np.array(getattr(panel, name)) for name in BAR_FIELDS}
    for name in BAR_FIELDS:
        bars[name][t + 1 :] = 1e3 * getattr(other, name)[t + 1 :]
        bars[name][t + 1 :][rng.random(bars[name][t + 1 :].shape) < 0.2] = np.nan
    gone = np.any([np.isnan(values) for values in bars.values()], axis=0)
    for values in bars.values():
        values[gone] = np.nan
    bars["volume"][t + 1 :][rng.random(bars["volume"][t + 1 :].shape) < 0.2] *= 0
    channels = {name: np.array(values) for name, values in panel.exogenous.items()}
    for values in channels.values():
        values[t + 1 :] = rng.normal(size=values[t + 1 :].shape)
    return replace(panel, **bars, exogenous=channels)


def closes_only(panel: PricePanel) -> PricePanel:
    return replace(panel, open=None, high=None, low=None, volume=None)
