"""The task of an evaluation: what of a run is needed to judge its agent, or baselines alone."""

import shutil

import pytest

from agents import load_run
from agents.training.config import TrainConfig
from agents.training.tasks import run_task
from agents.training.train import train
from portfolio_env.errors import ArgumentError, DataError

FLAT = {
    "market": "synthetic?bars=400&assets=10",
    "policy": "flat_mlp",
    "observation": "flat",
    "device": "cpu",
}


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    out = str(tmp_path_factory.mktemp("runs") / "flat")
    with pytest.warns(UserWarning, match="memorises"):
        return train(TrainConfig(**FLAT, timesteps=1024, num_envs=16, out=out))


def test_a_flat_network_has_all_assets_of_a_large_market(run_path):
    """Others are trained on eight of them at a time, which it cannot be."""
    run = load_run(run_path, device="cpu")
    assert run.model.action_space.shape == (11,)
    with pytest.raises(ArgumentError, match="universe is 8: policy 'flat_mlp' is made for all"):
        TrainConfig(**FLAT, universe=8)


def test_baselines_alone_need_no_model_of_the_run(run_path, tmp_path):
    for name in ("config.json", "market.json"):
        shutil.copy(run_path / name, tmp_path)
    task = run_task(tmp_path, agent=False)
    trained = run_task(run_path, device="cpu")
    assert task.agents == [] and trained.agents == ["ppo"]
    assert task.whole.ranges == trained.whole.ranges
    assert task.whole.options == trained.whole.options
    with pytest.raises(DataError, match="no model yet"):
        run_task(tmp_path)
