"""Pictures of price histories as matplotlib figures; matplotlib is imported when one is drawn.

Every function takes a panel and draws all of its assets: cut it before to those that matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from portfolio_env.data.reports import statistics
from portfolio_env.market.panel import FloatArray, PricePanel
from portfolio_env.plotting import DOTS_PER_INCH, date_axis, new_figure, plot_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 10.0  # inches
RECENT = 730  # bars of the pictures of prices one by one
AVERAGES = {20: "#e6007e", 50: "#00838f"}  # moving averages: bars and colour
_KNOWN = {
    "BTC": "#F7931A",
    "ETH": "#627EEA",
    "BNB": "#F3BA2F",
    "SOL": "#00C27F",  # the original's #00FFA3 is hardly visible on white
    "XRP": "#23292F",
}
_OTHERS = (
    "#1f77b4", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#2ca02c",
    "#7f7f7f", "#aa3377", "#4b0082", "#ff9896", "#005f73",
)  # fmt: skip
_BINS, _REACH = 50, 5  # of histograms; how many deviations from the mean they show
_DARK = 0.8  # correlations beyond have dark cells
_VALUES_UP_TO = 20  # assets whose correlations fit as numbers


def palette(assets: Sequence[str]) -> list[str]:
    """A colour per asset; some have one that people know."""
    others = cycle(_OTHERS)
    return [
        next((color for name, color in _KNOWN.items() if asset.startswith(name)), "")
        or next(others)
        for asset in assets
    ]


def panels_grid(panels: int, height: float = 2.3, **share: Any) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes, at most 3 beside one another."""
    columns = 3 if panels > 4 or panels == 3 else min(panels, 2)
    rows = math.ceil(panels / columns)
    figure = new_figure((WIDTH, height * rows + 0.5), DOTS_PER_INCH)
    axes = figure.subplots(rows, columns, squeeze=False, **share).ravel().tolist()
    for spare in axes[panels:]:
        spare.remove()
    return figure, axes[:panels]


def prices(panel: PricePanel) -> Figure:
    """The last 730 bars of each asset: close, the band from low to high, and moving averages."""
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
    """The first row in which every asset has a bar, if any."""
    rows = np.flatnonzero(np.isfinite(close).all(axis=1))
    return int(rows[0]) if len(rows) else None


def growth(panel: PricePanel) -> Figure:
    """Prices on a logarithmic axis, and prices that start at 100.

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
    """Histogram, density estimate and normal density of the simple returns, per asset.

    Shown are the returns within 5 standard deviations of the mean; titles count the others.
    """
    stats = statistics.scipy_stats()
    figure, grid = panels_grid(len(panel.assets))
    returns = 100 * statistics.simple_returns(panel.close)
    for axes, name, column, color in zip(
        grid, panel.assets, returns.T, palette(panel.assets), strict=True
    ):
        known = column[np.isfinite(column)]
        axes.set_title(plot_label(name), fontsize="medium")
        axes.axvline(0, color="black", linewidth=0.8)
        axes.tick_params(labelsize="small")
        axes.grid(alpha=0.3)
        if len(known) < 2 or np.ptp(known) == 0:
            continue
        mean, deviation = known.mean(), known.std(ddof=1)
        low = max(known.min(), mean - _REACH * deviation)
        high = min(known.max(), mean + _REACH * deviation)
        inside = known[(known >= low) & (known <= high)]
        if len(inside) < len(known):
            beyond = len(known) - len(inside)
            axes.set_title(f"{plot_label(name)} ({beyond} beyond)", fontsize="medium")
        share = len(inside) / len(known)  # so that the histogram is a density of all returns
        axes.hist(
            inside,
            _BINS,
            weights=np.full(len(inside), share * _BINS / (len(inside) * np.ptp(inside))),
            color=color,
            alpha=0.45,
        )
        at = np.linspace(low, high, 300)
        axes.plot(at, stats.gaussian_kde(known)(at), color=color, linewidth=1.2, label="density")
        normal = stats.norm.pdf(at, mean, deviation)
        axes.plot(at, normal, color="black", linewidth=0.9, linestyle="--", label="normal")
    figure.supxlabel("return per bar, %", fontsize="small")
    handles, labels = grid[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper right", ncols=2, fontsize="small")
    return figure


def correlations(panel: PricePanel) -> Figure:
    """Heat map of the correlations of simple returns, the lower triangle, from -1 to 1."""
    count = len(panel.assets)
    names = list(map(plot_label, panel.assets))
    side = min(WIDTH, 3 + 0.42 * count) + 0.1 * max(0, max(map(len, names)) - 10)
    figure = new_figure((side + 0.8, side), DOTS_PER_INCH)
    axes = figure.subplots()
    matrix = statistics.correlation(statistics.simple_returns(panel.close))
    hidden = np.triu(np.ones((count, count), bool), 1)
    shown = np.where(hidden, np.nan, matrix)
    image = axes.imshow(shown, cmap="RdYlGn", vmin=-1, vmax=1)
    small = "small" if count <= 12 else "x-small"
    axes.set_xticks(range(count), names, rotation=90, fontsize=small)
    axes.set_yticks(range(count), names, fontsize=small)
    axes.spines[:].set_visible(False)
    if count <= _VALUES_UP_TO:
        for i, j in np.argwhere(np.isfinite(shown)):
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": "x-small"}
            color = "white" if abs(shown[i, j]) > _DARK else "black"
            axes.text(j, i, f"{shown[i, j]:.2f}", color=color, **style)
    figure.colorbar(image, ax=axes, shrink=0.8)
    axes.set_title("Correlation of returns")
    return figure
