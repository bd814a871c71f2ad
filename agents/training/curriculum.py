"""Curriculum stages before the algorithm: forecasts, then net growth (``supervised.training``)."""

from functools import partial
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.utils import get_device
from torch import Tensor, nn

from agents.compute.options import set_up
from agents.direct.agent import DirectAgent, DirectNetwork
from agents.direct.training import DirectTrainer, sorted_direct_options
from agents.encoding.market_encoder import MarketEncoder
from agents.encoding.market_rows import market_encoders
from agents.fitting import run_rounds, take_up
from agents.inspection import encoder_figures
from agents.networks import make_encoder
from agents.policies import PerAssetActorCriticPolicy
from agents.policies.common import OffPolicyModel
from agents.progress import Outlook, bar
from agents.sb3.algorithms import torch_device
from agents.sb3.curves import curves, write_points
from agents.supervised.training import SupervisedOptions, SupervisedTrainer
from agents.tensors import SUFFIX, load_tensors, reason_of, save_tensors
from agents.training.config import Range, TrainConfig
from portfolio_env.errors import MALFORMED, DataError
from portfolio_env.market import Market

KIND = "weights"
Weights = dict[str, Tensor]
_PREDICTION_WEIGHT = 0.1  # weight of the forecasts' likelihood beside growth, in stage 2
_SCORER = "scorer."  # prefix of the names of its weights


def pretrained(
    path: Path,
    config: TrainConfig,
    market: Market,
    ranges: dict[str, Range],
    progress_bar: bool = False,
) -> Weights | None:
    """Run the stages before the algorithm; return their weights, None without any.

    Args:
        path: The run folder; ``encoder.safetensors`` keeps the result, ``stage_1.safetensors`` and
            ``stage_2.safetensors`` how far the stages have come, so that none is repeated. Numbers
            and figures go to ``tb/stage_1`` and ``tb/stage_2``, by the samples (bars, or steps of
            accounts) seen in the stage.
        config: Resolved settings.
        market: Market with fitted features.
        ranges: Rows of each range; nothing after the validation range is read.
        progress_bar: Show one for each stage.
    """
    if config.curriculum == "3":
        return None
    file = path / f"encoder{SUFFIX}"
    if file.exists():
        stored: Weights = load_tensors(file, kind=KIND)
        return stored
    weights: Weights | None = None
    finish = partial(_finish, path, config, market, ranges["validation"], progress_bar)
    if "1" in config.curriculum:
        weights = finish("stage_1", _forecasts(config, market, ranges), every=1)
    if "2" in config.curriculum:
        growth = _growth(config, market, ranges, weights)
        weights = finish("stage_2", growth, every=growth.options.validation_every)
    save_tensors(file, weights, kind=KIND)
    for stage in ("stage_1", "stage_2"):
        (path / f"{stage}{SUFFIX}").unlink(missing_ok=True)
    return weights


def pretrained_weights(embeddings: MarketEncoder, network: nn.Module | None = None) -> Weights:
    """Return the weights of a stage for ``load_pretrained_weights``.

    Args:
        embeddings: The encoder.
        network: Network whose scorer is passed on as well, that of stage 2.
    """
    weights: Weights = embeddings.state_dict()
    for scorer in _scorers(network) if network is not None else ():
        weights |= {_SCORER + name: weight for name, weight in scorer.state_dict().items()}
    return weights


def load_pretrained_weights(weights: Weights | None, network: nn.Module) -> None:
    """Load pretrained weights into a policy or network.

    Every extractor gets the encoder, and the head of forecasts where it has one. The scorer of
    stage 2 goes where scores become the same weights: to PPO, A2C and TRPO, to SAC, TD3, DDPG and
    TQC (where logits end at 0.99 of the box), and to stage 3 without RL, unless options of the
    algorithm make its scorer another one.

    Raises:
        DataError: If they are those of another encoder, or of another version of it.
    """
    if weights is None:
        return
    try:
        for embeddings in market_encoders(network):
            own = embeddings.state_dict()
            embeddings.load_state_dict({n: w for n, w in weights.items() if n in own})
        named = {n.removeprefix(_SCORER): w for n, w in weights.items() if n.startswith(_SCORER)}
    except (*MALFORMED, RuntimeError) as error:
        raise DataError(
            f"encoder{SUFFIX} does not fit this network ({reason_of(error)}); go on with the "
            "version of the package that began the run, or train again"
        ) from error
    for scorer in _scorers(network) if named else ():
        own = scorer.state_dict()
        if {n: w.shape for n, w in own.items()} == {n: w.shape for n, w in named.items()}:
            scorer.load_state_dict(named)


def shorter(config: TrainConfig, stage: str = "stage_3") -> list[str]:
    """Return ways to make a training shorter, a line each.

    Args:
        config: Resolved settings.
        stage: Stage of the curriculum; "stage_3" is the algorithm.
    """
    name = {"stage_1": "epochs", "stage_2": "iterations"}.get(stage, "timesteps")
    option = "--timesteps" if stage == "stage_3" else f"--stages.{name}"
    given = getattr(config if stage == "stage_3" else config.stages, name)
    ways = [f"train for less: {option} below {given:,}"]
    if config.has_encoder:
        ways += [
            f"a shorter window: --window below {config.bars}",
            f"a smaller network than {config.encoder}: --encoder-options, or another --encoder",
        ]
    if stage == "stage_3" and config.algo != "direct":
        ways.append("fewer steps by the gradient of net growth: --algo direct")
    if torch_device(config.device, available=False).type == "cpu":
        ways.append("a machine with a GPU: --device cuda")
    return ways


def _scorers(network: nn.Module) -> list[nn.Module]:
    """Return the scorers of rows whose scores become weights as in stage 2, targets included."""
    if isinstance(network, DirectNetwork):
        return [nn.Sequential(network.scorer, network.head)]
    if isinstance(network, OffPolicyModel) and network.bounded_scores:
        found = [getattr(network, name, None) for name in ("actor", "actor_target")]
        actors: list[Any] = [actor for actor in found if actor is not None]
        return [
            actor.mu[:2]
            if isinstance(actor.mu, nn.Sequential)
            else nn.Sequential(actor.latent_pi, actor.mu)
            for actor in actors
        ]
    # a Dirichlet policy, which derives from it, makes concentrations
    if type(network) is not PerAssetActorCriticPolicy:
        return []
    if network.bounded_scores and network.activation_fn is nn.Tanh:
        return [nn.Sequential(network.mlp_extractor.policy_net, network.action_net)]
    return []


def _finish(
    path: Path,
    config: TrainConfig,
    market: Market,
    validation: Range,
    progress_bar: bool,
    stage: str,
    trainer: SupervisedTrainer | DirectTrainer,
    every: int,
) -> Weights:
    """Train a stage to its end, from its last checkpoint; return its weights."""
    take_up(trainer, file := path / f"{stage}{SUFFIX}")
    logger = curves(path / "tb" / stage, trainer.samples)
    record = partial(write_points, logger)
    fit, name = trainer.fit, stage.replace("_", " ").capitalize()
    outlook = Outlook(name, fit.rounds, shorter(config, stage))
    with bar(name.lower(), fit.rounds, fit.round, shown=progress_bar) as advance:
        run_rounds(trainer, file, record, every, [advance, outlook.look])
    trainer.restore_best()
    embeddings, returns = trainer.embeddings, trainer.returns
    record(encoder_figures(embeddings, market, validation, returns), trainer.samples)
    logger.close()
    network = trainer.agent.network if isinstance(trainer, DirectTrainer) else None
    return pretrained_weights(embeddings, network)


def _forecasts(config: TrainConfig, market: Market, ranges: dict[str, Range]) -> SupervisedTrainer:
    """Run stage 1, forecasts."""
    with th.random.fork_rng(devices=[]):
        th.manual_seed(config.seed)
        encoder = make_encoder(
            config.encoder, market.n_features, config.bars, **config.encoder_kwargs
        )
        embeddings = MarketEncoder(encoder, forecasts=True).to(get_device(config.device))
    set_up(config.compute, embeddings)
    stages = config.stages
    options = SupervisedOptions(
        epochs=stages.epochs, schedule=stages.schedule, ema=stages.ema, seed=config.seed
    )
    return SupervisedTrainer(embeddings, market, ranges["train"], ranges["validation"], options)


def _growth(
    config: TrainConfig, market: Market, ranges: dict[str, Range], weights: Weights | None
) -> DirectTrainer:
    """Run stage 2, net growth."""
    agent = direct_agent(config, market, forecasts=True)
    load_pretrained_weights(weights, agent.network)
    stages = config.stages
    return DirectTrainer(
        agent,
        market,
        *ranges["train"],
        validation=ranges["validation"],
        # Its scores are logits, whatever the actions of the algorithm are.
        env_options=config.env_options() | {"action": "logits"},
        universe=config.universe,
        iterations=stages.iterations,
        loss=stages.loss,
        schedule=stages.schedule,
        ema=stages.ema,
        prediction=_PREDICTION_WEIGHT,
        parts=config.compute.parts,
        seed=config.seed,
    )


def direct_agent(config: TrainConfig, market: Market, *, forecasts: bool) -> DirectAgent:
    """Return the agent of ``direct`` that the settings ask for."""
    options: dict[str, Any] = {}
    if config.algo == "direct":
        options, _ = sorted_direct_options(config.algo_kwargs)
    agent = DirectAgent(
        market.n_features,
        config.bars,
        encoder=config.encoder,
        encoder_kwargs=config.encoder_kwargs,
        embedding_kwargs={"forecasts": forecasts},
        seed=config.seed,
        device=get_device(config.device),
        **options,
    )
    set_up(config.compute, agent.network)
    return agent
