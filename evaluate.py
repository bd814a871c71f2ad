"""Evaluate a trained run and baselines through the same environment, on data the run did not see.

python evaluate.py RUN --baselines equal_weight,buy_and_hold --split test
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table

from agents.run_folder import Run, load_run
from baselines import make_baseline
from portfolio_env import PortfolioEnv, PortfolioError
from portfolio_env.evaluation import BacktestResult, backtest, compare, verdict, write_comparison
from portfolio_env.evaluation.comparison import DIFFERENCE, REFERENCE
from portfolio_env.rendering import time_text

MIN_WIDTH = 110  # columns of a terminal that hold the table; a narrower one would break its cells
SHOWN = {
    "annual_return": "return",
    "volatility": "volatility",
    "sharpe": "Sharpe",
    "max_drawdown": "drawdown",
    "annual_turnover": "turnover",
    "cost_drag": "cost",
}


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of an evaluation."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a training run."""
    baselines: str = "equal_weight,buy_and_hold"
    """Comma-separated baselines; equal_weight is always among them."""
    split: Literal["train", "validation", "test"] = "test"
    """Range of the run's data to evaluate on."""
    model: Literal["final", "best"] = "final"
    """The model at the end of the training, or the best one by validation."""
    device: str = "auto"
    """Torch device of the agent."""


def evaluate(config: EvaluateConfig) -> tuple[Run, dict[str, BacktestResult]]:
    """Backtest the agent of a run and the baselines over one range.

    Costs, constraints, execution and dates are the run's for all. Its ``adjustment``, the pace at
    which its account follows its targets, is part of the agent: baselines trade at once.
    """
    run = load_run(config.run, model=config.model, device=config.device)
    start, end = run.ranges[config.split]
    options = {
        **run.env_options,
        "market": run.market,
        "start": max(start, run.market.warmup + run.env_options["window"] - 1),
        "end": end,
    }
    results = {run.config["algo"]: backtest(run.model, PortfolioEnv(**options))}
    options |= {"observation": "index", "action": "weights", "adjustment": 1.0}
    for name in dict.fromkeys([REFERENCE, *config.baselines.split(",")]):
        results[name] = backtest(make_baseline(name, run.market), PortfolioEnv(**options))
    return run, results


def print_table(table: pd.DataFrame, title: str) -> None:
    """Print the measures that matter most, and a sentence on every strategy."""
    printed = Table("", *SHOWN.values(), f"log growth vs {REFERENCE} [95%]", title=title)
    for name, row in table.iterrows():
        difference, low, high = (float(row[measure]) for measure in DIFFERENCE)
        printed.add_row(
            str(name),
            *(
                f"{row[key]:.2f}" if key in ("sharpe", "annual_turnover") else f"{row[key]:.1%}"
                for key in SHOWN
            ),
            "" if name == REFERENCE else f"{difference:+.1%} [{low:+.1%}, {high:+.1%}]",
        )
    console = Console(width=max(MIN_WIDTH, Console().width))
    console.print(printed)
    for name in table.index:
        print(verdict(table, str(name)))


def main() -> None:
    """Read the command line, evaluate, print and write."""
    config = tyro.cli(EvaluateConfig, description=__doc__)
    try:
        run, results = evaluate(config)
    except PortfolioError as error:
        sys.exit(f"error: {error}")
    table = compare(results)
    reference = results[REFERENCE]
    first, last = (time_text(reference.timestamps[i]) for i in (0, -1))
    folder = config.run / "evaluation" / config.split
    facts = {
        "split": config.split,
        "model": config.model,
        "first_decision": first,
        "last_bar": last,
        "steps": len(reference.costs),
        "periods_per_year": reference.periods_per_year,
        "market_hash": run.market.hash,
    }
    write_comparison(folder, results, table, facts)
    print_table(table, f"{config.split}: {first} to {last}, per year, after costs")
    print(f"Written to {folder}")


if __name__ == "__main__":
    main()
