"""What holds for every baseline: feasible, causal, indifferent to lanes, at rest between dates."""

import json
import pickle

import numpy as np
import pytest
from helpers.panels import panel_of, rewritten_after

import portfolio_env as pe
from baselines import BASELINES, make_baseline
from baselines.portfolio_model import PortfolioModel
from baselines.rows import rebalancing_dates
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest
from portfolio_env.live import Predictor
from portfolio_env.paper.replay import replay

BARS, FITTED, END = 200, 120, 160
PANEL = panel_of("B", BARS, assets=5, seed=3)  # with late listings, gaps and delistings
MARKET = pe.load_market(PANEL)
MODELS = sorted(name for name, kind in BASELINES.items() if issubclass(kind, PortfolioModel))
# what makes the few bars enough
OPTIONS = {
    name: {"lookback": 40}
    for name in ("herc", "hrp", "mean_variance", "min_variance", "nested_clusters", "risk_parity")
} | {
    "forecast_mean_variance": {"lookback": 40, "horizon": 5, "least": 20},
    "random_forest_mean_variance": {"lookback": 40, "horizon": 5, "least": 20},
    **{
        f"{name}_mean_variance": {
            "lookback": 40,
            "least": 20,
            "forecaster_options": {"window": 3, "epochs": 1, **sizes},
        }
        for name, sizes in {
            "lstm": {"hidden": 8, "channels": 8},
            "state_space": {"state": 8, "memory": 8},
            "transformer": {"width": 8, "feedforward": 8},
        }.items()
    },
    **{
        name: {"window": 5, "encoder_kwargs": sizes, "training": {"iterations": 2, "steps": 3}}
        for name, sizes in {
            "deep_portfolio": {"hidden": 8, "channels": 8},
            "gat_portfolio": {"hidden": 8, "heads": 2, "layers": 1},
            "tcn_gnn_lstm_portfolio": {"width": 8, "layers": 1, "lstm_hidden": 8},
        }.items()
    },
    "eiie": {"window": 5, "training": {"iterations": 2, "steps": 3}},
    "deep_momentum": {"months": (0.5, 1), "sequence": 5, "hidden": 4, "epochs": 2},
    "cross_sectional_momentum": {"months": 2, "skip": 0.5},
    "low_volatility": {"months": 2},
    "time_series_momentum": {"months": (1, 2), "skip": 0.5, "lookback": 40},
    "regime_switching": {"turbulent": 0.5},
    "trend_filter": {"months": 2},
    "volatility_target": {"members": ("inverse_volatility", "momentum")},
    "ensemble": {"members": ("inverse_volatility", "momentum")},
}


def made(name, market=MARKET, **options):
    """A baseline, fitted on the first bars where it can be."""
    model = make_baseline(name, market, **OPTIONS.get(name, {}) | options)
    return model.fit(market.panel, (0, FITTED)) if isinstance(model, PortfolioModel) else model


def environment(kind=pe.PortfolioEnv, **options):
    options = {"start": FITTED, "end": END, "window": 1} | options
    return kind(market=MARKET, observation="index", action="weights", **options)


def observations(rows, seed=0):
    """Lanes at these rows that hold something of what can be traded."""
    lanes, generator = len(rows), np.random.default_rng(seed)
    weights = generator.dirichlet(np.ones(MARKET.n_assets + 1), lanes).astype(np.float32)
    return {
        "t": np.array(rows)[:, None],
        "market": np.full((lanes, 1), MARKET.fingerprint),
        "tradable": MARKET.tradable[rows].astype(np.int8),
        "weights": weights,
    }


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_one_lane_and_many_hold_the_same_feasible_weights(name):
    rows = [FITTED, FITTED + 1, BARS - 1, FITTED, 150]
    batch, model = observations(rows), made(name)
    weights, _ = model.predict(batch)
    assert weights.shape == (len(rows), MARKET.n_assets + 1)
    assert (weights >= 0).all()
    assert weights.sum(axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-6)
    for lane in range(len(rows)):
        alone, _ = made(name).predict({key: entry[lane] for key, entry in batch.items()})
        assert (alone == weights[lane]).all()


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_accounts_of_both_environments_agree(name):
    single = backtest(made(name), environment())
    lanes = backtest(
        made(name), environment(pe.PortfolioVectorEnv, num_envs=3, autoreset_mode="Disabled")
    )
    assert (single.values > 0).all()
    for lane in lanes:
        assert (lane.values == single.values).all()


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_paper_trading_is_the_backtest(name):
    options = {"start": None, "end": None, "costs": {"commission_bps": 10, "fixed_fee": 0.1}}
    model, last = made(name), FITTED + 9
    if getattr(model, "oracle", False):
        return  # it knows the future, and has no answer at a last bar
    ideal = backtest(model, environment(**options | {"start": FITTED, "end": last}))
    ledger = replay(Predictor(model, environment(**options)), FITTED, last).ledger
    values = [float(row[0]) for row in ledger.query("SELECT value FROM valuations ORDER BY bar")]
    assert values == pytest.approx(ideal.values, rel=1e-12)
    assert name == "cash" or len(ledger.fills())


@pytest.mark.parametrize("t", [FITTED, 147])
@pytest.mark.parametrize("name", MODELS)
def test_no_later_bar_changes_a_target(name, t):
    model = made(name)
    other = made(name, pe.load_market(rewritten_after(PANEL, t, seed=1)))
    assert not np.array_equal(model.market.close[t + 1 :], other.market.close[t + 1 :])
    for row in (FITTED - 1, t - 1, t):
        assert (model.predict_weights(row) == other.predict_weights(row)).all()
        target = model.target(PANEL.subset(slice(row + 1)))
        assert (model.predict_weights(row) == target).all()


@pytest.mark.parametrize("name", MODELS)
def test_fitting_sees_its_period_only(name):
    first, last = 10, 115
    changed = rewritten_after(PANEL, last - 1, seed=2)
    targets = [
        make_baseline(name, MARKET, **OPTIONS.get(name, {}))
        .fit(panel, (first, last))
        .predict_weights(FITTED)
        for panel in (PANEL, changed)
    ]
    assert (targets[0] == targets[1]).all()


@pytest.mark.parametrize("name", MODELS)
def test_only_what_can_be_traded_is_given_weight(name):
    model = made(name)
    for row in range(FITTED, BARS, 7):
        target = model.predict_weights(row).to_numpy()
        assert (target[1:][~MARKET.tradable[row]] == 0).all()
        assert target.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_traded_between_rebalancing_dates(name):
    result = backtest(made(name, every="month"), environment())
    rows = [MARKET.row(when) for when in result.timestamps[:-1]]
    due = rebalancing_dates(MARKET.timestamps, "month")[rows]
    invested = (result.drifted[:, 1:] != 0).any(axis=1)
    assert due.any() and (~due & invested).any()
    assert (result.turnovers[~due & invested] == 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_targets_keep_to_the_constraints(name):
    constraints = pe.PortfolioConstraints(max_weight=0.3, min_cash=0.1)
    model = made(name, constraints=constraints)
    for row in range(FITTED, BARS, 13):
        target = model.predict_weights(row).to_numpy()
        assert target[0] >= 0.1 - 1e-9
        assert target[1:].max() <= 0.3 + 1e-9


@pytest.mark.parametrize("name", MODELS)
def test_what_no_model_can_keep_to_is_refused(name):
    for limits, message in (
        ({"min_weight": 0.3}, "lower min_weight"),
        ({"max_weight": 0.15, "max_cash": 0.0}, "raise max_weight"),
        *([] if BASELINES[name].leverage else [({"max_leverage": 2.0}, "lower max_leverage")]),
        *([] if BASELINES[name].shorts else [({"long_only": False}, "no short positions; give")]),
    ):
        with pytest.raises(ArgumentError, match=message):
            make_baseline(name, MARKET, constraints=pe.PortfolioConstraints(**limits))
    with pytest.raises(ArgumentError, match="not a schedule"):
        make_baseline(name, MARKET, every=0)
    model = made(name)
    batch = observations([FITTED])
    with pytest.raises(ArgumentError, match="which bar it is"):
        model.predict({key: batch[key] for key in ("tradable", "weights")})
    with pytest.raises(ArgumentError, match="without universe="):
        model.predict(batch | {"assets": np.arange(5)[None]})
    with pytest.raises(ArgumentError, match="give an earlier bar"):
        model.predict_weights(BARS)
    with pytest.raises(ArgumentError, match="fit on the same"):
        model.fit(PANEL.subset(columns=[0, 1]), (0, 50))
    with pytest.raises(ArgumentError, match="two bars or more"):
        model.fit(PANEL, (50, 51))


@pytest.mark.parametrize("name", MODELS)
def test_models_are_pickled_described_and_repeatable(name):
    model = made(name)
    expected = model.predict_weights(150)
    assert list(expected.index) == ["cash", *MARKET.assets]
    assert (model.predict_weights(str(MARKET.timestamps[150])) == expected).all()
    for twin in (pickle.loads(pickle.dumps(model)), made(name)):
        assert (twin.predict_weights(150) == expected).all()
    info = json.loads(json.dumps(model.model_info()))
    assert info["name"] == type(model).__name__
    assert info["fitted_on"] == [str(MARKET.timestamps[row]) for row in (0, FITTED - 1)]
    assert {"constraints", "every"} <= set(info["parameters"])


def test_schedules_start_on_the_first_bar_of_each_period():
    days = np.arange("2024-01-01", "2025-01-01", dtype="datetime64[D]")  # begins on a Monday
    for every, expected in (("month", 12), ("quarter", 4), ("week", 53), ("year", 1), (100, 4)):
        due = rebalancing_dates(days, every)
        assert due[0] and due.sum() == expected
    assert rebalancing_dates(days, "quarter")[31 + 29 + 31]
    assert (np.flatnonzero(rebalancing_dates(days, "week")) % 7 == 0).all()
