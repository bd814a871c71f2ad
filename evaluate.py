"""Judge a trained run and baselines through the same environment, on data the run did not see.

python evaluate.py RUN --baselines all
python evaluate.py --no-agent --market sp500 --baselines all --commissions 0,10,25
"""

import hashlib
import json
import math
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from agents.inspection import encoder_pictures, parameter_bytes
from agents.run_folder import Run, model_file
from agents.setting import Setting, Task, setting_of_run, setting_of_task
from baselines import BASELINES, PortfolioModel, make_baseline
from portfolio_env import PortfolioConstraints, PortfolioEnv, TransactionCosts
from portfolio_env.errors import ArgumentError, PortfolioError
from portfolio_env.evaluation import (
    Comparison,
    GateDecision,
    GatedPolicy,
    Policy,
    backtest,
    compare,
    gate_decision,
    write_comparison,
)
from portfolio_env.evaluation.allocation import allocate
from portfolio_env.evaluation.comparison import REFERENCE
from portfolio_env.evaluation.contest import Contest, Entry, run_contest
from portfolio_env.evaluation.looks import (
    Look,
    Trial,
    earlier_sharpes,
    looks_warning,
    make_look,
    record_look,
)
from portfolio_env.evaluation.practical import practical_figures
from portfolio_env.evaluation.report import Material, write_report
from portfolio_env.evaluation.verdict import gate_sentence, overall, sentence, text_table
from portfolio_env.names import positions

MIN_WIDTH = 180  # columns of a terminal that hold the table; a narrower one would break its cells


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of an evaluation."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of a training run; market, costs and constraints are its own."""
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


def baseline_names(config: EvaluateConfig) -> list[str]:
    """The baselines asked for, the reference first."""
    asked = list(BASELINES) if config.baselines == "all" else config.baselines.split(",")
    positions("baseline", asked, list(BASELINES))
    return list(dict.fromkeys([REFERENCE, *asked]))


def baseline(name: str, setting: Setting, split: str) -> Policy:
    """A baseline: fitted to the training range, or an oracle to the range it is judged on."""
    cls = BASELINES[name]
    if not issubclass(cls, PortfolioModel):
        return make_baseline(name, setting.market)
    constraints = PortfolioConstraints(**setting.options["constraints"])
    model = cls(setting.market, constraints=constraints)
    return model.fit(
        setting.market.panel, setting.rows(split) if cls.oracle else setting.ranges["train"]
    )


def contestants(
    config: EvaluateConfig, setting: Setting
) -> tuple[list[Entry], dict[str, GateDecision]]:
    """Everything that takes part, and what the gate said of the agent."""
    split, run = config.split, setting.run
    entries, decisions = [], {}
    if run is not None:
        name = run.config["algo"]
        entries.append(Entry(name, lambda: run.model, setting.agent_options(split)))
        if split != "validation":  # the gate must not be judged where it decides
            decisions[name] = decision = decide(setting, run)
            gated = GatedPolicy(run.model, make_baseline(REFERENCE, setting.market), decision)
            chosen = setting.agent_options if decision else setting.baseline_options
            entries.append(Entry(f"{name}_gated", lambda: gated, chosen(split)))
    options = setting.baseline_options(split)
    for name in baseline_names(config):
        entries.append(Entry(name, partial(baseline, name, setting, split), options))
    return entries, decisions


def decide(setting: Setting, run: Run) -> GateDecision:
    """The gate, on the validation range."""
    own = backtest(run.model, PortfolioEnv(**setting.agent_options("validation")))
    benchmark = make_baseline(REFERENCE, setting.market)
    other = backtest(benchmark, PortfolioEnv(**setting.baseline_options("validation")))
    return gate_decision(own, other)


def look_at(config: EvaluateConfig, setting: Setting, contest: Contest) -> Look:
    """This use of the range, and what was tried in it: everything but oracles."""
    keys = ("costs", "constraints", "execution", "initial_value")
    shared = {key: setting.options[key] for key in keys}
    trials = []
    for name, result in contest.results.items():
        policy = contest.policies[name]
        if getattr(policy, "oracle", False) or isinstance(policy, GatedPolicy):
            continue
        agent = setting.run is not None and policy is setting.run.model
        if agent:
            file = model_file(setting.home, config.model)
            print_of = hashlib.sha256(file.read_bytes()).hexdigest()
        else:
            info = policy.model_info() if isinstance(policy, PortfolioModel) else name
            print_of = hashlib.sha256(json.dumps([info, shared]).encode()).hexdigest()
        sharpe = result.metrics()["sharpe"]
        trials.append(Trial(name, print_of, agent, sharpe if math.isfinite(sharpe) else None))
    model = None if setting.run is None else f"{setting.run.config['algo']} ({config.model})"
    start, end = setting.rows(config.split)
    return make_look(
        setting.market,
        start,
        end,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(sys.argv),
        model=model,
        trials=trials,
    )


def orders(
    config: EvaluateConfig, setting: Setting, comparison: Comparison
) -> dict[str, pd.DataFrame]:
    """What the capital buys, as every strategy holds it at the last bar."""
    if config.capital is None:
        return {}
    end = setting.rows(config.split)[1]
    prices = pd.DataFrame(setting.market.close[:end]).ffill().iloc[-1].to_numpy()
    costs = TransactionCosts(**setting.options["costs"])
    return {
        name: allocate(result.last_weights, result.assets, prices, config.capital,
                       lot=config.lot, costs=costs)
        for name, result in comparison.complete.items()
    }  # fmt: skip


def hindsight_frontier(setting: Setting, split: str) -> NDArray[np.float64] | None:
    """(P, 2) yearly volatility and return of the portfolios that were efficient in a range."""
    from baselines.optimisers import MeanVariance, efficient_frontier

    start, end = setting.rows(split)
    try:
        model = MeanVariance(
            setting.market,
            lookback=end - 1 - start,
            risk_free_rate=0.0,
            min_weight=0.0,
            max_weight=1.0,
            covariance="sample",
        )
        found = efficient_frontier(model, end - 1).portfolios
    except PortfolioError:  # skfolio is not installed, or no asset has all the prices
        return None
    return found[["volatility", "expected_return"]].to_numpy()


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
    printed = Table("", title=title)
    for column in texts.columns:
        printed.add_column(column, no_wrap=column != "remark")
    for name, row in texts.iterrows():
        printed.add_row(str(name), *row)
    console = Console(width=max(MIN_WIDTH, Console().width))
    console.print(printed)
    for name in texts.index:
        print(sentence(comparison, str(name)))
    print(overall(comparison))


def evaluate(config: EvaluateConfig) -> Comparison:
    """Run everything, write everything, print the verdict."""
    setting, commissions = open_setting(config), numbers(config.commissions)
    entries, decisions = contestants(config, setting)
    shown = track(entries, "backtests", console=Console(stderr=True), transient=True)
    contest = run_contest(shown, commissions)
    agents = [] if setting.run is None else [setting.run.config["algo"]]
    for name in (REFERENCE, *agents):
        if name in contest.failed:
            raise ArgumentError(f"{name} could not run: {contest.failed[name]}")
    look = look_at(config, setting, contest)
    earlier = record_look(setting.home, look) if config.split == "test" else []
    comparison = compare(
        contest.results,
        oracles=[n for n, p in contest.policies.items() if getattr(p, "oracle", False)],
        failed=contest.failed,
        earlier_sharpes=earlier_sharpes(earlier, look.trials),
        resamples=config.resamples,
    )
    title = f"{config.split}: {look.first} to {look.last}, per year, after costs"
    title += f" (look {len(earlier) + 1} at this range)" if earlier else ""
    material = Material(
        title=title,
        bars=setting.market.panel.subset(slice(*setting.rows(config.split))),
        agents=agents,
        warnings=[looks_warning(earlier, look)] if earlier else [],
        gate=[
            gate_sentence(name, decision, chosen_there=config.model == "best")
            for name, decision in decisions.items()
        ],
        practical=practical_figures(
            comparison.results,
            contest.seconds,
            {} if setting.run is None else {agents[0]: parameter_bytes(setting.run)},
        ),
        growth_by_cost=contest.cost_table(),
        orders=orders(config, setting, comparison),
        capital=config.capital or 0.0,
        frontier=hindsight_frontier(setting, config.split),
        pictures={}
        if setting.run is None
        else encoder_pictures(setting.run, setting.rows(config.split)),
        facts={
            "split": config.split,
            "model": look.model,
            "first_decision": look.first,
            "last_bar": look.last,
            "steps": len(comparison.results[REFERENCE].costs),
            "periods_per_year": setting.market.periods_per_year,
            "market_hash": setting.market.hash,
            "looks_before": len(earlier),
            "command": look.command,
        },
    )
    folder = setting.home / "evaluation" / config.split
    write_comparison(folder, comparison, {**material.facts, "gate": material.gate}, config.records)
    figures = write_report(folder, comparison, material)
    to_tensorboard(setting.home / "tb" / "evaluation", config.split, figures)
    print_table(comparison, title)
    for line in (*material.gate, *material.warnings):
        print(line)
    print(f"Report: {folder / 'report.html'}")
    return comparison


def main() -> None:
    """Read the command line, evaluate, print and write."""
    config = tyro.cli(EvaluateConfig, description=__doc__)
    try:
        evaluate(config)
    except PortfolioError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
