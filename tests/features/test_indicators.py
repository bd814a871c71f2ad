"""Indicators against an independent oracle, and what must be true of each."""

import warnings
from dataclasses import replace
from datetime import timedelta
from functools import cache

import numpy as np
import pytest
from helpers import examples
from helpers.oracles import indicator_oracle, indicator_oracle_others
from helpers.oracles.arithmetic import EXPECTED, assets_of, on_longer_bars
from helpers.panels import panel_of
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import PricePanel
from portfolio_env.features import select
from portfolio_env.features.bars import Bars
from portfolio_env.features.registry import INDICATORS
from portfolio_env.market.panel import BAR_FIELDS

PRICES = ("open", "high", "low", "close")
ALIASES = ("roc_5", "williams_r_14", "momentum_60", "volume_strength_5")
EVERYTHING = ("full", "levels", *ALIASES)
LENGTH = {"D": timedelta(days=1), "B": timedelta(days=1), "h": timedelta(hours=1)}
BARS = 420


def computed(feature, panel, reference=None):
    """Values of a feature, (T, N)."""
    return np.broadcast_to(feature.compute(Bars(panel, reference)), panel.close.shape)


def indicators(panel, names=EVERYTHING):
    """The features that indicators declare, those on longer bars included."""
    return [f for f in select(names, panel) if f.group not in ("known", "exogenous")]


@cache
def damaged_panel(frequency):
    """A random ragged panel with missing bars, silent bars and prices that stand still."""
    panel = panel_of(frequency, BARS, assets=4, seed=11)
    rng = np.random.default_rng(3)
    bars = {name: np.array(getattr(panel, name)) for name in BAR_FIELDS}
    missing = np.zeros(panel.close.shape, bool)
    missing[330:, 0] = rng.random(BARS - 330) < 0.03  # the history before is long enough for all
    missing[:, 2] = rng.random(BARS) < 0.04
    missing[40:48, 3] = True
    for values in bars.values():
        values[missing] = np.nan
    for name in PRICES:
        bars[name][60:100, 2:] = np.where(np.isnan(bars[name][60:100, 2:]), np.nan, 7.3)
        bars[name][280:310, 1] = bars["close"][279, 1]
    silent = rng.random(panel.close.shape) < 0.02
    silent[:310, 0] = False
    silent[200:230, 3] = True
    bars["volume"][silent & ~np.isnan(bars["volume"])] = 0.0
    bars["volume"][120:150, 3] = np.where(np.isnan(bars["volume"][120:150, 3]), np.nan, 5e5)
    return replace(panel, **bars)


def expected(feature, panel, reference=None):
    """The same by the oracle, (T, N)."""
    timeframe, _, name = feature.name.rpartition(":")
    stem = name if feature.window is None else name.removesuffix(f"_{feature.window}")
    window = () if feature.window is None else (feature.window,)
    frequency = {252: "B", 365: "D", 8760: "h"}[panel.periods_per_year]

    def values(asset):
        if not timeframe and INDICATORS[stem].per_asset:
            return asset.by_itself(lambda own: EXPECTED[stem](own, *window))
        if not timeframe:
            return EXPECTED[stem](asset, *window)
        options = (timeframe, LENGTH[frequency], frequency == "B")
        return on_longer_bars(asset, *options, lambda upper: EXPECTED[stem](upper, *window))

    return np.array([values(asset) for asset in assets_of(panel, reference)]).T


def test_every_indicator_has_an_oracle():
    for module in (indicator_oracle, indicator_oracle_others):
        assert module.__name__ in {function.__module__ for function in EXPECTED.values()}
    assert set(EXPECTED) == {one.name for one in INDICATORS.values() if one.group != "ta"}


@pytest.mark.parametrize("frequency", ["D", "B", "h"])
def test_indicators_agree_with_plain_python(frequency):
    panel = damaged_panel(frequency)
    features = indicators(panel)
    assert len(features) > 150
    for feature in features:
        if frequency != "D" and feature.group not in ("timeframes", "calendar"):
            continue
        values, truth = computed(feature, panel), expected(feature, panel)
        np.testing.assert_array_equal(np.isnan(values), np.isnan(truth), feature.name)
        np.testing.assert_allclose(values, truth, rtol=1e-9, atol=1e-12, err_msg=feature.name)
        assert np.isfinite(values).mean() > 0.1, feature.name


@pytest.mark.parametrize("reference", ["A00", "A02"])
def test_cross_asset_indicators_agree_for_a_reference(reference):
    panel = damaged_panel("D")
    for feature in indicators(panel, ("cross_asset",)):
        np.testing.assert_allclose(
            computed(feature, panel, reference),
            expected(feature, panel, reference),
            rtol=1e-9,
            atol=1e-12,
            err_msg=feature.name,
        )


@pytest.mark.parametrize("frequency", ["D", "B", "h"])
def test_indicators_are_known_from_their_lookback_on(frequency):
    whole = panel_of(frequency, 1200, assets=2, ragged=False)
    for feature in indicators(whole):
        known = ~np.isnan(computed(feature, whole))
        first = np.argmax(known, axis=0)
        assert known[first.max() :].all(), feature.name
        if feature.group == "timeframes":
            assert (first <= feature.lookback).all(), feature.name
        else:
            assert (first == feature.lookback).all(), (feature.name, first)


def scaled(panel, names, factor):
    return replace(panel, **{name: factor * getattr(panel, name) for name in names})


@examples(15)
@given(exponent=st.integers(-20, 20), names=st.sampled_from([PRICES, ("volume",)]))
def test_units_of_prices_and_volumes_change_nothing_but_levels(exponent, names):
    """Powers of two, so that no bit is rounded; the next test takes other factors."""
    panel = damaged_panel("D")
    other = scaled(panel, names, 2.0**exponent)
    for feature in indicators(panel, ("full", *ALIASES)):
        np.testing.assert_allclose(
            computed(feature, other),
            computed(feature, panel),
            rtol=1e-9,
            atol=1e-11,
            err_msg=feature.name,
        )


@pytest.mark.parametrize("factor", [3e-7, 0.9, 1e6 / 7])
def test_assets_may_have_units_of_their_own(factor):
    panel = panel_of("D", 500)
    own = np.array([factor, 1.0, 1 / factor])
    other = scaled(panel, PRICES, own)
    for feature in indicators(panel, ("full", *ALIASES)):
        if feature.name.startswith("dollar_volume_rank"):
            continue  # compares money between assets
        np.testing.assert_allclose(
            computed(feature, other),
            computed(feature, panel),
            rtol=1e-6,
            atol=1e-8,
            err_msg=feature.name,
        )


@given(order=st.permutations(range(4)))
@examples(10)
def test_permuted_assets_have_permuted_features(order):
    panel = damaged_panel("D")
    other = panel.subset(columns=order)
    for feature in indicators(panel):
        np.testing.assert_allclose(
            computed(feature, other),
            computed(feature, panel)[:, order],
            rtol=1e-9,
            atol=1e-12,
            err_msg=feature.name,
        )


BOUNDS = {
    **dict.fromkeys(("rsi", "stoch_k", "stoch_d", "mfi", "adx", "close_location"), (0, 1)),
    **dict.fromkeys(("adx_pos", "adx_neg", "flow_toxicity", "volatility_tercile"), (0, 1)),
    **dict.fromkeys(("trend_regime", "volatility_regime", "momentum_regime"), (0, 1)),
    **dict.fromkeys(("composite_regime", "session_asia", "session_europe", "session_us"), (0, 1)),
    **dict.fromkeys(("obv_change", "market_corr", "lead_lag_corr", "return_rank"), (-1, 1)),
    **dict.fromkeys(("dollar_volume_rank", "vol_ret_corr", "risk_regime"), (-1, 1)),
    **dict.fromkeys(("hour_sin", "hour_cos", "weekday_sin", "weekday_cos"), (-1, 1)),
    **dict.fromkeys(("monthday_sin", "monthday_cos", "yearday_sin", "yearday_cos"), (-1, 1)),
    **dict.fromkeys(("williams_r", "drawdown"), (-1, 0)),
    **dict.fromkeys(("volatility", "atr", "bb_width", "parkinson", "garman_klass"), (0, np.inf)),
    **dict.fromkeys(("return_dispersion", "volume_volatility", "variance_ratio"), (0, np.inf)),
    **dict.fromkeys(("return", "roc", "momentum", "market_return"), (-1, np.inf)),
    **dict.fromkeys(("sma_ratio", "ema_ratio", "vwap_ratio"), (-1, np.inf)),
    "hl_spread": (0, 3),
    "corwin_schultz": (0, 2),
    "bb_high": (-1, np.inf),
}


def bounds_of(feature):
    name = feature.name.rpartition(":")[2]
    stem = name if feature.window is None else name.removesuffix(f"_{feature.window}")
    return BOUNDS.get(stem, (-np.inf, np.inf))


def test_docstrings_state_the_bounds_that_are_tested():
    for one in INDICATORS.values():
        said = " in [" in (one.compute.__doc__ or "") or " in (" in (one.compute.__doc__ or "")
        assert not said or one.name in BOUNDS or one.group == "ta", one.name


STEPS = {
    "calm": lambda rng, shape: rng.normal(0, 0.01, shape),
    "wild": lambda rng, shape: rng.standard_t(1, shape).clip(-8, 8) / 2,
    "flat": lambda rng, shape: np.zeros(shape),
    "tiny": lambda rng, shape: rng.choice([0.0, 1e-15, -1e-12], shape),
    "halting": lambda rng, shape: rng.normal(0, 0.1, shape) * (rng.random(shape) < 0.1),
    "rising": lambda rng, shape: np.full(shape, 0.003),
}
VOLUMES = {
    "random": lambda rng, shape: rng.lognormal(10, 2, shape),
    "constant": lambda rng, shape: np.full(shape, 0.1),
    "zero": lambda rng, shape: np.zeros(shape),
    "mostly zero": lambda rng, shape: rng.lognormal(3, 1, shape) * (rng.random(shape) < 0.3),
    "huge": lambda rng, shape: rng.lognormal(0, 20, shape),
}


def odd_panel(seed, steps, volumes, absent):
    """320 daily bars of 3 assets whose prices and volumes behave in a given way."""
    rng = np.random.default_rng(seed)
    shape = (320, 3)
    moves = np.stack([STEPS[kind](rng, shape[0]) for kind in steps], axis=1)
    close = np.exp(np.clip(np.cumsum(moves, axis=0), -40, 40)) * rng.choice([1e-6, 0.1, 3e4], 3)
    wicks = np.exp(np.abs(STEPS[steps[0]](rng, (2, *shape))))
    opened = np.vstack([close[:1], close[:-1]])
    high, low = np.maximum(opened, close) * wicks[0], np.minimum(opened, close) / wicks[1]
    volume = VOLUMES[volumes](rng, shape)
    bars = dict(zip(BAR_FIELDS, (opened, high, low, close, volume), strict=True))
    gone = {
        "nobody": np.zeros(shape, bool),
        "some": rng.random(shape) < 0.02,
        "all but one": np.tile([False, True, True], (shape[0], 1)),
    }[absent]
    for values in bars.values():
        values[gone] = np.nan
    times = np.datetime64("2020-02-28", "ns") + np.arange(320) * np.timedelta64(86400 * 10**9, "ns")
    return PricePanel(times, ("A", "B", "C"), **bars, periods_per_year=365.0)


@examples(60)
@given(
    seed=st.integers(0, 2**16),
    steps=st.lists(st.sampled_from(sorted(STEPS)), min_size=3, max_size=3),
    volumes=st.sampled_from(sorted(VOLUMES)),
    absent=st.sampled_from(["nobody", "some", "all but one"]),
)
def test_odd_bars_give_values_in_bounds_or_nothing_and_no_warning(seed, steps, volumes, absent):
    panel = odd_panel(seed, steps, volumes, absent)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for feature in indicators(panel):
            values = computed(feature, panel)
            assert not np.isinf(values).any(), feature.name
            low, high = bounds_of(feature)
            seen = values[~np.isnan(values)]
            off = 1e-12 * max(1.0, np.abs(seen).max(initial=0))
            assert (seen >= low - off).all() and (seen <= high + off).all(), feature.name
