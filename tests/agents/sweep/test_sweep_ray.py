"""Sweeps on a Ray cluster; skipped where Ray is not installed."""

import sys
from pathlib import Path

import pytest

from agents.sweep.commands import Run, SweepOptions
from agents.sweep.plan import SweepPlan, create_sweep
from agents.sweep.queue import events
from agents.sweep.ray_cluster import run_on_ray
from agents.sweep.workers import Counts, Tally
from agents.training.config import TrainConfig
from portfolio_env.errors import PortfolioError

BASE = TrainConfig(
    market="synthetic?bars=200&assets=3",
    timesteps=256,
    num_envs=16,
    episode_length=20,
    device="cpu",
    algo="a2c",
)


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    root = create_sweep(tmp_path / "sweep", SweepPlan(BASE, {"base": {}}))
    with pytest.raises(PortfolioError, match="needs the extra ray"):
        Run(root, SweepOptions(TrainConfig()), executor="ray").run()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what Ray itself leaves open
def test_every_cell_is_a_task(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    settings = {"slow": {"adjustment": 0.1}, "base": {}}
    root = create_sweep(tmp_path / "sweep", SweepPlan(BASE, settings))
    run_on_ray(root)
    assert Tally(root).counts() == Counts(2, 0, 0)
    assert sorted(event["event"] for event in events(root)) == [
        "done",
        "done",
        "started",
        "started",
    ]
    assert all((root / name / "card.json").is_file() for name in settings)
