"""Tear sheet of one account: growth, drawdowns, months, years, rolling measures, quantiles."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from portfolio_env import metrics
from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.evaluation.diagnostics.decay import rolling_sharpe
from portfolio_env.evaluation.summary import number_text
from portfolio_env.html import table
from portfolio_env.metrics import CalendarPeriod
from portfolio_env.plotting.figures import (
    DOTS_PER_INCH,
    WIDTH,
    date_axis,
    new_figure,
    plot_label,
    value_axis,
)

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAIN, LOSS, ACCOUNT, BENCHMARK = "#2ca02c", "#d62728", "#1f77b4", "#6e7781"
DEEPEST = 5  # drawdowns that are marked and listed
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MOST_YEARS = 30  # of the table of months that fit a page; the last ones are shown
_LEAST = 4  # returns of a period that make a box


def tear_sheet(
    result: BacktestResult,
    name: str = "account",
    benchmark: BacktestResult | None = None,
    *,
    color: str = ACCOUNT,
) -> "Figure":
    """Draw an account on one page.

    From top to bottom: its value, its drawdown with the five deepest marked, its monthly and
    yearly returns, its Sharpe ratio and volatility over a rolling year (a quarter of the record if
    that is shorter), and the quantiles of its returns per bar, week, month, quarter and year.
    Calendar periods are those of ``portfolio_env.metrics.calendar_returns``.

    Args:
        result: The backtest.
        name: Name of the account, for titles.
        benchmark: Another backtest over the same dates, drawn in grey.
        color: Colour of the account, as matplotlib names it.

    Returns:
        A matplotlib figure; save it with ``figure.savefig(path)``.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    months = metrics.monthly_table(result.values, result.timestamps).iloc[-_MOST_YEARS:]
    middle = max(1.6, 0.6 + 0.27 * len(months))
    figure = new_figure((WIDTH, 8.2 + middle), DOTS_PER_INCH)
    heights = [2.6, 1.3, middle, 1.3, 1.5]
    grid = figure.add_gridspec(5, 2, height_ratios=heights, width_ratios=[3, 2])
    figure.suptitle(plot_label(name))
    _growth(figure.add_subplot(grid[0, :]), result, name, benchmark, color)
    _drawdown(figure.add_subplot(grid[1, :]), result, color)
    _months(figure.add_subplot(grid[2, 0]), months)
    _years(figure.add_subplot(grid[2, 1]), result, benchmark)
    _rolling(figure.add_subplot(grid[3, :]), result, "Sharpe ratio", color)
    _rolling(figure.add_subplot(grid[4, 0]), result, "volatility, %", color)
    _quantiles(figure.add_subplot(grid[4, 1]), result, color)
    return figure


def drawdown_texts(result: BacktestResult) -> pd.DataFrame:
    """Return the five deepest drawdowns as a table of texts."""
    found = metrics.worst_drawdowns(result.values, result.timestamps, DEEPEST)
    texts = {
        "peak": found["peak"].dt.strftime("%Y-%m-%d"),
        "trough": found["trough"].dt.strftime("%Y-%m-%d"),
        "recovery": found["recovery"].dt.strftime("%Y-%m-%d").fillna("not yet"),
        "depth, %": found["depth"].map(lambda depth: f"{100 * depth:.1f}"),
        "days": found["days"].map("{:.0f}".format),
    }
    return pd.DataFrame(texts).set_axis([str(place + 1) for place in range(len(found))])


def months_table(result: BacktestResult) -> "Markup":
    """Return the monthly returns as a table in HTML, blue where the account gained."""
    found = 100 * metrics.monthly_table(result.values, result.timestamps).iloc[-_MOST_YEARS:]
    texts = found.map(number_text("{:+.1f}")).set_axis([*_MONTHS, "year"], axis=1)
    months = np.abs(found.iloc[:, :12].to_numpy(np.float64))
    known = months[np.isfinite(months)]
    reach = max(float(np.quantile(known, 0.95)) if len(known) else 0.0, 1e-9)
    shades = texts.assign(year="")
    shades.iloc[:, :12] = found.iloc[:, :12].map(lambda value: _shade(value / reach))
    return table(texts, shades=shades)


def _shade(share: float) -> str:
    """Return a background from orange at -1 over white to blue at 1."""
    if np.isnan(share):
        return ""
    red, green, blue = (0, 114, 178) if share > 0 else (213, 94, 0)
    return f"rgba({red},{green},{blue},{0.55 * min(abs(share), 1.0):.2f})"


def _growth(
    axes: "Axes",
    result: BacktestResult,
    name: str,
    benchmark: BacktestResult | None,
    color: str,
) -> None:
    shown = [result.values / result.values[0]]
    if benchmark is not None:
        shown.append(benchmark.values / benchmark.values[0])
        axes.plot(benchmark.timestamps, shown[1], color=BENCHMARK, linewidth=0.9, label="benchmark")
    axes.plot(result.timestamps, shown[0], color=color, linewidth=1.3, label=plot_label(name))
    axes.axhline(1, color="gray", linewidth=0.8)
    axes.set_ylabel("value / initial value")
    value_axis(axes, np.concatenate(shown))
    date_axis(axes)
    axes.legend(loc="upper left", fontsize="small", frameon=False)


def _drawdown(axes: "Axes", result: BacktestResult, color: str) -> None:
    losses = -100 * metrics.drawdowns(result.values)
    axes.fill_between(result.timestamps, losses, 0, color=color, alpha=0.3, linewidth=0)
    axes.plot(result.timestamps, losses, color=color, linewidth=0.8)
    for place, row in metrics.worst_drawdowns(result.values, result.timestamps, DEEPEST).iterrows():
        end = result.timestamps[-1] if pd.isna(row["recovery"]) else row["recovery"]
        axes.axvspan(row["peak"], end, color=LOSS, alpha=0.08, linewidth=0)
        axes.annotate(
            f"{int(str(place)) + 1}: -{100 * row['depth']:.1f} %",
            (row["trough"], -100 * row["depth"]),
            xytext=(3, 2), textcoords="offset points", fontsize=7,
        )  # fmt: skip
    axes.set_ylim(1.15 * losses.min() or -1, 0)
    axes.set_ylabel("drawdown, %")
    date_axis(axes)


def _months(axes: "Axes", table: pd.DataFrame) -> None:
    percent = 100 * table.to_numpy(np.float64)
    known = np.abs(percent[:, :12][np.isfinite(percent[:, :12])])
    reach = max(float(np.quantile(known, 0.95)) if len(known) else 0.0, 1e-9)
    shades = np.where(np.arange(13) < 12, percent, np.nan)  # the years have another scale
    axes.imshow(
        shades, cmap="RdBu", vmin=-reach, vmax=reach, aspect="auto", alpha=0.75,
        interpolation="nearest",
    )  # fmt: skip
    shown = number_text("{:.1f}")
    for row, column in np.argwhere(np.isfinite(percent)):
        axes.text(
            column, row, shown(percent[row, column]), ha="center", va="center", fontsize=6.5,
            fontweight="bold" if column == 12 else "normal",
        )  # fmt: skip
    axes.axvline(11.5, color="white", linewidth=3)
    axes.set_xticks(range(13), [*_MONTHS, "year"], fontsize="x-small")
    axes.set_yticks(range(len(table)), [str(year) for year in table.index], fontsize="x-small")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("Monthly returns, %", fontsize="small")


def _years(axes: "Axes", result: BacktestResult, benchmark: BacktestResult | None) -> None:
    years = 100 * metrics.calendar_returns(result.values, result.timestamps, "year")
    years = years.iloc[-_MOST_YEARS:]
    places = np.arange(len(years))
    colors = [GAIN if value >= 0 else LOSS for value in years]
    width = 0.75 if benchmark is None else 0.4
    axes.bar(places, years, width, color=colors)
    if benchmark is not None:
        other = 100 * metrics.calendar_returns(benchmark.values, benchmark.timestamps, "year")
        axes.bar(places + width, other.reindex(years.index), width, color=BENCHMARK, alpha=0.6)
    axes.axhline(0, color="gray", linewidth=0.8)
    every = max(1, len(years) // 8)
    labels = [str(year) for year in years.index[::every]]
    axes.set_xticks(places[::every], labels, fontsize="x-small")
    axes.tick_params(axis="y", labelsize="x-small")
    axes.set_title("Yearly returns, %", fontsize="small")


def _rolling(axes: "Axes", result: BacktestResult, measure: str, color: str) -> None:
    year, returns = result.periods_per_year, result.returns
    window = min(round(year), len(returns) // 4)
    axes.set_title(f"Over the last {window} periods, per year: {measure}", fontsize="small")
    if window < 2:
        axes.text(0.5, 0.5, "too short a record", ha="center", transform=axes.transAxes)
        return
    if measure == "Sharpe ratio":
        rolling = rolling_sharpe(result.excess_returns, year, window)
    else:
        deviation = pd.Series(returns).rolling(window).std().to_numpy()[window - 1 :]
        rolling = 100 * deviation * np.sqrt(year)
        axes.set_ylim(0, 1.1 * np.nanmax(rolling) or 1)
    axes.plot(result.timestamps[window:], rolling, color=color, linewidth=0.9)
    axes.axhline(0, color="gray", linewidth=0.8)
    axes.tick_params(labelsize="x-small")
    date_axis(axes)


def _quantiles(axes: "Axes", result: BacktestResult, color: str) -> None:
    periods: tuple[CalendarPeriod, ...] = ("week", "month", "quarter", "year")
    samples: dict[str, Any] = {"bar": result.returns}
    for period in periods:
        samples[period] = metrics.calendar_returns(result.values, result.timestamps, period)
    # Weekly returns of monthly bars are those of the bars once more.
    most = len(result.returns)
    shown = {
        name: 100 * np.asarray(sample)
        for name, sample in samples.items()
        if len(sample) >= _LEAST and (name == "bar" or len(sample) < 0.9 * most)
    }
    if shown:
        axes.boxplot(
            list(shown.values()), tick_labels=list(shown), widths=0.6, showmeans=True,
            flierprops={"marker": ".", "markersize": 2}, medianprops={"color": color},
            meanprops={"marker": "_", "markeredgecolor": "black"},
        )  # fmt: skip
    axes.axhline(0, color="gray", linewidth=0.8)
    axes.tick_params(labelsize="x-small")
    axes.set_title("Quantiles of returns, %", fontsize="small")
