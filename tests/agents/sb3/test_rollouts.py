"""Minibatches grouped by bar: every sample once, few bars in each, advantages of the rollout."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.type_aliases import DictRolloutBufferSamples

from agents import bind_market, make_sb3_vec_env
from agents.policies import PerAssetActorCriticPolicy
from agents.sb3.buffers import GroupedRolloutBuffer
from portfolio_env import load_market
from portfolio_env.errors import ArgumentError

STEPS, LANES, BARS = 32, 8, 50


def filled(cls: type[DictRolloutBuffer]) -> DictRolloutBuffer:
    rng = np.random.default_rng(0)
    space = spaces.Dict(
        {"t": spaces.Box(0, 1000, (1,), np.int64), "weights": spaces.Box(0, 1, (3,), np.float32)}
    )
    buffer = cls(STEPS, space, spaces.Box(-1, 1, (3,)), device="cpu", n_envs=LANES)
    for step in range(STEPS):
        buffer.add(
            {"t": rng.integers(0, BARS, (LANES, 1)), "weights": rng.random((LANES, 3))},
            np.full((LANES, 3), step + np.arange(LANES)[:, None] / 100),
            rng.normal(size=LANES),
            rng.random(LANES) < 0.1,
            th.tensor(rng.normal(size=LANES)),
            th.tensor(rng.normal(size=LANES)),
        )
    buffer.compute_returns_and_advantage(th.zeros(LANES), np.zeros(LANES, bool))
    return buffer


@pytest.mark.parametrize("size", [16, 60, None])
def test_every_sample_comes_once_with_all_that_belongs_to_it(size: int | None) -> None:
    grouped, plain = filled(GroupedRolloutBuffer), filled(DictRolloutBuffer)

    def rows(buffer: DictRolloutBuffer) -> np.ndarray:
        batches = list(buffer.get(size))
        parts = [
            th.cat(
                [
                    batch.observations["t"],
                    batch.observations["weights"],
                    batch.actions,
                    batch.old_values[:, None],
                    batch.old_log_prob[:, None],
                    batch.returns[:, None],
                ],
                dim=1,
            )
            for batch in batches
        ]
        table = th.cat(parts).numpy()
        return table[np.lexsort(table.T)]

    np.testing.assert_array_equal(rows(grouped), rows(plain))


def test_minibatches_hold_few_bars_in_an_order_that_changes() -> None:
    buffer = filled(GroupedRolloutBuffer)
    epochs = [
        [batch.observations["t"].flatten().tolist() for batch in buffer.get(32)] for _ in range(2)
    ]
    for bars in epochs[0]:
        assert len(set(bars)) <= 32 / (STEPS * LANES / BARS) + 8
        assert sorted(bars, key=bars.index) == bars  # all samples of a bar in a row
    assert epochs[0] != epochs[1]
    shuffled = [
        set(batch.observations["t"].flatten().tolist())
        for batch in filled(DictRolloutBuffer).get(32)
    ]
    assert np.mean([len(set(b)) for b in epochs[0]]) < 0.5 * np.mean([len(b) for b in shuffled])


def test_advantages_are_normalised_over_the_rollout_and_returns_are_not() -> None:
    grouped, plain = filled(GroupedRolloutBuffer), filled(DictRolloutBuffer)
    raw = plain.advantages
    np.testing.assert_allclose(
        grouped.advantages, (raw - raw.mean()) / raw.std(), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(grouped.returns, plain.returns)


def test_other_observations_are_refused() -> None:
    space = spaces.Dict({"market": spaces.Box(-1, 1, (2,))})
    with pytest.raises(ArgumentError, match="groups index observations"):
        GroupedRolloutBuffer(4, space, spaces.Box(-1, 1, (3,)))


def test_an_update_is_that_of_plain_wiring() -> None:
    """Rollout and epochs of PPO on indices, and on every sample's own window."""
    market = load_market("synthetic?assets=3&bars=120")
    network = {"n_features": market.n_features, "window": 6, "encoder": "tcn_gnn_lstm_small"}
    network["encoder_kwargs"] = {"layers": 1}
    bars = 6
    agents = []
    for observation in ("index", "window"):
        options: dict[str, Any] = {"window": bars, "episode_length": 20, "random_start": True}
        venv = make_sb3_vec_env(market, num_envs=8, observation=observation, seed=0, **options)
        agent = PPO(
            PerAssetActorCriticPolicy,
            venv,
            n_steps=16,
            batch_size=32,
            n_epochs=3,
            normalize_advantage=False,
            policy_kwargs={"features_extractor_kwargs": network},
            rollout_buffer_class=GroupedRolloutBuffer if observation == "index" else None,
            device="cpu",
            seed=0,
        )
        bind_market(agent, market)
        agents.append(agent)
    fast, plain = agents
    epochs: list[list[DictRolloutBufferSamples]] = []
    grouped = fast.rollout_buffer.get

    def recorded(size: int | None) -> Iterator[DictRolloutBufferSamples]:
        epochs.append(list(grouped(size)))
        return iter(epochs[-1])

    def with_windows(size: int | None) -> Iterator[DictRolloutBufferSamples]:
        features = th.tensor(market.features)
        for batch in epochs.pop(0):
            t = batch.observations["t"].long()
            windows = features[t + th.arange(1 - bars, 1)]
            seen = {name: batch.observations[name] for name in ("tradable", "weights")}
            yield batch._replace(observations=seen | {"market": windows})

    fast.rollout_buffer.get = recorded  # type: ignore[method-assign]
    plain.rollout_buffer.get = with_windows  # type: ignore[method-assign]
    start = [weight.detach().clone() for weight in fast.policy.parameters()]
    for agent in agents:
        th.manual_seed(1)
        agent.learn(128)
    values = plain.rollout_buffer.swap_and_flatten(plain.rollout_buffer.values)
    np.testing.assert_allclose(fast.rollout_buffer.values, values, rtol=1e-5, atol=1e-5)
    own, other = (list(agent.policy.parameters()) for agent in agents)
    th.testing.assert_close(own, other, rtol=1e-5, atol=1e-5)
    moved = max((now - then).abs().max() for now, then in zip(own, start, strict=True))
    assert moved > 1e-3
