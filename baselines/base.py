"""What every baseline answers: the ``predict`` of a trained SB3 model, over any number of lanes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market


class Baseline(ABC):
    """A portfolio policy that needs no training by interaction.

    It reads ``"index"`` or ``"window"`` observations and answers with target weights, so its
    environment takes ``action="weights"``.

    Args:
        market: The market its environments trade.
    """

    action: ClassVar[str] = "weights"  # the kind of action it answers with

    def __init__(self, market: Market) -> None:
        self.market = market

    @abstractmethod
    def weights(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Target weights for a batch of lanes.

        Args:
            observation: The entries of the observation, each with the lanes first: ``tradable``
                (B, N), ``weights`` (B, N + 1) and, of ``"index"``, ``t`` (B, 1).

        Returns:
            (B, N + 1) float64 on the simplex, cash first.
        """

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[NDArray[np.float64], Any]:
        """Target weights, as SB3's ``predict`` returns actions.

        Args:
            observation: One observation or a batch of them.
            state: Returned as it came; baselines of this kind remember nothing.
            episode_start: Ignored.
            deterministic: Ignored: a baseline is deterministic.

        Returns:
            ``(weights, state)``: weights (N + 1,) for one observation, (B, N + 1) for a batch.

        Raises:
            ArgumentError: If the observation is not of the ``"index"`` or ``"window"`` kind.
        """
        if not isinstance(observation, Mapping) or not {"tradable", "weights"} <= set(observation):
            raise ArgumentError(
                f"a baseline cannot read an observation of type {type(observation).__name__}; "
                'build its environment with observation="index" or "window".'
            )
        if np.ndim(observation["weights"]) == 1:
            batch = {name: np.asarray(entry)[None] for name, entry in observation.items()}
            return self.weights(batch)[0], state
        return self.weights(observation), state
