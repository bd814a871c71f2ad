"""A rollout buffer whose minibatches hold few distinct bars."""

from collections.abc import Generator

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.type_aliases import DictRolloutBufferSamples

from portfolio_env.errors import ArgumentError


class GroupedRolloutBuffer(DictRolloutBuffer):
    """Rollouts of `"index"` observations in minibatches grouped by bar.

    All samples of a bar share one window of the market. A shuffled minibatch of 512 samples out of
    1,000 bars holds some 400 windows; one that takes bars in random order, and all samples of each,
    holds 32. Each sample still comes once per epoch. Advantages are normalised over the rollout,
    since a bar's samples are alike and a minibatch of them is not: build the algorithm with
    `normalize_advantage=False`.

    Raises:
        ArgumentError: for other observations.
    """

    observation_space: spaces.Dict

    def reset(self) -> None:
        """Empty the buffer, and check what it is for."""
        if "t" not in self.observation_space.spaces:
            raise ArgumentError(
                f"GroupedRolloutBuffer groups index observations, got {self.observation_space}; "
                'build the environment with observation="index"'
            )
        super().reset()

    def compute_returns_and_advantage(
        self, last_values: th.Tensor, dones: npt.NDArray[np.bool_]
    ) -> None:
        """As SB3 does, then bring the advantages to mean 0 and standard deviation 1."""
        super().compute_returns_and_advantage(last_values, dones)
        self.advantages -= self.advantages.mean()
        self.advantages /= self.advantages.std() + 1e-8

    def get(  # type: ignore[override]  # as SB3's own buffer of dictionaries
        self, batch_size: int | None = None
    ) -> Generator[DictRolloutBufferSamples, None, None]:
        """Yield every sample once, bar by bar in random order."""
        if not self.generator_ready:
            next(super().get(1))  # flattens what is stored
        bars, place = np.unique(self.observations["t"], return_inverse=True)
        order = np.argsort(np.random.permutation(len(bars))[place.ravel()], kind="stable")
        size = batch_size or len(order)
        for start in range(0, len(order), size):
            yield self._get_samples(order[start : start + size])
