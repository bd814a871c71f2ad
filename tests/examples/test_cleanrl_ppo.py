"""The example in plain torch: exact in every autoreset mode, equal advantages in all, it learns."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch as th
from gymnasium.vector import AutoresetMode

from portfolio_env import PortfolioVectorEnv

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LANES = 8
MODES = [mode.value for mode in AutoresetMode]


@pytest.fixture(scope="module")
def example():
    """The module of the example; its helpers lie beside it."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        import cleanrl_ppo

        yield cleanrl_ppo
    finally:
        sys.path.remove(str(EXAMPLES))
        sys.modules.pop("cleanrl_ppo", None)
        sys.modules.pop("common", None)


def made(example, mode, policy="flat", lanes=LANES, **options):
    observation = example.OBSERVATION[policy]
    settings = {**example.OPTIONS, "observation": observation, "stagger": True, **options}
    env = PortfolioVectorEnv(lanes, **settings, autoreset_mode=mode)
    th.manual_seed(0)
    return env, example.network(env, policy)


@pytest.mark.parametrize("policy", ["flat", "per_asset"])
@pytest.mark.parametrize("mode", MODES)
def test_what_was_learnt_from_replays_exactly(example, mode, policy):
    env, net = made(example, mode, policy)
    record = example.train(env, net, updates=10, seed=4, lane=1)
    told = example.replay(*record, 4 + 1, next_step=mode == "NextStep")
    assert "2 ends" in told  # after 63 steps, and 250 later
    actions, rewards, ended = record
    rewards = rewards.copy()
    rewards[100] += 1e-4
    with pytest.raises(AssertionError):
        example.replay(actions, rewards, ended, 4 + 1, next_step=mode == "NextStep")


def test_advantages_are_the_same_in_every_mode(example):
    """Over first episodes, with noise too small to tell and starts that are not drawn."""
    found = {}
    for mode in MODES:
        env, net = made(example, mode, random_start=False, stagger=False, max_episode_steps=20)
        with th.no_grad():
            net.log_std.fill_(-20.0)
        observation, _ = env.reset(seed=0)
        kept, *_ = example.collect(env, net, observation, np.zeros(LANES, bool))
        assert kept["ended"][19].all()
        assert int(kept["valid"].sum()) == LANES * (32 - (mode == "NextStep"))
        found[mode] = kept["advantage"][:20].numpy()
    for mode in MODES[1:]:
        np.testing.assert_allclose(found[mode], found[MODES[0]], atol=1e-5)


def test_it_beats_equal_weight_where_it_was_trained(example):
    env, net = made(example, "SameStep", "per_asset", lanes=64)
    example.train(env, net, updates=15, seed=0, lane=0)
    with th.no_grad():
        assert "a year" in example.judge(lambda shown: net(shown)[0].numpy(), "index")


def test_equal_weight_does_not_beat_itself(example):
    import common

    with pytest.raises(AssertionError, match="equal weight"):
        common.judge(common.equal_weight)
