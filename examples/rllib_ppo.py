"""PPO of RLlib over the native vector environment, for a few iterations.

    python examples/rllib_ppo.py

RLlib makes environments by their id; ``gym_env_vectorize_mode="vector_entry_point"`` gives it the
native lanes, in NEXT_STEP mode, which is the one it knows. Its extra ``ray[rllib]`` pins an older
Gymnasium: install ``ray`` and the other requirements of the extra by name.
"""

from __future__ import annotations

import os
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"  # all on this machine; else a token is written to ~/.ray

import numpy as np
import ray
from common import OPTIONS, Clock
from ray.rllib.algorithms.ppo import PPOConfig

from portfolio_env import PortfolioEnv

LANES, ITERATIONS = 32, 3
TASK = OPTIONS | {"observation": "flat", "random_start": False}


def arrays_of(episode: Any) -> tuple[Any, Any]:
    """Return copies of actions and rewards: the learner appends an artificial step to episodes."""
    assert episode.is_done
    return np.array(episode.actions), np.array(episode.rewards)


def main() -> None:
    """Train for a few iterations and replay whole episodes."""
    episodes: list[Any] = []
    config = (
        PPOConfig()
        .environment("portfolio_env:Portfolio-v0", env_config=TASK)
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=LANES,
            gym_env_vectorize_mode="vector_entry_point",
            batch_mode="complete_episodes",
        )
        .training(train_batch_size_per_learner=8_000, minibatch_size=2_000, num_epochs=5, gamma=0.9)
        .callbacks(on_sample_end=lambda samples, **_: episodes.extend(map(arrays_of, samples)))
        .debugging(seed=0, log_level="ERROR")
    )
    # the actions that are recorded are those that the environment is given, which clips them
    config.normalize_actions = config.clip_actions = False
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    algorithm, clock = config.build_algo(), Clock()
    for _ in range(ITERATIONS):
        algorithm.train()
    print(clock.speed(sum(len(rewards) for _, rewards in episodes)))
    algorithm.stop()
    ray.shutdown()

    env, steps = PortfolioEnv(**TASK), 0
    assert len(episodes) >= LANES
    for actions, rewards in episodes[:: LANES // 2]:
        env.reset()
        assert len(rewards) == TASK["episode_length"]
        for action, recorded in zip(actions, rewards, strict=True):
            _, reward, *_ = env.step(action)
            assert abs(reward - recorded) <= 1e-6 * max(1.0, abs(reward))
            steps += 1
    print(f"{steps} steps of whole episodes replay exactly")


if __name__ == "__main__":
    main()
