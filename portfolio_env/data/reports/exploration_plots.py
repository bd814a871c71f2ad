"""Plots of price histories as matplotlib figures; matplotlib is imported when one is drawn.

Every function takes a panel and draws all of its assets: cut it before to those that matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from portfolio_env.data.reports import statistics
from portfolio_env.market.panel import FloatArray, PricePanel
from portfolio_env.plotting import returns
from portfolio_env.plotting.figures import (
    DOTS_PER_INCH,
    WIDTH,
    date_axis,
    new_figure,
    panels_grid,
    plot_label,
)
from portfolio_env.plotting.returns import palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECENT = 730  # bars of the plots of single assets
AVERAGES = {20: "#e6007e", 50: "#00838f"}  # moving averages: bars and colour


def prices(panel: PricePanel) -> Figure:
    """Plot the last 730 bars of each asset: close, low-high band, and moving averages."""
    figure, grid = panels_grid(len(panel.assets))
    for i, (axes, name, color) in enumerate(
        zip(grid, panel.assets, palette(panel.assets), strict=True)
    ):
        own = np.flatnonzero(np.isfinite(panel.close[:, i]))
        close, own = pd.Series(panel.close[own, i]), own[-RECENT:]
        times = panel.timestamps[own]
        if panel.low is not None and panel.high is not None:
            band = (panel.low[own, i], panel.high[own, i])
            axes.fill_between(times, *band, color=color, alpha=0.3, linewidth=0)
        axes.plot(times, close.tail(RECENT), color=color, linewidth=0.9, label="close")
        for bars, shade in AVERAGES.items():
            mean = close.rolling(bars).mean().tail(RECENT)
            axes.plot(times, mean, color=shade, linewidth=0.8, label=f"mean of {bars}")
        axes.set_title(plot_label(name), fontsize="medium")
        date_axis(axes, few=True)
        axes.tick_params(labelsize="small")
        axes.xaxis.get_offset_text().set_fontsize("x-small")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small")
    return figure


def base_row(close: FloatArray) -> int | None:
    """Return the first row in which every asset has a bar, if any."""
    rows = np.flatnonzero(np.isfinite(close).all(axis=1))
    return int(rows[0]) if len(rows) else None


def growth(panel: PricePanel) -> Figure:
    """Plot prices on a logarithmic axis, and prices that start at 100.

    They start at the first bar that all assets have, or where there is none each at its own.
    """
    figure = new_figure((WIDTH, 8), DOTS_PER_INCH)
    absolute, normalised = figure.subplots(2, 1, sharex=True)
    base = base_row(panel.close)
    for name, close, color in zip(panel.assets, panel.close.T, palette(panel.assets), strict=True):
        absolute.plot(panel.timestamps, close, color=color, linewidth=0.9, label=plot_label(name))
        start = close[base] if base is not None else close[np.isfinite(close)][0]
        normalised.plot(panel.timestamps, 100 * close / start, color=color, linewidth=0.9)
    when = "its own first bar" if base is None else str(panel.timestamps[base])[:16]
    absolute.set_title("Prices")
    normalised.set_title(f"Prices, 100 at {when.removesuffix('T00:00')}")
    normalised.axhline(100, color="black", linewidth=0.6)
    for axes in (absolute, normalised):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        date_axis(axes)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def distributions(panel: PricePanel) -> Figure:
    """Plot histogram, density estimate and normal density of the simple returns, per asset."""
    return returns.distributions(panel.assets, statistics.simple_returns(panel.close))


def correlations(panel: PricePanel) -> Figure:
    """Plot the correlations of simple returns, the lower triangle, from -1 to 1."""
    matrix = statistics.correlation(statistics.simple_returns(panel.close))
    return returns.correlations(panel.assets, matrix)
