"""The SB3 adapter: equal to DummyVecEnv step by step, per-lane access, errors."""

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from agents import SB3VecEnv, make_sb3_vec_env
from portfolio_env import Market, PortfolioEnv, PortfolioVectorEnv, load_market
from portfolio_env.errors import ArgumentError

LANES = 5


@pytest.fixture(scope="module")
def market() -> Market:
    return load_market("synthetic?bars=300&assets=6")


def equal(a: Any, b: Any) -> bool:
    """Bit equality of observations, infos and lists of them, types of numbers included."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return type(a) is type(b) and a == b


VARIANTS = [
    {"observation": "window"},
    {"observation": "flat", "random_start": True},
    {"observation": "index", "random_start": True},
    {"observation": "index", "random_start": True, "universe": 3},
    {"observation": "window", "random_start": True, "universe": 3},
    {"observation": "flat", "universe": 4},
    {"observation": "index", "execution": "next_open", "adjustment": 0.3},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_equal_to_dummy_vec_env(market: Market, options: dict[str, Any]) -> None:
    settings = {"window": 5, "episode_length": 7, **options}
    ours = SB3VecEnv(
        PortfolioVectorEnv(LANES, market, autoreset_mode=AutoresetMode.SAME_STEP, **settings)
    )
    theirs = DummyVecEnv([lambda: PortfolioEnv(market, **settings) for _ in range(LANES)])
    for venv in (ours, theirs):
        venv.seed(3)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert equal(ours.reset(), dict(obs) if isinstance(obs := theirs.reset(), dict) else obs)
    assert equal(ours.reset_infos, theirs.reset_infos)
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(25):
        actions = rng.uniform(-1, 1, (LANES, *ours.action_space.shape)).astype(np.float32)
        (obs_a, *rest_a), (obs_b, *rest_b) = ours.step(actions), theirs.step(actions)
        assert equal(obs_a, dict(obs_b) if isinstance(obs_b, dict) else obs_b)
        assert equal(rest_a, rest_b)
        assert equal(ours.reset_infos, theirs.reset_infos)
        ends += sum("terminal_observation" in info for info in rest_a[2])
    assert ends == 3 * LANES


def test_a_ruined_account_is_terminated_and_not_truncated() -> None:
    import pandas as pd

    crash = pd.DataFrame(
        {"A": [100.0, 100.0, 1e-4, 1e-4], "B": [100.0, 100.0, 1e-4, 1e-4]},
        index=pd.date_range("2020", periods=4),
    )
    market = load_market(crash, features=["return_1"])
    venv = make_sb3_vec_env(market, 2, window=1, observation="index")
    venv.reset()
    _, _, dones, infos = venv.step(np.array([[-1, 1, 1], [-1, 1, 1]], np.float32))
    assert dones.all()
    assert not any(info["TimeLimit.truncated"] for info in infos)
    assert all("terminal_observation" in info for info in infos)


def test_the_factory_monitors_and_seeds(market: Market) -> None:
    options = {"window": 2, "observation": "index", "random_start": True, "episode_length": 4}
    first, second = (make_sb3_vec_env(market, LANES, seed=7, **options) for _ in range(2))
    assert isinstance(first, VecMonitor)
    assert equal(first.reset(), second.reset())
    action = np.zeros((LANES, 7), np.float32)
    for _ in range(4):
        _, rewards, _, infos = first.step(action)
    assert all(info["episode"]["l"] == 4 for info in infos)
    assert rewards.dtype == np.float32


def test_reset_options_hold_for_every_lane_once(market: Market) -> None:
    venv = make_sb3_vec_env(market, 2, window=2, observation="index")
    weights = np.full(7, 1 / 7)
    venv.set_options({"t": 100, "weights": weights})
    obs = venv.reset()
    assert obs["t"].tolist() == [[100], [100]]
    np.testing.assert_allclose(obs["weights"], 1 / 7, rtol=1e-6)
    assert venv.reset()["t"][0, 0] == market.warmup + 1
    venv.set_options([{"t": 100}, {"t": 101}])
    with pytest.raises(ArgumentError, match="differ between lanes"):
        venv.reset()


def test_attributes_and_methods_are_per_lane(market: Market) -> None:
    venv = make_sb3_vec_env(market, 3, window=2, observation="index", render_mode="rgb_array")
    venv.reset()
    simulators = venv.get_attr("simulator", [0, 2])
    assert len(simulators) == 2
    assert simulators[0].market is market
    assert venv.get_attr("observation_space", 1) == [venv.observation_space]
    assert venv.get_attr("render_mode") == ["rgb_array"] * 3
    assert not venv.has_attr("no_such_attribute")
    frames = venv.env_method("render", indices=[1])
    assert len(frames) == 1
    assert frames[0].shape[-1] == 3
    assert len(venv.get_images()) == 3
    assert venv.env_is_wrapped(VecMonitor) == [False] * 3
    venv.set_attr("note", "seen")
    assert venv.get_attr("note") == ["seen"] * 3
    with pytest.raises(ArgumentError, match="share"):
        venv.set_attr("note", "no", indices=[0])
    venv.close()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_modes_are_refused(market: Market, mode: AutoresetMode) -> None:
    with pytest.raises(ArgumentError, match="SAME_STEP"):
        SB3VecEnv(PortfolioVectorEnv(2, market, autoreset_mode=mode))


def test_any_gymnasium_vector_env_in_same_step_mode_will_do(market: Market) -> None:
    make = [lambda: PortfolioEnv(market, window=2, observation="index", episode_length=3)] * 2
    sync = SB3VecEnv(SyncVectorEnv(make, autoreset_mode=AutoresetMode.SAME_STEP))
    native = make_sb3_vec_env(market, 2, window=2, observation="index", episode_length=3).unwrapped
    assert equal(sync.reset(), native.reset())
    for _ in range(7):
        assert equal(
            list(sync.step(np.zeros((2, 7), np.float32))),
            list(native.step(np.zeros((2, 7), np.float32))),
        )
