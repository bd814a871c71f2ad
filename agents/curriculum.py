"""Stages that come before the algorithm: forecasts, then net growth; see `agents.pretraining`."""

from collections.abc import Callable
from pathlib import Path

import torch as th
from stable_baselines3.common.utils import get_device
from torch import Tensor, nn

from agents.config import Range, TrainConfig
from agents.direct import DirectAgent
from agents.direct_training import DirectTrainer
from agents.extractors import MarketExtractor
from agents.networks import make_encoder
from agents.pretraining import Pretrainer, PretrainingOptions
from portfolio_env.files import replacing
from portfolio_env.market import Market

Weights = dict[str, Tensor]
Record = Callable[[dict[str, float], int], None]


def pretrained(
    path: Path, config: TrainConfig, market: Market, ranges: dict[str, Range], record: Record
) -> Weights | None:
    """The encoder's weights after the stages before the algorithm; None without such stages.

    Args:
        path: the run folder; ``encoder.pt`` keeps the result, so that no stage is repeated.
        config: resolved settings.
        market: with fitted features.
        ranges: rows of each range; nothing after the validation range is read.
        record: takes the numbers of each step and its number.
    """
    if config.curriculum == "3":
        return None
    file = path / "encoder.pt"
    if file.exists():
        stored: Weights = th.load(file, map_location="cpu", weights_only=True)
        return stored
    weights: Weights | None = None
    if "1" in config.curriculum:
        weights = _forecasts(config, market, ranges, record)
    if "2" in config.curriculum:
        weights = _growth(config, market, ranges, record, weights)
    with replacing(file) as beside:
        th.save(weights, beside)
    return weights


def load_encoder(module: nn.Module, weights: Weights | None) -> None:
    """Give every extractor of a policy or network the weights of a pretrained encoder."""
    if weights is not None:
        for part in module.modules():
            if isinstance(part, MarketExtractor):
                part.encoder.load_state_dict(weights)


def _forecasts(
    config: TrainConfig, market: Market, ranges: dict[str, Range], record: Record
) -> Weights:
    """Stage 1."""
    with th.random.fork_rng(devices=[]):
        th.manual_seed(config.seed)
        encoder = make_encoder(
            config.encoder, market.n_features, config.bars, **config.encoder_kwargs
        )
    options = PretrainingOptions(seed=config.seed)
    device = get_device(config.device)
    trainer = Pretrainer(
        encoder, market, ranges["train"], ranges["validation"], options, device=device
    )
    for numbers in trainer.run():
        record(numbers, trainer.epoch)
    return encoder.state_dict()


def _growth(
    config: TrainConfig,
    market: Market,
    ranges: dict[str, Range],
    record: Record,
    weights: Weights | None,
) -> Weights:
    """Stage 2."""
    agent = direct_agent(config, market)
    load_encoder(agent.network, weights)
    trainer = DirectTrainer(
        agent,
        market,
        *ranges["train"],
        validation=ranges["validation"],
        env_options=config.env_options(),
        universe=config.universe,
        seed=config.seed,
    )
    trainer.run(lambda step, numbers: record({f"stage_2/{k}": v for k, v in numbers.items()}, step))
    return agent.network.extractor.embeddings.encoder.state_dict()


def direct_agent(config: TrainConfig, market: Market) -> DirectAgent:
    """The agent of the gradient of net growth that settings ask for."""
    return DirectAgent(
        market.n_features,
        config.bars,
        encoder=config.encoder,
        encoder_kwargs=config.encoder_kwargs,
        seed=config.seed,
        device=get_device(config.device),
    )
