"""Training: from settings to a finished run folder, and resuming of a stopped one."""

import logging
import sys
import warnings
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import get_device

from agents.compute.estimate import fitted
from agents.compute.options import set_up
from agents.direct.training import DirectOptions, DirectTrainer, sorted_direct_options
from agents.fitting import refuse_divergence, run_rounds, take_up
from agents.inspection import encoder_figures
from agents.networks.plugins import user_code
from agents.progress import Outlook, bar, duration
from agents.run_market import load_checked_market
from agents.saving import save_agent
from agents.sb3.algorithms import make_agent, torch_device
from agents.sb3.classes import ALGORITHMS, is_on_policy, sorted_options
from agents.sb3.curves import Tracker, check_tracker, curves, hparams_of, write_points
from agents.sb3.vec_env import make_sb3_vec_env
from agents.tensors import SUFFIX
from agents.training.callbacks import (
    CheckpointCallback,
    LogCallback,
    PortfolioMetrics,
    ProbeCallback,
    ProgressCallback,
    ValidationCallback,
)
from agents.training.cards import validate_models, write_card
from agents.training.config import Range, TrainConfig
from agents.training.curriculum import direct_agent, load_pretrained_weights, pretrained, shorter
from agents.training.encoder_callbacks import (
    EncoderFigures,
    FrozenStart,
    PredictionLoss,
)
from agents.training.run_folder import (
    CHECKPOINTS,
    create_run,
    latest_checkpoint,
    new_folder,
    one_process,
    read_config,
)
from agents.training.run_records import id_of, is_finished
from agents.training.training_state import restore_training
from agents.training.validation import Known, Probes
from portfolio_env import Market
from portfolio_env.checks import shortened
from portfolio_env.command_line import command_text
from portfolio_env.errors import ArgumentError, PortfolioError
from portfolio_env.names import last_name

POINTS = 1000  # points of a curve, at most
PROBES = 50  # backtests for curves in a training, at most
_LOGGER = logging.getLogger(__name__)


def train(config: TrainConfig, *, progress_bar: bool = False) -> Path:
    """Train an agent from scratch.

    Args:
        config: Settings of the run.
        progress_bar: Show one on the terminal.

    Returns:
        The run folder.
    """
    parts = _prepared(config)  # rejects invalid settings before there is a folder
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = new_folder(parts[0], f"{last_name(config.algo)}__{config.seed}__{stamp}")
    with one_process(path):
        return _begin(path, *parts, progress_bar)


def resume(path: str | Path, *, progress_bar: bool = False) -> Path:
    """Train a stopped run to its end, from its latest checkpoint, with its own settings.

    Args:
        path: The run folder.
        progress_bar: Show one on the terminal.

    Raises:
        DataError: If the folder is not a run, its market has changed since, or another process is
            at work in it.
    """
    path = Path(path)
    config = read_config(path)
    with one_process(path):
        return _go_on(path, config, progress_bar)


def train_to_end(path: Path, config: TrainConfig, *, progress_bar: bool = False) -> Path:
    """Train the run of a folder to its end, from the beginning or from where it was stopped.

    Args:
        path: The run folder, whose lock the caller holds, see ``one_process``.
        config: Settings of the run; one that was begun has its own.
        progress_bar: Show one on the terminal.
    """
    if (path / "config.json").exists():
        return _go_on(path, read_config(path), progress_bar)
    return _begin(path, *_prepared(config), progress_bar)


def check_trainable(config: TrainConfig, market: Market, ranges: dict[str, Range]) -> None:
    """Reject settings with which no training can begin, whatever the machine.

    The learner is built on the CPU and dropped. Its memory is checked where it is trained.

    Args:
        config: Resolved settings.
        market: Market with fitted features.
        ranges: Rows of each range.

    Raises:
        ArgumentError: As a training would at its start.
    """
    before = _LOGGER.level
    _LOGGER.setLevel(logging.ERROR)  # the training itself warns
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _learner(replace(config, device="cpu"), market, ranges)
    finally:
        _LOGGER.setLevel(before)


def _prepared(
    config: TrainConfig,
) -> tuple[TrainConfig, Market, dict[str, Range], BaseAlgorithm | DirectTrainer]:
    config = config.resolved()
    torch_device(config.device)
    if config.track:
        check_tracker(config.track)
    market, ranges = config.load_market()
    learner = _learner(config, market, ranges)
    return _with_parts(config, market, ranges, learner), market, ranges, learner


def _begin(
    path: Path,
    config: TrainConfig,
    market: Market,
    ranges: dict[str, Range],
    learner: BaseAlgorithm | DirectTrainer,
    progress_bar: bool,
) -> Path:
    create_run(path, config, market, ranges, command_text())
    _LOGGER.info("run folder: %s", path)
    return _run(path, config, market, ranges, learner, progress_bar)


def _go_on(path: Path, config: TrainConfig, progress_bar: bool) -> Path:
    if is_over(path, config):
        _LOGGER.info("%s is trained to its end already; nothing is left to do", path)
    elif config.device.startswith("cuda") and not th.cuda.is_available():
        _LOGGER.warning("torch finds no GPU: %s continues on the CPU", path)
    market, ranges = load_checked_market(path, config)
    learner = _learner(config, market, ranges)
    _with_parts(config, market, ranges, learner)
    return _run(path, config, market, ranges, learner, progress_bar)


def is_over(path: Path, config: TrainConfig) -> bool:
    """Return whether a run has both models and no step of its settings is left."""
    checkpoint = latest_checkpoint(path)  # none of the algorithm "direct"
    steps = int(checkpoint.stem) if checkpoint is not None else config.timesteps
    return is_finished(path) and (steps or 0) >= (config.timesteps or 0)


def _learner(
    config: TrainConfig, market: Market, ranges: dict[str, Range]
) -> BaseAlgorithm | DirectTrainer:
    """Return the trainer of a run, before its first step."""
    assert config.timesteps and config.num_envs  # the settings are resolved
    first, end = market.warmup + config.observed + config.delay - 1, ranges["train"][1]
    if first >= end - 1:
        raise ArgumentError(
            f"the training range ends at bar {end}, the first with known features, a window of "
            f"{config.observed} and a delay of {config.delay} is {first}: shorten window or delay, "
            "or give more bars to train on"
        )
    if get_device(config.device).type == "cpu":
        th.set_num_threads(1)  # the networks are small: more threads only wait for each other
    if config.algo == "direct":
        return _direct_trainer(config, market, ranges)
    agent = new_agent(config, market, ranges)
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


def _with_parts(
    config: TrainConfig,
    market: Market,
    ranges: dict[str, Range],
    learner: BaseAlgorithm | DirectTrainer,
) -> TrainConfig:
    """Return the settings with the parts of a batch, after a check that the training fits."""
    options = config.compute
    wanted = (options.accumulation, options.memory_limit)
    parts = fitted(learner, market, ranges["train"], *wanted)
    options = replace(options, accumulation=parts)
    if isinstance(learner, DirectTrainer):
        learner.parts = parts
    else:
        set_up(options, learner.policy)
    return replace(config, compute=options)


def new_agent(config: TrainConfig, market: Market, ranges: dict[str, Range]) -> BaseAlgorithm:
    """Return the agent of a run by an algorithm of SB3, before its first step.

    Args:
        config: Resolved settings.
        market: Market with fitted features.
        ranges: Rows of each range.
    """
    assert config.num_envs
    options = config.env_options() | config.training_options(market, ranges["train"])
    venv = make_sb3_vec_env(market, config.num_envs, **options)
    given = config.algo_kwargs
    own, of_policy = sorted_options(config.algo, config.policy, given)
    try:
        options = _agent_options(config) | {"policy_kwargs": of_policy} | own
        agent = make_agent(config.algo, venv, **options)
        set_up(config.compute, agent.policy)
        return agent
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        if not given or isinstance(error, PortfolioError):
            raise
        raise ArgumentError(
            f"algo_options {shortened(config.algo_options)} do not fit {config.algo!r} "
            f"({type(error).__name__}: {error})"
        ) from error


def _run(
    path: Path,
    config: TrainConfig,
    market: Market,
    ranges: dict[str, Range],
    learner: BaseAlgorithm | DirectTrainer,
    progress_bar: bool,
) -> Path:
    known: Known = {}
    weights = pretrained(path, config, market, ranges, progress_bar)
    if isinstance(learner, DirectTrainer):
        load_pretrained_weights(weights, learner.agent.network)
        probes = Probes(market, ranges, config.env_options(), config.observed + config.delay)
        _run_direct(path, config, learner, probes, progress_bar)
    else:
        load_pretrained_weights(weights, learner.policy)
        _run_rl(path, config, market, ranges, learner, progress_bar, known)
    write_card(path, validate_models(path, config, market, ranges, known))
    return path


def _run_rl(
    path: Path,
    config: TrainConfig,
    market: Market,
    ranges: dict[str, Range],
    agent: BaseAlgorithm,
    progress_bar: bool,
    known: Known,
) -> None:
    assert config.timesteps
    callbacks = _callbacks(path, config, market, ranges, known)
    checkpoint = latest_checkpoint(path)
    step = int(checkpoint.stem) if checkpoint else 0
    agent.set_logger(curves(path / "tb", step, *_trackers(path, config)))
    if checkpoint is not None:
        restore_training(agent, checkpoint)
    before, clock = agent.num_timesteps, perf_counter()
    left = config.timesteps - before  # below 0 where the last rollout went beyond
    outlook = Outlook("This training", config.timesteps, shorter(config))
    own = nullcontext() if config.algo in ALGORITHMS else user_code(f"algo {config.algo!r}")
    progress = bar(config.algo, config.timesteps, before, shown=progress_bar and left > 0)
    told = refuse_divergence(agent.policy, lambda: f"{agent.num_timesteps:,} steps")
    with own, told, progress as advance:
        agent.learn(
            left,
            callback=[ProgressCallback(advance, outlook), *callbacks],
            log_interval=sys.maxsize,  # never: LogCallback does
            reset_num_timesteps=False,
        )
    _tell_pace(agent.num_timesteps - before, perf_counter() - clock)
    agent.logger.close()
    save_agent(agent, path / f"final_model{SUFFIX}")


def _direct_trainer(config: TrainConfig, market: Market, ranges: dict[str, Range]) -> DirectTrainer:
    """Return the trainer of ``direct``; timesteps are lanes x steps x iterations."""
    assert config.timesteps and config.num_envs and config.validation_every
    weight = config.prediction_weight or 0.0
    _, options = sorted_direct_options(config.algo_kwargs)
    size = config.num_envs * options.get("steps", DirectOptions.steps)
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
        **options,
    )


def _tell_pace(steps: int, seconds: float) -> None:
    if steps > 0:
        pace = f"{steps / seconds:,.0f} steps a second, validation included"
        _LOGGER.info("trained %s steps in %s: %s", f"{steps:,}", duration(seconds), pace)


def _run_direct(
    path: Path, config: TrainConfig, trainer: DirectTrainer, probes: Probes, progress_bar: bool
) -> None:
    assert config.checkpoint_every and trainer.validation
    agent, options = trainer.agent, trainer.options
    take_up(trainer, file := path / CHECKPOINTS / f"direct{SUFFIX}")
    logger = curves(path / "tb", trainer.samples, *_trackers(path, config))
    every = max(1, config.checkpoint_every // (options.lanes * options.steps))
    probe_every = max(1, trainer.fit.rounds // PROBES)

    def record(points: dict[str, Any], samples: int) -> None:
        done = trainer.fit.round
        if done % probe_every == 0 or trainer.fit.finished:
            with trainer.fit.averaged():
                points = points | probes.run(agent)
        write_points(logger, points, samples)

    if trainer.fit.round == 0:
        write_points(logger, probes.run(agent) | {"hparams": hparams_of(config.to_json())}, 0)
    fit, before, clock = trainer.fit, trainer.samples, perf_counter()
    outlook = Outlook("This training", fit.rounds, shorter(config))
    left = not fit.finished
    with bar(config.algo, fit.rounds, fit.round, shown=progress_bar and left) as advance:
        run_rounds(trainer, file, record, every, [advance, outlook.look])
    _tell_pace(trainer.samples - before, perf_counter() - clock)
    agent.network.load_state_dict(trainer.fit.weights())
    agent.save(path / f"final_model{SUFFIX}")
    best = path / f"best_model{SUFFIX}"
    if not best.exists():  # written last: a finished run has its metrics
        where = (trainer.market, trainer.validation, trainer.returns)
        write_points(logger, encoder_figures(trainer.embeddings, *where), trainer.samples)
    logger.close()
    trainer.restore_best()
    agent.save(best)


def _trackers(path: Path, config: TrainConfig) -> list[Tracker]:
    if config.track is None:
        return []
    return [Tracker(config.track, path.name, id_of(path), config.to_json())]


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
    if not is_on_policy(config.algo):
        options["buffer_size"] = min(1_000_000, config.timesteps or 0)
    return options


def _callbacks(
    path: Path, config: TrainConfig, market: Market, ranges: dict[str, Range], known: Known
) -> list[BaseCallback]:
    assert config.timesteps and config.validation_every and config.checkpoint_every
    train, validation, every = ranges["train"], ranges["validation"], config.validation_every
    callbacks: list[BaseCallback] = [
        PortfolioMetrics(config.to_json()),
        LogCallback(max(1, config.timesteps // POINTS)),
        ProbeCallback(
            Probes(market, ranges, config.env_options(), config.observed + config.delay),
            max(1, config.timesteps // PROBES),
        ),
        ValidationCallback(path, market, validation, config.env_options(), every, known),
    ]
    if config.has_encoder:
        callbacks.append(EncoderFigures(market, train, validation, every))
        if config.freeze_encoder:
            callbacks.append(FrozenStart(round(config.freeze_encoder * config.timesteps)))
        if config.prediction_weight:
            callbacks.append(PredictionLoss(config.prediction_weight, market, train, config.seed))
    return [*callbacks, CheckpointCallback(path, config.checkpoint_every)]
