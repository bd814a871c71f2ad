"""Agents of every algorithm: learning on every observation, exact saving, other markets."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.logger import Logger

from agents import load_agent, make_agent, make_sb3_vec_env, policy_for, save_agent
from agents.networks import ENCODERS, Encoder
from agents.sb3.algorithms import LogitNoise
from agents.sb3.classes import ALGORITHMS, ON_POLICY, algorithm_class
from baselines import make_baseline
from portfolio_env import Market, PortfolioEnv, load_market
from portfolio_env.data.generators.planted import PlantedMarket
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest

WINDOW, LANES = 3, 4
AGENTS = [*((algo, "per_asset") for algo in ALGORITHMS), *((a, "dirichlet") for a in ON_POLICY)]
OFF_POLICY = [algo for algo in ALGORITHMS if algo not in ON_POLICY]


@pytest.fixture(scope="module")
def markets() -> dict[int, Market]:
    """Markets of 3, 5 and 20 assets with the same features."""
    return {n: load_market(f"synthetic?bars=80&assets={n}", fit_end=60) for n in (3, 5, 20)}


class Tiny(Encoder):
    """An encoder with weights, and dropout if asked for."""

    def __init__(self, n_features: int, window: int, dropout: float = 0.0) -> None:
        super().__init__(n_features, window)
        self.channels = 4
        self.layer = th.nn.Linear(n_features, self.channels)
        self.dropout = th.nn.Dropout(dropout)

    def forward(
        self, windows: th.Tensor, tradable: th.Tensor, codes: th.Tensor | None = None
    ) -> th.Tensor:
        return self.dropout(th.tanh(self.layer(windows)).mean(1))


class Seen(Encoder):
    """An encoder that returns what it is told of the assets besides their features."""

    uses_codes = True

    def __init__(self, n_features: int, window: int) -> None:
        super().__init__(n_features, window)
        self.channels = 2
        self.scale = th.nn.Parameter(th.ones(1))

    def forward(
        self, windows: th.Tensor, tradable: th.Tensor, codes: th.Tensor | None = None
    ) -> th.Tensor:
        assert codes is not None
        return self.scale * th.stack([tradable, codes[..., 0].float()], dim=-1)


@pytest.fixture(autouse=True)
def _encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODERS, "tiny", Tiny)
    monkeypatch.setitem(ENCODERS, "seen", Seen)


def lanes(market: Market, observation: str, policy: str = "per_asset", n: int = LANES) -> Any:
    action = "weights" if policy == "dirichlet" else "logits"
    return make_sb3_vec_env(
        market,
        n,
        seed=0,
        observation=observation,
        window=WINDOW,
        action=action,
        random_start=True,
        episode_length=9,
    )


def agent(algo: str, venv: Any, policy: str = "per_asset", **options: Any) -> Any:
    """An agent of a size that learns in a moment."""
    small: dict[str, Any] = {"buffer_size": 400, "batch_size": 32, "learning_starts": 16}
    small |= {"train_freq": 4}
    if algo in ON_POLICY:
        small = {"n_steps": 8} | ({"batch_size": 16} if algo == "trpo" else {})
    if algo == "ppo":
        small |= {"batch_size": 16, "n_epochs": 2}
    options = {"window": 2, "seed": 0, "device": "cpu"} | small | options
    made = make_agent(algo, venv, policy=policy, **options)
    made.set_logger(Logger(None, []))
    return made


def parameters(made: Any) -> np.ndarray:
    return np.asarray(made.policy.parameters_to_vector())


def act(made: Any, observation: Any) -> np.ndarray:
    return np.asarray(made.predict(observation, deterministic=True)[0])


@pytest.mark.parametrize(("algo", "policy"), AGENTS)
@pytest.mark.parametrize("observation", ["index", "window", "flat"])
def test_it_learns_saves_exactly_and_serves_other_markets(
    algo: str, policy: str, observation: str, markets: dict[int, Market], tmp_path: Path
) -> None:
    venv = lanes(markets[5], observation, policy)
    made = agent(algo, venv, policy)
    before = parameters(made)
    made.learn(96)
    after = parameters(made)
    assert np.isfinite(after).all()
    assert np.abs(after - before).max() > 1e-5
    save_agent(made, tmp_path / "model.safetensors")
    for n, market in markets.items():
        other = lanes(market, observation, policy, n=3)
        loaded = load_agent(tmp_path / "model.safetensors", other, device="cpu")
        loaded.set_logger(Logger(None, []))
        assert np.array_equal(parameters(loaded), after)
        obs = other.reset()
        action = act(loaded, obs)
        assert action.shape == (3, n + 1)
        assert np.array_equal(act(policy_for(made, other), obs), action)
        if n == 5:
            assert np.array_equal(act(made, obs), action)
        loaded.learn(192, reset_num_timesteps=False)  # with noise and lanes of the new market
        assert not np.array_equal(parameters(loaded), after)


@pytest.mark.parametrize(("algo", "policy"), AGENTS)
def test_permuting_the_assets_permutes_the_deterministic_action(
    algo: str, policy: str, markets: dict[int, Market]
) -> None:
    market = markets[5]
    order = np.array([3, 0, 4, 1, 2])
    permuted = market.subset(slice(None), order.tolist())
    made = agent(algo, lanes(market, "index", policy), policy, encoder="tiny").learn(96)
    with th.no_grad():  # so large that assets differ, and tanh still tells them apart
        for parameter in made.policy.parameters():
            parameter.copy_(0.25 * th.randn_like(parameter))
    first, second = lanes(market, "index", policy), lanes(permuted, "index", policy)
    slots = np.concatenate([[0], 1 + order])
    before, after = act(made, first.reset()), act(policy_for(made, second), second.reset())
    np.testing.assert_allclose(after, before[:, slots], rtol=1e-4, atol=1e-5)
    assert np.ptp(before[:, 1:], axis=1).max() > 1e-2


@pytest.mark.parametrize(("algo", "policy"), AGENTS)
@pytest.mark.parametrize("share", [True, False])
def test_actor_and_critic_may_share_the_extractor(
    algo: str, policy: str, share: bool, markets: dict[int, Market], tmp_path: Path
) -> None:
    venv = lanes(markets[5], "index", policy)
    options = {"encoder": "tiny", "policy_kwargs": {"share_features_extractor": share}}
    made = agent(algo, venv, policy, **options)
    network = made.policy
    if algo in ON_POLICY:
        pair = network.pi_features_extractor, network.vf_features_extractor
    else:
        pair = network.actor.features_extractor, network.critic.features_extractor
    assert (pair[0] is pair[1]) == share
    before = [extractor.encoder.layer.weight.clone() for extractor in pair]
    made.learn(96)
    for old, extractor in zip(before, pair, strict=True):
        assert not th.equal(old, extractor.encoder.layer.weight)
    save_agent(made, tmp_path / "model.safetensors")
    loaded = load_agent(tmp_path / "model.safetensors", venv, device="cpu")
    obs = venv.reset()
    assert loaded.policy.share_features_extractor is share
    assert np.array_equal(act(loaded, obs), act(made, obs))


@pytest.mark.parametrize(("algo", "policy"), [("ppo", "per_asset"), ("a2c", "dirichlet")])
def test_agents_saved_before_sharing_keep_an_encoder_each(
    algo: str, policy: str, markets: dict[int, Market], tmp_path: Path
) -> None:
    venv, file = lanes(markets[5], "index", policy), tmp_path / "model.safetensors"
    made = agent(algo, venv, policy, encoder="tiny")
    assert made.recipe["policy_kwargs"] == {"critic_gradient": 0.0}  # it says which it is
    assert made.policy.pi_features_extractor is made.policy.vf_features_extractor
    apart = {"share_features_extractor": False, "critic_gradient": 1.0}
    old = agent(algo, venv, policy, encoder="tiny", policy_kwargs=apart).learn(64)
    old.recipe = old.recipe | {"policy_kwargs": {}}  # as it was written then
    save_agent(old, file)
    loaded = load_agent(file, venv, device="cpu")
    assert loaded.policy.pi_features_extractor is not loaded.policy.vf_features_extractor
    np.testing.assert_array_equal(parameters(loaded), parameters(old))


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("algo", OFF_POLICY)
def test_index_and_window_observations_train_the_same_encoder(
    algo: str, share: bool, markets: dict[int, Market]
) -> None:
    """Vectors kept for a bar must be those of the weights at hand, the targets' included."""
    options = {"encoder": "tiny", "policy_kwargs": {"share_features_extractor": share}}
    by_index, by_window = (
        parameters(agent(algo, lanes(markets[5], o), **options).learn(240))
        for o in ("index", "window")
    )
    np.testing.assert_allclose(by_index, by_window, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("algo", "policy"), [("ppo", "per_asset"), ("ppo", "dirichlet")])
@pytest.mark.parametrize("observation", ["index", "window", "flat"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_ratio_of_ppo_is_one_where_nothing_was_learnt(
    algo: str, policy: str, observation: str, dropout: float, markets: dict[int, Market]
) -> None:
    made = agent(
        algo,
        lanes(markets[5], observation, policy),
        policy,
        encoder="tiny",
        encoder_kwargs={"dropout": dropout},
        learning_rate=0.0,
        n_epochs=1,
    )
    with th.no_grad():
        for parameter in made.policy.action_net.parameters():
            parameter.add_(th.randn_like(parameter))
    made.learn(32)
    divergence, clipped = (
        made.logger.name_to_value[f"train/{name}"] for name in ("approx_kl", "clip_fraction")
    )
    if dropout:
        assert divergence > 1e-3
    else:
        assert abs(divergence) < 1e-9
        assert clipped == 0


def test_encoders_are_given_the_mask_and_the_codes_of_the_market(market: Market) -> None:
    labels = ("tech", "", "bank", "tech")
    panel = replace(market.panel, categories={"sector": labels})
    coded = load_market(panel, features="minimal", fit_end=200)
    assert not coded.tradable.all()
    venv = lanes(coded, "index")
    made = agent("ppo", venv, encoder="seen")
    extractor = made.policy.features_extractor
    obs = venv.reset()
    rows = extractor({key: th.as_tensor(value) for key, value in obs.items()})
    assert np.array_equal(rows[..., 0].detach(), coded.tradable[obs["t"][:, 0]])
    assert rows[0, :, 1].tolist() == coded.category_codes[:, 0].tolist() == [2, 0, 1, 2]


def test_noise_is_independent_and_as_wide_as_asked() -> None:
    np.random.seed(0)
    draws = np.stack([LogitNoise(0.6, 6)() for _ in range(4000)])
    np.testing.assert_allclose(np.cov(draws.T), 0.36 * np.eye(6), atol=0.03)
    with pytest.raises(ArgumentError, match="std >= 0"):
        LogitNoise(-1.0, 6)


@pytest.mark.parametrize("algo", ["td3", "ddpg"])
def test_deterministic_actors_explore_by_noise_on_logits(
    algo: str, markets: dict[int, Market]
) -> None:
    made = agent(algo, lanes(markets[5], "index"))
    assert isinstance(made.action_noise, LogitNoise)
    assert made.action_noise.std == pytest.approx(np.exp(-0.5))
    made.learn(96)
    stored = made.replay_buffer.columns["actions"][5:24].reshape(-1, 6)
    assert np.abs(stored).max() == 1.0  # clipped to the box
    assert stored.std(axis=0).min() > 0.3
    assert np.abs(np.corrcoef(stored.T) - np.eye(6)).max() < 0.6


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_flat_network_is_warned_about(algo: str, markets: dict[int, Market]) -> None:
    venv = lanes(markets[5], "flat")
    with pytest.warns(UserWarning, match="memorises"):
        made = make_agent(algo, venv, policy="flat_mlp", device="cpu")
    assert act(made, venv.reset()).shape == (LANES, 6)


def test_tqc_says_which_library_it_needs(
    monkeypatch: pytest.MonkeyPatch, markets: dict[int, Market]
) -> None:
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(ArgumentError, match=r"pip install 'sb3-contrib"):
        make_agent("tqc", lanes(markets[5], "index"))


@pytest.mark.slow
def test_the_library_of_tqc_is_not_needed_for_the_rest() -> None:
    code = """
import sys
sys.modules["sb3_contrib"] = None
import agents.training.train
from stable_baselines3 import PPO
print("PerAssetPolicy" in PPO.policy_aliases)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize(
    ("algo", "policy", "message"),
    [
        ("dqn", "per_asset", "unknown algorithm 'dqn': choose from"),
        ("ppo", "linear", "unknown; choose one of"),
        ("sac", "dirichlet", r"choose one of \['a2c', 'ppo', 'trpo'\]"),
        ("ppo", "dirichlet", 'action="weights"'),
    ],
)
def test_errors_name_the_mend(
    algo: str, policy: str, message: str, markets: dict[int, Market]
) -> None:
    with pytest.raises(ArgumentError, match=message):
        make_agent(algo, lanes(markets[5], "index"), policy=policy)


def test_a_class_is_found_by_its_name() -> None:
    assert [algorithm_class(algo).__name__.lower() for algo in ALGORITHMS] == list(ALGORITHMS)


def excess_growth(agent: Any, planted: PlantedMarket) -> float:
    """Log growth a day after costs less that of equal weight, free of the noise to first order."""
    growth = []
    for half in (planted.market, planted.mirrored().market):
        options: dict[str, Any] = {"observation": "index", "window": 1}
        policy = policy_for(agent, make_sb3_vec_env(half, **options))
        logs = [
            np.log(backtest(each, PortfolioEnv(half, action=action, **options)).values[-1])
            for each, action in (
                (policy, "logits"),
                (make_baseline("equal_weight", half), "weights"),
            )
        ]
        growth.append((logs[0] - logs[1]) / (half.n_bars - 1))
    return float(np.mean(growth))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algo", "timesteps", "n"),
    [("a2c", 200_000, 256), ("td3", 40_000, 64), ("tqc", 40_000, 64)],
)
def test_it_finds_a_planted_signal(algo: str, timesteps: int, n: int) -> None:
    """On other days of the process; a policy that knows the signal is ahead by some .0018 a day."""
    venv = make_sb3_vec_env(
        PlantedMarket.draw(seed=0).market,
        n,
        observation="index",
        window=1,
        random_start=True,
        episode_length=250,
        reward={"name": "excess_log_return", "scale": 100},
    )
    made = make_agent(algo, venv, seed=0, device="cpu")
    made.set_logger(Logger(None, []))
    made.learn(timesteps)
    test = PlantedMarket.draw(seed=1_000_003, bars=4_000)
    assert excess_growth(made, test) > 0.0010


@pytest.mark.parametrize("algo", ["ppo", "a2c", "sac", "td3"])
def test_an_agent_is_loaded_and_trained_on_in_every_mode_of_observation(
    algo: str, markets: dict[int, Market], tmp_path: Path
) -> None:
    options = {"window": WINDOW, "episode_length": 8}
    venvs = {
        mode: make_sb3_vec_env(markets[3], LANES, seed=0, observation=mode, **options)
        for mode in ("index", "window", "flat")
    }
    settings: dict[str, Any] = {"learning_starts": 4, "batch_size": 8, "buffer_size": 100}
    if algo in ON_POLICY:
        settings = {"n_steps": 4}
    network = {"window": WINDOW, "encoder": "mlp", "encoder_kwargs": {"width": 4}}
    for trained, venv in venvs.items():
        if algo in ("ppo", "trpo"):
            settings["batch_size"] = 8
        agent = make_agent(algo, venv, device="cpu", seed=0, **network, **settings)
        save_agent(agent, tmp_path / f"{trained}.safetensors")
        expected = agent.predict(venv.reset(), deterministic=True)[0]
        for other in venvs.values():
            loaded = load_agent(tmp_path / f"{trained}.safetensors", other, device="cpu")
            found = loaded.predict(other.reset(), deterministic=True)[0]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
            loaded.set_logger(Logger(None, []))
            loaded.learn(16)


@pytest.mark.parametrize(
    ("algo", "options", "message"),
    [
        ("ppo", {"lerning_rate": 1.0}, r"make_agent\('ppo', ...\) .* mean 'learning_rate'"),
        ("ppo", {"encodr": "gat"}, "mean 'encoder'"),
        ("sac", {"gae_lambda": 1.0}, r"make_agent\('sac', ...\) has no keyword 'gae_lambda'"),
    ],
)
def test_an_unknown_option_is_told_with_the_nearest(markets, algo, options, message):
    venv = make_sb3_vec_env(markets[3], 2, observation="index", window=1)
    with pytest.raises(ArgumentError, match=message):
        make_agent(algo, venv, **options)


def test_one_environment_is_not_what_an_agent_trains_in():
    with pytest.raises(ArgumentError, match=r"PortfolioEnv must be a VecEnv .* make_sb3_vec_env"):
        make_agent("ppo", PortfolioEnv("synthetic?bars=200"))
