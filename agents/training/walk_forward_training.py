"""Walk forward with agents: one run per fold and seed, trained on the range before its test.

The folder of a walk forward holds ``walk_forward.json`` (settings, seeds, folds) and ``fold_I/
seed_S``, which are ordinary run folders.
"""

from __future__ import annotations

import dataclasses
import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import pandas as pd

from agents.settings.plugins import admit_plugins, write_record
from agents.tensors import SUFFIX
from agents.training.cards import write_card
from agents.training.config import TrainConfig
from agents.training.run_folder import (
    OLD_FORMAT,
    WALK_FORWARD,
    load_run,
    new_folder,
    one_process,
    refuse_filled,
    started,
)
from agents.training.train import resume, train
from portfolio_env import Market, PortfolioEnv
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation import BacktestResult, backtest
from portfolio_env.evaluation.walk_forward import Fold, Range, stitch, walk_forward_folds
from portfolio_env.files.atomic import read_json, write_json
from portfolio_env.names import last_name

FILE = WALK_FORWARD

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """Plan of a walk forward: its folds, seeds and run folders.

    Attributes:
        config: Settings of every run but for ranges, seed and folder.
        seeds: Seeds of the runs of each fold.
        folds: Rows of the market that ``config`` loads.
        runs: Settings of the runs of each fold, without seed and folder.
    """

    config: TrainConfig
    seeds: tuple[int, ...]
    folds: tuple[Fold, ...]
    runs: tuple[TrainConfig, ...]

    def folders(self, path: Path) -> dict[int, list[Path]]:
        """Return the run folders in the order of the folds, by seed."""
        folds = range(len(self.folds))
        return {seed: [path / f"fold_{i}" / f"seed_{seed}" for i in folds] for seed in self.seeds}


def make_plan(
    config: TrainConfig, folds: int, *, seeds: Sequence[int] = (), rolling: bool = False
) -> Plan:
    """Cut the test range of a configuration into folds.

    The tests together are the test range that the configuration has by itself, so the result can be
    compared with that of a single run. Validation ranges have its length and lie just before each
    test; training takes all that is before, or its length with ``rolling``. Every fold scales
    features by its own training range.

    Args:
        config: Settings of a run.
        folds: Number of folds, at least 1.
        seeds: Seeds of the runs of each fold; that of the configuration by default.
        rolling: Forget the oldest bars instead of keeping all.

    Raises:
        ArgumentError: If a range is too short, a seed repeats or is none, or an asset of the market
            has no bar in some fold.
    """
    config = config.resolved()
    seeds = tuple(seeds) or (config.seed,)
    for seed in seeds:
        if type(seed) is not int or not 0 <= seed < 2**32:  # they are names of folders too
            raise ArgumentError(f"seeds hold {seed!r:.60}; give whole numbers from 0 to 2**32 - 1")
    if len(set(seeds)) < len(seeds):
        raise ArgumentError(f"seeds={seeds} repeats one; give each once")
    market, ranges = config.load_market()
    end = ranges["test"][1]
    plan = walk_forward_folds(
        0,
        ranges["test"][0],
        end,
        folds,
        validation=ranges["validation"][1] - ranges["validation"][0],
        rolling=rolling,
    )
    runs = tuple(_fold_config(config, market, fold, end) for fold in plan)
    for run, fold in zip(runs, plan, strict=True):
        _check(run, market, fold, end)
    return Plan(config, seeds, tuple(plan), runs)


def walk_forward(
    config: TrainConfig,
    folds: int,
    *,
    seeds: Sequence[int] = (),
    rolling: bool = False,
    progress_bar: bool = False,
) -> Path:
    """Train an agent per fold and seed.

    Nothing is selected but within a run, on the validation range of its fold. Arguments as for
    ``make_plan``.

    Returns:
        The folder: ``config.out``, or one within ``config.runs`` named after market, algorithm and
        time.

    Raises:
        ArgumentError: As for ``make_plan``, or if the folder exists and is not empty.
    """
    plan = make_plan(config, folds, seeds=seeds, rolling=rolling)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = new_folder(config, f"{last_name(config.algo)}__walk_forward__{stamp}")
    with one_process(path):
        refuse_filled(path)
        write_record(path, plan.config.to_json())
        write_json(
            path / FILE,
            {
                "config": plan.config.to_json(),
                "seeds": plan.seeds,
                "rolling": rolling,
                "folds": [dataclasses.asdict(fold) for fold in plan.folds],
                **started(shlex.join(sys.argv)),
            },
        )
        return _train(path, plan, progress_bar)


def continue_walk_forward(path: str | Path, *, progress_bar: bool = False) -> Path:
    """Train the remaining runs of a stopped walk forward, with its own settings."""
    path = Path(path)
    plan = read_plan(path)
    with one_process(path):
        return _train(path, plan, progress_bar)


def read_plan(path: Path) -> Plan:
    """Read the plan of a folder.

    Raises:
        DataError: If it is no such folder, its plan is damaged, or its market has changed in
            length.
    """
    try:
        stored = read_json(path / FILE)
    except FileNotFoundError:
        raise DataError(f"{path} is not a walk forward: it has no {FILE}") from None
    if "id" not in stored:
        raise DataError(OLD_FORMAT.format(path))
    try:
        seeds, rolling = list(stored["seeds"]), bool(stored["rolling"])
        folds = [Fold(**{name: tuple(rows) for name, rows in one.items()})
                 for one in stored["folds"]]  # fmt: skip
        admit_plugins(path, stored["config"])
        config = TrainConfig.from_json(stored["config"])
    except (AttributeError, LookupError, TypeError) as error:
        raise DataError(f"{path / FILE} is damaged ({error}); restore it from a copy") from error
    plan = make_plan(config, len(folds), seeds=seeds, rolling=rolling)
    if folds != list(plan.folds):
        raise DataError(
            f"the market {config.market!r} gives other folds than it did when {path} was begun; "
            "restore the data, or start again"
        )
    return plan


def out_of_sample(
    path: str | Path, *, model: Literal["final", "best"] = "final", device: str = "auto"
) -> dict[int, BacktestResult]:
    """Return the account of each seed over all tests, see ``portfolio_env.evaluation.stitch``.

    Args:
        path: Folder of a walk forward whose runs are trained.
        model: Model of every run: the last one or the best on its fold's validation range.
        device: Torch device of the models.

    Returns:
        Backtests by seed, each from the first bar of the first test to the last bar of the last.

    Raises:
        DataError: If the folder is not a walk forward, or one of its runs holds no model yet.
    """
    path = Path(path)
    results = {}
    for seed, folders in read_plan(path).folders(path).items():
        tests = []
        for folder in folders:
            run = load_run(folder, model=model, device=device)
            start, end = run.ranges["test"]
            options = {**run.env_options, "market": run.market, "start": start, "end": end}
            tests.append(backtest(run.model, PortfolioEnv(**options)))
        results[seed] = stitch(tests)
    return results


def is_trained(folder: Path) -> bool:
    """Return whether a run of a walk forward is finished."""
    return all((folder / f"{model}_model{SUFFIX}").exists() for model in ("best", "final"))


def _train(path: Path, plan: Plan, progress_bar: bool) -> Path:
    for seed, folders in plan.folders(path).items():
        for i, (config, folder) in enumerate(zip(plan.runs, folders, strict=True)):
            if is_trained(folder):
                continue
            _LOGGER.info("fold %d of %d, seed %d", i + 1, len(folders), seed)
            if (folder / "config.json").exists():
                resume(folder, progress_bar=progress_bar)
                continue
            train(replace(config, seed=seed, out=str(folder)), progress_bar=progress_bar)
    write_card(path)
    return path


def _fold_config(config: TrainConfig, market: Market, fold: Fold, end: int) -> TrainConfig:
    """Return the settings of the runs of a fold: its ranges as dates."""

    def date(row: int) -> str:
        return str(pd.Timestamp(market.timestamps[row]).isoformat())

    last = fold.test_bars(end)[1]
    return replace(
        config,
        start=date(fold.train[0]) if fold.train[0] else config.start,
        train=date(fold.train[1]),
        validation=date(fold.validation[1]),
        test=date(last) if last < market.n_bars else None,
    )


def _check(config: TrainConfig, whole: Market, fold: Fold, end: int) -> None:
    """Reject a fold whose market differs in rows or assets from the whole one."""
    market, ranges = config.load_market()
    first = fold.train[0]

    def here(rows: Range) -> Range:
        return rows[0] - first, rows[1] - first

    rows = (here(fold.train), here(fold.validation), here(fold.test_bars(end)))
    if market.assets != whole.assets or tuple(ranges.values()) != rows:
        lacking = sorted(set(whole.assets) - set(market.assets))
        raise ArgumentError(
            f"the fold that trains on rows {fold.train} is not a part of the market: it lacks "
            f"the assets {lacking}, which have no bar from {config.start} on; choose the assets, "
            "or train on all of the past"
        )
