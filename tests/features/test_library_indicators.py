"""The group "ta": by the code of `ta`, and nothing of the future in it."""

import builtins
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import ta
from helpers import examples
from helpers.panels import panel_of, rewritten_after
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import ArgumentError, DataError
from portfolio_env.features import GROUPS, FeaturePipeline, select
from portfolio_env.features.bars import Bars
from portfolio_env.market.panel import BAR_FIELDS

BARS = 260
WINDOWS = {"cci_9", "aroon_up_14", "vortex_neg_7", "dpo_11", "kama_ratio_5", "cmf_10", "stochrsi_7"}


def features_of(panel):
    return select(("ta", *sorted(WINDOWS)), panel)


def computed(feature, panel):
    return np.broadcast_to(feature.compute(Bars(panel)), panel.close.shape)


def mean(x, w):
    return x.rolling(w).mean()


DIRECT = {
    "cci": lambda h, low, c, v, w: ta.trend.CCIIndicator(h, low, c, w).cci() / 100,
    "aroon_up": lambda h, low, c, v, w: ta.trend.AroonIndicator(h, low, w).aroon_up() / 100,
    "aroon_down": lambda h, low, c, v, w: ta.trend.AroonIndicator(h, low, w).aroon_down() / 100,
    "vortex_pos": lambda h, low, c, v, w: ta.trend.VortexIndicator(
        h, low, c, w
    ).vortex_indicator_pos(),
    "vortex_neg": lambda h, low, c, v, w: ta.trend.VortexIndicator(
        h, low, c, w
    ).vortex_indicator_neg(),
    "trix": lambda h, low, c, v, w: ta.trend.TRIXIndicator(c, w).trix() / 100,
    "mass_index": lambda h, low, c, v, w: ta.trend.MassIndex(h, low, 9, w).mass_index() / w - 1,
    "dpo": lambda h, low, c, v, w: ta.trend.DPOIndicator(c, w).dpo() / c,
    "kst": lambda h, low, c, v, w: ta.trend.KSTIndicator(c).kst() / 1000,
    "kst_signal": lambda h, low, c, v, w: ta.trend.KSTIndicator(c).kst_sig() / 1000,
    "stc": lambda h, low, c, v, w: ta.trend.STCIndicator(c).stc() / 100,
    "ichimoku_conversion": lambda h, low, c, v, w: (
        ta.trend.IchimokuIndicator(h, low).ichimoku_conversion_line() / c - 1
    ),
    "ichimoku_base": lambda h, low, c, v, w: (
        ta.trend.IchimokuIndicator(h, low).ichimoku_base_line() / c - 1
    ),
    "ichimoku_a": lambda h, low, c, v, w: ta.trend.IchimokuIndicator(h, low).ichimoku_a() / c - 1,
    "ichimoku_b": lambda h, low, c, v, w: ta.trend.IchimokuIndicator(h, low).ichimoku_b() / c - 1,
    "tsi": lambda h, low, c, v, w: ta.momentum.TSIIndicator(c).tsi() / 100,
    "ultimate_oscillator": lambda h, low, c, v, w: (
        ta.momentum.UltimateOscillator(h, low, c).ultimate_oscillator() / 100
    ),
    "stochrsi": lambda h, low, c, v, w: ta.momentum.StochRSIIndicator(c, w).stochrsi(),
    "stochrsi_k": lambda h, low, c, v, w: ta.momentum.StochRSIIndicator(c, w).stochrsi_k(),
    "stochrsi_d": lambda h, low, c, v, w: ta.momentum.StochRSIIndicator(c, w).stochrsi_d(),
    "pvo": lambda h, low, c, v, w: ta.momentum.PercentageVolumeOscillator(v).pvo() / 100,
    "pvo_signal": lambda h, low, c, v, w: (
        ta.momentum.PercentageVolumeOscillator(v).pvo_signal() / 100
    ),
    "pvo_diff": lambda h, low, c, v, w: ta.momentum.PercentageVolumeOscillator(v).pvo_hist() / 100,
    "kama_ratio": lambda h, low, c, v, w: c / ta.momentum.KAMAIndicator(c, w).kama() - 1,
    "awesome_oscillator": lambda h, low, c, v, w: (
        ta.momentum.AwesomeOscillatorIndicator(h, low).awesome_oscillator() / c
    ),
    "ulcer_index": lambda h, low, c, v, w: ta.volatility.UlcerIndex(c, w).ulcer_index() / 100,
    "keltner_percent": lambda h, low, c, v, w: ta.volatility.KeltnerChannel(
        h, low, c, w
    ).keltner_channel_pband(),
    "keltner_width": lambda h, low, c, v, w: (
        ta.volatility.KeltnerChannel(h, low, c, w).keltner_channel_wband() / 100
    ),
    "donchian_percent": lambda h, low, c, v, w: ta.volatility.DonchianChannel(
        h, low, c, w
    ).donchian_channel_pband(),
    "donchian_width": lambda h, low, c, v, w: (
        ta.volatility.DonchianChannel(h, low, c, w).donchian_channel_wband() / 100
    ),
    "cmf": lambda h, low, c, v, w: ta.volume.ChaikinMoneyFlowIndicator(
        h, low, c, v, w
    ).chaikin_money_flow(),
    "force_index": lambda h, low, c, v, w: (
        ta.volume.ForceIndexIndicator(c, v, w).force_index()
        / (c * v.ewm(span=w, adjust=False).mean())
    ),
    "ease_of_movement": lambda h, low, c, v, w: (
        ta.volume.EaseOfMovementIndicator(h, low, v, w).sma_ease_of_movement()
        / 1e8
        * mean(v, w)
        / mean(h - low, w) ** 2
    ),
}


def stem_of(feature):
    return feature.name.removesuffix(f"_{feature.window}")


def test_every_indicator_is_that_of_ta_from_its_lookback_on():
    panel = panel_of("D", 900, assets=2, ragged=False)
    series = [pd.Series(getattr(panel, name)[:, 1]) for name in BAR_FIELDS[1:]]
    features = features_of(panel)
    assert {stem_of(feature) for feature in features} == set(DIRECT)
    for feature in features:
        values = computed(feature, panel)[:, 1]
        assert np.argmax(~np.isnan(values)) == feature.lookback, feature.name
        # ta starts KAMA one bar earlier, with the last close for the one before the first
        first = 800 if feature.name.startswith("kama") else feature.lookback
        direct = DIRECT[stem_of(feature)](*series, feature.window).to_numpy()
        np.testing.assert_allclose(
            values[first:], direct[first:], rtol=1e-9, atol=1e-11, err_msg=feature.name
        )


BOUNDS = {
    **dict.fromkeys(("aroon_up", "aroon_down", "stc", "ultimate_oscillator"), (0, 1)),
    **dict.fromkeys(("stochrsi", "stochrsi_k", "stochrsi_d", "donchian_percent"), (0, 1)),
    **dict.fromkeys(("tsi", "cmf"), (-1, 1)),
    **dict.fromkeys(("vortex_pos", "vortex_neg", "ulcer_index", "keltner_width"), (0, 10)),
    "donchian_width": (0, 10),
}


@pytest.mark.parametrize("frequency", ["D", "h"])
def test_values_are_bounded_and_mostly_small(frequency):
    panel = panel_of(frequency, 900, assets=4)
    for feature in features_of(panel):
        values = computed(feature, panel)
        assert not np.isinf(values).any()
        seen = values[~np.isnan(values)]
        low, high = BOUNDS.get(stem_of(feature), (-10, 10))
        assert low - 1e-9 <= seen.min() < seen.max() <= high + 1e-9, feature.name
        assert np.abs(seen).mean() > 1e-4, feature.name
        assert len(seen) > 2000


def bits_differ(first, second):
    return first.tobytes() != second.tobytes()


@examples(15)
@given(t=st.integers(0, BARS - 2), seed=st.integers(0, 2**16))
def test_nothing_after_t_changes_any_of_them_up_to_t(t, seed):
    panel = panel_of("D", BARS)
    other = rewritten_after(panel, t, seed)
    for feature in features_of(panel):
        before, after = computed(feature, panel), computed(feature, other)
        assert not bits_differ(before[: t + 1], after[: t + 1]), feature.name
        assert bits_differ(before, after) or t >= BARS - 80


@examples(15)
@given(t=st.integers(0, BARS - 1))
def test_truncating_at_t_gives_the_same_rows(t):
    panel = panel_of("D", BARS)
    cut = panel.subset(slice(0, t + 1))
    for feature in features_of(panel):
        whole = computed(feature, panel)[: t + 1]
        assert not bits_differ(whole, computed(feature, cut)), feature.name


def test_the_first_close_and_the_last_do_not_meet():
    """What `ta` fills in before the first bar would show even in the first rows that are known."""
    panel = panel_of("D", 120, ragged=False)
    for feature in features_of(panel):
        t = feature.lookback
        far = rewritten_after(panel, t, seed=1)
        assert not bits_differ(computed(feature, panel)[t], computed(feature, far)[t]), feature.name
        if feature.name != "stc":  # is 0 / 0 in a trend without a pause
            assert not np.isnan(computed(feature, panel)[t]).any(), feature.name


def test_windows_count_the_bars_that_exist():
    panel = panel_of("D", 300, assets=2, ragged=False)
    bars = {name: np.array(getattr(panel, name)) for name in BAR_FIELDS}
    gaps = [100, 103, 104, 180]
    there = np.delete(np.arange(300), gaps)
    for values in bars.values():
        values[gaps, 0] = np.nan
    broken, shorter = replace(panel, **bars), panel.subset(there)
    for feature in features_of(panel):
        values = computed(feature, broken)
        np.testing.assert_array_equal(values[:, 1], computed(feature, panel)[:, 1])
        np.testing.assert_array_equal(values[there, 0], computed(feature, shorter)[:, 0])
        assert np.isnan(values[gaps, 0]).all()


def test_what_they_declare_to_remember_gives_their_value():
    panel = panel_of("D", 7600, assets=2, seed=2, ragged=False)
    whole = Bars(panel)
    for feature in features_of(panel):
        expected = feature.compute(whole)
        for t in (7001, 7599):
            tail = Bars(panel.subset(slice(max(0, t - feature.memory), t + 1)))
            np.testing.assert_allclose(
                feature.compute(tail)[-1], expected[t], rtol=0, atol=1e-12, err_msg=feature.name
            )


@pytest.mark.parametrize("what", ["prices", "volume", "both"])
def test_prices_that_stand_still_and_silent_bars_give_no_warning(what):
    panel = panel_of("D", 300, ragged=False)
    bars = {name: np.array(getattr(panel, name)) for name in BAR_FIELDS}
    still = slice(100, 200)
    if what != "volume":
        for name in ("open", "high", "low", "close"):
            bars[name][still] = bars["close"][99]
    if what != "prices":
        bars["volume"][still] *= 0
    odd = replace(panel, **bars)
    for feature in features_of(odd):
        values = computed(feature, odd)
        assert not np.isinf(values).any()
        low, high = BOUNDS.get(stem_of(feature), (-1e4, 1e4))
        seen = values[~np.isnan(values)]
        assert (seen >= low - 1e-9).all() and (seen <= high + 1e-9).all(), feature.name


def test_the_group_is_switched_on_by_name_and_not_part_of_full():
    panel = panel_of("D", 150)
    assert "ta" in GROUPS
    assert not any(feature.group == "ta" for feature in select(("full", "levels"), panel))
    market = FeaturePipeline(("ta", "rsi_14")).transform(panel)
    assert len(market.feature_names) == len(DIRECT) + 1
    assert "cci_20" in market.feature_names and market.warmup == 71
    with pytest.raises(ArgumentError, match="dpo_3 is too short"):
        select("dpo_3", panel)


def test_a_growing_market_equals_one_made_at_once():
    panel = panel_of("D", 300)
    pipeline = FeaturePipeline("ta").fit(panel, 200)
    market = pipeline.transform(panel.subset(slice(0, 290)))
    for t in range(290, 300):
        market = pipeline.update(market, panel.subset(slice(t, t + 1)))
    whole = pipeline.transform(panel)
    np.testing.assert_allclose(market.features, whole.features, rtol=2e-7, atol=1e-9)


def test_without_ta_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name == "ta":
            raise ImportError("No module named 'ta'")
        return real(name, *rest)

    panel = panel_of("D", 60)
    monkeypatch.delitem(sys.modules, "ta")
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DataError, match="pip install ta"):
        FeaturePipeline("cci_20").transform(panel)
