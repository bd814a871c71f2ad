"""Who may write to a run folder, and what is told where it cannot be written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.small_runs import MARKET, ROOT, command, small

from agents import load_run
from agents.training.run_folder import latest_checkpoint, one_process
from agents.training.train import resume, train
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.atomic import read_json


@pytest.mark.slow
def test_a_second_process_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    out = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    arguments = ["--market", MARKET, "--timesteps", "2000000", "--device", "cpu"]
    first = subprocess.Popen(
        command(*arguments, "--checkpoint-every", "8192", "--out", str(out)),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 300
        while latest_checkpoint(out) is None and first.poll() is None:
            assert time.monotonic() < deadline, "no checkpoint within five minutes"
            time.sleep(0.05)
        with pytest.raises(DataError, match=rf"another process is at work in {out}"):
            resume(out)
        second = subprocess.run(
            command("--resume", str(out)), env=environment, capture_output=True, text=True
        )
        assert second.returncode == 1
        assert second.stderr.startswith("error: another process is at work in")
        assert second.stderr.count("\n") == 1
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    load_run(out, device="cpu")  # intact, and no longer locked
    with one_process(out):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["ppo", "direct"])
def test_a_full_disk_is_told_in_a_line_and_leaves_what_was_there(algo: str, tmp_path: Path) -> None:
    path = train(small(tmp_path / "run", algo=algo, timesteps=3840, num_envs=32))
    intact = {file: file.read_bytes() for file in path.glob("**/*.safetensors")}
    if algo == "ppo":  # there is more to train; else the model is written once more
        longer = read_json(path / "config.json") | {"timesteps": 7680, "checkpoint_every": 1920}
        (path / "config.json").write_text(json.dumps(longer))
    limited = "import resource, runpy, sys; sys.argv = sys.argv[1:]; "
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); "
    limited += "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", limited, str(ROOT / "train.py"), "--resume", str(path)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    assert str(path) in lines[0]
    assert {file: file.read_bytes() for file in intact} == intact


def test_a_folder_that_cannot_be_written_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")  # no folder can be made below it, whoever asks
    with pytest.raises(DataError, match="file/run"):
        train(small(tmp_path / "file" / "run"))


def test_what_a_process_killed_at_its_start_leaves_is_no_obstacle(tmp_path: Path) -> None:
    config = small(tmp_path / "run", timesteps=512, num_envs=8, algo="a2c")
    path = train(config)
    for file in path.iterdir():
        if file.name not in ("run.json", "market.json", ".lock"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    with pytest.raises(DataError, match=r"no config\.json"):
        resume(path)
    assert (train(config) / "final_model.safetensors").exists()
    with pytest.raises(ArgumentError, match="not empty"):
        train(config)
