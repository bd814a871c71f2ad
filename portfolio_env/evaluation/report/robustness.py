"""Report sections on robustness: plausibility, performance decay, overfitting."""

from collections.abc import Hashable, Mapping

import numpy as np
import pandas as pd

from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.evaluation.comparison import Comparison
from portfolio_env.evaluation.diagnostics.decay import drift_table, signal_decay
from portfolio_env.evaluation.diagnostics.plausibility import (
    PlausibilityCheck,
    plausibility_check,
    plausibility_sentences,
)
from portfolio_env.evaluation.report import evidence_plots
from portfolio_env.evaluation.report.inputs import ReportInputs, drawable
from portfolio_env.evaluation.report.plots import Style
from portfolio_env.evaluation.statistics.overfitting import backtest_overfitting
from portfolio_env.evaluation.summary import number_text
from portfolio_env.html import Page, bullets, folded, heading, paragraph, table
from portfolio_env.metrics.arrays import is_constant

CHECKS = {
    "sharpe": ("Sharpe", "{:.2f}"),
    "timing": ("timing", "{:+.3f}"),
    "foresight": ("foresight", "{:+.3f}"),
    "participation": ("participation %", "{:.3g}"),
    "capacity": ("capacity", "{:,.0f}"),
}
LEAST = 40  # periods below which halves of a record are not informative
LAGS = (0, 1, 2, 5, 10)
BLOCKS = 16  # blocks of cross-validation; fewer if there are few periods
LAG_RESAMPLES = 500  # bootstrap resamples per lag and strategy


def plausibility_section(page: Page, comparison: Comparison, inputs: ReportInputs) -> None:
    """Write the section on plausibility checks, and the capital at which impact takes the edge."""
    results = drawable(comparison)
    benchmark = results.get(comparison.benchmark)
    checks = {
        name: plausibility_check(
            result,
            inputs.panel,
            costs=inputs.costs,
            benchmark=None if name == comparison.benchmark else benchmark,
            capital=inputs.capital,
            execution=inputs.execution,
        )
        for name, result in results.items()
        if not result.outside  # prices make no decisions
    }
    if not checks:
        return
    flags = plausibility_sentences(checks)
    initial = float(next(iter(results.values())).values[0])
    parts = [
        paragraph(
            "Timing is the correlation of trades with the returns right after them (above 0.1 is "
            "suspicious), foresight the share of what knowing every next bar would have earned "
            "over equal weight (above 0.2), participation the largest trade over the money traded "
            "in its bar (above 5 %). Passing is not evidence of skill."
        ),
        bullets(flags) if flags else paragraph("All strategies pass."),
        table(_check_texts(checks, comparison.benchmark)),
        paragraph(_capacity_text(inputs, comparison.benchmark, initial)),
    ]
    page.add("Plausibility", *parts)


def _check_texts(checks: Mapping[str, PlausibilityCheck], benchmark: str) -> pd.DataFrame:
    """Return one row per strategy; what is suspicious has an exclamation mark."""
    rows: dict[str, dict[str, str]] = {}
    for name, found in checks.items():
        rows[name], measured = {}, found.table.to_dict("index")
        for check, (title, form) in CHECKS.items():
            value, doubt = measured[check]["value"], measured[check]["suspicious"]
            if check == "capacity" and name == benchmark:
                value = np.nan
            if check == "participation":
                value *= 100
            rows[name][title] = number_text(form)(value) + (" !" if doubt else "")
    table_of = pd.DataFrame.from_dict(rows, orient="index")
    return table_of[[title for title in table_of if (table_of[title] != "").any()]]


def _capacity_text(inputs: ReportInputs, benchmark: str, initial: float) -> str:
    if inputs.panel.volume is None:
        return (
            "The market has no volumes: neither fills nor capacity, the capital at which market "
            "impact eats the edge, can be judged."
        )
    impact = getattr(inputs.costs, "impact", None)
    model = (
        "as of the costs"
        if impact is None and inputs.costs.impact_coefficients(inputs.panel).size
        else f"impact={impact:g} of the costs"
        if impact
        else "a coefficient of 1, as the costs have no impact of their own"
    )
    return (
        f"Participation is that of accounts which begin with {initial:,.0f}. "
        f"Capacity is the capital at which market impact (square root, {model}) consumes the edge "
        f"over {benchmark.replace('_', ' ')}; none is given where there is no edge."
    )


def decay_section(
    page: Page, comparison: Comparison, inputs: ReportInputs, drawn: Mapping[str, Style]
) -> None:
    """Write the section on decay: falling ratios, rising correlations, lagged signals."""
    results = {n: r for n, r in drawable(comparison).items() if not is_constant(r.returns)}
    benchmark = results.get(comparison.benchmark)
    if benchmark is None or len(benchmark.costs) < LEAST:
        return
    others = {name: result for name, result in results.items() if name != comparison.benchmark}
    if not others:
        return
    edges = {}
    for name, result in others.items():
        if result.outside:
            continue
        try:
            edges[name] = signal_decay(result, inputs.panel, LAGS, n_resamples=LAG_RESAMPLES)
        except ArgumentError:  # lagged weights with debt lose everything
            continue
    parts = [
        heading("First and second half"),
        paragraph(
            "Sharpe ratio and correlation with "
            f"{comparison.benchmark.replace('_', ' ')} in the first and the second half of the "
            "range, with the 95 % interval of the change (periods taken as independent); an "
            "exclamation mark where it is for the worse beyond chance. When a whole market comes "
            "to move as one, the correlations of all its accounts rise."
        ),
        table(_drift_texts(others, benchmark)),
    ]
    if edges:
        note = (
            "Edge over equal weight in the same assets, before costs, % of log growth a year, if "
            "the weights are held so many bars too late; in brackets the 95 % interval. What is "
            "gone after one bar needs fast execution, or is a mistake of one bar."
        )
        figure = evidence_plots.edge_by_lag(edges, drawn)
        parts += [
            heading("Delay"),
            paragraph(note),
            page.draw("signal_decay", figure, note),
            folded("The edge in numbers", table(_edge_texts(edges))),
        ]
    page.add("Decay", *parts)


def _drift_texts(results: Mapping[str, BacktestResult], benchmark: BacktestResult) -> pd.DataFrame:
    rows = {}
    for name, result in results.items():
        rows[name] = {
            str(measure).capitalize(): f"{row['early']:.2f} to {row['late']:.2f}, {_change(row)}"
            + (" !" if row["worse"] else "")
            for measure, row in drift_table(result, benchmark).to_dict("index").items()
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _change(row: Mapping[Hashable, float]) -> str:
    """Return a change with its interval as text; that of a perfect correlation has none."""
    parts = [row["change"], row["low"], row["high"]]
    if not np.isfinite(parts).all():
        return "no interval"
    return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*parts)


def _edge_texts(edges: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    rows = {
        name: {
            f"{lag} bars": "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * row))
            for lag, row in found[["edge", "low", "high"]].iterrows()
        }
        for name, found in edges.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def overfitting_section(page: Page, comparison: Comparison) -> None:
    """Write the section on the probability that the choice of the best strategy is overfitted."""
    drawn = drawable(comparison).items()
    results = {n: r for n, r in drawn if not is_constant(r.excess_returns)}
    periods = len(next(iter(results.values())).costs) if results else 0
    blocks = min(BLOCKS, periods // 4 // 2 * 2)
    if len(results) < 2 or blocks < 4:
        return
    returns = np.column_stack([result.excess_returns for result in results.values()])
    try:
        found = backtest_overfitting(returns, blocks=blocks)
    except ArgumentError:  # some account is all in cash for half of the range
        return
    note = (
        f"The range is cut into {blocks} blocks; each half of them in turn chooses the strategy "
        f"with the best Sharpe ratio of {len(results)}, the other half ranks it. In "
        f"{100 * found.probability:.0f} % of {len(found.logits):,} splits it ends in the lower "
        "half: the probability that such a choice is overfitted (Bailey et al. 2017). About 50 % "
        "is what chance gives, and strategies that are sure to lose lower it. Mean Sharpe ratio "
        f"per period {found.in_sample.mean():.3f} where chosen, "
        f"{found.out_of_sample.mean():.3f} where judged."
    )
    figure = evidence_plots.overfitting_places(found.logits, len(results))
    page.add("Choosing the best", paragraph(note), page.draw("overfitting", figure, note))
