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
from agents.search.scores import InnerMarket, account, compute_accounts, inner_market
from agents.search.space import Options, Space
from agents.sweep.plan import Cell, SweepPlan, add_settings, create_sweep
from agents.sweep.workers import failures, run_cells
from agents.training.config import TrainConfig
from agents.training.run_folder import new_folder, one_process
from portfolio_env.errors import ArgumentError, DataError, PortfolioError
from portfolio_env.files.atomic import digest, read_json, write_json
from portfolio_env.machine import env_info
from portfolio_env.names import last_name

FILE = "search.json"
CHOSEN = "chosen.json"
TRIALS = "trials"
RETURNS = "returns"
FORMAT = 2
_ASKED = (
    *("format", "config", "space", "method", "trials_asked", "batch", "seed", "folds", "seeds"),
    *("model", "market"),
)
_KINDS = {"seeds": list, "environment": dict, "trials": list, "choice": dict | None}
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
    inner = inner_market(base, options.folds)
    space.check(inner.config)
    asked = _asked(space, base, inner, options, seeds)
    path = Path(out) if out else None
    if path is None or not (path / FILE).exists():
        name = f"{last_name(config.algo)}__search"
        path = new_folder(config, f"{name}__{datetime.now():%Y%m%d-%H%M%S}")
    environment = {key: env_info()[key] for key in ("python", "platform", "packages")}
    with one_process(path):
        if (path / FILE).exists():
            state = read_search(path)
            _refuse_another(path, state, asked)
            if state["environment"] != environment:
                _LOGGER.warning(
                    "%s was begun with other versions of Python or libraries: what follows may "
                    "differ from what they would have found",
                    path,
                )
        else:
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
    for name in (*_ASKED, *_KINDS):
        if name not in found or not isinstance(found[name], _KINDS.get(name, object)):
            raise DataError(
                f"{Path(path) / FILE} is damaged: {name} is missing or of a wrong kind; restore it"
            )
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
        self.known: dict[str, Any] = {}  # folds of markets, see ``add_settings``

    def key(self, options: Options) -> str:
        """Return a text that is the same for options that train the same agent."""
        return key_of(self.space.config(self.inner.config, options).resolved().to_json())

    def run(self, state: Mapping[str, Any]) -> None:
        """Go through all rounds; those that were trained before cost next to nothing."""
        plan = SweepPlan(self.inner.config, {name_of({}): {}}, self.options.folds, self.seeds)
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
            trial = self.trials.setdefault(
                self.key(options), Trial(len(self.trials), options, asked.cells, {})
            )
            trial.wanted = max(trial.wanted, asked.cells)
            trials.append(trial)
        self._add(trials, asked.cells)
        now = [trial for trial in self.trials.values() if trial in trials or number == 1]
        runs = {
            Cell(name_of(trial.options), *place): trial
            for place in self.places
            for trial in now
            if trial.error is None and place in self.places[: trial.wanted]
        }
        _LOGGER.info("round %d: %d settings, %d runs", number, len(now), len(runs))
        run_cells(self.root, self.workers, only=list(runs), progress_bar=self.progress_bar)
        failed = failures(self.root, list(runs))
        for cell in failed:
            runs[cell].error = f"fold {cell.fold}, seed {cell.seed}: {failed[cell]}"
        kept = {cell: self._kept(cell) for cell, trial in runs.items() if trial.error is None}
        files = {cell.folder(self.root): file for cell, file in kept.items()}
        compute_accounts(files, self.options.model, self.workers)
        for cell, file in kept.items():
            runs[cell].accounts[cell.fold, cell.seed] = account(
                cell.folder(self.root), self.options.model, file
            )
        return [trial.score for trial in trials]

    def _add(self, trials: Sequence[Trial], cells: int) -> None:
        """Add trials to the sweep, but for those that no training can begin with."""
        settings = {
            name_of(trial.options): self.space.joined(self.inner.config, dict(trial.options))
            for trial in trials
        }
        places = None if cells == len(self.places) else self.places[:cells]
        refused = add_settings(self.root, settings, places, known=self.known) if settings else {}
        for trial in trials:
            trial.error = refused.get(name_of(trial.options))

    def _kept(self, cell: Cell) -> Path:
        return self.path / RETURNS / f"{str(cell).replace('/', '__')}.npz"

    def _told(self, trial: Trial) -> dict[str, Any]:
        state = "complete" if trial.wanted == len(self.places) else "stopped early"
        if trial.error is not None:
            state = "failed"
        elif trial.ruined:
            state = "ruined"
        return {
            "number": trial.number,
            "setting": name_of(trial.options),
            "options": dict(trial.options),
            "state": state,
            "score": trial.score,
            "error": trial.error,
            "cells": [
                {"fold": fold, "seed": seed, "excess_growth": each.growth}
                for (fold, seed), each in trial.accounts.items()
            ],
        }


def name_of(options: Mapping[str, Any]) -> str:
    """Return the name of a trial as a setting of the sweep; the same options have the same name.

    >>> name_of({"adjustment": 0.1})
    'trial_1d29e778ae'
    """
    return f"trial_{digest(options)[:10]}" if options else "given"


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
