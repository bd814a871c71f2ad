"""Records of runs and walk forwards in the store, read from their own files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.settings.market import SUPERVISED
from agents.tensors import SUFFIX
from agents.training.run_folder import (
    CONFIG,
    IDENTITY,
    LOCK,
    OLD_FORMAT,
    WALK_FORWARD,
    is_locked,
    is_old_run,
    latest_checkpoint,
)
from portfolio_env.errors import ArgumentError, DataError, PortfolioError
from portfolio_env.evaluation.usage_log import read_usage_log
from portfolio_env.files.atomic import read_json, refuse_file
from portfolio_env.files.removal import is_link
from portfolio_env.names import last_name

CARD = "card.json"
HISTORY = "history.json"  # of a supervised run, its epochs
MODELS = ("best", "final")
MALFORMED = (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError)
"""What reading a file raises that holds other things than its writer puts there."""


@dataclass(frozen=True)
class Record:
    """One run, of an agent or a forecaster, or one walk forward with its runs.

    Attributes:
        path: Folder of the run.
        id: 12 hexadecimal digits that it keeps wherever it is moved; "" in the first format.
        algo: Algorithm; of a supervised run the task.
        market: Name of the market.
        seeds: Seeds of the runs.
        started: ISO time, UTC; "" in the first format.
        state: "running", "finished", "stopped 40%", "3 of 6 trained" or "old format".
        excess: Yearly log growth above equal weight on the validation range of the best model, or
            the mean of those of a walk forward; None if it is not known.
        uses: Number of evaluations on its test range.
        runs: Folders of the runs of a walk forward.
    """

    path: Path
    id: str
    algo: str
    market: str
    seeds: tuple[int, ...]
    started: str
    state: str
    excess: float | None
    uses: int
    runs: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        """Reject values that are not texts, which a foreign file may hold."""
        for name in ("id", "algo", "market", "started"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name}, which is {getattr(self, name)!r:.60} and no text")


def is_run(path: Path) -> bool:
    """Return whether a folder holds a run, of any kind, or a walk forward."""
    return any((path / name).is_file() for name in (CONFIG, WALK_FORWARD, SUPERVISED))


def is_supervised(path: Path) -> bool:
    """Return whether a folder holds a supervised run."""
    return (path / SUPERVISED).is_file()


def read_record(path: Path) -> Record:
    """Return the record of a folder.

    Raises:
        DataError: If it is none of a run, or a file of it is damaged.
    """
    if not is_run(path):
        raise DataError(
            f"{path} is not a run folder: it has none of {CONFIG}, {WALK_FORWARD}, {SUPERVISED}"
        )
    try:
        if (path / WALK_FORWARD).is_file():
            return _walk_forward(path)
        return _supervised(path) if is_supervised(path) else _run(path)
    except MALFORMED as error:
        if isinstance(error, PortfolioError):
            raise
        raise DataError(f"{path} is damaged: its files lack {error}; restore it") from error


def read_records(store: Path) -> tuple[list[Record], list[str]]:
    """Return every run of a store, the oldest first, and the errors of unreadable ones."""
    found, problems = [], []
    for path in folders(store):
        try:
            found.append(read_record(path))
        except DataError as error:
            problems.append(str(error))
    return sorted(found, key=lambda record: (record.started, record.path)), problems


def folders(store: Path) -> Iterator[Path]:
    """Return the folders of a store that hold runs; those of unfinished operations are hidden.

    Raises:
        ArgumentError: If the store is a file.
    """
    refuse_file("runs", store)
    if store.is_dir():
        for path in sorted(store.iterdir()):
            if not path.name.startswith(".") and path.is_dir() and is_run(path):
                yield path


def find(name: str, store: Path) -> Path:
    """Return the folder of a path, a folder's name, or the beginning of an id.

    Raises:
        ArgumentError: If there is none, or several ids begin so.
    """
    for path in (store / name, Path(name)):
        if is_run(path):
            return path
    begun = [
        path
        for path in folders(store)
        if re.fullmatch("[0-9a-f]+", name) and id_of(path).startswith(name)
    ]
    if len(begun) == 1:
        return begun[0]
    if begun:
        raise ArgumentError(
            f"{len(begun)} runs of {store} have an id that begins with {name}: "
            f"{', '.join(path.name for path in begun)}; give more of it, or the folder"
        )
    raise ArgumentError(
        f"{name!r} is not a run: neither a folder, nor a name or the beginning of an id in "
        f"{store}; see: python -m agents.store list"
    )


def identity(path: Path) -> dict[str, Any]:
    """Return id, start, command and environment of a run; {} in the first format."""
    file = path / (WALK_FORWARD if (path / WALK_FORWARD).is_file() else IDENTITY)
    return read_json(file) if file.is_file() else {}


def id_of(path: Path) -> str:
    """Return the id of a run; "" if its files do not state it."""
    try:
        return str(identity(path).get("id", ""))
    except DataError:
        return ""


def is_old(path: Path) -> bool:
    """Return whether a run, or a walk forward by one of its runs, is of the first format."""
    if (path / WALK_FORWARD).is_file():
        return "id" not in identity(path) or any(map(is_old, member_runs(path)))
    return is_old_run(path)


def refuse_old(path: Path) -> None:
    """Reject a run or a walk forward of the first format.

    Raises:
        DataError: With the command that converts it.
    """
    if is_old(path):
        raise DataError(OLD_FORMAT.format(path))


def member_runs(path: Path) -> list[Path]:
    """Return the folders of the runs of a walk forward, without following links."""
    return [
        folder
        for folder in sorted(path.glob("fold_[0-9]*/seed_[0-9]*"))
        if is_run(folder) and not (is_link(folder) or is_link(folder.parent))
    ]


def is_running(path: Path) -> bool:
    """Return whether a process is at work in a folder."""
    return is_locked(path / LOCK)


def is_finished(path: Path) -> bool:
    """Return whether a run is trained to its end."""
    return all((path / f"{model}_model{SUFFIX}").is_file() for model in MODELS)


def is_complete(path: Path) -> bool:
    """Return whether nothing is left to do for a run: its models and its card are written."""
    return is_finished(path) and (path / CARD).is_file()


def market_name(market: str) -> str:
    """Return the short name of a market that a configuration names."""
    return last_name(Path(market).stem.split("?")[0])


def _run(path: Path) -> Record:
    config, known = read_json(path / "config.json"), identity(path)
    return Record(
        path,
        known.get("id", ""),
        config["algo"],
        market_name(config["market"]),
        (int(config["seed"]),),
        known.get("started", ""),
        "old format" if is_old_run(path) else _state(path, config),
        _excess(path),
        len(read_usage_log(path)),
    )


def _supervised(path: Path) -> Record:
    config, known = read_json(path / SUPERVISED), identity(path)
    if (path / CONFIG).is_file():
        raise ValueError(f"one kind: {CONFIG} and {SUPERVISED}")
    if (path / CARD).is_file() and read_json(path / CARD)["judged"]:
        state = "finished"
    elif is_running(path):
        state = "running"
    else:
        done = read_json(path / HISTORY)["epochs"] if (path / HISTORY).is_file() else []
        state = f"stopped {len(done) / config['fit']['epochs']:.0%}"
    return Record(
        path,
        known.get("id", ""),
        config["task"],
        market_name(config["market"]),
        (int(config["seed"]),),
        known.get("started", ""),
        state,
        None,
        len(read_usage_log(path)),
    )


def _walk_forward(path: Path) -> Record:
    plan, runs = read_json(path / WALK_FORWARD), member_runs(path)
    config, count = plan["config"], len(plan["folds"]) * len(plan["seeds"])
    if not count or (path / "config.json").is_file():
        raise ValueError("folds and seeds of their own")
    finished = sum(map(is_finished, runs))
    state = "finished" if finished == count else f"{finished} of {count} trained"
    if is_old(path):
        state = "old format"
    elif is_running(path):
        state = "running"
    known = [each for each in map(_excess, runs) if each is not None]
    return Record(
        path,
        plan.get("id", ""),
        config["algo"],
        market_name(config["market"]),
        tuple(map(int, plan["seeds"])),
        plan.get("started", ""),
        state,
        sum(known) / len(known) if known else None,
        len(read_usage_log(path)),
        tuple(runs),
    )


def _state(path: Path, config: dict[str, Any]) -> str:
    if is_finished(path):
        return "finished"
    if is_running(path):
        return "running"
    checkpoint = latest_checkpoint(path)
    steps = int(checkpoint.stem) if checkpoint is not None else 0
    return f"stopped {steps / config['timesteps']:.0%}"


def _excess(path: Path) -> float | None:
    """Return the best model's edge on validation."""
    if (path / CARD).is_file():
        best = read_json(path / CARD)["validation"]["models"].get("best", {})
        if best.get("excess_growth") is not None:
            return float(best["excess_growth"])
    given = [each["excess_growth"] for each in validations(path)]
    return max((float(each) for each in given if each is not None), default=None)


def validations(path: Path) -> list[dict[str, Any]]:
    """Return the validation backtests that were made while a run was trained by RL."""
    file = path / "validation.json"
    if not file.is_file():
        return []
    found: list[dict[str, Any]] = read_json(file, bare="validations")["validations"]
    return found
