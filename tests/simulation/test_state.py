"""The state of an environment is all that its steps depend on."""

import json
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from portfolio_env import ArgumentError, PortfolioVectorEnv

MARKET = "synthetic?bars=120&assets=6&ragged=true"
CASES: list[dict[str, Any]] = [
    {},
    {"universe": 3, "reward": "differential_sharpe"},
    {"observation": "flat", "reward": "differential_downside", "initial": "equal_weight"},
    {"execution": "next_open", "constraints": {"max_period_turnover": 0.5, "turnover_period": 3}},
]


def made(mode: AutoresetMode = AutoresetMode.SAME_STEP, n: int = 4, **options: Any) -> Any:
    options = {"observation": "index", "window": 2, "random_start": True, **options}
    return PortfolioVectorEnv(n, MARKET, autoreset_mode=mode, episode_length=7, **options)


def lived(env: Any, steps: int, seed: int) -> list[Any]:
    """All that an environment answers to random actions."""
    rng, answers = np.random.default_rng(seed), []
    for _ in range(steps):
        actions = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        obs, rewards, terminated, truncated, infos = env.step(actions)
        numbers = [infos[name] for name in ("portfolio_value", "turnover", "cost", "drawdown")]
        answers += [*(obs.values() if isinstance(obs, dict) else [obs])]
        answers += [rewards, terminated, truncated, *numbers]
    return answers


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("before", [0, 5, 7, 16])
def test_a_restored_environment_goes_on_as_the_one_it_was_taken_of(
    mode: AutoresetMode, options: dict[str, Any], before: int
) -> None:
    env, other = made(mode, **options), made(mode, **options)
    observation, _ = env.reset(seed=3)
    other.reset(seed=8)
    lived(other, 3, seed=1)
    if before:
        lived(env, before, seed=2)
    state = env.state()
    kept = deepcopy(state)
    json.dumps(state["generators"])
    expected = lived(env, 20, seed=4)
    seen = other.restore(state)
    if before == 0:
        first, second = (
            list(o.values()) if isinstance(o, dict) else [o] for o in (seen, observation)
        )
        assert all(map(np.array_equal, first, second))
    found = lived(other, 20, seed=4)
    assert len(expected) == len(found)
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
    for name, array in kept["simulator"]["lanes"].items():  # a copy: steps change it no more
        assert np.array_equal(array, state["simulator"]["lanes"][name])


def test_a_state_of_another_environment_is_refused() -> None:
    env = made()
    env.reset(seed=0)
    for other in (made(n=5), made(universe=3)):
        other.reset(seed=0)
        with pytest.raises(ArgumentError, match="lanes"):
            env.restore(other.state())
    with pytest.raises(ArgumentError, match="no array"):
        state = env.state()
        stranger = made(reward="excess_log_return")
        state["simulator"]["reward"] = {"weights": np.ones(4)}
        stranger.restore(state)


@pytest.mark.parametrize(
    ("name", "row", "value"),
    [("clock", 0, 10**9), ("clock", 0, -1), ("clock", 1, 120), ("assets", 0, 6)],
)
def test_compiled_code_never_gets_an_index_outside_the_market(
    name: str, row: int, value: int
) -> None:
    env = made()
    env.reset(seed=0)
    state = env.state()
    state["simulator"]["lanes"][name][row] = value
    with pytest.raises(ArgumentError, match=rf"{name} leaves"):
        env.restore(state)
    late = env.state()
    late["simulator"]["lanes"]["clock"][0] = late["simulator"]["lanes"]["clock"][1]
    with pytest.raises(ArgumentError, match="past the end"):
        env.restore(late)
    late["simulator"]["lanes"]["ended"][1] = True  # but the environment would step them
    with pytest.raises(ArgumentError, match="none of an environment"):
        env.restore(late)
