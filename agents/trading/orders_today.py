"""Orders of a day: settings of the command, and the work that they ask for."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from agents.settings.market import MarketConfig, refuse_no_strategy
from portfolio_env.errors import ArgumentError
from portfolio_env.files.atomic import is_writable
from portfolio_env.live import AccountOptions, AlertBounds, Today, today
from portfolio_env.live.today import TABLE
from portfolio_env.market.timeline import as_timestamp

ALERT = 3  # exit status


@dataclass(frozen=True)
class TradeConfig:
    """Settings of the orders of a day."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of a run; none with --baseline."""
    what: Annotated[Literal["today"], tyro.conf.Positional] = "today"
    """The orders of the last bar."""
    baseline: str | None = None
    """Baseline that decides in place of a run, e.g. hrp or "momentum(lookback=120)"; it is fitted
    to the training range."""
    newest: Annotated[Path | None, tyro.conf.arg(name="data")] = None
    """Newest data, a file or a folder; by default those of the run, as they are now."""
    update: bool = False
    """Download first what is missing in --data, a folder of a store such as data/binance/1d."""
    account: Annotated[AccountOptions, tyro.conf.arg(name="")] = AccountOptions()  # noqa: RUF009
    """Account to trade for."""
    alert_drift: float | None = 0.05
    """Alert when holdings differ from their targets by more than this share of the account."""
    alert_target: float | None = 0.1
    """Alert when targets change by more than this share of the account since the last call."""
    alert_drawdown: float | None = 0.1
    """Alert when the account falls by more than this share below its highest value."""
    alert_age: float | None = None
    """Alert when the last bar is older than this many days; by default the longest recent pause
    and one bar."""
    as_of: str | None = None
    """The present, a date or a moment in UTC; the clock by default."""
    judge: Literal["growth", "sharpe", "equal_risk"] = "growth"
    """Measure that the validation gate goes by."""
    model: Literal["final", "best"] = "final"
    """The model at the end of the training, or the best one by validation."""
    device: str = "auto"
    """Torch device of the agent."""
    format: Literal["table", "json"] = "table"
    """What is printed."""
    out: Path | None = None
    """Folder of orders.csv and today.json; default evaluation/today of the run."""
    task: Annotated[MarketConfig, tyro.conf.arg(name="")] = field(default_factory=MarketConfig)
    """Rules of trading of a baseline."""


def trade(config: TradeConfig) -> Today:
    """Work out the orders, print and write them; nothing is sent anywhere."""
    is_run = config.run is not None
    refuse_no_strategy(config.run, config.baseline)
    if not config.account.given:
        raise ArgumentError("give the account: --holdings h.csv, or --capital 10000 in cash.")
    now = np.datetime64("now", "ns") if config.as_of is None else as_timestamp(config.as_of)
    names = ("drift", "target", "drawdown", "age")
    bounds = AlertBounds(**{name: getattr(config, f"alert_{name}") for name in names})
    from agents.training.run_folder import evaluating
    from agents.training.tasks import newest_task
    from baselines.strategies import baseline_strategies
    from portfolio_env.evaluation.orders import deciding

    if config.run is not None and config.out is None and not is_writable(config.run):
        raise ArgumentError(f"{config.run} is read-only: give --out, a folder for the orders.")
    with evaluating(config.run):
        task = newest_task(
            *(config.run, config.task, config.newest, config.update),
            model=config.model,
            device=config.device,
        )
        named = baseline_strategies(config.baseline or "equal_weight")
        name, predictor, notes = deciding(task, named, agent=is_run, judge=config.judge)
        folder = config.out or task.folder / "evaluation" / "today"
        found = today(
            predictor, config.account, name=name, now=now, bounds=bounds, notes=notes, folder=folder
        )
        found.write(folder)
    found.print(config.format)
    where_to = sys.stdout if config.format == "table" else sys.stderr
    print(f"Written: {folder / TABLE}", file=where_to)
    return found
