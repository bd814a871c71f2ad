"""A run folder from somebody else is data: nothing that is in it can run."""

import base64
import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch as th
from helpers.payload import Payload
from helpers.small_runs import small

from agents import export_zip, load_agent, load_run, load_zip, make_agent, make_sb3_vec_env
from agents.direct.agent import DirectAgent
from agents.networks.lstm import LstmEncoder
from agents.training.train import resume, train
from evaluate import EvaluateConfig, evaluate
from portfolio_env import load_market
from portfolio_env.errors import ArgumentError, DataError, PortfolioError

OLD = (
    "final_model.zip", "best_model.zip", "checkpoints/000000009999/model.zip",
    "checkpoints/000000009999/replay_buffer.npz", "checkpoints/direct.pt", "encoder.pt",
    "stage_1.pt", "stage_2.pt", "vecnormalize.pkl", "policy.pth",
)  # fmt: skip


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


def used(path: Path, *, judge: bool = True) -> list[str]:
    """Load, evaluate and resume a run; the errors that were told."""
    told = []
    judged = EvaluateConfig(path, device="cpu", n_resamples=40, baselines="equal_weight")
    uses: list[Callable[[], Any]] = [
        lambda: load_run(path, device="cpu"),
        lambda: load_run(path, model="best", device="cpu"),
        lambda: resume(path),
        lambda: evaluate(judged),
    ][: 4 if judge else 3]
    for use in uses:
        try:
            use()
        except PortfolioError as error:
            told.append(str(error))
    return told


def poisoned(run: Path, copies: Path, names: Iterable[str], content: bytes) -> Path:
    """A copy of a run with a payload in place of some files, or beside them.

    None is removed: TensorBoard's thread may write to one for minutes after its run.
    """
    copy = Path(mkdtemp(dir=copies)) / "copy"
    shutil.copytree(run, copy)
    for name in names:
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_bytes(content)
    return copy


@pytest.mark.slow
def test_no_file_of_a_run_folder_can_run_code(run: Path, tmp_path: Path) -> None:
    trap, copies = tmp_path / "trap", tmp_path / "copies"
    copies.mkdir()
    files = [str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()]
    for i, name in enumerate(files):
        content = PAYLOADS[i % len(PAYLOADS)](trap)
        told = used(poisoned(run, copies, [name], content), judge=name.startswith("final"))
        assert not trap.exists(), name
        if name.endswith("model.safetensors") or name in ("config.json", "market.json"):
            assert told and all(name in error for error in told)
    for payload in PAYLOADS:
        assert used(poisoned(run, copies, [*OLD, *files], payload(trap)))
        assert not trap.exists()
        # those of older versions are not looked at: all ends as it would without them
        known = used(poisoned(run, copies, OLD, payload(trap)), judge=payload is by_zip_of_sb3)
        assert known == [] and not trap.exists()


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
    actions = [a.predict(observation, deterministic=True)[0] for a in (agent, loaded)]
    assert np.array_equal(*actions)


def test_a_zip_of_sb3_says_where_it_is_read_and_what_does_not_fit(tmp_path: Path) -> None:
    market = load_market("synthetic?bars=100&assets=4")
    venv = make_sb3_vec_env(market, 2, observation="index", window=3)
    agent = make_agent("ppo", venv, encoder="lstm", device="cpu", seed=3)
    file = tmp_path / "agent.zip"
    export_zip(agent, file)
    with pytest.raises(DataError, match=r"agent\.zip is a zip; agents\.load_zip reads"):
        load_agent(file, venv)
    with pytest.raises(DataError, match="no agent of sac for these observations"):
        load_zip("sac", file, venv, trust=True)
    # As a later version would: the encoder has a layer more than the one that was saved.
    made = LstmEncoder.__init__

    def with_another_layer(self: LstmEncoder, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        self.another = th.nn.Linear(2, 2)

    with (
        patch.object(LstmEncoder, "__init__", with_another_layer),
        pytest.raises(DataError, match="weights of another network, or of another version of it"),
    ):
        load_zip("ppo", file, venv, trust=True)
