"""Stress tests: the same strategy on the same market under shocks.

Features are computed again from the stressed bars, with the scalers that were fitted before.
Exogenous channels stay as they were: nobody knows what they would have been.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from portfolio_env import metrics
from portfolio_env.arguments import all_options
from portfolio_env.checks import check_integer
from portfolio_env.env import PortfolioEnv
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation.backtest import BacktestResult, Policy, backtest
from portfolio_env.evaluation.diagnostics.scenarios import Scenario
from portfolio_env.features import FeaturePipeline, plugins
from portfolio_env.features.presets import separate
from portfolio_env.market import Market
from portfolio_env.simulation.cost_models import made_costs
from portfolio_env.simulation.fills import made_fills

NONE = "none"
"""Name of the market as it is."""


def stressed(market: Market, scenario: Scenario, *, seed: int = 0) -> Market:
    """Return the market under a scenario.

    Args:
        market: A market made by a ``FeaturePipeline``, fitted or not.
        scenario: Scenario to apply.
        seed: Seed of what the scenario draws.

    Returns:
        A market with new bars and features; ``panel.provenance["stress"]`` lists the scenarios that
        it went through, with their settings and seeds.

    Raises:
        ArgumentError: If the scenario does not fit the market.
            Also if it was loaded and names features of modules that are not imported.
        DataError: If the market does not say how its features are made.
    """
    panel = market.panel
    fitted = panel.provenance.get("features")
    if not isinstance(fitted, Mapping) or "features" not in fitted:
        raise DataError(
            "the market does not say how its features are made; make it with load_market, "
            "or stress the panel itself by scenario.prices(panel, generator)"
        )
    made = scenario.prices(panel, np.random.default_rng(seed))
    settings = {name: _plain(value) for name, value in asdict(scenario).items()}
    entry = {"scenario": type(scenario).__name__, **settings, "seed": seed}
    done = [*panel.provenance.get("stress", []), entry]
    made = replace(made, provenance={**panel.provenance, "stress": done})
    plugins.check_imported(separate(fitted["features"]))
    return FeaturePipeline.from_dict(dict(fitted)).transform(made)


def stress_test(
    make: Callable[[Market], Policy],
    market: Market,
    scenarios: Mapping[str, Scenario],
    *,
    seed: int = 0,
    **options: Any,
) -> dict[str, BacktestResult]:
    """Backtest a strategy on the original market and in every scenario.

    Args:
        make: Gives the strategy for a market, e.g. ``lambda m: make_baseline("momentum", m)``, or
            an agent bound to it. What it was fitted to must not be stressed: give scenarios a
            ``start`` after that.
        market: The market.
        scenarios: Scenarios by name.
        seed: Seed of what the scenarios draw, and of the fills.
        **options: Keywords of ``PortfolioEnv``; without ``start`` all start at the first bar that
            the longest delay allows.

    Returns:
        Results by scenario, "none" first.

    Raises:
        ArgumentError: If a scenario is called "none", or does not fit the market.
    """
    if NONE in scenarios:
        raise ArgumentError(f'"{NONE}" is the market as it is; call the scenario something else.')
    costs, fills = made_costs(options.pop("costs", {})), made_fills(options.pop("fills", {}))
    delay = check_integer("delay", options.pop("delay", 0), 0)
    if options.get("start") is None:
        window = all_options("window", options)["window"]
        longest = max((each.delay(delay) for each in scenarios.values()), default=delay)
        options["start"] = market.warmup + window - 1 + longest
    results = {}
    for name, scenario in {NONE: Scenario(), **scenarios}.items():
        changed = market if name == NONE else stressed(market, scenario, seed=seed)
        rules: Any = {"costs": scenario.costs(costs), "fills": scenario.fills(fills)}
        rules["delay"] = scenario.delay(delay)
        env = PortfolioEnv(changed, **rules, **options)
        results[name] = backtest(make(changed), env, seed=seed)
    return results


def stress_table(results: Mapping[str, BacktestResult]) -> pd.DataFrame:
    """Return the effect of each scenario on an account.

    Args:
        results: See ``stress_test``.

    Returns:
        By scenario: log ``growth`` over the whole backtest, ``growth_lost`` against "none",
        ``max_drawdown``, yearly ``volatility``, ``worst_bar`` (lowest return), ``cost`` (share of
        the initial value paid for trading), ``unfilled`` (share of the orders) and ``ruined``.
    """
    rows = {}
    for name, result in results.items():
        rows[name] = {
            "growth": result.log_returns.sum(),
            "growth_lost": results[NONE].log_returns.sum() - result.log_returns.sum(),
            "max_drawdown": float(metrics.max_drawdown(result.values)),
            "volatility": float(metrics.volatility(result.returns, result.periods_per_year)),
            "worst_bar": result.returns.min(),
            "cost": result.costs.sum() / result.values[0],
            "unfilled": result.unfilled_share,
            "ruined": len(result.values) < len(results[NONE].values),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("scenario")


def _plain(value: Any) -> Any:
    """Return a setting as JSON-able data."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Sequence):
        return list(value)
    return str(value)
