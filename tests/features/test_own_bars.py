"""Windows count an asset's own bars: neither other calendars nor a lost bar blind it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import examples
from helpers.panels import panel_of
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import PricePanel, load_market
from portfolio_env.features import FeaturePipeline, indicator, select
from portfolio_env.features.bars import Bars
from portfolio_env.features.own_rows import OwnRows, since_own_bar
from portfolio_env.features.registry import ALL, INDICATORS
from portfolio_env.market.panel import BAR_FIELDS

GROUPS = ("returns", "trend", "momentum", "volatility", "volume", "regime", "liquidity", "levels")
BARS = 420


def without(panel, missing):
    """The panel without the bars of a mask."""
    bars = {name: np.where(missing, np.nan, getattr(panel, name)) for name in BAR_FIELDS}
    return replace(panel, **bars)


def stocks_beside_crypto(bars=BARS, seed=4):
    """Two assets on every day, two on weekdays, and the mask of the rows that are weekdays."""
    panel = panel_of("D", bars, assets=4, seed=seed, ragged=False)
    weekdays = pd.DatetimeIndex(panel.timestamps).day_of_week.to_numpy() < 5
    closed = np.outer(~weekdays, [False, False, True, True])
    return without(panel, closed), weekdays


def values_of(feature, panel):
    return np.broadcast_to(feature.compute(Bars(panel)), panel.close.shape)


@examples(20)
@given(seed=st.integers(0, 2**16), share=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_rows_go_together_and_apart_again(seed, share):
    rng = np.random.default_rng(seed)
    present = rng.random((40, 5)) >= share
    x = np.where(present, rng.normal(size=present.shape), np.nan)
    rows = OwnRows(present)
    line = rows.together(x)
    np.testing.assert_array_equal(rows.apart(line), x)
    for i in range(5):
        own = line[~np.isnan(line[:, i]), i]
        np.testing.assert_array_equal(own, x[present[:, i], i])
    assert OwnRows(~np.isnan(line)).gapless


@examples(20)
@given(seed=st.integers(0, 2**16))
def test_returns_of_the_market_compound_since_the_own_bar_before(seed):
    rng = np.random.default_rng(seed)
    x, present = rng.normal(0, 0.1, 30), rng.random((30, 3)) < 0.5
    found = since_own_bar(x, present)
    level = np.cumprod(1 + x)
    for i in range(3):
        own = np.flatnonzero(present[:, i])
        np.testing.assert_allclose(found[own[1:], i], level[own[1:]] / level[own[:-1]] - 1)
        assert np.isnan(found[~present[:, i], i]).all()


def test_each_of_two_calendars_has_the_features_that_it_has_alone():
    panel, weekdays = stocks_beside_crypto()
    alone = replace(panel.subset(weekdays, [2, 3]), periods_per_year=365.0)
    features = select((*GROUPS, "bar_gap"), panel)
    assert len(features) > 100
    for feature in features:
        together = values_of(feature, panel)
        np.testing.assert_array_equal(together[weekdays][:, 2:], values_of(feature, alone))
        assert np.isnan(together[~weekdays][:, 2:]).all(), feature.name
        crypto = values_of(feature, panel.subset(columns=[0, 1]))
        np.testing.assert_array_equal(together[:, :2], crypto)


def test_stocks_beside_crypto_are_known_wherever_they_trade():
    panel, _ = stocks_beside_crypto(900)
    market = load_market(panel, features="full")
    known = market.features[:, :, market.feature_names.index("known")]
    settled = market.tradable & (np.cumsum(market.tradable, axis=0) > market.warmup + 1)
    assert settled[:, 2].sum() > 300
    assert (known[settled] == 1).mean() > 0.99


@examples(15)
@given(lost=st.integers(280, 330), column=st.integers(0, 2))
def test_one_lost_bar_changes_a_feature_within_the_window_of_its_asset_only(lost, column):
    panel = panel_of("D", BARS, ragged=False)
    missing = np.zeros(panel.close.shape, bool)
    missing[lost, column] = True
    broken = without(panel, missing)
    others = np.arange(3) != column
    for feature in select(GROUPS, panel):
        before, after = values_of(feature, panel), values_of(feature, broken)
        np.testing.assert_array_equal(before[:, others], after[:, others], feature.name)
        np.testing.assert_array_equal(before[:lost], after[:lost], feature.name)
        assert (np.isnan(after) == (np.isnan(before) | missing))[280:].all(), feature.name
        if feature.memory != ALL:
            end = lost + feature.memory + 2
            np.testing.assert_allclose(
                before[end:], after[end:], rtol=1e-9, atol=1e-9, err_msg=feature.name
            )


@examples(10)
@given(seed=st.integers(0, 2**16), share=st.sampled_from([0.02, 0.3, 0.7]))
def test_a_growing_market_with_gaps_equals_one_made_at_once(seed, share):
    rng = np.random.default_rng(seed)
    panel = panel_of("D", 700, assets=4, seed=seed)
    missing = rng.random(panel.close.shape) < share * np.array([0, 0.1, 1, 1])
    missing[300:640, 3] = True  # halted for longer than most windows
    panel = without(panel, missing)
    silent = rng.random(panel.close.shape) < 0.05
    volume = np.where(silent & ~np.isnan(panel.close), 0.0, panel.volume)
    panel = replace(panel, volume=volume, periods_per_year=365.0)
    windows = [one.name for one in select("full", panel) if one.memory == one.lookback]
    assert len(windows) > 60
    pipeline = FeaturePipeline(windows, bound=1e30)
    market = pipeline.transform(panel.subset(slice(0, 630)))
    for end in (631, 632, 645, 646, 700):
        market = pipeline.update(market, panel.subset(slice(market.n_bars, end)))
    whole = pipeline.transform(panel)
    assert market.features.tobytes() == whole.features.tobytes()


def test_a_reference_that_does_not_trade_every_day_has_returns_of_0_between():
    panel, weekdays = stocks_beside_crypto()
    stock = Bars(panel, panel.assets[2])
    market = stock.market_returns[:, 0]
    np.testing.assert_array_equal(market[1:][~weekdays[1:]], 0.0)
    known = weekdays & ~np.isnan(stock.returns[:, 2])
    np.testing.assert_array_equal(market[known], stock.returns[known, 2])
    correlation = INDICATORS["market_corr"].at(20).compute(stock)
    np.testing.assert_allclose(correlation[30:][weekdays[30:], 2], 1.0)


def test_a_timeframe_holds_the_last_period_in_which_the_asset_has_a_bar():
    times = pd.date_range("2024-01-01", periods=96, freq="h").as_unit("ns").to_numpy()
    close = np.outer(np.linspace(100, 200, 96), [1.0, 1.0])
    hours = np.arange(96) % 24
    close[(hours < 9) | (hours > 15), 1] = np.nan  # hours of an exchange
    panel = PricePanel(times, ("coin", "stock"), close)
    (feature,) = select(("4h:return_1",), panel)
    values = values_of(feature, panel)[:, 1]
    # at 9:00 of the second day the last closed four hours in which it traded ended at 15:00
    expected = close[24 - 9, 1] / close[24 - 13, 1] - 1
    assert values[24 + 9] == pytest.approx(expected)


@indicator("mine", "mean of c over w bars", windows=(5,), per_asset=True)
def own_mean(bars, w):
    return pd.DataFrame(bars.close).rolling(w).mean()


@indicator("mine", "mean of c over w rows", windows=(5,))
def row_mean(bars, w):
    return pd.DataFrame(bars.close).rolling(w).mean()


def test_a_feature_of_your_own_may_count_own_bars_too():
    panel, weekdays = stocks_beside_crypto()
    own, row = (
        FeaturePipeline((one,), bound=1e30).transform(panel) for one in (own_mean, row_mean)
    )
    expected = pd.Series(panel.close[weekdays, 2]).rolling(5).mean().fillna(0.0)
    np.testing.assert_allclose(own.features[weekdays, 2, 0], expected, rtol=1e-6)
    known = own.features[:, :, 0] != 0
    assert known[4:, :2].all()
    assert known[10:][weekdays[10:], 2:].all()
    assert 0.1 < (row.features[10:, 2, 0] != 0).mean() < 0.2  # Fridays only
