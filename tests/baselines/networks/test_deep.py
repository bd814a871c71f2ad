"""Networks trained end to end: they learn, from their own period, what costs leave."""

import numpy as np
import pytest
import torch as th

import portfolio_env as pe
from agents.direct.training import DirectTrainer
from agents.supervised.training import SupervisedTrainer
from baselines import make_baseline
from baselines.networks.base import ex_ante_volatility
from baselines.networks.deep import EIIE, DeepPortfolio
from portfolio_env.data.generators.planted import PlantedMarket
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest

SMALL = {"hidden": 8, "channels": 8, "dropout": 0.1}


@pytest.fixture(scope="module")
def planted():
    th.set_num_threads(1)
    return PlantedMarket.draw(seed=0, bars=1500, assets=4).market


def small(market, **options):
    return DeepPortfolio(market, **{"window": 4, "encoder_kwargs": SMALL} | options)


def account(model, market, **options):
    start = {"start": 1000, "observation": "index", "action": "weights", "window": 1}
    return backtest(model, pe.PortfolioEnv(market, **start | options))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["growth", "sharpe"])
def test_it_learns_a_planted_signal(planted, loss):
    """Out of sample it earns, after costs, a good part of what was planted."""
    model = small(planted, loss=loss, training={"iterations": 60}).fit(planted.panel, (0, 1000))
    equal = account(make_baseline("equal_weight", planted), planted)
    own = account(model, planted)
    assert own.log_returns.mean() > equal.log_returns.mean() + 3e-4  # a day
    if loss == "sharpe":
        assert own.metrics()["sharpe"] > equal.metrics()["sharpe"] + 0.5


@pytest.mark.slow
def test_dear_trades_are_learnt_to_be_avoided(planted):
    turnover = {}
    for bps in (0.0, 100.0):
        environment = {"costs": {"commission_bps": bps}}
        options = {"environment": environment, "loss": "growth", "training": {"iterations": 40}}
        model = small(planted, **options).fit(planted.panel, (0, 1000))
        turnover[bps] = account(model, planted).turnovers.mean()
    assert turnover[100.0] < 0.5 * turnover[0.0]


def test_it_is_trained_in_the_environment_it_is_told(monkeypatch):
    """Filled at the next open, and where a fixed fee weighs on the money there is, it differs."""
    monkeypatch.setattr(DirectTrainer, "restore_best", lambda trainer: None)  # whatever it earns
    fee, market = {"costs": {"fixed_fee": 1.0}}, pe.load_market("synthetic?assets=4&bars=500")
    targets = [
        small(market, environment=environment, training={"iterations": 2})
        .fit(market.panel, (0, 400))
        .predict_weights(450)
        for environment in (
            None,
            {"execution": "next_open"},
            fee | {"initial_value": 1e3},
            fee | {"initial_value": 1e6},
        )
    ]
    assert len({tuple(weights) for weights in targets}) == 4


def test_holdings_do_not_matter(planted):
    model = small(planted, training={"iterations": 2}).fit(planted.panel, (0, 1000))
    agent = model._agent
    rng = np.random.default_rng(0)
    agent.bind(planted)
    fingerprints = np.full((5, 1), planted.fingerprint)
    observed = {"t": np.full((5, 1), 900), "market": fingerprints, "tradable": np.ones((5, 4))}
    actions, _ = agent.predict(observed | {"weights": rng.dirichlet(np.ones(5), 5)})
    assert (actions == actions[0]).all()
    assert np.ptp(actions[0]) > 0


def test_the_eiie_scores_its_channels_and_what_is_held_by_one_linear_map(planted):
    """Written out in numpy: two convolutions, a linear score, a free score of cash, a softmax."""
    model = EIIE(planted, window=6, training={"iterations": 2}).fit(planted.panel, (0, 1000))
    held = np.random.default_rng(0).dirichlet(np.ones(5), 3)
    held[2] = held[0]
    found = model.predict(
        {
            "t": np.full((3, 1), 900),
            "market": np.full((3, 1), planted.fingerprint),
            "tradable": np.ones((3, 4)),
            "weights": held,
        }
    )[0]
    weights = {name: value.double().numpy() for name, value in model.state()["weights"].items()}
    part = {name.rpartition("encoder.")[2]: value for name, value in weights.items()}
    windows = planted.features[895:901].transpose(1, 2, 0)  # (assets, features, bars)

    def convolved(x, kernel, bias):
        size = kernel.shape[2]
        steps = [x[:, :, k : k + size] for k in range(x.shape[2] - size + 1)]
        out = [np.einsum("afk,cfk->ac", step, kernel) + bias for step in steps]
        return np.maximum(np.stack(out, -1), 0)

    maps = convolved(windows, part["short.weight"], part["short.bias"])
    channels = convolved(maps, part["long.weight"], part["long.bias"])[:, :, 0]
    for lane, own in enumerate(held.astype(np.float32)):
        rows = np.c_[channels, 4 * own[1:] - 1, np.ones(4)]
        scores = rows @ weights["head.asset.weight"][0] + weights["head.asset.bias"]
        scores = np.r_[weights["head.cash"], scores]
        logits = 5 * np.maximum(1 + scores - scores.max(), -1)
        assert found[lane] == pytest.approx(np.exp(logits) / np.exp(logits).sum(), abs=1e-6)
    assert (found[0] == found[2]).all() and abs(found[0] - found[1]).max() > 1e-6
    first = model.predict_weights(900)  # of an account in cash
    assert abs(first - found[0]).max() > 1e-6


@pytest.mark.slow
def test_the_eiie_learns_a_planted_signal_and_to_hold_on(planted):
    model = EIIE(planted, window=4, training={"iterations": 120}).fit(planted.panel, (0, 1000))
    equal = account(make_baseline("equal_weight", planted), planted)
    own = account(model, planted)
    # For the first 40 iterations this seed does worse on validation than the untrained network.
    assert own.log_returns.mean() > equal.log_returns.mean() + 5e-4  # a day
    blind = small(planted, encoder="per_asset", encoder_kwargs={}, loss="growth", net_arch=())
    blind.training = {"iterations": 60}
    blind.fit(planted.panel, (0, 1000))
    assert own.turnovers.mean() < account(blind, planted).turnovers.mean()


def test_weights_are_scaled_to_the_volatility_of_each_asset(planted):
    """Also in training, where the account that is validated is that of the scaled weights."""
    options = {"training": {"iterations": 3}, "volatility": 0.05}
    model = small(planted, **options).fit(planted.panel, (0, 1000))
    twin = small(planted, training={"iterations": 3})
    twin.restore(model.state())
    scales = 0.05 / (ex_ante_volatility(planted.close) * planted.panel.bars_per_year() ** 0.5)
    for row in (900, 1100):
        plain, scaled = (each.predict_weights(row).to_numpy() for each in (twin, model))
        assert scaled[1:] == pytest.approx(plain[1:] * scales[row], rel=0.02)
        assert scaled[0] == pytest.approx(1 - scaled[1:].sum())
    high = small(planted, volatility=9.0, training={"iterations": 1})
    high.restore(model.state())
    assert high.predict_weights(900)["cash"] == pytest.approx(0)
    with pytest.raises(ArgumentError, match="volatility=-1"):
        small(planted, volatility=-1.0)


def test_an_option_of_the_training_that_is_none_is_refused_at_once(planted):
    with pytest.raises(ArgumentError, match="no training option 'iteration'; did you mean"):
        small(planted, training={"iteration": 3})


def test_targets_are_what_the_environment_makes_of_the_scores(planted):
    """With the logits of the trained network as actions, an account of its own holds the same."""
    model = small(planted, training={"iterations": 3}).fit(planted.panel, (0, 1000))
    ours = account(model, planted, end=1050)
    model._agent.bind(planted)
    theirs = account(model._agent, planted, end=1050, action="logits")
    assert ours.values == pytest.approx(theirs.values, rel=1e-6)


def test_too_early_and_untrained_and_unknown(planted):
    model = small(planted, training={"iterations": 1})
    with pytest.raises(ArgumentError, match=r"is not trained; call fit\(panel, fit_period\)"):
        model.predict_weights(900)
    model.fit(planted.panel, (0, 1000))
    first = planted.warmup + 4 - 1
    assert model.predict_weights(first - 1)["cash"] == 1.0
    assert model.predict_weights(first)["cash"] < 1.0
    for options, message in (
        ({"encoder": "nothing"}, "nothing"),
        ({"window": 0}, "window=0"),
        ({"validation": 0.9}, "validation=0.9"),
        ({"loss": "profit"}, "loss='profit' must be one of 'growth', 'sharpe'"),
    ):
        with pytest.raises(ArgumentError, match=message):
            DeepPortfolio(planted, **options).fit(planted.panel, (0, 1000))


def test_networks_read_streams_of_the_market_where_they_can_unless_told():
    market = pe.load_market("synthetic?bars=60&assets=2", features="minimal")
    for name in ("deep_portfolio", "tcn_gnn_lstm_portfolio"):
        assert make_baseline(name, market).encoder_kwargs["history"] == "stream"
    for name in ("lstm_mean_variance", "state_space_mean_variance"):
        assert make_baseline(name, market).forecaster_options["history"] == "stream"
        assert make_baseline(name, market, forecaster_options={}).forecaster_options == {}
    assert "history" not in make_baseline("gat_portfolio", market).encoder_kwargs
    assert make_baseline("forecast_mean_variance", market).forecaster_options == {}


@pytest.mark.parametrize("name", ["deep_portfolio", "lstm_mean_variance"])
def test_a_fit_that_is_interrupted_leaves_the_one_before(name, monkeypatch):
    """By Ctrl-C in a notebook, say: neither half a network nor one without its market."""
    market = pe.load_market("synthetic?assets=3&bars=300")
    options = {"window": 4, "encoder_kwargs": SMALL, "training": {"iterations": 2}}
    if name != "deep_portfolio":
        options = {"lookback": 40, "forecaster_options": {"window": 3, "epochs": 1}}
    model = make_baseline(name, market, **options).fit(market.panel, (0, 200))
    before, asked = model.predict_weights(250), []

    def interrupted(trainer):
        asked.append(trainer)
        raise KeyboardInterrupt

    for kind in (DirectTrainer, SupervisedTrainer):
        monkeypatch.setattr(kind, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(market.panel, (0, 150))
    model._targets.clear()
    assert asked and model.fit_period == (0, 200)
    np.testing.assert_array_equal(model.predict_weights(250), before)
