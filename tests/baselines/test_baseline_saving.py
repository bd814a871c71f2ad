"""Baselines that were saved and loaded give the same targets; their files run nothing."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.panels import panel_of, rewritten_after
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from test_baseline_contract import BARS, FITTED, MARKET, MODELS, OPTIONS, PANEL, made, observations

import portfolio_env as pe
from agents.direct.agent import DirectAgent
from baselines import BASELINES, Baseline, load_baseline, make_baseline, save_baseline
from baselines.forecasts import FORECASTERS
from baselines.forecasts.tree_arrays import TreeArrays
from portfolio_env.errors import ArgumentError, DataError

ROWS = [FITTED, FITTED + 1, 150, BARS - 1]


def answers(model):
    return model.predict(observations(ROWS))[0]


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_every_baseline_gives_the_same_targets_after_loading(name, tmp_path):
    model = (
        made(name, constraints=pe.PortfolioConstraints(max_weight=0.5))
        if name in MODELS
        else made(name)
    )
    file = tmp_path / "model.safetensors"
    save_baseline(model, file)
    loaded = load_baseline(file, MARKET)
    assert type(loaded) is type(model)
    assert (answers(loaded) == answers(model)).all()
    if name in MODELS:
        told = [each.model_info() | {"fallbacks": None} for each in (loaded, model)]  # of targets
        assert told[0] == told[1]
        assert loaded.fit_period == model.fit_period


@pytest.mark.parametrize("forecaster", [*FORECASTERS, "per_asset"])
def test_every_forecaster_forecasts_the_same_after_loading(forecaster, tmp_path):
    options = {"lookback": 40, "least": 20}
    small = {
        "lstm": {"hidden": 8, "channels": 8},
        "transformer": {"width": 8, "feedforward": 8},
        "gat": {"hidden": 8, "heads": 2, "layers": 1},
        "tcn_gnn_lstm_small": {"width": 8, "layers": 1, "lstm_hidden": 8},
    }.get(forecaster, {})
    if forecaster in ("gradient_boosting", "random_forest", "per_asset"):
        options |= {"horizon": 5, "pooled": forecaster != "per_asset"}
    else:
        options["forecaster_options"] = {"window": 3, "epochs": 1, **small}
    kind = "gradient_boosting" if forecaster == "per_asset" else forecaster
    model = make_baseline("forecast_mean_variance", MARKET, forecaster=kind, **options)
    model.fit(PANEL, (0, FITTED))
    save_baseline(model, tmp_path / "model")
    loaded = load_baseline(tmp_path / "model", MARKET)
    for row in ROWS:
        past = PANEL.subset(slice(row + 1))
        assert (loaded.forecasts(past) == model.forecasts(past)).all()


@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize(
    "model",
    [
        RandomForestRegressor(30, max_samples=200, random_state=0),
        HistGradientBoostingRegressor(max_iter=60, random_state=0),
        HistGradientBoostingRegressor(max_iter=20, loss="absolute_error", random_state=0),
    ],
    ids=["forest", "boosted", "absolute"],
)
def test_trees_as_arrays_forecast_as_scikit_learn_does_bit_for_bit(model, missing):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(800, 5)).astype(np.float32)
    returns = features[:, 0] ** 2 + rng.normal(size=800)
    features[rng.random(features.shape) < missing] = np.nan
    trees = TreeArrays.of(model.fit(features, returns))
    asked = rng.normal(size=(1000, 5)).astype(np.float32)
    asked[rng.random(asked.shape) < 0.1] = np.nan
    asked = np.vstack([asked, features])
    assert (trees.predict(asked) == model.predict(asked)).all()


def test_boosted_trees_that_forecast_no_sum_are_refused():
    rng = np.random.default_rng(0)
    model = HistGradientBoostingRegressor(loss="poisson", max_iter=2)
    with pytest.raises(ArgumentError, match="'poisson'"):
        TreeArrays.of(model.fit(rng.normal(size=(100, 2)), rng.random(100)))


@pytest.mark.parametrize("name", ["children", "starts"])
def test_arrays_that_would_never_end_are_refused(name):
    rng = np.random.default_rng(0)
    model = HistGradientBoostingRegressor(max_iter=2, min_samples_leaf=5)
    trees = TreeArrays.of(model.fit(rng.normal(size=(100, 2)), rng.normal(size=100)))
    with pytest.raises(DataError, match="not trees"):
        replace(trees, **{name: getattr(trees, name) * 0 - (name == "starts")})


def test_an_ensemble_is_saved_with_its_members(tmp_path):
    direct = DirectAgent(MARKET.n_features, net_arch=(4,), seed=3)
    direct.bind(MARKET)
    members = {"hrp": made("hrp"), "deep": made("deep_portfolio"), "direct": direct}
    ensemble = make_baseline("ensemble", MARKET, members=members, paces={"direct": 0.5})
    ensemble.fit_shares((100, FITTED))
    save_baseline(ensemble, tmp_path / "mix")
    loaded = load_baseline(tmp_path / "mix", MARKET)
    assert (answers(loaded) == answers(ensemble)).all()
    assert loaded.model_info() == ensemble.model_info()


def test_what_is_no_registered_baseline_is_refused_by_name(tmp_path):
    class Own(BASELINES["momentum"]):
        pass

    with pytest.raises(ArgumentError, match="the model is of type Own"):
        save_baseline(Own(MARKET), tmp_path / "model")
    ensemble = make_baseline("ensemble", MARKET, members={"mine": Own(MARKET)})
    with pytest.raises(ArgumentError, match="member 'mine' is of type Own"):
        save_baseline(ensemble, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["deep_portfolio", "random_forest_mean_variance", "best_asset"])
def test_what_was_learned_is_refused_on_another_market(name, tmp_path):
    save_baseline(made(name), tmp_path / "model")
    other = pe.load_market(panel_of("B", BARS, assets=5, seed=4))
    with pytest.raises(DataError, match="other prices or features"):
        load_baseline(tmp_path / "model", other)
    with pytest.raises(DataError, match="fitted to the assets"):
        load_baseline(tmp_path / "model", MARKET.select(MARKET.assets[::-1]))
    features = pe.load_market(PANEL, features=["return_1"])
    if BASELINES[name].reads_features:
        with pytest.raises(DataError, match="fitted to the features"):
            load_baseline(tmp_path / "model", features)
    else:
        load_baseline(tmp_path / "model", features)


def test_what_was_learned_holds_for_a_market_that_goes_on(tmp_path):
    """Later bars, and others than then, change nothing that was learned."""
    model = made("deep_portfolio", MARKET.past(150))
    save_baseline(model, tmp_path / "model")
    later = pe.load_market(rewritten_after(PANEL, 150, seed=1))
    loaded = load_baseline(tmp_path / "model", later)
    assert (loaded.predict_weights(150) == model.predict_weights(150)).all()
    assert loaded.predict_weights(BARS - 1).sum() == pytest.approx(1)


def test_what_has_learned_nothing_takes_any_market(tmp_path):
    save_baseline(make_baseline("hrp", MARKET, **OPTIONS["hrp"]), tmp_path / "model")
    other = pe.load_market(panel_of("B", BARS, assets=3, seed=4))
    loaded = load_baseline(tmp_path / "model", other)
    assert isinstance(loaded, Baseline)
    assert loaded.lookback == 40


def test_a_damaged_or_foreign_file_is_named(tmp_path):
    file = tmp_path / "model"
    save_baseline(made("deep_portfolio"), file)
    content = file.read_bytes()
    for at in range(0, len(content), len(content) // 40):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(DataError, match=str(file)):
            load_baseline(file, MARKET)
    file.write_bytes(content[:100])
    with pytest.raises(DataError, match=str(file)):
        load_baseline(file, MARKET)
