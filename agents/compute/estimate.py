"""Memory that a training will take, estimated from the learner before its first step."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import BaseBuffer
from torch import Tensor, nn

from agents.direct.training import DirectTrainer
from agents.encoding.market_rows import market_encoders
from agents.encoding.memory import available_bytes, memory_of, resident_bytes, training_bytes
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market

if TYPE_CHECKING:
    from agents.encoding.market_encoder import MarketEncoder
    from agents.supervised.training import SupervisedTrainer

GIB = 2**30
OF_MACHINE = "the memory of this machine"
MOST_PARTS = 1024
_PER_BAR = 150  # bytes of an asset's bar in the arrays of accounts: training, backtests, benchmark
_STEP = 60  # numbers kept per asset and step of a differentiable account
_LIBRARIES = 150 * 2**20  # compiled code, curves and figures that come with the first step
_LOGGER = logging.getLogger(__name__)
_workers = 1  # processes of this machine that train the like at the same time


def count_workers(workers: int) -> None:
    """Have ``fitted`` warn, once, if so many processes like this one exceed the free memory."""
    global _workers
    _workers = workers


def estimate(
    learner: BaseAlgorithm | DirectTrainer, market: Market, train: tuple[int, int], parts: int = 1
) -> dict[str, int]:
    """Return the bytes of each part of a training's peak memory, on the CPU.

    The process is measured with the market that it holds; buffers are counted; what a batch keeps
    for the backward pass is measured on a few transitions, and is half as much again in that pass.
    With 100 assets the sum was 1.09 times the measured peak for PPO and 1.24 times for ``direct``
    (5,040 bars; see ``docs/training.md``).

    Args:
        learner: Before its first step.
        market: The market.
        train: Half-open range of training.
        parts: Parts of a batch, see ``ComputeOptions``.
    """
    network: nn.Module = (
        learner.agent.network if isinstance(learner, DirectTrainer) else learner.policy
    )
    found = {
        "the process, its market included": resident_bytes() + _LIBRARIES,
        "arrays of accounts": _PER_BAR * market.n_bars * market.n_assets,
        "weights, gradients and moments": 4 * _bytes(network),
    }
    if isinstance(learner, DirectTrainer):
        transitions = learner.options.lanes * learner.options.steps
        n_assets = learner.simulator.n_assets
        account = 4 * _STEP * (n_assets + 1)
        width = learner.agent.network.extractor.width
        linear = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
        layers = sum(layer.out_features for layer in linear)
        each = account + 4 * n_assets * (2 * width + 2 * layers)
        batch = transitions
    else:
        buffers = [getattr(learner, name, None) for name in ("rollout_buffer", "replay_buffer")]
        stored = sum(_bytes(buffer) for buffer in buffers if isinstance(buffer, BaseBuffer))
        found["transitions"] = stored * 3 // 2 if buffers[0] is not None else stored
        transitions = getattr(learner, "n_steps", 1) * learner.n_envs
        batch = getattr(learner, "batch_size", transitions)
        each = _kept_by_transition(learner, market)
    found["a batch"] = 3 * each * batch // (2 * parts)
    device = next(network.parameters()).device
    for embeddings in market_encoders(network)[:1]:
        bars = train[1] - train[0]
        found["encoded bars"] = _encoded(embeddings, market, min(bars, transitions))
        distinct = -(-_distinct(transitions, bars) * batch // transitions)
        found["the encoder's activations"] = _activations(
            embeddings, market, device, bars, min(distinct, batch), parts
        )
    return found


def estimate_forecasts(trainer: SupervisedTrainer, market: Market) -> dict[str, int]:
    """Return the bytes of each part of the peak memory of training forecasts, on the CPU.

    Args:
        trainer: Before its first epoch.
        market: The market.
    """
    embeddings, bars = trainer.embeddings, len(trainer.train)
    batch = min(trainer.options.batch, bars)
    return {
        "the process, its market included": resident_bytes() + _LIBRARIES,
        "arrays of accounts": _PER_BAR * market.n_bars * market.n_assets,
        "weights, gradients and moments": 4 * _bytes(embeddings),
        "the encoder's activations": _activations(embeddings, market, trainer.device, bars, batch),
    }


def fitted(
    learner: BaseAlgorithm | DirectTrainer,
    market: Market,
    train: tuple[int, int],
    accumulation: int | str,
    limit: float | None,
) -> int:
    """Return the parts of a batch to train with, after a check that a training fits the memory.

    Args:
        learner: Before its first step.
        market: The market.
        train: Half-open range of training.
        accumulation: Parts, or "auto" for the fewest that fit, doubled from 1 on.
        limit: Most memory to take, in GiB; None is that of the machine.

    Raises:
        ArgumentError: If the estimate exceeds the limit; it lists the parts and what makes them
            smaller. What exceeds only the memory that is free now is logged as a warning.
    """
    most = round(limit * GIB) if limit is not None else memory_of(th.device("cpu"))
    parts = 1 if accumulation == "auto" else int(accumulation)
    found = estimate(learner, market, train, parts)
    while accumulation == "auto" and sum(found.values()) > most and parts < MOST_PARTS:
        parts *= 2
        found = estimate(learner, market, train, parts)
    source = "compute.memory_limit" if limit is not None else OF_MACHINE
    _check(
        found,
        most,
        source,
        "fewer num_envs, a smaller batch_size, fewer features, a shorter window, a universe of "
        "fewer assets, or compute.accumulation auto",
    )
    return parts


def check_forecasts(trainer: SupervisedTrainer, market: Market) -> None:
    """Check that training forecasts fits the memory of the machine.

    Args:
        trainer: Before its first epoch.
        market: The market.

    Raises:
        ArgumentError: As of ``fitted``.
    """
    _check(
        estimate_forecasts(trainer, market),
        memory_of(th.device("cpu")),
        OF_MACHINE,
        "a smaller fit.batch, fewer features, a shorter window, fewer assets or a smaller encoder",
    )


def _check(found: dict[str, int], most: int, source: str, fix: str) -> None:
    """Refuse an estimate above the most there is; log it, as a warning above what is free."""
    need = sum(found.values())
    largest = sorted(found.items(), key=lambda item: -item[1])
    told = ", ".join(f"{name} {size / GIB:.2f}" for name, size in largest if size >= GIB / 200)
    if need > most:
        raise ArgumentError(
            f"this training needs an estimated {need / GIB:.1f} GiB ({told}), {source} is "
            f"{most / GIB:.1f}: give {fix}"
        )
    more, free = max(1, need - resident_bytes()), available_bytes()
    if _workers > 1 and _workers * more > free:
        _LOGGER.warning(
            "%d workers need an estimated %.1f GiB each (%s), %.1f more than now, and %.1f are "
            "free for all of them: they may be killed or swap; train fewer at once, e.g. by "
            "--workers %d",
            _workers,
            need / GIB,
            told,
            more / GIB,
            free / GIB,
            max(1, free // more),
        )
        count_workers(1)
    elif more > free:
        _LOGGER.warning(
            "this training needs an estimated %.1f GiB (%s), and %.1f are free: it may be killed "
            "or swap",
            need / GIB,
            told,
            (free + resident_bytes()) / GIB,
        )
    else:
        _LOGGER.info("memory: an estimated %.1f GiB (%s)", need / GIB, told)


def _activations(
    embeddings: MarketEncoder,
    market: Market,
    device: th.device,
    bars: int,
    distinct: int,
    parts: int = 1,
) -> int:
    """Return the bytes that a batch of so many distinct bars keeps, and its backward pass adds."""
    if embeddings.encoder.block:
        distinct = _blocks(embeddings, bars, distinct)
    one = training_bytes(embeddings.encoder, market.n_assets, 1, device, embeddings.codes)
    most = (
        memory_of(device) // 4
        if embeddings.checkpointed == "auto"
        else one * int(embeddings.checkpointed or distinct)
    )
    return 3 * min(one * max(1, distinct // parts), most) // 2


def _bytes(held: Any) -> int:
    """Return the bytes of a network's weights, or of a buffer's arrays."""
    if isinstance(held, nn.Module):
        return sum(part.numel() * part.element_size() for part in held.parameters())
    columns: list[Any] = []
    for value in vars(held).values():
        columns += value.values() if isinstance(value, dict) else [value]
    return sum(column.nbytes for column in columns if isinstance(column, np.ndarray))


def _distinct(draws: int, of: int) -> int:
    """Return how many different bars so many independent draws are expected to fall on."""
    return round(of * -np.expm1(-draws / of))


def _blocks(embeddings: MarketEncoder, bars: int, distinct: int) -> int:
    """Return how many blocks the bars of a batch are in: they are taken block by block."""
    return min(-(-distinct // embeddings.encoder.block) + 1, -(-bars // embeddings.encoder.block))


def _encoded(embeddings: MarketEncoder, market: Market, bars: int) -> int:
    """Return the bytes of the vectors that a rollout keeps, which grow by doubling."""
    if not any(True for _ in embeddings.encoder.parameters()):
        return 0
    if embeddings.encoder.block:  # blocks are encoded as a whole
        bars = market.n_bars
    return 2 * 4 * bars * market.n_assets * embeddings.encoder.channels


def _kept_by_transition(agent: BaseAlgorithm, market: Market) -> int:
    """Return the bytes that a further transition of a batch keeps, those of its windows apart."""
    few, many = (_kept(agent, market, batch) for batch in (2, 34))
    return max(0, many - few) // 32


def _kept(agent: BaseAlgorithm, market: Market, batch: int) -> int:
    space = agent.observation_space
    obs = _observation(space, market, batch, agent.device)
    actions = th.zeros(batch, spaces.flatdim(agent.action_space), device=agent.device)
    if not isinstance(agent.action_space, spaces.Box) or agent.action_space.low.min() >= 0:
        actions += 1 / actions.shape[1]
    own = {part.untyped_storage().data_ptr() for part in agent.policy.state_dict().values()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and storage.nbytes() < market.features.nbytes:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # see ``memory._kept``

    policy: Any = agent.policy
    training = policy.training
    policy.set_training_mode(True)
    with th.enable_grad(), th.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        if hasattr(policy, "evaluate_actions"):
            out = policy.evaluate_actions(obs, actions)
        else:
            out = (policy.critic(obs, actions), policy.actor(obs))
    del out
    policy.set_training_mode(training)
    return sum(kept.values())


def _observation(space: Any, market: Market, batch: int, device: th.device) -> Any:
    """Return a batch of equal observations, of the first bar that can be observed."""
    if not isinstance(space, spaces.Dict):
        return th.zeros(batch, *space.shape, device=device)
    found = {name: th.zeros(batch, *(part.shape or ())) for name, part in space.spaces.items()}
    if "t" in found:
        found["t"] += market.n_bars - 2
        found["market"] += market.fingerprint
    if "assets" in found:
        found["assets"] += th.arange(found["assets"].shape[1])
    found["tradable"] += 1
    found["weights"][:, 0] = 1
    return {
        name: part if name in ("t", "market") and "t" in found else part.to(device)
        for name, part in found.items()
    }
