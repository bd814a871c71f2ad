"""No feature knows the future, and a market that grows by a bar agrees with one made at once."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import examples
from helpers.panels import closes_only, panel_of, rewritten_after
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import DataError, load_market
from portfolio_env.features import PRESETS, FeaturePipeline, select
from portfolio_env.features.bars import Bars
from portfolio_env.features.own_rows import first_row
from portfolio_env.features.pipeline import _values
from portfolio_env.features.registry import ALL

EVERYTHING = ("full", "levels", "roc_5", "williams_r_14", "momentum_60", "volume_strength_5")
BARS = 420


@pytest.fixture(scope="module", params=["D", "B", "h"])
def panel(request):
    return panel_of(request.param, BARS)


def differing(first, second, names):
    """The features, by name, that differ in a bit."""
    return [
        name for f, name in enumerate(names) if first[..., f].tobytes() != second[..., f].tobytes()
    ]


def observed(panel, names=EVERYTHING, **options):
    return FeaturePipeline(names, bound=1e30, **options).transform(panel)


@examples(60)
@given(t=st.integers(0, BARS - 1), seed=st.integers(0, 2**16), reference=st.sampled_from([None, 1]))
def test_nothing_after_t_changes_any_feature_up_to_t(panel, t, seed, reference):
    reference = reference and panel.assets[reference]
    before = observed(panel, reference=reference)
    after = observed(rewritten_after(panel, t, seed), reference=reference)
    cut = slice(0, t + 1)
    assert not differing(before.features[cut], after.features[cut], before.feature_names)
    if t < BARS - 1:  # and something did change, where bars did
        assert len(differing(before.features, after.features, before.feature_names)) > 100


@examples(60)
@given(t=st.integers(0, BARS - 1))
def test_truncating_at_t_gives_the_same_last_row(panel, t):
    whole = observed(panel)
    cut = observed(panel.subset(slice(0, t + 1)))
    assert cut.feature_names == whole.feature_names
    assert not differing(cut.features[-1], whole.features[t], whole.feature_names)


@examples(10)
@given(t=st.integers(330, BARS - 1), seed=st.integers(0, 2**16))
@pytest.mark.parametrize("scaler", ["robust", "standard", "rank"])
@pytest.mark.parametrize("preset", PRESETS)
def test_fitted_presets_know_nothing_of_later_rows(preset, scaler, t, seed):
    panel = panel_of("D", BARS)
    changed = rewritten_after(panel, t, seed)
    first, second = (
        FeaturePipeline(preset, scaler=scaler).fit(one, t + 1) for one in (panel, changed)
    )
    assert first.to_dict() == second.to_dict()
    before, after = first.transform(panel), second.transform(changed)
    assert before.past(t).hash == after.past(t).hash


@examples(10)
@given(t=st.integers(0, BARS - 1), seed=st.integers(0, 2**16))
def test_closes_alone_know_nothing_of_the_future(t, seed):
    panel = panel_of("D", BARS)
    first, second = (observed(closes_only(one)) for one in (panel, rewritten_after(panel, t, seed)))
    assert len(first.feature_names) > 50
    cut = slice(0, t + 1)
    assert not differing(first.features[cut], second.features[cut], first.feature_names)


@pytest.mark.parametrize("frequency", ["D", "B", "h"])
def test_what_a_feature_declares_to_remember_gives_its_value(frequency):
    panel = panel_of(frequency, 4500, assets=4, seed=2)
    whole = Bars(panel)
    for feature in select(EVERYTHING, panel):
        expected = _values(feature, whole)
        if feature.memory == ALL:
            continue
        for t in (2000, 3333, 4499):
            past = panel.past(t)
            first = first_row(np.isfinite(past.close), past.tradable, t, feature.memory)
            tail = _values(feature, Bars(panel.subset(slice(first, t + 1))))[-1]
            np.testing.assert_array_equal(np.isnan(tail), np.isnan(expected[t]), feature.name)
            scale = np.maximum(1, np.abs(expected[t]))
            np.testing.assert_allclose(
                tail / scale, expected[t] / scale, atol=1e-10, rtol=0, err_msg=feature.name
            )


@pytest.mark.parametrize("frequency", ["D", "B", "h"])
@pytest.mark.parametrize("steps", [(1,) * 7, (30,), (1, 40, 2)])
def test_a_growing_market_equals_one_made_at_once(frequency, steps):
    panel = panel_of(frequency, 1500, assets=4)
    pipeline = FeaturePipeline(("full", "obv_level")).fit(panel, 900)
    first = 1500 - sum(steps)
    market = start = pipeline.transform(panel.subset(slice(0, first)))
    for step in steps:
        end = market.n_bars + step
        market = pipeline.update(market, panel.subset(slice(market.n_bars, end)))
    whole = pipeline.transform(panel)
    assert market.feature_names == whole.feature_names
    np.testing.assert_array_equal(market.timestamps, whole.timestamps)
    for name in ("open", "high", "low", "close", "volume", "tradable"):
        np.testing.assert_array_equal(getattr(market, name), getattr(whole, name))
    # float32 may round the last of 24 bits either way
    np.testing.assert_allclose(market.features, whole.features, rtol=2e-7, atol=1e-9)
    assert (market.features == whole.features).mean() > 0.9999
    assert start.n_bars == first
    assert start.hash == pipeline.transform(panel.subset(slice(0, first))).hash


def test_two_futures_of_one_market_do_not_mix():
    panel = panel_of("D", 400)
    pipeline = FeaturePipeline("technical")
    market = pipeline.transform(panel.subset(slice(0, 300)))
    grown = pipeline.update(market, panel.subset(slice(300, 301)))
    other = rewritten_after(panel, 300, seed=1)
    left = pipeline.update(grown, panel.subset(slice(301, 350)))
    right = pipeline.update(grown, other.subset(slice(301, 350)))
    assert left.hash == pipeline.transform(panel.subset(slice(0, 350))).hash
    assert right.hash == pipeline.transform(other.subset(slice(0, 350))).hash
    assert grown.hash == pipeline.transform(panel.subset(slice(0, 301))).hash
    for one in (market, grown, left, right):
        with pytest.raises(ValueError, match="read-only"):
            one.features[0] = 1


def test_bars_that_do_not_continue_a_market_are_refused():
    panel = panel_of("D", 100)
    pipeline = FeaturePipeline()
    market = pipeline.transform(panel.subset(slice(0, 90)))
    later = panel.subset(slice(90, 100))
    for bars, text in (
        (panel.subset(slice(89, 100)), "give later bars only"),
        (later.subset(columns=[1, 0, 2]), "give the same"),
        (replace(later, exogenous={}), "give the same"),
        (replace(later, volume=None), r"only one of panel and new bars has \['volume'\]"),
    ):
        with pytest.raises(DataError, match=text):
            pipeline.update(market, bars)
    with pytest.raises(DataError, match="update it with the pipeline that made it"):
        FeaturePipeline("technical").update(market, later)
    assert pipeline.update(market, later).hash == load_market(panel).hash
