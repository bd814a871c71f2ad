"""Scores of settings before the test range: an inner walk forward, and its accounts.

The test range of the configuration is cut away before anything is trained. What was its
validation range becomes the tests of an inner walk forward: in each fold an agent is trained and
validated on what lies before, as it will be for the test itself, and trades the fold's bars. Its
growth above equal weight there is the score. So no bar of the test has any influence on a search,
nor is a score taken from bars by which a model was trained or selected.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch as th
from numpy.typing import NDArray

from agents.sweep.processes import end_with_parent, process_context
from agents.training.config import TrainConfig
from agents.training.tasks import run_task
from baselines.strategies import baseline_strategies
from portfolio_env import PortfolioEnv
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation import BacktestResult, backtest
from portfolio_env.evaluation.comparison import BENCHMARK
from portfolio_env.evaluation.runner import Strategy, agent_strategies
from portfolio_env.files.archive import read_arrays, write_arrays
from portfolio_env.machine import cores
from portfolio_env.market.timeline import time_text

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class InnerMarket:
    """Market of a search, which ends where the test of the configuration begins.

    Attributes:
        config: Settings whose data end there; their test range is the validation range before.
        facts: Its bars, and what of the data a search does not see, JSON-able.
    """

    config: TrainConfig
    facts: dict[str, Any]


@dataclass(frozen=True)
class Account:
    """Account of one cell on the test range of its inner fold.

    Attributes:
        log_returns: (K,) log returns of the agent after costs; minus infinity from ruin on.
        benchmark: (K,) those of equal weight after costs.
        years: Length in years.
    """

    log_returns: FloatArray
    benchmark: FloatArray
    years: float

    @property
    def difference(self) -> FloatArray:
        """Return (K,) log returns above equal weight."""
        return self.log_returns - self.benchmark

    @property
    def growth(self) -> float | None:
        """Return the log growth above equal weight a year; None if it was ruined."""
        if not np.isfinite(self.log_returns).all():
            return None
        return float(self.difference.sum() / self.years)


def inner_market(config: TrainConfig, folds: int) -> InnerMarket:
    """Cut the test range away.

    Args:
        config: Settings of a run.
        folds: Folds that its validation range is to be cut into.

    Raises:
        ArgumentError: If its training range is too short to validate within, or its validation
            range for the folds, or the data cannot be cut there.
    """
    panel = config.data.panel(config.market, config.assets, config.start, config.end)
    ranges, times = config.ranges_of(panel.timestamps), panel.timestamps
    (_, trained), (start, end) = ranges["train"], ranges["validation"]
    length = end - start
    if trained - length < 2:
        raise ArgumentError(
            f"train={config.train} and validation={config.validation} are {trained} and {length} "
            "bars: a search validates within the training range too; give a longer train or a "
            "shorter validation"
        )
    if length < 2 * folds:
        raise ArgumentError(
            f"validation={config.validation} has {length} bars, too few for folds={folds}; give "
            "fewer folds or a longer range"
        )

    def date(row: int) -> str:
        return str(pd.Timestamp(times[row]).isoformat())

    inner = replace(
        config,
        train=date(trained - length),
        validation=date(start),
        test=None,
        end=date(end),
    )
    seen = inner.load_market()[0]
    if not np.array_equal(seen.timestamps, times[:end]):
        raise ArgumentError(
            f"the market {config.market!r} has other bars before {time_text(times[end])} when it "
            "ends there; a search needs data whose past does not depend on what follows"
        )
    facts = {
        "hash": seen.hash,
        "bars": seen.n_bars,
        "assets": list(seen.assets),
        "first": str(times[0]),
        "last": str(times[end - 1]),
        "scored_from": str(times[start]),
        "test_from": str(times[end]),
        "test_bars_unseen": ranges["test"][1] - end,
    }
    return InnerMarket(inner, facts)


def account(folder: Path, model: Literal["final", "best"], kept: Path) -> Account:
    """Return the account of a trained cell, which is computed once and kept in a file.

    Args:
        folder: Folder of the run.
        model: Model that trades.
        kept: The file.
    """
    if not kept.exists():
        _compute(folder, model, kept)
    arrays = read_arrays(kept)
    try:
        return Account(arrays["agent"], arrays["equal_weight"], float(arrays["years"][0]))
    except (LookupError, TypeError) as error:
        raise DataError(f"{kept} is damaged ({error}); remove it, it is computed again") from error


def compute_accounts(
    runs: Mapping[Path, Path], model: Literal["final", "best"], workers: int = 0
) -> None:
    """Compute the accounts of trained cells by several processes, into the files of ``account``.

    What a process that is killed leaves out, ``account`` computes.

    Args:
        runs: Files by the folder of the run; those that exist are left alone.
        model: Model that trades.
        workers: Number of processes; 0 is one for each core.
    """
    missing = {folder: kept for folder, kept in runs.items() if not kept.exists()}
    workers = min(workers or cores(), len(missing))
    if workers < 2:
        return
    with ProcessPoolExecutor(workers, process_context(), _begin_process) as pool:
        waiting = [pool.submit(_compute, folder, model, kept) for folder, kept in missing.items()]
        with suppress(BrokenProcessPool):
            for each in waiting:
                each.result()


def _begin_process() -> None:
    end_with_parent()
    th.set_num_threads(1)


def _compute(folder: Path, model: Literal["final", "best"], kept: Path) -> None:
    task = run_task(folder, model=model, device="cpu")
    own = _backtest(agent_strategies(task)[0], task.whole)
    benchmark = next(each for each in baseline_strategies([]) if each.name == BENCHMARK)
    equal = _backtest(benchmark, task.whole)
    returns = np.full(len(equal.log_returns), -np.inf)
    returns[: len(own.log_returns)] = own.log_returns
    years = len(equal.log_returns) / equal.periods_per_year
    arrays = {"agent": returns, "equal_weight": equal.log_returns, "years": np.array([years])}
    write_arrays(kept, arrays)


def _backtest(strategy: Strategy, fold: Any) -> BacktestResult:
    policy = strategy.build(fold, "test")
    return backtest(policy, PortfolioEnv(**strategy.options(fold, "test")))
