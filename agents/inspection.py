"""Figures of an encoder: attention over assets and time, and calibration of its forecasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch as th
from numpy.typing import NDArray
from torch import Tensor

from agents.encoding.market_encoder import MarketEncoder
from agents.forecasts import NextReturns
from agents.networks import Encoder
from portfolio_env.market import Market
from portfolio_env.market.timeline import time_text
from portfolio_env.plotting.figures import new_figure, plot_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_LABELS = 30  # more names than this are unreadable along an axis


def attention_maps(encoder: Encoder, market: Market, t: int) -> dict[str, NDArray[np.float32]]:
    """Return the attention at bar t, averaged over heads, within the window that ends there.

    Args:
        encoder: Whose, see ``Encoder.attention``; it is left in its mode.
        market: Market with the encoder's features.
        t: Row, with ``encoder.bars`` bars up to it.

    Returns:
        By name (N, K): what each asset takes from each asset ("assets..."), from each bar of the
        window, the oldest first ("time..."), or from what else there is. Empty without attention.
    """
    weights = next(encoder.parameters(), th.empty(0))
    arrays = (
        market.features[t - encoder.bars + 1 : t + 1],
        market.tradable[t].astype(np.float32),
        market.category_codes,
    )
    windows, tradable, codes = (th.tensor(array[None], device=weights.device) for array in arrays)
    mode = encoder.training
    encoder.eval()
    with th.no_grad():
        found = encoder.attention(windows, tradable, codes)
    encoder.train(mode)
    return {name: _at_last_bar(name, part[0]).cpu().numpy() for name, part in found.items()}


def _at_last_bar(name: str, weights: Tensor) -> Tensor:
    """Return (N, K) of one window's weights in the shapes of ``Encoder.attention``."""
    if name.startswith("assets"):
        last = weights[-1] if weights.ndim == 4 else weights
        return last.mean(0)
    if name.startswith("time") and weights.ndim == 4:
        return weights[:, :, -1].mean(1)
    return weights


def attention_figure(name: str, weights: NDArray[np.float32], market: Market, t: int) -> Figure:
    """Plot one map of ``attention_maps``; brighter cells have larger weights.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    figure = new_figure((7, 4.5), 100)
    axes = figure.subplots()
    bars = weights.shape[1]
    names = list(map(plot_label, market.assets))
    over_time = name.startswith("time")
    # In time the unit is a bar: the last is at 0, and the picture's edges lie half a bar away.
    extent = (0.5 - bars, 0.5, len(weights) - 0.5, -0.5) if over_time else None
    image = axes.imshow(weights, vmin=0, aspect="auto", extent=extent, interpolation="nearest")
    if len(weights) <= _MAX_LABELS:
        axes.set_yticks(range(len(weights)), names)
    if name.startswith("assets"):
        axes.set_xlabel("looked at")
        if len(weights) <= _MAX_LABELS:
            axes.set_xticks(range(len(weights)), names, rotation=90)
    else:
        axes.set_xlabel("bar of the window, 0 the last" if over_time else "number")
    axes.set_title(f"{name}, {time_text(market.timestamps[t])}")
    figure.colorbar(image, label="weight, mean over heads")
    return figure


def encoder_figures(
    embeddings: MarketEncoder, market: Market, rows: tuple[int, int], returns: NextReturns | None
) -> dict[str, Figure]:
    """Return figures of attention at a range's last bar and, with returns, of calibration, by name.

    The embeddings are in evaluation mode.
    """
    t = rows[1] - 1
    figures = {
        f"attention/{name}": attention_figure(name, weights, market, t)
        for name, weights in attention_maps(embeddings.encoder, market, t).items()
    }
    if returns is not None:
        calibration = returns.calibration(embeddings, returns.rows(rows))
        figures["calibration/reliability"] = calibration.figure()
    return figures
