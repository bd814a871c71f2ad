"""The baselines without a parameter: equal weight, buy and hold, cash."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.base import Baseline


class EqualWeight(Baseline):
    """Equal weights on the assets that can be traded now, restored at every step.

    DeMiguel, Garlappi & Uppal (2009), "Optimal Versus Naive Diversification", RFS 22.
    """

    def weights(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Target weights for a batch of lanes; all cash where nothing can be traded."""
        tradable = np.asarray(observation["tradable"], np.float64)  # (B, N)
        count = tradable.sum(axis=1, keepdims=True)
        return np.hstack([count == 0, tradable / np.maximum(count, 1)])


class BuyAndHold(EqualWeight):
    """Buys equal weights of the tradable assets out of an all-cash account, then never trades."""

    def weights(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Target weights for a batch of lanes: the drifted ones once anything is held."""
        drifted = np.asarray(observation["weights"], np.float64)  # (B, N + 1)
        invested = (drifted[:, 1:] != 0).any(axis=1, keepdims=True)
        return np.where(invested, drifted, super().weights(observation))


class Cash(Baseline):
    """Holds cash only."""

    def weights(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Target weights for a batch of lanes: 1 in cash."""
        target = np.zeros(np.shape(observation["weights"]))
        target[:, 0] = 1
        return target
