"""The folder of a training run: everything needed to repeat, resume and evaluate it."""

import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from stable_baselines3.common.base_class import BaseAlgorithm

from agents.direct.agent import DirectAgent
from agents.run_market import (
    FEATURES,
    PRICES,
    continued_market,
    pipeline_of,
    run_market,
    write_prices,
)
from agents.saving import load_agent
from agents.sb3.algorithms import policy_for, torch_device
from agents.sb3.vec_env import make_sb3_vec_env
from agents.settings.market import SUPERVISED, RunConfig
from agents.settings.plugins import FILE as PLUGINS
from agents.settings.plugins import admit_plugins, check_names, write_record
from agents.tensors import SUFFIX
from agents.training.config import DEPENDENT, Range, TrainConfig
from agents.training.training_state import save_training
from portfolio_env import Market, PortfolioEnv, PricePanel, env_info
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.atomic import is_writable, locked, read_json, write_json
from portfolio_env.files.removal import refuse_links
from portfolio_env.html import card
from portfolio_env.live.predictor import Predictor
from portfolio_env.market.timeline import time_text
from portfolio_env.names import last_name

FORMAT = 2
CONFIG = "config.json"
IDENTITY = "run.json"  # the first format had none
OLD_VERSIONS = "versions.json"  # only in the first format
OLD_FORMAT = (
    "{0} is of the old format, whose files could run code; first: "
    "python -m agents.store convert {0}"
)
WALK_FORWARD = "walk_forward.json"
CHECKPOINTS = "checkpoints"
KEPT_CHECKPOINTS = 2
LOCK = ".lock"
FAILED = "failed.json"
"""Why the runs of a sweep ended in errors, see ``agents.sweep.queue``."""
_EVALUATIONS = ".evaluation.lock"  # held while others are counted
_BEFORE_CONFIG = (LOCK, FAILED, ".writing-", IDENTITY, PLUGINS, "market.json", FEATURES, PRICES)


@dataclass(frozen=True, repr=False)
class Run:
    """A training run read back from its folder.

    Attributes:
        path: The folder.
        config: Settings of the run, as in its config.json.
        market: The market with the features the model was trained on.
        ranges: Rows of the market, half-open, for "train", "validation" and "test", and "after" for
            what came after the run's own data.
        env_options: Keywords of ``PortfolioEnv`` for evaluation; the caller adds market, start and
            end.
        model: The trained agent, for all of the market's assets.
        news: Differences of the market from the one that the run was trained on, a sentence each.
    """

    path: Path
    config: dict[str, Any]
    market: Market
    ranges: dict[str, Range]
    env_options: dict[str, Any]
    model: BaseAlgorithm | DirectAgent
    news: tuple[str, ...] = ()

    def predictor(self, market: Market | PricePanel | None = None) -> Predictor:
        """Return a predictor of a copy of the agent, to which later bars are given as they come.

        Args:
            market: Bars that continue those of the training; their features are computed as for
                it. None is the market of the run.

        Raises:
            DataError: If the bars contradict those of the training.
            ArgumentError: If the policy cannot read the market.
        """
        own = self.market
        if market is not None:
            panel = market.panel if isinstance(market, Market) else market
            own = continued_market(self.path, read_config(self.path), panel).market
        agent: Any
        if isinstance(self.model, DirectAgent):
            agent = deepcopy(self.model)
            agent.bind(own)
        else:
            agent = policy_for(self.model, make_sb3_vec_env(own, **self.env_options))
        pipeline = pipeline_of(self.path) if (self.path / FEATURES).exists() else None
        return Predictor(agent, PortfolioEnv(own, **self.env_options), pipeline)

    def __repr__(self) -> str:
        facts = self._facts()
        return f"Run({facts['folder']}: {facts['agent']}; {facts['market']}; test {facts['test']})"

    def _repr_html_(self) -> str | None:
        return card("Run", self._facts())

    def _facts(self) -> dict[str, str]:
        """Return the main facts of the run by name."""
        names = ("algo", "policy", "encoder", "seed", "timesteps")
        description = [f"{name} {self.config[name]}" for name in names if name in self.config]
        times = self.market.timestamps
        dates = {
            name: f"{time_text(times[start])} to {time_text(times[end - 1])}"
            for name, (start, end) in self.ranges.items()
        }
        market = f"{self.config.get('market')}, {self.market!r}"
        return {
            "folder": str(self.path),
            "agent": ", ".join(description),
            "market": market,
            **dates,
        }


def load_run(
    path: str | Path,
    *,
    model: Literal["final", "best"] = "final",
    device: str = "auto",
    data: str | Path | None = None,
    market: str | None = None,
) -> Run:
    """Read a run folder.

    The data of the run may have grown since, or been rescaled by their provider: what it was
    trained on is recognised by its returns. The features are scaled as they were for training.

    Args:
        path: The run folder.
        model: The model at the end of the training, or the best one on the validation range. A
            run that was stopped has no final model: its latest checkpoint is taken.
        device: Torch device of the model.
        data: File or folder of newer data of the same market, in place of the run's own.
        market: Another market instead, cut into ranges by the run's settings; nothing there was
            learned from.

    Raises:
        DataError: If the folder is not a run, holds no model yet, or the data contradict those that
            the run was trained on, with the first bar and asset that differ.
        ArgumentError: If the policy cannot read the market.
    """
    path = Path(path)
    config = read_config(path)
    found = run_market(path, config, data=data, market=market)
    agent = load_model(path, config, found.market, model=model, device=device)
    options = config.env_options()
    return Run(path, config.to_json(), found.market, found.ranges, options, agent, found.news)


def load_model(
    path: Path, config: TrainConfig, market: Market, *, model: str, device: str
) -> BaseAlgorithm | DirectAgent:
    """Return the agent of a run, for the market that the run was trained on; see ``load_run``."""
    file = model_file(path, model)
    if config.algo == "direct":
        direct = DirectAgent.load(file, device=torch_device(device), within=_whole(path))
        direct.bind(market)
        return direct
    venv = make_sb3_vec_env(market, **config.env_options())
    return load_agent(file, venv, device=device, within=_whole(path))


def model_file(path: Path, model: str) -> Path:
    """Return the file of a run's final or best model, or its latest checkpoint without one."""
    file = path / f"{model}_model{SUFFIX}"
    if not file.exists():
        checkpoint = latest_checkpoint(path)
        if checkpoint is None:
            raise DataError(f"{path} holds no model yet; train it further with --resume {path}")
        return checkpoint
    return file


def read_config(path: Path, *, importing: bool = True) -> TrainConfig:
    """Read the settings of a run.

    Args:
        path: Folder of the run.
        importing: The plug-ins that they name are to be imported: their sources are looked for, and
            a line says which have changed.

    Raises:
        DataError: If the folder is not a run, or one of the first format, or names plug-ins that it
            may not, see ``portfolio_env.files.plugins.admit``.
        ArgumentError: If the source of a plug-in is not found.
    """
    try:
        settings = read_json(path / "config.json")
    except FileNotFoundError:
        other = (path / SUPERVISED).is_file()
        hint = "; it is a supervised run, of python -m agents.supervised" if other else ""
        raise DataError(f"{path} is not a run folder: it has no config.json{hint}") from None
    if importing:
        admit_plugins(path, settings, within=_whole(path))
    else:
        check_names(path, settings)
    config = TrainConfig.from_json(settings, path / "config.json")
    for name in DEPENDENT:
        if getattr(config, name) is None:
            raise DataError(
                f"{path / 'config.json'}: {name} is None, but a run has a number; restore it"
            )
    if is_old_run(path):
        raise DataError(OLD_FORMAT.format(path))
    return config


def _whole(path: Path) -> Path:
    """Return the folder that a run came in: its own, or that of its walk forward."""
    above = path.resolve().parents[1:2]
    return above[0] if above and (above[0] / WALK_FORWARD).is_file() else path


def is_old_run(path: Path) -> bool:
    """Return whether a run is of the first format, which kept pickles."""
    return not (path / IDENTITY).exists() and (path / OLD_VERSIONS).exists()


def new_folder(config: RunConfig, name: str) -> Path:
    """Return the folder for a new run: ``config.out``, or one within ``config.runs``.

    Args:
        config: Settings.
        name: Last part of the folder's name, after the market.

    Raises:
        ArgumentError: If the folder exists and is not empty.
    """
    market = last_name(Path(config.market).stem.split("?")[0])
    path = Path(config.out) if config.out else Path(config.runs) / f"{market}__{name}"
    refuse_filled(path)
    return path


def refuse_filled(path: Path) -> None:
    """Raise ArgumentError if a folder holds more than a process killed at its start leaves."""
    if path.is_file():
        raise ArgumentError(f"out={str(path)!r} must be a folder; it is a file")
    if path.exists() and not all(file.name.startswith(_BEFORE_CONFIG) for file in path.iterdir()):
        raise ArgumentError(f"folder {path} is not empty; pass another out, or resume it")


@contextmanager
def one_process(path: Path) -> Iterator[None]:
    """Lock a folder, which is created if missing, against other processes that write to it.

    Raises:
        BusyError: On entering, if another process writes to it.
        DataError: On entering, if something in it is a link.
    """
    refuse_links(path)
    busy = f"another process is at work in {path}; wait for its end, or stop it first"
    with locked(path / LOCK, busy=busy):
        yield


@contextmanager
def evaluating(path: Path | None) -> Iterator[None]:
    """Lock a run, if any, against removal and conversion while it is evaluated, by several too.

    A folder without the right to write has no lock: nothing is removed there either.

    Raises:
        DataError: On entering, if something in the folder is a link.
    """
    if path is not None:
        refuse_links(path)
    if path is None or not is_writable(path):
        yield
        return
    with ExitStack() as held:
        with locked(path / _EVALUATIONS):
            locks = (path / f".evaluation-{number}.lock" for number in count())
            held.enter_context(locked(next(lock for lock in locks if not is_locked(lock))))
        yield


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Lock a folder against all other processes, trainings and evaluations alike.

    Raises:
        DataError: On entering, if another is at work there, or something in it is a link.
    """
    with one_process(path), locked(path / _EVALUATIONS):
        if any(map(is_locked, path.glob(".evaluation-*.lock"))):
            raise DataError(f"{path} is being evaluated; wait for the end of that")
        yield


def is_locked(lock: Path) -> bool:
    """Return whether a process holds a lock."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # nobody can lock it here, e.g. on a medium that is read-only
        return False


def create_run(
    path: Path,
    config: RunConfig,
    market: Market,
    ranges: dict[str, Range],
    command: str,
    file: str = CONFIG,
) -> None:
    """Write all that is known of a new run before training.

    Args:
        path: Folder of the run.
        config: Resolved settings.
        market: Market with fitted features.
        ranges: Rows of each range.
        command: The command that started the run.
        file: Name of the file of the settings.

    Raises:
        ArgumentError: If the folder is not empty.
    """
    refuse_filled(path)
    write_json(path / IDENTITY, started(command))
    write_record(path, config.to_json())
    write_json(path / "market.json", _describe(config, market, ranges))
    write_json(path / FEATURES, market.panel.provenance["features"])
    write_prices(path / PRICES, market.panel)
    write_json(path / file, config.to_json())  # last: its presence makes the folder a run


def save_checkpoint(path: Path, agent: BaseAlgorithm) -> Path:
    """Save everything that a training needs to resume exactly, and remove older checkpoints."""
    file = path / CHECKPOINTS / f"{agent.num_timesteps:012d}{SUFFIX}"
    save_training(file, agent)
    for old in _checkpoints(path)[:-KEPT_CHECKPOINTS]:
        old.unlink()
    return file


def latest_checkpoint(path: Path) -> Path | None:
    """Return the newest checkpoint of a run, if it has one."""
    return next(reversed(_checkpoints(path)), None)


def _checkpoints(path: Path) -> list[Path]:
    files = (path / CHECKPOINTS).glob(f"*{SUFFIX}")
    return sorted(file for file in files if re.fullmatch("[0-9]{12,}", file.stem))


def started(command: str) -> dict[str, Any]:
    """Return a new run's unique id, start, command and environment.

    Args:
        command: The command that starts it.
    """
    return {
        "format": FORMAT,
        "id": secrets.token_hex(6),
        "started": datetime.now(UTC).isoformat(timespec="microseconds"),
        "command": command,
        "environment": env_info(),
    }


def _describe(config: RunConfig, market: Market, ranges: dict[str, Range]) -> dict[str, Any]:
    times = market.timestamps
    return {
        "name": config.market,
        "hash": market.hash,
        "n_bars": market.n_bars,
        "assets": list(market.assets),
        "feature_names": list(market.feature_names),
        "periods_per_year": market.periods_per_year,
        "ranges": {name: list(rows) for name, rows in ranges.items()},
        "last": str(times[-1]),
        "dates": {name: [str(times[s]), str(times[e - 1])] for name, (s, e) in ranges.items()},
        "provenance": {k: v for k, v in market.panel.provenance.items() if k != "features"},
    }
