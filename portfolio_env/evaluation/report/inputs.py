"""Inputs of the report beside the comparison, and helpers shared by its sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.evaluation.comparison import Comparison
from portfolio_env.evaluation.diagnostics.implementation import implementation_metrics
from portfolio_env.evaluation.gate import ValidationGate
from portfolio_env.evaluation.report.head import head_facts, market_name
from portfolio_env.evaluation.runner import BacktestRuns
from portfolio_env.evaluation.summary import caveats, gate_sentences, number_text
from portfolio_env.evaluation.task import EvaluationTask, Hindsight
from portfolio_env.evaluation.usage_log import UsageEntry
from portfolio_env.live.orders import Orders
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.timeline import Windows, as_timestamp
from portfolio_env.simulation.cost_models import Costs
from portfolio_env.simulation.costs import TransactionCosts

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class ReportInputs:
    """Inputs of a report beside the comparison.

    Attributes:
        title: Title of the page.
        panel: The bars of the market, from before the evaluated range to its end.
        rows: The evaluated range in it, half-open.
        train: The range that was learned from first; None where there is none.
        agents: Names of trained agents.
        seeds: Names of strategies that differ by their seed alone, by what they have in common.
        folds: First and last moment of each fold of a walk forward by name; empty without.
        warnings: Caveats above the table, e.g. that a test range was used twice.
        gate: Decisions of the gate, a sentence per agent and fold.
        implementation: Result of ``implementation_metrics``.
        growth_by_cost: One row per strategy, one column per commission; None without.
        stress: Result of ``stress_strategies``; None without.
        orders: Orders at the last bar by strategy; empty without an account.
        capital: Capital of that account, which market impact depends on; None without.
        costs: Trading costs of the backtests.
        execution: When their trades were filled.
        events: Result of ``read_events``; None without.
        hindsight: The efficient portfolios of the range; None without.
        pictures: Further figures by name, with what they show.
        facts: Facts needed to repeat the evaluation, by name.
        market: Name of the market.
        head: Facts before the verdict by name, see ``head_facts``.
    """

    title: str
    panel: PricePanel
    rows: tuple[int, int]
    train: tuple[int, int] | None = None
    agents: Sequence[str] = ()
    seeds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    folds: Windows = field(default_factory=dict)
    warnings: Sequence[str] = ()
    gate: Sequence[str] = ()
    implementation: pd.DataFrame | None = None
    growth_by_cost: pd.DataFrame | None = None
    stress: pd.DataFrame | None = None
    orders: Mapping[str, Orders] = field(default_factory=dict)
    capital: float | None = None
    costs: Costs = field(default_factory=TransactionCosts)
    execution: Literal["close", "next_open"] = "close"
    events: pd.DataFrame | None = None
    hindsight: Hindsight | None = None
    pictures: Mapping[str, tuple[Figure, str]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    market: str = ""
    head: Mapping[str, str] = field(default_factory=dict)

    @property
    def bars(self) -> PricePanel:
        """Return the bars of the evaluated range."""
        return self.panel.subset(slice(*self.rows))


def report_inputs(
    task: EvaluationTask,
    split: str,
    runs: BacktestRuns,
    comparison: Comparison,
    use: UsageEntry,
    earlier: Sequence[UsageEntry],
    gates: Sequence[ValidationGate] = (),
    **further: Any,
) -> ReportInputs:
    """Return the inputs that follow from an evaluation.

    Args:
        task: Market, folds and rules.
        split: The evaluated range.
        runs: Result of ``run_backtests``.
        comparison: Result of ``compare``.
        use: The present use of the range.
        earlier: Earlier uses of the test range.
        gates: The validation gates of the agents.
        **further: Other fields of ``ReportInputs``: orders and capital, events, hindsight.
    """
    whole, last, windows = task.whole, task.folds[-1], task.windows
    rows = whole.rows(split)
    title = f"{split}: {use.first} to {use.last}"
    title += f" in {len(windows)} fold{'s' * (len(windows) > 1)}" if windows else ""
    title += ", per year, after costs"
    title += f" (evaluation {len(earlier) + 1} on this range)" if earlier else ""
    figures: dict[str, tuple[Figure, str]] = {}
    for name, agent in list(last.agents.items())[:1]:
        of = f" Of {name} in the last fold." if windows else ""
        drawn = agent.figures(last.rows(split))
        figures = {key: (figure, text + of) for key, (figure, text) in drawn.items()}
    return ReportInputs(
        title=title,
        panel=whole.market.panel.subset(slice(rows[1])),
        rows=rows,
        train=whole.ranges["train"],
        agents=task.agents,
        seeds=task.seeds if split != "validation" else {},
        folds=windows,
        warnings=caveats(task, split, use, earlier),
        gate=gate_sentences(task, gates),
        implementation=implementation_metrics(
            comparison.results,
            runs.seconds,
            {name: agent.parameter_bytes for name, agent in last.agents.items()},
        ),
        growth_by_cost=runs.cost_table(),
        costs=task.costs,
        execution=whole.options["execution"],
        pictures=figures,
        facts={
            "split": split,
            **({"folds": window_texts(windows)} if windows else {}),
            "model": use.model,
            "first_decision": use.first,
            "last_bar": use.last,
            "steps": len(comparison.results[comparison.benchmark].costs),
            "periods_per_year": comparison.results[comparison.benchmark].periods_per_year,
            "market_hash": whole.market.hash,
            "uses_before": len(earlier),
            "command": use.command,
        },
        market=market_name(task),
        head=head_facts(task, split),
        **further,
    )


def window_texts(windows: Windows) -> dict[str, str]:
    """Return the first and last day of each window as text."""
    return {
        name: " to ".join(str(as_timestamp(moment).astype("datetime64[D]")) for moment in ends)
        for name, ends in windows.items()
    }


def drawable(comparison: Comparison) -> dict[str, BacktestResult]:
    """Return the accounts that were not ruined, without duplicates, best first."""
    solvent = comparison.solvent
    return {name: result for name, result in comparison.unique.items() if name in solvent}


def with_difference(growth: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """Return growth in % as text, in brackets less that of the benchmark in the same column."""
    ahead = growth - growth.loc[benchmark]
    own = (100 * growth).map(number_text("{:+.1f}"))
    return own + (100 * ahead).map(number_text(" [{:+.1f}]"))


def order_texts(orders: Orders) -> pd.DataFrame:
    """Return orders as a table of texts; assets neither held, wanted nor traded are left out."""
    table = orders.table()
    idle = table[["held_units", "target_weight", "order_units"]].eq(0).all(axis=1)
    shown = table[~idle | (table.index == "cash") | table["reason"].ne("")]
    forms = {
        "held_weight": ("held %", "{:.1f}", 100),
        "target_weight": ("target %", "{:.1f}", 100),
        "price": ("price", "{:,.6g}", 1),
        "order_units": ("order", "{:,.6g}", 1),
        "order_money": ("money", "{:,.2f}", 1),
    }
    texts = {
        title: (scale * shown[name]).map(number_text(form))
        for name, (title, form, scale) in forms.items()
    }
    return pd.DataFrame({**texts, "reason": shown["reason"]})
