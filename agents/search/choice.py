"""Choice among the settings of a search, and what speaks for it.

Everything is measured in log growth above equal weight. Trials that hold the same assets are alike
in what the market did to all of them: by Sharpe ratios of plain returns the best looks sure while
all of them lose to equal weight, which those of the differences do not hide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from agents.search.scores import Account, FloatArray
from portfolio_env.errors import PortfolioError
from portfolio_env.evaluation.comparison import BENCHMARK, INTERVAL_PERIODS, SUPERIORITY_PERIODS
from portfolio_env.evaluation.gate import passes_gate
from portfolio_env.evaluation.statistics import (
    deflated_sharpe_ratio,
    growth_difference,
    superiority_test,
)
from portfolio_env.evaluation.statistics.overfitting import backtest_overfitting
from portfolio_env.evaluation.summary import SIGNIFICANCE
from portfolio_env.metrics import sharpe

T = TypeVar("T")
BLOCKS = 16  # of the probability of overfitting
Place = tuple[int, int]
"""Fold and seed of a cell."""


@dataclass
class Trial:
    """One setting of a search.

    Attributes:
        number: Its place in the order of trials; 0 is the settings as they were given.
        options: Changes to them.
        wanted: Number of cells that it was given, the first of all.
        accounts: Accounts by cell, of those that are trained.
        error: Why it could not be trained; None if it could.
    """

    number: int
    options: Mapping[str, Any]
    wanted: int
    accounts: dict[Place, Account]
    error: str | None = None

    @property
    def score(self) -> float | None:
        """Return the mean growth above equal weight; None if it failed or was ruined."""
        return self.score_on(list(self.accounts))

    def score_on(self, places: Sequence[Place]) -> float | None:
        """Return the mean growth above equal weight over some cells, likewise."""
        growths = [self.accounts[place].growth for place in places]
        known = [growth for growth in growths if growth is not None]
        if self.error is not None or not known or len(known) < len(growths):
            return None
        return float(np.mean(known))

    @property
    def ruined(self) -> bool:
        """Return whether it lost everything in some cell."""
        return any(each.growth is None for each in self.accounts.values())

    def series(self) -> tuple[FloatArray, FloatArray]:
        """Return (K,) log returns over its folds, agent's and equal weight's, means over seeds."""
        folds: dict[int, list[Account]] = {}
        for (fold, _), each in sorted(self.accounts.items()):
            folds.setdefault(fold, []).append(each)
        own = [np.mean([each.log_returns for each in seeds], axis=0) for seeds in folds.values()]
        return np.concatenate(own), np.concatenate([s[0].benchmark for s in folds.values()])

    @property
    def periods_per_year(self) -> float:
        """Return the periods per year of the ``series``."""
        first = {fold: each for (fold, _), each in self.accounts.items()}.values()
        return sum(len(each.benchmark) for each in first) / sum(each.years for each in first)


def complete(trials: Sequence[Trial], cells: int) -> list[Trial]:
    """Return the trials that have a score on all cells."""
    return [trial for trial in trials if len(trial.accounts) == cells and trial.score is not None]


def choose(trials: Sequence[Trial], cells: int) -> dict[str, Any] | None:
    """Return the choice, JSON-able; None if no trial was trained to its end.

    The trial with the highest mean growth above equal weight over all cells is chosen. Four figures
    say whether that is more than the luck of the best of many: the validation gate (for this trial
    alone), the superiority test over all trials, the deflated Sharpe ratio of the differences, and
    the probability of backtest overfitting. It is ``accepted`` if all four allow it.

    Args:
        trials: All trials, those that failed or were stopped early among them.
        cells: Number of cells of a complete trial.
    """
    ranked = complete(trials, cells)
    if not ranked:
        return None
    best = max(ranked, key=lambda trial: (trial.score or 0.0, -trial.number))
    own, equal = best.series()
    year, difference = best.periods_per_year, own - equal
    notes: list[str] = []

    def figure(name: str, compute: Callable[[], T]) -> T | None:
        try:
            return compute()
        except PortfolioError as error:
            notes.append(f"{name} could not be computed: {error}")
            return None

    gate = passes_gate(own, equal, year)
    pairs = {str(trial.number): trial.series() for trial in ranked}
    differences = {name: returns - before for name, (returns, before) in pairs.items()}
    ratios = _ratios(trials)
    tested = len(difference) >= SUPERIORITY_PERIODS
    superior = deflated = overfitting = None
    if tested:
        series = {name: returns for name, (returns, _) in pairs.items()} | {BENCHMARK: equal}
        superior = figure("The superiority test", lambda: superiority_test(series, BENCHMARK, year))
    if len(ratios) > 1 and len(difference) >= INTERVAL_PERIODS:
        deflated = figure(
            "The deflated Sharpe ratio",
            lambda: deflated_sharpe_ratio(difference, year, ratios, n_trials=len(trials)),
        )
    if len(ranked) > 1 and tested:
        matrix = np.column_stack(list(differences.values()))
        overfitting = figure(
            "The probability of overfitting", lambda: backtest_overfitting(matrix, blocks=BLOCKS)
        )
    given = ranked[0] if ranked[0].number == 0 and best.number != 0 else None
    over_given = None if given is None else growth_difference(own, given.series()[0], year)
    found: dict[str, Any] = {
        "trial": best.number,
        "options": dict(best.options),
        "excess_growth": best.score,
        "low": _finite(gate.low),
        "gate": gate.passed,
        "superiority_p": None if superior is None else superior.p_value,
        "deflated_sharpe": None if deflated is None else _finite(deflated.probability),
        "overfitting_probability": None if overfitting is None else overfitting.probability,
        "over_given": None if over_given is None else list(over_given[:3]),
        "spread": spreads(ranked),
        "complete": len(ranked),
        "counted": len(trials),
    }
    found["accepted"] = _accepted(found)
    found["reasons"] = [*_reasons(found, trials), *notes]
    return found


def spreads(ranked: Sequence[Trial]) -> dict[str, float | None]:
    """Return standard deviations of growth: of settings, of seeds, and of folds.

    Those of settings are of their means; of seeds and folds of the means of a setting over the
    other, averaged over settings. None where there is one alone.
    """

    def deviation(values: Sequence[float]) -> float | None:
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def within(axis: int) -> float | None:
        found = []
        for trial in ranked:
            groups: dict[int, list[float]] = {}
            for place, each in trial.accounts.items():
                groups.setdefault(place[axis], []).append(each.growth or 0.0)
            found.append(deviation([float(np.mean(group)) for group in groups.values()]))
        known = [each for each in found if each is not None]
        return float(np.mean(known)) if known else None

    scores = [trial.score or 0.0 for trial in ranked]
    return {"settings": deviation(scores), "seeds": within(1), "folds": within(0)}


def _ratios(trials: Sequence[Trial]) -> list[float]:
    """Return yearly Sharpe ratios of differences of all trials, as far as each was trained."""
    found = []
    for trial in trials:
        if trial.score is not None:
            own, equal = trial.series()
            found.append(float(sharpe(own - equal, trial.periods_per_year)))
    return [ratio for ratio in found if np.isfinite(ratio)]


def _accepted(found: Mapping[str, Any]) -> bool:
    p_value, deflated = found["superiority_p"], found["deflated_sharpe"]
    overfitting = found["overfitting_probability"]
    return bool(
        found["gate"]
        and p_value is not None
        and p_value < SIGNIFICANCE
        and deflated is not None
        and deflated > 1 - SIGNIFICANCE
        and overfitting is not None
        and overfitting < 0.5
    )


def _reasons(found: Mapping[str, Any], trials: Sequence[Trial]) -> list[str]:
    """Return sentences on the choice."""
    ahead, spread = found["excess_growth"], found["spread"]
    told = [
        f"Trial {found['trial']} has the highest score of the {found['complete']} trials that "
        f"were trained on all folds and seeds: {percent(ahead)} log growth a year above equal "
        "weight, after the costs of both."
    ]
    bound = "none, it is too short" if found["low"] is None else f"{percent(found['low'])} a year"
    told.append(
        f"Gate, for this trial alone: {'passed' if found['gate'] else 'not passed'} (95 % lower "
        f"bound: {bound})."
    )
    if found["superiority_p"] is not None:
        told.append(
            f"Superiority test: were no trial better than equal weight, a lead as large as the "
            f"best one's would show with p = {found['superiority_p']:.2f}."
        )
    if found["deflated_sharpe"] is not None:
        told.append(
            f"Deflated Sharpe ratio of the differences to equal weight: "
            f"{found['deflated_sharpe']:.2f}, the probability that it is above the largest of "
            f"{found['counted']} trials by luck."
        )
    if found["overfitting_probability"] is not None:
        told.append(
            "Probability of backtest overfitting: what is best in one half of the bars ends in "
            f"the lower half of the trials in the other in {found['overfitting_probability']:.0%} "
            "of the splits."
        )
    if found["over_given"] is not None:
        low, high = (percent(bound) for bound in found["over_given"][1:])
        told.append(
            f"Above the settings as given (trial 0): {percent(found['over_given'][0])} a year "
            f"[{low}, {high}], an interval that knows nothing of the trials that were dropped."
        )
    elif found["trial"] == 0:
        told.append("The settings as given were not improved upon.")
    parts = [f"{name} {100 * size:.2f} %" for name, size in spread.items() if size is not None]
    if parts:
        told.append(f"Standard deviation of growth a year over {', '.join(parts)}.")
    if found["complete"] < found["counted"]:
        failed = sum(trial.error is not None or trial.ruined for trial in trials)
        early = found["counted"] - found["complete"] - failed
        told.append(
            f"{early} trials were stopped early and {failed} failed or were ruined; superiority "
            "test and probability of overfitting know only the others, so that they flatter."
        )
    told.append(_verdict(found))
    return told


def _verdict(found: Mapping[str, Any]) -> str:
    if found["accepted"]:
        return (
            "Accepted: all four figures allow the choice. The test range decides; evaluate it once."
        )
    return (
        "Not accepted: this is no more than the best of many may show by luck. Without other "
        "reasons hold equal weight."
    )


def percent(value: float) -> str:
    """Return a fraction in percent with its sign, as reports show it.

    >>> percent(-0.00001)
    '+0.00 %'
    """
    return f"{round(100 * value, 2) + 0.0:+.2f} %"


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
