"""Methods of search: which settings are tried next, and on how many cells.

A method is a generator. It gives rounds of settings and is sent their scores, in the order of the
settings; what it gives depends on its seed and these scores alone. So a search is repeated, or
continued after a stop, by going through its rounds again.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

from agents.search.space import Draws, Interval, Options, Space
from portfolio_env.errors import ArgumentError, PortfolioError

STARTUP = 10
"""Settings that TPE draws at random before it models their scores, at most."""
REDUCTION = 3
"""Successive halving keeps the best of so many."""
_REPEATS = 200  # draws of settings that were drawn before, after which the space counts as used up


@dataclass(frozen=True)
class Round:
    """Settings to train together.

    Attributes:
        settings: The settings.
        cells: Number of cells, the first of all, on which each is to be scored.
    """

    settings: Sequence[Options]
    cells: int


Scores: TypeAlias = Sequence[float | None]
"""Mean scores of the settings of a round; None of one that failed or was ruined."""
Method: TypeAlias = Generator[Round, Scores, None]
Key: TypeAlias = Callable[[Options], str]


@dataclass(frozen=True)
class Task:
    """Task of a method.

    Attributes:
        space: The space.
        trials: Number of different settings, at most.
        cells: Number of cells of every setting.
        seed: Seed of the draws.
        batch: Settings that TPE asks for at once.
        key: Text that is the same for settings that train the same agent.
        known: Keys of settings that are tried anyway.
    """

    space: Space
    trials: int
    cells: int
    seed: int
    batch: int
    key: Key
    known: frozenset[str] = frozenset()


def key_of(options: Mapping[str, Any]) -> str:
    """Return a text that is the same for equal options."""
    return json.dumps(options, sort_keys=True)


def grid(task: Task) -> Method:
    """Try every setting of the space.

    Raises:
        ArgumentError: If there are more than ``task.trials``.
    """
    found: dict[str, Options] = {}
    most = 100 * task.trials
    for count, options in enumerate(islice(task.space.grid(), most + 1), start=1):
        found.setdefault(task.key(options), options)
        if count > most:
            break
    settings = [options for key, options in found.items() if key not in task.known]
    if len(settings) > task.trials:
        number = f"{len(settings)} settings" if count <= most else f"more than {most} settings"
        raise ArgumentError(
            f"the grid has {number}, trials={task.trials} allow fewer; give --trials "
            f"{len(settings)}, fewer values, or another method"
        )
    yield Round(settings, task.cells)


def random(task: Task) -> Method:
    """Try settings that are drawn evenly from the space, each once (Bergstra & Bengio 2012)."""
    yield Round(_draws(task), task.cells)


def halving(task: Task) -> Method:
    """Draw settings evenly, and give more cells to the best third of them, again and again.

    Successive halving (Jamieson & Talwalkar 2016, "Non-stochastic Best Arm Identification and
    Hyperparameter Optimization", AISTATS), where what is allotted are folds and seeds: every
    setting of a round has been scored on the same ones.
    """
    settings = _draws(task)
    for cells in rungs(task.cells):
        scores = yield Round(settings, cells)
        ranked = sorted(
            (place for place, score in enumerate(scores) if score is not None),
            key=lambda place: (-(scores[place] or 0.0), place),
        )
        kept = ranked[: math.ceil(len(settings) / REDUCTION)]
        settings = [settings[place] for place in sorted(kept)]


def rungs(cells: int) -> list[int]:
    """Return the numbers of cells of the rounds of ``halving``.

    >>> rungs(6), rungs(1)
    ([1, 2, 6], [1])
    """
    found = [cells]
    while found[0] > 1:
        found.insert(0, math.ceil(found[0] / REDUCTION))
    return found


def tpe(task: Task) -> Method:
    """Try settings that resemble the best ones so far, by Optuna's sampler.

    Tree-structured Parzen estimator (Bergstra et al. 2011, "Algorithms for Hyper-Parameter
    Optimization", NIPS). Settings are asked for in batches, and Optuna learns their scores in
    order, so the number of processes that train them changes nothing.

    Raises:
        PortfolioError: If Optuna is not installed.
    """
    study, failed = _study(task)
    scores: dict[str, float | None] = {}
    repeats = 0

    def tell(trial: Any, score: float | None) -> None:
        study.tell(trial, score) if score is not None else study.tell(trial, state=failed)

    while len(scores) < task.trials and repeats < _REPEATS:
        asked: dict[str, Options] = {}
        waiting = []
        size = min(task.batch, task.trials - len(scores))
        while len(asked) < size and repeats < _REPEATS:
            trial = study.ask()
            options = task.space.draw(_Asked(trial))
            key = task.key(options)
            if key in scores:
                tell(trial, scores[key])
            elif key in task.known:
                tell(trial, None)
            else:
                waiting.append((trial, key))
            repeats = repeats + 1 if key in scores or key in asked or key in task.known else 0
            if key not in scores and key not in task.known:
                asked.setdefault(key, options)
        if not asked:
            return
        told = yield Round(list(asked.values()), task.cells)
        scores.update(zip(asked, told, strict=True))
        for trial, key in waiting:
            tell(trial, scores[key])


METHODS: dict[str, Callable[[Task], Method]] = {
    "grid": grid,
    "random": random,
    "halving": halving,
    "tpe": tpe,
}
"""Methods by name."""


def _draws(task: Task) -> list[Options]:
    """Return different settings, fewer where the space has no more."""
    source, found, repeats = Draws(task.seed), dict[str, Options](), 0
    while len(found) < task.trials and repeats < _REPEATS:
        options = task.space.draw(source)
        key = task.key(options)
        new = key not in found and key not in task.known
        repeats = 0 if new else repeats + 1
        if new:
            found[key] = options
    return list(found.values())


class _Asked:
    """Draws by a trial of Optuna."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial

    def index(self, name: str, count: int) -> int:
        return int(self._trial.suggest_categorical(name, range(count)))

    def number(self, name: str, interval: Interval) -> float:
        low, high, scale = interval.low, interval.high, interval.log
        if interval.whole:
            return int(self._trial.suggest_int(name, int(low), int(high), log=scale))
        # Rounded as it is shown, so that what is written down is what was tried.
        return float(f"{self._trial.suggest_float(name, low, high, log=scale):.6g}")


def _study(task: Task) -> tuple[Any, Any]:
    """Return a study in memory, and the state of trials that failed."""
    try:
        import optuna
    except ImportError as error:
        raise PortfolioError(
            "the method tpe needs Optuna, which is not installed; pip install -e '.[search]', or "
            "choose random, grid or halving"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():  # of options that are experimental in Optuna before 5
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=task.seed,
            n_startup_trials=min(STARTUP, max(task.batch, task.trials // 3)),
            multivariate=True,
            constant_liar=True,
        )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    return study, optuna.trial.TrialState.FAIL
