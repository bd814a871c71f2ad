"""Plots of backtests as matplotlib figures; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env import metrics
from portfolio_env.evaluation.statistics.bootstrap import resampled
from portfolio_env.plotting.figures import (
    DOTS_PER_INCH,
    WIDTH,
    date_axis,
    new_figure,
    plot_label,
    value_axis,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from portfolio_env.evaluation.backtest import BacktestResult

MAX_LEGEND = 24  # more names than this are unreadable beside a plot
MAX_CURVES = 8  # more lines than this are indistinguishable
# The first six are of Okabe & Ito's palette, which the colour-blind tell apart.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#5b4bb7")
THIN = 0.6  # line width of volatile curves, as a fraction
OTHERS = "#b8bec5"  # lines in the background
ALONE = "#57606a"  # the same accounts where each has a picture or a dot of its own


@dataclass(frozen=True)
class Style:
    """Style of an account's line; one without a label is background to the others."""

    color: str = OTHERS
    linewidth: float = 0.7
    label: str | None = None
    zorder: float = 1.0

    @property
    def distinct(self) -> str:
        """Return the colour where the account does not stand behind others."""
        return ALONE if self.color == OTHERS else self.color

    def line(self, width: float = 1.0) -> dict[str, Any]:
        """Return keywords for ``Axes.plot``, the line as many times as wide."""
        shown = None if self.label is None else plot_label(self.label)
        return {**vars(self), "label": shown, "linewidth": width * self.linewidth}


def styles(
    names: Sequence[str], *, benchmark: str | None = None, agents: Collection[str] = ()
) -> dict[str, Style]:
    """Return the same line for the same account in every plot, by name.

    The benchmark is black and agents are drawn wider; beyond ``MAX_CURVES`` accounts the last are
    thin and grey.

    Args:
        names: Accounts, the most interesting first.
        benchmark: The one that the others are compared with.
        agents: Names of accounts that are always shown.
    """
    first = [*(n for n in names if n == benchmark), *(n for n in names if n in agents)]
    shown = [*first, *(n for n in names if n not in first)][:MAX_CURVES]
    colors = cycle(COLORS)
    found = {}
    for name in (name for name in names if name in shown):
        color = "black" if name == benchmark else next(colors)
        width, order = (1.8, 3) if name in first else (1.1, 2)
        found[name] = Style(color, width, label=name, zorder=order)
    others = [name for name in names if name not in shown]
    found |= {name: Style() for name in others}
    if others:
        found[others[0]] = Style(label=f"{len(others)} other{'s' * (len(others) > 1)}")
    return found


def equity_curves(
    results: Mapping[str, BacktestResult], drawn: Mapping[str, Style] | None = None
) -> Figure:
    """Plot the value of every account from 1, on a logarithmic axis where the values differ much.

    Args:
        results: Backtests over the same dates, by the name to show.
        drawn: Styles of the accounts, see ``styles``.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    figure = new_figure((WIDTH, 4.5), DOTS_PER_INCH)
    _draw_values(figure.subplots(), results, drawn or styles(list(results)))
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def _draw_values(
    axes: Axes, results: Mapping[str, BacktestResult], drawn: Mapping[str, Style]
) -> None:
    growth = {name: result.values / result.values[0] for name, result in results.items()}
    for name, values in growth.items():
        axes.plot(results[name].timestamps, values, **drawn[name].line())
    axes.axhline(1, color="gray", linewidth=0.8)
    axes.set(title="Account value", ylabel="value / initial value")
    value_axis(axes, np.concatenate([growth[n] for n, s in drawn.items() if s.label == n]))
    date_axis(axes)


def drawdown_curves(
    results: Mapping[str, BacktestResult], drawn: Mapping[str, Style] | None = None
) -> Figure:
    """Plot the fraction each account has lost since its highest value.

    Args:
        results: Backtests over the same dates, by the name to show.
        drawn: Styles of the accounts, see ``styles``.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    figure = new_figure((WIDTH, 3.8), DOTS_PER_INCH)
    _draw_drawdowns(figure.subplots(), results, drawn or styles(list(results)))
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def _draw_drawdowns(
    axes: Axes, results: Mapping[str, BacktestResult], drawn: Mapping[str, Style]
) -> None:
    deepest = 0.0
    for name, result in results.items():
        losses, style = -100 * metrics.drawdowns(result.values), drawn[name]
        axes.plot(result.timestamps, losses, **style.line(THIN))
        if style.label == name:
            axes.fill_between(result.timestamps, losses, 0, color=style.color, alpha=0.05)
            deepest = min(deepest, losses.min())
    axes.set(title="Drawdown", ylabel="below the highest value, %")
    axes.set_ylim(1.05 * deepest or -1, 0)
    date_axis(axes)


def comparison_figure(
    results: Mapping[str, BacktestResult], drawn: Mapping[str, Style] | None = None
) -> Figure:
    """Plot the values of accounts and, below, their drawdowns.

    Args:
        results: Backtests over the same dates, by the name to show.
        drawn: Styles of the accounts, see ``styles``.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    figure = new_figure((WIDTH, 6.0), DOTS_PER_INCH)
    values, losses = figure.subplots(2, sharex=True, height_ratios=(2, 1))
    drawn = drawn or styles(list(results))
    _draw_values(values, results, drawn)
    figure.legend(loc="outside right upper", fontsize="small")
    _draw_drawdowns(losses, results, drawn)
    return figure


def account_figure(result: BacktestResult, title: str = "Account value") -> Figure:
    """Plot one account: its value, its drawdown, and its weights after trading.

    Args:
        result: One backtest.
        title: Title of the figure.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    figure = new_figure((WIDTH, 7.5), DOTS_PER_INCH)
    values, losses, weights = figure.subplots(3, sharex=True, height_ratios=(3, 2, 3))
    style = {title: Style("#1f77b4", 1.5, label=title, zorder=3)}
    _draw_values(values, {title: result}, style)
    _draw_drawdowns(losses, {title: result}, style)
    values.set_title(plot_label(title))
    _draw_weights(weights, result, "Weights")
    handles, labels = weights.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right lower", fontsize="small")
    return figure


def weights_area(result: BacktestResult, title: str = "Weights") -> Figure:
    """Plot weights after trading, stacked over time; short positions and debt lie below zero.

    Args:
        result: One backtest.
        title: Title of the plot.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    figure = new_figure((WIDTH, 4.5), DOTS_PER_INCH)
    _draw_weights(figure.subplots(), result, title)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def _draw_weights(axes: Axes, result: BacktestResult, title: str) -> None:
    from matplotlib import color_sequences

    palette = cycle(color_sequences["tab20"])
    dates, held = result.timestamps[:-1], result.held
    names, rest = ["cash", *map(plot_label, result.assets)], []
    if len(result.assets) > MAX_LEGEND:
        order = np.argsort(-np.abs(held[:, 1:]).mean(axis=0), kind="stable") + 1
        kept, rest = np.sort(order[:MAX_LEGEND]), order[MAX_LEGEND:].tolist()
        held = held[:, [0, *kept, *rest]]
        names = [names[0], *(names[k] for k in kept), f"{len(rest)} others"]
    colors = ["whitesmoke", *(next(palette) for _ in names[1:])]
    colors = [*colors[: 1 + MAX_LEGEND], *(OTHERS for _ in rest)]
    names = [*names, *("_" for _ in rest[1:])]  # a legend passes over them
    long, short = np.maximum(held, 0).T, np.minimum(held, 0).T
    # Smoothed edges make a PNG file three times as large.
    style: dict[str, Any] = {"colors": colors, "step": "post", "antialiased": False}
    axes.stackplot(dates, long, labels=names, **style)
    if (short < 0).any():
        axes.stackplot(dates, short, **style)
        axes.axhline(0, color="black", linewidth=0.8)
    axes.set(title=plot_label(title), ylabel="weight after trading", xlim=(dates[0], dates[-1]))
    axes.margins(y=0)
    date_axis(axes)


POINTS = 200  # points of a band: more cannot be seen


class Bands(NamedTuple):
    """Pointwise intervals of the growth of accounts, from 1.

    Attributes:
        at: (P,) index of each point in the values, from 0 to K.
        low: (P,) lower bound by name.
        high: (P,) upper bound by name.
    """

    at: NDArray[np.int64]
    low: dict[str, NDArray[np.float64]]
    high: dict[str, NDArray[np.float64]]


def growth_bands(
    log_returns: Mapping[str, ArrayLike],
    *,
    mean_block: float,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Bands:
    """Return pointwise bootstrap intervals of the value of each account.

    Stationary resamples of time (Politis & Romano 1994, "The Stationary Bootstrap", JASA 89),
    compounded, and their percentiles at every point on its own: a path may well leave its band
    somewhere.

    Args:
        log_returns: (K,) finite log returns by name, all over the same periods.
        mean_block: Mean block length in periods, at least 1.
        confidence: Coverage at each point, in (0, 1).
        n_resamples: Number of resamples.
        seed: Seed of the resampling.
    """
    series = np.column_stack([np.asarray(own, np.float64) for own in log_returns.values()])
    at = np.unique(np.linspace(0, len(series), POINTS + 1).round().astype(np.int64))

    def paths(taken: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (P - 1, S, R) cumulated log returns at all points but the first."""
        return np.cumsum(np.add.reduceat(taken, at[:-1], axis=0), axis=0)

    drawn = resampled(series, paths, mean_block=mean_block, n_resamples=n_resamples, seed=seed)
    tail = (1 - confidence) / 2
    # The first value is fixed: a band starts at 1.
    bounds = np.quantile(np.exp(drawn), [tail, 1 - tail], axis=-1)
    low, high = np.pad(bounds, ((0, 0), (1, 0), (0, 0)), constant_values=1.0)
    names = list(log_returns)
    return Bands(at, dict(zip(names, low.T, strict=True)), dict(zip(names, high.T, strict=True)))
