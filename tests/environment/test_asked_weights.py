"""`action="weights"` means one trade, whether or not a library clips to the box first."""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import ClipAction
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from portfolio_env import ArgumentError, PortfolioConstraints, PortfolioEnv, PortfolioVectorEnv

MARKET = "synthetic?seed=3&bars=120&assets=4"
RAGGED = "synthetic?seed=1&bars=300&assets=4&ragged=true"
LIMITS = {
    "none": {},
    "bounds": {"min_weight": 0.05, "max_weight": 0.4, "max_cash": 0.3},
    "rounded down in float32": {"max_weight": 0.7, "min_cash": 0.1},
    "top_k": {"top_k": 2, "min_weight": 0.1, "max_weight": 0.9},
    "band": {"max_weight": 0.6, "no_trade_band": 0.05},
    "turnover": {"max_turnover": 0.3},
    "levered": {"max_leverage": 2.0, "max_weight": 0.9},
    "shorts": {"long_only": False, "max_leverage": 1.5, "max_weight": 0.8},
}
ASKED = arrays(
    np.float64,
    (5,),
    elements=st.one_of(
        st.floats(-3, 3, width=32), st.sampled_from([0.0, 0.4, 0.7, 1.0, 1e30, -1e30])
    ),
)
CASES = st.sampled_from(sorted(LIMITS))


def box(constraints):
    return PortfolioConstraints(**constraints).box(4)


def outcome(env, action):
    """Everything a step leaves behind, of an environment at the same state each time."""
    env.reset(seed=0, options={"t": 60, "weights": [0.2, 0.3, 0.3, 0.1, 0.1]})
    observation, reward, _, _, info = env.step(action)
    return [np.asarray(part) for part in (reward, *observation.values(), *info.values())]


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@examples(60)
@given(name=CASES, action=ASKED, wide=st.booleans())
def test_a_clipped_action_is_the_same_trade_as_the_action_itself(name, action, wide):
    options = {"action": "weights", "observation": "index", "window": 1, "market": MARKET}
    options["constraints"] = LIMITS[name]
    low, high = box(LIMITS[name])
    action = action if wide else action.astype(np.float32)
    env = PortfolioEnv(**options)
    asked = outcome(env, action)
    for clipped in (np.clip(action, low, high), np.clip(action.astype(np.float64), low, high)):
        assert same(outcome(env, clipped), asked)
    assert same(outcome(ClipAction(env), action), asked)
    lanes = PortfolioVectorEnv(2, **options)
    both = np.stack([action, np.clip(action, low, high)])
    lanes.reset(seed=0, options={"t": 60, "weights": [0.2, 0.3, 0.3, 0.1, 0.1]})
    _, rewards, _, _, infos = lanes.step(both)
    assert rewards[0] == rewards[1] == asked[0]
    assert all(infos[key][0] == infos[key][1] for key in infos)


@examples(40)
@given(name=CASES, action=ASKED)
def test_stable_baselines_shell_means_the_same_trade(name, action):
    from agents import make_sb3_vec_env

    options = {"action": "weights", "observation": "index", "window": 1, "market": MARKET}
    venv = make_sb3_vec_env(num_envs=2, constraints=LIMITS[name], **options)
    venv.reset()
    # as its algorithms clip before they step
    clipped = np.clip(action, venv.action_space.low, venv.action_space.high)
    observation, rewards, _, _ = venv.step(np.stack([action, clipped]))
    assert rewards[0] == rewards[1]
    assert np.array_equal(*observation["weights"])


@examples(200)
@given(name=CASES, asked=ASKED)
def test_every_portfolio_within_the_constraints_lies_in_the_box(name, asked):
    weights = PortfolioConstraints(**LIMITS[name]).project(asked)
    low, high = (bound.astype(np.float64) for bound in box(LIMITS[name]))
    np.testing.assert_allclose(np.clip(weights, low, high), weights, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", LIMITS)
def test_the_action_space_is_that_box(name):
    env = PortfolioEnv(MARKET, window=1, action="weights", constraints=LIMITS[name])
    low, high = box(LIMITS[name])
    assert env.action_space.dtype == np.float32
    assert np.array_equal(env.action_space.low, low)
    assert np.array_equal(env.action_space.high, high)


@pytest.mark.parametrize("market", [MARKET, RAGGED])
@pytest.mark.parametrize("name", ["none", "levered"])
def test_weights_exactly_as_observed_are_kept_by_both(market, name):
    options = {
        "action": "weights",
        "observation": "index",
        "window": 1,
        "constraints": LIMITS[name],
    }
    env = PortfolioEnv(market, initial="equal_weight", costs={"fixed_fee": 1.0}, **options)
    low, high = box(LIMITS[name])
    observation, _ = env.reset(seed=0)
    for step in range(30):
        action = observation["weights"]
        observation, _, _, _, info = env.step(np.clip(action, low, high) if step % 2 else action)
        assert info["turnover"] == info["cost"] == 0.0


def test_what_is_not_finite_is_refused_and_not_clipped():
    env = PortfolioEnv(MARKET, window=1, action="weights")
    env.reset(seed=0)
    for value in (np.inf, -np.inf, np.nan):
        with pytest.raises(ArgumentError, match="not finite"):
            env.step(np.array([0.5, value, 0.5, 0.0, 0.0]))


def test_an_action_outside_the_box_by_hand():
    """[0, 3, 2] is clipped to [0, 1, 1], then halved; unclipped it would be all in one asset."""
    env = PortfolioEnv(
        "synthetic?seed=3&bars=120&assets=2",
        window=1,
        action="weights",
        costs={"commission_bps": 0},
    )
    env.reset(seed=0)
    env.step(np.array([0.0, 3.0, 2.0]))
    assert env.simulator.held[0].tolist() == [0.0, 0.5, 0.5]


def test_the_modes_of_a_vector_environment_agree():
    options = {"action": "weights", "observation": "index", "window": 1, "market": MARKET}
    actions = np.random.default_rng(0).normal(0.5, 2, (8, 3, 5))
    paths = []
    for mode in AutoresetMode:
        env = PortfolioVectorEnv(3, **options, autoreset_mode=mode)
        env.reset(seed=0)
        paths.append([env.step(action)[1] for action in actions])
    assert np.array_equal(paths[0], paths[1])
    assert np.array_equal(paths[0], paths[2])
