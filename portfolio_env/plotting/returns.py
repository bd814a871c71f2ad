"""Plots of returns, of assets or of accounts: colours, distributions, correlations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import PortfolioError
from portfolio_env.plotting.figures import (
    DOTS_PER_INCH,
    WIDTH,
    new_figure,
    panels_grid,
    plot_label,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
_BINS, _REACH = 50, 5  # bins of histograms; deviations from the mean that they show
_DARK = 0.8  # correlations beyond have dark cells
_VALUES_UP_TO = 20  # largest number of assets whose correlations are printed
_MAX_NAMES = 60  # names beside one another that can be read


def palette(assets: Sequence[str]) -> list[str]:
    """Return a colour per asset; some have one that people know."""
    others = cycle(_OTHERS)
    return [
        next((color for name, color in _KNOWN.items() if asset.startswith(name)), "")
        or next(others)
        for asset in assets
    ]


def distributions(
    names: Sequence[str], returns: NDArray[np.float64], colors: Sequence[str] | None = None
) -> Figure:
    """Plot histogram, density estimate and normal density of simple returns, one plot per name.

    Shown are the returns within 5 standard deviations of the mean; titles count the others.

    Args:
        names: N names, of assets or accounts.
        returns: (T, N) simple returns; NaN where there is none.
        colors: Colour of each; None takes those of assets.

    Raises:
        PortfolioError: If matplotlib or scipy is not installed.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise PortfolioError("this needs scipy; pip install scipy") from error
    figure, grid = panels_grid(len(names))
    own = palette(names) if colors is None else colors
    for axes, name, column, color in zip(grid, names, 100 * returns.T, own, strict=True):
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


def correlations(names: Sequence[str], matrix: NDArray[np.float64]) -> Figure:
    """Plot the correlations of returns as a heat map, the lower triangle, from -1 to 1.

    Of more than 60, every second, third, ... is named, so that the names can be read.

    Args:
        names: N names, of assets or accounts.
        matrix: (N, N) correlations; NaN leaves a cell blank.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    count = len(names)
    labels = list(map(plot_label, names))
    side = min(WIDTH, 3 + 0.42 * count) + 0.1 * max(0, max(map(len, labels)) - 10)
    figure = new_figure((side + 0.8, side), DOTS_PER_INCH)
    axes = figure.subplots()
    hidden = np.triu(np.ones((count, count), bool), 1)
    shown = np.where(hidden, np.nan, matrix)
    image = axes.imshow(shown, cmap="RdYlGn", vmin=-1, vmax=1, interpolation="nearest")
    small = "small" if count <= 12 else "x-small"
    named = range(0, count, math.ceil(count / _MAX_NAMES))
    axes.set_xticks(named, labels[:: named.step], rotation=90, fontsize=small)
    axes.set_yticks(named, labels[:: named.step], fontsize=small)
    axes.spines[:].set_visible(False)
    if count <= _VALUES_UP_TO:
        for i, j in np.argwhere(np.isfinite(shown)):
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": "x-small"}
            color = "white" if abs(shown[i, j]) > _DARK else "black"
            axes.text(j, i, f"{shown[i, j]:.2f}", color=color, **style)
    figure.colorbar(image, ax=axes, shrink=0.8)
    axes.set_title("Correlation of returns")
    return figure
