"""Strategies in processes of their own: the same results, in the same order, and clear errors."""

import os
from dataclasses import replace

import numpy as np
import pytest

import portfolio_env as pe
from baselines.strategies import baseline_strategies
from portfolio_env.errors import PortfolioError
from portfolio_env.evaluation.runner import Strategy, run_backtests
from portfolio_env.evaluation.task import EvaluationFold, EvaluationTask

MARKET = pe.load_market("synthetic?bars=120&assets=3&seed=1", features="minimal")


def task_of(tmp_path):
    options = {
        "window": 1,
        "costs": {"commission_bps": 5.0},
        "constraints": {},
        "execution": "close",
        "initial_value": 100.0,
    }
    fold = EvaluationFold(MARKET, {"train": (0, 80), "test": (80, 110)}, options)
    return EvaluationTask(tmp_path, fold, (fold,))


def killed(fold, split):
    os._exit(9)


def refused(fold, split):
    raise PortfolioError("nothing to hold")


def apart(name, build):
    return Strategy(name, build, EvaluationFold.baseline_options, apart=True)


def test_other_processes_find_the_same_as_this_one(tmp_path):
    task = task_of(tmp_path)
    names = "equal_weight,risk_parity,hrp,momentum,best_asset"
    found = []
    for processes in (1, 2):
        strategies = [replace(each, apart=True) for each in baseline_strategies(names)]
        strategies.append(apart("refused", refused))
        told = []
        runs = run_backtests(
            strategies,
            task,
            commissions=(20.0,),
            processes=processes,
            progress=lambda given, told=told: (told.append(each.name) or each for each in given),
        )
        assert told == [each.name for each in strategies]
        found.append(runs)
        for strategy in strategies[:-1]:  # what was learned is kept for others
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
        assert again.market is MARKET
        assert again.fit_period == policy.fit_period
        assert len(theirs.seconds[name]) == len(ours.seconds[name])


@pytest.mark.slow
def test_a_process_that_is_killed_is_told(tmp_path):
    strategies = [*baseline_strategies("cash"), apart("killed", killed)]
    runs = run_backtests(strategies, task_of(tmp_path), processes=2)
    assert "process of killed was ended" in runs.failed["killed"]
    assert list(runs.results) == ["equal_weight", "cash"]
