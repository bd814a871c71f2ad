"""Plots of single accounts: value with a bootstrap band, rolling measures, allocations."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.evaluation.diagnostics.decay import rolling_sharpe
from portfolio_env.evaluation.report.plots import OTHERS, THIN, Bands, Style
from portfolio_env.plotting.figures import (
    DOTS_PER_INCH,
    WIDTH,
    date_axis,
    new_figure,
    plot_label,
    value_axis,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3  # small plots side by side
MAX_NUMBERS = 26  # largest number of assets whose weights are printed
MAX_ASSETS = 40  # columns of a heat map whose names can be read; the other assets share one more
SLICES = 10  # slices of a donut; the smaller holdings share one more


def growth_with_bands(
    results: Mapping[str, BacktestResult],
    bands: Bands,
    benchmark: str,
    drawn: Mapping[str, Style],
) -> "Figure":
    """Plot one small chart per account: its value, its band, and the benchmark in grey.

    Args:
        results: Backtests over the same dates, by the name to show.
        bands: Bands of every account, see ``growth_bands``.
        benchmark: Name of the account that is drawn with every other.
        drawn: Styles of the accounts, see ``styles``.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    rows = math.ceil(len(results) / COLUMNS)
    figure = new_figure((WIDTH, 2.3 * rows + 0.5), DOTS_PER_INCH)
    grid = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True).ravel()
    for spare in grid[len(results) :]:
        spare.remove()
    other = results[benchmark].values / results[benchmark].values[0]
    for axes, (name, result) in zip(grid, results.items(), strict=False):
        low, high, color = bands.low[name], bands.high[name], drawn[name].distinct
        axes.fill_between(
            result.timestamps[bands.at], low, high, color=color, alpha=0.18, linewidth=0
        )
        axes.plot(results[benchmark].timestamps, other, color="#6e7781", linewidth=0.8)
        own = result.values / result.values[0]
        axes.plot(result.timestamps, own, color=color, linewidth=1.1)
        axes.set_title(plot_label(name), fontsize="medium")
        value_axis(axes, np.concatenate([low, high, own, other]))
        date_axis(axes, few=True)
        axes.tick_params(labelsize="small", labelbottom=True)
        axes.xaxis.get_offset_text().set_visible(False)
    figure.supylabel("value / initial value", fontsize="small")
    return figure


def rolling_measures(
    results: Mapping[str, BacktestResult], drawn: Mapping[str, Style], window: int
) -> "Figure":
    """Plot the yearly Sharpe ratio and volatility of the last so many returns.

    Args:
        results: Backtests over the same dates, by the name to show.
        drawn: Styles of the accounts, see ``styles``.
        window: Periods, at least 2 and at most as many as there are.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    figure = new_figure((WIDTH, 6), DOTS_PER_INCH)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for name, result in results.items():
        year, times = result.periods_per_year, result.timestamps[window:]
        line = drawn[name].line(THIN)
        upper.plot(times, rolling_sharpe(result.excess_returns, year, window), **line)
        deviation = pd.Series(result.returns).rolling(window).std().to_numpy()[window - 1 :]
        lower.plot(times, 100 * deviation * math.sqrt(year), **line)
    upper.axhline(0, color="gray", linewidth=0.8)
    upper.set(title=f"Over the last {window} periods", ylabel="Sharpe ratio, per year")
    lower.set_ylabel("volatility, % per year")
    lower.set_ylim(bottom=0)
    for axes in (upper, lower):
        date_axis(axes)
    figure.legend(*upper.get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    return figure


def average_weights(results: Mapping[str, BacktestResult]) -> "Figure":
    """Plot the mean weight right after trading of every slot in every account, as a heat map.

    Of more than 40 assets, those of the largest weight in any account have columns of their own,
    in the market's order; the last column is the sum of the others.

    Args:
        results: Backtests of the same assets, by the name to show.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    names = ["cash", *map(plot_label, next(iter(results.values())).assets)]
    weights = 100 * np.array([result.held.mean(axis=0) for result in results.values()])
    if len(names) > MAX_ASSETS + 1:
        by_size = np.argsort(-np.abs(weights[:, 1:]).max(axis=0), kind="stable") + 1
        kept, rest = np.r_[0, np.sort(by_size[:MAX_ASSETS])], by_size[MAX_ASSETS:]
        names = [*(names[slot] for slot in kept), f"{len(rest)} others"]
        weights = np.column_stack([weights[:, kept], weights[:, rest].sum(axis=1)])
    height = 1.1 + 0.08 * max(map(len, names)) + 0.26 * len(results)
    figure = new_figure((WIDTH, height), DOTS_PER_INCH)
    axes = figure.subplots()
    reach = max(np.abs(weights).max(), 1e-9)
    signed = weights.min() < -1e-9
    from matplotlib.colors import Normalize, PowerNorm

    # A root, so that small weights differ beside one that holds everything.
    norm = Normalize(-reach, reach) if signed else PowerNorm(0.5, 0, reach)
    image = axes.imshow(
        weights, cmap="RdBu" if signed else "Blues", norm=norm, aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize="small")
    axes.set_yticks(range(len(results)), list(map(plot_label, results)), fontsize="small")
    if len(names) <= MAX_NUMBERS:
        for row, column in np.argwhere(np.abs(weights) >= 0.5):
            value = weights[row, column]
            shade = norm(value)
            color = "white" if shade > 0.7 or (signed and shade < 0.2) else "black"
            axes.text(
                column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=color
            )
    axes.spines[:].set_visible(False)
    axes.set_title("Average weight after trading, %")
    figure.colorbar(image, ax=axes)
    return figure


def allocation_donut(orders: pd.DataFrame, capital: float, title: str) -> "Figure":
    """Plot orders of a capital as a ring, the amount in its middle; small holdings share a slice.

    Args:
        orders: Table of ``live.Orders``; long positions only.
        capital: The amount.
        title: Title of the picture.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    figure = new_figure((WIDTH, 4), DOTS_PER_INCH)
    from matplotlib import color_sequences

    axes = figure.subplots()
    *money, (_, cash) = [(str(name), float(m)) for name, m in orders["money_after"].items()]
    largest = sorted((own for own in money if own[1] > 0), key=lambda own: -own[1])
    slices = [(plot_label(name), part) for name, part in largest[:SLICES]]
    if rest := largest[SLICES:]:
        slices.append((f"{len(rest)} others", sum(part for _, part in rest)))
    slices.append(("cash", max(cash, 0.0)))
    colors = [*color_sequences["tab20"][: len(slices) - 1], "whitesmoke"]
    labels = [f"{name}  {100 * part / capital:.1f} %" for name, part in slices]
    wedges, *_ = axes.pie(
        [part for _, part in slices], colors=colors, startangle=90, counterclock=False,
        wedgeprops={"width": 0.35, "edgecolor": OTHERS, "linewidth": 0.6},
    )  # fmt: skip
    axes.text(0, 0, f"{capital:,.0f}", ha="center", va="center", fontsize="x-large")
    axes.set_title(plot_label(title))
    figure.legend(wedges, labels, loc="outside right center", fontsize="small")
    return figure
