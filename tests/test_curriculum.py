"""A curriculum from forecasts over net growth to RL: each stage hands its encoder on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents import load_run
from agents.config import TrainConfig
from agents.extractors import MarketExtractor
from agents.training import resume, train
from portfolio_env import PortfolioEnv
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest

CONFIG = TrainConfig(
    market="synthetic?bars=400&assets=4",
    encoder="mlp",
    encoder_options='{"depth": 1, "width": 16}',
    window=2,
    timesteps=2048,
    num_envs=32,
    episode_length=40,
    device="cpu",
)


def encoders(model: Any) -> list[dict[str, th.Tensor]]:
    network = getattr(model, "policy", None) or model.network
    return [m.encoder.state_dict() for m in network.modules() if isinstance(m, MarketExtractor)]


def same(first: dict[str, th.Tensor], second: dict[str, th.Tensor]) -> bool:
    # SAC's target networks average equal weights, which rounds.
    return all(th.allclose(value, second[name], atol=1e-6) for name, value in first.items())


@pytest.mark.parametrize("algo", ["ppo", "sac", "direct"])
@pytest.mark.parametrize("stages", ["1,3", "1,2,3"])
def test_every_stage_starts_from_the_encoder_before(algo: Any, stages: str, tmp_path: Path) -> None:
    if algo == "direct":
        stages = "1,3"
    frozen = algo != "direct"
    config = replace(
        CONFIG, algo=algo, curriculum=stages, freeze_encoder=frozen, out=str(tmp_path / "run")
    )
    path = train(config)
    handed_on = th.load(path / "encoder.pt", weights_only=True)
    run = load_run(path, device="cpu")
    for own in encoders(run.model):
        assert same(own, handed_on) == frozen
    tags = EventAccumulator(str(path / "tb")).Reload().Tags()["scalars"]
    assert {"pretraining/nll", "pretraining/validation_nll", "pretraining/coverage"} <= set(tags)
    assert ("stage_2/train/growth" in tags) == ("2" in stages)
    start, end = run.ranges["test"]
    env = PortfolioEnv(**{**run.env_options, "market": run.market, "start": start, "end": end})
    assert np.isfinite(backtest(run.model, env).values).all()


def test_stages_are_not_repeated_and_learning_goes_on_from_them(tmp_path: Path) -> None:
    path = train(replace(CONFIG, curriculum="1,3", timesteps=16384, out=str(tmp_path / "run")))
    handed_on = th.load(path / "encoder.pt", weights_only=True)
    (own,) = encoders(load_run(path, device="cpu").model)
    assert not same(own, handed_on)
    changed = {name: value + 1 for name, value in handed_on.items()}
    other = tmp_path / "other"
    other.mkdir()
    frozen = replace(CONFIG, curriculum="1,3", freeze_encoder=True, out=str(other / "run"))
    path = train(frozen)
    th.save(changed, path / "encoder.pt")  # as if stage 1 had ended so, and RL had not begun
    for left in (path / "checkpoints").iterdir():
        for file in left.iterdir():
            file.unlink()
        left.rmdir()

    resume(path)
    (own,) = encoders(load_run(path, device="cpu").model)
    assert same(own, changed)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"curriculum": "1"}, "curriculum is '1'"),
        ({"curriculum": "3,1"}, "curriculum is '3,1'"),
        ({"curriculum": "1,3", "encoder": "per_asset"}, "has none to train"),
        ({"curriculum": "1,3", "policy": "flat_mlp", "observation": "flat"}, "has none to train"),
    ],
)
def test_curricula_that_cannot_be_are_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        replace(CONFIG, **change)
