"""Rows and the actor-critic of any observation, with torch alone."""

import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation
from helpers.policy_checks import bind as bind_features
from helpers.policy_checks import build, data, observation_space, observations, scramble
from stable_baselines3.common.vec_env import DummyVecEnv

import agents
from agents import MarketRows, PerAssetActorCritic, make_sb3_vec_env
from agents.policies import PerAssetActorCriticPolicy
from portfolio_env import Market, PortfolioEnv, PortfolioVectorEnv, load_market
from portfolio_env.errors import ArgumentError

MODES = ("window", "flat", "index")
WINDOW = 6


@pytest.fixture(scope="module")
def small() -> Market:
    return load_market("synthetic?bars=120&assets=4&ragged=true&seed=4", fit_end=80)


def lanes(market: Market, mode: str, **options: Any) -> PortfolioVectorEnv:
    return PortfolioVectorEnv(3, market, observation=mode, window=WINDOW, **options)


def test_networks_need_torch_alone() -> None:
    code = """
import sys
for name in ("stable_baselines3", "sb3_contrib", "tensorboard"):
    sys.modules[name] = None
import agents.losses, agents.networks, agents.encoding.market_rows, agents.actor_critic
from agents import MarketRows, PerAssetActorCritic
from agents.direct.agent import DirectAgent
from agents.encoding.market_encoder import MarketEncoder
from portfolio_env import PortfolioVectorEnv
env = PortfolioVectorEnv(2, "synthetic?bars=100&assets=3", window=5, observation="index")
net = PerAssetActorCritic(MarketRows.of(env, encoder="gat"))
print(*(tuple(part.shape) for part in net(env.reset(seed=0)[0])))
try:
    from agents import make_agent
except ImportError as error:
    print(error.name.partition(".")[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split("\n")[:2] == ["(2, 4) (2, 4) (2,)", "stable_baselines3"]


def test_public_names_are_there_and_no_others() -> None:
    assert set(agents.__all__) <= set(dir(agents))
    assert all(getattr(agents, name).__name__ == name for name in agents.__all__)
    with pytest.raises(AttributeError, match="no attribute 'make_agents'"):
        agents.make_agents  # noqa: B018


@pytest.mark.parametrize("mode", MODES)
def test_the_actor_critic_is_the_policy_of_sb3(mode: str) -> None:
    d = data(np.random.default_rng(1))
    policy = bind_features(scramble(build(PerAssetActorCriticPolicy, mode)), d["features"])
    net = PerAssetActorCritic(MarketRows(observation_space(mode), 5, 3, 2))
    bind_features(net, d["features"])
    net.load_state_dict(policy.state_dict())  # an encoder without weights: the rest has equal names
    seen = observations(mode, d)
    tensors, _ = policy.obs_to_tensor(seen)
    with th.no_grad():
        own = policy.get_distribution(tensors).distribution
        mean, log_std, value = net(seen)
        assert th.equal(mean, own.mean) and th.equal(log_std.exp(), own.stddev)
        assert th.equal(value, policy.predict_values(tensors).flatten())
        assert mean.shape == log_std.shape == (7, 6) and value.shape == (7,)


def test_the_critic_may_have_an_encoder_of_its_own(small: Market) -> None:
    env = lanes(small, "index")
    actor, critic = (MarketRows.of(env, encoder="gat") for _ in range(2))
    net = PerAssetActorCritic(actor, critic)
    observation, _ = env.reset(seed=0)
    net(observation)[2].sum().backward()
    assert all(p.grad is None for p in actor.parameters())
    assert any(p.grad is not None for p in critic.parameters())


@pytest.mark.parametrize("mode", MODES)
def test_an_environment_tells_all_that_rows_need(small: Market, mode: str) -> None:
    options = {"market": small, "observation": mode, "window": WINDOW, "start": 24}
    single = PortfolioEnv(**options)
    made = gym.make("portfolio_env:Portfolio-v0", **options)
    sync = gym.vector.SyncVectorEnv([lambda: PortfolioEnv(**options)] * 2)
    several = lanes(small, mode, start=24)
    sb3 = make_sb3_vec_env(num_envs=2, **options)
    wanted = None
    for env in (single, made, sync, several, sb3, DummyVecEnv([lambda: PortfolioEnv(**options)])):
        th.manual_seed(0)
        rows = MarketRows.of(env, encoder="gat")
        assert (rows.n_assets, rows.n_features, rows.bars) == (4, small.n_features, WINDOW)
        assert rows.market is small
        seen: Any = env.reset()
        seen = seen[0] if isinstance(seen, tuple) else seen
        if env in (single, made):
            seen = {k: v[None] for k, v in seen.items()} if isinstance(seen, dict) else seen[None]
        made_rows = rows.eval()(seen)[:1]
        wanted = made_rows if wanted is None else wanted
        th.testing.assert_close(made_rows, wanted, rtol=1e-5, atol=1e-6)


def test_a_sampled_universe_is_told_too(small: Market) -> None:
    for mode in MODES:
        rows = MarketRows.of(lanes(small, mode, universe=2), encoder="lstm")
        assert rows.n_assets == 2
        assert rows(lanes(small, mode, universe=2).reset(seed=0)[0]).shape == (3, 2, rows.width)


def traced(market: Market, mode: str, encoder: str) -> tuple[Any, dict[str, th.Tensor]]:
    """Values of observations by a network, and one batch of them."""
    env = lanes(market, mode)
    net = PerAssetActorCritic(MarketRows.of(env, encoder=encoder)).eval()
    given, _ = env.reset(seed=0)
    parts = given if isinstance(given, dict) else {"flat": given}

    def value(parts: dict[str, th.Tensor]) -> th.Tensor:
        return net(parts.get("flat", parts))[2]

    return value, {name: th.as_tensor(part) for name, part in parts.items()}


@pytest.mark.parametrize("encoder", ["per_asset", "mlp"])
@pytest.mark.parametrize("mode", MODES)
def test_networks_can_be_mapped(small: Market, mode: str, encoder: str) -> None:
    """By torch.vmap, as TorchRL does it: no check looks at numbers there."""
    value, parts = traced(small, mode, encoder)
    with th.no_grad():
        mapped = th.vmap(value)({name: part.expand(2, *part.shape) for name, part in parts.items()})
        th.testing.assert_close(mapped, value(parts).expand(2, -1))


@pytest.mark.parametrize("mode", ["flat", "index"])
def test_networks_can_be_compiled(small: Market, mode: str) -> None:
    value, parts = traced(small, mode, "per_asset")
    with th.no_grad():
        compiled = th.compile(value, backend="eager", fullgraph=True)
        th.testing.assert_close(compiled(parts), value(parts))


def test_what_a_space_does_not_tell_is_asked_for_by_name(small: Market) -> None:
    window = PortfolioEnv(small, observation="window", window=WINDOW)
    flat = FlattenObservation(window).observation_space
    with pytest.raises(ArgumentError, match="does not state n_assets"):
        MarketRows(flat)
    with pytest.raises(ArgumentError, match="does not state n_features"):
        MarketRows(flat, 4)
    assert MarketRows(flat, 4, small.n_features).bars == WINDOW
    with pytest.raises(ArgumentError, match="n_assets=3, but observations are of 4"):
        MarketRows(window.observation_space, 3)
    other = (spaces.Discrete(3), spaces.Box(0, 1, (3, 3)), spaces.Dict(a=spaces.Box(0, 1, (3,))))
    for space in other:
        with pytest.raises(ArgumentError, match="not a space of the environment's observations"):
            MarketRows(space)
