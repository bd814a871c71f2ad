"""Strategies of an evaluation: baselines by the rules of the fold, their mixture, processes."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.panels import panel_of

import portfolio_env as pe
from agents.training.config import TrainConfig
from baselines import make_baseline, strategies
from baselines.ensemble import Ensemble
from portfolio_env.errors import ArgumentError, PortfolioError
from portfolio_env.evaluation import backtest
from portfolio_env.evaluation.runner import BacktestRuns, Strategy, run_backtests
from portfolio_env.evaluation.task import EvaluationFold, EvaluationTask, TrainedAgent
from portfolio_env.evaluation.usage_log import trials

ROOT = Path(__file__).parents[2]
MARKET = pe.load_market(panel_of("B", 260, assets=4, seed=3, ragged=False))
RANGES = {"train": (0, 150), "validation": (150, 200), "test": (200, 260)}
FITTED = {"mean_variance": "inverse_volatility", "deep_portfolio": "equal_weight", "hrp": "cash"}


def fold_of(names=(), policy=None, file=None, **options):
    """A fold whose agents are rules, so that nothing has to be trained."""
    agent = TrainedAgent(policy or make_baseline("momentum", MARKET), file)
    config = TrainConfig(**{"window": 1} | options).resolved()
    return EvaluationFold(MARKET, RANGES, config.env_options(), dict.fromkeys(names, agent))


def mixture(monkeypatch, fold):
    """The ensemble that takes part, made of quick members, and the keywords of its environment."""
    monkeypatch.setattr(
        strategies, "baseline", lambda name, fold, split: make_baseline(FITTED[name], MARKET)
    )
    _, ensemble = strategies.baseline_strategies("ensemble")
    return ensemble.build(fold, "test"), ensemble.options(fold, "test")


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_third_each_for_optimiser_network_and_agents(monkeypatch, seeds):
    names = [f"ppo_seed_{seed}" for seed in range(seeds)]
    model, options = mixture(monkeypatch, fold_of(names, adjustment=0.5))
    assert model.shares == pytest.approx(
        {"mean_variance": 1 / 3, "deep_portfolio": 1 / 3} | dict.fromkeys(names, 1 / 3 / seeds)
    )
    assert model.paces == {"mean_variance": 1, "deep_portfolio": 1} | dict.fromkeys(names, 0.5)
    held = backtest(model, pe.PortfolioEnv(**options)).held
    assert held.sum(axis=1) == pytest.approx(1.0)


def test_agents_in_the_mixture_keep_to_the_constraints_as_they_do_alone(monkeypatch):
    class Bold:
        """Puts all it can on one asset, in scores."""

        action = "logits"

        def predict(self, observation, state=None, episode_start=None, deterministic=True):
            shape = np.shape(observation["weights"])
            return np.broadcast_to([-1.0, 1, -1, -1, -1], shape), state

    limits = pe.PortfolioConstraints(max_weight=0.4)
    fold = fold_of(["ppo"], policy=Bold(), constraints=limits)
    model, options = mixture(monkeypatch, fold)
    whole = backtest(model, pe.PortfolioEnv(**options)).held[0]
    env = pe.PortfolioEnv(**fold.agent_options("test"))
    alone = [backtest(Bold(), env).held[0]]
    for name in ("mean_variance", "deep_portfolio"):
        member = make_baseline(FITTED[name], MARKET)
        alone.append(backtest(member, pe.PortfolioEnv(**options)).held[0])
    assert whole == pytest.approx(np.mean(alone, axis=0), abs=1e-6)


def test_another_agent_makes_another_trial_of_the_mixture(tmp_path):
    def fingerprint(weights):
        file = tmp_path / "final_model.safetensors"
        file.write_bytes(weights)
        fold = fold_of(["ppo"], file=file)
        policy = Ensemble(MARKET, members={"ppo": make_baseline("cash", MARKET)})
        account = backtest(policy, pe.PortfolioEnv(**fold.baseline_options("test")))
        runs = BacktestRuns({"ensemble": [policy]}, {"ensemble": account})
        (trial,) = trials(EvaluationTask(tmp_path, fold, (fold,)), runs)
        return trial.fingerprint

    assert fingerprint(b"one") == fingerprint(b"one") != fingerprint(b"other")


@pytest.mark.parametrize(
    ("names", "options"),
    [((), {}), (["ppo"], {"observation": "window"})],
)
def test_hrp_stands_in_where_no_agent_can_be_mixed(monkeypatch, names, options):
    model, _ = mixture(monkeypatch, fold_of(names, **options))
    assert list(model.members) == ["mean_variance", "deep_portfolio", "hrp"]


def test_networks_are_trained_by_the_rules_of_the_fold(monkeypatch):
    from baselines.networks.deep import DeepPortfolio

    monkeypatch.setattr(DeepPortfolio, "_fit", lambda self, bars: None)
    costs, limits = pe.TransactionCosts(commission_bps=33), pe.PortfolioConstraints(max_weight=0.4)
    fold = fold_of(costs=costs, constraints=limits, execution="next_open", initial_value=500.0)
    model = strategies.baseline("deep_portfolio", fold, "test")
    assert (model.constraints, model.fit_period) == (limits, (0, 150))
    assert model.environment["costs"]["commission_bps"] == 33
    assert model.environment["execution"] == "next_open"
    assert model.environment["initial_value"] == 500.0


def test_a_volatility_target_around_the_agents_of_a_run():
    text = "volatility_target(members=['agents'], target=0.1, lookback=30)"
    limits = pe.PortfolioConstraints(max_leverage=1.5)
    fold = fold_of(["ppo"], adjustment=0.5, constraints=limits)
    model = strategies.baseline(text, fold, "test")
    assert (list(model.members), model.paces) == (["ppo"], {"ppo": 0.5})
    assert (model.target, model.constraints) == (0.1, limits)
    held = backtest(model, pe.PortfolioEnv(**fold.baseline_options("test"))).held
    assert held[:, 1:].sum(axis=1).min() > 0 and held[:, 1:].sum(axis=1).max() <= 1.5 + 1e-9
    with pytest.raises(ArgumentError, match="members is empty"):
        strategies.baseline(text, fold_of(), "test")


SMALL = pe.load_market("synthetic?bars=120&assets=3&seed=1", features="minimal")


def small_task(tmp_path):
    options = {
        "window": 1,
        "costs": {"commission_bps": 5.0},
        "constraints": {},
        "execution": "close",
        "initial_value": 100.0,
    }
    fold = EvaluationFold(SMALL, {"train": (0, 80), "test": (80, 110)}, options)
    return EvaluationTask(tmp_path, fold, (fold,))


def killed(fold, split):
    os._exit(9)


def refused(fold, split):
    raise PortfolioError("nothing to hold")


def apart(name, build):
    return Strategy(name, build, EvaluationFold.baseline_options, apart=True)


def test_other_processes_find_the_same_as_this_one(tmp_path):
    task = small_task(tmp_path)
    names = "equal_weight,risk_parity,hrp,momentum,best_asset"
    found = []
    for processes in (1, 2):
        found_here = [replace(each, apart=True) for each in strategies.baseline_strategies(names)]
        found_here.append(apart("refused", refused))
        told = []
        runs = run_backtests(
            found_here,
            task,
            commissions=(20.0,),
            processes=processes,
            progress=lambda given, told=told: (told.append(each.name) or each for each in given),
        )
        assert told == [each.name for each in found_here]
        found.append(runs)
        for strategy in found_here[:-1]:  # what was learned is kept for others
            assert strategy.build(task.whole, "test") is runs.policies[strategy.name][0]
    ours, theirs = found
    assert ours.failed == theirs.failed == {"refused": "nothing to hold"}
    assert list(ours.results) == list(theirs.results)
    assert ours.growth_by_cost == theirs.growth_by_cost
    assert ours.oracles == theirs.oracles == ["best_asset"]
    for name, result in ours.results.items():
        other = theirs.results[name]
        for part in ("values", "held", "trades", "costs"):
            np.testing.assert_array_equal(getattr(result, part), getattr(other, part))
        policy, again = ours.policies[name][0], theirs.policies[name][0]
        assert again.market is SMALL
        assert again.fit_period == policy.fit_period
        assert len(theirs.seconds[name]) == len(ours.seconds[name])


@pytest.mark.slow
def test_a_process_that_is_killed_is_told(tmp_path):
    asked = [*strategies.baseline_strategies("cash"), apart("killed", killed)]
    runs = run_backtests(asked, small_task(tmp_path), processes=2)
    assert "process of killed was ended" in runs.failed["killed"]
    assert list(runs.results) == ["equal_weight", "cash"]


@pytest.mark.slow
def test_an_evaluation_that_is_told_to_end_leaves_nothing(tmp_path):
    """No semaphore that somebody else must clean up, and an exit status that says so."""
    command = [sys.executable, str(ROOT / "evaluate.py"), "--no-agent", "--processes", "2"]
    command += ["--market", "synthetic?bars=900&assets=3", "--out", str(tmp_path)]
    command += ["--baselines", "deep_portfolio,gat_portfolio"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(children.read_text().split()) < 3:  # one of them tracks semaphores
        time.sleep(0.1)
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert "leaked" not in said
