"""The extractor and the named policies in plain SB3 and sb3-contrib, without ``make_agent``."""

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from sb3_contrib import TQC, TRPO, CrossQ, RecurrentPPO
from stable_baselines3 import A2C, DDPG, PPO, SAC, TD3
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecFrameStack,
    VecNormalize,
)

from agents import MarketExtractor, MarketRows, bind_market
from portfolio_env import Market, PortfolioEnv, load_market
from portfolio_env.errors import ArgumentError
from portfolio_env.market import fingerprints

MODES = ("window", "flat", "index")
WINDOW = 5
ENV: dict[str, Any] = {"window": WINDOW, "random_start": True, "episode_length": 10}
ROLLOUT: dict[str, Any] = {"n_steps": 4, "batch_size": 4}
REPLAY: dict[str, Any] = {"learning_starts": 4, "buffer_size": 50, "batch_size": 4}
ALGORITHMS: dict[Any, dict[str, Any]] = {
    PPO: ROLLOUT | {"n_epochs": 1},
    A2C: {"n_steps": 4},
    SAC: REPLAY,
    TD3: REPLAY,
    DDPG: REPLAY,
    TQC: REPLAY,
    TRPO: ROLLOUT | {"cg_max_steps": 2, "n_critic_updates": 1},
    RecurrentPPO: ROLLOUT | {"n_epochs": 1},
    CrossQ: REPLAY,
}
TABLE = [
    pytest.param(cls, mode, output, marks=[] if cls in (PPO, SAC) else pytest.mark.slow)
    for cls in ALGORITHMS
    for mode in MODES
    for output in ("flat", "pooled")
    if cls is not CrossQ or mode == "flat"  # it has no policy for dictionaries
]


@pytest.fixture(scope="module")
def markets() -> list[Market]:
    names = (f"synthetic?bars=120&assets=4&ragged=true&seed={seed}" for seed in (4, 5))
    return [load_market(name, fit_end=80) for name in names]


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no environment of this process were in any market."""
    monkeypatch.setattr(fingerprints, "_observed", type(fingerprints._observed)())
    monkeypatch.setattr("portfolio_env.observations.remember", lambda market: None)


def environment(market: Market, mode: str, **options: Any) -> PortfolioEnv:
    return PortfolioEnv(market, observation=mode, **ENV | options)


def policy_name(cls: Any, mode: str) -> str:
    kind = "Mlp" if mode == "flat" else "MultiInput"
    return f"{kind}{'Lstm' if cls is RecurrentPPO else ''}Policy"


def network(encoder: str = "mlp", output: str = "flat", **options: Any) -> dict[str, Any]:
    kwargs = {"encoder": encoder, "output": output, **options}
    return {
        "net_arch": [8],
        "features_extractor_class": MarketExtractor,
        "features_extractor_kwargs": kwargs,
    }


def agent(cls: Any, env: Any, mode: str, **options: Any) -> Any:
    settings = {"policy_kwargs": network(), "device": "cpu", "seed": 0} | ALGORITHMS[cls] | options
    return cls(policy_name(cls, mode), env, **settings)


def weights_of(model: Any) -> list[th.Tensor]:
    return [weight.detach().clone() for weight in model.policy.state_dict().values()]


@pytest.mark.parametrize(("cls", "mode", "output"), TABLE)
def test_every_algorithm_trains_the_extractor(
    cls: Any, mode: str, output: str, markets: list[Market]
) -> None:
    env = environment(markets[0], mode)
    model = agent(cls, env, mode, policy_kwargs=network(output=output))
    extractors = [m for m in model.policy.modules() if isinstance(m, MarketExtractor)]
    width = 4 * (extractors[0].width) + 1 if output == "flat" else extractors[0].width - 2 + 5
    assert extractors[0].features_dim == width
    encoder = extractors[0].encoder
    before = [weight.detach().clone() for weight in encoder.parameters()]
    model.learn(16)
    moved = [not th.equal(*pair) for pair in zip(before, encoder.parameters(), strict=True)]
    assert any(moved)
    action, _ = model.predict(env.reset(seed=0)[0], deterministic=True)
    assert env.action_space.contains(action)


@pytest.mark.parametrize("output", ["flat", "pooled", "assets"])
def test_outputs_are_made_of_the_rows_in_every_mode(output: str, markets: list[Market]) -> None:
    seen = []
    for mode in MODES:
        env = gym.vector.SyncVectorEnv([lambda m=mode: environment(markets[0], m)] * 3)
        th.manual_seed(0)
        extractor = MarketExtractor.of(env, encoder="gat", output=output).eval()
        observation, _ = env.reset(seed=0)
        out = extractor(observation)
        assert out.shape[-1] == extractor.features_dim
        seen.append(out)
        rows = MarketRows.forward(extractor, observation)
        tradable, held = rows[..., -1], (rows[..., -2] + 1) / 4
        if output == "flat":
            assert th.equal(out[:, :-1].reshape(rows.shape), rows)
            th.testing.assert_close(out[:, -1], 1 - held.sum(1))
        if output == "pooled":
            mean = (rows[..., :-2] * tradable[..., None]).sum(1) / tradable.sum(1, keepdim=True)
            th.testing.assert_close(out[:, :-5], mean)
            th.testing.assert_close(out[:, -4:], held)
    for other in seen[1:]:
        th.testing.assert_close(other, seen[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cls", [PPO, SAC])
def test_saving_and_loading_is_exact_and_holds_no_market(
    cls: Any, mode: str, markets: list[Market], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = make_vec_env(lambda: environment(markets[0], mode), 2, seed=0)
    model = agent(cls, env, mode).learn(16)

    def pickled(*_: Any) -> Any:
        raise AssertionError("the market is pickled")

    monkeypatch.setattr(Market, "__reduce_ex__", pickled)
    model.save(tmp_path / "agent.zip")
    with pytest.raises(AssertionError, match="is pickled"):
        pickle.dumps(markets[0])
    loaded = cls.load(tmp_path / "agent.zip", env=env, device="cpu")
    observation = env.reset()
    answers = [m.predict(observation, deterministic=True)[0] for m in (model, loaded)]
    assert np.array_equal(*answers)
    loaded.learn(8)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["flat", "index"])
def test_processes_and_evaluation_by_callback(
    mode: str, markets: list[Market], tmp_path: Any
) -> None:
    options = {"market": markets[0], "observation": mode, **ENV}
    env = make_vec_env(
        "portfolio_env:Portfolio-v0", 2, env_kwargs=options, vec_env_cls=SubprocVecEnv, seed=0
    )
    try:
        model = agent(PPO, env, mode)
        if mode == "index":
            bind_market(model, markets[0])
        held_out = make_vec_env(lambda: environment(markets[0], mode), 1, seed=1)
        with pytest.warns(UserWarning, match="not of the same type"):
            callback = EvalCallback(
                held_out, eval_freq=4, n_eval_episodes=1, verbose=0, best_model_save_path=tmp_path
            )
            model.learn(16, callback=callback)
        assert (tmp_path / "best_model.zip").exists()
    finally:
        env.close()


def test_a_market_of_another_process_is_asked_for(markets: list[Market], unknown: None) -> None:
    env = environment(markets[0], "index")
    model = agent(PPO, env, "index")
    with pytest.raises(ArgumentError, match=r"no environment of this process.*bind_market"):
        model.learn(8)
    bind_market(model, markets[0])
    model.learn(8)


def test_an_evaluation_in_another_market_reads_that_market(markets: list[Market]) -> None:
    """The market that an observation names is read, whichever came before."""
    envs = [environment(market, "index") for market in markets]
    model = agent(PPO, envs[0], "index")
    windows = [environment(market, "window") for market in markets]
    reference = agent(PPO, windows[0], "window")
    reference.policy.load_state_dict(model.policy.state_dict())
    for which in (0, 1, 1, 0, 1):
        seen, same = envs[which].reset(seed=1)[0], windows[which].reset(seed=1)[0]
        answers = [
            m.predict(o, deterministic=True)[0] for m, o in ((model, seen), (reference, same))
        ]
        np.testing.assert_allclose(*answers, rtol=1e-4, atol=1e-6)
    held_out = make_vec_env(lambda: envs[1], 1)
    model.learn(16, callback=EvalCallback(held_out, eval_freq=2, n_eval_episodes=1, verbose=0))
    both = [env.reset(seed=1)[0] for env in envs]
    mixed = {name: np.stack([each[name] for each in both]) for name in both[0]}
    with pytest.raises(ArgumentError, match="but market"):
        model.predict(mixed)


def test_a_market_bound_by_hand_is_kept_and_two_of_one_number_are_refused(
    markets: list[Market], monkeypatch: pytest.MonkeyPatch
) -> None:
    envs = [environment(market, "index") for market in markets]
    seen = [env.reset(seed=1)[0] for env in envs]
    model = agent(PPO, envs[0], "index")
    bind_market(model, markets[0])
    with pytest.raises(ArgumentError, match="is bound"):
        model.predict(seen[1])
    for market in markets:
        monkeypatch.setitem(vars(market), "fingerprint", 12345)
    with pytest.raises(ArgumentError, match="two markets share it"):
        fingerprints.find_market(np.array([12345]))


@pytest.mark.parametrize("mode", MODES)
def test_what_was_scaled_is_refused(mode: str, markets: list[Market]) -> None:
    venv = DummyVecEnv([lambda: environment(markets[0], mode)] * 2)
    model = agent(PPO, VecNormalize(venv), mode)
    with pytest.raises(ArgumentError, match="scaled"):
        model.learn(8)
    agent(PPO, VecNormalize(venv, norm_obs=False), mode).learn(8)


@pytest.mark.parametrize("key", ["t", "assets", "tradable"])
def test_no_part_of_an_index_observation_is_scaled_unseen(key: str, markets: list[Market]) -> None:
    venv = DummyVecEnv([lambda: environment(markets[0], "index", universe=3)] * 2)
    with pytest.raises(ArgumentError, match=f"{key}' should hold .*norm_obs_keys"):
        agent(PPO, VecNormalize(venv, norm_obs_keys=[key]), "index").learn(8)
    agent(PPO, VecNormalize(venv, norm_obs_keys=["weights"]), "index").learn(8)


@pytest.mark.parametrize("mode", MODES)
def test_stacked_frames_are_refused(mode: str, markets: list[Market]) -> None:
    venv = VecFrameStack(DummyVecEnv([lambda: environment(markets[0], mode)]), 3)
    with pytest.raises(ArgumentError, match=r"stack no|does not state"):
        agent(PPO, venv, mode)


NAMED = [
    (PPO, "PerAssetPolicy"),
    (A2C, "PerAssetPolicy"),
    (SAC, "PerAssetPolicy"),
    (TD3, "PerAssetPolicy"),
    (DDPG, "PerAssetPolicy"),
    (TQC, "PerAssetPolicy"),
    (TRPO, "PerAssetPolicy"),
    (PPO, "PerAssetDirichletPolicy"),
    (A2C, "PerAssetDirichletPolicy"),
    (TRPO, "PerAssetDirichletPolicy"),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("cls", "name"), NAMED)
def test_the_per_asset_policies_have_names(
    cls: Any, name: str, mode: str, markets: list[Market]
) -> None:
    action = "weights" if "Dirichlet" in name else "logits"
    env = environment(markets[0], mode, action=action)
    model = cls(name, env, device="cpu", seed=0, **ALGORITHMS[cls]).learn(8)
    assert env.action_space.shape == model.predict(env.reset(seed=0)[0])[0].shape


@pytest.mark.parametrize("mode", ["window", "index"])
@pytest.mark.parametrize("cls", [PPO, TRPO])
def test_a_frozen_encoder_stays(cls: Any, mode: str, markets: list[Market]) -> None:
    network = {"encoder": "gat", "embedding_kwargs": {"frozen": True}}
    kwargs = {"features_extractor_kwargs": network}
    env = environment(markets[0], mode)
    options = ALGORITHMS[cls] | {"n_steps": 8}
    model = cls("PerAssetPolicy", env, policy_kwargs=kwargs, device="cpu", seed=0, **options)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    for name, value in model.learn(16).policy.state_dict().items():
        moved = not th.equal(before[name], value)
        assert not (moved and "encoder" in name), name
        assert moved or not name.startswith("mlp_extractor.policy_net") or "bias" in name, name


@pytest.mark.parametrize(
    ("cls", "name", "instead"),
    [
        (RecurrentPPO, "PerAssetPolicy", "MultiInputLstmPolicy"),
        (CrossQ, "PerAssetPolicy", "use SAC"),
        (SAC, "PerAssetDirichletPolicy", "PPO, A2C and TRPO"),
    ],
)
def test_policies_that_do_not_fit_say_what_does(
    cls: Any, name: str, instead: str, markets: list[Market]
) -> None:
    with pytest.raises(ArgumentError, match=instead):
        cls(name, environment(markets[0], "window"), device="cpu", **ALGORITHMS[cls])


def test_per_asset_policies_want_rows(markets: list[Market]) -> None:
    env = environment(markets[0], "window")
    kwargs = {"features_extractor_kwargs": {"output": "flat"}}
    with pytest.raises(ArgumentError, match="reads rows of assets"):
        PPO("PerAssetPolicy", env, policy_kwargs=kwargs, device="cpu")
    with pytest.raises(ArgumentError, match="output='rows' must be one of"):
        agent(PPO, env, "window", policy_kwargs=network(output="rows"))


def test_targets_that_follow_without_a_trace_are_read_anew(markets: list[Market]) -> None:
    """SB3 averages weights through ``.data``: what was kept of them before would be stale."""
    env = environment(markets[0], "index")
    extractor, other = (MarketExtractor.of(env, encoder="gat").eval() for _ in range(2))
    observation = {name: part[None] for name, part in env.reset(seed=0)[0].items()}
    with th.no_grad():
        before = extractor(observation)
        polyak_update(other.parameters(), extractor.parameters(), 0.5)
        after = extractor(observation)
        extractor.embeddings.forget()
        assert th.equal(after, extractor(observation)) and not th.allclose(before, after)


def test_an_unknown_option_of_the_extractor_is_named_with_the_nearest() -> None:
    space = PortfolioEnv(load_market("synthetic?bars=100&assets=2"), window=2).observation_space
    with pytest.raises(ArgumentError, match="no option 'encodr'; did you mean 'encoder'"):
        MarketExtractor(space, encodr="gat")
