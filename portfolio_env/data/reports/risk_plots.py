"""Plots of risk over time, of one asset's indicators, and of risk against return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from portfolio_env.data.reports import statistics
from portfolio_env.market.panel import FloatArray, PricePanel
from portfolio_env.plotting.figures import (
    DOTS_PER_INCH,
    WIDTH,
    date_axis,
    new_figure,
    panels_grid,
    plot_label,
)
from portfolio_env.plotting.labels import label_points
from portfolio_env.plotting.returns import palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WINDOW = 30  # bars of rolling statistics
SHOWN = 365  # bars of the plot of indicators
_THRESHOLDS = (50, 100)  # % of yearly volatility
_MANY = 6_000  # bars from which lines are drawn thinner


def rolling_correlation(panel: PricePanel) -> Figure:
    """Plot the correlation over the last 30 bars with the first asset, one plot per other asset."""
    returns = statistics.simple_returns(panel.close)
    values = statistics.rolling_correlation(returns, 0, WINDOW)[:, 1:]
    names, colors = panel.assets[1:], palette(panel.assets)[1:]
    figure, grid = _lines(panel.timestamps, values, names, colors)
    for axes in grid:
        for level, style in ((0.0, "-"), (0.5, "--"), (-0.5, "--")):
            axes.axhline(level, color="black", linewidth=0.7, linestyle=style)
        axes.set_ylim(-1.05, 1.05)
    figure.suptitle(
        f"Correlation with {plot_label(panel.assets[0])} over {WINDOW} bars", fontsize="medium"
    )
    return figure


def rolling_volatility(panel: PricePanel) -> Figure:
    """Plot yearly volatility of the last 30 bars, with lines at 50 and 100 % where in range."""
    returns = statistics.simple_returns(panel.close)
    values = 100 * statistics.rolling_volatility(returns, panel.bars_per_year(), WINDOW)
    figure, grid = _lines(panel.timestamps, values, panel.assets, palette(panel.assets))
    for axes, name, line in zip(grid, panel.assets, values.T, strict=True):
        known = line[np.isfinite(line)]
        if len(known):
            text = f"{plot_label(name)}: mean {known.mean():.0f}, max {known.max():.0f}"
            axes.set_title(text, fontsize="medium")
        top = 1.1 * known.max(initial=0)
        for level in _THRESHOLDS:
            if level <= top:
                axes.axhline(level, color="#d62728", linewidth=0.7, linestyle="--")
        axes.set_ylim(0, top or 1)
    title = f"Volatility over {WINDOW} bars, % per year"
    figure.suptitle(title, fontsize="medium")
    return figure


def _lines(
    times: Any, values: FloatArray, names: tuple[str, ...], colors: list[str]
) -> tuple[Figure, list[Axes]]:
    figure, grid = panels_grid(len(names), 1.9, sharex=True)
    for axes, name, line, color in zip(grid, names, values.T, colors, strict=True):
        axes.plot(times, line, color=color, linewidth=0.8 if len(times) < _MANY else 0.3)
        axes.set_title(plot_label(name), fontsize="medium")
        date_axis(axes, few=True)
        axes.tick_params(labelsize="small", labelbottom=True)
        axes.xaxis.get_offset_text().set_fontsize("x-small")
    return figure, grid


def indicators(panel: PricePanel, asset: int = 0) -> Figure:
    """Plot Bollinger bands, RSI, MACD and volume of one asset over its last 365 bars.

    Without volume in the panel its picture is left out.
    """
    own = np.flatnonzero(np.isfinite(panel.close[:, asset]))
    close, shown = panel.close[own, asset], slice(-SHOWN, None)
    times = panel.timestamps[own][shown]
    figure = new_figure((WIDTH, 9 if panel.volume is not None else 7.5), DOTS_PER_INCH)
    heights = (3, 1.4, 1.4, 1.4)[: 4 if panel.volume is not None else 3]
    grid = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)

    low, middle, high = (band[shown] for band in statistics.bollinger(close))
    grid[0].fill_between(times, low, high, color="#1f77b4", alpha=0.15, label="Bollinger 20, 2")
    grid[0].plot(times, middle, color="#1f77b4", linewidth=0.8, label="mean of 20")
    grid[0].plot(times, close[shown], color="black", linewidth=0.9, label="close")
    grid[1].plot(times, statistics.rsi(close)[shown], color="#9467bd", linewidth=0.9)
    for level in (30, 70):
        grid[1].axhline(level, color="#d62728", linewidth=0.7, linestyle="--")
    line, average = (values[shown] for values in statistics.macd(close))
    grid[2].plot(times, line, color="#1f77b4", linewidth=0.9, label="MACD 12, 26")
    grid[2].plot(times, average, color="#ff7f0e", linewidth=0.9, label="mean of 9")
    _bars(grid[2], times, line - average, "histogram")
    if panel.volume is not None:
        volume = panel.volume[own, asset]
        mean = pd.Series(volume).rolling(20).mean().to_numpy()
        _bars(grid[3], times, volume[shown], "volume")
        grid[3].plot(times, mean[shown], color="black", linewidth=0.9, label="mean of 20")
        grid[3].set_ylabel("volume")
    name = plot_label(panel.assets[asset])
    grid[0].set(title=f"{name}, last {len(times)} bars", ylabel="price")
    grid[1].set(ylabel="RSI 14", ylim=(0, 100))
    grid[2].set_ylabel("MACD")
    for axes in grid:
        date_axis(axes)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="best", fontsize="x-small", ncols=3)
    return figure


def _bars(axes: Axes, times: Any, heights: FloatArray, label: str) -> None:
    """Draw bars from 0 as an area: far quicker than so many bars."""
    axes.fill_between(times, heights, 0, step="mid", color="gray", alpha=0.5, label=label)


def risk_return(table: pd.DataFrame, colors: list[str]) -> Figure:
    """Plot yearly mean return against yearly volatility, a dot per row of ``asset_statistics``."""
    figure = new_figure((WIDTH, 6), DOTS_PER_INCH)
    axes = figure.subplots()
    risk, mean = 100 * table["volatility"].to_numpy(), 100 * table["mean"].to_numpy()
    axes.scatter(risk, mean, c=colors, s=40, zorder=3)
    axes.axhline(0, color="black", linewidth=0.7)
    axes.set(xlabel="volatility, % per year", ylabel="mean simple return, % per year")
    axes.set_title("Risk and return")
    axes.margins(x=0.12, y=0.1)
    axes.grid(alpha=0.3)
    label_points(figure, axes, np.column_stack([risk, mean]), [str(name) for name in table.index])
    return figure
