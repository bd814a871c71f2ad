"""Record a Minari data set, read it back, and replay every episode of it.

    python examples/minari_record.py

The data set holds the keywords of the environment, so that it can be made again from the data set
alone: give them to ``gym.make`` as JSON-able values, a market by its name.
"""

from __future__ import annotations

import os
import warnings
from tempfile import TemporaryDirectory

import gymnasium as gym
import numpy as np
from common import OPTIONS, Clock

NAME, EPISODES, SEED = "portfolio/planted/random-v0", 20, 0


def main() -> None:
    """Record episodes of random actions and replay them from the files."""
    with TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        import minari

        made = gym.make("portfolio_env:Portfolio-v0", observation="flat", **OPTIONS)
        env, clock = minari.DataCollector(made), Clock()
        env.action_space.seed(SEED)
        for episode in range(EPISODES):
            env.reset(seed=SEED + episode)
            ended = False
            while not ended:
                _, _, terminated, truncated, _ = env.step(env.action_space.sample())
                ended = terminated or truncated
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # author and link, for those who publish
            env.create_dataset(NAME, algorithm_name="random", eval_env=made)
        print(clock.speed(EPISODES * OPTIONS["episode_length"]))

        data = minari.load_dataset(NAME)
        again, steps = data.recover_environment(), 0
        for episode in data.iterate_episodes():
            observation, _ = again.reset(seed=SEED + int(episode.id))
            assert np.array_equal(observation, episode.observations[0])
            for step, action in enumerate(episode.actions):
                observation, reward, *_ = again.step(action)
                assert np.array_equal(observation, episode.observations[step + 1])
                assert reward == episode.rewards[step]
                steps += 1
        print(f"{steps} steps of {data.total_episodes} episodes read back and replay exactly")


if __name__ == "__main__":
    main()
