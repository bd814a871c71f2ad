"""Conversion of runs of the first format to the present one.

The first format kept agents in zips of Stable-Baselines3, whose settings are pickles: loading them
runs any code that their author has put there. Here the settings are taken from ``config.json``, and
of the zips nothing but tensors and plain numbers is read.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.save_util import load_from_zip_file

from agents.direct.agent import DirectAgent
from agents.fitting import KIND as FIT
from agents.run_market import check_market
from agents.saving import COUNTERS, give_parameters, load_zip, save_agent
from agents.sb3.algorithms import policy_for
from agents.sb3.buffers import restore_buffer
from agents.sb3.vec_env import make_sb3_vec_env
from agents.settings.plugins import admit_plugins
from agents.tensors import SUFFIX, save_tensors
from agents.training.cards import validate_models, write_card
from agents.training.config import Range, TrainConfig
from agents.training.curriculum import KIND as WEIGHTS
from agents.training.run_folder import (
    CHECKPOINTS,
    FORMAT,
    IDENTITY,
    OLD_VERSIONS,
    WALK_FORWARD,
    alone,
    load_model,
)
from agents.training.run_records import MODELS, identity, is_old, member_runs
from agents.training.train import new_agent
from agents.training.training_state import save_training
from portfolio_env import Market, PortfolioEnv
from portfolio_env.errors import MALFORMED, DataError
from portfolio_env.evaluation import backtest
from portfolio_env.evaluation.backtest import Policy
from portfolio_env.evaluation.usage_log import FILE as LOOKS
from portfolio_env.files.atomic import read_json, write_json
from portfolio_env.files.removal import remove_folder

_TREES = {
    "encoder.pt": WEIGHTS,
    "stage_1.pt": FIT,
    "stage_2.pt": FIT,
    f"{CHECKPOINTS}/direct.pt": FIT,
}
_LISTS = {"validation.json": "validations", LOOKS: "looks"}  # which the first format wrote bare
_BROKEN = (*MALFORMED, BadZipFile, EOFError, OSError, RuntimeError, UnpicklingError)


def convert(path: Path, *, trust: bool = False) -> Iterator[str]:
    """Convert a run or a walk forward of the first format to the present one.

    The new files are written, read back and compared: over the validation range the agent must act
    as before, bit for bit. Only then are the old files removed. A conversion that was killed is
    begun again. A training that was stopped can be resumed, with new episodes.

    Args:
        path: Folder of the run.
        trust: Compare with what SB3's own loading makes of the old files too. That runs any code
            that their author has put there, so it is for files whose author you know.

    Yields:
        What was done, in sentences.

    Raises:
        DataError: If it is of this format already, its market has changed since, a file is
            damaged, or the agent does not act as before.
    """
    runs = member_runs(path) if (path / WALK_FORWARD).is_file() else [path]
    if not is_old(path) and not any(map(_old_files, runs)):
        raise DataError(f"{path} is of this format already; nothing was done")
    with ExitStack() as locks:
        for folder in dict.fromkeys((path, *runs)):
            locks.enter_context(alone(folder))
        for run in runs:
            if is_old(run):
                yield from _convert_run(run, trust)
            removed = _old_files(run)
            for file in removed:
                remove_folder(file) if file.is_dir() else file.unlink()
            yield f"{run}: {len(removed)} old files removed"
        if is_old(path):  # a walk forward, whose runs are done
            plan, first = read_json(path / WALK_FORWARD), identity(runs[0])
            write_json(path / WALK_FORWARD, plan | first | {"id": secrets.token_hex(6)})
            write_card(path)
            yield f"{path}: converted"


def _convert_run(path: Path, trust: bool) -> Iterator[str]:
    settings = read_json(path / "config.json")
    admit_plugins(path, settings)
    config = TrainConfig.from_json(settings)
    market, ranges = config.load_market()
    check_market(path, config, market)
    for name in MODELS:
        file = path / f"{name}_model.zip"
        if not file.exists():
            continue
        venv = make_sb3_vec_env(market, **config.env_options())
        policies: list[Policy] = [_convert_model(file, config, market, ranges)]
        policies.append(load_model(path, config, market, model=name, device="cpu"))
        if trust and config.algo != "direct":
            policies.append(load_zip(config.algo, file, venv, trust=True, device="cpu"))
        _compare(policies, file, config, market, ranges["validation"])
        yield f"{path}: the {name} model acts as before on all of the validation range"
    for old, kind in _TREES.items():
        if (path / old).exists():
            save_tensors((path / old).with_suffix(SUFFIX), _loaded(path / old), kind=kind)
    for folder in sorted(_checkpoints(path))[-1:]:
        _convert_checkpoint(folder, config, market, ranges)
    for file in path.glob("*.json"):
        write_json(file, read_json(file, bare=_LISTS.get(file.name)))
    described = read_json(path / "market.json")
    write_json(path / "market.json", described | {"feature_names": list(market.feature_names)})
    figures = validate_models(path, config, market, ranges)
    write_json(path / IDENTITY, _identity(path))  # from here on it is of this format
    write_card(path, figures)


def _convert_model(
    file: Path, config: TrainConfig, market: Market, ranges: dict[str, Range]
) -> Policy:
    """Rewrite the agent of a zip; return the agent as it was read, for all of the market."""
    if config.algo == "direct":
        content = _loaded(file)
        try:
            tree = {"config": json.loads(content["config"]), "weights": content["weights"]}
            direct = DirectAgent.of_tree(tree, file)
        except _BROKEN as error:
            raise DataError(f"{file} holds no agent ({error!r})") from error
        direct.bind(market)
        direct.save(file.with_suffix(SUFFIX))
        return direct
    agent = _read_zip(file, config, market, ranges)
    save_agent(agent, file.with_suffix(SUFFIX))
    policy: Policy = policy_for(agent, make_sb3_vec_env(market, **config.env_options()))
    return policy


def _read_zip(
    file: Path, config: TrainConfig, market: Market, ranges: dict[str, Range]
) -> BaseAlgorithm:
    """Return the agent of an SB3 zip; none of its pickles is read."""
    agent = new_agent(config, market, ranges)
    try:
        _, parameters, variables = load_from_zip_file(file, device="cpu", load_data=False)
        with ZipFile(file) as archive:
            plain = json.loads(archive.read("data"))
        for name in COUNTERS:
            setattr(agent, name, int(plain[name]))
    except _BROKEN as error:
        raise DataError(
            f"{file} is damaged, or no agent of {config.algo} ({_reason(error)})"
        ) from error
    give_parameters(agent, parameters, variables or {}, file)
    return agent


def _convert_checkpoint(
    folder: Path, config: TrainConfig, market: Market, ranges: dict[str, Range]
) -> None:
    """Rewrite a checkpoint; the first format kept no episodes, so that new ones begin."""
    agent = _read_zip(folder / "model.zip", config, market, ranges)
    agent.set_random_seed(config.seed + agent.num_timesteps)
    file = folder / "replay_buffer.npz"
    if file.exists():
        try:
            with np.load(file, allow_pickle=False) as stored:
                columns = {name: stored[name] for name in stored.files}
            state = {name: columns.pop(name).item() for name in ("pos", "full")}
            restore_buffer(agent.replay_buffer, state | {"columns": columns})  # type: ignore[attr-defined]
        except _BROKEN as error:
            raise DataError(f"{file} is damaged ({error!r}); restore it from a copy") from error
    agent.set_logger(Logger(None, []))
    agent._setup_learn(config.timesteps or 0, None, reset_num_timesteps=False)
    save_training(folder.with_suffix(SUFFIX), agent)


def _compare(
    policies: list[Policy], file: Path, config: TrainConfig, market: Market, rows: Range
) -> None:
    """Reject policies that do not all act the same, bit for bit, on a range."""
    start = max(rows[0], market.warmup + config.observed + config.delay - 1)
    accounts = [
        backtest(policy, PortfolioEnv(market, start=start, end=rows[1], **config.env_options()))
        for policy in policies
    ]
    for other in accounts[1:]:
        same = np.array_equal(accounts[0].held, other.held)
        if not same or not np.array_equal(accounts[0].values, other.values):
            raise DataError(
                f"{file} acts differently after its conversion: this version's networks compute "
                "otherwise than those it was trained with; nothing was removed"
            )


def _loaded(file: Path) -> Any:
    """Load a torch file of tensors and plain values; torch rejects anything else."""
    try:
        return th.load(file, map_location="cpu", weights_only=True)
    except _BROKEN as error:
        raise DataError(
            f"{file} is damaged, or holds more than tensors ({_reason(error)})"
        ) from error


def _reason(error: Exception) -> str:
    """Return the cause of an error; torch's own text advises to load what could run code."""
    if isinstance(error, UnpicklingError) or "weights_only" in str(error):
        return "something in it is not a tensor, and could run code"
    return repr(error).partition("\\n")[0]


def _identity(path: Path) -> dict[str, Any]:
    """Return the identity that the first format kept in two files."""
    command, versions = path / "command.txt", read_json(path / OLD_VERSIONS)
    started = datetime.fromtimestamp(command.stat().st_mtime, UTC)
    known = {name: versions.pop(name) for name in ("python", "platform")}
    return {
        "format": FORMAT,
        "id": secrets.token_hex(6),
        "started": started.isoformat(timespec="microseconds"),
        "command": command.read_text(encoding="utf-8").strip(),
        "environment": known | {"packages": versions},
    }


def _checkpoints(path: Path) -> list[Path]:
    folders = (path / CHECKPOINTS).glob("[0-9]*")
    return [each for each in folders if each.name.isdigit() and (each / "model.zip").is_file()]


def _old_files(path: Path) -> list[Path]:
    """Return the files that are left of the first format."""
    names = [OLD_VERSIONS, "command.txt", *_TREES, *(f"{name}_model.zip" for name in MODELS)]
    return [file for name in names if (file := path / name).is_file()] + _checkpoints(path)
