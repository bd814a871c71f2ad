"""Decisions at any closed bar, the last one too: what a policy asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.checks import check_integer
from portfolio_env.env import PortfolioEnv
from portfolio_env.errors import ArgumentError
from portfolio_env.observations import Observer

if TYPE_CHECKING:
    from portfolio_env.evaluation.backtest import Policy

Float = NDArray[np.float64]
_SUM = 1e-6  # rounding of weights that are given


@dataclass(frozen=True, eq=False)
class Decision:
    """Answer of a policy at a closed bar.

    Attributes:
        row: Row of the bar in the market.
        timestamp: Time of the bar.
        weights: (N + 1,) weights that were observed, cash first.
        action: (N + 1,) the policy's answer, scores or weights.
    """

    row: int
    timestamp: np.datetime64
    weights: Float
    action: NDArray[np.floating[Any]]


class Predictor:
    """A policy in the rules of an environment, asked bar by bar for an account held elsewhere.

    The observation is made as in the environment. What the policy remembers is carried from one
    decision to the next.

    Args:
        policy: Answers ``predict``; its actions are deterministic.
        env: Environment for it: market, observation and rules of trading. Its own account is not
            read, and is no longer of use.

    Attributes:
        simulator: Simulator of the environment.

    Raises:
        ArgumentError: If the policy answers with other actions than the environment takes or has a
            drawdown stop, or the environment draws assets.
    """

    def __init__(self, policy: Policy, env: PortfolioEnv) -> None:
        self.policy, self.simulator = policy, env.simulator
        wanted = getattr(policy, "action", self.simulator.action)
        if wanted != self.simulator.action:
            raise ArgumentError(
                f"the policy answers with {wanted}, but the environment takes action="
                f'"{self.simulator.action}"; build it with action="{wanted}".'
            )
        if getattr(policy, "needs_values", False):
            raise ArgumentError(
                "the policy has a drawdown stop, and a single decision knows no values of the "
                "account: leave out max_drawdown, or call limited(..., stopped=...)."
            )
        if self.simulator.episodes.universe is not None:
            raise ArgumentError("universe= draws assets for episodes; leave it out to decide.")
        self._observer = Observer(self.simulator, env.env_options["observation"])
        self.reset()

    def reset(self) -> None:
        """Forget what the policy remembers."""
        self._state: Any = None
        self._fresh = True

    def decide(self, weights: ArrayLike, t: int | None = None) -> Decision:
        """Return what the policy asks for at a bar, from weights that the account has there.

        Args:
            weights: (N + 1,) weights at the close of the bar, cash first, summing to 1.
            t: Row of the market; None is the last one.

        Raises:
            ArgumentError: If the bar has too little history, or the weights are none.
        """
        market, lanes = self.simulator.market, self.simulator.lanes
        earliest = market.warmup + self.simulator.window - 1
        row = check_integer("t", market.n_bars - 1 if t is None else t, earliest, market.n_bars - 1)
        own = np.array(weights, np.float64)
        whole = own.shape == (market.n_assets + 1,) and bool(np.isfinite(own).all())
        if not whole or abs(own.sum() - 1) > _SUM:
            raise ArgumentError(
                f"weights of shape {own.shape} must be {market.n_assets + 1} finite numbers, cash "
                "first, that sum to 1."
            )
        lanes.clock[0], lanes.weights[0] = row, own
        start = np.array([self._fresh])
        answer, self._state = self.policy.predict(
            self._observer(), self._state, start, deterministic=True
        )
        self._fresh = False
        return Decision(row, market.timestamps[row], own, np.array(answer)[0])
