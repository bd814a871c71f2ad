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
from agents.buffers import load_buffer
from agents.callbacks import CheckpointCallback, PortfolioMetrics, ValidationCallback
from agents.config import Range, TrainConfig
from agents.curriculum import direct_agent, hand_on, pretrained, record_numbers
from agents.direct_training import DirectOptions, DirectTrainer
from agents.encoder_callbacks import (
    EncoderFigures,
    FrozenStart,
    PredictionLoss,
    record_figures,
)
from agents.fitting import run_rounds
from agents.run_folder import (
    create_run,
    latest_checkpoint,
    load_checked_market,
    read_config,
    save_model,
)
from agents.vec_env import make_sb3_vec_env
from portfolio_env import Market
from portfolio_env.errors import ArgumentError

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
    learner = _learner(config, market, ranges)  # refuses what cannot be before there is a folder
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = create_run(config, market, ranges, shlex.join(sys.argv), stamp)
    _LOGGER.info("run folder: %s", path)
    return _run(path, config, market, ranges, learner, progress_bar)


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
    learner = _learner(config, market, ranges, latest_checkpoint(path))
    return _run(path, config, market, ranges, learner, progress_bar)


def _learner(
    config: TrainConfig,
    market: Market,
    ranges: dict[str, Range],
    checkpoint: Path | None = None,
) -> BaseAlgorithm | DirectTrainer:
    """What is trained, before its first step or as it was at a checkpoint."""
    assert config.timesteps and config.num_envs  # the settings are resolved
    first, end = market.warmup + config.observed - 1, ranges["train"][1]
    if first >= end - 1:
        raise ArgumentError(
            f"the training range ends at bar {end}, the first with known features and a window of "
            f"{config.observed} is {first}: give a shorter window, or more bars to train on"
        )
    if get_device(config.device).type == "cpu":
        th.set_num_threads(1)  # the networks are small: more threads only wait for each other
    if config.algo == "direct":
        return _direct_trainer(config, market, ranges)
    options = config.env_options() | config.training_options(market, ranges["train"])
    agent = _agent(config, make_sb3_vec_env(market, config.num_envs, **options), checkpoint)
    rollout = getattr(agent, "n_steps", 0) * config.num_envs
    if config.timesteps <= rollout:
        _LOGGER.warning(
            "timesteps %d: the first update comes after %d, when the learning rate has fallen to "
            "0, so nothing is learned; give at least %d",
            config.timesteps,
            rollout,
            2 * rollout,
        )
    return agent


def _run(
    path: Path,
    config: TrainConfig,
    market: Market,
    ranges: dict[str, Range],
    learner: BaseAlgorithm | DirectTrainer,
    progress_bar: bool,
) -> Path:
    logger = configure(str(path / "tb"), ["tensorboard"])
    weights = pretrained(path, config, market, ranges, logger)
    if isinstance(learner, DirectTrainer):
        hand_on(weights, learner.agent.network)
        return _run_direct(path, config, learner, logger)
    if latest_checkpoint(path) is None:
        hand_on(weights, learner.policy)
    return _run_rl(path, config, market, ranges, learner, logger, progress_bar)


def _run_rl(
    path: Path,
    config: TrainConfig,
    market: Market,
    ranges: dict[str, Range],
    agent: BaseAlgorithm,
    logger: Logger,
    progress_bar: bool,
) -> Path:
    assert config.timesteps
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


def _direct_trainer(config: TrainConfig, market: Market, ranges: dict[str, Range]) -> DirectTrainer:
    """Training by the gradient of net growth; timesteps are lanes x steps x iterations."""
    assert config.timesteps and config.num_envs and config.validation_every
    weight = config.prediction_weight or 0.0
    size = config.num_envs * DirectOptions.steps
    return DirectTrainer(
        direct_agent(config, market, forecasts=weight > 0),
        market,
        *ranges["train"],
        validation=ranges["validation"],
        env_options=config.env_options(),
        lanes=config.num_envs,
        iterations=max(1, config.timesteps // size),
        validation_every=max(1, config.validation_every // size),
        universe=config.universe,
        prediction=weight,
        frozen=config.freeze_encoder,
        seed=config.seed,
    )


def _run_direct(path: Path, config: TrainConfig, trainer: DirectTrainer, logger: Logger) -> Path:
    assert config.checkpoint_every
    agent, options = trainer.agent, trainer.options
    run_rounds(
        trainer,
        path / "checkpoints" / "direct.pt",
        lambda numbers, step: record_numbers(logger, numbers, step),
        max(1, config.checkpoint_every // (options.lanes * options.steps)),
    )
    agent.network.load_state_dict(trainer.fit.weights())
    agent.save(path / "final_model.zip")
    assert trainer.validation
    record_figures(
        logger, "", trainer.embeddings, trainer.market, trainer.validation, trainer.returns
    )
    logger.dump(trainer.samples)
    logger.close()
    trainer.restore_best()
    agent.save(path / "best_model.zip")
    return path


def _agent(config: TrainConfig, venv: VecEnv, checkpoint: Path | None) -> BaseAlgorithm:
    """A new agent, or the one of a checkpoint."""
    if checkpoint is None:
        return make_agent(config.algo, venv, **_agent_options(config))
    agent = load_agent(config.algo, checkpoint / "model.zip", venv, device=config.device)
    # Other episodes and noise than those before the checkpoint, which the same seed would repeat.
    agent.set_random_seed(config.seed + agent.num_timesteps)
    buffer, file = getattr(agent, "replay_buffer", None), checkpoint / "replay_buffer.npz"
    if buffer is not None and file.exists():
        load_buffer(buffer, file)
    return agent


def _agent_options(config: TrainConfig) -> dict[str, Any]:
    options: dict[str, Any] = {
        "policy": config.policy,
        "device": config.device,
        "seed": config.seed,
    }
    if config.policy != "flat_mlp":
        options |= {
            "encoder": config.encoder,
            "encoder_kwargs": config.encoder_kwargs,
            "embedding_kwargs": {"forecasts": bool(config.prediction_weight)},
            "window": config.bars,
        }
    if config.algo not in ON_POLICY:
        options["buffer_size"] = min(1_000_000, config.timesteps or 0)
    return options


def _callbacks(
    path: Path, config: TrainConfig, market: Market, ranges: dict[str, Range]
) -> list[BaseCallback]:
    assert config.timesteps and config.validation_every and config.checkpoint_every
    train, validation, every = ranges["train"], ranges["validation"], config.validation_every
    callbacks: list[BaseCallback] = [
        PortfolioMetrics(config.to_json()),
        ValidationCallback(path, market, validation, config.env_options(), every),
        CheckpointCallback(path, config.checkpoint_every),
    ]
    if config.has_encoder:
        callbacks.append(EncoderFigures(market, train, validation, every))
        if config.freeze_encoder:
            callbacks.append(FrozenStart(round(config.freeze_encoder * config.timesteps)))
        if config.prediction_weight:
            callbacks.append(PredictionLoss(config.prediction_weight, market, train, config.seed))
    return callbacks
