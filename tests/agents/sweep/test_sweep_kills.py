"""Workers that are killed or stopped, and two coordinators: every cell is done exactly once."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agents.sweep.plan import SweepPlan, cells, create_sweep
from agents.sweep.queue import events
from agents.training.config import TrainConfig
from agents.training.run_records import is_complete

ROOT = Path(__file__).parents[3]
BASE = TrainConfig(
    market="synthetic?bars=200&assets=3",
    timesteps=2048,
    num_envs=16,
    episode_length=20,
    device="cpu",
    algo="a2c",
    checkpoint_every=256,
    validation_every=1024,
)
LONGEST = 500.0  # seconds that a sweep may take on a busy machine

pytestmark = pytest.mark.slow


@pytest.fixture
def root(tmp_path: Path) -> Path:
    settings = {"slow": {"adjustment": 0.1}, "base": {}}
    return create_sweep(tmp_path / "sweep", SweepPlan(BASE, settings, 2, (0, 1)))


@contextmanager
def coordinator(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``sweep.py run`` with two workers."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "sweep.py"), "run", str(root), "--workers", "2"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


def at_work(root: Path) -> dict[str, int]:
    """The process that has begun each cell and neither ended it nor died."""
    found = {}
    for event in events(root):
        if event["event"] == "started":
            found[event["cell"]] = event["pid"]
        else:
            found.pop(event["cell"], None)
    return {cell: pid for cell, pid in found.items() if Path(f"/proc/{pid}").exists()}


def check(root: Path) -> None:
    """Every cell is whole, done at most once, and by the process that began it last."""
    for cell in cells(root):
        assert is_complete(cell.folder(root))
        own = [event for event in events(root) if event["cell"] == str(cell)]
        done = [i for i, event in enumerate(own) if event["event"] == "done"]
        assert len(done) <= 1 and not any(event["event"] == "failed" for event in own)
        if done:  # else it was killed after the last file and before the line
            assert done[0] == len(own) - 1
            assert own[-1]["pid"] == own[-2]["pid"]


def test_ten_killed_workers(root: Path) -> None:
    draw, killed = random.Random(5), 0
    with coordinator(root) as process:
        while killed < 10 and process.poll() is None:
            wait_for(lambda: at_work(root) or process.poll() is not None)
            time.sleep(draw.uniform(0, 1.5))
            if pids := sorted(at_work(root).values()):
                with suppress(ProcessLookupError):
                    os.kill(draw.choice(pids), signal.SIGKILL)
                    killed += 1
        assert process.wait(LONGEST) == 0
    assert killed == 10
    check(root)


def test_a_stopped_worker_keeps_its_cell(root: Path) -> None:
    with coordinator(root) as process:
        wait_for(lambda: at_work(root))
        cell, pid = next(iter(at_work(root).items()))
        os.kill(pid, signal.SIGSTOP)
        others = [each for each in cells(root) if str(each) != cell]
        wait_for(lambda: all(is_complete(each.folder(root)) for each in others))
        time.sleep(3)  # for the other worker to take it, if it could
        assert at_work(root) == {cell: pid} and process.poll() is None
        os.kill(pid, signal.SIGCONT)
        assert process.wait(LONGEST) == 0
    check(root)
    assert sum(event["event"] == "started" for event in events(root)) == len(cells(root))


def test_two_coordinators_and_one_that_is_killed(root: Path) -> None:
    with coordinator(root) as first, coordinator(root) as second:
        wait_for(lambda: len({event["pid"] for event in events(root)}) == 4)
        workers = at_work(root).values()
        first.kill()
        first.wait()
        assert second.wait(LONGEST) == 0
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    check(root)
