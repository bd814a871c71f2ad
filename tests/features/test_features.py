import json
import logging
import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
from helpers.panels import rewritten_after
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import ArgumentError, DataError, Market, load_market
from portfolio_env.data.generators.synthetic import synthetic_panel
from portfolio_env.features import PRESETS, FeaturePipeline, pipeline
from portfolio_env.files.atomic import read_json, write_json

MINIMAL = PRESETS["minimal"][:-1]  # the last one stands for the channels of the panel


@pytest.fixture(scope="module")
def panel():
    return synthetic_panel(seed=5, bars=120, assets=3, ragged=True)


def test_minimal_features_agree_with_a_plain_computation(panel):
    market = load_market(panel)
    assert market.feature_names == MINIMAL
    assert market.warmup == 19
    bound = market.feature_bound
    for i in range(len(panel.assets)):
        c, v = panel.close[:, i].tolist(), panel.volume[:, i].tolist()
        for t in range(len(c)):
            expected = dict.fromkeys(MINIMAL, 0.0)
            if t >= 1:
                expected["return_1"] = c[t] / c[t - 1] - 1
                expected["volume_change"] = math.log(v[t] / v[t - 1])
            if t >= 5:
                expected["momentum_5"] = c[t] / c[t - 5] - 1
            if t >= 10:
                returns = [c[k] / c[k - 1] - 1 for k in range(t - 9, t + 1)]
                expected["volatility_10"] = (
                    math.nan if any(map(math.isnan, returns)) else statistics.stdev(returns)
                )
            if t >= 19:
                expected["sma_ratio_20"] = c[t] / (sum(c[t - 19 : t + 1]) / 20) - 1
            row = [0.0 if math.isnan(x) else max(-bound, min(bound, x)) for x in expected.values()]
            np.testing.assert_allclose(market.features[t, i], row, rtol=1e-5, atol=1e-9)


@given(fit_end=st.integers(40, 119), seed=st.integers(0, 2**16))
@pytest.mark.parametrize("scaling", ["pooled", "asset"])
def test_scalers_know_nothing_of_rows_from_fit_end_on(panel, fit_end, seed, scaling):
    changed = rewritten_after(panel, fit_end - 1, seed)
    first = FeaturePipeline(scaling=scaling).fit(panel, fit_end)
    second = FeaturePipeline(scaling=scaling).fit(changed, fit_end)
    assert json.dumps(first.to_dict()) == json.dumps(second.to_dict())


@given(factor=st.floats(1e-6, 1e6))
def test_features_do_not_depend_on_the_unit_of_prices(panel, factor):
    scaled = replace(
        panel, **{name: factor * getattr(panel, name) for name in ("open", "high", "low", "close")}
    )
    np.testing.assert_allclose(load_market(scaled).features, load_market(panel).features, atol=1e-6)


def test_pooled_scaling_is_median_and_interquartile_range_of_tradable_cells():
    panel = synthetic_panel(seed=2, bars=200, assets=4)
    volume = np.array(panel.volume)
    volume[50:60, 1] = 0
    panel = replace(panel, volume=volume)
    pipeline = FeaturePipeline(("return_1",)).fit(panel, 150)
    returns = (panel.close[1:150] / panel.close[:149] - 1)[panel.tradable[1:150]]
    low, median, high = np.quantile(returns, (0.25, 0.5, 0.75))
    assert pipeline.scalers["return_1"].numbers.tolist() == [[median, high - low]]
    raw, scaled = load_market(panel, features=("return_1",)), pipeline.transform(panel)
    t, i = 170, 2
    expected = (panel.close[t, i] / panel.close[t - 1, i] - 1 - median) / (high - low)
    assert scaled.features[t, i, 0] == np.float32(expected)
    assert scaled.hash != raw.hash
    assert scaled.hash == load_market(panel, features=("return_1",), fit_end=150).hash


def test_scaling_by_asset_centres_each_and_pools_assets_not_listed_yet():
    panel = synthetic_panel(seed=2, bars=400, assets=8, ragged=True)
    pooled = FeaturePipeline(("return_1",)).fit(panel, 40)
    by_asset = FeaturePipeline(("return_1",), scaling="asset").fit(panel, 40)
    unlisted = ~panel.tradable[:40].any(axis=0)
    assert unlisted.any() and not unlisted.all()
    assert (
        by_asset.scalers["return_1"].numbers[unlisted] == pooled.scalers["return_1"].numbers
    ).all()
    values = by_asset.transform(panel).features[1:40, ~unlisted, 0]
    assert abs(np.median(values[:, 0])) < 1e-6


def test_features_are_zero_where_nothing_can_be_traded_or_known(market):
    assert not market.features[~market.tradable].any()
    assert (~market.tradable).any()
    assert not market.features[0].any()
    first = np.argmax(market.tradable, axis=0).max()
    assert 0 < first < market.n_bars
    late = int(np.argmax(np.argmax(market.tradable, axis=0)))
    assert not market.features[first, late].any()
    assert market.features[first + 19, late].all()


def test_extremes_are_clipped_to_the_bound():
    panel = synthetic_panel(seed=3, bars=100, assets=2)
    close = np.array(panel.close)
    close[60:, 0] *= 1e4
    bars = {"close": close, "open": None, "high": None, "low": None, "volume": None}
    panel = replace(panel, **bars)
    for bound in (3.0, 0.1, 10.0):
        market = FeaturePipeline(bound=bound).fit(panel, 50).transform(panel)
        assert market.feature_bound == bound
        assert market.features[60, 0, 0] == np.float32(bound)
        assert np.abs(market.features).max() <= np.float32(bound)


def test_constant_features_keep_scale_one():
    panel = synthetic_panel(seed=3, bars=50, assets=2)
    panel = replace(panel, exogenous={"constant": np.full((50, 2), 7.0)})
    market = FeaturePipeline("constant").fit(panel, 20).transform(panel)
    assert market.feature_names == ("constant",)
    assert not market.features.any()


def test_exogenous_channels_pass_through_and_mix():
    panel = synthetic_panel(seed=3, bars=50, assets=2)
    score = np.arange(100.0).reshape(50, 2) / 100
    score[7, 1] = np.nan
    panel = replace(panel, exogenous={"score": score})
    market = load_market(panel, features="score,return_1")
    np.testing.assert_array_equal(market.features[..., 0], np.nan_to_num(score).astype(np.float32))
    assert load_market(panel).feature_names == (*MINIMAL, "score")
    alone = load_market(panel, features="exogenous")
    assert alone.feature_names == ("score",)
    assert alone.warmup == 0


def test_what_the_panel_lacks_is_left_out_and_said(caplog, recwarn):
    panel = synthetic_panel(seed=3, bars=50, assets=2)
    panel = replace(panel, open=None, high=None, low=None, volume=None)
    pipeline._say_once.cache_clear()
    with caplog.at_level(logging.INFO):
        load_market(panel)
        assert not caplog.records  # nobody named it
        market = load_market(panel, features=MINIMAL)
        load_market(panel, features=MINIMAL)
    assert {record.levelname for record in caplog.records} == {"INFO"}
    assert market.feature_names == tuple(name for name in MINIMAL if name != "volume_change")
    assert caplog.text.count("volume_change (needs volume)") == 1
    assert market.panel.provenance["left_out"] == ["volume_change (needs volume)"]
    assert not recwarn.list
    with pytest.raises(DataError, match=r"no feature is left: volume_change \(needs volume\)"):
        load_market(panel, features=("volume_change",))


def test_saved_pipelines_give_the_same_bits(panel, tmp_path):
    for scaling in ("pooled", "asset"):
        pipeline = FeaturePipeline(scaling=scaling).fit(panel, 77)
        pipeline.save(tmp_path / "pipeline.json")
        restored = FeaturePipeline.load(tmp_path / "pipeline.json")
        assert restored.transform(panel).hash == pipeline.transform(panel).hash
    FeaturePipeline(MINIMAL[:2]).save(tmp_path / "unfitted.json")
    unfitted = FeaturePipeline.load(tmp_path / "unfitted.json")
    assert unfitted.transform(panel).feature_names == MINIMAL[:2]
    assert unfitted.names is None
    market = pipeline.transform(panel)
    again = FeaturePipeline.from_dict(market.panel.provenance["features"])
    assert again.transform(market).hash == market.hash


def test_a_fitted_pipeline_serves_load_market():
    fitted = load_market("synthetic?bars=200", fit_end=100)
    pipeline = FeaturePipeline().fit(load_market("synthetic?bars=200"), 100)
    assert load_market("synthetic?bars=200", features=pipeline).hash == fitted.hash
    date = str(fitted.timestamps[100])
    assert load_market("synthetic?bars=200", fit_end=date).hash == fitted.hash


def test_bad_arguments(panel, tmp_path):
    for call, text in (
        (lambda: FeaturePipeline("minimum").fit(panel, 9), "'minimum': did you mean minimal"),
        (lambda: FeaturePipeline(scaler="minmax"), "unknown scaler"),
        (
            lambda: FeaturePipeline(reference="ZZZ", features="market_corr_20").transform(panel),
            "unknown asset 'ZZZ'",
        ),
        (lambda: FeaturePipeline(scaling="none"), "unknown scaling"),
        (lambda: FeaturePipeline(bound=0), "bound=0"),
        (lambda: FeaturePipeline(bound=math.inf), "bound=inf"),
        (lambda: FeaturePipeline(("retrun_1",)).transform(panel), "did you mean return_1"),
        (lambda: FeaturePipeline().fit(panel, 0), "rows to fit on are 0"),
        (lambda: FeaturePipeline().fit(panel, 121), "rows to fit on are 121"),
        (lambda: FeaturePipeline().fit(panel, slice(9, 2)), "rows to fit on are slice"),
        (lambda: FeaturePipeline().fit(panel, slice(0, 90, 2)), "rows to fit on are slice"),
    ):
        with pytest.raises(ArgumentError, match=text):
            call()
    with pytest.raises(DataError, match=r"no value of \['sma_ratio_20'\] in the rows 0 to 15"):
        FeaturePipeline().fit(panel, 15)
    fitted = FeaturePipeline(scaling="asset").fit(panel, 50)
    with pytest.raises(DataError, match="which have another order"):
        fitted.transform(panel.subset(columns=[1, 0, 2]))
    with pytest.raises(DataError, match=f"are of 2, which differ in {panel.assets[2]}"):
        fitted.transform(panel.subset(columns=[1, 0]))
    lack = r"these data lack volume_change \(needs volume\) and add none"
    with pytest.raises(DataError, match=lack):
        fitted.transform(replace(panel, volume=None))
    (tmp_path / "bad.json").write_text('{"features": 3}')
    for name in ("bad.json", "missing.json"):
        with pytest.raises(DataError, match="is not a saved pipeline"):
            FeaturePipeline.load(tmp_path / name)


def test_scalers_may_be_fitted_on_a_range_of_rows(panel):
    ranged = FeaturePipeline("return_1").fit(panel, slice(40, 80))
    returns = panel.close[40:80] / panel.close[39:79] - 1
    expected = np.nanquantile(returns[panel.tradable[40:80]], 0.5)
    assert ranged.scalers["return_1"].numbers[0, 0] == expected
    changed = rewritten_after(panel, 79, seed=1)
    assert FeaturePipeline("return_1").fit(changed, slice(40, 80)).to_dict() == ranged.to_dict()


def test_flags_ranks_and_angles_are_not_scaled():
    panel = synthetic_panel(seed=2, bars=400, assets=4)
    names = ("weekday_sin", "trend_regime", "return_rank_5", "known", "return_1")
    raw = FeaturePipeline(names).transform(panel)
    scaled = FeaturePipeline(names).fit(panel, 300).transform(panel)
    np.testing.assert_array_equal(raw.features[..., :4], scaled.features[..., :4])
    assert (raw.features[1:, :, 4] != scaled.features[1:, :, 4]).all()


def test_known_is_the_share_of_known_features():
    panel = synthetic_panel(seed=2, bars=100, assets=4, ragged=True)
    market = FeaturePipeline(("return_1", "sma_ratio_20", "return_60", "known")).transform(panel)
    for i in range(4):
        first = int(np.argmax(panel.tradable[:, i]))
        last = 99 - int(np.argmax(panel.tradable[::-1, i]))
        for t in range(100):
            age = t - first
            share = ((age >= 1) + (age >= 19) + (age >= 60)) / 3
            listed = first <= t <= last
            assert market.features[t, i, 3] == np.float32(share if listed else 0)


def test_categories_become_codes_and_unseen_labels_become_zero():
    panel = synthetic_panel(seed=2, bars=60, assets=4)
    labels = {"sector": ("Tech", "Energy", "Tech", ""), "region": ("US", "US", "EU", "EU")}
    panel = replace(panel, categories=labels)
    fitted = FeaturePipeline().fit(panel.subset(columns=[0, 1]), 50)
    market = fitted.transform(panel)
    assert market.vocabularies == {"sector": ("Energy", "Tech"), "region": ("US",)}
    assert market.category_codes.tolist() == [[2, 1], [1, 1], [2, 0], [0, 0]]
    unfitted = load_market(panel)
    assert unfitted.category_codes.tolist() == [[2, 2], [1, 2], [2, 1], [0, 1]]
    assert market.select([panel.assets[2], panel.assets[0]]).category_codes.tolist() == [
        [2, 0],
        [2, 1],
    ]
    assert load_market(replace(panel, categories={})).category_codes.shape == (4, 0)
    again = FeaturePipeline.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert again.transform(panel).hash == market.hash != unfitted.hash


def test_saved_markets_keep_categories_and_codes(tmp_path):
    panel = synthetic_panel(seed=2, bars=60, assets=4)
    panel = replace(panel, categories={"sector": ("Tech", "Energy", "Tech", "")})
    market = FeaturePipeline().fit(panel.subset(columns=[0, 2]), 50).transform(panel)
    market.save(tmp_path / "m.npz")
    loaded = Market.load(tmp_path / "m.npz")
    assert loaded.hash == market.hash
    assert loaded.category_codes.tolist() == market.category_codes.tolist() == [[1], [0], [1], [0]]


def test_the_reference_stands_for_the_market():
    panel = synthetic_panel(seed=2, bars=200, assets=4)
    names = ("market_corr_20", "market_beta_60", "market_return_5")
    own = FeaturePipeline(names, reference=panel.assets[2]).transform(panel)
    np.testing.assert_allclose(own.features[60:, 2, :2], 1, rtol=1e-6)
    change = panel.close[5:, 2] / panel.close[:-5, 2] - 1
    np.testing.assert_allclose(own.features[5:, 0, 2], change, rtol=1e-5, atol=1e-8)
    mean = FeaturePipeline(names).transform(panel)
    assert (mean.features[60:, 2, 0] < 0.9999).any()
    assert own.panel.provenance["features"]["reference"] == panel.assets[2]


def test_a_pipeline_introduces_itself(market):
    pipeline = FeaturePipeline(("minimal", "rsi_9"), scaler="rank")
    assert repr(pipeline) == (
        "FeaturePipeline(minimal, rsi_9, scaler='rank', scaling='pooled', bound=10.0, "
        "reference=None; not fitted)"
    )
    assert repr(pipeline.fit(market, 200)).endswith("; fitted on 6 features)")
    assert "rsi_9" in pipeline._repr_html_()


@pytest.mark.parametrize(
    "change",
    [
        lambda fitted: fitted.update(scalers={}),
        lambda fitted: fitted.update(scalers=[]),
        lambda fitted: fitted["scalers"].popitem(),
        lambda fitted: fitted["scalers"]["return_1"].update(numbers=[]),
        lambda fitted: fitted["scalers"]["return_1"].update(numbers=[[0.0]]),
        lambda fitted: fitted["scalers"]["return_1"].update(numbers=[[0.0, -1.0]]),
        lambda fitted: fitted["scalers"]["return_1"].update(numbers=[[0.0, 1.0]] * 2),
        lambda fitted: fitted["scalers"]["return_1"].update(kind="standard"),
        lambda fitted: fitted["scalers"]["return_1"].update(kind="other"),
    ],
)
def test_scalers_that_were_edited_are_refused(change, tmp_path):
    panel = load_market("synthetic?bars=120&assets=3", features="none").panel
    file = tmp_path / "features.json"
    FeaturePipeline("minimal").fit(panel, 100).save(file)
    plain = read_json(file)
    change(plain["fitted"])
    write_json(file, plain)
    with pytest.raises((ArgumentError, DataError)):
        FeaturePipeline.load(file).transform(panel)
