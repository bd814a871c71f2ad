"""The queue of a sweep: each cell is trained once, errors are counted, and nothing is lost."""

import logging
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from safetensors import SafetensorError

from agents.sweep import queue, workers
from agents.sweep.commands import Retry, Run, Status, SweepOptions, Work
from agents.sweep.plan import Cell, SweepPlan, cells, create_sweep
from agents.sweep.processes import begin
from agents.sweep.queue import DEATHS, attempt, events, failure, log, retry, state
from agents.sweep.summary import cell_results, summarise
from agents.sweep.workers import (
    Counts,
    Tally,
    each_once,
    failures,
    progress,
    run_cells,
    work,
)
from agents.tensors import save_tensors
from agents.training.config import TrainConfig
from agents.training.run_folder import one_process
from portfolio_env.errors import ArgumentError, BusyError, DataError, PortfolioError
from portfolio_env.files.locks import check_locks, local_option
from train import Command, run

BASE = TrainConfig(
    market="synthetic?bars=200&assets=3",
    timesteps=256,
    num_envs=16,
    episode_length=20,
    device="cpu",
    algo="a2c",
)

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two cells, done in this process."""
    root = tmp_path_factory.mktemp("sweeps") / "sweep"
    create_sweep(root, SweepPlan(BASE, {"slow": {"adjustment": 0.1}, "base": {}}))
    assert run_cells(root, 1) == Counts(2, 0, 0)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sweep of two cells, of which none is begun."""
    plan = SweepPlan(BASE, {"slow": {"adjustment": 0.1}, "base": {}})
    return create_sweep(tmp_path / "sweep", plan)


def happened(root: Path) -> list[tuple[str, str]]:
    return [(event["cell"], event["event"]) for event in events(root)]


def test_every_cell_is_done_once_and_its_setting_is_a_walk_forward(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert happened(trained) == [
        (f"{name}/fold_0/seed_0", event)
        for name in ("slow", "base")
        for event in ("started", "done")
    ]
    assert all((trained / name / "card.json").is_file() for name in ("slow", "base"))
    before = (trained / "base/fold_0/seed_0/final_model.safetensors").stat().st_mtime_ns
    assert (
        Run(trained, SweepOptions(TrainConfig()), workers=1).run()
        == Status(trained).run()
        == Work(trained).run()
        == 0
    )
    assert (trained / "base/fold_0/seed_0/final_model.safetensors").stat().st_mtime_ns == before
    assert len(events(trained)) == 4
    shown = capsys.readouterr().out
    assert "2 cells, 2 done, 0 running, 0 open, 0 failed" in shown and "slow" in shown
    best = summarise(cell_results(trained)).index[0]
    assert f"Next: python evaluate.py {trained / best}, or another setting" in " ".join(
        shown.split()
    )
    assert (trained / "summary.png").is_file()
    again = run(Command(TrainConfig(), resume=str(trained / "slow")), progress_bar=False)
    assert again == trained / "slow" and len(events(trained / "slow")) == 0


def test_a_cell_that_another_process_trains_is_left_to_it(root: Path) -> None:
    cell = cells(root)[0]
    with one_process(cell.folder(root)):  # as ``train.py --resume`` does
        assert attempt(root, cell) == "busy" and state(root, cell) == "running"
        with pytest.raises(BusyError):
            retry_locked(root, cell)
    assert happened(root) == [] and state(root, cell) == "open"


def retry_locked(root: Path, cell: Cell) -> None:
    (cell.folder(root) / "failed.json").write_text('{"attempts": 3, "error": "x"}')
    try:
        retry(root, [cell])
    finally:
        (cell.folder(root) / "failed.json").unlink()


def test_errors_are_tried_three_times_and_again_when_asked(
    root: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other cells are trained all the same."""
    other = trained / "base"

    def broken(folder: Path, config: TrainConfig, *, progress_bar: bool) -> None:
        if "slow" in str(folder):
            raise RuntimeError("the disk is on fire")
        shutil.copytree(other / "fold_0/seed_0", folder, dirs_exist_ok=True)

    monkeypatch.setattr(queue, "train_to_end", broken)
    assert run_cells(root, 1) == Counts(1, 1, 0)
    slow = Cell("slow", 0, 0)
    assert failures(root) == {slow: "RuntimeError: the disk is on fire"}
    assert happened(root).count((str(slow), "started")) == 3
    assert Status(root).run() == Work(root).run() == 1  # nothing is tried a fourth time
    assert happened(root).count((str(slow), "started")) == 3
    assert Retry(root).run() == 0 and failure(slow.folder(root)) is None
    assert Tally(root).counts() == Counts(1, 0, 1)

    def wrong(folder: Path, config: TrainConfig, *, progress_bar: bool) -> None:
        raise ArgumentError("no such window")

    monkeypatch.setattr(queue, "train_to_end", wrong)
    work(root)
    assert happened(root).count((str(slow), "started")) == 4  # settings do not mend themselves
    assert state(root, slow) == "failed"


def test_a_full_disk_is_no_failure_of_a_cell(
    root: Path,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The sweep ends with the file that had no room, and goes on once there is some."""
    first, full = cells(root)[0], [True]

    def write(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half a mo")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    def train(folder: Path, config: TrainConfig, *, progress_bar: bool) -> None:
        own = trained / folder.relative_to(root)
        folder.mkdir(parents=True, exist_ok=True)
        if full[0]:
            shutil.copy(own / "config.json", folder)
            with monkeypatch.context() as patch:
                patch.setattr("agents.tensors.save_file", write)
                save_tensors(folder / "best_model.safetensors", {}, kind="agent")
        shutil.copytree(own, folder, dirs_exist_ok=True)

    monkeypatch.setattr(queue, "train_to_end", train)
    with pytest.raises(DataError, match=r"best_model\.safetensors cannot be .*No space left"):
        run_cells(root, 1)
    assert sorted(path.name for path in first.folder(root).iterdir()) == [".lock", "config.json"]
    assert happened(root) == [(str(first), "started"), (str(first), "stopped")]
    assert Tally(root).counts() == Counts(0, 0, 2)
    assert Retry(root).run() == 0 and "No cell has failed" in capsys.readouterr().out
    full[0] = False
    assert run_cells(root, 1) == Counts(2, 0, 0)

    def no_room(path: Path) -> None:
        raise DataError(f"{path} is full")

    monkeypatch.setattr("agents.sweep.summary.replacing", no_room)
    with pytest.raises(DataError, match="is full"):
        Status(root).run()
    assert "2 done" in (told := capsys.readouterr().out) and "Standard deviations" in told


def test_a_cell_in_which_processes_keep_dying_is_given_up(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = cells(root)[0]

    def killed(folder: Path, config: TrainConfig, *, progress_bar: bool) -> None:
        raise SystemExit  # leaves no word, as a kill

    monkeypatch.setattr(queue, "train_to_end", killed)
    for _ in range(DEATHS):
        with pytest.raises(SystemExit):
            attempt(root, cell)
        with (root / "events.jsonl").open("a") as file:
            file.write('{"cell": "slow/fold_')  # and cuts its line
    assert attempt(root, cell) == "failed"
    assert "want of memory" in failures(root)[cell]
    log(root, cell, "retried")
    assert events(root)[-1]["event"] == "retried"  # whole, though the line before is not


@pytest.mark.slow
def test_workers_that_cannot_write_end_the_sweep(root: Path, tmp_path: Path) -> None:
    for cell in cells(root):
        cell.folder(root).mkdir(parents=True)
        (cell.folder(root) / "link").symlink_to(tmp_path)  # no run folder may hold one
    with pytest.raises(PortfolioError, match="ended in errors"):
        run_cells(root, 2)


def test_the_first_worker_reckons_the_memory_of_all(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    monkeypatch.setattr(workers, "end_with_parent", lambda: None)
    monkeypatch.setattr(workers, "work", lambda *_, **__: None)
    monkeypatch.setattr(workers, "count_workers", counted.append)

    for place in range(2):
        workers._worker(root, None, place, tmp_path, 5)
    assert counted == [5, 1]


def test_more_workers_than_cores_are_told(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(workers, "cores", lambda: 1)
    monkeypatch.setattr(workers, "_run_processes", lambda tally, count, *_: asked.append(count))
    run_cells(root, 1000)
    assert asked == [1000] and "1000 workers on 1 cores" in caplog.text
    caplog.clear()
    with pytest.raises(ArgumentError, match=r"workers=-1 must be .* 0 or more"):
        Run(root, SweepOptions(TrainConfig()), workers=-1).run()
    assert not caplog.text


def test_folders_without_locks_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    check_locks(tmp_path)
    monkeypatch.setattr("portfolio_env.files.locks._TRY", "pass")  # the second gets the lock too
    with pytest.raises(DataError, match="no locks that work"):
        run_cells(root, 1)
    with pytest.raises(DataError, match="no locks that work"):
        Work(root).run()
    mounts = (
        "/dev/vda / ext4 rw 0 0\n"
        "host:/a /shared nfs4 rw,local_lock=none 0 0\n"
        "host:/b /shared/my\\040sweeps nfs rw,nolock,local_lock=all 0 0\n"
        "host:/c /lustre lustre rw,localflock 0 0\n"
    )
    assert local_option(Path("/shared/run"), mounts) is None
    assert local_option(Path("/home"), mounts) is None
    assert local_option(Path("/shared/my sweeps/run"), mounts) == "local_lock=all"
    assert local_option(Path("/lustre/run"), mounts) == "localflock"


def test_a_file_gets_a_line_of_progress_for_every_change(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress(Tally(root), True) as advance:
        for _ in range(9):
            advance()
        (cells(root)[0].folder(root)).mkdir(parents=True)
        (cells(root)[0].folder(root) / "failed.json").write_text('{"attempts": 3, "error": "x"}')
        for _ in range(9):
            advance()
    shown = capsys.readouterr().err
    assert shown.count("0/2") <= 3 and "1 failed" in shown


def test_all_workers_together_say_a_thing_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):  # two processes
        with warnings.catch_warnings(), each_once(tmp_path):
            warnings.simplefilter("always")
            logging.getLogger("agents").warning("few timesteps")
            warnings.warn("a flat network", stacklevel=1)
    assert [record.getMessage() for record in caplog.records] == ["few timesteps", "a flat network"]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("run runs/first --workers 2 --seeds 0,1", True),
        ("search space.yaml", True),
        ("run runs/first --workers=1", False),
        ("run runs/first --executor ray", False),
        ("run --help", False),
        ("status runs/first", False),
        ("", False),
    ],
)
def test_the_process_to_copy_is_started_where_workers_will_be(
    monkeypatch: pytest.MonkeyPatch, words: str, wanted: bool
) -> None:
    started: list[str | None] = []
    threads = lambda: started.append(os.environ.get("OMP_NUM_THREADS"))  # noqa: E731
    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", threads)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    begin(words.split())
    assert started == ["1"] * wanted and "OMP_NUM_THREADS" not in os.environ


STOPPED = """
import os, signal, time
from pathlib import Path
from agents.sweep import processes

Path("slow.py").write_text("import pathlib, time; pathlib.Path('began').touch(); time.sleep(600)")
processes.PRELOADED[:] = ["slow"]
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
processes.begin(["run", "x"])
while not Path("began").exists():
    time.sleep(0.01)
try:
    os.killpg(0, signal.SIGINT)  # as the terminal does at Ctrl-C
    time.sleep(600)
except KeyboardInterrupt:
    print("stopped")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
def test_a_command_that_ends_early_takes_the_process_to_copy_with_it(tmp_path: Path) -> None:
    (tmp_path / "stopped.py").write_text(STOPPED)
    done = subprocess.run(
        [sys.executable, "stopped.py"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        cwd=tmp_path,
        capture_output=True,  # ends where no process holds the pipe any more
        start_new_session=True,
        timeout=60,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("stopped\n", "")


TRIED = """
import multiprocessing, os, sys
from pathlib import Path
from agents.sweep.processes import PRELOADED, begin, process_context

def look(pipe):
    names = [each.read_text() for each in Path(f"/proc/{os.getppid()}/task").glob("*/comm")]
    threads = [name for name in names if "jemalloc" not in name]  # which knows of forks
    pipe.send((len(threads), [name for name in PRELOADED if name not in sys.modules]))

if __name__ == "__main__":
    begin(["run", "x"])
    here, there = multiprocessing.Pipe()
    process_context().Process(target=look, args=(there,)).start()
    print(*here.recv())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_workers_are_copies_of_a_process_with_all_modules_and_one_thread(tmp_path: Path) -> None:
    (tmp_path / "tried.py").write_text(TRIED)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "tried.py")],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout.strip() == "1 []"
