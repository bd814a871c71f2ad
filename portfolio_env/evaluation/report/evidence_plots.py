"""Plots of the strength of evidence: by sub-period, around events, by lag, by chance."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from portfolio_env.evaluation.report.plots import OTHERS, Style
from portfolio_env.plotting.figures import DOTS_PER_INCH, WIDTH, new_figure, plot_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZES = 2  # standard errors on either side of a path
_SATURATED = 75  # percentile of the differences at which colours end: one outlier greys all else
_WIDEST = 14  # columns that fit with numbers


def difference_map(differences: pd.DataFrame, title: str) -> "Figure":
    """Plot differences by strategy and sub-period, in colours and numbers: blue is ahead.

    Args:
        differences: (strategies, sub-periods) of log growth; NaN is left blank.
        title: Title of the plot.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    shown = 100 * differences.to_numpy(np.float64)
    figure = new_figure((WIDTH, 1.6 + 0.27 * len(shown)), DOTS_PER_INCH)
    from matplotlib.colors import Normalize

    axes = figure.subplots()
    sizes = np.abs(shown[np.isfinite(shown)])
    reach = float(np.percentile(sizes, _SATURATED)) if len(sizes) else 0.0
    norm = Normalize(-(reach or 1.0), reach or 1.0)
    image = axes.imshow(shown, cmap="RdBu", norm=norm, aspect="auto", interpolation="nearest")
    axes.set_xticks(
        range(shown.shape[1]), list(map(plot_label, differences.columns)), fontsize="small"
    )
    if max(map(len, differences.columns)) * shown.shape[1] > 90:
        axes.tick_params(axis="x", rotation=30)
    axes.set_yticks(range(len(shown)), list(map(plot_label, differences.index)), fontsize="small")
    if shown.shape[1] <= _WIDEST:
        for row, column in np.argwhere(np.isfinite(shown)):
            value = shown[row, column]
            color = "white" if abs(norm(value) - 0.5) > 0.35 else "black"
            number = f"{round(value, 1) + 0.0:+.1f}"  # no negative zero
            axes.text(column, row, number, ha="center", va="center", fontsize=8, color=color)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    figure.colorbar(image, ax=axes, extend="both", label="log growth, %")
    return figure


def event_paths(path: pd.DataFrame) -> "Figure":
    """Plot cumulative abnormal return around events, a line per type with two standard errors.

    Args:
        path: ``EventStudy.path``.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    figure = new_figure((WIDTH, 4.2), DOTS_PER_INCH)
    axes = figure.subplots()
    for kind, rows in path.groupby(level="type"):
        offsets = rows.index.get_level_values("offset")
        middle, error = 100 * rows["cumulative"], 100 * _SIZES * rows["cumulative_error"]
        (line,) = axes.plot(offsets, middle, marker=".", label=plot_label(str(kind)))
        axes.fill_between(
            offsets, middle - error, middle + error, color=line.get_color(), alpha=0.1
        )
    axes.axhline(0, color="black", linewidth=0.7)
    axes.axvline(0, color="gray", linewidth=0.8, linestyle=":")
    axes.set(
        title="Abnormal return around events",
        xlabel="bars from the first that knows of the event",
        ylabel="cumulative abnormal return, %",
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def edge_by_lag(edges: Mapping[str, pd.DataFrame], drawn: Mapping[str, Style]) -> "Figure":
    """Plot the edge over equal weight that remains where weights are held with a lag.

    Args:
        edges: Results of ``signal_decay`` by strategy.
        drawn: Styles of the accounts, see ``styles``.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    figure = new_figure((WIDTH, 4.2), DOTS_PER_INCH)
    axes = figure.subplots()
    others = [name for name in edges if drawn[name].color == OTHERS]
    for name, table in edges.items():
        line = drawn[name].line()
        if name in others:  # the remaining lines of the background
            line["label"] = f"{len(others)} others" if name == others[0] else None
        axes.plot(table.index, 100 * table["edge"], marker=".", **line)
    axes.axhline(0, color="black", linewidth=0.7)
    axes.set(
        title="Signal decay",
        xlabel="bars of delay",
        ylabel="edge before costs, % of log growth a year",
        xticks=next(iter(edges.values())).index,
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def overfitting_places(logits: NDArray[np.float64], strategies: int) -> "Figure":
    """Plot the out-of-sample rank of the strategy that was best in sample.

    Args:
        logits: ``Overfitting.logits``.
        strategies: Number of ranked strategies.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    figure = new_figure((WIDTH, 3.2), DOTS_PER_INCH)
    axes = figure.subplots()
    places = (strategies + 1) / (1 + np.exp(logits))
    share = np.full(len(places), 100 / len(places))
    bins = np.arange(0.5, strategies + 1)
    axes.hist(places, bins=bins.tolist(), weights=share, color="#1f77b4", edgecolor="white")
    axes.axvline((strategies + 1) / 2, color="black", linewidth=0.9, linestyle="--", label="median")
    axes.set(
        title="Place out of sample of the strategy that was best in sample",
        xlabel=f"place among {strategies}, 1 is the best",
        ylabel="splits, %",
        xlim=(0.5, strategies + 0.5),
        xticks=range(1, strategies + 1),
    )
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize="small")
    return figure
