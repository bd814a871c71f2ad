"""Exploration noise of deterministic policies."""

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.noise import ActionNoise

from portfolio_env.errors import ArgumentError


class LogitNoise(ActionNoise):
    """Independent Gaussian noise on the logits of one lane; SB3 copies it for every lane.

    Args:
        std: standard deviation, on logits in [-1, 1] to which the sum is clipped.
        n_actions: number of logits, cash included.
    """

    def __init__(self, std: float, n_actions: int) -> None:
        if not 0 <= std < np.inf or n_actions < 1:
            raise ArgumentError(f"std={std}, n_actions={n_actions}: need std >= 0, n_actions >= 1")
        super().__init__()
        self.std = std
        self.n_actions = n_actions

    def __call__(self) -> npt.NDArray[np.float32]:
        """Draw (n_actions,) from NumPy's global generator, which SB3 seeds."""
        return np.random.normal(0.0, self.std, self.n_actions).astype(np.float32)

    def __repr__(self) -> str:
        return f"LogitNoise(std={self.std}, n_actions={self.n_actions})"
