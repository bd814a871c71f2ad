"""A whole evaluation from Python is that of the command line."""

from dataclasses import replace

import pandas as pd
import pytest

import evaluate as command
from agents.settings.market import MarketConfig
from agents.training.tasks import market_task
from baselines import make_baseline
from baselines.strategies import baseline_strategies
from portfolio_env import evaluation
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.task import TrainedAgent

MARKET = MarketConfig(market="synthetic?assets=3&bars=300&seed=1")


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_python_finds_and_writes_what_the_command_line_does(tmp_path, capsys):
    task = market_task(MARKET, tmp_path / "python")
    baselines = baseline_strategies("equal_weight,momentum,best_asset")
    found = evaluation.evaluate(task, baselines, n_resamples=40, commissions=[0, 10])
    assert (task.folder / "looks.json").exists()
    assert not found.folder.exists()  # nothing is written but the count of looks
    pictures = evaluation.write_evaluation(found)
    assert all(path.exists() for path in pictures.values())
    config = command.EvaluateConfig(
        agent=False, task=MARKET, out=tmp_path / "command", n_resamples=40, commissions="0,10",
        baselines="equal_weight,momentum,best_asset",
    )  # fmt: skip
    told = command.evaluate(config)
    pd.testing.assert_frame_equal(found.comparison.table, told.table)
    assert found.report.is_file()
    names = {p.relative_to(found.folder) for p in found.folder.rglob("*.csv")}
    other = tmp_path / "command" / "evaluation" / "test"
    assert names == {p.relative_to(other) for p in other.rglob("*.csv")} != set()
    for name in names:
        assert (found.folder / name).read_bytes() == (other / name).read_bytes(), name
    capsys.readouterr()


def test_no_range_but_the_test_range_is_counted(tmp_path):
    task = market_task(MARKET, tmp_path)
    evaluation.evaluate(task, baseline_strategies("equal_weight"), "validation", n_resamples=20)
    assert not (tmp_path / "looks.json").exists()


def test_validation_and_test_together_are_a_use_of_the_test_range(tmp_path):
    task, baselines = market_task(MARKET, tmp_path / "a"), baseline_strategies("equal_weight")
    found = evaluation.evaluate(task, baselines, "held_out", n_resamples=20)
    rows = {split: task.whole.rows(split) for split in ("validation", "test", "held_out")}
    assert rows["held_out"] == (rows["validation"][0], rows["test"][1])
    assert len(found.results["equal_weight"].costs) == rows["held_out"][1] - rows["held_out"][0] - 1
    after = evaluation.evaluate(task, baselines, n_resamples=20)
    assert any("evaluation 2 on this test range" in line for line in after.inputs.warnings)
    agent = TrainedAgent(make_baseline("buy_and_hold", task.whole.market))
    trained = replace(task, whole=replace(task.whole, agents={"mine": agent}))
    trained = replace(trained, folds=[trained.whole])
    with pytest.raises(ArgumentError, match="by which mine was chosen"):
        evaluation.evaluate(trained, baselines, "held_out")


def test_wrong_options_are_refused_before_anything_runs(tmp_path):
    task, baselines = market_task(MARKET, tmp_path), baseline_strategies("equal_weight")

    def never(strategies):
        raise AssertionError("a backtest was begun")

    for wrong in ({"n_resamples": 0}, {"capital": -1.0}, {"capital": 1.0, "lot": -1.0}):
        with pytest.raises(ArgumentError, match=next(iter(reversed(wrong)))):
            evaluation.evaluate(task, baselines, **wrong, progress=never)
    assert not (tmp_path / "looks.json").exists()
