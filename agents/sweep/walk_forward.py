"""Training of a walk forward: its runs are the cells of a sweep with one setting."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from agents.sweep.queue import retry
from agents.sweep.settings import refusals
from agents.sweep.workers import failures, run_cells
from agents.training.cards import write_card
from agents.training.config import TrainConfig
from agents.training.run_folder import new_folder, one_process
from agents.training.walk_forward_training import make_plan, read_plan, write_plan
from portfolio_env.errors import ArgumentError, PortfolioError
from portfolio_env.names import last_name


def walk_forward(
    config: TrainConfig,
    folds: int,
    *,
    seeds: Sequence[int] = (),
    rolling: bool = False,
    processes: int = 1,
    progress_bar: bool = False,
) -> Path:
    """Train an agent per fold and seed.

    Nothing is selected but within a run, on the validation range of its fold. Arguments as for
    ``make_plan``, and:

    Args:
        config: Settings of a run.
        folds: Number of folds.
        seeds: Seeds of the runs of each fold.
        rolling: Forget the oldest bars instead of keeping all.
        processes: Processes that train at the same time, see ``run_cells``.
        progress_bar: Show one on the terminal.

    Returns:
        The folder: ``config.out``, or one within ``config.runs`` named after market, algorithm and
        time.

    Raises:
        ArgumentError: As for ``make_plan``, or if no training can begin with the settings, or the
            folder exists and is not empty.
        PortfolioError: If a run ended in errors; the others are trained.
    """
    plan = make_plan(config, folds, seeds=seeds, rolling=rolling)
    for reason in refusals({"": plan.runs[0]}).values():
        raise ArgumentError(reason)
    name = f"{last_name(config.algo)}__walk_forward"
    path = new_folder(config, f"{name}__{datetime.now():%Y%m%d-%H%M%S}")
    with one_process(path):
        write_plan(path, plan)
        return _train(path, processes, progress_bar)


def continue_walk_forward(
    path: str | Path, *, processes: int = 1, progress_bar: bool = False
) -> Path:
    """Train the remaining runs of a stopped walk forward, with its own settings."""
    path = Path(path)
    read_plan(path)  # the market is that of its beginning
    with one_process(path):
        retry(path)
        return _train(path, processes, progress_bar)


def _train(path: Path, processes: int, progress_bar: bool) -> Path:
    run_cells(path, processes, progress_bar=progress_bar)
    failed = failures(path)
    if failed:
        cell, error = next(iter(failed.items()))
        raise PortfolioError(
            f"{len(failed)} of the runs of {path} ended in errors, the first, {cell}, in this: "
            f"{error}; fix the cause, then continue with --resume"
        )
    write_card(path)
    return path
