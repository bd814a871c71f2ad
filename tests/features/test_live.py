"""Markets that grow bar by bar: equal to those made at once, at a cost that does not grow."""

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import ArgumentError, PricePanel
from portfolio_env.features import FeaturePipeline, pipeline
from portfolio_env.features.tails import Tails

FEATURES = ("minimal", "rsi_5", "ema_ratio_5", "market_corr_20", "return_rank_5")
REACH = 1 << 8  # rows that the longest of them remembers, and a quarter more, as a power of 2


def bars_of(seed, rows=700, assets=4, missing=0.0):
    """Minutes of assets of which some begin late, some bars are missing, and one ends."""
    rng = np.random.default_rng(seed)
    times = np.datetime64("2024-01-01", "ns") + np.arange(rows) * np.timedelta64(60, "s")
    close = 50 * np.exp(rng.normal(0, 0.01, (rows, assets)).cumsum(0))
    gone = rng.random(close.shape) < missing
    gone[:, 0] = False
    begins = rng.integers(0, rows, assets)
    begins[:2] = 0
    gone |= np.arange(rows)[:, None] < begins
    gone[rows // 2 :, 1] |= bool(rng.integers(2))
    close[gone] = np.nan
    volume = np.where(gone, np.nan, rng.integers(0, 9, close.shape) * 1.0 + (rng.random() > 0.5))
    names = [f"A{i}" for i in range(assets)]
    return PricePanel(times, names, close, close * 1.01, close * 1.02, close * 0.99, volume)


@given(st.integers(0, 999), st.sampled_from([0.0, 0.02]), st.sampled_from([None, 1, 300]))
def test_a_live_market_equals_one_made_at_once_to_the_bit(seed, missing, keep):
    panel = bars_of(seed, missing=missing)
    made = FeaturePipeline(FEATURES).fit(panel, 400)
    market = made.transform(panel.subset(slice(0, 450)))
    steps = np.random.default_rng(seed).integers(1, 60, 40)
    at = 450
    for step in steps:
        end = min(at + int(step), 700)
        if end > at:
            market = made.update(market, panel.subset(slice(at, end)), keep)
        at = end
    whole = made.transform(panel)
    kept = market.n_bars
    assert kept == 700 if keep is None else kept >= keep
    np.testing.assert_array_equal(market.timestamps, whole.timestamps[-kept:])
    np.testing.assert_array_equal(market.close, whole.close[-kept:])
    np.testing.assert_array_equal(market.features, whole.features[-kept:])
    assert market.warmup == max(0, whole.warmup - (700 - kept))
    assert keep is not None or market.hash == whole.hash


def test_the_warm_up_of_a_market_that_began_short_goes_on():
    panel = bars_of(4)
    made = FeaturePipeline(FEATURES)
    whole = made.transform(panel)
    assert whole.warmup > 10
    for keep in (None, 1):
        market = made.transform(panel.subset(slice(0, 3)))
        ends = [3, *range(4, 40), 300, 700]
        for begin, end in itertools.pairwise(ends):
            market = made.update(market, panel.subset(slice(begin, end)), keep)
            assert market.warmup == max(0, min(whole.warmup, end) - (end - market.n_bars))


@given(st.integers(0, 999), st.integers(1, 40))
def test_assets_that_did_not_trade_are_compared_all_the_same(seed, step):
    """Of assets that have few bars, and some of those without volume."""
    rng = np.random.default_rng(seed)
    times = np.datetime64("2024-01-01", "ns") + np.arange(400) * np.timedelta64(1, "h")
    close = 50 * np.exp(rng.normal(0, 0.01, (400, 4)).cumsum(0))
    close[rng.random(400) < 0.9, 1] = np.nan
    close[:, 2] = np.where(np.arange(400) % 24 == 0, close[:, 2], np.nan)
    volume = np.where(np.isnan(close), np.nan, 1.0 * (rng.random(close.shape) < 0.7))
    volume[:, 3] = 0.0
    panel = PricePanel(times, "ABCD", close, close, close, close, volume)
    made = FeaturePipeline(("return_rank_5", "relative_strength_20", "dollar_volume_rank_20"))
    whole = made.transform(panel)
    market = made.transform(panel.subset(slice(0, 200)))
    for at in range(200, 400, step):
        market = made.update(market, panel.subset(slice(at, min(at + step, 400))))
    np.testing.assert_array_equal(market.features, whole.features)


@given(st.integers(0, 999), st.sampled_from(["stocks", "currencies"]), st.sampled_from([1, 5]))
def test_a_day_is_over_when_the_next_one_begins(seed, kind, step):
    """Hours with pauses, of which some are missing: nobody knows yet that no other one comes."""
    rng = np.random.default_rng(seed)
    times = np.arange("2024-01-01", "2024-03-15", dtype="M8[h]")
    of_week = (times - np.datetime64("2024-01-01", "h")).astype(int) % 168
    day, hour = of_week // 24, of_week % 24
    is_open = {
        "stocks": (day < 5) & (hour >= 14) & (hour <= 20),
        "currencies": (of_week < 118) | (of_week >= 166),
    }[kind]
    times = times[is_open & (rng.random(len(times)) > 0.02)].astype("M8[ns]")
    close = 50 * np.exp(rng.normal(0, 0.01, (len(times), 3)).cumsum(0))
    close[rng.random(close.shape) < 0.02] = np.nan
    panel = PricePanel(times, "ABC", close)
    made = FeaturePipeline(("1d:return_1", "1d:volatility_6", "1w:return_1"))
    whole = made.transform(panel)
    half = len(times) // 2
    market = made.transform(panel.subset(slice(0, half)))
    for at in range(half, half + 100, step):
        market = made.update(market, panel.subset(slice(at, at + step)))
        np.testing.assert_array_equal(market.features, whole.features[: at + step])
    cut = half + 100 + rng.integers(0, 30)
    np.testing.assert_array_equal(
        made.transform(panel.subset(slice(0, cut))).features, whole.features[:cut]
    )


def test_what_an_update_reads_does_not_grow_with_the_market(monkeypatch):
    read = []
    own = pipeline.Bars

    def counted(panel, reference=None):
        read.append(len(panel.timestamps))
        return own(panel, reference)

    monkeypatch.setattr(pipeline, "Bars", counted)
    panel = bars_of(3, rows=4000)
    made = FeaturePipeline(FEATURES)
    found = []
    for begin in (3000, 0):
        market = made.transform(panel.subset(slice(begin, 3900)))
        read.clear()
        made.update(market, panel.subset(slice(3900, 3901)))
        found.append(sorted(read))
    assert found[0] == found[1]
    assert max(found[0]) <= 2 * REACH


def test_nothing_is_copied_when_a_bar_comes():
    panel = bars_of(1)
    made = FeaturePipeline("minimal")
    first = made.transform(panel.subset(slice(0, 600)))
    second = made.update(first, panel.subset(slice(600, 601)))
    third = made.update(second, panel.subset(slice(601, 602)))
    for name in ("timestamps", "close", "volume", "tradable", "features"):
        one, other = getattr(second, name), getattr(third, name)
        assert np.shares_memory(one, other)
        assert not np.shares_memory(getattr(first, name), other)
        with pytest.raises(ValueError, match="read-only"):
            other[0] = other[1]
    again = pickle.loads(pickle.dumps(third))
    assert again.hash == third.hash
    assert made.update(again, panel.subset(slice(602, 610))).n_bars == 610


def test_a_ring_stays_as_long_as_it_is_asked_to_be():
    panel = bars_of(2, rows=2000)
    made = FeaturePipeline("minimal")
    market = made.transform(panel.subset(slice(0, 1000)))
    for at in range(1000, 1100):
        market = made.update(market, panel.subset(slice(at, at + 1)), keep=200)
        assert market.n_bars == 200
    room = market.panel.__dict__["_room"].arrays["close"]
    assert len(room._rows) < 2 * 1000  # of those before, and of what came
    with pytest.raises(ArgumentError, match="keep=0 must be"):
        made.update(market, panel.subset(slice(1100, 1101)), keep=0)


def test_a_feature_of_all_bars_keeps_them_all():
    panel = bars_of(2)
    made = FeaturePipeline("obv_level")
    market = made.transform(panel.subset(slice(0, 600)))
    market = made.update(market, panel.subset(slice(600, 700)), keep=10)
    np.testing.assert_array_equal(market.features, made.transform(panel).features)


@given(st.integers(0, 999), st.integers(0, 40), st.integers(1, 60), st.floats(0, 0.9))
def test_the_first_row_is_far_enough_back_for_every_asset(seed, memory, newest, missing):
    panel = bars_of(seed, rows=150, missing=missing)
    start = 150 - newest
    first = Tails(panel, start).first_row(memory)
    traded, present = panel.tradable, np.isfinite(panel.close)
    for i in np.flatnonzero(traded[start:].any(0)):
        assert traded[first:start, i].sum() > memory or not present[:first, i].any()
    base = min(first, start)
    assert 0 <= base <= max(0, start - memory)


def test_first_bars_are_carried_along():
    panel = bars_of(5, missing=0.3)
    grown = panel.subset(slice(0, 10))
    for at in range(10, 700, 30):
        grown = grown.extended(panel.subset(slice(at, at + 30)))
        np.testing.assert_array_equal(grown.first_bars, panel.past(at + 29).first_bars)
    np.testing.assert_array_equal(grown.without(100).first_bars, panel.first_bars - 100)
