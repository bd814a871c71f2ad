"""One's own encoder, algorithm, feature, reward, costs and baseline, by both command lines.

The files lie in the working directory, as they would beside a user's prices.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch as th
from helpers.small_runs import ROOT, small

from agents.store.archives import export_run, import_run
from agents.tensors import SUFFIX, load_tensors
from agents.training.run_folder import latest_checkpoint
from agents.training.train import train
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.atomic import read_json, write_json

FILES = {
    "my_nets.py": """
        import torch

        class MyEncoder(torch.nn.Module):
            def __init__(self, n_features, window, width=4):
                super().__init__()
                self.layer = torch.nn.Linear(n_features * window, width)

            def forward(self, windows, tradable):
                return self.layer(windows.transpose(1, 2).flatten(2)).tanh()
    """,
    "my_features.py": """
        import numpy as np
        from portfolio_env.features import indicator

        @indicator("own", "return over w bars", windows=(5,), lookback=lambda w: w)
        def drift(bars, w):
            past = np.full_like(bars.close, np.nan)
            past[w:] = bars.close[:-w]
            return bars.close / past - 1
    """,
    "my_rewards.py": """
        def growth(step):
            return step.log_return - 0.1 * step.turnover
    """,
    "my_costs.py": """
        import numpy as np
        from portfolio_env.simulation.cost_models import CostModel

        class Flat(CostModel):
            def __init__(self, bps=10.0):
                self.rate = bps / 1e4

            def rates(self, assets):
                rates = np.full(len(assets), self.rate)
                return rates, rates
    """,
    "my_algos.py": """
        from stable_baselines3 import PPO

        class MyPPO(PPO):
            pass
    """,
    "my_rules.py": """
        import numpy as np
        from baselines import PortfolioModel

        class TrendRule(PortfolioModel):
            def target(self, past):
                weights = np.zeros(self.market.n_assets + 1)
                weights[1 + int(past.close[-1].argmax())] = 1.0
                return weights
    """,
}
SETTINGS = """
algo: my_algos:MyPPO
algo_options: {n_steps: 8, batch_size: 16, n_epochs: 1, net_arch: [8]}
encoder: my_nets:MyEncoder
encoder_options: {width: 3}
window: 4
market: synthetic?bars=160&assets=3
features: return_1,my_features:drift_5
reward: my_rewards:growth
cost_model: my_costs:Flat
cost_options: {bps: 20}
train: 0.5
num_envs: 4
timesteps: 256
episode_length: 20
checkpoint_every: 64
validation_every: 128
device: cpu
"""
NAMED = {
    "algorithm": ["my_algos:MyPPO"],
    "costs": ["my_costs:Flat"],
    "encoder": ["my_nets:MyEncoder"],
    "feature": ["my_features:drift_5"],
    "reward": ["my_rewards:growth"],
}


def dedent(text: str) -> str:
    return re.sub("^ {8}", "", text, flags=re.MULTILINE)


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script, *rest = arguments
    call = [sys.executable, str(ROOT / script)] if script.endswith(".py") else [sys.executable]
    rest = rest if script.endswith(".py") else list(arguments)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path[1:])])}
    return subprocess.run(
        [*call, *rest], cwd=folder, env=env, capture_output=True, text=True, timeout=500
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a run that was trained there from a file of settings."""
    pytest.importorskip("yaml")
    folder = tmp_path_factory.mktemp("home")
    for name, source in FILES.items():
        (folder / name).write_text(dedent(source))
    (folder / "run.yaml").write_text(SETTINGS)
    done = command(folder, "train.py", "--config", "run.yaml", "--out", "runs/own")
    assert done.returncode == 0, done.stderr
    return folder


def copied(home: Path, tmp_path: Path) -> Path:
    """The working directory once more, to be changed."""
    return shutil.copytree(home, tmp_path / "home")


def test_a_run_records_them(home: Path) -> None:
    recorded = read_json(home / "runs" / "own" / "plugins.json")["plugins"]
    assert {kind: list(hashes) for kind, hashes in recorded.items()} == NAMED
    features = read_json(home / "runs" / "own" / "market.json")["feature_names"]
    assert features == ["return_1", "my_features:drift_5"]


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_and_says_what_has_changed(
    home: Path, tmp_path: Path
) -> None:
    here = copied(home, tmp_path)
    run = here / "runs" / "own"
    whole = load_tensors(run / f"final_model{SUFFIX}", kind="agent")["parameters"]["policy"]
    last = latest_checkpoint(run)
    assert last is not None
    last.unlink()
    for name in ("final_model", "best_model"):
        (run / f"{name}{SUFFIX}").unlink()
    with (here / "my_nets.py").open("a") as file:
        file.write("# a comment\n")
    done = command(here, "train.py", "--resume", "runs/own")
    assert done.returncode == 0, done.stderr
    assert "the source of the encoder my_nets:MyEncoder has changed" in done.stderr
    again = load_tensors(run / f"final_model{SUFFIX}", kind="agent")["parameters"]["policy"]
    assert all(th.equal(again[name], weight) for name, weight in whole.items())


@pytest.mark.slow
def test_it_is_evaluated_beside_a_baseline_of_ones_own(home: Path) -> None:
    done = command(
        home, "evaluate.py", "runs/own", "--baselines", "my_rules:TrendRule", "--resamples", "50",
        "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("MyPPO", "TrendRule", "equal_weight"):
        assert name in done.stdout
    alone = command(
        home, "evaluate.py", "--no-agent", "--market", "synthetic?bars=160&assets=3",
        "--features", "my_features:drift_5", "--cost-model", "my_costs:Flat",
        "--baselines", "my_rules:TrendRule", "--resamples", "50", "--out", "alone",
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr


def test_the_store_hands_it_on(home: Path, tmp_path: Path) -> None:
    """Data go without the code: it is found again where it is used, and named where it lacks."""
    export_run(home / "runs" / "own", tmp_path / "own.zip")
    other = tmp_path / "other"
    path = import_run(tmp_path / "own.zip", other / "runs")
    assert (path / "plugins.json").exists() and not list(path.rglob("*.py"))
    shown = command(other, "-m", "agents.store", "show", path.name)
    assert shown.returncode == 0 and "my_nets:MyEncoder" in shown.stdout, shown.stderr
    lacking = command(other, "evaluate.py", f"runs/{path.name}")
    assert lacking.returncode == 1
    assert "needs the module" in lacking.stderr and "Traceback" not in lacking.stderr


def hostile(path: Path, field: str, name: Any, recorded: bool) -> None:
    """Name something else in the settings of a run, with checksums that fit."""
    kinds = {
        "algo": "algorithm", "encoder": "encoder", "features": "feature", "reward": "reward",
        "cost_model": "costs", "market": "market",
    }  # fmt: skip
    config = read_json(path / "config.json")
    write_json(path / "config.json", config | {field: name})
    plugins = read_json(path / "plugins.json")["plugins"]
    if recorded:
        plugins.setdefault(kinds[field], {})[name] = "0" * 64
        write_json(path / "plugins.json", {"plugins": plugins})


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("field", ["algo", "encoder", "features", "reward", "cost_model", "market"])
def test_a_hostile_run_imports_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, recorded: bool
) -> None:
    """Neither what lies in its folder nor what Python itself has."""
    from agents.training.run_folder import load_run
    from agents.training.tasks import run_task
    from agents.training.train import resume

    here = copied(home, tmp_path)
    run = here / "runs" / "own"
    trace = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nX = print\n"
    (run / "payload_in_run.py").write_text(trace)
    monkeypatch.syspath_prepend(here)
    monkeypatch.syspath_prepend(run)  # as if the run were the working directory
    original = read_json(run / "config.json"), read_json(run / "plugins.json")
    for name in ("payload_in_run:X", "os:system", "subprocess:Popen"):
        hostile(run, field, name, recorded)
        for use in (load_run, resume, lambda path: run_task(path, agent=False)):
            with pytest.raises(DataError, match=r"nothing was imported|nothing that is loaded"):
                use(run)
        write_json(run / "config.json", original[0])
        write_json(run / "plugins.json", original[1])
    assert not (run / "ran").exists() and "payload_in_run" not in sys.modules


@pytest.mark.parametrize("part", ["config", "model", "checkpoint"])
def test_a_part_of_what_was_loaded_imports_nothing_of_the_rest(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """A run of a walk forward, or a checkpoint of a run, whose payload lies above."""
    from agents.tensors import save_tensors
    from agents.training.run_folder import load_run

    above = copied(home, tmp_path) / "runs" / "many"
    run = above / "fold_1" / "seed_0"
    shutil.move(above.with_name("own"), run)
    (above / "walk_forward.json").touch()
    (above / "payload_above.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(above.parents[1])
    monkeypatch.syspath_prepend(above)
    if part == "config":
        hostile(run, "encoder", "payload_above:X", recorded=True)
    else:
        for file in run.glob("*_model" + SUFFIX):
            if part == "checkpoint":
                file.unlink()
        file = latest_checkpoint(run) if part == "checkpoint" else run / f"final_model{SUFFIX}"
        assert file is not None
        tree = load_tensors(file, kind="agent")
        tree["recipe"]["encoder"] = "payload_above:X"
        tree["plugins"]["encoder"]["payload_above:X"] = "0" * 64
        save_tensors(file, tree, kind="agent")
    with pytest.raises(DataError, match="nothing that is loaded can bring code"):
        load_run(run)
    assert "payload_above" not in sys.modules


def test_an_archive_brings_no_code(home: Path, tmp_path: Path) -> None:
    from zipfile import ZipFile

    from agents.store.content import kind_of

    assert kind_of("payload.py") is None and kind_of("payload.pth") is None
    here = copied(home, tmp_path)
    (here / "runs" / "own" / "payload.py").write_text("X = 1")
    export_run(here / "runs" / "own", tmp_path / "own.zip")
    with ZipFile(tmp_path / "own.zip") as archive:
        assert not [name for name in archive.namelist() if name.endswith(".py")]
    with ZipFile(tmp_path / "own.zip", "a") as archive:
        archive.writestr("payload.py", "X = 1")
    with pytest.raises(DataError, match="of no kind"):
        import_run(tmp_path / "own.zip", tmp_path / "store")


def test_settings_of_a_run_are_repeated_with_a_change(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import train as train_module

    monkeypatch.syspath_prepend(home)
    config = train_module._defaults(home / "runs" / "own")
    assert config.out is None and config.encoder == "my_nets:MyEncoder"
    assert config == train_module._defaults(home / "runs" / "own" / "config.json")


def test_an_own_algorithm_that_fails_in_training_is_told_as_such(
    own_module: Callable[..., Path], tmp_path: Path
) -> None:
    source = "from stable_baselines3 import PPO\nclass Fails(PPO):\n    def train(self): 1 / 0\n"
    own_module("failing_algos", source)
    options = {"timesteps": 64, "num_envs": 4, "algo_options": '{"n_steps": 8, "batch_size": 32}'}
    config = small(tmp_path / "run", algo="failing_algos:Fails", **options)
    with pytest.raises(ArgumentError, match=r"raised ZeroDivisionError: .*failing_algos.py, l"):
        train(config, progress_bar=False)
