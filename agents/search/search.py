"""Search: rounds of trials that processes train, and ``search.json``, which says all of it.

The folder of a search holds ``search.json`` (space, seed, trials with their scores, choice and its
reasons), ``search.html``, ``chosen.json`` (settings for ``train.py --config``), ``trials/``
(a sweep, whose settings are the trials) and ``returns/`` (the accounts behind the scores).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch as th

from agents.search.choice import Trial, choose
from agents.search.methods import METHODS, Round, Task, key_of
from agents.search.options import SearchOptions
from agents.search.scores import InnerMarket, account, inner_market
from agents.search.space import Options, Space
from agents.sweep.plan import Cell, SweepPlan, add_settings, create_sweep
from agents.sweep.workers import failures, run_cells
from agents.training.config import TrainConfig
from agents.training.run_folder import new_folder, one_process
from portfolio_env.errors import ArgumentError, DataError, PortfolioError
from portfolio_env.files.atomic import read_json, write_json
from portfolio_env.machine import env_info
from portfolio_env.names import last_name

FILE = "search.json"
CHOSEN = "chosen.json"
TRIALS = "trials"
RETURNS = "returns"
FORMAT = 1
_ASKED = (
    *("format", "config", "space", "method", "trials_asked", "batch", "seed", "folds", "seeds"),
    *("model", "market"),
)
_LOGGER = logging.getLogger(__name__)


def search(
    space: Space,
    config: TrainConfig,
    options: SearchOptions | None = None,
    *,
    seeds: Sequence[int] = (),
    workers: int = 0,
    progress_bar: bool = False,
) -> Path:
    """Search a space for settings that outgrow equal weight, on data before the test range.

    A search that was stopped goes on where the folder is given again. Its result depends on the
    space, the settings, the options and the seeds, and not on the number of workers.

    Args:
        space: The space.
        config: Settings of every run but for what the space changes. ``config.seed`` is the seed of
            the search too.
        options: Method, trials, folds.
        seeds: Seeds of the runs of every fold; that of the configuration by default.
        workers: Processes that train, see ``run_cells``.
        progress_bar: Show one on the terminal.

    Returns:
        The folder: ``config.out``, or one within ``config.runs`` named after market, algorithm and
        time.

    Raises:
        ArgumentError: If the space holds settings that cannot be trained, the ranges are too short,
            or the folder holds another search.
        PortfolioError: If no trial could be trained, or a library is missing.
    """
    options = options or SearchOptions()
    out = config.out
    resolved = config.resolved()
    base = replace(config, market=resolved.market, data=resolved.data, out=None, runs="runs")
    seeds = tuple(seeds) or (config.seed,)
    space.check(base)
    inner = inner_market(base, options.folds)
    asked = _asked(space, base, inner, options, seeds)
    path = Path(out) if out else None
    if path is None or not (path / FILE).exists():
        name = f"{last_name(config.algo)}__search"
        path = new_folder(config, f"{name}__{datetime.now():%Y%m%d-%H%M%S}")
    with one_process(path):
        if (path / FILE).exists():
            state = read_json(path / FILE)
            _refuse_another(path, state, asked)
        else:
            environment = {key: env_info()[key] for key in ("python", "platform", "packages")}
            state = {**asked, "environment": environment, "trials": [], "choice": None}
            write_json(path / FILE, state)
        th.set_num_threads(1)  # a bar at a time; and the sums are the same with any workers
        searched = _Search(path, space, inner, options, seeds, workers, progress_bar)
        searched.run(state)
        trials = list(searched.trials.values())
        choice = choose(trials, len(searched.places))
        if choice is None:
            errors = [trial.error for trial in trials if trial.error]
            told = f"the first error: {errors[0]}" if errors else "all were ruined"
            raise PortfolioError(f"no trial of {path} has a score; {told}")
        chosen = space.config(base, trials[choice["trial"]].options)
        write_json(path / CHOSEN, changed(chosen))
        write_json(path / FILE, {**state, "trials": searched.record(), "choice": choice})
    return path


def read_search(path: str | Path) -> dict[str, Any]:
    """Read the record of a search.

    Raises:
        DataError: If the folder holds none, or a damaged one.
    """
    try:
        found = read_json(Path(path) / FILE)
    except FileNotFoundError:
        raise DataError(f"{path} is not the folder of a search: it has no {FILE}") from None
    lacking = {*_ASKED, "trials", "choice"} - found.keys()
    if lacking:
        raise DataError(f"{Path(path) / FILE} is damaged: it lacks {min(lacking)}; restore it")
    return found


def changed(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that differ from their defaults, as a file for ``--config`` has them."""

    def differing(own: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for name, value in own.items():
            if isinstance(value, dict) and isinstance(usual[name], dict):
                if inner := differing(value, usual[name]):
                    found[name] = inner
            elif value != usual[name]:
                found[name] = value
        return found

    return differing(config.to_json(), TrainConfig().to_json())


class _Search:
    """Trials of a search, trained and scored round by round."""

    def __init__(
        self,
        path: Path,
        space: Space,
        inner: InnerMarket,
        options: SearchOptions,
        seeds: Sequence[int],
        workers: int,
        progress_bar: bool,
    ) -> None:
        self.path, self.space, self.inner, self.options = path, space, inner, options
        self.workers, self.progress_bar = workers, progress_bar
        self.root = path / TRIALS
        self.places = [(fold, seed) for seed in seeds for fold in range(options.folds)]
        self.trials: dict[str, Trial] = {}  # by key
        self.seeds = tuple(seeds)
        self.before: dict[int, Any] = {}  # options of trials of an earlier call, by number

    def key(self, options: Options) -> str:
        """Return a text that is the same for options that train the same agent."""
        return key_of(self.space.config(self.inner.config, options).resolved().to_json())

    def run(self, state: Mapping[str, Any]) -> None:
        """Go through all rounds; those that were trained before cost next to nothing."""
        self.before = {trial["number"]: trial["options"] for trial in state["trials"]}
        plan = SweepPlan(self.inner.config, {name_of(0): {}}, self.options.folds, self.seeds)
        create_sweep(self.root, plan)
        given = self.key({})
        self.trials[given] = Trial(0, {}, len(self.places), {})
        task = Task(
            space=self.space,
            trials=self.options.trials,
            cells=len(self.places),
            seed=self.inner.config.seed,
            batch=self.options.batch,
            key=self.key,
            known=frozenset({given}),
        )
        method, number = METHODS[self.options.method](task), 0
        try:
            asked = next(method)
            while True:
                number += 1
                scores = self._scored(asked, number)
                write_json(self.path / FILE, {**state, "trials": self.record(), "choice": None})
                asked = method.send(scores)
        except StopIteration:
            return

    def record(self) -> list[dict[str, Any]]:
        """Return the trials, JSON-able."""
        return [self._told(trial) for trial in self.trials.values()]

    def _scored(self, asked: Round, number: int) -> list[float | None]:
        """Train and score the settings of a round."""
        trials = []
        for options in asked.settings:
            self.space.check_setting(self.inner.config, options)
            trial = self.trials.setdefault(
                self.key(options), Trial(len(self.trials), options, asked.cells, {})
            )
            self._check_replay(trial)
            trial.wanted = max(trial.wanted, asked.cells)
            trials.append(trial)
        places = None if asked.cells == len(self.places) else self.places[: asked.cells]
        if trials:
            settings = {
                name_of(trial.number): self.space.joined(self.inner.config, dict(trial.options))
                for trial in trials
            }
            add_settings(self.root, settings, places)
        now = [trial for trial in self.trials.values() if trial in trials or number == 1]
        cells = [
            Cell(name_of(trial.number), *place)
            for place in self.places
            for trial in now
            if place in self.places[: trial.wanted]
        ]
        _LOGGER.info("round %d: %d settings, %d runs", number, len(now), len(cells))
        run_cells(self.root, self.workers, only=cells, progress_bar=self.progress_bar)
        failed = failures(self.root, cells)
        for cell in cells:
            trial = next(each for each in now if name_of(each.number) == cell.setting)
            if cell in failed:
                trial.error = trial.error or f"fold {cell.fold}, seed {cell.seed}: {failed[cell]}"
            elif trial.error is None:
                kept = self.path / RETURNS / f"{str(cell).replace('/', '__')}.npz"
                trial.accounts[cell.fold, cell.seed] = account(
                    cell.folder(self.root), self.options.model, kept
                )
        return [trial.score for trial in trials]

    def _check_replay(self, trial: Trial) -> None:
        """Reject a trial that differs from the one of its number in an earlier call."""
        now: Any = json.loads(json.dumps(trial.options))
        before = self.before.get(trial.number, now)
        if before != now:
            raise DataError(
                f"trial {trial.number} of {self.path} was {json.dumps(before)} and would be "
                f"{json.dumps(now)} now: versions of libraries or scores have changed since; "
                "restore them, or give another --out"
            )

    def _told(self, trial: Trial) -> dict[str, Any]:
        state = "complete" if trial.wanted == len(self.places) else "stopped early"
        if trial.error is not None:
            state = "failed"
        elif trial.ruined:
            state = "ruined"
        return {
            "number": trial.number,
            "options": dict(trial.options),
            "state": state,
            "score": trial.score,
            "error": trial.error,
            "cells": [
                {"fold": fold, "seed": seed, "excess_growth": each.growth}
                for (fold, seed), each in trial.accounts.items()
            ],
        }


def name_of(trial: int) -> str:
    """Return the name of a trial as a setting of the sweep.

    >>> name_of(7)
    'trial_007'
    """
    return f"trial_{trial:03d}"


def _asked(
    space: Space,
    base: TrainConfig,
    inner: InnerMarket,
    options: SearchOptions,
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Return all that a search depends on, JSON-able."""
    found = {
        "format": FORMAT,
        "config": base.to_json(),
        "space": space.stated,
        "method": options.method,
        "trials_asked": options.trials,
        "batch": options.batch,
        "seed": base.seed,
        "folds": options.folds,
        "seeds": list(seeds),
        "model": options.model,
        "market": inner.facts,
    }
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def _refuse_another(path: Path, state: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    for name in _ASKED:
        before, now = state.get(name), asked[name]
        if before != now:
            within = ""
            if isinstance(before, dict) and isinstance(now, dict):
                within = f" ({', '.join(k for k in now if before.get(k) != now[k])})"
            raise ArgumentError(
                f"{path} holds a search with another {name}{within}; repeat its command to "
                "continue it, or give another --out"
            )
