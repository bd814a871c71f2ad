"""Pictures of risk over time, of one asset's indicators, and of risk against return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from portfolio_env.data import statistics
from portfolio_env.data.exploration_plots import WIDTH, palette, panels_grid
from portfolio_env.evaluation.plots import DOTS_PER_INCH, date_axis
from portfolio_env.panel import FloatArray, PricePanel
from portfolio_env.rendering import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WINDOW = 30  # bars of rolling statistics
SHOWN = 365  # bars of the picture of indicators
_THRESHOLDS = (50, 100)  # % of yearly volatility


def rolling_correlation(panel: PricePanel) -> Figure:
    """Correlation over the last 30 bars with the first asset, one picture per other asset."""
    returns = statistics.simple_returns(panel.close)
    values = statistics.rolling_correlation(returns, 0, WINDOW)[:, 1:]
    figure, grid = _lines(panel.timestamps, values, panel.assets[1:], palette(panel.assets)[1:])
    for axes in grid:
        for level, style in ((0.0, "-"), (0.5, "--"), (-0.5, "--")):
            axes.axhline(level, color="black", linewidth=0.7, linestyle=style)
        axes.set_ylim(-1.05, 1.05)
    figure.suptitle(f"Correlation with {panel.assets[0]} over {WINDOW} bars", fontsize="medium")
    return figure


def rolling_volatility(panel: PricePanel) -> Figure:
    """Yearly volatility of the last 30 bars, with lines at 50 and 100 % where they are in range."""
    returns = statistics.simple_returns(panel.close)
    values = 100 * statistics.rolling_volatility(returns, panel.periods_per_year, WINDOW)
    figure, grid = _lines(panel.timestamps, values, panel.assets, palette(panel.assets))
    top = float(np.nanquantile(values, 0.999)) if np.isfinite(values).any() else 1.0
    for axes in grid:
        for level in _THRESHOLDS:
            if level <= 1.1 * top:
                axes.axhline(level, color="#d62728", linewidth=0.7, linestyle="--")
        axes.set_ylim(0, 1.1 * top or 1)
    title = f"Volatility over {WINDOW} bars, % per year"
    figure.suptitle(title, fontsize="medium")
    return figure


def _lines(
    times: Any, values: FloatArray, names: tuple[str, ...], colors: list[str]
) -> tuple[Figure, list[Axes]]:
    figure, grid = panels_grid(len(names), 1.9, sharex=True, sharey=True)
    for axes, name, line, color in zip(grid, names, values.T, colors, strict=True):
        axes.plot(times, line, color=color, linewidth=0.8)
        axes.set_title(name, fontsize="medium")
        date_axis(axes)
        axes.tick_params(labelsize="small", labelbottom=True)
    return figure, grid


def indicators(panel: PricePanel, asset: int = 0) -> Figure:
    """Bollinger bands, RSI, MACD and volume of one asset over its last 365 bars.

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
    name = panel.assets[asset]
    grid[0].set(title=f"{name}, last {len(times)} bars", ylabel="price")
    grid[1].set(ylabel="RSI 14", ylim=(0, 100))
    grid[2].set_ylabel("MACD")
    for axes in grid:
        date_axis(axes)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="upper left", fontsize="x-small", ncols=3)
    return figure


def _bars(axes: Axes, times: Any, heights: FloatArray, label: str) -> None:
    """Bars from 0, as an area: far quicker to draw than so many bars."""
    axes.fill_between(times, heights, 0, step="mid", color="gray", alpha=0.5, label=label)


def risk_return(table: pd.DataFrame, colors: list[str]) -> Figure:
    """Yearly mean return against yearly volatility, one dot per row of `asset_statistics`."""
    figure = new_figure((WIDTH, 6), DOTS_PER_INCH)
    axes = figure.subplots()
    risk, mean = 100 * table["volatility"].to_numpy(), 100 * table["mean"].to_numpy()
    axes.scatter(risk, mean, c=colors, s=40, zorder=3)
    axes.axhline(0, color="black", linewidth=0.7)
    axes.set(xlabel="volatility, % per year", ylabel="mean simple return, % per year")
    axes.set_title("Risk and return")
    axes.margins(0.08)
    axes.grid(alpha=0.3)
    _label(figure, axes, np.column_stack([risk, mean]), [str(name) for name in table.index])
    return figure


def _label(figure: Figure, axes: Axes, points: FloatArray, names: list[str]) -> None:
    """Write a name beside each point, on the side where it covers the fewest others."""
    figure.draw_without_rendering()
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in axes.transData.transform(points)]
    sides = [(7, 0, "left", "center"), (-7, 0, "right", "center"), (0, 7, "center", "bottom"),
             (0, -7, "center", "top"), (7, 9, "left", "bottom"), (7, -9, "left", "top"),
             (-7, 9, "right", "bottom"), (-7, -9, "right", "top")]  # fmt: skip
    for name, point in zip(names, points, strict=True):
        if not np.isfinite(point).all():
            continue
        best: tuple[int, Any, Any] | None = None
        for dx, dy, across, along in sides:
            text = axes.annotate(
                name, point, (dx, dy), textcoords="offset points", ha=across, va=along, size=8
            )
            box = text.get_window_extent().extents
            hits = sum(
                box[0] < x1 and x0 < box[2] and box[1] < y1 and y0 < box[3]
                for x0, y0, x1, y1 in taken
            )
            if best is None or hits < best[0]:
                if best is not None:
                    best[1].remove()
                best = (hits, text, box)
            else:
                text.remove()
            if best[0] == 0:
                break
        if best is not None:
            taken.append(tuple(best[2]))
