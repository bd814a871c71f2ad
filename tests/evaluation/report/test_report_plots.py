"""Plots of accounts: everything is in them, where it should be, and bands are resampled paths."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from helpers.accounts import account

from portfolio_env import metrics
from portfolio_env.evaluation import compare
from portfolio_env.evaluation.diagnostics.decay import rolling_sharpe
from portfolio_env.evaluation.orders import allocate
from portfolio_env.evaluation.report import account_plots, comparison_plots, plots
from portfolio_env.evaluation.report.plots import growth_bands
from portfolio_env.evaluation.report.tear_sheet import drawdown_texts, tear_sheet
from portfolio_env.evaluation.statistics.bootstrap import stationary_bootstrap_indices
from portfolio_env.evaluation.task import Hindsight
from portfolio_env.market.panel import PricePanel

K = 130
MARKET = np.random.default_rng(0).normal(0.0005, 0.01, K)
RESULTS = {
    f"s{i}": account(MARKET + np.random.default_rng(i).normal(0.001 * i - 0.004, 0.003, K))
    for i in range(1, 9)
}
RESULTS["equal_weight"] = account(MARKET)
DRAWN = plots.styles(list(RESULTS), benchmark="equal_weight", agents=["s7"])


def labels(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_styles_show_the_reference_the_agents_and_the_first():
    shown = [name for name, style in DRAWN.items() if style.label == name]
    assert set(shown) == {"equal_weight", "s7", *(f"s{k}" for k in range(1, 7))}
    assert DRAWN["equal_weight"].color == "black"
    assert len({DRAWN[name].color for name in shown}) == len(shown)
    others = {DRAWN[name] for name in RESULTS if name not in shown}
    assert {style.label for style in others} == {"1 other"}
    more = plots.styles([f"s{k}" for k in range(11)])
    assert [style.label for style in more.values()][8:] == ["3 others", None, None]
    assert {style.color for style in others} == {plots.OTHERS}
    few = plots.styles(["a", "b"])
    assert [style.label for style in few.values()] == ["a", "b"]


@pytest.mark.parametrize("draw", [plots.equity_curves, plots.drawdown_curves])
def test_every_account_is_drawn(draw):
    figure = draw(RESULTS, DRAWN)
    drawn = [line for line in figure.axes[0].lines if len(line.get_xdata()) == K + 1]
    assert len(drawn) == len(RESULTS)
    assert set(labels(figure)) == {*(f"s{k}" for k in range(1, 8)), "equal_weight", "1 other"}
    assert set(labels(draw({"agent": RESULTS["s1"]}))) == {"agent"}


def test_great_growth_is_drawn_on_a_logarithmic_axis():
    growth = account(np.full(K, np.log(100) / K))
    (axes,) = plots.equity_curves({"growth": growth, "s4": RESULTS["s4"]}).axes
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[1] > 100
    (axes,) = plots.equity_curves({"s4": RESULTS["s4"]}).axes
    assert axes.get_yscale() == "linear"


def test_weights_and_short_positions():
    result = RESULTS["s1"]
    figure = plots.weights_area(result, "s1")
    assert figure.axes[0].get_title() == "s1"
    assert figure.axes[0].get_ylim() == pytest.approx((0, 1))
    assert labels(figure) == ["cash", "A", "B"]
    held = np.tile([0.8, 0.5, -0.3], (K, 1))
    figure = plots.weights_area(replace(result, held=held))
    assert figure.axes[0].get_ylim() == pytest.approx((-0.3, 1.3))


def test_bands_are_percentiles_of_resampled_paths():
    series = {name: RESULTS[name].log_returns for name in ("s1", "s2")}
    bands = growth_bands(series, mean_block=4, n_resamples=400, seed=7, confidence=0.9)
    assert bands.at[0] == 0
    assert bands.at[-1] == K
    generator = np.random.default_rng(7)
    paths = []
    for _ in range(400):
        rows = stationary_bootstrap_indices(K, 4, generator)
        paths.append(np.exp(np.r_[0.0, np.cumsum(series["s2"][rows])])[bands.at])
    low, high = np.quantile(paths, [0.05, 0.95], axis=0)
    assert bands.low["s2"] == pytest.approx(low)
    assert bands.high["s2"] == pytest.approx(high)


def test_more_periods_than_points_of_a_band():
    returns = np.random.default_rng(3).normal(0, 0.01, 1013)
    bands = growth_bands({"own": returns}, mean_block=1, n_resamples=3, seed=1)
    assert len(bands.at) <= 201
    generator = np.random.default_rng(1)
    rows = [stationary_bootstrap_indices(1013, 1, generator) for _ in range(3)]
    ends = np.exp([returns[each].sum() for each in rows])
    assert bands.high["own"][-1] <= ends.max()
    assert bands.low["own"][-1] >= ends.min()


def test_small_pictures_hold_band_account_and_reference():
    some = {name: RESULTS[name] for name in ("s8", "equal_weight", "s1", "s2")}
    bands = growth_bands({n: r.log_returns for n, r in some.items()}, mean_block=2, n_resamples=20)
    figure = account_plots.growth_with_bands(some, bands, "equal_weight", DRAWN)
    assert figure.axes[2].lines[1].get_color() == DRAWN["s1"].color
    assert [axes.get_title() for axes in figure.axes] == list(some)
    for axes, result in zip(figure.axes, some.values(), strict=True):
        benchmark, own = (line.get_ydata() for line in axes.lines)
        assert own[-1] == pytest.approx(result.values[-1] / result.values[0])
        assert benchmark[-1] == pytest.approx(np.exp(MARKET.sum()))
        low, high = axes.get_ylim()
        assert low < own.min() and high > own.max()


def test_rolling_measures():
    figure = account_plots.rolling_measures(RESULTS, DRAWN, 30)
    upper, lower = figure.axes
    returns = RESULTS["s1"].returns[-30:]
    deviation = returns.std(ddof=1) * np.sqrt(252)
    assert lower.lines[0].get_ydata()[-1] == pytest.approx(100 * deviation)
    assert upper.lines[0].get_ydata()[-1] == pytest.approx(returns.mean() * 252 / deviation)
    first = RESULTS["s1"].returns[:30]
    ratio = first.mean() / first.std(ddof=1) * np.sqrt(252)
    assert upper.lines[0].get_ydata()[0] == pytest.approx(ratio)
    assert len(upper.lines[0].get_ydata()) == len(lower.lines[0].get_ydata()) == K - 29
    flat = {"cash": account(np.zeros(K))}
    upper, _ = account_plots.rolling_measures(flat, plots.styles(["cash"]), 30).axes
    assert np.isnan(upper.lines[0].get_ydata()).all()


def test_average_weights():
    figure = account_plots.average_weights({"s1": RESULTS["s1"], "s2": RESULTS["s2"]})
    (image,) = figure.axes[0].images
    assert image.get_array().data == pytest.approx(np.array([[20, 40, 40], [20, 40, 40]]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["20", "40", "40"] * 2
    short = replace(RESULTS["s1"], held=np.tile([0.8, 0.5, -0.3], (K, 1)))
    (image,) = account_plots.average_weights({"short": short}).axes[0].images
    assert image.norm.vmin == -image.norm.vmax


def test_average_weights_of_many_assets_name_the_largest():
    held = np.linspace(1, 2, 301) ** 8
    held /= held.sum()
    names = tuple(f"Fund of a rather long name indeed, series {i:03d}" for i in range(300))
    many = replace(RESULTS["s1"], held=np.tile(held, (K, 1)), assets=names)
    figure = account_plots.average_weights({"s1": many, "s2": many})
    axes = figure.axes[0]
    (image,) = axes.images
    shown = image.get_array().data
    assert shown.shape == (2, account_plots.MAX_ASSETS + 2)
    assert shown.sum(axis=1) == pytest.approx(100)
    assert shown[0, 1:-1] == pytest.approx(100 * held[-account_plots.MAX_ASSETS :])
    assert axes.get_xticklabels()[-1].get_text() == "260 others"
    # The colour of an account must not run into that of its neighbour.
    assert image.get_interpolation() == "nearest"
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(a.x1 <= b.x0 for a, b in pairwise(boxes))


def test_donut_shares_add_up():
    names = [f"a{i}" for i in range(20)]
    weights = np.r_[0.05, np.arange(20) / 190 * 0.95]
    orders = allocate(weights, names, np.full(20, 3.0), 1000.0).table()
    figure = account_plots.allocation_donut(orders, 1000.0, "s1")
    shares = [float(text.split()[-2]) for text in labels(figure)]
    assert len(shares) == account_plots.SLICES + 2
    assert sum(shares) == pytest.approx(100, abs=1)
    assert labels(figure)[-2].startswith("9 others")  # a0 has no weight
    assert figure.axes[0].texts[-1].get_text() == "1,000"


def test_differences_are_those_of_the_table():
    found = compare(RESULTS, n_resamples=50)
    growth, ratios = comparison_plots.differences(found, DRAWN).axes
    names = [label.get_text() for label in growth.get_yticklabels()]
    assert names == [name for name in found.table.index if name != "equal_weight"]
    for axes, scale, column in (
        (growth, 100, "growth_difference"),
        (ratios, 1, "sharpe_difference"),
    ):
        middles = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
        assert middles == pytest.approx(scale * found.table.loc[names, column].to_numpy())
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        assert [line.get_color() for line in dots] == [DRAWN[name].distinct for name in names]
        low, high = found.table.loc[names, [f"{column}_low", f"{column}_high"]].to_numpy().T
        full = [line.get_markerfacecolor() != "white" for line in dots]
        assert full == list((low > 0) | (high < 0)) and any(full)
        bottom, top = axes.get_ylim()
        assert bottom > top  # the best at the top


def test_risk_return_with_a_frontier():
    times = RESULTS["s1"].timestamps
    close = np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.01, (K + 1, 3)), axis=0))
    close[10, 2] = np.nan
    panel = PricePanel(timestamps=times, assets=("A", "B", "C"), close=close, periods_per_year=252)
    frontier = np.array([[0.1, 0.05], [0.2, 0.15], [0.4, 0.2]])
    line, tangency = np.array([[0.0, 0.01], [0.4, 0.29]]), np.array([0.2, 0.15])
    hindsight = Hindsight(frontier, line, tangency)
    figure = comparison_plots.risk_return(RESULTS, DRAWN, panel, hindsight)
    (axes,) = figure.axes
    points = [dots.get_offsets().data for dots in axes.collections]
    assert len(points[0]) == 2  # assets without a gap
    assert points[1] == pytest.approx(np.array([[20.0, 15.0]]))  # the star
    drawn = {line.get_label(): line.get_xydata() for line in axes.lines}
    for name, where in (("efficient frontier", frontier), ("capital market line", line)):
        assert drawn[f"{name}, in hindsight"] == pytest.approx(100 * where)
    own = RESULTS["s1"].returns
    risk = 100 * own.std(ddof=1) * np.sqrt(252)
    assert points[2] == pytest.approx(np.array([[risk, 100 * own.mean() * 252]]))
    named = {text.get_text() for text in axes.texts}
    assert set(RESULTS) <= named


def test_growth_by_cost():
    growth = pd.DataFrame({0.0: [0.1, 0.2], 25.0: [0.05, 0.19]}, index=["s1", "equal_weight"])
    (axes,) = comparison_plots.growth_by_cost(growth, DRAWN).axes
    assert axes.lines[0].get_xdata().tolist() == [0, 25]
    assert axes.lines[0].get_ydata() == pytest.approx([10, 5])


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_a_tear_sheet_shows_months_years_and_drawdowns():
    result = account(np.random.default_rng(1).normal(0, 0.02, 900))
    growth, drawdown, months, years, sharpe, volatility, quantiles = tear_sheet(
        result, "own", RESULTS["equal_weight"]
    ).axes
    table = 100 * metrics.monthly_table(result.values, result.timestamps).to_numpy()
    shown = [f"{value:.1f}" for value in table.ravel() if np.isfinite(value)]
    assert texts(months) == shown
    heights = 100 * metrics.calendar_returns(result.values, result.timestamps, "year")
    assert [bar.get_height() for bar in years.patches][: len(heights)] == pytest.approx(heights)
    deepest = metrics.worst_drawdowns(result.values, result.timestamps)["depth"]
    marks = [f"{place}: -{100 * depth:.1f} %" for place, depth in enumerate(deepest, 1)]
    assert texts(drawdown) == marks
    assert drawdown_texts(result)["depth, %"].tolist() == [f"{100 * d:.1f}" for d in deepest]
    assert len(growth.lines) == 3 and growth.get_ylabel() == "value / initial value"
    (line, *_) = sharpe.lines
    assert line.get_ydata() == pytest.approx(rolling_sharpe(result.returns, 252, 225))
    assert volatility.get_title().endswith("volatility, %")
    names = [label.get_text() for label in quantiles.get_xticklabels()]
    assert names == ["bar", "week", "month", "quarter"]  # three years make no box


@pytest.mark.parametrize(
    "returns", [[0.01], [0.0] * 30, [0.02] * 400, [0.01, -30.0], np.r_[MARKET, -30.0]]
)
def test_any_account_has_a_tear_sheet(returns, tmp_path):
    figure = tear_sheet(account(np.array(returns)), "$x^$")
    figure.savefig(tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000
