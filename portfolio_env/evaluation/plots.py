"""Plots of backtests as matplotlib figures; matplotlib is imported when one is drawn."""

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from portfolio_env.evaluation import metrics
from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.files import replacing
from portfolio_env.rendering import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 120
MAX_LEGEND = 24  # more names than this are unreadable beside a plot
LOG_FROM = 4  # a logarithmic axis from this ratio of highest to lowest value


def equity_curves(results: Mapping[str, BacktestResult]) -> "Figure":
    """Value of every account, starting at 1, on a logarithmic axis where the values differ much.

    Args:
        results: Backtests over the same dates, by the name to show.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    figure = new_figure((9, 4.5), DOTS_PER_INCH)
    from matplotlib.ticker import LogLocator

    axes = figure.subplots()
    growth = {name: result.values / result.values[0] for name, result in results.items()}
    for name, values in growth.items():
        axes.plot(results[name].timestamps, values, label=name, linewidth=1.2)
    axes.axhline(1, color="gray", linewidth=0.8)
    axes.set(title="Account value", ylabel="value / initial value")
    low = min(values.min() for values in growth.values())
    if 0 < low < max(values.max() for values in growth.values()) / LOG_FROM:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.yaxis.set_minor_formatter("")
    axes.yaxis.set_major_formatter("{x:g}")
    date_axis(axes)
    axes.legend()
    return figure


def drawdown_curves(results: Mapping[str, BacktestResult]) -> "Figure":
    """Fraction each account has lost since its highest value.

    Args:
        results: Backtests over the same dates, by the name to show.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    figure = new_figure((9, 3.5), DOTS_PER_INCH)
    axes = figure.subplots()
    for name, result in results.items():
        losses = -100 * metrics.drawdowns(result.values)
        (line,) = axes.plot(result.timestamps, losses, label=name, linewidth=1)
        axes.fill_between(result.timestamps, losses, 0, color=line.get_color(), alpha=0.08)
    axes.set(title="Drawdown", ylabel="below the highest value, %")
    axes.set_ylim(top=0)
    date_axis(axes)
    axes.legend()
    return figure


def weights_area(result: BacktestResult, title: str = "Weights") -> "Figure":
    """Weights right after trading, stacked over time; short positions and debt hang below zero.

    Args:
        result: One backtest.
        title: Title of the plot.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    figure = new_figure((9, 4.5), DOTS_PER_INCH)
    from matplotlib import color_sequences

    axes = figure.subplots()
    palette = cycle(color_sequences["tab20"])
    colors = ["whitesmoke", *(next(palette) for _ in result.assets)]
    dates = result.timestamps[:-1]
    long, short = np.maximum(result.held, 0).T, np.minimum(result.held, 0).T
    names = ["cash", *result.assets]
    axes.stackplot(dates, long, labels=names, colors=colors, step="post")
    if (short < 0).any():
        axes.stackplot(dates, short, colors=colors, step="post")
        axes.axhline(0, color="black", linewidth=0.8)
    axes.set(title=title, ylabel="weight after trading", xlim=(dates[0], dates[-1]))
    axes.margins(y=0)
    date_axis(axes)
    if len(names) <= MAX_LEGEND:
        figure.legend(loc="outside right upper", fontsize="small")
    return figure


def date_axis(axes: "Axes", *, few: bool = False) -> None:
    """Dates along the bottom, as short as they can be, and a light grid.

    Args:
        axes: What to give them.
        few: Three to eight dates, for a small picture; else as many as matplotlib thinks best.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    ticks = {"minticks": 3, "maxticks": 8} if few else {}
    locator = AutoDateLocator(**ticks)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.grid(alpha=0.3)


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write a figure as a picture, in one piece.

    Args:
        figure: The figure.
        path: Destination; the suffix names the format.
    """
    with replacing(path) as beside:
        figure.savefig(beside)
