"""Head of a report: the market, the rules of trading, the ranges and the agents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from portfolio_env.evaluation.task import EvaluationTask
from portfolio_env.market.timeline import as_timestamp
from portfolio_env.simulation.constraints import PortfolioConstraints
from portfolio_env.simulation.cost_models import Costs
from portfolio_env.simulation.costs import TransactionCosts

NAMED = 24  # assets that are named; the others are counted
_RATES = {
    "cash_rate_annual": "cash earns",
    "margin_rate_annual": "debt pays",
    "borrow_rate_annual": "short positions pay",
}


def market_name(task: EvaluationTask) -> str:
    """Return the name of the market as it was asked for, or the source of its prices."""
    provenance = task.whole.market.panel.provenance
    return str(task.about.get("market") or provenance.get("source") or "market")


def head_facts(task: EvaluationTask, split: str) -> dict[str, str]:
    """Return what a reader must know before any number, by name.

    Args:
        task: Market, folds, rules and agents.
        split: The evaluated range.
    """
    panel, options = task.whole.market.panel, task.whole.options
    names = ", ".join(panel.assets[:NAMED])
    names += f" and {len(panel.assets) - NAMED} more" * (len(panel.assets) > NAMED)
    source = panel.provenance.get("source", "not recorded")
    found = {
        "market": f"{market_name(task)}; prices: {source}",
        f"{len(panel.assets)} assets": names,
        f"{split} (judged)": _range(task, split),
    }
    found |= {each: _range(task, each) for each in task.whole.ranges if each != split}
    found["bars a year"] = f"{panel.bars_per_year(*task.whole.rows(split)):,.1f}".removesuffix(".0")
    costs = task.costs
    return found | {
        "costs": _costs(costs),
        "interest a year": ", ".join(
            f"{text} {_rate(getattr(costs, name))}" for name, text in _RATES.items()
        ),
        "constraints": _constraints(options["constraints"]),
        "orders": f"filled at the {str(options['execution']).replace('_', ' ')}",
        "initial value": f"{options['initial_value']:,.0f}",
        **{name: str(fact) for name, fact in task.about.items() if name != "market"},
    }


def _range(task: EvaluationTask, split: str) -> str:
    """Return first and last day of a range, and how many bars it has."""
    start, end = task.whole.rows(split)
    times = task.whole.market.timestamps
    first, last = (as_timestamp(times[row]).astype("datetime64[D]") for row in (start, end - 1))
    return f"{first} to {last}, {end - start:,} bars"


def _costs(costs: Costs) -> str:
    if type(costs) is not TransactionCosts:
        return f"of {type(costs).__name__}"
    plain = TransactionCosts(commission_bps=0.0)
    parts = [
        f"{field.name.replace('_bps', '').replace('_', ' ')} {_amount(value)}"
        + " bp" * field.name.endswith("_bps")
        for field in fields(costs)
        if field.name not in (*_RATES, "impact_window")
        and (value := getattr(costs, field.name)) != getattr(plain, field.name)
    ]
    return ", ".join(parts) or "none"


def _amount(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else "by asset"


def _rate(value: Any) -> str:
    return f"{100 * value:g} %" if isinstance(value, int | float) else "by date"


def _constraints(given: Mapping[str, Any] | PortfolioConstraints) -> str:
    """Return the limits that are not the defaults, beside whether shorts are allowed."""
    own = given if isinstance(given, PortfolioConstraints) else PortfolioConstraints(**given)
    plain, parts = PortfolioConstraints(), ["long only" if own.long_only else "long and short"]
    for field in fields(own):
        value = getattr(own, field.name)
        if field.name != "long_only" and value != getattr(plain, field.name):
            shown = value if isinstance(value, int | float | str) else "by asset or group"
            parts.append(f"{field.name.replace('_', ' ')} {shown}")
    return ", ".join(parts)
