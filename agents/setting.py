"""What an evaluation takes place in: market, ranges and rules, of a run or of a command line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agents.config import Range, TrainConfig
from agents.run_folder import Run, load_run
from portfolio_env import Market, PortfolioConstraints, TransactionCosts


@dataclass(frozen=True)
class Task:
    """What is traded where there is no run; names and defaults are those of train.py."""

    market: str = TrainConfig.market
    """Name of a market (sp500, synthetic, ...) or path of a CSV, Parquet or .npz file."""
    assets: str | None = None
    """Comma-separated symbols to trade; all of the market's by default."""
    start: str | None = None
    """First date of the data to use; all by default."""
    end: str | None = None
    """Date up to which the data are used, itself excluded; all by default."""
    train: float | str = TrainConfig.train
    """Training range, in which models are fitted: fraction of the bars, or the date of its end."""
    validation: float | str = TrainConfig.validation
    """Validation range that follows it: fraction of the bars, or the date at which it ends."""
    test: float | str | None = None
    """Test range that follows: fraction or date likewise; all the rest by default."""
    execution: Literal["close", "next_open"] = "close"
    """When trades are filled: at the close that was observed, or at the next open."""
    initial_value: float = TrainConfig.initial_value
    """Money at the start."""
    costs: TransactionCosts = field(default_factory=TransactionCosts)
    """What trading and holding cost."""
    constraints: PortfolioConstraints = field(default_factory=PortfolioConstraints)
    """Which portfolios may be held."""


@dataclass(frozen=True)
class Setting:
    """What every strategy of an evaluation has in common.

    Attributes:
        home: folder of the run, or of the evaluation without one; it keeps the looks.
        market: the market.
        ranges: rows of the market, half-open, for "train", "validation" and "test".
        options: keywords of `PortfolioEnv`, as an agent takes them.
        run: the run whose agent is judged; None for baselines alone.
    """

    home: Path
    market: Market
    ranges: dict[str, Range]
    options: dict[str, Any]
    run: Run | None

    def rows(self, split: str) -> Range:
        """The rows of a range from the first on that has enough history."""
        start, end = self.ranges[split]
        return max(start, self.market.warmup + self.options["window"] - 1), end

    def agent_options(self, split: str) -> dict[str, Any]:
        """Keywords of the environment of an agent."""
        start, end = self.rows(split)
        return {**self.options, "market": self.market, "start": start, "end": end}

    def baseline_options(self, split: str) -> dict[str, Any]:
        """Keywords of the environment of a baseline, which trades at once.

        The pace at which an account follows its targets, `adjustment`, is part of an agent.
        """
        own = {"observation": "index", "action": "weights", "adjustment": 1.0}
        return self.agent_options(split) | own


def setting_of_task(task: Task, home: Path | None = None) -> Setting:
    """The setting of baselines alone.

    Args:
        task: what is traded.
        home: its folder; default runs/MARKET__baselines.
    """
    parts = {part.name: getattr(task, part.name) for part in dataclasses.fields(task)}
    config = TrainConfig(**parts).resolved()
    market, ranges = config.load_market()
    home = home or Path(config.runs) / f"{Path(config.market).stem.split('?')[0]}__baselines"
    return Setting(home, market, ranges, config.env_options(), None)


def setting_of_run(
    path: Path,
    *,
    model: Literal["final", "best"] = "final",
    device: str = "auto",
    agent: bool = True,
) -> Setting:
    """The setting of a run; see `load_run`.

    Args:
        path: its folder.
        model: which of its models is judged.
        device: torch device of the model.
        agent: judge the agent; False takes the market and the rules of the run alone.
    """
    run = load_run(path, model=model, device=device)
    return Setting(run.path, run.market, run.ranges, run.env_options, run if agent else None)
