"""Judge a trained run and baselines through the same environment, on data the run did not see.

RUN may be the folder of a walk forward: every fold is judged on its own test, by agents and by
baselines fitted anew to its training range, and the tests are joined to one account each.

python evaluate.py RUN --baselines all
python evaluate.py --no-agent --market sp500 --baselines all --commissions 0,10,25
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from agents.training.cards import write_card
from agents.training.evaluation import (
    Setting,
    Stage,
    Task,
    encoder_pictures,
    parameter_bytes,
    setting_of_run,
    setting_of_task,
)
from agents.training.records import is_run
from agents.training.run_folder import evaluating
from agents.training.walk_forward import FILE
from baselines import BASELINES
from baselines.strategies import contestants, trials
from portfolio_env import TransactionCosts
from portfolio_env.command_line import exit_status
from portfolio_env.errors import ArgumentError, PortfolioError
from portfolio_env.evaluation import Comparison, GateDecision, compare, write_comparison
from portfolio_env.evaluation.comparison import REFERENCE
from portfolio_env.evaluation.diagnostics.events import ALL_ASSETS, read_events
from portfolio_env.evaluation.diagnostics.implementation import practical_figures
from portfolio_env.evaluation.orders import allocate
from portfolio_env.evaluation.report.inputs import Hindsight, Material
from portfolio_env.evaluation.report.report import write_report
from portfolio_env.evaluation.report.subperiods import seed_sentences, window_texts
from portfolio_env.evaluation.runner import Contest, run_contest
from portfolio_env.evaluation.summary import gate_sentence, overall, sentence, text_table
from portfolio_env.evaluation.usage_log import (
    Look,
    earlier_sharpes,
    looks_warning,
    make_look,
    record_look,
)
from portfolio_env.files.atomic import locked
from portfolio_env.names import positions

MIN_WIDTH = 190  # columns of a terminal that hold the table; a narrower one would break its cells


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of an evaluation."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of a run or of a walk forward; market, costs and constraints are its own."""
    agent: bool = True
    """Judge the run's agent; --no-agent takes the baselines alone."""
    baselines: str = "equal_weight,buy_and_hold"
    """Comma-separated baselines, or all; equal_weight is always among them."""
    split: Literal["train", "validation", "test"] = "test"
    """Range of the data to evaluate on."""
    model: Literal["final", "best"] = "final"
    """The model at the end of the training, or the best one by validation."""
    commissions: str = ""
    """Further commissions in basis points to judge at, e.g. 0,10,25."""
    capital: float | None = None
    """Money to allocate as every strategy would at the last bar."""
    lot: float = 1.0
    """Smallest number of units that can be bought with it; 0 for any fraction."""
    events: Path | None = None
    """CSV file of events (columns date and type, perhaps symbol) for an event study."""
    records: Literal["csv", "parquet"] = "csv"
    """Format of the accounts: weights, trades, costs and values of every step."""
    resamples: int = 2000
    """Of every bootstrap."""
    device: str = "auto"
    """Torch device of the agent."""
    out: Path | None = None
    """Folder of an evaluation without a run; default runs/MARKET__baselines."""
    task: Annotated[Task, tyro.conf.arg(name="")] = field(default_factory=Task)
    """What is traded where there is no run."""


def open_setting(config: EvaluateConfig) -> Setting:
    """The run's market and rules, or those of the command line."""
    if config.run is None:
        return setting_of_task(config.task, config.out)
    if config.split != "test" and (config.run / FILE).exists():
        raise ArgumentError(
            f"split is {config.split}, but {config.run} is a walk forward, whose folds are joined "
            "by their tests alone: leave --split out, or name the run of one fold, e.g. "
            f"{next(config.run.glob('fold_*/seed_*'), 'fold_0/seed_0')}."
        )
    if config.task != Task() or config.out is not None:
        raise ArgumentError(
            f"market, ranges, costs, constraints and folder are those of the run {config.run}; "
            "leave the options that name them out, or leave the run out."
        )
    return setting_of_run(config.run, model=config.model, device=config.device, agent=config.agent)


def numbers(text: str) -> list[float]:
    """The numbers of a comma-separated text."""
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError as error:
        raise ArgumentError(f"commissions is {text!r}: give numbers such as 0,10,25") from error


def refuse_early(config: EvaluateConfig, setting: Setting, commissions: Sequence[float]) -> None:
    """Refuse now what would fail once everything has run and the range was looked at."""
    if config.resamples < 1:
        raise ArgumentError(f"resamples is {config.resamples}; it must be at least 1")
    for commission in commissions:
        TransactionCosts(commission_bps=commission)
    if config.capital is not None:
        market, costs = setting.whole.market, TransactionCosts(**setting.whole.options["costs"])
        equal = [0.0, *[1 / market.n_assets] * market.n_assets]
        ones = [1.0] * market.n_assets
        allocate(equal, market.assets, ones, config.capital, lot=config.lot, costs=costs)


def baseline_names(config: EvaluateConfig) -> list[str]:
    """The baselines asked for, the reference first."""
    asked = list(BASELINES) if config.baselines == "all" else config.baselines.split(",")
    positions("baseline", asked, list(BASELINES))
    return list(dict.fromkeys([REFERENCE, *asked]))


def open_events(config: EvaluateConfig, setting: Setting) -> pd.DataFrame | None:
    """The events of the file, about assets of the market."""
    if config.events is None:
        return None
    events = read_events(config.events)
    symbols = [symbol for symbol in events["symbol"].unique() if symbol != ALL_ASSETS]
    positions("asset of an event", symbols, setting.whole.market.assets)
    return events


def look_at(config: EvaluateConfig, setting: Setting, contest: Contest) -> Look:
    """This use of the range, and what was tried in it."""
    start, end = setting.whole.rows(config.split)
    return make_look(
        setting.whole.market,
        start,
        end,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(sys.argv),
        model=f"{setting.algorithm} ({config.model})" if setting.agents else None,
        trials=trials(setting, contest, config.model),
    )


def orders(
    config: EvaluateConfig, setting: Setting, comparison: Comparison
) -> dict[str, pd.DataFrame]:
    """What the capital buys, as every strategy holds it at the last bar."""
    if config.capital is None:
        return {}
    whole = setting.whole
    end = whole.rows(config.split)[1]
    prices = pd.DataFrame(whole.market.close[:end]).ffill().iloc[-1].to_numpy()
    costs = TransactionCosts(**whole.options["costs"])
    return {
        name: allocate(result.last_weights, result.assets, prices, config.capital,
                       lot=config.lot, costs=costs)
        for name, result in comparison.complete.items()
    }  # fmt: skip


def hindsight(stage: Stage, split: str) -> Hindsight | None:
    """The portfolios that were efficient in a range, and the capital market line."""
    from baselines.optimisers import MeanVariance, efficient_frontier

    start, end = stage.rows(split)
    try:
        model = MeanVariance(
            stage.market,
            lookback=end - 1 - start,
            risk_free_rate=stage.options["costs"]["cash_rate_annual"],
            min_weight=0.0,
            max_weight=1.0,
            covariance="sample",
        )
        found = efficient_frontier(model, end - 1)
    except PortfolioError:  # skfolio is not installed, or no asset has all the prices
        return None
    columns = ["volatility", "expected_return"]
    line, best = found.capital_market_line()[columns], found.tangency[columns]
    return Hindsight(
        frontier=found.portfolios[columns].to_numpy(),
        market_line=line.to_numpy() if len(line) else None,
        tangency=best.to_numpy()[0] if len(best) else None,
    )


def to_tensorboard(folder: Path, split: str, figures: Mapping[str, Path]) -> None:
    """Show the pictures of a report in TensorBoard too."""
    from matplotlib.image import imread
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for name, file in figures.items():
            writer.add_image(f"{split}/{name}", imread(file)[..., :3], dataformats="HWC")


def print_table(comparison: Comparison, title: str) -> None:
    """Print the table and a sentence on every strategy."""
    texts = text_table(comparison)
    printed = Table(title=title)
    printed.add_column("", no_wrap=True)
    for column in texts.columns:
        printed.add_column(column, no_wrap=column != "remark")
    for name, row in texts.iterrows():
        printed.add_row(*(Text(part) for part in (str(name), *row)))  # no markup of strangers
    console = Console(width=max(MIN_WIDTH, Console().width))
    console.print(printed)
    for name in texts.index:
        print(sentence(comparison, str(name)))
    for line in (overall(comparison), *comparison.notes):
        print(line)


def warnings_of(
    config: EvaluateConfig, setting: Setting, look: Look, earlier: Sequence[Look]
) -> list[str]:
    """What a reader must know before the table."""
    if config.split == "train":
        return [
            "This is the training range: agents and baselines were fitted to these very bars, and "
            "the gate decided on later ones. Nothing here is out of sample."
        ]
    if config.split == "validation" and setting.agents:
        return [
            "This is the validation range: it chooses models and settings, which flatters the "
            "agents. Nothing of theirs here is out of sample."
        ]
    return [looks_warning(earlier, look)] if earlier else []


def gate_sentences(
    config: EvaluateConfig, setting: Setting, decisions: Mapping[str, Sequence[GateDecision]]
) -> list[str]:
    """What the gate decided, of every agent and in every fold."""
    return [
        (f"{fold}: " if fold else "")
        + gate_sentence(name, decision, chosen_there=config.model == "best")
        for name, own in decisions.items()
        for fold, decision in zip(setting.folds or [""], own, strict=True)
    ]


def material_of(
    config: EvaluateConfig,
    setting: Setting,
    contest: Contest,
    comparison: Comparison,
    decisions: Mapping[str, Sequence[GateDecision]],
    look: Look,
    earlier: Sequence[Look],
) -> Material:
    """What the report is made of, beside the comparison."""
    whole, last = setting.whole, setting.stages[-1]
    rows = whole.rows(config.split)
    title = f"{config.split}: {look.first} to {look.last}"
    title += f" in {len(setting.folds)} folds" if setting.folds else ""
    title += ", per year, after costs"
    title += f" (look {len(earlier) + 1} at this range)" if earlier else ""
    pictures = {}
    for name, run in list(last.runs.items())[:1]:
        of = f" Of {name} in the last fold." if setting.folds else ""
        drawn = encoder_pictures(run, last.rows(config.split))
        pictures = {key: (figure, text + of) for key, (figure, text) in drawn.items()}
    return Material(
        title=title,
        panel=whole.market.panel.subset(slice(rows[1])),
        rows=rows,
        train=whole.ranges["train"],
        agents=setting.agents,
        seeds=setting.seeds if config.split != "validation" else {},
        folds=setting.folds,
        warnings=warnings_of(config, setting, look, earlier),
        gate=gate_sentences(config, setting, decisions),
        practical=practical_figures(
            comparison.results,
            contest.seconds,
            {name: parameter_bytes(run) for name, run in last.runs.items()},
        ),
        growth_by_cost=contest.cost_table(),
        orders=orders(config, setting, comparison),
        capital=config.capital,
        costs=TransactionCosts(**whole.options["costs"]),
        execution=whole.options["execution"],
        hindsight=hindsight(whole, config.split),
        pictures=pictures,
        facts={
            "split": config.split,
            **({"folds": window_texts(setting.folds)} if setting.folds else {}),
            "model": look.model,
            "first_decision": look.first,
            "last_bar": look.last,
            "steps": len(comparison.results[REFERENCE].costs),
            "periods_per_year": whole.market.periods_per_year,
            "market_hash": whole.market.hash,
            "looks_before": len(earlier),
            "command": look.command,
        },
    )


def evaluate(config: EvaluateConfig) -> Comparison:
    """Run everything, write everything, print the verdict; a run is kept from being removed."""
    if config.run is None or not is_run(config.run):
        return _evaluate(config)
    with evaluating(config.run):
        return _evaluate(config)


def _evaluate(config: EvaluateConfig) -> Comparison:
    setting, commissions = open_setting(config), numbers(config.commissions)
    refuse_early(config, setting, commissions)
    events = open_events(config, setting)
    entries, decisions = contestants(setting, config.split, baseline_names(config))
    shown = track(entries, "backtests", console=Console(stderr=True), transient=True)
    contest = run_contest(shown, commissions)
    for name in (REFERENCE, *setting.agents):
        if name in contest.failed:
            raise ArgumentError(f"{name} could not run: {contest.failed[name]}")
    look = look_at(config, setting, contest)
    earlier = record_look(setting.home, look) if config.split == "test" else []
    comparison = compare(
        contest.results,
        oracles=[n for n, p in contest.policies.items() if getattr(p[0], "oracle", False)],
        failed=contest.failed,
        earlier_sharpes=earlier_sharpes(earlier, look.trials),
        resamples=config.resamples,
    )
    material = material_of(config, setting, contest, comparison, decisions, look, earlier)
    material.events = events
    told = [*material.gate, *seed_sentences(comparison, material.seeds)]
    folder = setting.home / "evaluation" / config.split
    facts = {**material.facts, "gate": material.gate, "seeds": told[len(material.gate) :]}
    with locked(folder.with_name(f".{config.split}.lock")):  # two would mix their files
        write_comparison(folder, comparison, facts, config.records)
        figures = write_report(folder, comparison, material)
        to_tensorboard(setting.home / "tb" / "evaluation", config.split, figures)
        if is_run(setting.home):
            write_card(setting.home)  # it states how often the test range was looked at
    print_table(comparison, material.title)
    for line in (*told, *material.warnings):
        print(line)
    print(f"Report: {folder / 'report.html'}")
    return comparison


def main() -> int:
    """Read the command line, evaluate, print and write; returns the exit status."""
    config = tyro.cli(EvaluateConfig, description=__doc__)

    def work() -> None:
        evaluate(config)

    return exit_status(work, stopped="stopped; what was written before is whole")


if __name__ == "__main__":
    sys.exit(main())
