"""A run folder from somebody else is data: nothing that is in it can run."""

import base64
import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from small_runs import small

from agents import export_zip, load_agent, load_run, load_zip, make_agent, make_sb3_vec_env
from agents.direct import DirectAgent
from agents.training import resume, train
from evaluate import EvaluateConfig, evaluate
from portfolio_env import load_market
from portfolio_env.errors import ArgumentError, DataError, PortfolioError

OLD = (
    "final_model.zip", "best_model.zip", "checkpoints/000000009999/model.zip",
    "checkpoints/000000009999/replay_buffer.npz", "checkpoints/direct.pt", "encoder.pt",
    "stage_1.pt", "stage_2.pt", "vecnormalize.pkl", "policy.pth",
)  # fmt: skip


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> Any:
        return Path.touch, (self.trap,)


def by_pickle(trap: Path) -> bytes:
    return pickle.dumps(Payload(trap))


def by_torch(trap: Path) -> bytes:
    th.save({"config": "{}", "weights": Payload(trap)}, stream := io.BytesIO())
    return stream.getvalue()


def by_numpy(trap: Path) -> bytes:
    array = np.array([Payload(trap)], dtype=object)
    np.savez(stream := io.BytesIO(), header=array, pos=array, t=array)
    return stream.getvalue()


def by_zip_of_sb3(trap: Path) -> bytes:
    serialized = base64.b64encode(by_pickle(trap)).decode()
    names = ("policy_class", "observation_space", "policy_kwargs", "lr_schedule", "n_steps")
    data = {name: {":type:": "x", ":serialized:": serialized} for name in names}
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
        archive.writestr("data", json.dumps(data))
        archive.writestr("policy.pth", by_torch(trap))
        archive.writestr("pytorch_variables.pth", by_pickle(trap))
    return stream.getvalue()


PAYLOADS: list[Callable[[Path], bytes]] = [by_pickle, by_torch, by_numpy, by_zip_of_sb3]


@pytest.fixture(scope="module", params=["ppo", "direct"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / request.param
    return train(
        small(
            out,
            algo=request.param,
            timesteps=3840,
            num_envs=32,
            market="synthetic?bars=300&assets=3",
        )
    )


def used(path: Path) -> list[str]:
    """Load, evaluate and resume a run; the errors that were told."""
    told = []
    uses: list[Callable[[], Any]] = [
        lambda: load_run(path, device="cpu"),
        lambda: load_run(path, model="best", device="cpu"),
        lambda: evaluate(EvaluateConfig(path, device="cpu", resamples=40, baselines="")),
        lambda: resume(path),
    ]
    for use in uses:
        try:
            use()
        except PortfolioError as error:
            told.append(str(error))
    return told


@pytest.mark.slow
@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_file_of_a_run_folder_can_run_code(
    payload: Callable[[Path], bytes], run: Path, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    files = [file.relative_to(run) for file in run.rglob("*") if file.is_file()]
    for name in [*files, None]:
        copy = tmp_path / "copy"
        shutil.copytree(run, copy)
        for bad in (*OLD, *(files if name is None else [name])):
            (copy / bad).parent.mkdir(exist_ok=True)
            (copy / bad).write_bytes(payload(trap))
        told = used(copy)
        assert not trap.exists(), name
        if name is not None and (name.suffix == ".safetensors" or name.name == "config.json"):
            assert told and all(name.name in error or "no checkpoint" in error for error in told)
        shutil.rmtree(copy)


@pytest.mark.parametrize("payload", [by_pickle, by_zip_of_sb3])
def test_the_payloads_do_run_where_pickles_are_read(
    payload: Callable[[Path], bytes], tmp_path: Path
) -> None:
    """Or the test above could not fail."""
    trap, file = tmp_path / "trap", tmp_path / "model.zip"
    file.write_bytes(payload(trap))
    venv = make_sb3_vec_env("synthetic?bars=100", observation="index", window=1)
    with pytest.raises(ArgumentError, match="runs any code that its author has put there"):
        load_zip("ppo", file, venv)
    for read in (lambda: load_agent(file, venv), lambda: DirectAgent.load(file)):
        with pytest.raises(DataError, match=r"model\.zip"):
            read()
    assert not trap.exists()
    if payload is by_pickle:
        pickle.loads(file.read_bytes())
    else:
        with pytest.raises(DataError):
            load_zip("ppo", file, venv, trust=True)
    assert trap.exists()


def test_a_zip_of_sb3_is_written_and_with_trust_read(tmp_path: Path) -> None:
    market = load_market("synthetic?bars=100&assets=4")
    venv = make_sb3_vec_env(market, 2, observation="index", window=1)
    agent = make_agent("sac", venv, device="cpu", seed=3)
    export_zip(agent, tmp_path / "agent.zip")
    loaded = load_zip("sac", tmp_path / "agent.zip", venv, trust=True, device="cpu")
    observation = venv.reset()
    for deterministic in (True,):
        first, second = (
            a.predict(observation, deterministic=deterministic)[0] for a in (agent, loaded)
        )
        assert np.array_equal(first, second)
