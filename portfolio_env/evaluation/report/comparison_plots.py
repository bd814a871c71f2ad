"""Plots that compare strategies: differences, risk and return, costs."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.evaluation.comparison import DIFFERENCES, Comparison, Judge
from portfolio_env.evaluation.report.plots import OTHERS, Style
from portfolio_env.evaluation.task import Hindsight
from portfolio_env.market.panel import PricePanel
from portfolio_env.plotting.figures import DOTS_PER_INCH, WIDTH, new_figure, plot_label
from portfolio_env.plotting.labels import label_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def differences(comparison: Comparison, drawn: Mapping[str, Style]) -> "Figure":
    """Plot growth and Sharpe ratios less those of the benchmark, the best at the top.

    Args:
        comparison: Result of ``compare``.
        drawn: Styles of the accounts, see ``styles``.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    solvent = comparison.solvent
    names = [n for n in comparison.unique if n in solvent and n != comparison.benchmark]
    figure = new_figure((WIDTH, 1.4 + 0.27 * len(names)), DOTS_PER_INCH)
    left, right = figure.subplots(1, 2, sharey=True)
    colors = [drawn[name].distinct for name in names]
    _draw_differences(left, 100 * _bounds(comparison, names, "growth"), colors)
    _draw_differences(right, _bounds(comparison, names, "sharpe"), colors)
    left.set_yticks(range(len(names)), list(map(plot_label, names)), fontsize="small")
    left.set_ylim(max(len(names), 1) - 0.5, -0.5)  # the first at the top
    other = plot_label(comparison.benchmark.replace("_", " "))
    left.set_title(f"Growth less that of {other}, % a year", fontsize="medium")
    right.set_title(f"Sharpe ratio less that of {other}", fontsize="medium")
    return figure


def _bounds(comparison: Comparison, names: Sequence[str], judge: Judge) -> NDArray[np.float64]:
    """Return (S, 3) differences with their bounds."""
    columns = [f"{DIFFERENCES[judge]}{part}" for part in ("", "_low", "_high")]
    return comparison.table.loc[list(names), columns].to_numpy(float)


def _draw_differences(axes: "Axes", rows: NDArray[np.float64], colors: Sequence[str]) -> None:
    for place, ((middle, low, high), color) in enumerate(zip(rows, colors, strict=True)):
        inside = color if low > 0 or high < 0 else "white"
        axes.plot([low, high], [place, place], color=color, linewidth=1.6)
        axes.plot(middle, place, marker="o", markersize=6, color=color, markerfacecolor=inside)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)


def risk_return(
    results: Mapping[str, BacktestResult],
    drawn: Mapping[str, Style],
    panel: PricePanel,
    hindsight: Hindsight | None = None,
) -> "Figure":
    """Plot yearly mean return against yearly volatility: strategies, assets, and the frontier.

    Args:
        results: Backtests over the same dates, by the name to show.
        drawn: Styles of the accounts, see ``styles``.
        panel: The bars of these dates; assets without a gap are shown.
        hindsight: Frontier and capital market line of the assets; a star marks the largest Sharpe
            ratio.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    figure = new_figure((WIDTH, 6.5), DOTS_PER_INCH)
    axes = figure.subplots()
    known = np.isfinite(panel.close).all(axis=0)
    returns = panel.close[1:, known] / panel.close[:-1, known] - 1
    assets = _risk_return(returns, panel.bars_per_year())
    axes.scatter(assets[:, 0], assets[:, 1], s=14, color=OTHERS, label="assets", zorder=1)
    if hindsight is not None:
        line: dict[str, Any] = {"color": "#57606a", "linewidth": 1.2}
        axes.plot(*(100 * hindsight.frontier.T), label="efficient frontier, in hindsight", **line)
        if hindsight.market_line is not None:
            ends = 100 * hindsight.market_line.T
            axes.plot(*ends, label="capital market line, in hindsight", linestyle="--", **line)
        if hindsight.tangency is not None:
            star: dict[str, Any] = {"marker": "*", "s": 150, "color": "#bf8700", "zorder": 3}
            axes.scatter(*(100 * hindsight.tangency), label="largest Sharpe ratio", **star)
    names = list(results)
    year = next(iter(results.values())).periods_per_year
    points = np.vstack([_risk_return(results[name].returns[:, None], year) for name in names])
    for name, point in zip(names, points, strict=True):
        color = drawn[name].distinct
        axes.scatter(point[0], point[1], s=44, color=color, edgecolor="white", zorder=4)
    axes.axhline(0, color="black", linewidth=0.7)
    axes.set(xlabel="volatility, % per year", ylabel="mean simple return, % per year")
    axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
    if hindsight is not None:  # the market line continues beyond the visible range
        highest = max(assets[:, 1].max(), points[:, 1].max(), 100 * hindsight.frontier[:, 1].max())
        axes.set_ylim(top=highest + 0.06 * (highest - axes.get_ylim()[0]))
    axes.set_title("Risk and return")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="best")
    label_points(figure, axes, points, names)
    return figure


def _risk_return(returns: NDArray[np.float64], year: float) -> NDArray[np.float64]:
    """Return (S, 2) yearly volatility and mean of simple returns (K, S), in %."""
    deviation = returns.std(axis=0, ddof=1) * math.sqrt(year)
    return 100 * np.column_stack([deviation, returns.mean(axis=0) * year])


def growth_by_cost(growth: pd.DataFrame, drawn: Mapping[str, Style]) -> "Figure":
    """Plot yearly growth after costs against the commission.

    Args:
        growth: One row per strategy, one column per commission in basis points.
        drawn: Styles of the accounts, see ``styles``.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    figure = new_figure((WIDTH, 4.5), DOTS_PER_INCH)
    axes = figure.subplots()
    for name, row in growth.iterrows():
        axes.plot(growth.columns, 100 * row, marker=".", **drawn[str(name)].line())
    axes.set(xlabel="commission, basis points", ylabel="log growth after costs, % a year")
    axes.set_title("What costs leave")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure
