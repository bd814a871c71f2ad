"""The complete state of a training by an algorithm of SB3, from which it resumes exactly.

A checkpoint is an agent's file with one part more: random states, the lanes with their accounts and
episodes, what has been collected, and what has not been logged yet. It is taken between updates.
"""

from __future__ import annotations

import random
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecMonitor

from agents.encoding.market_rows import market_encoders
from agents.saving import KIND, agent_tree, restore_agent
from agents.sb3.buffers import buffer_state, restore_buffer
from agents.sb3.vec_env import SB3VecEnv
from agents.tensors import load_tensors, reason_of, save_tensors
from portfolio_env.errors import MALFORMED, DataError, PortfolioError
from portfolio_env.vector_env import PortfolioVectorEnv

_EPISODE = {"r": np.float32, "l": np.int32, "t": np.float64}  # VecMonitor's record of an episode


def save_training(path: Path, agent: BaseAlgorithm) -> None:
    """Write a checkpoint of an agent that is being trained, between two updates.

    Args:
        path: The file, complete or absent; ``load_agent`` reads it as well.
        agent: An agent of ``make_agent`` in an environment of ``make_sb3_vec_env``, within
            ``learn``.
    """
    for embeddings in market_encoders(agent.policy):
        # What is computed in other batches differs by rounding: both sides of a checkpoint, the
        # training that goes on and the one that resumes, recompute it.
        embeddings.forget()
    save_tensors(path, agent_tree(agent) | {"training": _state(agent)}, kind=KIND)


def restore_training(agent: BaseAlgorithm, path: Path) -> None:
    """Restore a checkpoint into a new agent of the same settings; call ``learn`` right after it.

    Args:
        agent: An agent of ``make_agent`` with its logger, before its first step.
        path: File of ``save_training``.

    Raises:
        DataError: If the file is damaged, or of another training.
        ArgumentError: If its weights are those of another network.
    """
    tree = load_tensors(path, kind=KIND)
    try:
        restore_agent(agent, tree, path)
        _restore(agent, tree["training"])
    except PortfolioError:
        raise
    except (*MALFORMED, RuntimeError) as error:
        raise DataError(
            f"{path} is not a checkpoint of this training ({reason_of(error)})"
        ) from error


def _state(agent: BaseAlgorithm) -> dict[str, Any]:
    monitor, lanes = _environment(agent)
    buffer = getattr(agent, "replay_buffer", None)
    episodes = agent.ep_info_buffer or ()
    return {
        "random": _random_state(agent),
        "lanes": lanes.state(),
        "monitor": {
            "returns": monitor.episode_returns,
            "lengths": monitor.episode_lengths,
            "count": monitor.episode_count,
        },
        "episodes": {
            key: np.array([episode[key] for episode in episodes], dtype)
            for key, dtype in _EPISODE.items()
        },
        "episode_starts": agent._last_episode_starts,
        "buffer": None if buffer is None else buffer_state(buffer),
        "logged": _log_state(agent.logger),
    }


def _restore(agent: BaseAlgorithm, state: dict[str, Any]) -> None:
    monitor, lanes = _environment(agent)
    agent._last_obs = lanes.restore(state["lanes"])
    monitor.episode_returns = state["monitor"]["returns"].copy()
    monitor.episode_lengths = state["monitor"]["lengths"].copy()
    monitor.episode_count = state["monitor"]["count"]
    columns = state["episodes"]
    rows = zip(*(columns[key] for key in _EPISODE), strict=True)
    episodes = (dict(zip(_EPISODE, row, strict=True)) for row in rows)
    agent.ep_info_buffer = deque(episodes, maxlen=agent._stats_window_size)
    agent.ep_success_buffer = deque(maxlen=agent._stats_window_size)
    agent._last_episode_starts = state["episode_starts"]
    if state["buffer"] is not None:
        restore_buffer(agent.replay_buffer, state["buffer"])  # type: ignore[attr-defined]  # off-policy
    _restore_log(agent.logger, state["logged"])
    _restore_random(agent, state["random"])


def _environment(agent: BaseAlgorithm) -> tuple[VecMonitor, PortfolioVectorEnv]:
    monitor = agent.get_env()
    if isinstance(monitor, VecMonitor) and isinstance(monitor.venv, SB3VecEnv):
        lanes = monitor.venv.venv
        if isinstance(lanes, PortfolioVectorEnv):
            return monitor, lanes
    raise TypeError("the agent's environment was not made by make_sb3_vec_env")


def _random_state(agent: BaseAlgorithm) -> dict[str, Any]:
    """Return the state of every generator that a training draws from."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": th.get_rng_state(),
        "cuda": th.cuda.get_rng_state(agent.device) if agent.device.type == "cuda" else None,
        "actions": agent.action_space.np_random.bit_generator.state,
    }


def _restore_random(agent: BaseAlgorithm, state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    th.set_rng_state(state["torch"])
    if state["cuda"] is not None and agent.device.type == "cuda":
        th.cuda.set_rng_state(state["cuda"], agent.device)
    agent.action_space.np_random.bit_generator.state = state["actions"]


def _log_state(logger: Logger) -> dict[str, Any]:
    """Return the numbers that wait for the next dump of the log."""
    values = logger.name_to_value.items()
    numbers = {name: float(value) for name, value in values if isinstance(value, np.ScalarType)}
    return {
        "values": numbers,
        "counts": dict(logger.name_to_count),
        "excluded": dict(logger.name_to_excluded),
    }


def _restore_log(logger: Logger, state: dict[str, Any]) -> None:
    logger.name_to_value.update(state["values"])
    logger.name_to_count.update(state["counts"])
    logger.name_to_excluded.update(state["excluded"])
