"""Encoders within RL: a frozen start, forecasts in the loss, pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, configure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents import load_agent, make_agent, make_sb3_vec_env, save_agent
from agents.encoding.market_rows import market_encoders
from agents.forecasts import NextReturns
from agents.training.encoder_callbacks import EncoderFigures, FrozenStart, PredictionLoss
from portfolio_env import Market

TRAIN, VALIDATION, WINDOW = (0, 200), (200, 260), 4
SMALL: dict[str, Any] = {"ppo": {"n_steps": 8, "batch_size": 64, "n_epochs": 2}, "a2c": {}}
SMALL["trpo"] = {"n_steps": 8, "batch_size": 64, "n_critic_updates": 1}
OFF_POLICY: dict[str, Any] = {"learning_starts": 32, "buffer_size": 1000, "batch_size": 16}


def agent_for(algo: str, market: Market, logger: Logger | None = None, **options: Any) -> Any:
    venv = make_sb3_vec_env(
        market, 16, observation="index", window=WINDOW, end=200, random_start=True,
        episode_length=20,
    )  # fmt: skip
    forecasts = options.pop("forecasts", True)
    agent = make_agent(
        algo,
        venv,
        encoder="lstm",
        encoder_kwargs={"hidden": 4, "channels": 4},
        window=WINDOW,
        embedding_kwargs={"forecasts": forecasts},
        seed=0,
        device="cpu",
        **(SMALL.get(algo, OFF_POLICY) | options),
    )
    agent.set_logger(logger or Logger(None, []))
    return agent


def copied(module: th.nn.Module) -> dict[str, th.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(first: dict[str, th.Tensor], second: dict[str, th.Tensor]) -> bool:
    return all(th.equal(value, second[name]) for name, value in first.items())


class Watch(BaseCallback):
    """Keeps the weights of all encoders at every rollout, by timesteps."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, list[dict[str, th.Tensor]]] = {}

    def _on_rollout_start(self) -> None:
        encoders = [copied(e.encoder) for e in market_encoders(self.model.policy)]
        self.seen[self.model.num_timesteps] = encoders

    def _on_step(self) -> bool:
        return True


@pytest.mark.parametrize("algo", ["ppo", "a2c", "sac", "td3", "trpo"])
def test_an_encoder_stays_and_then_learns(algo: str, market: Market) -> None:
    agent, watch = agent_for(algo, market), Watch()
    before = [copied(e.encoder) for e in market_encoders(agent.policy)]
    agent.learn(768, [FrozenStart(384), watch, PredictionLoss(0.05, market, TRAIN)])
    for steps, encoders in watch.seen.items():
        for first, now in zip(before, encoders, strict=True):
            if steps <= 384:  # targets average equal weights, which rounds
                assert all(th.allclose(first[name], now[name], atol=1e-6) for name in first)
            elif steps >= 640:
                assert not same(first, now)
    trained = market_encoders(agent.policy)[0]
    assert all(same(before[0], seen[0]) for steps, seen in watch.seen.items() if steps <= 384)
    assert not trained.frozen
    agent.policy.set_training_mode(False)
    t = th.arange(10, 200, 7)
    features = th.tensor(market.features)
    windows = features[t[:, None] + th.arange(1 - WINDOW, 1)]
    with th.no_grad():  # what is kept is what the weights of now give
        for embeddings in market_encoders(agent.policy):
            exact = embeddings.encoder(windows, th.tensor(market.tradable, dtype=th.float32)[t])
            th.testing.assert_close(embeddings(t), exact, atol=1e-6, rtol=1e-5)


def test_a_resumed_training_knows_whether_the_encoder_learns(
    market: Market, tmp_path: Path
) -> None:
    for learned, frozen in ((128, True), (512, False)):
        agent = agent_for("ppo", market, learning_rate=1e-3)
        agent.learn(learned, FrozenStart(384))
        save_agent(agent, tmp_path / "model.safetensors")
        resumed = load_agent(tmp_path / "model.safetensors", agent.get_env(), device="cpu")
        resumed.set_logger(Logger(None, []))
        embeddings = market_encoders(resumed.policy)[0]
        before = copied(embeddings.encoder)
        resumed.learn(128, FrozenStart(384), reset_num_timesteps=False)
        assert embeddings.frozen == frozen == same(before, copied(embeddings.encoder))


@pytest.mark.parametrize("algo", ["ppo", "sac"])
def test_the_loss_is_the_weighted_sum(algo: str, market: Market) -> None:
    """By plain gradient descent, whose steps are as long as the gradient."""
    agent = agent_for(algo, market)
    parts = [agent.policy] if algo == "ppo" else [agent.policy.actor, agent.policy.critic]
    for part in parts:
        part.optimizer = th.optim.SGD(part.parameters(), 0.5)
    callback = PredictionLoss(0.3, market, TRAIN, seed=7)
    callback.init_callback(agent)
    callback._on_training_start()
    callback._on_rollout_start()
    rng = np.random.default_rng((7, 0))
    returns = NextReturns(market, TRAIN, WINDOW)
    rows = returns.rows(TRAIN)
    for part in parts:
        embeddings = market_encoders(part)[0]
        weights = [*embeddings.parameters()]
        t = th.tensor(rng.choice(rows, 64))
        wanted = th.autograd.grad(returns.nll(*embeddings.forecast(t), t), weights)
        own = [th.randn_like(weight) for weight in weights]
        for weight, gradient in zip(weights, own, strict=True):
            weight.grad = gradient.clone()
        before = [weight.detach().clone() for weight in weights]
        part.optimizer.step()
        for weight, start, gradient, extra in zip(weights, before, own, wanted, strict=True):
            th.testing.assert_close(start - weight, 0.5 * (gradient + 0.3 * extra))
    callback._on_training_end()
    for part in parts:
        assert not part.optimizer._optimizer_step_pre_hooks


def test_forecasts_get_better_beside_the_algorithm(market: Market) -> None:
    returns = NextReturns(market, TRAIN, WINDOW)
    t = th.tensor(returns.rows(TRAIN))
    found = {}
    for weight in (0.0, 0.5):
        agent = agent_for("ppo", market, learning_rate=0.01)
        agent.learn(1024, PredictionLoss(weight, market, TRAIN))
        agent.policy.set_training_mode(False)
        with th.no_grad():
            found[weight] = float(returns.nll(*market_encoders(agent.policy)[0].forecast(t), t))
    assert found[0.5] < found[0.0] - 0.01


def test_a_head_changes_nothing_where_nothing_trains_it(market: Market) -> None:
    agent = agent_for("ppo", market)
    embeddings = market_encoders(agent.policy)[0]
    assert embeddings.head is not None
    before = copied(embeddings.head)
    agent.learn(256)
    assert same(before, copied(embeddings.head))


@pytest.mark.parametrize("forecasts", [True, False])
def test_figures_and_numbers_reach_tensorboard(
    forecasts: bool, market: Market, tmp_path: Path
) -> None:
    agent = agent_for("ppo", market, configure(str(tmp_path), ["tensorboard"]), forecasts=forecasts)
    agent.learn(512, EncoderFigures(market, TRAIN, VALIDATION, 256))
    agent.logger.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    images = {"attention/time"} | ({"calibration/reliability"} if forecasts else set())
    assert set(events.Tags()["images"]) == images
    for tag in images:
        shown = events.Images(tag)
        assert [image.step for image in shown] == [256, 512]
        assert min(image.width for image in shown) > 300
    assert ("calibration/coverage_95" in events.Tags()["scalars"]) == forecasts
