"""Training: from settings to a finished run folder, and on from where a stopped one left off."""

import logging
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, configure
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv

from agents.algorithms import ON_POLICY, load_agent, make_agent
from agents.buffers import IndexReplayBuffer
from agents.callbacks import CheckpointCallback, PortfolioMetrics, ValidationCallback
from agents.config import Range, TrainConfig
from agents.curriculum import Record, Weights, direct_agent, load_encoder, pretrained
from agents.direct_training import DirectOptions, DirectTrainer
from agents.run_folder import (
    create_run,
    latest_checkpoint,
    load_checked_market,
    read_config,
    save_model,
)
from agents.vec_env import make_sb3_vec_env
from portfolio_env import Market
from portfolio_env.files import replacing

_LOGGER = logging.getLogger(__name__)


def train(config: TrainConfig, *, progress_bar: bool = False) -> Path:
    """Train an agent from scratch.

    Args:
        config: settings of the run.
        progress_bar: show one on the terminal.

    Returns:
        The run folder.
    """
    config = config.resolved()
    market, ranges = config.load_market()
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = create_run(config, market, ranges, shlex.join(sys.argv), stamp)
    _LOGGER.info("run folder: %s", path)
    return _run(path, config, market, ranges, progress_bar)


def resume(path: str | Path, *, progress_bar: bool = False) -> Path:
    """Train a stopped run to its end, from its latest checkpoint, with its own settings.

    Args:
        path: the run folder.
        progress_bar: show one on the terminal.

    Raises:
        DataError: if the folder is no run, or its market has changed since.
    """
    path = Path(path)
    config = read_config(path)
    market, ranges = load_checked_market(path, config)
    return _run(path, config, market, ranges, progress_bar)


def _run(
    path: Path, config: TrainConfig, market: Market, ranges: dict[str, Range], progress_bar: bool
) -> Path:
    assert config.timesteps and config.num_envs  # the settings are resolved
    if config.algo == "direct":
        return _run_direct(path, config, market, ranges)
    options = config.env_options() | config.training_options(market, ranges["train"])
    if get_device(config.device).type == "cpu":
        th.set_num_threads(1)  # the networks are small: more threads only wait for each other
    logger = configure(str(path / "tb"), ["tensorboard"])
    weights = pretrained(path, config, market, ranges, _recorder(logger))
    venv = make_sb3_vec_env(market, config.num_envs, **options)
    agent = _agent(path, config, venv, weights)
    agent.set_logger(logger)
    agent.learn(
        config.timesteps - agent.num_timesteps,
        callback=_callbacks(path, config, market, ranges),
        reset_num_timesteps=False,
        progress_bar=progress_bar,
    )
    agent.logger.close()
    save_model(path / "final_model.zip", agent)
    return path


def _run_direct(path: Path, config: TrainConfig, market: Market, ranges: dict[str, Range]) -> Path:
    """Train by the gradient of net growth; timesteps are lanes x steps x iterations."""
    assert config.timesteps and config.validation_every and config.checkpoint_every
    agent = direct_agent(config, market)
    if agent.device.type == "cpu":
        th.set_num_threads(1)
    logger = configure(str(path / "tb"), ["tensorboard"])
    load_encoder(agent.network, pretrained(path, config, market, ranges, _recorder(logger)))
    size = DirectOptions.lanes * DirectOptions.steps
    trainer = DirectTrainer(
        agent,
        market,
        *ranges["train"],
        validation=ranges["validation"],
        env_options=config.env_options(),
        iterations=max(1, config.timesteps // size),
        validation_every=max(1, config.validation_every // size),
        universe=config.universe,
        seed=config.seed,
    )
    checkpoint = path / "checkpoints" / "direct.pt"
    if checkpoint.exists():
        trainer.load_state_dict(th.load(checkpoint, weights_only=True))
    while not trainer.finished:
        for name, value in trainer.advance().items():
            logger.record(name, value)
        logger.dump(trainer.iteration * size)
        if trainer.finished or trainer.iteration % max(1, config.checkpoint_every // size) == 0:
            with replacing(checkpoint) as beside:
                th.save(trainer.state_dict(), beside)
    logger.close()
    agent.save(path / "final_model.zip")
    trainer.restore_best()
    agent.save(path / "best_model.zip")
    return path


def _recorder(logger: Logger) -> Record:
    """Writes numbers of a stage to TensorBoard."""

    def record(numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            logger.record(name, value)
        logger.dump(step)

    return record


def _agent(path: Path, config: TrainConfig, venv: VecEnv, encoder: Weights | None) -> BaseAlgorithm:
    """A new agent with the pretrained encoder, or the one of the latest checkpoint."""
    checkpoint = latest_checkpoint(path)
    if checkpoint is None:
        agent = make_agent(config.algo, venv, **_agent_options(config))
        load_encoder(agent.policy, encoder)
        return agent
    agent = load_agent(config.algo, checkpoint / "model.zip", venv, device=config.device)
    # Other episodes and noise than those before the checkpoint, which the same seed would repeat.
    agent.set_random_seed(config.seed + agent.num_timesteps)
    if isinstance(buffer := getattr(agent, "replay_buffer", None), IndexReplayBuffer):
        buffer.load(checkpoint / "replay_buffer.npz")
    return agent


def _agent_options(config: TrainConfig) -> dict[str, Any]:
    options: dict[str, Any] = {
        "policy": config.policy,
        "device": config.device,
        "seed": config.seed,
    }
    if config.policy == "per_asset":
        options |= {
            "encoder": config.encoder,
            "encoder_kwargs": config.encoder_kwargs,
            "embedding_kwargs": {"frozen": True} if config.freeze_encoder else {},
            "window": config.bars,
        }
    if config.algo not in ON_POLICY:
        options["buffer_size"] = min(1_000_000, config.timesteps or 0)
    return options


def _callbacks(
    path: Path, config: TrainConfig, market: Market, ranges: dict[str, Range]
) -> list[BaseCallback]:
    assert config.validation_every and config.checkpoint_every
    validation = ValidationCallback(
        path, market, ranges["validation"], config.env_options(), config.validation_every
    )
    checkpoints = CheckpointCallback(path, config.checkpoint_every)
    return [PortfolioMetrics(config.to_json()), validation, checkpoints]
