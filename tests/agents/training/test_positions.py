"""Positions of scores: one map everywhere, what it reaches, learners that sell short and borrow."""

import numpy as np
import pytest
import torch as th
from helpers.oracles.targets import Limits, scored
from helpers.small_runs import small
from hypothesis import given
from hypothesis import strategies as st

import portfolio_env as pe
from agents import load_run, make_agent, make_sb3_vec_env
from agents.direct.agent import DirectAgent
from agents.direct.differentiable_projection import bounds_of, score_weights
from agents.training.config import TrainConfig
from agents.training.train import train
from baselines import evaluate, make_baseline
from portfolio_env.data.generators.planted import PlantedMarket
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest
from portfolio_env.simulation.targets import scored_weights

LIMITS = [
    {},
    {"max_leverage": 1.8, "max_weight": 2.0},
    {"max_leverage": 1.8, "max_weight": 2.0, "min_cash": -0.3},
    {"max_leverage": 2.0, "min_cash": 0.0},
    {"long_only": False},
    {"long_only": False, "max_leverage": 2.5, "max_weight": 2.5},
]


@pytest.fixture(scope="module")
def market():
    """A market whose first feature forecasts returns."""
    return PlantedMarket.draw(seed=0, bars=600, assets=4).market


@pytest.mark.parametrize("limits", LIMITS)
@given(seed=st.integers(0, 2**16), n=st.integers(1, 6), scale=st.sampled_from([0.5, 5.0, 40.0]))
def test_scores_mean_the_same_weights_everywhere(limits, seed, n, scale):
    constraints = pe.PortfolioConstraints(**limits)
    scores = np.random.default_rng(seed).uniform(-1, 1, (3, n + 1))
    found = scored_weights(scores, scale, constraints.bounds(n))
    oracle = [scored(list(row), scale, Limits(limits, n)) for row in scores]
    assert found == pytest.approx(np.array(oracle), abs=1e-12)
    tensor = score_weights(th.tensor(scores), scale, bounds_of(constraints, n)).numpy()
    assert tensor == pytest.approx(found, abs=1e-12)
    assert found.sum(axis=1) == pytest.approx(np.ones(3))
    assert constraints.project(found) == pytest.approx(found, abs=1e-9)  # within the constraints
    if "long_only" in limits:
        assert (np.sign(found[:, 1:]) == np.sign(scores[:, 1:] - scores[:, :1])).all()
    shifted = scored_weights(0.5 * scores - 0.5, scale, constraints.bounds(n))
    middle = scored_weights(0.5 * scores, scale, constraints.bounds(n))
    assert shifted == pytest.approx(middle, abs=1e-12)  # a common shift changes nothing


def test_an_environment_of_logits_sells_short_and_borrows(market):
    limits = {"long_only": False, "max_leverage": 2.0}
    env = pe.PortfolioEnv(market, window=1, constraints=limits)
    env.reset(seed=0)
    env.step(np.array([0, 0.5, -0.5, 0, 0], np.float32))
    held = env.unwrapped.simulator.held[0]
    assert held[1] > 0.5 and held[2] < -0.5 and held.sum() == pytest.approx(1, abs=1e-9)
    levered = pe.PortfolioEnv(market, window=1, constraints={"max_leverage": 2.0})
    levered.reset(seed=0)
    levered.step(np.array([-1, 1, 1, 1, 1], np.float32))
    assert levered.unwrapped.simulator.held[0] == pytest.approx([-1, *[0.5] * 4], abs=5e-3)


@pytest.mark.parametrize("limits", [{"long_only": False}, {"max_leverage": 2.0}])
def test_the_gradient_of_net_growth_finds_the_side(market, limits):
    agent = DirectAgent(market.n_features, seed=0)
    options = {"constraints": limits, "costs": {"commission_bps": 0}}
    agent.train(market, 0, 400, env_options=options, iterations=60, lanes=8, steps=10)
    env = pe.PortfolioEnv(market, start=400, observation="index", window=1, **options)
    result = backtest(agent, env)
    held = result.held[:, 1:]
    signal = market.features[400 : 400 + len(held), :, 0]
    assert np.corrcoef(held.ravel(), signal.ravel())[0, 1] > 0.5
    assert result.log_returns.sum() > 0.1
    assert (held < -0.1).any() == ("long_only" in limits)
    assert (result.held[:, 0] < -0.1).any() == ("long_only" not in limits)


@pytest.mark.parametrize("algo", ["ppo", "sac"])
def test_algorithms_train_on_short_positions(market, algo):
    options = {"constraints": {"long_only": False, "max_leverage": 1.5}}
    venv = make_sb3_vec_env(market, 8, observation="index", window=1, end=400, **options)
    quick = {"n_steps": 16, "batch_size": 64} if algo == "ppo" else {"learning_starts": 64}
    model = make_agent(algo, venv, seed=0, **quick).learn(256)
    assert (venv.get_attr("simulator")[0].held[:, 1:] < 0).any()
    env = pe.PortfolioEnv(market, start=500, observation="index", window=1, **options)
    held = backtest(model, env).held
    assert np.isfinite(held).all()
    assert (abs(held[:, 1:]).sum(axis=1) <= 1.5 + 1e-6).all()


def test_a_network_trained_end_to_end_sells_short(market):
    model = make_baseline(
        "deep_portfolio",
        market,
        constraints=pe.PortfolioConstraints(long_only=False, max_leverage=1.5),
        window=3,
        encoder_kwargs={"hidden": 8, "channels": 8},
        training={"iterations": 30, "steps": 5},
    ).fit(market.panel, (0, 400))
    weights = [model.predict_weights(row).to_numpy() for row in (450, 500, 550)]
    assert (np.array(weights)[:, 1:] < 0).any()
    assert np.sum(weights, axis=1) == pytest.approx([1, 1, 1])


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["direct", "ppo", "sac"])
def test_a_run_with_positions_is_trained_evaluated_and_read_again(algo, tmp_path):
    train(small(tmp_path / "run", algo=algo, timesteps=512, positions="long_short"))
    run = load_run(tmp_path / "run")
    config = TrainConfig.from_json(run.config)
    assert (config.positions, config.constraints.long_only) == ("long_short", False)
    found = evaluate({"agent": tmp_path / "run"}, run.market, start=350, n_resamples=20)
    assert (found.results["agent"].held[:, 1:] < 0).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"positions": "levered"}, "max_leverage above 1"),
        ({"positions": "long_only", "constraints": {"max_leverage": 2.0}}, "max_leverage 2"),
        ({"positions": "levered", "constraints": {"long_only": False}}, "long_short"),
        ({"positions": "long_short", "policy": "dirichlet"}, "'per_asset'"),
        ({"constraints": {"max_leverage": 2.0}, "policy": "dirichlet"}, "'per_asset'"),
        ({"positions": "short"}, "positions"),
    ],
)
def test_positions_that_cannot_be_are_refused(settings, message):
    limits = pe.PortfolioConstraints(**settings.pop("constraints", {}))
    with pytest.raises(ArgumentError, match=message):
        TrainConfig(constraints=limits, **settings)
