"""Walk forward with agents: one run per fold and seed, trained on the range before its test.

The folder of a walk forward holds ``walk_forward.json`` (settings, seeds, folds) and ``fold_I/
seed_S``, which are ordinary run folders.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from agents.settings.plugins import admit_plugins, write_record
from agents.training.config import TrainConfig
from agents.training.run_folder import (
    OLD_FORMAT,
    WALK_FORWARD,
    load_run,
    refuse_filled,
    started,
)
from portfolio_env import Market, PortfolioEnv
from portfolio_env.command_line import command_text
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation import BacktestResult, backtest
from portfolio_env.evaluation.walk_forward import Fold, Range, stitch, walk_forward_folds
from portfolio_env.files.atomic import read_json, write_json

FILE = WALK_FORWARD
_RANGES = ("start", "train", "validation", "test")  # settings in which the runs of folds differ
_OF_MARKET = ("market", "assets", "start", "end", "features", "data", "train", "validation", "test")
_Cut = tuple[tuple[Fold, ...], tuple[dict[str, Any], ...]]


@dataclass(frozen=True)
class Plan:
    """Plan of a walk forward: its folds, seeds and run folders.

    Attributes:
        config: Settings of every run but for ranges, seed and folder.
        seeds: Seeds of the runs of each fold.
        folds: Rows of the market that ``config`` loads.
        runs: Settings of the runs of each fold, without seed and folder.
        rolling: Whether the oldest bars are forgotten.
    """

    config: TrainConfig
    seeds: tuple[int, ...]
    folds: tuple[Fold, ...]
    runs: tuple[TrainConfig, ...]
    rolling: bool = False

    def folders(self, path: Path) -> dict[int, list[Path]]:
        """Return the run folders in the order of the folds, by seed."""
        folds = range(len(self.folds))
        return {seed: [path / f"fold_{i}" / f"seed_{seed}" for i in folds] for seed in self.seeds}


def make_plan(
    config: TrainConfig,
    folds: int,
    *,
    seeds: Sequence[int] = (),
    rolling: bool = False,
    known: dict[str, _Cut] | None = None,
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
        known: Folds that earlier calls have cut, for plans of the same market; they are added to.

    Raises:
        ArgumentError: If a range is too short, a seed repeats or is none, or an asset of the market
            has no bar in some fold.
    """
    config = config.resolved()
    seeds = tuple(seeds) or (config.seed,)
    check_seeds(seeds)
    known = {} if known is None else known
    key = f"{folds} {rolling} {market_key(config)}"
    if key not in known:
        known[key] = _cut(config, folds, rolling)
    plan, ranges = known[key]
    runs = tuple(replace(config, **own) for own in ranges)
    return Plan(config, seeds, plan, runs, rolling)


def check_seeds(seeds: Sequence[int]) -> None:
    """Reject seeds that are no whole numbers from 0 to 2**32 - 1, and repeated ones.

    Raises:
        ArgumentError: For the first such seed.
    """
    for seed in seeds:
        if type(seed) is not int or not 0 <= seed < 2**32:  # they are names of folders too
            raise ArgumentError(f"seeds hold {seed!r:.60}; give whole numbers from 0 to 2**32 - 1")
    if len(set(seeds)) < len(seeds):
        raise ArgumentError(f"seeds={tuple(seeds)} repeats one; give each once")


def market_key(config: TrainConfig) -> str:
    """Return a text that is the same for settings with the same market and ranges."""
    return repr([getattr(config, name) for name in _OF_MARKET])


def write_plan(path: Path, plan: Plan) -> None:
    """Make the folder of a walk forward, whose lock the caller holds.

    Raises:
        ArgumentError: If it holds something.
    """
    refuse_filled(path)
    write_record(path, plan.config.to_json())
    write_json(
        path / FILE,
        {
            "config": plan.config.to_json(),
            "seeds": plan.seeds,
            "rolling": plan.rolling,
            "folds": [dataclasses.asdict(fold) for fold in plan.folds],
            "ranges": [{name: getattr(run, name) for name in _RANGES} for run in plan.runs],
            **started(command_text()),
        },
    )


def run_config(path: Path, fold: int, seed: int) -> TrainConfig:
    """Return the settings of one run of a walk forward; the market is not loaded for it.

    Args:
        path: Folder of the walk forward.
        fold: Number of the fold, from 0.
        seed: Seed of the run.

    Raises:
        DataError: As of ``read_plan``.
    """
    stored = _read(path)
    out = str(path / f"fold_{fold}" / f"seed_{seed}")
    if "ranges" not in stored:  # walk forwards of earlier versions
        return replace(read_plan(path).runs[fold], seed=seed, out=out)
    try:
        admit_plugins(path, stored["config"])
        config = TrainConfig.from_json(stored["config"])
        own = {name: stored["ranges"][fold][name] for name in _RANGES}
    except (AttributeError, LookupError, TypeError) as error:
        raise DataError(f"{path / FILE} is damaged ({error}); restore it from a copy") from error
    return replace(config, **own, seed=seed, out=out)


def read_plan(path: Path) -> Plan:
    """Read the plan of a folder.

    Raises:
        DataError: If it is no such folder, its plan is damaged, or its market has changed in
            length.
    """
    stored = _read(path)
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


def _read(path: Path) -> dict[str, Any]:
    try:
        stored = read_json(path / FILE)
    except FileNotFoundError:
        raise DataError(f"{path} is not a walk forward: it has no {FILE}") from None
    if "id" not in stored:
        raise DataError(OLD_FORMAT.format(path))
    return stored


def _cut(config: TrainConfig, folds: int, rolling: bool) -> _Cut:
    """Return the folds of a market, and the settings in which their runs differ."""
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
    own = tuple(_ranges_of(config, market, fold, end) for fold in plan)
    for each, fold in zip(own, plan, strict=True):
        _check(replace(config, **each), market, fold, end)
    return tuple(plan), own


def _ranges_of(config: TrainConfig, market: Market, fold: Fold, end: int) -> dict[str, Any]:
    """Return the ranges of the runs of a fold as dates, by setting."""

    def date(row: int) -> str:
        return str(pd.Timestamp(market.timestamps[row]).isoformat())

    last = fold.test_bars(end)[1]
    return {
        "start": date(fold.train[0]) if fold.train[0] else config.start,
        "train": date(fold.train[1]),
        "validation": date(fold.validation[1]),
        "test": date(last) if last < market.n_bars else None,
    }


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
