"""What training writes to TensorBoard and keeps of its models, for PPO and for SAC."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from agents import load_agent, make_agent, make_sb3_vec_env
from agents.sb3.curves import curves
from agents.tensors import load_tensors
from agents.training.callbacks import (
    CheckpointCallback,
    LogCallback,
    PortfolioMetrics,
    ProbeCallback,
    ValidationCallback,
)
from agents.training.card_texts import _figures
from agents.training.run_folder import latest_checkpoint
from agents.training.validation import Probes, Validation, plain
from baselines import make_baseline
from baselines.strategies import baseline_strategies
from portfolio_env import Market, PortfolioEnv, load_market
from portfolio_env.evaluation import ValidationGate, backtest
from portfolio_env.evaluation.runner import Strategy
from portfolio_env.evaluation.task import EvaluationFold
from portfolio_env.files.atomic import read_json

ACCOUNT = ("value", "turnover", "cost", "drawdown", "concentration")
PROBED = [f"portfolio/{of}/{key}" for of in ("train", "validation") for key in ACCOUNT]
SCALARS = {f"rollout/{key}" for key in ACCOUNT} | set(PROBED)
SCALARS |= {"validation/growth", "validation/excess_growth", "validation/turnover"}
ROWS = (200, 260)


@pytest.fixture(scope="module")
def market() -> Market:
    return load_market("synthetic?bars=300&assets=6", fit_end=200)


def trained(algo: str, market: Market, path: Path) -> Any:
    """A short training with all callbacks, on three of the six assets per episode."""
    options = {"observation": "index", "window": 1}
    training = {"end": 200, "random_start": True, "episode_length": 10, "universe": 3}
    venv = make_sb3_vec_env(market, 8, **options, **training)
    small = {"n_steps": 16, "batch_size": 64} if algo == "ppo" else {"learning_starts": 64}
    agent = make_agent(algo, venv, seed=0, device="cpu", **small)
    agent.set_logger(curves(path / "tb", 0))
    callbacks = [
        PortfolioMetrics(
            {"algo": algo, "gamma": 0.9, "costs": {"commission_bps": 10}, "universe": None}
            | {"out": "runs/one", "runs": "runs", "track": "mlflow", "sha256": "f0"}
        ),
        LogCallback(1),
        ProbeCallback(Probes(market, {"train": (0, 200), "validation": ROWS}, options, 1), 256),
        ValidationCallback(path, market, ROWS, options, 256),
        CheckpointCallback(path, 256),
    ]
    agent.learn(768, callbacks, log_interval=sys.maxsize, reset_num_timesteps=False)
    agent.logger.close()
    return agent


@pytest.mark.parametrize("algo", ["ppo", "sac"])
def test_tensorboard_validation_and_checkpoints(algo: str, market: Market, tmp_path: Path) -> None:
    agent = trained(algo, market, tmp_path)
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) >= SCALARS
    assert tags["images"] == ["validation/equity"]
    assert set(tags["histograms"]) == {"portfolio/train/weights", "portfolio/validation/weights"}
    for tag in PROBED:  # before the first update, and in every interval
        assert [point.step for point in events.Scalars(tag)] == [0, 256, 512, 768]
    assert "custom_scalars__config__" in events.summary_metadata
    begun = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = HParamsPluginData.FromString(begun).session_start_info.hparams
    assert set(settings) == {"algo", "gamma", "costs.commission_bps"}
    costs = np.array([point.value for point in events.Scalars("rollout/cost")])
    turnovers = np.array([point.value for point in events.Scalars("rollout/turnover")])
    assert costs == pytest.approx(turnovers / 1000, rel=0.01)  # shares, at 10 basis points
    assert all(0.5 < point.value < 2 for point in events.Scalars("rollout/value"))
    results = read_json(tmp_path / "validation.json")["validations"]
    assert [result["timesteps"] for result in results] == [256, 512, 768]
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.name == "000000000768.safetensors"
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    state = load_tensors(checkpoint, kind="agent")["training"]
    assert (state["buffer"] is not None) == (algo == "sac")
    assert agent.num_timesteps == 768


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("algo", ["ppo", "sac"])
def test_the_best_model_is_the_one_of_the_best_validation(
    algo: str, market: Market, tmp_path: Path
) -> None:
    trained(algo, market, tmp_path)
    results = read_json(tmp_path / "validation.json")["validations"]
    best = max(results, key=lambda result: result["excess_growth"])
    options = {"observation": "index", "window": 1, "start": ROWS[0], "end": ROWS[1]}
    model = load_agent(tmp_path / "best_model.safetensors", make_sb3_vec_env(market, **options))
    result = backtest(model, PortfolioEnv(market, **options))
    years = (ROWS[1] - 1 - ROWS[0]) / market.bars_per_year(*ROWS)
    growth = np.log(result.values[-1] / result.values[0]) / years
    assert growth == pytest.approx(best["growth"], abs=1e-12)
    assert result.turnovers.mean() == pytest.approx(best["turnover"], abs=1e-12)


@pytest.mark.parametrize("rules", [{"costs": {"commission_bps": 30}}, {"delay": 1}])
def test_validation_and_gate_measure_against_the_same_equal_weight(
    rules: Any, market: Market
) -> None:
    """Both pay costs, and equal weight goes to its target at once, whatever the agent does."""
    options = {"observation": "index", "action": "weights", "window": 1, **rules}
    policy = make_baseline("inverse_volatility", market, lookback=20)
    found = Validation(market, ROWS, options | {"adjustment": 0.5}).run(policy)[1]
    fold = EvaluationFold(market, {"validation": ROWS}, options | {"adjustment": 0.5})
    agent = Strategy("own", lambda *_: policy, EvaluationFold.agent_options)
    decision = ValidationGate(agent, baseline_strategies([])[0]).decide(fold)
    assert found["excess_growth"] == pytest.approx(decision.estimate, abs=1e-12)


def test_the_growth_of_an_account_is_known_where_equal_weight_is_ruined(market: Market) -> None:
    """Its fees ruin an account that trades at every bar, and not one of cash."""
    options = {"observation": "index", "action": "weights", "window": 1}
    options |= {"costs": {"fixed_fee": 3.0}, "initial_value": 100}
    found = plain(Validation(market, ROWS, options).run(make_baseline("cash", market))[1])
    assert found == {"growth": 0.0, "excess_growth": None, "turnover": 0.0}
    assert _figures(found) == ("0.00", "", "ruined", "0.0000")


@pytest.mark.usefixtures("undrawn")
def test_validation_leaves_training_as_it_is(market: Market, tmp_path: Path) -> None:
    """Parameters after training are the same whether or not backtests ran in between."""
    options = {"observation": "index", "window": 1}

    def parameters(every: int) -> Any:
        venv = make_sb3_vec_env(market, 8, **options, end=200, random_start=True, episode_length=10)
        agent = make_agent("ppo", venv, seed=0, device="cpu", n_steps=16, batch_size=64)
        agent.set_logger(curves(tmp_path / str(every), 0))
        callback = ValidationCallback(tmp_path / str(every), market, ROWS, options, every)
        agent.learn(512, callback)
        agent.logger.close()
        return agent.policy.parameters_to_vector()

    assert np.array_equal(parameters(128), parameters(10_000))


@pytest.mark.usefixtures("undrawn")
def test_probes_are_backtests_of_the_same_bars(market: Market) -> None:
    options = {"observation": "index", "action": "weights", "window": 1}
    policy = make_baseline("inverse_volatility", market, lookback=20)
    probes = Probes(market, {"train": (0, 200), "validation": ROWS}, options, 1)
    points = probes.run(policy)
    for name, (start, end) in {"train": (market.warmup, 200), "validation": ROWS}.items():
        result = backtest(policy, PortfolioEnv(market, **options, start=start, end=end))
        found = {key: points[f"portfolio/{name}/{key}"] for key in (*ACCOUNT, "weights")}
        account = result.account()
        assert found["value"] == pytest.approx(result.values[-1] / result.values[0], abs=1e-12)
        assert found["turnover"] == pytest.approx(account["turnover"][1:].mean(), abs=1e-12)
        assert found["cost"] == pytest.approx((result.costs / result.values[:-1]).mean(), abs=1e-12)
        assert found["drawdown"] == pytest.approx(account["drawdown"].max(), abs=1e-12)
        assert np.array_equal(found["weights"], result.held[:, 1:])
    again = probes.run(policy)
    assert all(np.array_equal(points[tag], again[tag]) for tag in points)
