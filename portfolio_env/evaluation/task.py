"""Evaluation task: a market cut into folds, the rules of trading, trained agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation.backtest import Policy
from portfolio_env.evaluation.diagnostics.events import ALL_ASSETS, read_events
from portfolio_env.market import Market
from portfolio_env.market.timeline import Date, Windows, time_text
from portfolio_env.names import indices_of
from portfolio_env.simulation.cost_models import Costs, made_costs
from portfolio_env.simulation.costs import TransactionCosts

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Range: TypeAlias = tuple[int, int]
"""Rows of a market, half-open."""

TRADING = ("costs", "execution", "initial_value")
"""Keywords of ``PortfolioEnv`` that say what trading costs, when it is done and with how much."""
RULES = ("constraints", *TRADING, "fills", "delay")
"""Keywords of ``PortfolioEnv`` that are the same for all strategies."""

HELD_OUT = "held_out"
"""Range of validation and test together, a longer record of what was fitted to neither."""

GATED = "_gated"  # suffix of the name of an agent with the validation gate


@dataclass(frozen=True)
class TrainedAgent:
    """Trained policy, with the facts that an evaluation reports on it.

    Attributes:
        policy: The policy.
        file: File of its weights, whose content identifies it.
        parameter_bytes: Memory of its parameters.
        figures: Function of a range of rows that returns figures of its network by name, each with
            a text.
        options: Keywords of ``PortfolioEnv`` that are its own, what it observes and how it acts, in
            place of those of the fold.
    """

    policy: Policy
    file: Path | None = None
    parameter_bytes: int = 0
    figures: Callable[[Range], Mapping[str, tuple[Figure, str]]] = lambda rows: {}
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class EvaluationFold:
    """Market cut into ranges, and the agents trained there: all of a task, or one fold of it.

    Attributes:
        market: The market.
        ranges: Rows of the market for "train", "validation" and "test".
        options: Keywords of ``PortfolioEnv``, as an agent takes them.
        agents: Agents to evaluate by name; none for baselines alone.
    """

    market: Market
    ranges: Mapping[str, Range]
    options: Mapping[str, Any]
    agents: Mapping[str, TrainedAgent] = field(default_factory=dict)

    def rows(self, split: str) -> Range:
        """Return the rows of a range from the first on that has enough history.

        Raises:
            DataError: If the data have no such range.
        """
        ranges = dict(self.ranges)
        if "validation" in ranges and "test" in ranges:
            ranges[HELD_OUT] = ranges["validation"][0], ranges["test"][1]
        if split not in ranges:
            why = (
                f"no bar, up to the last at {time_text(self.market.timestamps[-1])}, is newer than "
                "those of a run; give newer data, or choose another range"
                if split == "after"
                else "the others are cut from whole histories"
            )
            raise DataError(f"the data have no range {split}, only {', '.join(ranges)}: {why}.")
        start, end = ranges[split]
        seen = self.options["window"] + self.options.get("delay", 0)
        return max(start, self.market.warmup + seen - 1), end

    def agent_options(self, split: str, name: str | None = None) -> dict[str, Any]:
        """Return keywords of the environment of an agent; None for those that all agents share."""
        own = {} if name is None else self.agents[name].options
        start, end = self.rows(split)
        return {**self.options, **own, "market": self.market, "start": start, "end": end}

    def baseline_options(self, split: str) -> dict[str, Any]:
        """Return keywords of the environment of a baseline, which trades at once.

        The share of the way to its targets that an account goes at every step, ``adjustment``, is
        part of an agent.
        """
        own = {"observation": "index", "action": "weights", "adjustment": 1.0}
        return self.agent_options(split) | own


@dataclass(frozen=True, eq=False)
class EvaluationTask:
    """Task of an evaluation, shared by all strategies.

    Attributes:
        folder: Folder of the run, or of the evaluation without one; it keeps the log of test-set
            evaluations.
        whole: The market from end to end; its test range is that of all folds together.
        folds: Folds in the order of evaluation: ``whole`` itself, or the folds of a walk
            forward.
        algorithm: Algorithm of the agents; None without agents, or where they differ by more than
            their seed.
        model: Evaluated model of the agents, "final" or "best".
        warnings: Sentences that a reader must know before the table.
        logged: Uses of the test range are counted in the folder.
        place: Folder within that of evaluations, for another market than that of the folder; "" for
            its own.
        about: Facts for the head of the report by name, e.g. ``{"market": "sp500"}``.
    """

    folder: Path
    whole: EvaluationFold
    folds: Sequence[EvaluationFold]
    algorithm: str | None = None
    model: str = "final"
    warnings: Sequence[str] = ()
    logged: bool = True
    place: str = ""
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def agents(self) -> list[str]:
        """Return the names of the agents."""
        return list(self.folds[0].agents)

    @property
    def model_name(self) -> str | None:
        """Return algorithm and model of the agents, or their names; None without agents."""
        if self.agents and self.algorithm is not None:
            return f"{self.algorithm} ({self.model})"
        return ", ".join(self.agents) or None

    @property
    def windows(self) -> Windows:
        """Return first and last moment of each fold's test, by name; {} without a walk forward."""
        if self.folds[0] is self.whole:
            return {}
        found: dict[str, tuple[Date, Date]] = {}
        for number, fold in enumerate(self.folds, start=1):
            start, end = fold.rows("test")
            times = fold.market.timestamps
            # A nanosecond after the last bar: midnight alone would stand for the whole day.
            found[f"fold {number}"] = (times[start + 1], times[end - 1] + np.timedelta64(1, "ns"))
        return found

    @property
    def seeds(self) -> dict[str, list[str]]:
        """Return names of agents that differ by their seed alone, also with the validation gate."""
        if self.algorithm is None or len(self.agents) < 2:
            return {}
        gated = [f"{name}{GATED}" for name in self.agents]
        return {self.algorithm: self.agents, f"{self.algorithm}{GATED}": gated}

    @property
    def costs(self) -> Costs:
        """Return the trading costs."""
        return made_costs(self.whole.options["costs"])

    def events(self, path: Path | None) -> pd.DataFrame | None:
        """Return a file's events (see ``read_events``) about assets of the market; None without.

        Raises:
            ArgumentError: If an event is about no asset of the market.
            DataError: If the file cannot be read.
        """
        if path is None:
            return None
        events = read_events(path)
        symbols = [symbol for symbol in events["symbol"].unique() if symbol != ALL_ASSETS]
        indices_of("asset of an event", symbols, self.whole.market.assets)
        return events


class Hindsight(NamedTuple):
    """Efficient portfolios of a range, in hindsight; volatilities and returns per year.

    Attributes:
        frontier: (P, 2) volatility and mean return of efficient portfolios.
        market_line: (2, 2) the ends of the capital market line; None where nothing earns more than
            cash.
        tangency: (2,) the portfolio of largest Sharpe ratio, on that line; None likewise.
    """

    frontier: NDArray[np.float64]
    market_line: NDArray[np.float64] | None = None
    tangency: NDArray[np.float64] | None = None


def commissions_of(text: str) -> list[float]:
    """Return the commissions in basis points of a comma-separated text.

    Raises:
        ArgumentError: If one is not a number, or no commission.
    """
    try:
        found = [float(part) for part in text.split(",") if part]
    except ValueError as error:
        raise ArgumentError(f"commissions is {text!r}: give numbers such as 0,10,25") from error
    for commission in found:
        TransactionCosts(commission_bps=commission)
    return found
