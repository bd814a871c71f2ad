"""Curves for Weights & Biases and MLflow: every number with its step, through stand-in clients."""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from agents.sb3.curves import Tracker, check_tracker, curves, write_points
from agents.training.config import TrainConfig
from agents.training.run_records import id_of
from agents.training.train import train
from portfolio_env.command_line import exit_status
from portfolio_env.errors import ArgumentError, PortfolioError


def client(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, list]:
    """A module that records what is called, in place of the client."""
    calls: list = []

    def note(method):
        def called(*values, **named):
            calls.append((method, values, named))
            return run

        return called

    run = SimpleNamespace(**{m: note(m) for m in ("log", "define_metric", "finish")})
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    for method in ("init", "start_run", "log_params", "log_metrics", "end_run"):
        setattr(module, method, note(method))
    monkeypatch.setitem(sys.modules, name, module)
    return module, calls


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_numbers_reach_the_client_with_their_steps(name, monkeypatch, tmp_path):
    _, calls = client(name, monkeypatch)
    logger = curves(tmp_path, 0, Tracker(name, "run", "id7", {"algo": "ppo", "window": 3}))
    write_points(logger, {"portfolio/train/value": 1.5, "weights": np.ones(3)}, 10)
    logger.record("train/loss", np.float32(0.25))
    logger.dump(20)
    logger.close()
    methods = [method for method, *_ in calls]
    if name == "wandb":
        assert calls[0][2]["id"] == "id7" and calls[0][2]["config"] == {"algo": "ppo", "window": 3}
        sent = [values[0] for method, values, _ in calls if method == "log"]
        assert sent == [
            {"portfolio/train/value": 1.5, "timesteps": 10},
            {"train/loss": 0.25, "timesteps": 20},
        ]
        assert methods[-1] == "finish"
    else:
        assert calls[0][2] == {"run_name": "run", "tags": {"run_id": "id7"}}
        sent = [(values[0], named) for method, values, named in calls if method == "log_metrics"]
        assert sent == [
            ({"portfolio/train/value": 1.5}, {"step": 10}),
            ({"train/loss": 0.25}, {"step": 20}),
        ]
        assert methods[-1] == "end_run"


def test_an_unknown_or_missing_client_is_refused():
    with pytest.raises(ArgumentError, match="track='comet' must be one of 'wandb', 'mlflow'"):
        check_tracker("comet")
    if find_spec("wandb") is None:
        with pytest.raises(PortfolioError, match="needs wandb; pip install wandb"):
            check_tracker("wandb")


def test_a_training_sends_its_curves(monkeypatch, tmp_path):
    _, calls = client("wandb", monkeypatch)
    config = TrainConfig(
        market="synthetic?assets=3&bars=300",
        algo="direct",
        timesteps=2 * 8 * 30,
        num_envs=8,
        track="wandb",
        out=str(tmp_path / "run"),
    )
    path = train(config)
    assert calls[0][2]["id"] == id_of(path) and calls[0][2]["config"]["algo"] == "direct"
    sent = {tag for method, values, _ in calls if method == "log" for tag in values[0]}
    assert {"train/growth", "portfolio/validation/excess_growth", "validation/growth"} <= sent
    assert calls[-1][0] == "finish"


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
def test_a_full_disk_under_the_curves_names_their_folder(tmp_path, capsys):
    import resource

    def work():
        logger = curves(tmp_path / "tb", 0)
        for step in range(100):
            write_points(logger, {"x": 1.0}, step)

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        assert exit_status(work, stopped="") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'tb'} cannot be written (File")
