"""Command that trades on paper: each bar of an exchange as it closes."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from agents.settings.market import MarketConfig, refuse_no_strategy
from portfolio_env.live import AccountOptions, AlertBounds, Predictor
from portfolio_env.paper.exchange.command import PaperOptions, paper


@dataclass(frozen=True)
class Paper:
    """Trade on paper by an exchange's candles as they close, never for real money.

    By default a simulated venue fills orders at the exchange's public prices.

    With --sandbox they go to its test network, with --address to this machine.

    Stopped or killed, the same command goes on; --once trades one bar, for cron.
    """

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of a run; none with --baseline."""
    baseline: str | None = None
    """Baseline that decides in place of a run, e.g. hrp or "momentum(lookback=120)"."""
    newest: Annotated[Path | None, tyro.conf.arg(name="data")] = None
    """Newest data, a file or a folder, in which the session begins; by default the run's own."""
    update: bool = False
    """Download first what is missing in --data, a folder of a store such as data/binance/1h."""
    options: Annotated[PaperOptions, tyro.conf.arg(name="")] = PaperOptions()  # noqa: RUF009
    """The session."""
    account: Annotated[AccountOptions, tyro.conf.arg(name="")] = AccountOptions()  # noqa: RUF009
    """Account of the simulated venue, and risk limits."""
    alert_drift: float | None = 0.05
    """Alert when holdings differ from their targets by more than this share of the account."""
    alert_target: float | None = 0.1
    """Alert when targets change by more than this share of the account since the bar before."""
    alert_drawdown: float | None = 0.1
    """Alert when the account falls by more than this share below its highest value."""
    alert_costs: float | None = 0.0005
    """Alert when costs exceed those of the environment by more than this share of the money
    traded."""
    alert_features: float | None = 0.1
    """Alert when more than this share of the feature values lies outside of the range seen before
    the session."""
    judge: Literal["growth", "sharpe", "equal_risk"] = "growth"
    """Measure that the validation gate goes by."""
    model: Literal["final", "best"] = "final"
    """The model at the end of the training, or the best one by validation."""
    device: str = "auto"
    """Torch device of the agent."""
    task: Annotated[MarketConfig, tyro.conf.arg(name="")] = field(default_factory=MarketConfig)
    """Market and rules of trading of a baseline."""

    def __call__(self) -> int:
        """Trade until stopped, or one bar; print what is done, each bar at its end."""
        said = [""]

        def say(text: str) -> None:
            if text != said[0]:
                print(text, flush=True)  # a file is read while the session goes on
            said[0] = text

        names = ("drift", "target", "drawdown", "costs", "features")
        bounds = AlertBounds(**{name: getattr(self, f"alert_{name}") for name in names})
        name, predictor, notes = deciding_on_paper(self)
        rest: dict[str, Any] = {"name": name, "bounds": bounds, "notes": notes}
        say(paper(predictor, self.account, self.options, say=say, **rest))
        return 0


def deciding_on_paper(config: Paper) -> tuple[str, Predictor, list[str]]:
    """Return who decides: name, predictor, and what a reader must know of it.

    Raises:
        ArgumentError: If neither a run nor a baseline is given.
        DataError: If the run or its data cannot be read.
    """
    from agents.training.tasks import open_task
    from baselines.strategies import baseline_strategies
    from portfolio_env.data.cli import update_folder
    from portfolio_env.evaluation.orders import deciding

    refuse_no_strategy(config.run, config.baseline)
    if config.update:
        with redirect_stdout(sys.stderr):
            update_folder(config.newest)
    if config.run is None:
        market = config.task.market if config.newest is None else str(config.newest)
        task = open_task(None, replace(config.task, market=market))
    else:
        how: dict[str, Any] = {"model": config.model, "device": config.device}
        task = open_task(config.run, config.task, None, "after", data=config.newest, **how)
    named = baseline_strategies(config.baseline or "equal_weight")
    return deciding(task, named, agent=config.run is not None, judge=config.judge)
