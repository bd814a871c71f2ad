"""Kill processes at random moments and check the files that they leave.

    python benchmarks/kills.py --count 100 --scenarios ppo,sac,direct

Training and evaluation: a command does its work in one folder, another goes on after a kill. It is
run once undisturbed. Then it is killed (SIGKILL) at moments drawn uniformly from the time that this
took, again and again until it has ended, and again, until the kills are spent. After every kill no
file may be damaged, and no more may be lost than an interval between two checkpoints; at the end
everything must equal what the undisturbed process has made, bit for bit.

Downloads and the store of runs: what their tests do, more often
(``tests/data/downloads/test_candle_store_processes.py``, ``tests/store_kills.py``).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agents.tensors import SUFFIX, load_tensors
from agents.training.run_folder import latest_checkpoint
from portfolio_env.errors import DataError
from portfolio_env.files.atomic import read_json

logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it reports every restart

ROOT = Path(__file__).parents[1]
KINDS = ("agent", "direct agent", "fit", "prices", "supervised", "weights")
INTERVAL = 8192  # steps between two checkpoints as a rule, and of a rollout of PPO
BEGUN = ("config.json", "supervised.json", "walk_forward.json")  # with one, there is a run
KILLS_PER_WORK = 4  # kills of one folder; then it is left to end
SMALL = ["--market", "synthetic?bars=400&assets=3", "--device", "cpu", "--num-envs", "64"]
LSTM = ["--encoder", "lstm", "--encoder-options", '{"hidden": 4, "channels": 4}', "--window", "2"]
STAGES = ["--curriculum", "1,2,3", "--stages.epochs", "8", "--stages.iterations", "30"]


@dataclass(frozen=True)
class Work:
    """Work that is killed.

    Attributes:
        start: arguments of Python that begin it; "{out}" stands for its folder.
        again: arguments that go on after a kill; started again where nothing is left to go on with.
        prepare: makes what the work needs in its folder, before it is begun.
        interval: steps between two checkpoints.
    """

    start: list[str]
    again: list[str]
    prepare: Callable[[Path], None] = lambda out: None
    interval: int = INTERVAL


def trained(*options: str, interval: int = INTERVAL) -> Work:
    """Return the work of a training."""
    every = ["--checkpoint-every", str(interval), "--validation-every", str(interval)]
    return Work(
        ["train.py", *SMALL, *every, *options, "--out", "{out}"],
        ["train.py", "--resume", "{out}"],
        interval=interval,
    )


def _finished_run(out: Path) -> None:
    """Train an agent to evaluate."""
    ended(run(["train.py", *SMALL, "--algo", "a2c", "--timesteps", "1024", "--out", "{out}"], out))


_FORECAST = ["-m", "agents.supervised", *SMALL[:4], "--fit.epochs", "40", "--out", "{out}"]
_EVALUATE = ["evaluate.py", "{out}", "--device", "cpu", "--n-resamples", "200"]
WORKS = {
    "ppo": trained("--algo", "ppo", "--timesteps", "81920"),
    "sac": trained("--algo", "sac", "--timesteps", "6144", interval=2048),
    "direct": trained("--algo", "direct", "--timesteps", "115200"),
    "curriculum": trained("--algo", "a2c", "--timesteps", "32768", *LSTM, *STAGES),
    "walk_forward": trained("--algo", "direct", "--timesteps", "38400", "--walk-forward", "3"),
    "forecast": Work(_FORECAST, ["-m", "agents.supervised", "--resume", "{out}"]),
    "evaluate": Work(_EVALUATE, _EVALUATE, _finished_run),
}


def run(arguments: list[str], out: Path) -> subprocess.Popen[str]:
    """Start a command in the root of the project, with one thread."""
    filled = [sys.executable, *(argument.replace("{out}", str(out)) for argument in arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        filled,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> None:
    """Wait for the end of a process, which must succeed."""
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with {process.returncode}: {errors[-2000:]}")


def check(out: Path) -> None:
    """Read every file that is there; a damaged one raises DataError."""
    for file in out.rglob("*.json"):
        if file.parent.name not in ("test", "validation"):  # reports are for readers
            read_json(file, bare="list")
    for file in out.rglob(f"[!.]*{SUFFIX}"):
        tensors_of(file)


def tensors_of(file: Path) -> Any:
    """Return the tree of a file of any kind."""
    for kind in KINDS:
        try:
            return load_tensors(file, kind=kind)
        except DataError as error:
            if " holds " not in str(error):
                raise
    raise DataError(f"{file} is of none of the kinds {KINDS}")


def curves(out: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return the points of every curve but those of speed, by folder and tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for folder in sorted({file.parent for file in out.rglob("events.out.*")}):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        tags = [tag for tag in events.Tags()["scalars"] if tag != "time/fps"]
        points = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}
        found[str(folder.relative_to(out))] = points
    return found


def result(out: Path) -> dict[str, Any]:
    """Return what must not depend on kills: models, validations, curves, metrics of evaluations."""
    names = (f"*_model{SUFFIX}", f"encoder{SUFFIX}", "validation.json", "metrics.csv")
    files = {file for name in names for file in out.rglob(name)}
    digests = {
        str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }
    strays = [str(file.relative_to(out)) for file in out.rglob(".writing-*")]
    return {"files": digests, "curves": curves(out), "strays": strays}


def lost(out: Path) -> int:
    """Return the most steps shown but not in a checkpoint, over all runs of a folder."""
    most = 0
    for config in out.rglob("config.json"):
        path = config.parent
        shown = [p[-1][0] for p in curves(path / "tb").get(".", {}).values() if p]
        checkpoint = latest_checkpoint(path)
        direct = path / "checkpoints" / f"direct{SUFFIX}"
        kept = int(checkpoint.stem) if checkpoint else 0
        if direct.exists():
            state = tensors_of(direct)
            kept = state["round"] * state["options"]["lanes"] * state["options"]["steps"]
        most = max(most, max(shown, default=0) - kept)
    return most


def undisturbed(work: Work, folder: Path) -> tuple[dict[str, Any], float]:
    """Return the result of an undisturbed run and the seconds that it takes."""
    work.prepare(folder / "whole")
    begun = time.monotonic()
    ended(run(work.start, folder / "whole"))
    return result(folder / "whole"), time.monotonic() - begun


def kill(work: Work, folder: Path, count: int, rng: random.Random) -> dict[str, float]:
    """Kill a process so many times; raise if anything is damaged, lost or different.

    Args:
        work: what is killed.
        folder: an empty one, to work in.
        count: kills that meet a running process.
        rng: of the moments.

    Returns:
        Counts: kills, works that were brought to their end, most steps lost.
    """
    expected, seconds = undisturbed(work, folder)
    kills, works, most = 0, 0, 0
    while kills < count:
        out = folder / f"killed_{works}"
        work.prepare(out)
        for turn in range(KILLS_PER_WORK + 1):
            resumable = any((out / name).exists() for name in BEGUN)
            process = run(work.again if resumable else work.start, out)
            if turn == KILLS_PER_WORK or kills == count:
                ended(process)
                break
            try:
                process.wait(rng.uniform(0, seconds))
                ended(process)
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
            kills += 1
            check(out)
            most = max(most, lost(out))
            if most > work.interval:
                raise AssertionError(f"{most} steps are lost in {out}, more than {work.interval}")
        check(out)
        if (found := result(out)) != expected:
            raise AssertionError(
                f"{out} differs from {folder / 'whole'}: {differences(expected, found)}"
            )
        works += 1
        shutil.rmtree(out)
    return {"kills": kills, "works": works, "most_steps_lost": most, "seconds": round(seconds, 1)}


def differences(first: Any, second: Any, where: str = "") -> list[str]:
    """Return the differences between two results."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = sorted({*first, *second})
        parts = (differences(first.get(k), second.get(k), f"{where}/{k}") for k in keys)
        return [place for part in parts for place in part]
    return [] if first == second else [where]


def kill_downloads(folder: Path, count: int, rng: random.Random) -> dict[str, float]:
    """Kill downloads from a server on loopback."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "data")]
    from test_candle_store_processes import killed_fetches

    return {**killed_fetches(folder, count, rng.randrange(2**32))}


def kill_store(folder: Path, count: int, rng: random.Random) -> dict[str, float]:
    """Kill a process that deletes, imports and exports a run."""
    _finished_run(folder / "run")
    arguments = [folder / "run", folder / "kills", count, rng.randrange(2**32)]
    command = [sys.executable, "tests/store_kills.py", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


SCENARIOS: dict[str, Callable[[Path, int, random.Random], dict[str, float]]] = {
    **{name: partial(kill, work) for name, work in WORKS.items()},
    "fetch": kill_downloads,
    "store": kill_store,
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=100, help="kills over all scenarios")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="comma-separated names")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="file for the counts as JSON")
    options = parser.parse_args()
    names = options.scenarios.split(",")
    rng, counts = random.Random(options.seed), {}
    for i, name in enumerate(names):
        share = options.count * (i + 1) // len(names) - options.count * i // len(names)
        with tempfile.TemporaryDirectory() as folder:
            counts[name] = SCENARIOS[name](Path(folder), share, rng)
        print(f"{name}: {counts[name]}", flush=True)
        if options.out:
            options.out.write_text(json.dumps(counts, indent=2) + "\n")
    total = sum(int(own["kills"]) for own in counts.values())
    print(f"{total} kills: nothing is damaged, nothing differs, no more than an interval is lost")


if __name__ == "__main__":
    main()
