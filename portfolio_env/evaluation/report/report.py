"""The report of an evaluation: one HTML page that needs no other file, and its figures as PNG."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from portfolio_env.data.reports.statistics import correlation
from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.evaluation.comparison import Comparison
from portfolio_env.evaluation.diagnostics.strategies_under_stress import stress_texts
from portfolio_env.evaluation.left_out import left_out_table
from portfolio_env.evaluation.report import account_plots, comparison_plots, plots
from portfolio_env.evaluation.report.holdings import holdings_section
from portfolio_env.evaluation.report.inputs import (
    ReportInputs,
    drawable,
    with_difference,
)
from portfolio_env.evaluation.report.plots import growth_bands
from portfolio_env.evaluation.report.robustness import (
    decay_section,
    overfitting_section,
    plausibility_section,
)
from portfolio_env.evaluation.report.subperiods import (
    blocks_section,
    events_section,
    regimes_section,
    seeds_section,
)
from portfolio_env.evaluation.report.tear_sheet import drawdown_texts, months_table, tear_sheet
from portfolio_env.evaluation.report.why import why_section
from portfolio_env.evaluation.summary import (
    LEGEND,
    leads,
    number_text,
    overall,
    sentence,
    text_table,
)
from portfolio_env.html import (
    Page,
    bullets,
    facts,
    folded,
    heading,
    paragraph,
    table,
    write_page,
)
from portfolio_env.metrics.arrays import is_constant
from portfolio_env.plotting.returns import correlations, distributions

OPEN = 4  # plots of weights that are not collapsed
LEFT_OUT = 20  # rows of the table of assets that were left out
SENTENCES = 6  # strategies whose sentences are not folded
SMALL = 12  # accounts with a small plot of their own


def write_report(
    folder: str | Path, comparison: Comparison, inputs: ReportInputs, *, quick: bool = False
) -> dict[str, Path]:
    """Write ``report.html`` and its figures.

    Args:
        folder: Receives the page and the PNG files.
        comparison: Result of ``compare``.
        inputs: The rest.
        quick: Leave out the pictures of single strategies, regimes and decay.

    Returns:
        The pictures by name.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    page = Page(Path(folder))
    drawn = plots.styles(
        list(comparison.unique), benchmark=comparison.benchmark, agents=inputs.agents
    )
    _verdict(page, comparison, inputs, drawn)
    holdings_section(page, comparison, inputs, drawn)
    why_section(page, comparison, inputs)
    _growth(page, comparison, drawn)
    _months(page, comparison, inputs)
    opened = len(page.sections)
    seeds_section(page, comparison, inputs)
    blocks_section(page, comparison, inputs)
    _average_weights(page, comparison)
    _risk(page, comparison, inputs, drawn)
    _rolling(page, comparison, drawn)
    if not quick:
        _bands(page, comparison, drawn)
        _weights(page, comparison, inputs)
        _returns(page, comparison, drawn)
        _tear_sheets(page, comparison, inputs, drawn)
    overfitting_section(page, comparison)
    if not quick:
        regimes_section(page, comparison, inputs)
    events_section(page, comparison, inputs)
    plausibility_section(page, comparison, inputs)
    if not quick:
        decay_section(page, comparison, inputs, drawn)
    _practice(page, comparison, inputs, drawn)
    _network(page, inputs)
    _details(page, comparison, inputs)
    for section in page.sections[opened:]:
        section.folded = True
    intro = [paragraph(overall(comparison), "verdict")]
    intro += [paragraph(warning, "fault") for warning in inputs.warnings]
    intro += [facts(inputs.head)] if inputs.head else []
    title = f"{inputs.market}, {inputs.title}" if inputs.market else inputs.title
    write_page(page.path / "report.html", title, intro, page.sections)
    return page.figures


def _verdict(
    page: Page, comparison: Comparison, inputs: ReportInputs, drawn: Mapping[str, plots.Style]
) -> None:
    colors = {name: style.color for name, style in drawn.items()}
    sentences = {str(name): sentence(comparison, str(name)) for name in comparison.table.index}
    first = [*(n for n in sentences if leads(comparison, n)), *inputs.agents, comparison.benchmark]
    shown = [name for name in dict.fromkeys([*first, *sentences]) if name in sentences][:SENTENCES]
    parts = [
        table(text_table(comparison).drop(columns="remark"), colors),
        folded("How to read the table", bullets(LEGEND)),
        bullets([sentences[name] for name in sentences if name in shown]),
    ]
    if rest := [text for name, text in sentences.items() if name not in shown]:
        parts.append(folded(f"The other {len(rest)} strategies", bullets(rest)))
    left_out = left_out_table(comparison.results)
    if len(left_out):
        rows = left_out.head(LEFT_OUT).set_index("asset")
        rows["strategies"] = rows["strategies"].map(", ".join)
        more = f"; {len(left_out) - LEFT_OUT} more in metrics.json" * (len(left_out) > LEFT_OUT)
        text = f"Assets that could be traded but were left out of decisions{more}."
        parts.append(folded("Left out", paragraph(text) + table(rows)))
    if inputs.gate:
        parts += [heading("The gate"), bullets(inputs.gate)]
    trials = f"Deflated Sharpe ratios allow for {comparison.trials} trials."
    parts.append(paragraph(" ".join([trials, *comparison.notes])))
    if len(comparison.solvent) > 1 and comparison.benchmark in comparison.solvent:
        text = (
            "Paired differences in yearly log growth and in the Sharpe ratio, with 95 % intervals: "
            "a full dot is of an interval that does not contain zero, taken alone. Growth can be "
            "bought with risk, a Sharpe ratio cannot."
        )
        figure = comparison_plots.differences(comparison, drawn)
        content = paragraph(text) + page.draw("differences", figure, text)
        few = len(comparison.unique) <= SMALL
        parts.append(content if few else folded("Differences to the benchmark", content))
    page.add("Verdict", *parts)


def _growth(page: Page, comparison: Comparison, drawn: Mapping[str, plots.Style]) -> None:
    text = "Value of every account after costs; oracles are left out, equal accounts drawn once."
    fallen = "The fraction lost since the highest value so far."
    page.add(
        "Growth and drawdowns",
        paragraph(text),
        page.draw("equity", plots.equity_curves(comparison.unique, drawn), text),
        page.draw("drawdown", plots.drawdown_curves(comparison.unique, drawn), fallen),
    )


def _months(page: Page, comparison: Comparison, inputs: ReportInputs) -> None:
    """Write months and deepest drawdowns of the first agent, or of the best that invested."""
    accounts = drawable(comparison)
    others = (
        name
        for name, result in accounts.items()
        if name != comparison.benchmark and not is_constant(result.returns)
    )
    name = next((n for n in (*inputs.agents, *others, *accounts) if n in accounts), None)
    if name is None:
        return
    text = f"Returns of {name} in every month, in %, after costs."
    parts = [paragraph(text), months_table(accounts[name])]
    listed = drawdown_texts(accounts[name])
    if len(listed):
        parts += [heading(f"Deepest drawdowns of {name}"), table(listed)]
    page.add("Months and drawdowns", *parts)


def _bands(page: Page, comparison: Comparison, drawn: Mapping[str, plots.Style]) -> None:
    solvent = dict(list(drawable(comparison).items())[:SMALL])
    if comparison.benchmark not in comparison.solvent:
        return
    solvent |= {comparison.benchmark: comparison.solvent[comparison.benchmark]}
    text = (
        f"Each account in its colour, and {comparison.benchmark.replace('_', ' ')} in grey. The "
        "band holds, at every point, 95 % of the values that resamples of the same periods give: "
        "what chance alone makes of such returns."
    )
    bands = growth_bands(
        {name: result.log_returns for name, result in solvent.items()},
        mean_block=comparison.mean_block,
    )
    figure = account_plots.growth_with_bands(solvent, bands, comparison.benchmark, drawn)
    page.add("Bands of chance", paragraph(text), page.draw("equity_bands", figure, text))


def _average_weights(page: Page, comparison: Comparison) -> None:
    text = "The mean of the weights right after trading, best strategy first, oracles last."
    figure = account_plots.average_weights(_own(comparison))
    page.add("Average weights", paragraph(text), page.draw("average_weights", figure, text))


def _own(comparison: Comparison) -> dict[str, BacktestResult]:
    """Return the accounts that traded; prices from outside hold no weights."""
    return {n: result for n, result in comparison.results.items() if not result.outside}


def _weights(page: Page, comparison: Comparison, inputs: ReportInputs) -> None:
    shown = list(dict.fromkeys([*inputs.agents, *comparison.unique]))[:OPEN]
    parts = []
    for name, result in _own(comparison).items():
        text = f"Weights of {name} right after trading, over time"
        # A PNG beside the account's own files.
        image = page.draw(f"{name}/weights", plots.weights_area(result, name), text)
        parts.append(image if name in shown else folded(name, image))
    page.add("Weights over time", *parts)


def _risk(
    page: Page, comparison: Comparison, inputs: ReportInputs, drawn: Mapping[str, plots.Style]
) -> None:
    solvent = drawable(comparison)
    if not solvent:
        return
    text = "Yearly mean simple return against yearly volatility; grey dots are the assets."
    if inputs.hindsight is not None:
        text += (
            " The efficient frontier and the capital market line are those of the assets' returns "
            "in this very range, long only, before costs: they were known to nobody then."
        )
    figure = comparison_plots.risk_return(solvent, drawn, inputs.bars, inputs.hindsight)
    page.add("Risk and return", paragraph(text), page.draw("risk_return", figure, text))


def _rolling(page: Page, comparison: Comparison, drawn: Mapping[str, plots.Style]) -> None:
    solvent = drawable(comparison)
    if not solvent:
        return
    first = next(iter(solvent.values()))
    window = min(round(first.periods_per_year), len(first.costs) // 4)
    if window > 1:
        text = f"Sharpe ratio and volatility of the last {window} periods, per year."
        figure = account_plots.rolling_measures(solvent, drawn, window)
        page.add("Rolling measures", paragraph(text), page.draw("rolling", figure, text))


def _returns(page: Page, comparison: Comparison, drawn: Mapping[str, plots.Style]) -> None:
    accounts = {n: r for n, r in drawable(comparison).items() if not is_constant(r.returns)}
    if len(accounts) < 2:
        return
    names, returns = list(accounts), np.column_stack([r.returns for r in accounts.values()])
    text = "Correlations of the accounts' returns."
    figure = correlations(names, correlation(returns))
    page.add("Correlation", paragraph(text), page.draw("correlation", figure, text))
    if find_spec("scipy") is not None:
        text = (
            "Histogram and density of the returns against the normal density; returns beyond 5 "
            "standard deviations are counted in the titles."
        )
        shown = names[:SMALL]
        colors = [drawn[name].distinct for name in shown]
        figure = distributions(shown, returns[:, :SMALL], colors)
        page.add("Distributions", paragraph(text), page.draw("distributions", figure, text))


def _tear_sheets(
    page: Page, comparison: Comparison, inputs: ReportInputs, drawn: Mapping[str, plots.Style]
) -> None:
    """Add the pages of the agents, the benchmark and the best others, folded."""
    accounts = drawable(comparison)
    first = [name for name in (*inputs.agents, comparison.benchmark) if name in accounts]
    benchmark = comparison.solvent.get(comparison.benchmark)
    parts = []
    for name in list(dict.fromkeys([*first, *accounts]))[:OPEN]:
        result = accounts[name]
        note = f"Tear sheet of {name}"
        other = None if name == comparison.benchmark else benchmark
        figure = tear_sheet(result, name, other, color=drawn[name].distinct)
        listed = drawdown_texts(result)
        content = page.draw(f"{name}/tear_sheet", figure, note)
        if len(listed):
            content += heading("Deepest drawdowns") + table(listed)
        parts.append(folded(name, content))
    if parts:
        text = (
            "One page per account, for the agents, the benchmark and the best others; grey is the "
            "benchmark. Months and years are those of the bars' timestamps, in UTC."
        )
        page.add("Tear sheets", paragraph(text), *parts)


def _practice(
    page: Page, comparison: Comparison, inputs: ReportInputs, drawn: Mapping[str, plots.Style]
) -> None:
    if inputs.growth_by_cost is not None:
        growth = inputs.growth_by_cost.loc[list(comparison.unique)]
        note = (
            "Log growth a year, in %, at other commissions (basis points, both sides); in "
            f"brackets less that of {comparison.benchmark.replace('_', ' ')} at the same one."
        )
        figure = comparison_plots.growth_by_cost(growth, drawn)
        shown = with_difference(growth, comparison.benchmark)
        shown.columns = [f"{commission:g} bp" for commission in growth.columns]
        page.add("Costs", paragraph(note), table(shown), page.draw("costs", figure, note))
    if inputs.stress is not None:
        note = (
            "The same strategies on the same bars, changed by a hypothetical shock; growth is the "
            "log growth over the whole range, in %."
        )
        parts = [
            part
            for title, texts in stress_texts(inputs.stress).items()
            for part in (paragraph(title), table(texts))
        ]
        page.add("Stress", paragraph(note), *parts)
    if inputs.implementation is not None:
        note = (
            "Latency is the time of one decision for one account, over all decisions of the "
            "backtest; baselines that rebalance once a month decide nothing between. Parameters "
            "are those of a network. A trade is the purchase or sale of one asset."
        )
        page.add(
            "In practice", paragraph(note), table(_implementation_texts(inputs.implementation))
        )


def _implementation_texts(figures: pd.DataFrame) -> pd.DataFrame:
    forms = {
        "latency_p50_ms": ("latency p50, ms", "{:.3f}"),
        "latency_p99_ms": ("latency p99, ms", "{:.3f}"),
        "parameter_bytes": ("parameters, bytes", "{:,.0f}"),
        "trades_per_year": ("trades a year", "{:,.0f}"),
        "cost_per_trade": ("cost per trade", "{:,.2f}"),
        "cost_bps": ("cost, bp of notional", "{:.1f}"),
    }
    return pd.DataFrame(
        {title: figures[name].map(number_text(form)) for name, (title, form) in forms.items()}
    )


def _network(page: Page, inputs: ReportInputs) -> None:
    parts = [
        heading(name) + paragraph(text) + page.draw(name.replace("/", "_"), figure, text)
        for name, (figure, text) in inputs.pictures.items()
    ]
    if parts:
        page.add("The agent's network", *parts)


def _details(page: Page, comparison: Comparison, inputs: ReportInputs) -> None:
    measures = comparison.table.drop(columns="remark").drop(index=list(comparison.failed)).T
    shown = measures.map(lambda value: "" if np.isnan(value) else f"{value:.4g}")
    shown.index = [str(name).replace("_", " ") for name in shown.index]
    sentences = [
        f"{name.replace('_', ' ')}: {_fact(value)}" for name, value in inputs.facts.items()
    ]
    page.add(
        "Details",
        folded("All measures", table(shown)),
        heading("How to repeat it"),
        bullets(sentences),
    )


def _fact(value: Any) -> str:
    """Return a fact as text; one of several parts, as those of folds, part by part."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {part}" for name, part in value.items())
    return str(value)
