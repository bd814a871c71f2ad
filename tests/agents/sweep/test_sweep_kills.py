"""Workers, coordinators and nodes that are killed or stopped: every cell is done exactly once."""

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
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
def coordinator(
    root: Path, options: tuple[str, ...] = ("--workers", "2")
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``sweep.py run``, with two workers unless the options say otherwise."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "sweep.py"), "run", str(root), *options],
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


def parent(pid: int) -> int:
    with suppress(FileNotFoundError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


CLUSTER = """
from ray.cluster_utils import Cluster
small = {"object_store_memory": 100 * 2**20}
head = {**small, "num_cpus": 0, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=head)
nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
print(cluster.address, nodes[0].all_processes["raylet"][0].process.pid, flush=True)
try:
    input()
finally:
    cluster.shutdown()
"""


def test_a_killed_node_of_a_ray_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raylet and workers of one of two nodes die in mid-cell; the other node ends the sweep."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    settings = {"slow": {"adjustment": 0.1}, "base": {}}
    plan = SweepPlan(replace(BASE, timesteps=4096), settings, 2, (0, 1))
    root = create_sweep(tmp_path / "sweep", plan)
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as cluster:  # which ends with its input
        assert cluster.stdout is not None
        address, raylet = cluster.stdout.readline().split()

        def in_mid_cell() -> list[str]:
            return [
                cell
                for cell, pid in at_work(root).items()
                if parent(pid) == int(raylet) and any((root / cell / "checkpoints").glob("*"))
            ]

        with coordinator(root, ("--executor", "ray", "--address", address)) as process:
            wait_for(lambda: in_mid_cell() or process.poll() is not None)
            (cell,) = in_mid_cell()
            running = [int(each.name) for each in Path("/proc").glob("[0-9]*")]
            for pid in [int(raylet), *(pid for pid in running if parent(pid) == int(raylet))]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert process.wait(LONGEST) == 0
    check(root)
    started = [event for event in events(root) if event["event"] == "started"]
    assert len(started) == len(cells(root)) + 1
    assert [event["cell"] for event in started if event["step"]] == [cell]  # from its checkpoint
