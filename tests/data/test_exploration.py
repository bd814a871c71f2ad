"""Statistics agree with independent computations, and the report shows what there is."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ta
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from portfolio_env import Market, load_market
from portfolio_env.data.reports import exploration_plots, risk_plots, statistics
from portfolio_env.data.reports.exploration import write_report
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.market.panel import PricePanel


@pytest.fixture(scope="module")
def returns() -> np.ndarray[Any, Any]:
    """400 returns of 4 assets, the third listed late, the last delisted early."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((400, 4)) @ rng.standard_normal((4, 4)) / 100
    values[0] = np.nan
    values[:150, 2] = np.nan
    values[300:, 3] = np.nan
    return values


def test_returns_are_missing_beside_missing_bars() -> None:
    close = np.array([[1.0, 4.0], [2.0, np.nan], [1.0, 5.0], [3.0, 10.0]])
    expected = [[np.nan, np.nan], [1.0, np.nan], [-0.5, np.nan], [2.0, 1.0]]
    np.testing.assert_allclose(statistics.simple_returns(close), expected)
    logs = statistics.log_returns(close)
    np.testing.assert_allclose(logs[1:, 0], np.diff(np.log(close[:, 0])))


def test_correlations_are_those_of_shared_bars(returns: np.ndarray[Any, Any]) -> None:
    matrix = statistics.correlation(returns)
    for i in range(4):
        for j in range(4):
            both = np.isfinite(returns[:, [i, j]]).all(axis=1)
            expected = stats.pearsonr(returns[both, i], returns[both, j]).statistic
            assert matrix[i, j] == pytest.approx(expected)
    pairs = statistics.diversifying_pairs(returns, list("ABCD"))
    assert pairs["correlation"].is_monotonic_increasing
    assert len(pairs) == 6
    lowest = matrix[np.triu_indices(4, 1)].min()
    assert pairs["correlation"][0] == pytest.approx(lowest)
    by_name = pairs.set_index(["first", "second"])["bars"]
    assert (by_name["A", "B"], by_name["C", "D"]) == (399, 150)
    assert len(statistics.diversifying_pairs(returns, list("ABCD"), 2)) == 2
    assert len(statistics.diversifying_pairs(returns[:170], list("ABCD"))) == 3  # C shares too few


@given(t=st.integers(29, 399), window=st.integers(5, 30))
def test_rolling_statistics_see_their_window_only(
    returns: np.ndarray[Any, Any], t: int, window: int
) -> None:
    part = returns[t - window + 1 : t + 1]
    together = statistics.rolling_correlation(returns, 1, window)[t]
    volatility = statistics.rolling_volatility(returns, 365, window)[t]
    for i in range(4):
        if np.isfinite(part[:, [1, i]]).all():
            assert together[i] == pytest.approx(np.corrcoef(part[:, 1], part[:, i])[0, 1])
            assert volatility[i] == pytest.approx(part[:, i].std(ddof=1) * np.sqrt(365))
        else:
            assert np.isnan(together[i])


def test_covariances(returns: np.ndarray[Any, Any]) -> None:
    rows = returns[150:300]
    sample = statistics.covariance(returns, 252)
    np.testing.assert_allclose(sample, 252 * np.cov(rows.T), rtol=1e-12)
    slow = np.zeros((4, 4))
    for row in rows:  # S <- 0.9 S + 0.1 r r', which lacks 0.9 ** K of the weight
        slow = 0.9 * slow + 0.1 * np.outer(row, row)
    ewma = statistics.covariance(returns, 252, "ewma", 0.9)
    np.testing.assert_allclose(ewma, 252 * slow / (1 - 0.9**150), rtol=1e-10)
    biased = 252 * np.cov(rows.T, ddof=0)
    shrunk = statistics.covariance(returns, 252, "ledoit_wolf")
    target = np.eye(4) * np.trace(biased) / 4
    share = (shrunk - biased)[0, 1] / (target - biased)[0, 1]
    assert 0 < share < 1
    np.testing.assert_allclose(shrunk, share * target + (1 - share) * biased, rtol=1e-9)


def test_covariances_refuse_what_they_cannot_do(returns: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ArgumentError, match="did you mean ewma"):
        statistics.covariance(returns, 252, "ewm")
    with pytest.raises(ArgumentError, match="decay=1"):
        statistics.covariance(returns, 252, "ewma", 1.0)
    with pytest.raises(ArgumentError, match="share 0 returns"):
        statistics.covariance(returns[:100], 252)


def test_assets_that_shorten_the_common_range_most_go_first() -> None:
    returns = np.ones((100, 4))
    returns[:90, 1] = np.nan
    returns[60:, 2] = np.nan
    assert statistics.common_assets(returns, 100) == [0, 3]
    assert statistics.common_assets(returns, 60) == [0, 2, 3]
    assert statistics.common_assets(returns, 10) == [0, 2, 3]  # 1 and 2 share nothing
    assert statistics.common_assets(returns[:60], 5) == [0, 2, 3]


def test_clustering_is_found_where_it_is() -> None:
    rng = np.random.default_rng(3)
    calm = rng.standard_normal(4_000)
    p_values = [statistics.arch_lm(part, 2)[1] for part in calm.reshape(40, 100)]
    assert 0.2 < np.mean(p_values) < 0.8
    shocks, variance = np.zeros(2_000), 1.0
    for t in range(1, 2_000):
        variance = 0.1 + 0.3 * shocks[t - 1] ** 2 + 0.6 * variance
        shocks[t] = np.sqrt(variance) * calm[t]
    statistic, p_value = statistics.arch_lm(shocks)
    assert p_value < 1e-6
    assert p_value == pytest.approx(stats.chi2.sf(statistic, 5))
    assert statistics.autocorrelation(np.abs(shocks)) > 0.1
    assert np.isnan(statistics.arch_lm(np.ones(50))).all()
    assert np.isnan(statistics.arch_lm(calm[:10])).all()


def test_the_statistic_of_one_lag_is_a_squared_correlation() -> None:
    series = np.random.default_rng(1).standard_normal(300)
    squares = np.square(series - series.mean())
    expected = 299 * np.corrcoef(squares[1:], squares[:-1])[0, 1] ** 2
    assert statistics.arch_lm(series, 1)[0] == pytest.approx(expected)


def test_statistics_of_assets_are_those_of_their_own_bars(market: Market) -> None:
    table = statistics.asset_statistics(market.panel)
    assert table.index.tolist() == list(market.assets)
    for i, name in enumerate(market.assets):
        prices = market.close[np.isfinite(market.close[:, i]), i]
        r = np.diff(prices) / prices[:-1]
        own = market.timestamps[np.isfinite(market.close[:, i])]
        year = len(r) / ((own[-1] - own[0]) / np.timedelta64(36_525 * 864, "s"))
        peak = np.maximum.accumulate(prices)
        expected = {
            "bars": len(prices),
            "mean": year * r.mean(),
            "volatility": np.sqrt(year) * r.std(ddof=1),
            "sharpe": np.sqrt(year) * r.mean() / r.std(ddof=1),
            "skew": stats.skew(r, bias=False),
            "kurtosis": stats.kurtosis(r, bias=False),
            "min": r.min(),
            "max": r.max(),
            "max_drawdown": (1 - prices / peak).max(),
            "clustering": np.corrcoef(np.abs(r[1:]), np.abs(r[:-1]))[0, 1],
            "arch_lm_p": statistics.arch_lm(r)[1],
            "last_price": prices[-1],
        }
        assert table.loc[name].to_dict() == pytest.approx(expected)


def test_indicators_agree_with_ta() -> None:
    close = 100 * np.exp(np.cumsum(0.01 * np.random.default_rng(0).standard_normal(200)))
    series = pd.Series(close)
    bands = ta.volatility.BollingerBands(series, 20, 2)
    theirs = (bands.bollinger_lband(), bands.bollinger_mavg(), bands.bollinger_hband())
    for mine, other in zip(statistics.bollinger(close), theirs, strict=True):
        np.testing.assert_allclose(mine, other)
    line, average = statistics.macd(close)
    macd = ta.trend.MACD(series)
    np.testing.assert_allclose(line, macd.macd())
    np.testing.assert_allclose(average, macd.macd_signal())
    rsi = ta.momentum.RSIIndicator(series, 14).rsi()  # it counts the first bar as no change
    np.testing.assert_allclose(statistics.rsi(close)[100:], rsi[100:], rtol=1e-3)
    assert statistics.rsi(np.arange(1.0, 50.0))[-1] == 100


class _Page(HTMLParser):
    """What a page links to, embeds and says."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_is_complete_and_needs_nothing_else(tmp_path: Path) -> None:
    path = write_report("synthetic?bars=200&assets=3&ragged=true", tmp_path)
    page = _Page(path)
    assert path == tmp_path / "report.html"
    assert page.open == []
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    images = page.all("img")
    assert len(images) == len(list(tmp_path.glob("*.png"))) == 9
    assert all(image["src"].startswith("data:image/png;base64,iVBOR") for image in images)
    assert all(len(image["alt"]) > 20 for image in images)
    anchors = {link["href"] for link in page.all("a")}
    assert anchors == {f"#{section['id']}" for section in page.all("section")}
    assert len(anchors) == 13
    source = re.sub(r"base64,[^\"]*", "", path.read_text(encoding="utf-8"))
    assert "http" not in source.replace("http-equiv", "")
    assert "252 bars per year" in page.text
    assert (tmp_path / "quality.json").exists()


def test_shrinkage_is_left_out_without_its_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    text = _Page(write_report("synthetic?bars=70&assets=2", tmp_path)).text
    assert "it needs scikit-learn" in text
    assert "Sample covariance" in text
    assert "Ledoit-Wolf" not in text


def test_names_are_escaped(tmp_path: Path) -> None:
    panel = load_market("synthetic?bars=60&assets=2").panel
    names = {"A00": "<script>alert(1)</script>", "A01": 'A&B "quoted"'}
    close = pd.DataFrame(panel.close, panel.timestamps, list(names.values()))
    page = _Page(write_report(load_market(close), tmp_path))
    assert not page.all("script")
    assert "<script>alert(1)</script>" in page.text


def test_closes_alone_are_reported_without_volume(tmp_path: Path) -> None:
    dates = pd.date_range("2020-01-01", periods=90, freq="D")
    steps = 0.01 * np.random.default_rng(0).standard_normal((90, 2))
    close = pd.DataFrame(np.exp(np.cumsum(steps, axis=0)), dates, ["X", "Y"])
    market = load_market(close)
    text = _Page(write_report(market, tmp_path)).text
    assert "Volume is left out: the source has none." in text
    assert "closing prices only" in text
    assert len(risk_plots.indicators(market.panel).axes) == 3


def test_bars_that_are_no_panel_get_their_quality_reported(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "date": pd.date_range("2020-01-01", periods=90, freq="D").repeat(2),
            "symbol": ["X", "Y"] * 90,
            "close": np.exp(0.01 * np.random.default_rng(0).standard_normal(180).cumsum()),
        }
    )
    frame = pd.concat([frame, frame.tail(2)])
    page = _Page(write_report(frame, tmp_path / "as_is"))
    assert "X: duplicates: 1 rows" in page.text
    assert "no panel" in page.text
    assert len(page.all("section")) == 3
    mended = _Page(write_report(frame, tmp_path / "mended", repair={"drop_duplicates": "last"}))
    assert "drop_duplicates: 2 rows of X, Y" in mended.text
    assert len(mended.all("section")) == 13


@pytest.mark.slow
def test_many_assets_are_cut_to_the_largest(tmp_path: Path) -> None:
    panel = load_market("synthetic?bars=120&assets=14&seed=2").panel
    assert panel.volume is not None
    text = _Page(write_report(panel, tmp_path, reference="A13", end="2010-04-01")).text
    assert "Of 14 assets the 12 largest by traded money." in text
    assert "Correlation with A13" in text
    assert "to 2010-03-31" in text


@pytest.mark.parametrize("count", [2, 3, 5, pytest.param(50, marks=pytest.mark.slow)])
def test_grids_hold_a_picture_per_asset(count: int) -> None:
    panel = load_market(f"synthetic?bars=80&assets={count}").panel
    for draw in (exploration_plots.prices, exploration_plots.distributions):
        assert len(draw(panel).axes) == count
    assert len(risk_plots.rolling_volatility(panel).axes) == count
    assert len(risk_plots.rolling_correlation(panel).axes) == count - 1
    heat = exploration_plots.correlations(panel).axes[0]
    numbers = count * (count + 1) // 2
    assert len(heat.texts) == (numbers if count <= 20 else 0)
    shown = np.ma.getmaskarray(heat.images[0].get_array())
    assert shown.sum() == count * (count - 1) // 2


def test_thresholds_of_volatility_are_drawn_in_range_only() -> None:
    rng = np.random.default_rng(0)
    steps = rng.standard_normal((200, 3)) * np.array([0.05, 0.6, 1.5]) / np.sqrt(365)
    days = np.datetime64("2020-01-01", "ns") + np.arange(200) * np.timedelta64(1, "D")
    panel = PricePanel(days, ("calm", "usual", "wild"), np.exp(np.cumsum(steps, axis=0)))
    lines = [len(axes.lines) - 1 for axes in risk_plots.rolling_volatility(panel).axes]
    assert lines == [0, 1, 2]


def test_names_in_the_scatter_do_not_cover_one_another() -> None:
    table = pd.DataFrame(
        {"volatility": np.full(6, 0.2) + 0.001 * np.arange(6), "mean": np.full(6, 0.1)},
        index=[f"ASSET{i}" for i in range(6)],
    )
    figure = risk_plots.risk_return(table, exploration_plots.palette(list(table.index)))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    assert len(boxes) == 6
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_short_and_flat_markets_are_reported(tmp_path: Path) -> None:
    days = np.datetime64("2020-01-01", "ns") + np.arange(3) * np.timedelta64(1, "D")
    close = np.array([[1.0, 5.0], [1.0, 6.0], [1.0, np.nan]])
    text = _Page(write_report(PricePanel(days, ("flat", "short"), close), tmp_path)).text
    assert "No two assets share enough bars." in text
    one = pd.DataFrame({"date": days, "symbol": "only", "close": [1.0, 2.0, 3.0]})
    alone = _Page(write_report(one, tmp_path)).text
    assert "Indicators of only" in alone and "Correlation" not in alone


def test_a_range_without_bars_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no bars from 2050"):
        write_report("synthetic?bars=50", tmp_path, start="2050-01-01")
    with pytest.raises(ArgumentError, match="unknown asset 'B00'"):
        write_report("synthetic?bars=50", tmp_path, reference="B00")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crypto_daily", "crypto_hourly", "us_equities_daily"])
def test_real_data_are_reported(shared_data: Path, tmp_path: Path, name: str) -> None:
    page = _Page(write_report(shared_data / f"{name}.csv.gz", tmp_path))
    assert len(page.all("section")) == 13
    assert ("Indicators of SPY" if "us_" in name else "Indicators of BTCUSDT") in page.text


def test_names_beside_correlations_of_many_assets_do_not_overlap() -> None:
    names = [f"A{i:03d}" for i in range(300)]
    figure = exploration_plots.returns.correlations(names, np.eye(300))
    figure.canvas.draw()
    labels = figure.axes[0].get_xticklabels()
    assert [label.get_text() for label in labels[:2]] == ["A000", "A005"]
    boxes = [label.get_window_extent() for label in labels]
    assert all(a.x1 <= b.x0 for a, b in pairwise(boxes))
