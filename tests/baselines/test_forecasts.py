"""Forecasting models: what they learn from, that they learn, and that they see nothing later."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers.panels import panel_of, rewritten_after

import portfolio_env as pe
from baselines.forecasts import FORECASTERS, ForecastMeanVariance, samples
from baselines.forecasts.trees import Trees
from baselines.optimisers import MeanVariance
from portfolio_env.data.generators.planted import PlantedMarket
from portfolio_env.errors import ArgumentError

RAGGED = panel_of("B", 200, assets=4, seed=3)
SMALL = {"window": 4, "epochs": 1, "hidden": 8, "channels": 4}
QUICK = {"window": 4, "epochs": 1}
OPTIONS = {
    "lstm": SMALL,
    "mlp": {"window": 2, "epochs": 1},
    "transformer": QUICK | {"width": 8, "feedforward": 8},
    "state_space": QUICK | {"state": 8, "memory": 8},
    "gat": QUICK | {"hidden": 8, "heads": 2, "layers": 1},
    "tcn_gnn_lstm_small": QUICK | {"width": 8, "layers": 1, "lstm_hidden": 8},
}


def market_of(panel=RAGGED):
    return pe.load_market(panel)


def model_of(market, forecaster="gradient_boosting", **options):
    options = {
        "lookback": 30,
        "least": 60,
        "refit": 40,
        "forecaster_options": OPTIONS.get(forecaster, {}),
    } | options
    return ForecastMeanVariance(market, forecaster=forecaster, **options)


def test_samples_are_complete_by_the_bar_of_fitting():
    market = market_of()
    known = market.past(150)
    found = samples(known, 70, 5)
    expected = []
    for s in range(70, 146):
        for i in range(4):
            now, later = market.close[s, i], market.close[s + 5, i]
            if market.tradable[s, i] and np.isfinite(later):
                expected.append((i, (later / now - 1) / 5, *market.features[s, i]))
    rows = np.column_stack([found.assets, found.returns, found.features])
    assert rows == pytest.approx(np.array(expected), rel=1e-6)
    assert len(samples(known, 0, 5).returns) == len(samples(known, market.warmup, 5).returns)
    assert not len(samples(known, 146, 5).returns)


@pytest.mark.parametrize("forecaster", [*FORECASTERS, "per_asset"])
def test_no_later_bar_changes_a_forecast(forecaster):
    t = 150
    options = {"horizon": 1 if forecaster in OPTIONS else 5}
    if forecaster == "per_asset":
        forecaster, options["pooled"] = "gradient_boosting", False
    ours, theirs = (
        model_of(market_of(panel), forecaster, **options)
        for panel in (RAGGED, rewritten_after(RAGGED, t, seed=1))
    )
    for row in (t - 30, t):
        assert (ours.predict_weights(row) == theirs.predict_weights(row)).all()
        pair = [model.forecasts(model.market.panel.past(row)) for model in (ours, theirs)]
        assert (pair[0] == pair[1]).all()
        assert np.ptp(pair[0]) > 0
    # fitted by hand, on rows that end at t
    for model in (ours, theirs):
        model.fit(model.market.panel, (20, t + 1))
    assert (ours.predict_weights(t) == theirs.predict_weights(t)).all()


def test_forecasters_are_fitted_on_schedule_to_what_is_over(monkeypatch):
    fits = []

    def recorded(self, known, first):
        fits.append((known.n_bars - 1, first))
        original(self, known, first)

    original = Trees.fit
    monkeypatch.setattr(Trees, "fit", recorded)
    market = market_of()
    model = model_of(market, horizon=5, history=70)
    earliest = market.warmup + 5 + 60 - 1
    assert model.predict_weights(earliest - 1)["cash"] == 1
    assert model.forecasts(market.panel.past(earliest - 1)) is None
    assert not fits
    for row in (earliest, 119, 120, 199, 121):
        model.forecasts(market.panel.past(row))
    assert fits == [(earliest, earliest + 1 - 75), (120, 46), (160, 86)]
    assert model_of(market, refit="year", horizon=5)._refits.tolist() == [earliest]
    with pytest.raises(ArgumentError, match="not 60 bars yet"):
        model.expected_returns(model._problem(market.panel.past(50), np.arange(4), 0.0))


@pytest.mark.parametrize("forecaster", ["gradient_boosting", "lstm"])
def test_nothing_is_forecast_before_the_first_window(forecaster):
    """A short look-back asks for weights before a network has all the bars that it sees."""
    market = market_of()
    model = model_of(market, forecaster, lookback=5).fit(market.panel, (0, 150))
    first = market.warmup + (4 if forecaster == "lstm" else 1) - 1
    for row in range(8, first):
        assert model.predict_weights(row)["cash"] == 1
    assert model.forecasts(market.panel.past(first)) is not None
    assert model.predict_weights(first)["cash"] < 1


@pytest.mark.parametrize(
    ("forecaster", "options", "least"),
    [
        ("gradient_boosting", {}, 0.85),
        ("random_forest", {"refit": 1000}, 0.85),
        ("gradient_boosting", {"pooled": False, "refit": 1000}, 0.5),
    ],
)
def test_trees_find_the_planted_signal_and_portfolios_grow_by_it(forecaster, options, least):
    planted = PlantedMarket.draw(seed=103)
    market = planted.market
    model = ForecastMeanVariance(market, forecaster=forecaster, horizon=5, **options)
    rows = np.arange(1500, 2900, 50)
    found = np.array([model.forecasts(market.panel.past(row)) for row in rows])
    expected = planted.expected[rows].ravel()
    assert np.corrcoef(found.ravel(), expected)[0, 1] > least
    slope = np.polyfit(found.ravel(), expected, 1)[0]  # 1 where forecasts are as wide as is right
    assert 0.5 < slope < 2
    growth = [
        planted.growth(np.array([each.predict_weights(row) for row in rows]), rows).mean()
        for each in (model, MeanVariance(market))
    ]
    equal = planted.growth(np.tile([0, *[0.2] * 5], (len(rows), 1)), rows).mean()
    assert growth[0] > max(growth[1], equal) + 3e-4  # 7 % a year


def test_forecasts_of_noise_are_narrow():
    widths = {}
    for kappa in (0.0, 0.002):
        market = PlantedMarket.draw(seed=104, bars=2200, kappa=kappa, phi=0.95).market
        model = ForecastMeanVariance(market, horizon=1, least=2000)
        rows = range(2050, 2200, 10)
        widths[kappa] = np.std([model.forecasts(market.panel.past(row)) for row in rows])
    assert widths[0.0] < 0.5 * widths[0.002]


@pytest.mark.parametrize("forecaster", ["lstm", "mlp"])
def test_networks_find_a_planted_signal(forecaster):
    planted = PlantedMarket.draw(seed=105, bars=2000, kappa=0.006, phi=0.9)
    options = {"lstm": {"window": 4, "hidden": 16, "channels": 8}, "mlp": {"window": 2}}
    model = ForecastMeanVariance(
        planted.market,
        forecaster=forecaster,
        refit=1500,
        least=1000,
        forecaster_options={"epochs": 6, "learning_rate": 3e-3, **options[forecaster]},
    )
    rows = np.arange(1500, 2000, 5)
    found = np.array([model.forecasts(planted.market.panel.past(row)) for row in rows])
    assert np.corrcoef(found.ravel(), planted.expected[rows].ravel())[0, 1] > 0.8
    assert 0.3 < found.std() / planted.expected[rows].std() < 1.5


@pytest.mark.parametrize("forecaster", ["random_forest", "lstm"])
def test_the_seed_decides(forecaster):
    market = market_of()
    runs = [
        model_of(market, forecaster, seed=seed).forecasts(market.panel.past(150))
        for seed in (0, 0, 1)
    ]
    assert (runs[0] == runs[1]).all()
    assert not (runs[0] == runs[2]).all()


def test_an_asset_of_its_own_model_without_a_past_is_forecast_nothing():
    panel = panel_of("B", 200, assets=3, ragged=False)
    bars = {name: np.array(getattr(panel, name)) for name in ("open", "high", "low", "close")}
    volume = np.array(panel.volume)
    for values in (*bars.values(), volume):
        values[:140, 2] = np.nan
    market = market_of(replace(panel, **bars, volume=volume))
    model = model_of(market, pooled=False, horizon=5, refit=1000)
    found = model.forecasts(market.panel.past(190))
    assert found[2] == 0 and (found[:2] != 0).all()


def test_bad_options_are_refused(monkeypatch):
    market = market_of()
    for options, message in (
        ({"forecaster": "lstmm"}, "did you mean lstm"),
        ({"forecaster": "lstm", "horizon": 5}, "choose trees"),
        ({"forecaster": "mlp", "pooled": False}, "choose trees"),
        ({"horizon": 0}, "horizon=0"),
        ({"history": 10, "least": 20}, "history=10"),
        ({"refit": "decade"}, "not a schedule"),
    ):
        with pytest.raises(ArgumentError, match=message):
            ForecastMeanVariance(market, **options)
    with pytest.raises(ArgumentError, match=r"does not know an option.*n_trees"):
        model_of(market, forecaster_options={"n_trees": 5}).predict_weights(150)
    with pytest.raises(ArgumentError, match="too few to learn from"):
        model_of(market).fit(market.panel, (60, 75))
    stranger = panel_of("B", 200, assets=4, seed=9)
    with pytest.raises(ArgumentError, match="none of the model's market"):
        model_of(market).target(stranger.past(150))
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(ArgumentError, match="pip install scikit-learn"):
        model_of(market).predict_weights(150)
    monkeypatch.setitem(sys.modules, "agents.supervised.training", None)
    with pytest.raises(ArgumentError, match="pip install torch"):
        model_of(market, "lstm").predict_weights(150)
