"""`start_groups`: lanes of a group pass through the same bars, whatever else they draw."""

import numpy as np
import pytest

from portfolio_env import ArgumentError, PortfolioVectorEnv

MARKET = "synthetic?seed=3&bars=200&assets=3"
GROUPS = [0, 0, 0, 0, 1, 1, 1]  # 7 lanes in 2 groups


def made(**options):
    given = {"random_start": True, "episode_length": 12, "window": 4, "start_groups": 2}
    return PortfolioVectorEnv(7, MARKET, observation="index", **given | options)


def actions_of(steps, width=4):
    return np.random.default_rng(0).uniform(-1, 1, (steps, 7, width)).astype(np.float32)


def bars_of_groups(t):
    return [set(t[np.equal(GROUPS, group)].tolist()) for group in (0, 1)]


@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
@pytest.mark.parametrize("stagger", [False, True])
def test_a_group_is_at_one_bar_and_groups_are_drawn_apart(mode, stagger):
    env = made(autoreset_mode=mode, stagger=stagger, universe=2)
    env.reset(seed=5)
    starts = set()
    for actions in actions_of(60, 3):
        groups = bars_of_groups(env.simulator.t)
        assert [len(bars) for bars in groups] == [1, 1]
        starts |= set.union(*groups)
        env.step(actions)
    assert len(starts) > 30
    assert len({tuple(assets) for assets in env.simulator.assets.tolist()}) > 1


def test_one_group_per_lane_draws_what_none_draws():
    alone, grouped = made(start_groups=None), made(start_groups=7)
    assert alone.reset(seed=5)[0]["t"].tolist() == grouped.reset(seed=5)[0]["t"].tolist()


@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
def test_a_lane_that_ends_early_rejoins_its_group(mode):
    env = made(autoreset_mode=mode, episode_length=30)
    env.reset(seed=5)
    before = None
    for step, actions in enumerate(actions_of(29)):
        if step == 4:
            env.simulator.lanes.clock[1, 1] = env.simulator.t[1] + 1  # lane 1 ends in this step
        env.step(actions)
        if step != 4 or mode == "SameStep":
            assert [len(bars) for bars in bars_of_groups(env.simulator.t)] == [1, 1]
        before = env.simulator.lanes.clock[1].copy()
    assert (before[:4] == before[0]).all()
    assert env.step(actions_of(1)[0])[3].all()


def test_a_group_that_cannot_be_rejoined_gets_a_start_of_its_own(monkeypatch):
    env = made(autoreset_mode="SameStep", episode_length=30, universe=2)
    env.reset(seed=5)
    listed = env.simulator.episodes.listed
    here = int(env.simulator.t[1]) + 1
    monkeypatch.setattr(
        env.simulator.episodes, "listed", lambda t: listed(t)[: 1 if t == here else None]
    )
    env.simulator.lanes.clock[1, 1] = here
    monkeypatch.setattr(env.simulator.episodes, "starts", np.array([90]))
    env.step(actions_of(1, 3)[0])
    assert env.simulator.t[1] == 90


def test_the_number_of_groups_is_checked():
    for wrong in (0, 8, 2.5, True):
        with pytest.raises(ArgumentError, match=r"start_groups=.* must be an integer in"):
            made(start_groups=wrong)
