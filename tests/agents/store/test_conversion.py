"""Runs of the first format act as before, bit for bit, and nothing of their pickles is run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch as th
from helpers.payload import Payload
from helpers.small_runs import made_run

import portfolio_env as pe
from agents import load_run
from agents.saving import export_zip, load_zip
from agents.sb3.vec_env import make_sb3_vec_env
from agents.store.__main__ import main
from agents.store.archives import export_run
from agents.store.conversion import convert
from agents.training.config import TrainConfig
from agents.training.run_folder import load_model
from agents.training.run_records import read_record
from agents.training.tasks import run_task
from agents.training.train import resume
from portfolio_env.errors import DataError
from portfolio_env.evaluation import backtest
from portfolio_env.evaluation.usage_log import read_usage_log
from portfolio_env.files.atomic import read_json


def to_old(path: Path) -> Path:
    """Make a run folder one of the first format: SB3's zips, bare JSON, no identity."""
    config = TrainConfig.from_json(read_json(path / "config.json"))
    market, _ = config.load_market()
    identity = read_json(path / "run.json")
    for name in ("best", "final"):
        new = path / f"{name}_model.safetensors"
        if not new.exists():
            continue
        agent = load_model(path, config, market, model=name, device="cpu")
        if config.algo == "direct":
            content = {"config": json.dumps(agent.config), "weights": agent.network.state_dict()}
            th.save(content, path / f"{name}_model.zip")
        else:
            export_zip(agent, path / f"{name}_model.zip")
        new.unlink()
    for file in (path / "checkpoints").glob("*.safetensors"):
        folder = file.with_suffix("")
        folder.mkdir()
        from agents.saving import load_agent

        venv = make_sb3_vec_env(market, config.num_envs, **config.env_options()
                                | config.training_options(market, (0, 240)))  # fmt: skip
        export_zip(load_agent(file, venv, device="cpu"), folder / "model.zip")
        file.unlink()
    for file in path.glob("*.json"):
        content = read_json(file)
        content = content.get("validations", content) if file.name == "validation.json" else content
        if file.name == "market.json":
            del content["feature_names"]
        file.write_text(json.dumps(content, indent=2))
    (path / "run.json").unlink()
    versions = {"python": "3.11", "platform": "Linux", "torch": identity["environment"]["python"]}
    (path / "versions.json").write_text(json.dumps(versions))
    (path / "command.txt").write_text("train.py --seed 0\n")
    return path


@pytest.fixture(scope="module", params=["ppo", "sac", "td3", "direct"])
def old(request, tmp_path_factory):
    return to_old(made_run(tmp_path_factory.mktemp("old") / "run", algo=request.param))


def account(policy, config, market, rows):
    env = pe.PortfolioEnv(market, start=rows[0], end=rows[1], **config.env_options())
    return backtest(policy, env)


def before(path):
    """Accounts of the old models over the validation range, as the first format loaded them."""
    config = TrainConfig.from_json(json.loads((path / "config.json").read_text()))
    market, ranges = config.load_market()
    venv = make_sb3_vec_env(market, **config.env_options())
    found = {}
    for name in ("best", "final"):
        file = path / f"{name}_model.zip"
        if config.algo == "direct":
            from agents.direct.agent import DirectAgent

            content = th.load(file, weights_only=True)
            model = DirectAgent(**json.loads(content["config"]))
            model.network.load_state_dict(content["weights"])
            model.bind(market)
        else:
            model = load_zip(config.algo, file, venv, trust=True, device="cpu")
        found[name] = account(model, config, market, ranges["validation"])
    return found


@pytest.mark.parametrize("trust", [False, True])
def test_a_converted_run_acts_as_before(old, tmp_path, trust):
    path = shutil.copytree(old, tmp_path / "run")
    expected = before(path)
    with pytest.raises(DataError, match="store convert"):
        load_run(path)
    said = list(convert(path, trust=trust))
    assert sum("acts as before" in line for line in said) == 2
    for name, account_before in expected.items():
        run = load_run(path, model=name, device="cpu")
        config = TrainConfig.from_json(run.config)
        after = account(run.model, config, run.market, run.ranges["validation"])
        assert np.array_equal(after.held, account_before.held)
        assert np.array_equal(after.values, account_before.values)
    left = {file.suffix for file in path.rglob("*") if file.is_file() and file.name[0] != "."}
    assert left <= {".json", ".safetensors", ".md"}
    record = read_record(path)
    assert record.state == "finished" and len(record.id) == 12
    assert read_json(path / "run.json")["command"] == "train.py --seed 0"
    with pytest.raises(DataError, match="of this format already"):
        list(convert(path))


def test_a_stopped_run_is_resumed_after_its_conversion(tmp_path):
    path = to_old(made_run(tmp_path / "run", finished=False))
    list(convert(path))
    assert read_record(path).state == "stopped 0%"
    resume(path)
    assert read_record(path).state == "finished"


def test_nothing_of_a_pickle_is_run(tmp_path, capsys):
    """The settings of SB3's zip hold a payload: it is run on trust alone."""
    import base64
    import pickle
    from zipfile import ZipFile

    path, proof = to_old(made_run(tmp_path / "run")), tmp_path / "proof"
    payload = base64.b64encode(pickle.dumps(Payload(proof))).decode()
    for file in path.glob("*_model.zip"):
        with ZipFile(file) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        data = json.loads(members["data"])
        data["lr_schedule"] = {":type:": "x", ":serialized:": payload}
        with ZipFile(file, "w") as archive:
            for name, content in (members | {"data": json.dumps(data).encode()}).items():
                archive.writestr(name, content)
    twin = shutil.copytree(path, tmp_path / "twin")
    for use in (load_run, resume, run_task, export_run):
        with pytest.raises(DataError, match="store convert"):
            use(path, *[tmp_path / "run.zip"][: use is export_run])
    for arguments in (["list"], ["show", "run"], ["card", "run"]):
        main([*arguments, "--runs", str(tmp_path)])
    assert not proof.exists()
    assert main(["convert", str(path)]) == 0
    assert not proof.exists()
    load_run(path, device="cpu")
    assert not proof.exists()
    assert main(["convert", str(twin), "--trust"]) in (0, 1)
    assert proof.exists()  # so the payload does work
    capsys.readouterr()


def test_a_pickle_in_place_of_tensors_is_not_read(tmp_path):
    import pickle

    path, proof = made_run(tmp_path / "run"), tmp_path / "proof"
    for file in path.rglob("*.safetensors"):
        file.write_bytes(pickle.dumps(Payload(proof)))
    for use in (load_run, resume, run_task, export_run):
        with pytest.raises(DataError, match="damaged"):
            use(path, *[tmp_path / "run.zip"][: use is export_run])
    assert main(["show", "run", "--runs", str(tmp_path)]) == 1
    assert not proof.exists()


def test_a_pickle_in_a_file_of_torch_is_refused(tmp_path):
    path, proof = to_old(made_run(tmp_path / "run", algo="direct")), tmp_path / "proof"
    th.save({"config": Payload(proof), "weights": {}}, path / "final_model.zip")
    with pytest.raises(DataError, match=r"final_model\.zip is damaged, or holds more than tensors"):
        list(convert(path))
    assert not proof.exists()
    assert (path / "versions.json").exists()


def test_a_damaged_zip_stops_the_conversion_with_its_name(tmp_path):
    path = to_old(made_run(tmp_path / "run"))
    file = path / "final_model.zip"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"final_model\.zip is damaged"):
        list(convert(path))
    assert (path / "versions.json").exists() and (path / "best_model.zip").exists()


def test_a_conversion_that_was_killed_is_begun_again(tmp_path, monkeypatch):
    path = to_old(made_run(tmp_path / "run"))
    expected = before(path)
    from agents.store import conversion

    for name in ("save_agent", "_compare", "write_json", "validate_models", "write_card"):
        with monkeypatch.context() as patch:
            patch.setattr(conversion, name, _killed)
            with pytest.raises(KeyboardInterrupt):
                list(convert(path))
    list(convert(path))
    run = load_run(path, model="final", device="cpu")
    after = account(run.model, TrainConfig.from_json(run.config), run.market,
                    run.ranges["validation"])  # fmt: skip
    assert np.array_equal(after.values, expected["final"].values)
    assert not list(path.rglob("*.zip"))


def _killed(*_, **__):
    raise KeyboardInterrupt


def test_looks_are_kept(tmp_path):
    path = to_old(made_run(tmp_path / "run", algo="direct"))
    look = {"date": "2030-01-02", "command": "x", "model": None, "first": "a", "last": "b",
            "range_hash": "h", "trials": []}  # fmt: skip
    (path / "looks.json").write_text(json.dumps([look]))
    list(convert(path))
    assert [each.date for each in read_usage_log(path)] == ["2030-01-02"]
