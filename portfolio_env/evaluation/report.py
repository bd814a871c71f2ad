"""The report of an evaluation: one HTML page that needs no other file, and its pictures as PNG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from portfolio_env.data.reports import exploration_plots
from portfolio_env.data.reports.page import (
    Page,
    bullets,
    folded,
    heading,
    paragraph,
    table,
    write_page,
)
from portfolio_env.evaluation import account_plots, comparison_plots, plots
from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.evaluation.bands import growth_bands
from portfolio_env.evaluation.comparison import Comparison
from portfolio_env.evaluation.verdict import LEGEND, overall, sentence, text_table
from portfolio_env.panel import PricePanel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPEN = 4  # pictures of weights that are not folded away
SMALL = 12  # accounts with a small picture of their own


@dataclass
class Material:
    """What a report is made of, beside the comparison.

    Attributes:
        title: Of the page.
        bars: The bars of the evaluated range.
        agents: Names of trained agents.
        warnings: What a reader must know before the table, e.g. that a test range was used twice.
        gate: What the gate decided, a sentence per agent.
        practical: What ``practical_figures`` returned.
        growth_by_cost: One row per strategy, one column per commission; None without.
        orders: What ``allocate`` returned, by strategy.
        capital: That was allocated.
        frontier: (P, 2) yearly volatility and mean return of efficient portfolios; None without.
        pictures: Further figures by name, with what they show.
        facts: How to repeat the evaluation, by name.
    """

    title: str
    bars: PricePanel
    agents: Sequence[str] = ()
    warnings: Sequence[str] = ()
    gate: Sequence[str] = ()
    practical: pd.DataFrame | None = None
    growth_by_cost: pd.DataFrame | None = None
    orders: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    capital: float = 0.0
    frontier: NDArray[np.float64] | None = None
    pictures: Mapping[str, tuple[Figure, str]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def write_report(folder: str | Path, comparison: Comparison, material: Material) -> dict[str, Path]:
    """Write ``report.html`` and its pictures.

    Args:
        folder: Receives the page and the PNG files.
        comparison: What ``compare`` returned.
        material: The rest.

    Returns:
        The pictures by name.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    page = Page(Path(folder))
    drawn = plots.styles(
        list(comparison.distinct), reference=comparison.reference, agents=material.agents
    )
    _verdict(page, comparison, material)
    _growth(page, comparison, drawn)
    _weights(page, comparison, material)
    _risk(page, comparison, material, drawn)
    _returns(page, comparison)
    _practice(page, comparison, material, drawn)
    _network(page, material)
    _details(page, comparison, material)
    intro = [paragraph(overall(comparison))]
    intro += [paragraph(warning, "fault") for warning in material.warnings]
    write_page(page.path / "report.html", material.title, intro, page.sections)
    return page.figures


def _drawable(comparison: Comparison) -> dict[str, BacktestResult]:
    """Accounts that reached the end, each once."""
    complete = comparison.complete
    return {name: result for name, result in comparison.distinct.items() if name in complete}


def _verdict(page: Page, comparison: Comparison, material: Material) -> None:
    parts = [
        table(text_table(comparison).drop(columns="remark")),
        folded("How to read the table", bullets(LEGEND)),
    ]
    parts.append(bullets([sentence(comparison, str(name)) for name in comparison.table.index]))
    if material.gate:
        parts += [heading("The gate"), bullets(material.gate)]
    trials = f"Deflated Sharpe ratios allow for {comparison.trials} trials."
    parts.append(paragraph(" ".join([trials, *comparison.notes])))
    page.add("Verdict", *parts)
    if len(comparison.complete) > 1 and comparison.reference in comparison.complete:
        text = (
            "The paired difference in yearly log growth and its 95 % interval: green ones are "
            "above zero taken alone, red ones below."
        )
        figure = comparison_plots.growth_differences(comparison)
        page.add("Differences", paragraph(text), page.draw("differences", figure, text))


def _growth(page: Page, comparison: Comparison, drawn: Mapping[str, plots.Style]) -> None:
    text = "Value of every account after costs; oracles are left out, equal accounts drawn once."
    parts = [
        paragraph(text),
        page.draw("equity", plots.equity_curves(comparison.distinct, drawn), text),
    ]
    complete = dict(list(_drawable(comparison).items())[:SMALL])
    if comparison.reference in comparison.complete:
        complete |= {comparison.reference: comparison.complete[comparison.reference]}
        text = (
            f"Each account (blue) and {comparison.reference.replace('_', ' ')} (grey). The band "
            "holds, at every point, 95 % of the values that resamples of the same periods give: "
            "what chance alone makes of such returns."
        )
        bands = growth_bands(
            {name: result.log_returns for name, result in complete.items()},
            mean_block=comparison.mean_block,
        )
        figure = account_plots.growth_with_bands(complete, bands, comparison.reference)
        parts += [paragraph(text), page.draw("equity_bands", figure, text)]
    page.add("Growth", *parts)
    text = "The fraction lost since the highest value so far."
    figure = plots.drawdown_curves(comparison.distinct, drawn)
    page.add("Drawdowns", paragraph(text), page.draw("drawdown", figure, text))


def _weights(page: Page, comparison: Comparison, material: Material) -> None:
    text = "The mean of the weights right after trading, best strategy first, oracles last."
    figure = account_plots.average_weights(comparison.results)
    parts = [paragraph(text), page.draw("average_weights", figure, text)]
    shown = list(dict.fromkeys([*material.agents, *comparison.distinct]))[:OPEN]
    for name, result in comparison.results.items():
        text = f"Weights of {name} right after trading, over time"
        # A PNG beside the account's own files.
        image = page.draw(f"{name}/weights", plots.weights_area(result, name), text)
        parts.append(image if name in shown else folded(name, image))
    page.add("Weights", *parts)


def _risk(
    page: Page, comparison: Comparison, material: Material, drawn: Mapping[str, plots.Style]
) -> None:
    complete = _drawable(comparison)
    if not complete:
        return
    text = "Yearly mean simple return against yearly volatility; grey dots are the assets."
    if material.frontier is not None:
        text += (
            " The efficient frontier is that of the assets' returns in this very range, long only: "
            "it was known to nobody then."
        )
    figure = comparison_plots.risk_return(complete, drawn, material.bars, material.frontier)
    page.add("Risk and return", paragraph(text), page.draw("risk_return", figure, text))
    first = next(iter(complete.values()))
    window = min(round(first.periods_per_year), len(first.costs) // 4)
    if window > 1:
        text = f"Sharpe ratio and volatility of the last {window} periods, per year."
        figure = account_plots.rolling_measures(complete, drawn, window)
        page.add("Rolling measures", paragraph(text), page.draw("rolling", figure, text))


def _returns(page: Page, comparison: Comparison) -> None:
    """Correlation and distributions: the accounts are drawn like the prices of assets."""
    accounts = {n: r for n, r in _drawable(comparison).items() if np.ptp(r.returns) > 0}
    if len(accounts) < 2:
        return
    panel = _panel(accounts)
    text = "Correlations of the accounts' returns."
    figure = exploration_plots.correlations(panel)
    page.add("Correlation", paragraph(text), page.draw("correlation", figure, text))
    if find_spec("scipy") is not None:
        text = (
            "Histogram and density of the returns against the normal density; returns beyond 5 "
            "standard deviations are counted in the titles."
        )
        few = panel.subset(columns=range(min(SMALL, len(accounts))))
        figure = exploration_plots.distributions(few)
        page.add("Distributions", paragraph(text), page.draw("distributions", figure, text))


def _panel(accounts: Mapping[str, Any]) -> PricePanel:
    first = next(iter(accounts.values()))
    return PricePanel(
        timestamps=first.timestamps,
        assets=tuple(accounts),
        close=np.column_stack([result.values for result in accounts.values()]),
        periods_per_year=first.periods_per_year,
    )


def _practice(
    page: Page, comparison: Comparison, material: Material, drawn: Mapping[str, plots.Style]
) -> None:
    if material.growth_by_cost is not None:
        growth = material.growth_by_cost.loc[list(comparison.distinct)]
        text = (
            "Log growth a year, in %, at other commissions (basis points, both sides); in "
            f"brackets less that of {comparison.reference.replace('_', ' ')} at the same one."
        )
        figure = comparison_plots.growth_by_cost(growth, drawn)
        ahead = growth - growth.loc[comparison.reference]
        shown = (100 * growth).map("{:+.1f} ".format) + (100 * ahead).map("[{:+.1f}]".format)
        shown.columns = [f"{commission:g} bp" for commission in growth.columns]
        page.add("Costs", paragraph(text), table(shown), page.draw("costs", figure, text))
    if material.practical is not None:
        note = (
            "Latency is the time of one decision for one account, over all decisions of the "
            "backtest; baselines that rebalance once a month decide nothing between. Parameters "
            "are those of a network. A trade is the purchase or sale of one asset."
        )
        page.add("In practice", paragraph(note), table(_practical_texts(material.practical)))
    if material.orders:
        _allocation(page, material)


def _practical_texts(figures: pd.DataFrame) -> pd.DataFrame:
    forms = {
        "latency_p50_ms": ("latency p50, ms", "{:.3f}"),
        "latency_p99_ms": ("latency p99, ms", "{:.3f}"),
        "parameter_bytes": ("parameters, bytes", "{:,.0f}"),
        "trades_per_year": ("trades a year", "{:,.0f}"),
        "cost_per_trade": ("cost per trade", "{:,.2f}"),
        "cost_bps": ("cost, bp of notional", "{:.1f}"),
    }
    return pd.DataFrame(
        {title: figures[name].map(_text(form)) for name, (title, form) in forms.items()}
    )


def _text(form: str) -> Callable[[float], str]:
    """How a number of a table is written: nothing for none, and no zero with a sign."""
    return lambda value: "" if np.isnan(value) else form.format(round(value, 9) + 0.0)


def _allocation(page: Page, material: Material) -> None:
    when = str(material.bars.timestamps[-1].astype("datetime64[D]"))
    parts = [
        paragraph(
            f"What {material.capital:,.0f} buys at the closes of {when} to hold what each account "
            "holds then, after the costs of buying it; prices as in the data."
        )
    ]
    for place, (name, orders) in enumerate(material.orders.items()):
        held = orders[(orders["invested"] != 0) | orders.index.isin(["costs", "cash"])]
        forms = {"weight": "{:.4f}", "amount": "{:,.2f}", "price": "{:,.6g}", "units": "{:,.6g}"}
        forms["invested"] = "{:,.2f}"
        texts = {column: held[column].map(_text(form)) for column, form in forms.items()}
        content = table(pd.DataFrame(texts))
        if (orders["invested"].drop(["costs", "cash"]) >= 0).all():
            figure = account_plots.allocation_donut(orders, material.capital, name)
            text = f"Allocation of {material.capital:,.0f} by {name}"
            content = page.draw(f"{name}/allocation", figure, text) + content
        parts.append(heading(name) + content if place == 0 else folded(name, content))
    page.add("Allocation", *parts)


def _network(page: Page, material: Material) -> None:
    parts = [
        heading(name) + paragraph(text) + page.draw(name.replace("/", "_"), figure, text)
        for name, (figure, text) in material.pictures.items()
    ]
    if parts:
        page.add("The agent's network", *parts)


def _details(page: Page, comparison: Comparison, material: Material) -> None:
    measures = comparison.table.drop(columns="remark").drop(index=list(comparison.failed)).T
    shown = measures.map(lambda value: "" if np.isnan(value) else f"{value:.4g}")
    shown.index = [str(name).replace("_", " ") for name in shown.index]
    facts = [f"{name.replace('_', ' ')}: {value}" for name, value in material.facts.items()]
    page.add(
        "Details", folded("All measures", table(shown)), heading("How to repeat it"), bullets(facts)
    )
