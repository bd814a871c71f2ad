"""What an evaluation takes place in: market, ranges, rules; of a run, folds or a command line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import nn

from agents.direct.agent import DirectAgent
from agents.forecasts import NextReturns
from agents.inspection import encoder_figures
from agents.market_extractor import all_embeddings
from agents.training.config import Range, TrainConfig
from agents.training.run_folder import (
    Run,
    check_market,
    load_checked_market,
    load_model,
    load_run,
    read_config,
)
from agents.training.walk_forward import FILE, is_trained, read_plan
from portfolio_env import Market, PortfolioConstraints, TransactionCosts
from portfolio_env.errors import DataError
from portfolio_env.evaluation.diagnostics.crises import Date, Windows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GATED = "_gated"  # ends the name of an agent behind the gate


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
class Stage:
    """A market cut into ranges, and the agents trained there: a whole evaluation, or one fold.

    Attributes:
        market: the market.
        ranges: rows of the market, half-open, for "train", "validation" and "test".
        options: keywords of `PortfolioEnv`, as an agent takes them.
        runs: the runs whose agents are judged, by name; none for baselines alone.
    """

    market: Market
    ranges: dict[str, Range]
    options: dict[str, Any]
    runs: dict[str, Run] = field(default_factory=dict)

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


@dataclass(frozen=True)
class Setting:
    """What every strategy of an evaluation has in common.

    Attributes:
        home: folder of the run, or of the evaluation without one; it keeps the looks.
        whole: the market from end to end; its test range is that of all stages together.
        stages: what is judged one after the other: `whole` itself, or the folds of a walk forward.
    """

    home: Path
    whole: Stage
    stages: tuple[Stage, ...]

    @property
    def agents(self) -> list[str]:
        """Names of the agents that are judged."""
        return list(self.stages[0].runs)

    @property
    def folds(self) -> Windows:
        """First and last moment of what each fold earned, by name; empty without a walk forward."""
        if self.stages[0] is self.whole:
            return {}
        found: dict[str, tuple[Date, Date]] = {}
        for number, stage in enumerate(self.stages, start=1):
            start, end = stage.rows("test")
            times = stage.market.timestamps
            # A nanosecond after the last bar: midnight alone would stand for the whole day.
            found[f"fold {number}"] = (times[start + 1], times[end - 1] + np.timedelta64(1, "ns"))
        return found

    @property
    def seeds(self) -> dict[str, list[str]]:
        """Names of agents that differ by their seed alone, and of the same behind the gate."""
        if self.algorithm is None or len(self.agents) < 2:
            return {}
        gated = [f"{name}{GATED}" for name in self.agents]
        return {self.algorithm: self.agents, f"{self.algorithm}{GATED}": gated}

    @property
    def algorithm(self) -> str | None:
        """What the agents were trained by."""
        runs = list(self.stages[0].runs.values())
        return str(runs[0].config["algo"]) if runs else None


def setting_of_task(task: Task, home: Path | None = None) -> Setting:
    """The setting of baselines alone.

    Args:
        task: what is traded.
        home: its folder; default runs/MARKET__baselines.
    """
    parts = {part.name: getattr(task, part.name) for part in dataclasses.fields(task)}
    config = TrainConfig(**parts).resolved()
    stage = Stage(*config.load_market(), config.env_options())
    home = home or Path(config.runs) / f"{Path(config.market).stem.split('?')[0]}__baselines"
    return Setting(home, stage, (stage,))


def setting_of_run(
    path: Path,
    *,
    model: Literal["final", "best"] = "final",
    device: str = "auto",
    agent: bool = True,
) -> Setting:
    """The setting of a run, or of a walk forward: then each fold is a stage of its own.

    Agents are called after their algorithm, those of a walk forward with several seeds after their
    seed too. What is judged in a walk forward is the test range alone.

    Args:
        path: folder of the run or of the walk forward.
        model: which of its models is judged, see `load_run`.
        device: torch device of the model.
        agent: judge the agent; False takes the market and the rules of the run alone.

    Raises:
        DataError: as of `load_run`, or if the walk forward is not trained to its end.
    """
    if (path / FILE).exists():
        return _setting_of_walk_forward(path, model, device, agent)
    if not agent:  # so that a run without a model yet will do
        config = read_config(path)
        stage = Stage(*load_checked_market(path, config), config.env_options())
        return Setting(path, stage, (stage,))
    run = load_run(path, model=model, device=device)
    stage = Stage(run.market, run.ranges, run.env_options, {run.config["algo"]: run})
    return Setting(run.path, stage, (stage,))


def _setting_of_walk_forward(
    path: Path, model: Literal["final", "best"], device: str, agent: bool
) -> Setting:
    plan = read_plan(path)
    folders = plan.folders(path)
    lacking = [folder for own in folders.values() for folder in own if not is_trained(folder)]
    if lacking:
        raise DataError(
            f"{len(lacking)} runs of the walk forward {path} are not trained to their end, the "
            f"first is {lacking[0]}; continue it with train.py --resume {path}"
        )
    algo, seeds = plan.config.algo, plan.seeds
    names = [algo] if len(seeds) == 1 else [f"{algo}_seed_{seed}" for seed in seeds]
    stages = []
    for own in zip(*folders.values(), strict=True):  # the runs of one fold share its market
        market, ranges = load_checked_market(own[0], read_config(own[0]))
        runs = {}
        for name, folder in zip(names, own, strict=True) if agent else ():
            config = read_config(folder)
            check_market(folder, config, market)
            trained = load_model(folder, config, market, model=model, device=device)
            options = config.env_options()
            runs[name] = Run(folder, config.to_json(), market, ranges, options, trained)
        stages.append(Stage(market, ranges, plan.config.env_options(), runs))
    whole = Stage(*plan.config.load_market(), plan.config.env_options())
    return Setting(path, whole, tuple(stages))


_TEXTS = {
    "attention": "What the encoder looks at, at the last bar of the range.",
    "calibration": "Whether the uncertainty of the encoder's forecasts is right, over the range.",
}


def network_of(run: Run) -> nn.Module:
    """The network that a run's agent decides with."""
    return run.model.network if isinstance(run.model, DirectAgent) else run.model.policy


def parameter_bytes(run: Run) -> int:
    """Memory of the network's parameters."""
    return sum(part.numel() * part.element_size() for part in network_of(run).parameters())


def encoder_pictures(run: Run, rows: Range) -> dict[str, tuple[Figure, str]]:
    """Attention and calibration over some rows, with a text each; empty where there is neither.

    Raises:
        PortfolioError: if matplotlib is not installed.
    """
    network = network_of(run)
    found = all_embeddings(network)
    if not found:
        return {}
    network.eval()
    embeddings, returns = found[0], None
    if embeddings.head is not None:
        device = next(embeddings.parameters()).device
        returns = NextReturns(run.market, run.ranges["train"], embeddings.encoder.bars, device)
    figures = encoder_figures(embeddings, run.market, rows, returns)
    return {name: (figure, _TEXTS[name.partition("/")[0]]) for name, figure in figures.items()}
