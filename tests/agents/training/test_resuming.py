"""Trainings that were stopped go on as if they had not been."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from helpers.small_runs import small
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.tensors import load_tensors
from agents.training.callbacks import PeriodicCallback
from agents.training.config import TrainConfig
from agents.training.run_folder import latest_checkpoint
from agents.training.train import resume, train
from portfolio_env.files.atomic import read_json

LSTM: dict[str, Any] = {
    "encoder": "lstm",
    "encoder_options": '{"hidden": 4, "channels": 4}',
    "window": 3,
}
FORECASTS = LSTM | {"prediction_weight": 0.1}
CASES: dict[str, dict[str, Any]] = {
    "ppo": {"algo": "ppo", "universe": 4},
    "ppo, flat": {"algo": "ppo", "policy": "flat_mlp", "observation": "flat"},
    "ppo, encoder": {"algo": "ppo", **FORECASTS, "freeze_encoder": 0.5, "universe": 4},
    "ppo, frozen": {"algo": "ppo", **LSTM, "freeze_encoder": 1.0},
    "ppo, dirichlet": {"algo": "ppo", "policy": "dirichlet", "reward": "differential_sharpe"},
    "a2c": {"algo": "a2c", "observation": "window", "reward": "differential_downside"},
    "a2c, encoder": {"algo": "a2c", **FORECASTS, "observation": "index"},
    "sac": {"algo": "sac", "universe": 4},
    "sac, window": {"algo": "sac", "observation": "window", "window": 2},
    "sac, encoder": {"algo": "sac", **FORECASTS, "freeze_encoder": 0.5, "universe": 4},
    "td3": {"algo": "td3", "universe": 4, **LSTM},
    "ddpg": {"algo": "ddpg", "observation": "flat"},
    "tqc": {"algo": "tqc", **FORECASTS},
}


class Stop(Exception):
    """Stands for the end of the process."""


def stopped(config: TrainConfig, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, and stop at the first moment between updates at which so many steps are done."""
    with monkeypatch.context() as patch:
        begin = PeriodicCallback._on_rollout_start

        def until(self: PeriodicCallback) -> None:
            if self.model.num_timesteps >= at:
                raise Stop
            begin(self)

        patch.setattr(PeriodicCallback, "_on_rollout_start", until)
        with pytest.raises(Stop):
            train(config)


def assert_same(first: Any, second: Any, where: str = "") -> None:
    """Every number of two trees is equal, bit for bit."""
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key, value in first.items():
            assert_same(value, second[key], f"{where}/{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_same(a, b, f"{where}/{i}")
    elif isinstance(first, np.ndarray | th.Tensor):
        assert np.array_equal(np.asarray(first), np.asarray(second)), where
    else:
        assert first == second, where


def points(path: Path) -> dict[str, list[tuple[int, float]]]:
    """All curves of a folder but the speed."""
    events = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag != "time/fps"]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def assert_same_run(first: Path, second: Path) -> None:
    for name in ("final_model", "best_model", f"checkpoints/{latest_checkpoint(first).stem}"):
        trees = (
            load_tensors(path / f"{name}.safetensors", kind="agent") for path in (first, second)
        )
        one, other = trees
        for tree in (one, other):  # the clock
            tree.get("training", {}).get("episodes", {}).pop("t", None)
            tree.get("training", {}).get("logged", {}).clear()
        assert_same(one, other)
    assert read_json(first / "validation.json") == read_json(second / "validation.json")
    curves = points(first / "tb")
    assert_same(curves, points(second / "tb"))
    for tag, curve in curves.items():
        steps = [step for step, _ in curve]
        assert steps == sorted(set(steps)), tag


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("ignore:a flat network")
@pytest.mark.parametrize("case", CASES)
def test_a_stopped_run_ends_as_one_that_was_not(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: weights, optimisers, buffers, random states, validations, and every curve."""
    on_policy = CASES[case]["algo"] in ("ppo", "a2c")
    steps, num_envs = (4096, 64) if on_policy else (1280, 16)
    options = {"timesteps": steps, "num_envs": num_envs, "episode_length": 23, **CASES[case]}
    options["market"] = "synthetic?bars=160&assets=5"  # most of the time are the validations
    options |= {"checkpoint_every": steps // 4, "validation_every": steps // 5}
    monkeypatch.setattr("agents.sb3.algorithms.ROLLOUT", 1024)
    whole = train(small(tmp_path / "whole", **options))
    config = small(tmp_path / "stopped", **options)
    stopped(config, 0.7 * steps, monkeypatch)
    assert 0 < int(latest_checkpoint(tmp_path / "stopped").stem) <= 0.7 * steps
    th.manual_seed(99)  # what the next process happens to start from
    np.random.seed(99)
    assert_same_run(whole, resume(tmp_path / "stopped"))
    curve = points(whole / "tb")["train/value_loss" if on_policy else "train/critic_loss"]
    assert curve[-1][0] == steps  # the last update has its point too
    before = {file: file.read_bytes() for file in whole.rglob("*.safetensors")}
    resume(whole)  # nothing is left to do
    assert {file: file.read_bytes() for file in whole.rglob("*.safetensors")} == before
    assert_same(points(whole / "tb"), points(tmp_path / "stopped" / "tb"))
