"""A contest: many strategies over the same range or folds, each through its own environment."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from portfolio_env.env import PortfolioEnv
from portfolio_env.errors import PortfolioError
from portfolio_env.evaluation.backtest import BacktestResult, Policy, backtest
from portfolio_env.evaluation.diagnostics.implementation import Stopwatch
from portfolio_env.evaluation.walk_forward import stitch
from portfolio_env.metrics import annual_log_growth
from portfolio_env.simulation.costs import TransactionCosts


@dataclass(frozen=True)
class Leg:
    """One range in which a strategy is judged.

    Attributes:
        make: Builds the strategy, and fits it where there is something to fit.
        options: Keywords of its ``PortfolioEnv``; ``costs`` as a mapping.
    """

    make: Callable[[], Policy]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """A strategy that takes part.

    Attributes:
        name: Of the strategy.
        legs: The range, or the tests of a walk forward in order: in each the strategy is built
            anew, and the accounts are stitched to one.
    """

    name: str
    legs: Sequence[Leg]


@dataclass
class Contest:
    """What came of it, by name.

    Attributes:
        policies: What was built, by leg.
        results: Backtests, over all legs.
        seconds: Time of each decision.
        growth_by_cost: Yearly log growth after costs, by commission in basis points.
        failed: Why a strategy could not run.
    """

    policies: dict[str, list[Policy]] = field(default_factory=dict)
    results: dict[str, BacktestResult] = field(default_factory=dict)
    seconds: dict[str, Sequence[float]] = field(default_factory=dict)
    growth_by_cost: dict[str, dict[float, float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def cost_table(self) -> pd.DataFrame | None:
        """One row per strategy, one column per commission; None if no other was tried."""
        frame = pd.DataFrame.from_dict(self.growth_by_cost, orient="index")
        return frame.sort_index(axis=1) if len(frame.columns) else None


def run_contest(entries: Iterable[Entry], commissions: Sequence[float] = ()) -> Contest:
    """Backtest every entry, and again at other commissions.

    A strategy that raises a ``PortfolioError`` (a missing extra, bounds that nothing can keep to)
    is written down with the reason, and the others go on. What it decided at a bar is kept by the
    strategy itself, so other commissions compute nothing twice.

    Args:
        entries: The strategies.
        commissions: Of both sides, in basis points; slippage, impact and fees stay as they are.
    """
    contest = Contest()
    for entry in entries:
        try:
            policies = [leg.make() for leg in entry.legs]
            watches = [Stopwatch(policy) for policy in policies]
            result = _account(entry, watches)
            by_cost = {
                commission: _growth(entry, commission, policies, result)
                for commission in commissions
            }
        except PortfolioError as error:
            contest.failed[entry.name] = str(error)
            continue
        contest.policies[entry.name] = policies
        contest.results[entry.name] = result
        contest.seconds[entry.name] = [each for watch in watches for each in watch.seconds]
        contest.growth_by_cost[entry.name] = by_cost
    return contest


def _account(entry: Entry, policies: Sequence[Policy], **changes: Any) -> BacktestResult:
    """The account of a policy per leg over all legs."""
    return stitch(
        [
            backtest(policy, PortfolioEnv(**{**leg.options, **changes}))
            for policy, leg in zip(policies, entry.legs, strict=True)
        ]
    )


def _growth(
    entry: Entry, commission: float, policies: Sequence[Policy], own: BacktestResult
) -> float:
    """Yearly growth at another commission of both sides; the result's where that is its own."""
    costs = TransactionCosts(**entry.legs[0].options.get("costs", {}))
    other = replace(
        costs, commission_bps=commission, buy_commission_bps=None, sell_commission_bps=None
    )
    result = own if other == costs else _account(entry, policies, costs=other)
    return float(annual_log_growth(result.values, result.periods_per_year))
