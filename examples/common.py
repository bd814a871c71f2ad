"""Shared code of the examples: the task, a replay of recorded steps, comparison of growth."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portfolio_env import PortfolioEnv, PortfolioVectorEnv

MARKET = "synthetic-momentum?seed=0"  # 5 assets, 3,000 days; one of the features predicts returns
OPTIONS: dict[str, Any] = {
    "market": MARKET,
    "window": 1,
    "random_start": True,
    "episode_length": 250,
    "reward": {"name": "excess_log_return", "scale": 100},
}
"""The task that is trained on; JSON-able, as ``gym.make`` and configuration files want it."""
Numbers = NDArray[Any]


class Clock:
    """Clock that reports steps per second since it was made."""

    def __init__(self) -> None:
        self.begun = perf_counter(), process_time()

    def speed(self, steps: int) -> str:
        """Return a sentence on speed; on a busy machine processor time is the better measure."""
        seconds, processor = perf_counter() - self.begun[0], process_time() - self.begun[1]
        each = f"{steps / processor:,.0f} a second of processor time, {steps / seconds:,.0f} in all"
        return f"{steps:,} steps: {each}"


def replay(
    actions: Numbers,
    rewards: Numbers,
    ended: Numbers,
    seed: int,
    *,
    next_step: bool = False,
    resets: int = 1,
) -> str:
    """Repeat one lane's actions in a single environment and compare every reward.

    Args:
        actions: (steps, N + 1) that a library recorded for the lane, from its first reset on.
        rewards: (steps,) that it recorded.
        ended: (steps,) whether the lane's episode ended there. A first episode may have been
            shorter than those of ``OPTIONS``, which is ``stagger=True``.
        seed: Seed of the lane: the environment's seed plus the lane's number.
        next_step: The lane was reset in the step after an end, whose action counts for nothing.
        resets: Number of resets before the library's first step.

    Returns:
        A sentence that says how much was compared.

    Raises:
        AssertionError: Where a reward differs by more than float32 explains, or an episode ends.
    """
    env = PortfolioEnv(**OPTIONS)
    env.reset(seed=seed)
    for _ in range(resets - 1):
        env.reset()
    compared, ends, waiting = 0, 0, False
    for step, (action, recorded, end) in enumerate(zip(actions, rewards, ended, strict=True)):
        if waiting:
            env.reset()
            waiting = False
            continue
        _, reward, terminated, truncated, _ = env.step(np.asarray(action))
        compared += 1
        assert abs(reward - recorded) <= 1e-6 * max(1.0, abs(reward)), (step, reward, recorded)
        assert bool(end) == (terminated or truncated) or (end and ends == 0), step
        if end:
            ends += 1
            waiting = next_step
            if not next_step:
                env.reset()
    return f"{compared} steps of one lane, {ends} ends of episodes among them, replay exactly"


def growth(act: Callable[[Any], Any], observation: str = "flat") -> float:
    """Return yearly log growth over the whole market, from equal weights, at training costs.

    Args:
        act: Actions (1, N + 1) for a batch of one observation.
        observation: Observation mode of the policy.
    """
    options = OPTIONS | {"random_start": False, "episode_length": None, "initial": "equal_weight"}
    env = PortfolioVectorEnv(1, **options, observation=observation, autoreset_mode="Disabled")
    shown, _ = env.reset()
    total, steps, running = 0.0, 0, True
    while running:
        shown, _, terminated, truncated, info = env.step(np.asarray(act(shown)))
        total, steps = total + float(info["log_return"][0]), steps + 1
        running = not (terminated[0] or truncated[0])
    return total / steps * env.simulator.market.bars_per_year()


def equal_weight(_: Any) -> Numbers:
    """Return scores of equal weights: the softmax gives cash e^-10 of what an asset gets."""
    return np.array([[-1.0] + [1.0] * 5], np.float32)


def judge(act: Callable[[Any], Any], observation: str = "flat") -> str:
    """Compare a policy with equal weight on the training market, and print the result.

    Raises:
        AssertionError: If it is no better.
    """
    agent, equal = growth(act, observation), growth(equal_weight)
    assert agent > equal, f"{agent:.1%} a year in sample, equal weight {equal:.1%}"
    return f"log growth in sample {agent:.1%} a year, equal weight {equal:.1%}"
