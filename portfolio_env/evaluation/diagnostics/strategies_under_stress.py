"""Stress tests of the strategies of an evaluation: each in every scenario, over the same bars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

import pandas as pd

from portfolio_env.env import PortfolioEnv
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.backtest import BacktestResult, Policy, backtest
from portfolio_env.evaluation.diagnostics.scenarios import (
    CorrelationShock,
    Delay,
    IncompleteFills,
    OpeningGaps,
    Outage,
    PriceGap,
    Scenario,
    ThinLiquidity,
    VolatilityShock,
)
from portfolio_env.evaluation.diagnostics.stress import NONE, stress_table, stressed
from portfolio_env.evaluation.runner import Strategy
from portfolio_env.evaluation.task import EvaluationTask
from portfolio_env.market import Market
from portfolio_env.names import check_keywords, find
from portfolio_env.simulation.cost_models import made_costs
from portfolio_env.simulation.fills import made_fills

SCENARIOS: dict[str, type[Scenario]] = {
    "crash": PriceGap,
    "volatility": VolatilityShock,
    "correlation": CorrelationShock,
    "liquidity": ThinLiquidity,
    "outage": Outage,
    "gap": OpeningGaps,
    "fills": IncompleteFills,
    "delay": Delay,
}
"""Scenarios by name."""
OPENS = "next_open"


def scenario_of(name: str, options: Mapping[str, Any]) -> Scenario:
    """Return a scenario by its name in ``SCENARIOS``.

    Raises:
        ArgumentError: If there is none of that name, or it has no such option.

    >>> scenario_of("crash", {"size": 0.3})
    PriceGap(start=None, end=None, assets=None, size=0.3, at=None)
    """
    kind = find("scenario", name, SCENARIOS)
    check_keywords(f"scenario {name}", "option", options, [each.name for each in fields(kind)])
    try:
        made: Scenario = kind(**options)
    except TypeError as error:
        raise ArgumentError(f"scenario {name} cannot take {dict(options)}: {error}.") from error
    return made


def stress_strategies(
    task: EvaluationTask,
    strategies: Iterable[Strategy],
    split: str,
    scenarios: Mapping[str, Scenario],
    bind: Callable[[Policy, Market], None],
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Backtest strategies over a range of the last fold, as it is and in every scenario.

    What happened before the range is not stressed, so that baselines are fitted to the same bars: a
    scenario without ``start`` begins at the second bar of the range. All begin at the bar that the
    longest delay allows.

    Args:
        task: The task.
        strategies: The strategies. Those that know the future, or take long to fit (``apart``), are
            left out.
        split: The range.
        scenarios: Scenarios by name.
        bind: Gives the policy of a trained agent the market that its observations are of.
        seed: Seed of what the scenarios draw, and of the fills.

    Returns:
        The columns of ``stress_table``, by strategy and scenario, "none" first.

    Raises:
        ArgumentError: If a scenario is called "none", does not fit the market, or moves opens at
            which nothing is traded.
    """
    fold = task.folds[-1]
    rules = fold.options
    if NONE in scenarios:
        raise ArgumentError(f'"{NONE}" is the market as it is; call the scenario something else.')
    for name, each in scenarios.items():
        if isinstance(each, OpeningGaps) and rules.get("execution") != OPENS:
            raise ArgumentError(
                f"scenario {name} moves the opens, and orders are filled at the close; leave it "
                f"out, or choose execution {OPENS}."
            )
    first, end = fold.rows(split)
    own = {name: _within(each, first + 1, end) for name, each in scenarios.items()}
    costs, fills = made_costs(rules.get("costs", {})), made_fills(rules.get("fills", {}))
    delay = rules.get("delay", 0)
    # the range leaves room for the delay of the task itself
    first += max((each.delay(delay) - delay for each in own.values()), default=0)
    chosen = [each for each in strategies if not each.apart]
    results: dict[str, dict[str, BacktestResult]] = {each.name: {} for each in chosen}
    try:
        for name, scenario in {NONE: Scenario(), **own}.items():
            market = fold.market
            if name != NONE:
                market = stressed(fold.market, scenario, seed=seed)
            for agent in fold.agents.values():
                bind(agent.policy, market)
            there = replace(fold, market=market)
            shocked = {
                "costs": scenario.costs(costs),
                "fills": scenario.fills(fills),
                "delay": scenario.delay(delay),
            }
            for strategy in chosen:
                policy = strategy.build(there, split)
                if getattr(policy, "oracle", False):
                    results.pop(strategy.name, None)
                    continue
                options = {**strategy.options(there, split), **shocked, "start": first}
                found = backtest(policy, PortfolioEnv(**options), seed=seed)
                results[strategy.name][name] = found
    finally:
        for agent in fold.agents.values():
            bind(agent.policy, fold.market)
    tables = {name: stress_table(found) for name, found in results.items()}
    return pd.concat(tables, names=["strategy"]) if tables else pd.DataFrame()


def _within(scenario: Scenario, start: int, end: int) -> Scenario:
    """Return a scenario that says when, within rows where it does not."""
    return replace(
        scenario,
        start=start if scenario.start is None else scenario.start,
        end=end if scenario.end is None else scenario.end,
    )


def stress_texts(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return tables for people by title: a row per strategy, a column per scenario.

    Args:
        table: See ``stress_strategies``.
    """
    shown = {
        "growth": "Growth % under stress, over the range",
        "max_drawdown": "Largest drawdown % under stress",
    }
    return {
        title: (100 * table[measure])
        .unstack()[list(dict.fromkeys(table.index.get_level_values(1)))]
        .loc[list(dict.fromkeys(table.index.get_level_values(0)))]
        .map("{:.1f}".format)
        for measure, title in shown.items()
    }
