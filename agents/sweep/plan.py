"""Plans of sweeps: settings times folds times seeds, and the folder that holds them.

The folder of a sweep holds ``sweep.json`` and a walk forward for every setting, ``SETTING/fold_I/
seed_S``. A cell is one of these runs. What ``cells`` lists of a walk forward alone is the same.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from agents.sweep.settings import check_names, refusals, setting_config
from agents.training.config import TrainConfig
from agents.training.run_folder import WALK_FORWARD, one_process, started
from agents.training.walk_forward_training import Plan, check_seeds, make_plan, write_plan
from portfolio_env.checks import check_integer, shortened
from portfolio_env.errors import MALFORMED, ArgumentError, DataError
from portfolio_env.files.atomic import read_json, write_json

FILE = "sweep.json"
MOST = 1_000_000
"""Cells of a sweep, at most."""


class Cell(NamedTuple):
    """One run of a sweep, or of a walk forward, whose setting is ""."""

    setting: str
    fold: int
    seed: int

    def __str__(self) -> str:
        return Path(self.setting, f"fold_{self.fold}", f"seed_{self.seed}").as_posix()

    def folder(self, root: Path) -> Path:
        """Return the run folder."""
        return root / str(self)


@dataclass(frozen=True)
class SweepPlan:
    """Settings, folds and seeds of a sweep.

    Attributes:
        config: Settings of every run but for what follows.
        settings: By name, the settings that differ from these; see ``setting_config``.
        folds: Folds of the walk forward of every setting; 1 is the ranges of the configuration.
        seeds: Seeds of the runs of every fold.
        rolling: Train every fold on as many bars as the first, instead of on all of the past.
        limited: By name of a setting, the folds and seeds that are wanted of it; all by default.
    """

    config: TrainConfig
    settings: Mapping[str, Mapping[str, Any]]
    folds: int = 1
    seeds: tuple[int, ...] = (0,)
    rolling: bool = False
    limited: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)

    def cells(self) -> list[Cell]:
        """Return the cells: every setting with the first seed and fold, then with the next."""
        return [
            Cell(name, fold, seed)
            for seed in self.seeds
            for fold in range(self.folds)
            for name in self.settings
            if name not in self.limited or (fold, seed) in self.limited[name]
        ]


def seeds_of(text: str | None) -> tuple[int, ...]:
    """Return seeds from a text such as "0,1,2"; () without one.

    Raises:
        ArgumentError: If it is something else.
    """
    try:
        return tuple(int(seed) for seed in text.split(",")) if text is not None else ()
    except ValueError as error:
        raise ArgumentError(
            f"--seeds {text!r} is not a list of whole numbers such as 0,1,2"
        ) from error


def create_sweep(root: str | Path, plan: SweepPlan) -> Path:
    """Write a plan into the folder of a sweep; one that is there is continued or extended.

    Every setting is checked before anything is written, its learner included, and ``sweep.json``
    comes last.

    Args:
        root: The folder.
        plan: The plan; of a folder with one, the settings that it lacks are added.

    Raises:
        ArgumentError: If a setting, a fold or a seed is none, or the folder holds another plan.
        DataError: If another process writes the plan just now.
    """
    if not plan.settings:
        raise ArgumentError("a sweep needs at least one setting; give some, or a grid")
    plans, refused = _plans(plan, {})
    for name, reason in refused.items():
        raise ArgumentError(f"setting {name!r}: {reason}")
    _write(Path(root), plan, plans)
    return Path(root)


def add_settings(
    root: str | Path,
    settings: Mapping[str, Mapping[str, Any]],
    cells: Sequence[tuple[int, int]] | None = None,
    *,
    known: dict[str, Any] | None = None,
) -> dict[str, str]:
    """Add settings to a sweep, or widen what is wanted of those that it has.

    Args:
        root: Folder of the sweep.
        settings: Settings by name, see ``SweepPlan``.
        cells: Fold and seed of the runs that are wanted of each; None is all of them.
        known: As of ``make_plan``, for several calls.

    Returns:
        By the name of each setting that no training can begin with, the reason; it is not added.

    Raises:
        ArgumentError: If the sweep has another setting of the same name.
    """
    limited = {} if cells is None else {name: tuple(cells) for name in settings}
    plan = replace(read_sweep(root), settings=settings, limited=limited)
    plans, refused = _plans(plan, {} if known is None else known)
    kept = {name: settings[name] for name in plans}
    if kept:
        limited = {name: limited[name] for name in kept if name in limited}
        _write(Path(root), replace(plan, settings=kept, limited=limited), plans)
    return refused


def read_sweep(root: str | Path) -> SweepPlan:
    """Read the plan of a sweep.

    Raises:
        DataError: If the folder holds none, or a damaged one.
    """
    root = Path(root)
    try:
        stored = read_json(root / FILE)
    except FileNotFoundError:
        raise DataError(f"{root} is not the folder of a sweep: it has no {FILE}") from None
    try:
        limited = {
            name: tuple((fold, seed) for fold, seed in places)
            for name, places in stored["limited"].items()
        }
        plan = SweepPlan(
            TrainConfig.from_json(stored["config"], root / FILE, recorded=False),
            {name: dict(options) for name, options in stored["settings"].items()},
            stored["folds"],
            tuple(stored["seeds"]),
            stored["rolling"],
            limited,
        )
        _check(plan)
        return plan
    except MALFORMED as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{root / FILE} is damaged ({error}); restore it from a copy") from error


def check_folders(root: Path) -> None:
    """Reject a sweep whose settings have other folds or seeds in their folders than in its plan.

    Raises:
        ArgumentError: If a setting has an option that there is none of.
        DataError: If the folds or seeds differ, or a folder is missing.
    """
    plan = read_sweep(root)
    for name, options in plan.settings.items():
        setting_config(plan.config, options)
        file = root / name / WALK_FORWARD
        try:
            stored = read_json(file)
            same = len(stored["folds"]) == plan.folds and stored["seeds"] == list(plan.seeds)
        except (FileNotFoundError, LookupError, TypeError):
            same = False
        if not same:
            raise DataError(
                f"{root / FILE} has {plan.folds} folds and the seeds {shortened(plan.seeds)} of "
                f"setting {name!r}, {file} has not; restore both from a copy"
            )


def cells(root: str | Path) -> list[Cell]:
    """Return the wanted cells of a sweep, or of a walk forward.

    Raises:
        DataError: If the folder is neither, or its plan is damaged.
    """
    root = Path(root)
    if (root / FILE).exists() or not (root / WALK_FORWARD).exists():
        return read_sweep(root).cells()
    stored = read_json(root / WALK_FORWARD)
    try:
        folds, seeds = range(len(stored["folds"])), [int(seed) for seed in stored["seeds"]]
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(f"{root / WALK_FORWARD} is damaged ({error}); restore it") from error
    return [Cell("", fold, seed) for seed in seeds for fold in folds]


def _plans(plan: SweepPlan, known: dict[str, Any]) -> tuple[dict[str, Plan], dict[str, str]]:
    """Return the walk forwards of the settings by name, and why the others cannot be trained."""
    _check(plan)
    plans: dict[str, Plan] = {}
    refused = {}
    for name, options in plan.settings.items():
        try:
            config = replace(setting_config(plan.config, options), seed=plan.seeds[0])
            plans[name] = make_plan(
                config, plan.folds, seeds=plan.seeds, rolling=plan.rolling, known=known
            )
        except ArgumentError as error:
            refused[name] = str(error)
    refused |= refusals({name: each.runs[0] for name, each in plans.items()})  # the shortest past
    return {name: each for name, each in plans.items() if name not in refused}, refused


def _check(plan: SweepPlan) -> None:
    """Reject a plan that ``create_sweep`` cannot have written.

    Raises:
        ArgumentError: With what is wrong.
    """
    check_names(plan.settings)
    check_integer("folds", plan.folds)
    check_seeds(plan.seeds)
    if type(plan.rolling) is not bool:
        raise ArgumentError(f"rolling={shortened(plan.rolling)} must be true or false.")
    count = len(plan.settings) * plan.folds * len(plan.seeds)
    if not 0 < count <= MOST:
        raise ArgumentError(f"it has {count:.3g} cells; a sweep has 1 to {MOST:,}")
    for name, places in plan.limited.items():
        for fold, seed in places:
            if name not in plan.settings or seed not in plan.seeds or fold not in range(plan.folds):
                raise ArgumentError(f"limited: {name!r} has no fold {fold!r} with seed {seed!r}")


def _content(plan: SweepPlan) -> dict[str, Any]:
    content = {
        "config": plan.config.to_json(),
        "settings": plan.settings,
        "folds": plan.folds,
        "seeds": plan.seeds,
        "rolling": plan.rolling,
        "limited": plan.limited,
    }
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def _refuse_others(root: Path, plans: Mapping[str, Plan]) -> None:
    """Reject a folder that holds more than an unfinished call has left."""
    others = [
        path.name
        for path in root.iterdir()
        if not path.name.startswith(".") and path.name not in plans
    ]
    if others:
        raise ArgumentError(
            f"folder {root} holds {others[0]!r} and no sweep; give a new folder for one"
        )


def _write(root: Path, plan: SweepPlan, plans: Mapping[str, Plan]) -> None:
    """Write a plan whose settings were checked into a folder."""
    with one_process(root):
        before = read_sweep(root) if (root / FILE).exists() else None
        if before is None:
            _refuse_others(root, plans)
        else:
            plan = _joined(root, before, plan)
        for name, each in plans.items():
            _write_setting(root / name, each)
        content = _content(plan)
        if before is None:
            write_json(root / FILE, content | started(shlex.join(sys.argv)))
        elif content != _content(before):
            write_json(root / FILE, read_json(root / FILE) | content)


def _joined(root: Path, before: SweepPlan, plan: SweepPlan) -> SweepPlan:
    """Return the plan of a folder with the settings and cells that another adds.

    Raises:
        ArgumentError: If it is no extension.
    """
    first, second = _content(before), _content(plan)
    for name in ("config", "folds", "seeds", "rolling"):
        if first[name] != second[name]:
            differing = (
                [key for key, value in first[name].items() if value != second[name].get(key)]
                if name == "config"
                else [name]
            )
            raise ArgumentError(
                f"the sweep {root} has another {', '.join(differing)}; leave the plan out to "
                "continue it, or give a new folder"
            )
    for name in first["settings"].keys() & second["settings"].keys():
        if first["settings"][name] != second["settings"][name]:
            raise ArgumentError(f"the sweep {root} has another setting {name!r}; rename this one")
    check_names({**before.settings, **plan.settings})
    limited = dict(before.limited)
    for name in plan.settings:
        if name not in plan.limited:
            limited.pop(name, None)
        elif name in limited or name not in before.settings:
            limited[name] = sorted({*limited.get(name, ()), *plan.limited[name]})
    return replace(before, settings={**before.settings, **plan.settings}, limited=limited)


def _write_setting(path: Path, plan: Plan) -> None:
    with one_process(path):
        if not (path / WALK_FORWARD).exists():
            write_plan(path, plan)
            return
        stored = read_json(path / WALK_FORWARD)
        seeds, config = list(plan.seeds), json.loads(json.dumps(plan.config.to_json()))
        same = stored.get("config") == config and stored.get("seeds") == seeds
        if not same or len(stored.get("folds", ())) != len(plan.folds):
            raise ArgumentError(f"{path} holds another walk forward; give a new folder")
