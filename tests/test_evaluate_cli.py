"""The command lines, end to end: train.py writes a run, evaluate.py judges it out of sample."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from evaluate import EvaluateConfig, evaluate, main

ROOT = Path(__file__).parents[1]


def command(script, *arguments):
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "short"
    market = "synthetic?assets=3&bars=400"
    command("train.py", "--market", market, "--timesteps", 256, "--num-envs", 16, "--out", path)
    return path


@pytest.mark.slow
def test_evaluates_a_run_against_baselines(run):
    printed = command("evaluate.py", run, "--baselines", "buy_and_hold,cash", "--device", "cpu")
    folder = run / "evaluation" / "test"
    table = pd.read_csv(folder / "table.csv", index_col="strategy")
    assert list(table.index) == ["ppo", "equal_weight", "buy_and_hold", "cash"]
    for name in table.index:
        assert f"{name}: " in printed
        account = pd.read_csv(folder / name / "account.csv")
        total = account["value"].iloc[-1] / account["value"].iloc[0] - 1
        assert total == pytest.approx(table.loc[name, "total_return"])
    facts = json.loads((folder / "metrics.json").read_text())
    rows = json.loads((run / "market.json").read_text())["ranges"]["test"]
    assert facts["steps"] == rows[1] - 1 - rows[0]  # the whole range, and nothing but it
    assert facts["model"] == "final"


@pytest.mark.slow
def test_evaluates_the_training_range_from_its_first_possible_decision(run):
    config = EvaluateConfig(run, split="train", model="best", device="cpu")
    loaded, results = evaluate(config)
    market = loaded.market
    first = market.timestamps[market.warmup + loaded.env_options["window"] - 1]
    assert list(results) == ["ppo", "equal_weight", "buy_and_hold"]
    for result in results.values():
        assert result.timestamps[0] == first
        assert result.timestamps[-1] == market.timestamps[loaded.ranges["train"][1] - 1]


def test_says_what_is_wrong_without_a_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"error: .*is not a run folder"):
        main()
