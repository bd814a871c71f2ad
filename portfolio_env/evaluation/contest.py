"""A contest: many strategies over one range of one market, each through its own environment."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from portfolio_env.costs import TransactionCosts
from portfolio_env.env import PortfolioEnv
from portfolio_env.errors import PortfolioError
from portfolio_env.evaluation.backtest import BacktestResult, Policy, backtest
from portfolio_env.evaluation.metrics import annual_log_growth
from portfolio_env.evaluation.practical import Stopwatch


@dataclass(frozen=True)
class Entry:
    """A strategy that takes part.

    Attributes:
        name: Of the strategy.
        make: Builds it, and fits it where there is something to fit.
        options: Keywords of its ``PortfolioEnv``; ``costs`` as a mapping.
    """

    name: str
    make: Callable[[], Policy]
    options: Mapping[str, Any]


@dataclass
class Contest:
    """What came of it, by name.

    Attributes:
        policies: What was built.
        results: Backtests.
        seconds: Time of each decision.
        growth_by_cost: Yearly log growth after costs, by commission in basis points.
        failed: Why a strategy could not run.
    """

    policies: dict[str, Policy] = field(default_factory=dict)
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
            policy = entry.make()
            watch = Stopwatch(policy)
            result = backtest(watch, PortfolioEnv(**entry.options))
            by_cost = {
                commission: _growth(entry.options, commission, policy, result)
                for commission in commissions
            }
        except PortfolioError as error:
            contest.failed[entry.name] = str(error)
            continue
        contest.policies[entry.name] = policy
        contest.results[entry.name] = result
        contest.seconds[entry.name] = watch.seconds
        contest.growth_by_cost[entry.name] = by_cost
    return contest


def _growth(
    options: Mapping[str, Any], commission: float, policy: Policy, own: BacktestResult
) -> float:
    """Yearly growth at another commission of both sides; the result's where that is its own."""
    costs = TransactionCosts(**options.get("costs", {}))
    other = replace(
        costs, commission_bps=commission, buy_commission_bps=None, sell_commission_bps=None
    )
    result = own
    if other != costs:
        result = backtest(policy, PortfolioEnv(**{**options, "costs": other}))
    return float(annual_log_growth(result.values, result.periods_per_year))
