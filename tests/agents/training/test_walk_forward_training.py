"""A walk forward of agents: each fold learns from its past, and what was stopped is continued."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents import load_run
from agents.sweep.walk_forward import continue_walk_forward, walk_forward
from agents.training.config import TrainConfig
from agents.training.walk_forward_training import (
    make_plan,
    out_of_sample,
)
from portfolio_env import load_market
from portfolio_env.data.bars import frame_of_panel
from portfolio_env.data.generators.synthetic import synthetic_panel
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation.walk_forward import Fold
from portfolio_env.features import FeaturePipeline
from portfolio_env.files.atomic import read_json
from train import Command, run

MARKET = "synthetic?bars=200&assets=3"

pytestmark = pytest.mark.usefixtures("undrawn")


def small(out: Path, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        market=MARKET, timesteps=512, num_envs=16, episode_length=20, out=str(out), device="cpu"
    )
    return replace(config, **changes)


def parameters(folder: Path) -> np.ndarray:
    return load_run(folder, device="cpu").model.policy.parameters_to_vector()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "forward"
    return run(Command(small(out), walk_forward=2, seeds="0,3"), progress_bar=False)


def test_a_run_per_fold_and_seed(path: Path) -> None:
    plan = read_json(path / "walk_forward.json")
    assert plan["folds"] == [
        {"train": [0, 120], "validation": [120, 160], "test": [160, 180]},
        {"train": [0, 140], "validation": [140, 180], "test": [180, 200]},
    ]
    for seed in (0, 3):
        first, second = (load_run(path / f"fold_{i}/seed_{seed}", device="cpu") for i in (0, 1))
        assert first.config["seed"] == second.config["seed"] == seed
        assert first.ranges == {"train": (0, 120), "validation": (120, 160), "test": (160, 181)}
        assert second.ranges == {"train": (0, 140), "validation": (140, 180), "test": (180, 200)}
    stored = read_json(path / "fold_1/seed_0/features.json")
    fitted = FeaturePipeline("minimal").fit(load_market(MARKET), 140)
    assert stored == json.loads(json.dumps(fitted.to_dict()))  # scaled by its own training range


def test_the_tests_join_to_the_test_range(path: Path) -> None:
    results = out_of_sample(path, model="best", device="cpu")
    assert list(results) == [0, 3]
    for result in results.values():
        assert (result.timestamps == load_market(MARKET).timestamps[160:]).all()
    assert not np.array_equal(results[0].values, results[3].values)


def test_what_was_stopped_is_continued(path: Path, tmp_path: Path) -> None:
    """Whole runs are left alone; a lost one is trained again to the same model."""
    copy = Path(shutil.copytree(path, tmp_path / "copy"))
    lost, whole = copy / "fold_1/seed_0", copy / "fold_0/seed_0/final_model.safetensors"
    before, stamp = parameters(lost), whole.stat().st_mtime_ns
    shutil.rmtree(lost)
    lost.mkdir()
    (lost / "run.json").write_text("killed here")  # before it became a run
    (copy / "fold_1/seed_3/final_model.safetensors").unlink()  # killed at the very end
    command = Command(TrainConfig(), resume=str(copy))
    assert run(command, progress_bar=False) == copy
    assert np.array_equal(parameters(lost), before)
    assert whole.stat().st_mtime_ns == stamp
    assert (copy / "fold_1/seed_3/final_model.safetensors").exists()
    assert not (tmp_path / "unused").exists()


def test_a_fold_knows_nothing_of_what_comes_after_its_validation(tmp_path: Path) -> None:
    panel = synthetic_panel(bars=200, assets=2)
    other = synthetic_panel(bars=200, assets=2, seed=9)
    later = replace(
        panel,
        **{
            name: np.r_[getattr(panel, name)[:160], getattr(other, name)[160:]]
            for name in ("open", "high", "low", "close", "volume")
        },
    )
    folders = []
    for name, each in (("a", panel), ("b", later)):
        frame_of_panel(each).to_csv(tmp_path / f"{name}.csv", index=False)
        config = small(tmp_path / name, market=str(tmp_path / f"{name}.csv"))
        folders.append(walk_forward(config, 1) / "fold_0/seed_0")
    first, second = folders
    assert np.array_equal(parameters(first), parameters(second))
    validations = [(folder / "validation.json").read_text() for folder in folders]
    assert validations[0] == validations[1]


def test_plans_roll_and_end_where_the_settings_say(tmp_path: Path) -> None:
    plan = make_plan(small(tmp_path, train=0.5, test=0.25), 2, rolling=True)
    assert plan.folds[1] == Fold(train=(25, 125), validation=(125, 165), test=(165, 190))
    market, ranges = plan.runs[1].load_market()
    whole = load_market(MARKET)
    assert market.timestamps[0] == whole.timestamps[25]
    assert ranges["test"] == (140, 165)  # no bar after the settings' own end
    assert plan.runs[0].load_market()[1]["test"] == (140, 166)


def test_bad_plans_are_refused(tmp_path: Path, path: Path) -> None:
    with pytest.raises(ArgumentError, match="repeats"):
        make_plan(small(tmp_path), 2, seeds=[1, 1])
    with pytest.raises(ArgumentError, match="too few for 40 tests"):
        make_plan(small(tmp_path), 40)
    with pytest.raises(ArgumentError, match="not empty"):
        walk_forward(small(path), 2)
    with pytest.raises(DataError, match="not a walk forward"):
        continue_walk_forward(tmp_path)
    with pytest.raises(ArgumentError, match="whole numbers"):
        run(Command(small(tmp_path), walk_forward=2, seeds="0;1"))
    with pytest.raises(ArgumentError, match="add --walk-forward"):
        run(Command(small(tmp_path), rolling=True))
    gone = synthetic_panel(bars=200, assets=3)
    frame = frame_of_panel(gone)
    ends = gone.timestamps[20]
    frame = frame[(frame["symbol"] != "A01") | (frame["date"] < ends)]
    frame.to_csv(tmp_path / "gone.csv", index=False)
    config = small(tmp_path / "x", market=str(tmp_path / "gone.csv"), train=0.5, validation=0.1)
    with pytest.raises(ArgumentError, match=r"lacks the assets \['A01'\]"):
        make_plan(config, 4, rolling=True)
    assert len(make_plan(config, 4).runs) == 4
