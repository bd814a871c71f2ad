"""What holds for every encoder by name, in the extractor and under an algorithm."""

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO

from agents import bind_market, make_sb3_vec_env
from agents.market_extractor import MarketExtractor
from agents.networks import ENCODERS, make_encoder
from agents.policies import PerAssetActorCriticPolicy
from agents.sb3.buffers import GroupedRolloutBuffer
from portfolio_env import Market, PortfolioEnv, load_market
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest

WINDOW = 6
OPTIONS: dict[str, dict[str, Any]] = {
    "branches": {"groups": {"price": [0, 1, 2], "volume": [3], "sentiment": [4]}},
}


@pytest.fixture(scope="module")
def ragged() -> Market:
    return load_market("synthetic?bars=200&assets=5&ragged=true&seed=4", fit_end=100)


def inputs(assets: int = 5, batch: int = 3) -> tuple[th.Tensor, th.Tensor]:
    generator = th.Generator().manual_seed(1)
    windows = th.randn(batch, WINDOW, assets, 5, generator=generator)
    tradable = (th.rand(batch, assets, generator=generator) < 0.7).float()
    tradable[0] = 0  # a bar at which nothing trades
    windows[:, -1][tradable == 0] = 0
    return windows, tradable


def built(name: str, **changes: Any) -> Any:
    th.manual_seed(0)
    return make_encoder(name, 5, WINDOW, **OPTIONS.get(name, {}), **changes).eval()


@pytest.mark.parametrize("name", ENCODERS)
def test_one_vector_per_asset_for_any_number_of_them(name: str) -> None:
    encoder = built(name)
    for assets in (1, 2, 5, 12):
        rows = encoder(*inputs(assets))
        assert rows.shape == (3, assets, encoder.channels)
        assert rows.isfinite().all()


@pytest.mark.parametrize("name", ENCODERS)
def test_permuting_assets_permutes_rows(name: str) -> None:
    encoder = built(name)
    windows, tradable = inputs()
    order = th.tensor([3, 0, 4, 1, 2])
    rows = encoder(windows, tradable)
    permuted = encoder(windows[:, :, order], tradable[:, order])
    th.testing.assert_close(permuted, rows[:, order], rtol=1e-4, atol=1e-5)
    assert (rows[:, :1] - rows[:, 1:2]).abs().max() > 1e-4


@pytest.mark.parametrize("name", ENCODERS)
def test_what_does_not_trade_is_not_looked_at_and_mixing_is_declared(name: str) -> None:
    encoder = built(name)
    windows, tradable = inputs()
    tradable[:] = 1
    tradable[1:, 2] = 0
    windows[1:, :, 2] = 0
    before = encoder(windows, tradable)
    changed = windows.clone()
    changed[1:, :-1, 2] += 1.0  # an asset that did trade before, and does not at the last bar
    others = [0, 1, 3, 4]
    th.testing.assert_close(encoder(changed, tradable)[1:, others], before[1:, others])
    other = windows.clone()
    other[:, :, 0] += 1.0
    moved = (encoder(other, tradable) - before)[:, 1:].abs().max() > 1e-6
    assert moved == encoder.mixes_assets


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("scale", [0.0, 10.0])
def test_gradients_are_finite_at_the_bounds(name: str, scale: float) -> None:
    encoder = built(name)
    windows, tradable = inputs()
    windows = (scale * windows.sign()).requires_grad_()
    encoder(windows, tradable).square().sum().backward()
    assert windows.grad is not None and windows.grad.isfinite().all()
    for parameter in encoder.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", ENCODERS)
def test_index_and_window_observations_give_the_same_rows(name: str, ragged: Market) -> None:
    rows = []
    for mode in ("window", "index"):
        env = PortfolioEnv(ragged, window=WINDOW, observation=mode, start=60)
        th.manual_seed(0)
        extractor = MarketExtractor(
            env.observation_space, 5, 5, WINDOW, name, OPTIONS.get(name, {})
        ).eval()
        extractor.bind(th.tensor(ragged.features), th.tensor(ragged.tradable).float())
        observation, _ = env.reset(seed=0)
        seen = []
        for _ in range(25):
            batch = {key: th.tensor(np.asarray(value))[None] for key, value in observation.items()}
            with th.no_grad():
                seen.append(extractor({key: value.float() for key, value in batch.items()}))
            observation, *_ = env.step(np.linspace(-1, 1, 6, dtype=np.float32))
        rows.append(th.cat(seen))
    th.testing.assert_close(*rows, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "per_asset"])
def test_ppo_trains_every_encoder_and_trades_more_assets(
    name: str, ragged: Market, tmp_path: Any
) -> None:
    venv = make_sb3_vec_env(
        ragged, num_envs=8, observation="index", window=WINDOW, random_start=True, universe=3,
        start=60, episode_length=30,
    )  # fmt: skip
    extractor = {"n_features": 5, "window": WINDOW, "encoder": name}
    extractor["encoder_kwargs"] = OPTIONS.get(name, {})
    agent = PPO(
        PerAssetActorCriticPolicy,
        venv,
        n_steps=16,
        batch_size=64,
        n_epochs=2,
        learning_rate=1e-2,
        normalize_advantage=False,
        rollout_buffer_class=GroupedRolloutBuffer,
        policy_kwargs={"features_extractor_kwargs": extractor},
        device="cpu",
        seed=0,
    )
    bind_market(agent, ragged)
    encoder = agent.policy.features_extractor.encoder
    before = [parameter.detach().clone() for parameter in encoder.parameters()]
    agent.learn(256)
    moved = [not th.equal(old, new) for old, new in zip(before, encoder.parameters(), strict=True)]
    assert np.mean(moved) > 0.6
    agent.save(tmp_path / "agent.zip")
    wide = make_sb3_vec_env(ragged, num_envs=1, observation="index", window=WINDOW, start=150)
    loaded = PPO.load(
        tmp_path / "agent.zip",
        env=wide,
        custom_objects={
            "observation_space": wide.observation_space,
            "action_space": wide.action_space,
        },
    )
    bind_market(loaded, ragged)
    env = PortfolioEnv(ragged, observation="index", window=WINDOW, start=150)
    assert np.isfinite(backtest(loaded, env).values).all()


def test_unknown_encoders_are_named() -> None:
    with pytest.raises(ArgumentError, match="unknown encoder 'gatt': did you mean gat"):
        make_encoder("gatt", 5, 3)
