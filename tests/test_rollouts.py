"""Minibatches grouped by bar: every sample once, few bars in each, advantages of the rollout."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer

from agents.rollouts import GroupedRolloutBuffer
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
