"""`stagger`: lanes do not end together, and nothing but the length of first episodes changes."""

import numpy as np
import pytest

from agents import make_sb3_vec_env
from portfolio_env import ArgumentError, PortfolioEnv, PortfolioVectorEnv

OPTIONS = {"market": "synthetic?seed=3&bars=200&assets=3", "window": 4, "observation": "index"}
LANES, LENGTH = 5, 12
CUTS = [3, 5, 8, 10, 12]  # 12 * (1, ..., 5) / 5, rounded up


def made(**options):
    given = {"random_start": True, "episode_length": LENGTH, "stagger": True, "universe": 2}
    return PortfolioVectorEnv(LANES, **OPTIONS | given | options)


def actions_of(steps, width=3):
    return np.random.default_rng(0).uniform(-1, 1, (steps, LANES, width)).astype(np.float32)


def test_lanes_end_one_after_another_and_later_episodes_are_whole():
    env = made(autoreset_mode="SameStep")
    env.reset(seed=5)
    ends = np.array([env.step(actions)[3] for actions in actions_of(3 * LENGTH)])
    assert ends.sum(axis=1).max() == 1
    for lane, cut in enumerate(CUTS):
        expected = np.arange(cut, 3 * LENGTH + 1, LENGTH)
        assert (np.flatnonzero(ends[:, lane]) + 1).tolist() == expected.tolist()


@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
def test_a_lane_is_a_single_environment_that_is_reset_early(mode):
    env = made(autoreset_mode=mode)
    observation, _ = env.reset(seed=5)
    singles = [PortfolioEnv(**OPTIONS, random_start=True, universe=2) for _ in range(LANES)]
    for single in singles:
        single.simulator.episodes = env.simulator.episodes  # draws as if episodes were LENGTH long
    for lane, single in enumerate(singles):
        first, _ = single.reset(seed=5 + lane)
        assert all(np.array_equal(first[name], observation[name][lane]) for name in first)
    waiting = np.zeros(LANES, bool)
    for actions in actions_of(2 * LENGTH):
        observation, rewards, _, truncated, _ = env.step(actions)
        for lane, single in enumerate(singles):
            if waiting[lane]:
                shown, _ = single.reset()
            else:
                shown, reward, *_ = single.step(actions[lane])
                assert reward == rewards[lane]
            if truncated[lane] and mode == "SameStep":
                shown, _ = single.reset()
            assert all(np.array_equal(shown[name], observation[name][lane]) for name in shown)
        waiting = truncated & (mode == "NextStep")


def test_a_stopped_environment_goes_on_bit_equal_within_first_episodes():
    env, other = made(autoreset_mode="SameStep"), made(autoreset_mode="SameStep")
    env.reset(seed=5)
    for actions in actions_of(4):
        env.step(actions)
    other.restore(env.state())
    for actions in actions_of(2 * LENGTH):
        left, right = env.step(actions), other.step(actions)
        for a, b in zip(left[1:4], right[1:4], strict=True):
            assert np.array_equal(a, b)


def test_resets_of_some_lanes_are_whole_and_a_reset_of_all_is_staggered_again():
    env = made(autoreset_mode="Disabled", random_start=False, universe=None)
    env.reset(seed=0)
    first, last = env.simulator.lanes.clock
    assert (last - first).tolist() == CUTS
    env.reset(options={"reset_mask": np.array([True, True, False, False, False])})
    assert (last - first).tolist() == [LENGTH, LENGTH, *CUTS[2:]]
    env.reset()
    assert (last - first).tolist() == CUTS


def test_shares_are_of_what_an_episode_would_have_had():
    to_the_end = made(episode_length=None, random_start=False, universe=None)
    to_the_end.reset()
    first, last = to_the_end.simulator.lanes.clock
    whole = to_the_end.simulator.episodes.end - 1 - first[0]
    assert (last - first).tolist() == [-(-whole * (i + 1) // LANES) for i in range(LANES)]
    limited = made(max_episode_steps=3)
    limited.reset(seed=0)
    first, last = limited.simulator.lanes.clock
    assert (last - first).tolist() == [1, 2, 2, 3, 3]


def test_sb3_lanes_are_staggered_too():
    options = dict(OPTIONS)
    venv = make_sb3_vec_env(
        options.pop("market"), LANES, episode_length=LENGTH, stagger=True, **options
    )
    venv.reset()
    dones = np.array([venv.step(actions)[2] for actions in actions_of(LENGTH, 4)])
    assert (np.argmax(dones, axis=0) + 1).tolist() == CUTS


def test_it_is_off_unless_asked_for_and_is_a_truth():
    env = made(stagger=False, autoreset_mode="SameStep")
    env.reset(seed=5)
    ends = [env.step(actions)[3].all() for actions in actions_of(LENGTH)]
    assert ends == [False] * (LENGTH - 1) + [True]
    with pytest.raises(ArgumentError, match="stagger"):
        made(stagger=1)
    with pytest.raises(ArgumentError, match="lanes are of PortfolioVectorEnv"):
        PortfolioEnv(**OPTIONS, stagger=True)
