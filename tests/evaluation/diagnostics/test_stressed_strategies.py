"""Stress tests of all strategies of an evaluation, and their table on the command line."""

import sys

import numpy as np
import pandas as pd
import pytest

import evaluate
import portfolio_env as pe
from agents import make_agent, make_sb3_vec_env
from agents.training.tasks import bind_policy
from baselines.strategies import baseline_strategies
from portfolio_env import evaluation as ev
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.diagnostics.stress import stressed

MARKET = pe.load_market("synthetic?bars=150&assets=4", fit_end=60)
RULES = {
    "costs": {"commission_bps": 5.0},
    "constraints": {},
    "execution": "close",
    "fills": {},
    "initial_value": 1e4,
    "window": 3,
    "observation": "index",
    "adjustment": 1.0,
    "delay": 1,
}
RANGES = {"train": (0, 60), "validation": (60, 100), "test": (100, 150)}


def task_of(tmp_path, agents=(), **rules):
    fold = ev.EvaluationFold(MARKET, RANGES, RULES | rules, dict(agents))
    return ev.EvaluationTask(tmp_path, fold, (fold,))


def test_every_strategy_is_that_of_a_backtest_on_the_stressed_market(tmp_path):
    options = {"observation": "index", "window": 3}
    ppo = make_agent("ppo", make_sb3_vec_env(MARKET, 1, **options), seed=0, n_steps=8, batch_size=8)
    agent = ev.TrainedAgent(ppo, options={**options, "action": "logits"})
    task = task_of(tmp_path, {"ppo": agent})
    scenarios = {
        "crash": ev.scenario_of("crash", {"size": 0.3}),
        "delay": ev.scenario_of("delay", {"bars": 2}),
    }
    strategies = [*ev.agent_strategies(task), *baseline_strategies("momentum,best_asset")]
    table = ev.stress_strategies(task, strategies, "test", scenarios, bind_policy, seed=3)
    names = ["ppo", "equal_weight", "momentum"]  # best_asset knows the future
    assert table.index.tolist() == [(n, s) for n in names for s in ("none", "crash", "delay")]
    start = 100 + 2
    shocked = stressed(
        MARKET, ev.scenario_of("crash", {"size": 0.3, "start": 101, "end": 150}), seed=3
    )
    for scenario, market, delay in (
        ("none", MARKET, 1),
        ("crash", shocked, 1),
        ("delay", MARKET, 3),
    ):
        bind_policy(ppo, market)
        rules = {**RULES, "delay": delay, "start": start, "end": 150, "action": "logits"}
        result = ev.backtest(ppo, pe.PortfolioEnv(market, **rules))
        assert table.loc[("ppo", scenario), "growth"] == result.log_returns.sum()
    assert table.loc[("equal_weight", "crash"), "growth_lost"] > 0.2
    # what the agent reads afterwards is its own market again
    observation, _ = pe.PortfolioEnv(MARKET, **options).reset()
    bind_policy(ppo, MARKET)
    assert np.isfinite(ppo.predict(observation)[0]).all()


def test_scenarios_that_say_nothing_are_refused(tmp_path):
    strategies = baseline_strategies("equal_weight")
    gap = {"gap": ev.scenario_of("gap", {})}
    with pytest.raises(ArgumentError, match="filled at the close"):
        ev.stress_strategies(task_of(tmp_path), strategies, "test", gap, bind_policy)
    later = task_of(tmp_path, execution="next_open")
    assert len(ev.stress_strategies(later, strategies, "test", gap, bind_policy)) == 2
    for name, options, message in (
        ("crush", {}, "crash"),
        ("crash", {"sise": 1}, "size"),
        ("crash", {"size": "much"}, "size"),
    ):
        with pytest.raises(ArgumentError, match=message):
            ev.scenario_of(name, options)


def test_a_table_on_the_command_line_fits_its_80_columns(tmp_path, monkeypatch, capsys):
    asked = "crash(size=0.3),liquidity,outage,fills(failure=0.2),delay(bars=2),volatility"
    command = ["--no-agent", "--market", "synthetic?bars=160&assets=3", "--baselines", "momentum"]
    command += ["--quick", "--resamples", "50", "--out", str(tmp_path), "--stress", asked]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *command])
    monkeypatch.setenv("COLUMNS", "80")
    assert evaluate.main() == 0
    told = capsys.readouterr().out
    _, _, shown = told.partition("Growth % under stress")
    assert "crash(size=0.3)" in shown and "momentum" in shown and "…" not in shown
    assert all(len(line) <= 80 for line in shown.splitlines() if line[:1] in "┏┃┡│└")
    table = pd.read_csv(next(tmp_path.rglob("stress.csv")))
    assert len(table) == 2 * 7 and set(table["strategy"]) == {"equal_weight", "momentum"}
    assert "Largest drawdown % under stress" in next(tmp_path.rglob("report.html")).read_text()
    monkeypatch.setattr(sys, "argv", [*sys.argv[:-1], "crash(size=2)"])
    assert evaluate.main() == 1
    assert "size=2" in capsys.readouterr().err
