"""Command lines of training and of all else: wrong words, help, and Ctrl-C while they import."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.small_runs import ROOT, command

import train as train_module


@pytest.mark.slow
def test_the_command_line_names_what_is_wrong(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    wrong = subprocess.run(
        command("--market", "no-such-market", "--out", str(tmp_path / "run")),
        env=environment,
        capture_output=True,
        text=True,
    )
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: ")
    assert "no-such-market" in wrong.stderr
    assert not (tmp_path / "run").exists()


def test_an_option_of_an_algorithm_is_told_to_be_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in (["--gamma", "0.9"], ["--gamma=0.9"]):
        monkeypatch.setattr("sys.argv", ["train.py", *given])
        with pytest.raises(SystemExit):
            train_module.main()
        told = capsys.readouterr().err
        assert told.endswith("gamma is of the algorithm: --algo-options '{\"gamma\": 0.9}'\n")
    monkeypatch.setattr("sys.argv", ["train.py", "--gama", "0.9"])
    with pytest.raises(SystemExit):
        train_module.main()
    assert "algo-options" not in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("command", ["train --help", "sweep run --help"])
def test_help_needs_no_torch(command: str) -> None:
    module, *_ = command.split()
    loaded = (
        f"import sys, {module} as own; sys.argv = {command.split()}\n"
        "try: own.main()\n"
        "except SystemExit: print({'torch', 'matplotlib'} & {*sys.modules})"
    )
    given = [sys.executable, "-c", loaded]
    said = subprocess.run(given, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert "--curriculum" in said and said.endswith("set()\n")


@pytest.mark.parametrize("imported", ["tyro", "gymnasium"])
@pytest.mark.parametrize(
    "command",
    [
        *(f"{name}.py" for name in ("train", "evaluate", "sweep", "trade")),
        *(f"-m {name}" for name in ("portfolio_env.data", "agents.store", "agents.supervised")),
    ],
)
def test_an_interruption_while_modules_are_imported_is_quiet(
    command: str, imported: str, tmp_path: Path
) -> None:
    (tmp_path / f"{imported}.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    )
    places = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | places,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job may ignore it
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(
    "option",
    [
        "--seed=3",
        "--timesteps=100000",
        "--rolling",
        "--seeds=1,2",
        "--curriculum=2,3",
        "--seed=x",
        "--config=nowhere.yaml",
        "--nonsense",
    ],
)
def test_an_option_beside_resume_is_refused_and_not_passed_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--resume", "nowhere", option])
    assert train_module.main() == 1
    said = "error: --resume goes on with its own settings: leave the others out\n"
    assert capsys.readouterr().err == said
