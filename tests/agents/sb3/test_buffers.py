"""The index replay buffer: the samples of SB3's own buffer at a fraction of the bytes."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer

from agents import IndexReplayBuffer, bytes_per_transition, make_sb3_vec_env
from agents.sb3.buffers import buffer_state, restore_buffer
from portfolio_env import Market, load_market
from portfolio_env.errors import ArgumentError

LANES = 4


@pytest.fixture(scope="module")
def market() -> Market:
    """A market with gaps, a late listing and a delisting: tradable changes within episodes."""
    import pandas as pd

    rng = np.random.default_rng(0)
    close = 100 * np.exp(rng.normal(0, 0.02, (120, 6)).cumsum(0))
    close[:50, 1] = np.nan
    close[70:, 2] = np.nan
    close[rng.random(120) < 0.3, 3] = np.nan
    names = list("ABCDEF")
    frame = pd.DataFrame(close, pd.date_range("2020", periods=120), names)
    return load_market(frame, features=["return_1"])


def filled(market: Market, size: int, steps: int, **options: Any) -> tuple[Any, Any]:
    """Both kinds of buffer after the same steps of an environment."""
    venv = make_sb3_vec_env(
        market,
        LANES,
        seed=1,
        observation="index",
        window=1,
        random_start=True,
        episode_length=9,
        **options,
    )
    kinds = (IndexReplayBuffer, DictReplayBuffer)
    buffers = [
        kind(size, venv.observation_space, venv.action_space, "cpu", n_envs=LANES) for kind in kinds
    ]
    buffers[0].bind(market)
    rng = np.random.default_rng(0)
    obs = venv.reset()
    for _ in range(steps):
        action = rng.uniform(-1, 1, (LANES, *venv.action_space.shape)).astype(np.float32)
        new_obs, rewards, dones, infos = venv.step(action)
        next_obs = {key: value.copy() for key, value in new_obs.items()}
        for lane in np.flatnonzero(dones):
            for key, value in infos[lane]["terminal_observation"].items():
                next_obs[key][lane] = value
        for buffer in buffers:
            buffer.add(obs, next_obs, action, rewards, dones, infos)
        obs = new_obs
    return buffers[0], buffers[1]


def assert_same_samples(ours: Any, theirs: Any) -> None:
    np.random.seed(5)
    a = ours.sample(200)
    np.random.seed(5)
    b = theirs.sample(200)
    for name in ("actions", "rewards", "dones"):
        assert th.equal(getattr(a, name), getattr(b, name)), name
    for name in ("observations", "next_observations"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.keys() == y.keys()
        for key in x:
            assert x[key].dtype == y[key].dtype
            assert th.equal(x[key], y[key]), (name, key)


@pytest.mark.parametrize("options", [{}, {"universe": 3}], ids=["all", "universe"])
@pytest.mark.parametrize("steps", [15, 40], ids=["part", "wrapped"])
def test_samples_equal_those_of_sb3(market: Market, options: dict[str, Any], steps: int) -> None:
    ours, theirs = filled(market, LANES * 20, steps, **options)
    assert ours.size() == theirs.size() == min(steps, 20)
    assert_same_samples(ours, theirs)


@pytest.mark.parametrize("steps", [7, 20, 30])
def test_a_restored_buffer_goes_on_exactly(steps: int, market: Market) -> None:
    for which in (0, 1):  # ours, SB3's
        buffers = filled(market, LANES * 20, steps, universe=3)
        restored = filled(market, LANES * 20, 1, universe=3)[which]
        restore_buffer(restored, deepcopy(buffer_state(buffers[which])))
        assert (restored.pos, restored.full) == (buffers[0].pos, buffers[0].full)
        assert_same_samples(restored, buffers[1])


def test_a_longer_buffer_takes_a_full_one_with_the_oldest_rows_first(market: Market) -> None:
    short, _ = filled(market, LANES * 20, 30)
    longer, _ = filled(market, LANES * 40, 1)
    restore_buffer(longer, buffer_state(short))
    assert (longer.pos, longer.full) == (20, False)
    for name, column in short.columns.items():
        oldest_first = np.concatenate([column[10:], column[:10]])
        assert np.array_equal(longer.columns[name][:20], oldest_first)
    with pytest.raises(ArgumentError, match="same lanes"):
        restore_buffer(short, buffer_state(longer) | {"pos": 21})


def test_a_transition_of_thirty_assets_takes_under_400_bytes() -> None:
    market = load_market("synthetic?bars=100&assets=30")
    venv = make_sb3_vec_env(market, 2, observation="index", window=60)
    ours = IndexReplayBuffer(100, venv.observation_space, venv.action_space, "cpu", n_envs=2)
    assert bytes_per_transition(ours) < 400
    theirs = DictReplayBuffer(100, venv.observation_space, venv.action_space, "cpu", n_envs=2)
    arrays = [*theirs.observations.values(), *theirs.next_observations.values(), theirs.actions]
    arrays += [theirs.rewards, theirs.dones, theirs.timeouts]
    assert bytes_per_transition(theirs) == sum(array.nbytes for array in arrays) / 100


def test_errors_name_the_mend(market: Market) -> None:
    action_space = spaces.Box(-1, 1, (7,), np.float32)
    with pytest.raises(ArgumentError, match='observation="index"'):
        IndexReplayBuffer(10, spaces.Dict(weights=action_space), action_space)
    ours, _ = filled(market, 80, 3)
    with pytest.raises(ArgumentError, match="optimize_memory_usage"):
        IndexReplayBuffer(10, ours.observation_space, action_space, optimize_memory_usage=True)
    unbound = IndexReplayBuffer(10, ours.observation_space, action_space)
    unbound.pos = 1
    with pytest.raises(ArgumentError, match="bind_market"):
        unbound.sample(1)
    with pytest.raises(ArgumentError, match="same lanes"):
        restore_buffer(filled(market, 80, 3, universe=3)[0], buffer_state(ours))
