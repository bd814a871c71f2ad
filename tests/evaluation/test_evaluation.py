"""A whole evaluation from Python is that of the command line."""

import pandas as pd
import pytest

import evaluate as command
from agents.settings.market import MarketConfig
from agents.training.tasks import market_task
from baselines.strategies import baseline_strategies
from portfolio_env import evaluation
from portfolio_env.errors import ArgumentError

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


def test_wrong_options_are_refused_before_anything_runs(tmp_path):
    task, baselines = market_task(MARKET, tmp_path), baseline_strategies("equal_weight")

    def never(strategies):
        raise AssertionError("a backtest was begun")

    for wrong in ({"n_resamples": 0}, {"capital": -1.0}, {"capital": 1.0, "lot": -1.0}):
        with pytest.raises(ArgumentError, match=next(iter(reversed(wrong)))):
            evaluation.evaluate(task, baselines, **wrong, progress=never)
    assert not (tmp_path / "looks.json").exists()
