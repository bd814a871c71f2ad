"""Sweeps over a real PostgreSQL server; skipped where Debian's packages of one are not there."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.sweep.commands import Run, Status, SweepOptions
from agents.sweep.plan import SweepPlan, cells, create_sweep
from agents.sweep.queue import events
from agents.training.config import TrainConfig
from agents.training.run_records import is_complete
from portfolio_env.errors import ArgumentError, PortfolioError

ROOT = Path(__file__).parents[3]
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
BASE = TrainConfig(
    market="synthetic?bars=200&assets=3",
    timesteps=256,
    num_envs=16,
    episode_length=20,
    device="cpu",
    algo="a2c",
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, on a free port of this machine."""
    pytest.importorskip("psycopg")
    if not PROGRAMS:
        pytest.skip("there is no PostgreSQL; apt-get install postgresql")
    place = Path(tempfile.mkdtemp(prefix="postgres-"))  # a short path, for its socket
    other: dict[str, object] = {}
    if os.getuid() == 0:  # the server refuses root
        user = pwd.getpwnam("postgres")
        os.chown(place, user.pw_uid, user.pw_gid)
        other = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def program(name: str, *arguments: str) -> None:
        subprocess.run(  # type: ignore[call-overload]
            [str(PROGRAMS[-1] / name), "-D", str(place / "data"), *arguments],
            check=True,
            cwd=place,
            stdout=subprocess.DEVNULL,
            **other,
        )

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        program("initdb", "-U", "tester", "--auth=trust", "--no-sync")
        program(
            *("pg_ctl", "-w", "-l", str(place / "log"), "-o"),
            f"-p {port} -h 127.0.0.1 -k {place} -F",
            "start",
        )
        yield f"postgresql://tester@127.0.0.1:{port}/postgres"
        program("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_a_claim_ends_with_its_connection_and_the_first_result_counts(
    address: str, tmp_path: Path
) -> None:
    from agents.sweep.postgres import Server

    root = create_sweep(tmp_path / "claims", SweepPlan(BASE, {"base": {}}))
    (cell,) = cells(root)
    first, second = Server(root, address), Server(root, address)
    first.push()
    second.push()
    with second._claimed(cell) as other:
        assert other and not first.attempt(cell)
    with first._claimed(cell) as own:
        assert own
        first._end(cell, "done", None, b"one")
    second._end(cell, "failed", "late", None)
    assert second.states() == {str(cell): "done"} and second.failures() == {}
    shutil.rmtree(root)
    create_sweep(root, SweepPlan(BASE, {"base": {}}))
    with pytest.raises(PortfolioError, match="another sweep 'claims'"):
        second.push()
    first.close()
    with pytest.raises(PortfolioError, match="the same command goes on"):
        first.states()
    second.close()


def test_bad_addresses_are_errors_in_a_line(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    from agents.sweep.postgres import Server

    with pytest.raises(PortfolioError, match=r"^PostgreSQL: "):
        Server(tmp_path, "postgresql://tester@127.0.0.1:1/postgres")
    with pytest.raises(ArgumentError, match="needs an --address"):
        Run(tmp_path / "sweep", SweepOptions(TrainConfig()), executor="postgres").run()
    with pytest.raises(ArgumentError, match="is for --executor local"):
        Run(tmp_path / "sweep", SweepOptions(TrainConfig()), executor="ray", workers=2).run()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_two_machines_without_a_shared_disk(address: str, tmp_path: Path) -> None:
    settings = {"slow": {"adjustment": 0.1}, "base": {}}
    here = create_sweep(tmp_path / "here" / "sweep", SweepPlan(BASE, settings, 1, (0, 1)))
    there = tmp_path / "there" / "sweep"
    from agents.sweep.postgres import Server

    server = Server(here, address)
    server.push()
    other = subprocess.Popen(
        [sys.executable, str(ROOT / "sweep.py"), "work", str(there), "--address", address],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    try:
        assert (
            Run(here, SweepOptions(TrainConfig()), executor="postgres", address=address).run() == 0
        )
        assert other.wait(300) == 0
    finally:
        other.kill()
    assert all(is_complete(cell.folder(here)) for cell in cells(here))
    assert Status(here).run() == 0
    done = [event["cell"] for root in (here, there) for event in events(root)
            if event["event"] == "done"]  # fmt: skip
    assert sorted(done) == sorted(map(str, cells(here)))
    server.close()
