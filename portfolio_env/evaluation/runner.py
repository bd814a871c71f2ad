"""Backtests of many strategies over the same folds, each in its own environment.

Strategies that take long to fit may run in processes of their own, beside the others.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from threading import Thread, current_thread, main_thread
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from portfolio_env.env import PortfolioEnv
from portfolio_env.errors import ArgumentError, PortfolioError, Terminated
from portfolio_env.evaluation.backtest import BacktestResult, Policy, backtest
from portfolio_env.evaluation.task import EvaluationFold, EvaluationTask
from portfolio_env.evaluation.walk_forward import stitch
from portfolio_env.files.safe_names import printable
from portfolio_env.metrics import annual_log_growth
from portfolio_env.simulation.cost_models import made_costs
from portfolio_env.simulation.costs import TransactionCosts


def _keep_nothing(fold: EvaluationFold, split: str, policy: Policy) -> None:
    """Forget a policy."""


def _accept(fold: EvaluationFold) -> None:
    """Accept any fold."""


@dataclass(frozen=True)
class Strategy:
    """Strategy to backtest: an agent, a baseline, or an agent with the validation gate.

    Attributes:
        name: Name of the strategy.
        build: Gives its policy for a fold and the range that is evaluated ("test", ...), fitted
            where there is something to fit.
        options: Gives the keywords of its ``PortfolioEnv`` likewise; ``costs`` as a mapping.
        required: The evaluation is worth nothing if it cannot run.
        apart: It takes long and may run in another process: ``build`` and ``options`` can be
            pickled and ask for no agents.
        keep: Told of the policy that another process built for a fold and a range.
        check: Raises an ``ArgumentError`` for what the user gave and no fold can help, such as a
            value of an option, before anything runs.
    """

    name: str
    build: Callable[[EvaluationFold, str], Policy]
    options: Callable[[EvaluationFold, str], dict[str, Any]]
    required: bool = False
    apart: bool = False
    keep: Callable[[EvaluationFold, str, Policy], None] = _keep_nothing
    check: Callable[[EvaluationFold], None] = _accept


def agent_strategies(task: EvaluationTask) -> list[Strategy]:
    """Return the trained agents of a task as strategies, each as it was trained in every fold."""
    return [
        Strategy(
            name,
            lambda fold, split, name=name: fold.agents[name].policy,  # type: ignore[misc]
            lambda fold, split, name=name: fold.agent_options(split, name),  # type: ignore[misc]
            required=True,
        )
        for name in task.agents
    ]


class Stopwatch:
    """Wrap a policy and record the time of every decision.

    Args:
        policy: The policy that is timed.

    Attributes:
        seconds: Time of every decision so far.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.seconds: list[float] = []
        if hasattr(policy, "action"):
            self.action = policy.action
        self.carries_on = getattr(policy, "carries_on", False)

    @property
    def left_out(self) -> Mapping[str, Mapping[str, str]]:
        """Return what the policy left out, see ``BacktestResult``."""
        found: Mapping[str, Mapping[str, str]] = getattr(self.policy, "left_out", None) or {}
        return found

    @property
    def refused(self) -> Collection[str]:
        """Return the dates at which the policy asked for what its constraints do not allow."""
        found: Collection[str] = getattr(self.policy, "refused", None) or ()
        return found

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[NDArray[Any], Any]:
        """Return the policy's own answer, see ``Policy``."""
        start = perf_counter()
        answer = self.policy.predict(observation, state, episode_start, deterministic)
        self.seconds.append(perf_counter() - start)
        return answer


@dataclass
class BacktestRuns:
    """Results by name of the strategy.

    Attributes:
        policies: Policies of each strategy, by fold.
        results: Backtests, over all folds.
        seconds: Time of each decision.
        growth_by_cost: Yearly log growth after costs, by commission in basis points.
        failed: Why a strategy could not run.
    """

    policies: dict[str, list[Policy]] = field(default_factory=dict)
    results: dict[str, BacktestResult] = field(default_factory=dict)
    seconds: dict[str, Sequence[float]] = field(default_factory=dict)
    growth_by_cost: dict[str, dict[float, float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def oracles(self) -> list[str]:
        """Return the names of the strategies that are fitted to the bars they are evaluated on."""
        return [n for n, own in self.policies.items() if getattr(own[0], "oracle", False)]

    def cost_table(self) -> pd.DataFrame | None:
        """Return a row per strategy, a column per commission; None if no other was tried."""
        frame = pd.DataFrame.from_dict(self.growth_by_cost, orient="index")
        return frame.sort_index(axis=1) if len(frame.columns) else None


@dataclass(frozen=True)
class _Run:
    """One strategy over all folds; its fields are those of ``BacktestRuns``."""

    policies: list[Policy]
    result: BacktestResult
    seconds: list[float]
    growth_by_cost: dict[float, float]


def run_backtests(
    strategies: Sequence[Strategy],
    task: EvaluationTask,
    split: str = "test",
    *,
    commissions: Sequence[float] = (),
    processes: int = 1,
    progress: Callable[[Sequence[Strategy]], Iterable[Strategy]] = iter,
) -> BacktestRuns:
    """Backtest every strategy over all folds of a task, and again at other commissions.

    In every fold a strategy is built again, and the accounts are stitched to one. One that raises a
    ``PortfolioError`` (a missing extra, bounds that nothing can keep to) is written down with the
    reason, and the others go on. What it decided at a bar is kept by the strategy itself, so other
    commissions compute nothing twice.

    Args:
        strategies: The strategies.
        task: Market, folds and rules.
        split: Range to evaluate: "train", "validation" or "test".
        commissions: Commissions of both sides, in basis points; slippage, impact and fees stay as
            they are.
        processes: Processes for the strategies that may run apart; this one runs the others
            meanwhile. 1 runs all here. The results are the same. More than 1 is for scripts that
            guard what they run by ``if __name__ == "__main__"``.
        progress: Hands the strategies on one by one, in their order.

    Raises:
        PortfolioError: If a strategy that is required cannot run, or a process was ended.
    """
    runs = BacktestRuns()
    with _started(strategies, task, split, commissions, processes) as started:
        for strategy in progress(strategies):
            try:
                run = None
                if strategy.name in started:
                    run = _arrived(started[strategy.name], strategy, task, split)
                if run is None:
                    run = _run(strategy, task, split, commissions)
            except PortfolioError as error:
                if strategy.required:
                    raise type(error)(f"{strategy.name} could not run: {error}") from error
                runs.failed[strategy.name] = printable(str(error))
                continue
            runs.policies[strategy.name] = run.policies
            runs.results[strategy.name] = run.result
            runs.seconds[strategy.name] = run.seconds
            runs.growth_by_cost[strategy.name] = run.growth_by_cost
    return runs


def _run(
    strategy: Strategy, task: EvaluationTask, split: str, commissions: Sequence[float]
) -> _Run:
    policies = [strategy.build(fold, split) for fold in task.folds]
    options = [strategy.options(fold, split) for fold in task.folds]
    watches = [Stopwatch(policy) for policy in policies]
    result = _account(watches, options)
    by_cost = {
        commission: _growth(commission, policies, options, result) for commission in commissions
    }
    seconds = [each for watch in watches for each in watch.seconds]
    return _Run(policies, result, seconds, by_cost)


# ---- in other processes


@contextmanager
def _started(
    strategies: Sequence[Strategy],
    task: EvaluationTask,
    split: str,
    commissions: Sequence[float],
    processes: int,
) -> Iterator[dict[str, Future[bytes | None]]]:
    """Start the strategies that may run apart; an error or a SIGTERM ends their processes."""
    apart = [each for each in strategies if each.apart] if processes > 1 else []
    if not apart:
        yield {}
        return
    folds = [replace(fold, agents={}) for fold in task.folds]
    bare = replace(task, whole=replace(task.whole, agents={}), folds=folds)
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(processes, len(apart)),
        multiprocessing.get_context("spawn"),
        _begin,
        (bare, split, commissions),
    )
    try:
        with _handling(signal.SIGTERM, _leave):
            # So are the processes that start here, until they are ready and after.
            with _handling(signal.SIGINT, signal.SIG_IGN):
                started = {each.name: pool.submit(_run_apart, each) for each in apart}
            yield started
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    pool.shutdown()


@contextmanager
def _handling(number: signal.Signals, handler: Any) -> Iterator[None]:
    """Handle a signal otherwise for a while; only the main thread can."""
    if current_thread() is not main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def _leave(number: int, frame: Any) -> None:
    """Leave the program, so that what is open is closed, with a shell's exit status of a signal."""
    raise Terminated(128 + number)


_here: list[Any] = []  # of a process beside the first: task, split and commissions


def _begin(*given: Any) -> None:
    """Prepare a process: one thread, ended by its parent alone and together with it."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read by torch when it is imported
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    _here[:] = given


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_apart(strategy: Strategy) -> bytes | None:
    """Return a pickled run, without the markets; None if its policies cannot be pickled."""
    task: EvaluationTask = _here[0]
    run = _run(strategy, *_here)
    content = BytesIO()
    try:
        _Pickler(content, task).dump(run)
    except (AttributeError, TypeError, pickle.PicklingError):
        return None
    return content.getvalue()


def _arrived(
    future: Future[bytes | None], strategy: Strategy, task: EvaluationTask, split: str
) -> _Run | None:
    """Return the run of another process; None if it could not be handed over."""
    try:
        content = future.result()
    except BrokenProcessPool as error:
        raise PortfolioError(
            f"the process of {strategy.name} was ended, perhaps for want of memory; run all in "
            "one: processes=1"
        ) from error
    if content is None:
        return None
    run: _Run = _Unpickler(BytesIO(content), task).load()
    for fold, policy in zip(task.folds, run.policies, strict=True):
        strategy.keep(fold, split, policy)
    return run


class _Pickler(pickle.Pickler):
    """Pickler that refers to the markets of a task, which both processes have."""

    def __init__(self, file: BytesIO, task: EvaluationTask) -> None:
        super().__init__(file)
        self._folds = {id(fold.market): number for number, fold in enumerate(task.folds)}

    def persistent_id(self, thing: Any) -> int | None:
        """Return the number of the fold of a market; None for anything else."""
        return self._folds.get(id(thing))


class _Unpickler(pickle.Unpickler):
    """Counterpart of ``_Pickler``."""

    def __init__(self, file: BytesIO, task: EvaluationTask) -> None:
        super().__init__(file)
        self._task = task

    def persistent_load(self, number: Any) -> Any:
        """Return the market of a fold."""
        return self._task.folds[number].market


def _account(
    policies: Sequence[Policy], options: Sequence[dict[str, Any]], **changes: Any
) -> BacktestResult:
    """Return the account of one policy per fold over all folds."""
    return stitch(
        [
            backtest(policy, PortfolioEnv(**{**own, **changes}))
            for policy, own in zip(policies, options, strict=True)
        ]
    )


def _growth(
    commission: float,
    policies: Sequence[Policy],
    options: Sequence[dict[str, Any]],
    result: BacktestResult,
) -> float:
    """Return yearly growth at another commission of both sides, or of the result at its own."""
    costs = made_costs(options[0].get("costs", {}))
    if type(costs) is not TransactionCosts:
        raise ArgumentError(
            f"other commissions are for TransactionCosts, the costs are of {type(costs).__name__}: "
            "leave commissions out"
        )
    other = replace(
        costs, commission_bps=commission, buy_commission_bps=None, sell_commission_bps=None
    )
    account = result if other == costs else _account(policies, options, costs=other)
    return float(annual_log_growth(account.values, account.periods_per_year))
