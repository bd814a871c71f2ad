"""Evaluate a trained agent against baselines, out of sample and in the same environment.

RUN may be the folder of a walk forward: every fold is evaluated on its own test, with baselines
fitted anew to its training range, and the tests are joined to one account each.

python evaluate.py RUN --baselines all
python evaluate.py --no-agent --market sp500 --baselines all --commissions 0,10,25
"""

import sys
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import track

from agents.settings.files import file_of, read_settings, settings_of
from agents.training.cards import write_card
from agents.training.run_folder import evaluating
from agents.training.run_records import is_run
from agents.training.tasks import MarketConfig, log_figures, open_task
from baselines.optimisers.frontier import hindsight_frontier
from baselines.strategies import baseline_strategies, trials
from portfolio_env import evaluation
from portfolio_env.command_line import exit_status, find_own_modules
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import Comparison
from portfolio_env.files.atomic import locked
from portfolio_env.names import check_keywords


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of an evaluation."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of a run or of a walk forward; market, costs and constraints are its own."""
    agent: bool = True
    """Include the trained agent; --no-agent evaluates the baselines alone."""
    baselines: str = "equal_weight,buy_and_hold"
    """Comma-separated baselines, or all; equal_weight is always among them."""
    split: Literal["train", "validation", "test"] = "test"
    """Range of the data to evaluate on."""
    model: Literal["final", "best"] = "final"
    """The model at the end of the training, or the best one by validation."""
    commissions: str = ""
    """Further commissions in basis points to judge at, e.g. 0,10,25."""
    capital: float | None = None
    """Capital; the report lists the orders that reach each strategy's weights at the last bar."""
    lot: float = 1.0
    """Smallest number of units that can be bought with it; 0 for any fraction."""
    events: Path | None = None
    """CSV file of events (columns date and type, perhaps symbol) for an event study."""
    records: Literal["csv", "parquet"] = "csv"
    """Format of the accounts: weights, trades, costs and values of every step."""
    resamples: int = 2000
    """Number of resamples of every bootstrap."""
    device: str = "auto"
    """Torch device of the agent."""
    out: Path | None = None
    """Folder of an evaluation without a run; default runs/MARKET__baselines."""
    file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """YAML or JSON file of settings; what is given here as well counts."""
    task: Annotated[MarketConfig, tyro.conf.arg(name="")] = field(default_factory=MarketConfig)
    """What is traded where there is no run."""


def evaluate(config: EvaluateConfig) -> Comparison:
    """Run everything, write everything, print the verdict; a run is kept from being removed."""
    with evaluating(config.run) if config.run and is_run(config.run) else nullcontext():
        return _evaluate(config)


def _evaluate(config: EvaluateConfig) -> Comparison:
    split = config.split
    where = (config.run, config.task, config.out, split)
    task = open_task(*where, model=config.model, device=config.device, agent=config.agent)
    commissions = evaluation.commissions_of(config.commissions)
    if config.resamples < 1:
        raise ArgumentError(f"resamples is {config.resamples}; it must be at least 1")
    evaluation.check_capital(task, config.capital, config.lot)
    events = task.events(config.events)
    agents, baselines = evaluation.agent_strategies(task), baseline_strategies(config.baselines)
    gated = agents if split != "validation" else []  # no gate is judged where it decides
    gates = [evaluation.ValidationGate(agent, fallback=baselines[0]) for agent in gated]
    strategies = [*agents, *(gate.strategy for gate in gates), *baselines]
    shown = track(strategies, "backtests", console=Console(stderr=True), transient=True)
    runs = evaluation.run_backtests(shown, task, split, commissions=commissions)
    look = evaluation.look_at(task, split, trials(task, runs))
    earlier = evaluation.record_look(task.folder, look) if split == "test" else []
    sharpes = evaluation.earlier_sharpes(earlier, look.trials)
    comparison = evaluation.compare(
        runs.results, oracles=runs.oracles, failed=runs.failed, earlier_sharpes=sharpes,
        resamples=config.resamples,
    )  # fmt: skip
    orders = evaluation.orders_at_end(task, split, comparison.complete, config.capital, config.lot)
    inputs = evaluation.report_inputs(
        task, split, runs, comparison, look, earlier, gates, events=events, capital=config.capital,
        orders=orders, hindsight=hindsight_frontier(task.whole, split),
    )  # fmt: skip
    seeds = evaluation.seed_sentences(comparison, inputs.seeds)
    facts = {**inputs.facts, "gate": inputs.gate, "seeds": seeds}
    folder = task.folder / "evaluation" / split
    with locked(folder.with_name(f".{split}.lock")):  # two would mix their files
        evaluation.write_comparison(folder, comparison, facts, config.records)
        log_figures(task.folder, split, evaluation.write_report(folder, comparison, inputs))
        if is_run(task.folder):
            write_card(task.folder)  # it states how often the test range was used
    evaluation.print_summary(comparison, inputs.title, [*inputs.gate, *seeds, *inputs.warnings])
    print(f"Report: {folder / 'report.html'}")
    return comparison


def _defaults(file: Path) -> EvaluateConfig:
    """The settings of a file: those of the evaluation and of its market side by side."""
    given = read_settings(file)
    own = [field.name for field in fields(EvaluateConfig) if field.name not in ("task", "file")]
    of_market = [field.name for field in fields(MarketConfig)]
    check_keywords(str(file), "setting", given, [*own, *of_market])
    task = {name: value for name, value in given.items() if name in of_market}
    rest = {name: value for name, value in given.items() if name in own}
    return settings_of(EvaluateConfig, {**rest, "task": task}, file)


def main() -> int:
    """Read the command line, evaluate, print and write; returns the exit status."""
    find_own_modules()

    def work() -> None:
        file = file_of(sys.argv[1:])
        default = tyro.MISSING_NONPROP if file is None else _defaults(file)
        evaluate(tyro.cli(EvaluateConfig, description=__doc__, default=default))

    return exit_status(work, stopped="stopped; what was written before is whole")


if __name__ == "__main__":
    sys.exit(main())
