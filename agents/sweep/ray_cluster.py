"""Sweeps on a Ray cluster: a task for every cell, on any node that sees the folder.

Ray starts a task again when its node dies; the cell goes on from its last checkpoint. The lock of
the run folder decides who trains it, as everywhere.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents.sweep.plan import Cell
from agents.sweep.queue import check_root, write_cards
from agents.sweep.workers import PAUSE, Tally, progress, work
from portfolio_env.errors import PortfolioError


def run_on_ray(root: Path, address: str | None = None, *, progress_bar: bool = False) -> None:
    """Train the cells of a sweep on a cluster until none is open.

    Args:
        root: Folder of the sweep, at the same path on every node.
        address: Address of a cluster, e.g. "auto"; None starts one on this machine.
        progress_bar: Show one on the terminal.

    Raises:
        PortfolioError: If Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise PortfolioError("a sweep on Ray needs the extra ray; pip install ray") from error
    root = root.resolve()
    check_root(root)
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(
                address=address,
                include_dashboard=None if address else False,
                log_to_driver=False,
                runtime_env={"env_vars": environment},
            )
        except Exception as error:  # Ray raises it itself
            raise PortfolioError(
                f"Ray has not started or found a cluster ({error}); see ray status"
            ) from error
    try:
        task: Any = ray.remote(num_cpus=1, max_retries=-1)(_train)
        tally = Tally(root)
        with progress(tally, progress_bar) as advance:
            _wait(ray, [task.remote(root, cell) for cell in tally.open()], advance)
    finally:
        if started:
            ray.shutdown()
    write_cards(root, tally.wanted())


def _train(root: Path, cell: Cell) -> None:
    work(root, [cell])


def _wait(ray: Any, waiting: list[Any], advance: Callable[[], None]) -> None:
    while waiting:
        done, waiting = ray.wait(waiting, num_returns=1, timeout=PAUSE)
        for each in done:
            ray.get(each)
        advance()
