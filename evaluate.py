"""Evaluate a trained agent against baselines, in the same environment.

RUN is the folder of a run or of a walk forward, whose folds are then joined.

python evaluate.py RUN --baselines all

python evaluate.py --no-agent --market sp500 --baselines all --commissions 0,25

python evaluate.py --no-agent --market sp500 --baselines all --quick
"""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # no traceback of an import

try:
    import tyro
except ModuleNotFoundError:
    sys.exit("error: the command line needs the extra rl; pip install -e '.[rl]'")

from agents.settings.files import file_of, read_settings, settings_of
from agents.settings.market import MarketConfig, refuse_no_run
from portfolio_env import evaluation
from portfolio_env.checks import check_integer
from portfolio_env.command_line import exit_status, find_own_modules, read_arguments
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import Comparison, Strategy
from portfolio_env.files.atomic import is_writable
from portfolio_env.machine import cores

QUICK_RESAMPLES = 250


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of an evaluation."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of a run or of a walk forward, which sets market, costs and constraints; without one
    the baselines alone are evaluated, on --market. A run beside --market is judged on that."""
    agent: bool = True
    """Include the trained agent; --no-agent evaluates the baselines alone."""
    baselines: str = "equal_weight,buy_and_hold"
    """Comma-separated baselines, or all; equal_weight is always among them. Options stand in
    brackets: "momentum(lookback=120),hrp"."""
    newer: Annotated[Path | None, tyro.conf.arg(name="data")] = None
    """Newer data of the run's market, a file or a folder: the run is judged on what came after its
    own data."""
    split: Literal["train", "validation", "test", "held_out", "after"] | None = None
    """Range of the data to evaluate on: test by default, after with newer data; held_out is the
    validation and the test range together, for baselines alone."""
    model: Literal["final", "best"] = "final"
    """The model at the end of the training, or the best one by validation."""
    stress: str = ""
    """Comma-separated scenarios in which to backtest all strategies again: crash, volatility,
    correlation, liquidity, outage, gap (with execution next_open), fills, delay. Options stand in
    brackets: "crash(size=0.3),delay(bars=2)"."""
    commissions: str = ""
    """Further commissions in basis points to evaluate at, e.g. 0,10,25."""
    capital: float | None = None
    """Capital for which to list the orders of what each strategy decides at the last bar."""
    holdings: Path | None = None
    """CSV file of what is held, for these orders: columns asset and units, and a row cash."""
    lot: float = 1.0
    """Smallest number of units that can be traded, for these orders; 0 for any fraction."""
    lots: Path | None = None
    """CSV file of lots by asset in its place: columns asset and any of lot, tick, min_notional,
    fee_bps."""
    events: Path | None = None
    """CSV file of events (columns date and type, perhaps symbol) for an event study."""
    benchmark: str | None = None
    """Prices from outside of the market as a further line, e.g. of an index fund: a file of one
    asset, or FILE:SYMBOL of several."""
    reference: Literal["equal_weight", "benchmark"] = "equal_weight"
    """What all differences are to: equal weight, or the prices of --benchmark."""
    judge: Literal["growth", "sharpe", "equal_risk"] = "growth"
    """What the gate and the test of the best strategy go by: log growth, the Sharpe ratio, or
    growth at the volatility of equal weight."""
    records: Literal["csv", "parquet"] = "csv"
    """Format of the accounts: weights, trades, costs and values of every step."""
    format: Literal["table", "markdown", "json", "csv"] = "table"
    """What is printed: a table that fits the terminal, Markdown, or the numbers alone."""
    n_resamples: Annotated[int, tyro.conf.arg(aliases=["--resamples"])] = 2000
    """Number of resamples of every bootstrap."""
    processes: int = 0
    """Processes for the baselines that train networks; 0 is one for each core, up to 4. Results are
    the same for any."""
    quick: bool = False
    """Leave out what takes long: baselines with networks and other slow ones, most resamples,
    pictures of single strategies, regimes, decay, TensorBoard. The output says so."""
    device: str = "auto"
    """Torch device of the agent."""
    out: Path | None = None
    """Folder of an evaluation without a run; default runs/MARKET__baselines."""
    file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """YAML or JSON file of settings; the command line has priority."""
    task: Annotated[MarketConfig, tyro.conf.arg(name="")] = field(default_factory=MarketConfig)
    """Market of an evaluation without a run, or another for a run."""


def evaluate(config: EvaluateConfig) -> Comparison:
    """Run an evaluation, write its files, print the verdict; a run is locked against removal."""
    processes = check_integer("processes", config.processes, 0) or min(cores(), 4)
    refuse_no_run(config.run)
    # Not at the top: a wrong path or option is told without waiting for torch.
    from rich.console import Console

    from agents.training.cards import write_card
    from agents.training.run_folder import evaluating
    from agents.training.run_records import is_run
    from agents.training.tasks import bind_policy, log_figures, open_task
    from baselines.optimisers.frontier import hindsight_frontier
    from baselines.specs import spec_of, split_specs
    from baselines.strategies import baseline_strategies, without_slow

    if config.run is not None and not is_writable(config.run):
        raise ArgumentError(
            f"{config.run} is read-only, and an evaluation counts the use of the test range there: "
            "copy the folder to a place with rights, and evaluate the copy."
        )
    specs = [spec_of(each, "scenario") for each in split_specs(config.stress) if each]
    scenarios = {each.label(each.name): evaluation.scenario_of(*each) for each in specs}
    split = config.split or ("test" if config.newer is None else "after")
    console = Console(stderr=True)
    with evaluating(config.run):
        where = (config.run, config.task, config.out, split)
        how = {"model": config.model, "device": config.device, "agent": config.agent}
        task = open_task(*where, **how, data=config.newer)
        baselines, n_resamples = baseline_strategies(config.baselines), config.n_resamples
        if config.quick:
            n_resamples = min(n_resamples, QUICK_RESAMPLES)
            baselines, slow = without_slow(baselines)
            task = replace(task, warnings=[*task.warnings, _quick_text(n_resamples, slow)])
        with console.status("backtests") as status:

            def counted(strategies: Sequence[Strategy]) -> Iterator[Strategy]:
                for number, strategy in enumerate(strategies, start=1):
                    status.update(f"backtest {number} of {len(strategies)}: {strategy.name}")
                    yield strategy
                status.update("intervals and tests")

            stress = None
            if scenarios:
                status.update("stress tests")
                all_of_them = [*evaluation.agent_strategies(task), *baselines]
                stress = evaluation.stress_strategies(
                    task, all_of_them, split, scenarios, bind_policy
                )
            found = evaluation.evaluate(
                task,
                baselines,
                split,
                commissions=evaluation.commissions_of(config.commissions),
                capital=config.capital,
                holdings=config.holdings,
                lot=config.lot,
                lots=config.lots,
                events=config.events,
                benchmark=config.benchmark,
                reference=config.reference,
                judge=config.judge,
                n_resamples=n_resamples,
                hindsight=hindsight_frontier,
                processes=processes,
                progress=counted,
            )
            found.inputs.stress = stress
            status.update("report")
            figures = evaluation.write_evaluation(found, config.records, quick=config.quick)
            if not config.quick:  # TensorBoard takes seconds to load
                log_figures(task.folder, split, figures)
            if is_run(task.folder):
                write_card(task.folder)  # it states how often the test range was used
    found.print(config.format)
    where_to = sys.stdout if config.format in ("table", "markdown") else sys.stderr
    print(f"Report: {found.folder / 'report.html'}", file=where_to)
    return found.comparison


def _quick_text(n_resamples: int, slow: Sequence[str]) -> str:
    """Return the caveat of a quick evaluation."""
    left_out = f", without {', '.join(slow)}" if slow else ""
    return (
        f"This is a quick evaluation, with {n_resamples:,} resamples{left_out}: repeat it without "
        "--quick before a decision."
    )


def _defaults(file: Path) -> EvaluateConfig:
    """Return the settings of a file: those of the evaluation and of its market side by side."""
    given = read_settings(file)
    return settings_of(EvaluateConfig, given, file, beside="task", without=["file"])


def main() -> int:
    """Read the command line, evaluate, print and write; returns the exit status."""
    find_own_modules()

    def work() -> int:
        file = file_of(sys.argv[1:])
        default = tyro.MISSING_NONPROP if file is None else _defaults(file)
        found = evaluate(read_arguments(EvaluateConfig, description=__doc__, default=default))
        from baselines import BASELINES

        failed = [name for name in found.failed if name.partition("(")[0] not in BASELINES]
        for name in failed:  # asked for by its name; those built in may not fit any data
            print(f"error: {name} could not run: {found.failed[name]}", file=sys.stderr)
        return 1 if failed else 0

    return exit_status(work, stopped="stopped; what was written before is whole")


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
