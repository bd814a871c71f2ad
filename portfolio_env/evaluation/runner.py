"""Backtests of many strategies over the same folds, each in its own environment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from portfolio_env.env import PortfolioEnv
from portfolio_env.errors import ArgumentError, PortfolioError
from portfolio_env.evaluation.backtest import BacktestResult, Policy, backtest
from portfolio_env.evaluation.task import EvaluationFold, EvaluationTask
from portfolio_env.evaluation.walk_forward import stitch
from portfolio_env.metrics import annual_log_growth
from portfolio_env.simulation.cost_models import made_costs
from portfolio_env.simulation.costs import TransactionCosts


@dataclass(frozen=True)
class Strategy:
    """Strategy to backtest: an agent, a baseline, or an agent with the validation gate.

    Attributes:
        name: Name of the strategy.
        build: Gives its policy for a fold and the range that is evaluated ("test", ...), fitted
            where there is something to fit.
        options: Gives the keywords of its ``PortfolioEnv`` likewise; ``costs`` as a mapping.
        required: The evaluation is worth nothing if it cannot run.
    """

    name: str
    build: Callable[[EvaluationFold, str], Policy]
    options: Callable[[EvaluationFold, str], dict[str, Any]]
    required: bool = False


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


def run_backtests(
    strategies: Iterable[Strategy],
    task: EvaluationTask,
    split: str = "test",
    *,
    commissions: Sequence[float] = (),
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

    Raises:
        PortfolioError: If a strategy that is required cannot run.
    """
    runs = BacktestRuns()
    for strategy in strategies:
        try:
            policies = [strategy.build(fold, split) for fold in task.folds]
            options = [strategy.options(fold, split) for fold in task.folds]
            watches = [Stopwatch(policy) for policy in policies]
            result = _account(watches, options)
            by_cost = {
                commission: _growth(commission, policies, options, result)
                for commission in commissions
            }
        except PortfolioError as error:
            if strategy.required:
                raise type(error)(f"{strategy.name} could not run: {error}") from error
            runs.failed[strategy.name] = str(error)
            continue
        runs.policies[strategy.name] = policies
        runs.results[strategy.name] = result
        runs.seconds[strategy.name] = [each for watch in watches for each in watch.seconds]
        runs.growth_by_cost[strategy.name] = by_cost
    return runs


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
    if not isinstance(costs, TransactionCosts):
        raise ArgumentError(
            f"other commissions are for TransactionCosts, the costs are of {type(costs).__name__}: "
            "leave commissions out"
        )
    other = replace(
        costs, commission_bps=commission, buy_commission_bps=None, sell_commission_bps=None
    )
    account = result if other == costs else _account(policies, options, costs=other)
    return float(annual_log_growth(account.values, account.periods_per_year))
