"""Two workers of a sweep against one, and against two processes that know nothing of each other.

    python benchmarks/speed/sweeps.py

Every repetition trains the same cells three times, in an order that changes: by `sweep.py run` with
one worker, with two, and by two runs of one worker that are started together and get half of the
cells each. The last is what the machine gives at that moment, whatever the sweep does, so that
the share of it that the sweep reaches means something on a machine that others use too. Seconds are
of whole commands, with their start; processor seconds are of all their processes; idle seconds are
those of `events.jsonl` in which fewer cells than workers were being trained. Linux only.
`--json FILE` keeps the figures.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import time
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
WAYS = ("one", "two", "apart")
TOLD = {"one": "one worker", "two": "two workers", "apart": "two runs of one worker"}


def measure(way: str, steps: int, seeds: Sequence[int]) -> dict[str, float]:
    """Return seconds, processor seconds and idle seconds of training the cells in a way."""
    shares = [seeds[place::WORKERS] for place in range(WORKERS)] if way == "apart" else [seeds]
    workers = WORKERS if way == "two" else 1
    with TemporaryDirectory() as folder:
        roots = [Path(folder) / str(place) for place in range(len(shares))]
        before, begin = _processor(), time()
        running = [
            _start(root, workers, steps, share) for root, share in zip(roots, shares, strict=True)
        ]
        for process in running:
            told, _ = process.communicate()
            if process.returncode:
                sys.exit(f"error: a sweep ended with status {process.returncode}:\n{told}")
        end = time()
        _wait_for_orphans()
        return {
            "seconds": end - begin,
            "processor_seconds": _processor() - before,
            "idle_seconds": idle(roots, begin, end, WORKERS if way == "apart" else workers),
        }


def idle(roots: Sequence[Path], begin: float, end: float, workers: int) -> float:
    """Return the seconds in which fewer cells than workers were being trained."""
    changes = []
    for root in roots:
        for line in (root / "events.jsonl").read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            change = {"started": 1, "done": -1}[event["event"]]
            changes.append((datetime.fromisoformat(event["time"]).timestamp(), change))
    found, busy, last = 0.0, 0, begin
    for when, change in [*sorted(changes), (end, 0)]:
        if busy < workers:
            found += when - last
        busy, last = busy + change, when
    return found


def _start(root: Path, workers: int, steps: int, seeds: Sequence[int]) -> subprocess.Popen[str]:
    given = ["--market", "sp500", "--seeds", ",".join(map(str, seeds))]
    given += ["--timesteps", str(steps), "--workers", str(workers)]
    return subprocess.Popen(
        [sys.executable, "sweep.py", "run", str(root), *given],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _wait_for_orphans() -> None:
    """Wait for the process that workers are copies of, which ends after its command."""
    try:
        while True:
            os.wait()
    except ChildProcessError:
        return


def _processor() -> float:
    """Return the processor seconds of all processes that have ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def summary(rounds: Sequence[dict[str, dict[str, float]]]) -> dict[str, list[float]]:
    """Return the ratios of all rounds: two workers, two processes, and the share of the latter."""

    def seconds(way: str) -> list[float]:
        return [each[way]["seconds"] for each in rounds]

    pairs = list(zip(*map(seconds, WAYS), strict=True))
    return {
        "two workers, times as fast as one": [one / two for one, two, _ in pairs],
        "two runs of one worker, times as fast": [one / apart for one, _, apart in pairs],
        "share of that which the sweep reaches": [apart / two for _, two, apart in pairs],
    }


def main() -> None:
    """Measure, and print a line of every run and of every ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=65_536, help="steps of a cell")
    parser.add_argument("--cells", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    seeds = range(arguments.cells)
    measure("one", 1, seeds[:1])  # compiles
    rounds: list[dict[str, Any]] = []
    for number in range(arguments.rounds):
        places = [(number + place) % len(WAYS) for place in range(len(WAYS))]
        rounds.append({})
        for way in (WAYS[place] for place in places):
            found = rounds[-1][way] = measure(way, arguments.steps, seeds)
            print(
                f"round {number + 1}, {TOLD[way]:22s} {found['seconds']:6.1f} s, "
                f"{found['processor_seconds']:6.1f} s of processors, "
                f"{found['idle_seconds']:5.1f} s idle",
                flush=True,
            )
    ratios = summary(rounds)
    for name, values in ratios.items():
        print(f"{name}: {median(values):.2f} ({min(values):.2f} to {max(values):.2f})")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"steps": arguments.steps, "rounds": rounds, "ratios": ratios}, indent=1)
        )


if __name__ == "__main__":
    main()
