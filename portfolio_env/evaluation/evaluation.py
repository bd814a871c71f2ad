"""A whole evaluation, from the task to the files, as run by ``evaluate.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import pandas as pd

from portfolio_env.checks import check_choice, check_integer
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.evaluation.comparison import (
    BENCHMARK,
    DIFFERENCES,
    Comparison,
    Judge,
    compare,
)
from portfolio_env.evaluation.diagnostics.outside import outside_account, read_outside
from portfolio_env.evaluation.gate import ValidationGate
from portfolio_env.evaluation.left_out import left_out_lines, left_out_table
from portfolio_env.evaluation.orders import check_account, orders_at_end
from portfolio_env.evaluation.printing import Format, print_evaluation
from portfolio_env.evaluation.report.inputs import ReportInputs, report_inputs
from portfolio_env.evaluation.report.report import write_report
from portfolio_env.evaluation.report.subperiods import seed_sentences
from portfolio_env.evaluation.runner import BacktestRuns, Strategy, agent_strategies, run_backtests
from portfolio_env.evaluation.summary import overall, text_table, universe_lines
from portfolio_env.evaluation.task import HELD_OUT, EvaluationTask, Hindsight
from portfolio_env.evaluation.usage_log import earlier_sharpes, log_usage, trials, usage_entry
from portfolio_env.evaluation.writing import write_comparison
from portfolio_env.files.atomic import locked
from portfolio_env.files.csv_files import write_csv
from portfolio_env.html import card
from portfolio_env.live.account import AccountOptions
from portfolio_env.market.panel import PricePanel
from portfolio_env.metrics import annual_log_growth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNSEEN = ("test", "after", HELD_OUT)
"""Ranges that nothing was learned from or chosen by, so that their uses are counted."""

Reference: TypeAlias = Literal["equal_weight", "benchmark"]


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Results of an evaluation.

    Attributes:
        task: Task that was evaluated.
        split: The range.
        runs: The backtests.
        comparison: Every strategy against the benchmark.
        inputs: Further inputs of the report.
    """

    task: EvaluationTask
    split: str
    runs: BacktestRuns
    comparison: Comparison
    inputs: ReportInputs

    def __repr__(self) -> str:
        return f"Evaluation({self.split}; {self.comparison!r})"

    def _repr_html_(self) -> str | None:
        lines = [overall(self.comparison), *self.comparison.notes, *self._lines()]
        title = f"Evaluation, {self.inputs.title}"
        return card(title, {}, text_table(self.comparison), lines)

    @property
    def folder(self) -> Path:
        """Return the folder where ``write_evaluation`` puts its files."""
        return self.task.folder / "evaluation" / self.task.place / self.split

    @property
    def report(self) -> Path:
        """Return the page that ``write_evaluation`` writes."""
        return self.folder / "report.html"

    @property
    def table(self) -> pd.DataFrame:
        """Return a row per strategy with every measure, see ``Comparison``."""
        return self.comparison.table

    @property
    def results(self) -> Mapping[str, BacktestResult]:
        """Return the backtest of every strategy by name."""
        return self.comparison.results

    @property
    def left_out(self) -> pd.DataFrame:
        """Return who was left out of decisions, when and why, see ``left_out_table``."""
        return left_out_table(self.comparison.results)

    @property
    def seeds(self) -> list[str]:
        """Return a sentence on every group of agents that differ by their seed alone."""
        return seed_sentences(self.comparison, self.inputs.seeds)

    def values(self) -> pd.DataFrame:
        """Return the value of every account, see ``Comparison.values``."""
        return self.comparison.values()

    def returns(self) -> pd.DataFrame:
        """Return the returns of every account, see ``Comparison.returns``."""
        return self.comparison.returns()

    def plot(self, names: Sequence[str] | None = None) -> Figure:
        """Plot the values of the accounts and their drawdowns; see ``Comparison.plot``."""
        return self.comparison.plot(names)

    def print(self, form: Format = "table") -> None:
        """Print table, verdict, caveats and the gate's decisions; see ``print_evaluation``."""
        print_evaluation(self.comparison, self.inputs, self.seeds, form)

    def _lines(self) -> list[str]:
        found = left_out_lines(self.comparison.results)
        first = [*self.inputs.warnings, *universe_lines(self.comparison)]
        return [*first, *self.inputs.gate, *self.seeds, *found]


def evaluate(
    task: EvaluationTask,
    baselines: Sequence[Strategy],
    split: str = "test",
    *,
    commissions: Sequence[float] = (),
    capital: float | None = None,
    holdings: Path | None = None,
    lot: float = 1.0,
    lots: Path | None = None,
    events: Path | None = None,
    benchmark: str | Path | None = None,
    reference: Reference = "equal_weight",
    judge: Judge = "growth",
    n_resamples: int = 2000,
    hindsight: Callable[[EvaluationTask, str], Hindsight | None] = lambda task, split: None,
    processes: int = 1,
    progress: Callable[[Sequence[Strategy]], Iterable[Strategy]] = iter,
) -> Evaluation:
    """Backtest a task's agents, each with the validation gate too, and baselines; compare them.

    A use of the test range is counted in the folder of a task that is ``logged``; nothing else is
    written. ``baselines.evaluate`` makes the task of a market and of strategies by name.

    Args:
        task: Market, folds, rules, and the trained agents.
        baselines: The baselines, the benchmark first (see ``baselines.strategies``).
        split: Range to evaluate: "train", "validation", "test"; "held_out", validation and test
            together, for baselines alone; or "after", what came after the data of a run. Uses of
            the last three are counted. There is no gate on the validation range, where it would
            evaluate its own criterion, nor without one.
        commissions: Further commissions of both sides to evaluate at, in basis points.
        capital: Capital for which ``orders_at_end`` are worked out: all cash, or the value of an
            account with ``holdings``; None and no holdings for no orders.
        holdings: CSV file of what is held, see ``live.read_holdings``.
        lot: Smallest number of units that can be bought with it; 0 for any fraction.
        lots: CSV file of lots by asset in its place, see ``live.read_instruments``.
        events: CSV file of events for an event study, see ``read_events``.
        benchmark: Prices from outside of the market as a further line: a file of one asset, or
            ``FILE:SYMBOL`` of several, see ``read_outside``.
        reference: The account that all differences are to: "equal_weight", or "benchmark" for these
            prices. The gate compares with equal weight either way.
        judge: Measure that the gate, the test of the best and the confidence set go by: "growth",
            "sharpe", or "equal_risk", growth at the volatility of the reference.
        n_resamples: Number of resamples of every bootstrap, at least 1.
        hindsight: Gives the efficient portfolios of the range for the report
            (``baselines.optimisers.frontier.hindsight_frontier``).
        processes: Processes for strategies that take long, see ``run_backtests``; 1 is this one.
        progress: Hands the strategies on one by one, e.g. ``rich.progress.track``.

    Raises:
        ArgumentError: If an option, also of a baseline, is out of range, or an event is about no
            asset of the market. No range is used then.
        DataError: If the file of events or the count of uses cannot be read, or the prices from
            outside do not cover the range.
        PortfolioError: If an agent or the benchmark cannot run.
    """
    check_integer("n_resamples", n_resamples)
    check_integer("processes", processes)
    check_choice("judge", judge, DIFFERENCES)
    check_choice("reference", reference, (BENCHMARK, "benchmark"))
    if reference != BENCHMARK and benchmark is None:
        raise ArgumentError("reference='benchmark' needs the prices of one: give benchmark=FILE.")
    outside = None if benchmark is None else read_outside(benchmark)
    account = AccountOptions(holdings, capital, lot, lots)
    check_account(task, split, account)
    given = task.events(events)
    agents = agent_strategies(task)
    if split == HELD_OUT and agents:
        raise ArgumentError(
            f"split='held_out' is the validation range too, by which {agents[0].name} was chosen: "
            "judge agents on 'test', or baselines alone (evaluate.py --no-agent)."
        )
    has_gate = split != "validation" and all("validation" in fold.ranges for fold in task.folds)
    gated = agents if has_gate else []
    gates = [ValidationGate(agent, fallback=baselines[0], judge=judge) for agent in gated]
    strategies = [*agents, *(gate.strategy for gate in gates), *baselines]
    if outside is not None and outside.assets[0] in [each.name for each in strategies]:
        raise ArgumentError(
            f"benchmark={benchmark!s} has the name of a strategy, {outside.assets[0]!r}: call its "
            "column something else."
        )
    for strategy in strategies:  # before the range is used
        for fold in task.folds:
            strategy.check(fold)
    runs = run_backtests(
        strategies, task, split, commissions=commissions, processes=processes, progress=progress
    )
    use = usage_entry(task, split, trials(task, runs))
    followed = None if outside is None else _follow(runs, outside, commissions)
    earlier = log_usage(task.folder, use) if split in UNSEEN and task.logged else []
    comparison = compare(
        runs.results,
        BENCHMARK if reference == BENCHMARK or followed is None else followed,
        oracles=runs.oracles,
        failed=runs.failed,
        earlier_sharpes=earlier_sharpes(earlier, use.trials),
        judge=judge,
        panel=task.whole.market.panel,
        n_resamples=n_resamples,
    )
    inputs = report_inputs(
        task,
        split,
        runs,
        comparison,
        use,
        earlier,
        gates,
        events=given,
        capital=capital,
        orders=orders_at_end(
            task,
            split,
            (each for each in strategies if each.name in comparison.solvent),
            runs.policies,
            account,
        ),
        hindsight=hindsight(task, split),
    )
    return Evaluation(task, split, runs, comparison, inputs)


def _follow(runs: BacktestRuns, outside: PricePanel, commissions: Sequence[float]) -> str:
    """Add the account of prices from outside, over the bars of the longest; return its name."""
    longest = max(runs.results.values(), key=lambda each: len(each.costs))
    account = outside_account(outside, longest)
    runs.results[account.outside] = account
    growth = float(annual_log_growth(account.values, account.periods_per_year))
    runs.growth_by_cost[account.outside] = dict.fromkeys(commissions, growth)
    return account.outside


def write_evaluation(
    evaluation: Evaluation, records: Literal["csv", "parquet"] = "csv", *, quick: bool = False
) -> dict[str, Path]:
    """Write tables, accounts and the report into the folder of an evaluation.

    Args:
        evaluation: Result of ``evaluate``.
        records: Format of the accounts.
        quick: Leave out the pictures of single strategies, regimes and decay.

    Returns:
        The pictures by name.

    Raises:
        PortfolioError: If matplotlib or, for Parquet, pyarrow is not installed.
    """
    folder, inputs = evaluation.folder, evaluation.inputs
    left_out = evaluation.left_out.to_dict(orient="records")
    facts = {**inputs.facts, "gate": inputs.gate, "seeds": evaluation.seeds, "left_out": left_out}
    with locked(folder.with_name(f".{folder.name}.lock")):  # two would mix their files
        write_comparison(folder, evaluation.comparison, facts, records)
        if inputs.stress is not None:
            write_csv(folder / "stress.csv", inputs.stress)
        if inputs.orders:
            tables = {name: orders.table() for name, orders in inputs.orders.items()}
            write_csv(folder / "orders.csv", pd.concat(tables, names=["strategy", "asset"]))
        return write_report(folder, evaluation.comparison, inputs, quick=quick)
