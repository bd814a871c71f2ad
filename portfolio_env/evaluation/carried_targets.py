"""Targets of baselines that a trade stopped short of, carried on until they are reached."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]

# A target is reached where less than this share of the way to it is left: with adjustment below 1
# no last step ends exactly on it.
REACHED = 1e-6
MISSING = 1e-9  # weights below this are rounding


class LimitedExecutor(Protocol):
    """Executor whose trades may stop short of their targets; the simulator is one.

    Attributes:
        limited: Whether any trade may.
        weights: (B, N + 1) weights at the last close, as the market left them; cash first.
        tradable: (B, N) which assets traded in the last bar.
        ways: (B,) shares of the way to their targets that the last trades went.
        traded: (B, N) which assets could be traded, as ordered, by the last trades.
    """

    limited: bool
    weights: Weights
    tradable: NDArray[np.bool_]
    ways: Weights
    traded: NDArray[np.bool_]

    def moved(self, weights: Weights) -> Weights:
        """Return (B, N + 1) what weights held right after the last trade are at the last close."""
        ...


class CarriedTargets:
    """Weights to ask for in the place of a baseline that holds what it has short of its target.

    A baseline that does not rebalance at a bar answers with the weights that it observes. Where a
    turnover limit or ``adjustment`` cut its last trade short, the target itself is asked for again,
    as the market has moved it since: bar by bar the account comes nearer to the one that reached
    the target at once, and holds the same from then on. A new answer replaces the target.
    The same holds for an asset whose order was not filled as a whole, or that could be traded at
    the decision and had no bar at the next open. Constraints, bands and assets halted at the
    decision alone carry nothing on: such a trade went all the way it could.

    Args:
        executor: Executor of the environment, ``env.unwrapped.executor``; where it is not
            ``limited`` all answers stay as they are.
        grows: Its market grows, so that what is not limited so far may be.

    >>> from baselines import make_baseline
    >>> from portfolio_env import PortfolioEnv
    >>> env = PortfolioEnv(
    ...     "synthetic", observation="index", action="weights", constraints={"max_turnover": 0.1}
    ... )
    >>> model, carried = make_baseline("buy_and_hold", env.market), CarriedTargets(env.executor)
    >>> observation, info = env.reset()
    >>> for _ in range(11):
    ...     weights, _ = model.predict(observation)
    ...     observation, _, _, _, info = env.step(carried.asked(weights[None])[0])
    >>> round(info["cash"], 9)
    0.0
    """

    def __init__(self, executor: Any, *, grows: bool = False) -> None:
        self.executor: LimitedExecutor = executor
        self._limited = grows or bool(getattr(executor, "limited", False))
        if self._limited:
            self._targets = np.array(executor.weights)
            # (B,) share of the way to what can be traded of the target that is left
            self._left = np.zeros(len(self._targets))
            # (B, N) what is still to be bought or sold and could not be
            self._halted = np.zeros_like(self._targets[:, 1:], np.bool_)
            # (B, N) what could be traded at the close of the last decision; none was taken yet
            self._tradable = np.zeros_like(self._halted)

    def asked(self, answers: Weights, starts: NDArray[np.bool_] | None = None) -> Weights:
        """Return the weights to ask for at this bar; call it once per step.

        Args:
            answers: (B, N + 1) weights that the baseline answers with.
            starts: (B,) lanes that start a new episode at this bar.

        Returns:
            (B, N + 1) the answers; in lanes that hold short of a target, the target. The money for
            what cannot be traded at the last close stays in cash until it can.
        """
        if not self._limited:
            return answers
        observed = self.executor.weights
        holds = (answers.astype(np.float32) == observed.astype(np.float32)).all(axis=1)
        holds &= (observed[:, 1:] != 0).any(axis=1)  # an account of cash has nothing to hold
        targets = np.array(answers, np.float64)
        ways = self.executor.ways
        self._left *= 1 - ways
        self._left[self._left < REACHED] = 0.0
        unforeseen = self._tradable & ~self.executor.traded
        if unforeseen.any():
            short = abs(self.executor.moved(self._targets)[:, 1:] - observed[:, 1:]) > MISSING
            self._halted |= unforeseen & short
        self._tradable = self.executor.tradable
        if starts is not None:
            self._left[starts], self._halted[starts] = 0.0, False
        carried = holds & ((self._left > 0) | self._halted.any(axis=1))
        if carried.any():
            targets[carried] = self.executor.moved(self._targets)[carried]
        self._left[~holds] = 1.0
        missing = np.where(self.executor.tradable, 0.0, targets[:, 1:] - observed[:, 1:])
        missing = np.where(carried[:, None], missing, 0.0)
        halted = abs(missing) > MISSING
        bought = np.maximum(missing, 0.0)
        out = targets.copy()
        out[:, 1:] -= bought
        out[:, 0] += bought.sum(axis=1)
        # what can be traded is reached, unless that is something else by now
        changed = carried & (halted != self._halted).any(axis=1)
        self._left[changed] = 1.0
        rests = carried & (self._left == 0)
        out[rests] = answers[rests]
        self._targets, self._halted = targets, halted
        return out
