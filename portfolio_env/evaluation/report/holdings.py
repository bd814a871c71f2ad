"""Report section on what to hold: the last weights of each strategy, and the orders for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from portfolio_env.evaluation.comparison import Comparison
from portfolio_env.evaluation.report.account_plots import allocation_donut
from portfolio_env.evaluation.report.inputs import (
    ReportInputs,
    drawable,
    order_texts,
)
from portfolio_env.evaluation.report.plots import Style
from portfolio_env.evaluation.summary import called, leads, number_text
from portfolio_env.html import Page, folded, heading, paragraph, table

if TYPE_CHECKING:
    from markupsafe import Markup

SHOWN = 6  # strategies beside one another
ASSETS = 12  # rows that are not folded


def holdings_section(
    page: Page, comparison: Comparison, inputs: ReportInputs, drawn: Mapping[str, Style]
) -> None:
    """Write the section on the weights after the last trade, and on the orders of a capital."""
    names = _shown(comparison, inputs.agents)
    if not names:
        return
    weights = pd.DataFrame({name: comparison.results[name].held[-1] for name in names})
    weights.index = pd.Index(["cash", *comparison.results[names[0]].assets])
    largest = weights.drop(index="cash").abs().max(axis=1)
    rows = ["cash", *largest.sort_values(ascending=False, kind="stable").index]
    texts = (100 * weights.loc[rows]).map(_weight)
    when = str(comparison.results[names[0]].timestamps[-2].astype("datetime64[m]"))
    colors = {name: drawn[name].color for name in names if name in drawn}
    parts = [
        paragraph(
            f"{_advice(comparison)} Weights in % after the last trade of the range, at "
            f"{when.removesuffix('T00:00')}: the agents first, then the benchmark and the best."
        ),
        table(texts.iloc[: ASSETS + 1], colors),
    ]
    if len(texts) > ASSETS + 1:
        rest = texts.iloc[ASSETS + 1 :]
        parts.append(folded(f"The other {len(rest)} assets", table(rest, colors)))
    if inputs.orders:
        parts += _orders(page, inputs)
    page.add("What to hold", *parts)


def _shown(comparison: Comparison, agents: Sequence[str]) -> list[str]:
    """Return the accounts of which weights are shown: agents, the benchmark, the best others."""
    accounts = {n: r for n, r in drawable(comparison).items() if not r.outside}
    first = [name for name in (*agents, comparison.benchmark) if name in accounts]
    return list(dict.fromkeys([*first, *accounts]))[:SHOWN]


def _advice(comparison: Comparison) -> str:
    """Return what the verdict supports, and no more than that."""
    other = comparison.benchmark.replace("_", " ")
    if comparison.benchmark not in comparison.solvent:
        return f"{other} was ruined, so no verdict supports a choice."
    equal = comparison.duplicate_of[comparison.benchmark]
    known = [
        name
        for name, result in drawable(comparison).items()
        if comparison.duplicate_of[name] != equal and not result.outside
    ]
    ahead = {called(comparison, name): leads(comparison, name) for name in known}
    if both := [name for name in ahead if len(ahead[name]) > 1]:
        return (
            f"Taken alone, {', '.join(both)} beat{'s' * (len(both) == 1)} {other} in growth and at "
            "equal risk; the sentence above says whether that holds among all that were tried."
        )
    if some := [name for name in ahead if ahead[name]]:
        return (
            f"Taken alone, {', '.join(some)} {'is' if len(some) == 1 else 'are'} ahead of {other} "
            "in growth or at equal risk, none in both."
        )
    return f"No strategy is shown to beat {other}: nothing here is a reason to hold another."


def _weight(value: float) -> str:
    return "" if abs(value) < 0.05 else number_text("{:.1f}")(float(np.round(value, 9)))


def _orders(page: Page, inputs: ReportInputs) -> list[Markup]:
    when = str(inputs.bars.timestamps[-1].astype("datetime64[D]"))
    parts = [
        heading("Orders"),
        paragraph(
            f"What each strategy decides at the last bar, {when}, for an account as it is given, "
            "and the orders for it at the closes of then; prices as in the data."
        ),
    ]
    for name, orders in inputs.orders.items():
        content = table(order_texts(orders)) + paragraph(
            f"Costs {float(orders.cost):,.2f}; cash {float(orders.before.cash):,.2f} before and "
            f"{float(orders.after.cash):,.2f} after, of which {orders.unplanned_cash:,.2f} were "
            f"not planned; tracking error of rounding {100 * orders.tracking_error:.2f} %."
        )
        frame = orders.table()
        if (frame["money_after"] >= 0).all():
            figure = allocation_donut(frame, orders.plan.value, name)
            note = f"Allocation of {orders.plan.value:,.0f} by {name}"
            content = content + page.draw(f"{name}/allocation", figure, note)
        parts.append(folded(name, content))
    return parts
