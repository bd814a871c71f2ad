"""The per-asset policies: equal on every observation mode, equivariant, exact to save."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.extractors import MarketExtractor
from agents.networks import make_encoder, masked_mean
from agents.policies import PerAssetActorCriticPolicy, PerAssetSACPolicy
from portfolio_env.errors import ArgumentError

BARS, ASSETS, FEATURES, WINDOW = 40, 5, 3, 4
POLICIES = [PerAssetActorCriticPolicy, PerAssetSACPolicy]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    th.set_num_threads(1)
    th.manual_seed(0)


def observation_space(mode: str, n: int = ASSETS) -> spaces.Space[Any]:
    tradable, weights = spaces.Box(0, 1, (n,), np.int8), spaces.Box(0, 1, (n + 1,), np.float32)
    market = spaces.Box(-10, 10, (WINDOW, n, FEATURES), np.float32)
    window = spaces.Dict(market=market, tradable=tradable, weights=weights)
    if mode == "window":
        return window
    if mode == "flat":
        return spaces.utils.flatten_space(window)
    index = {"t": spaces.Box(0, BARS - 1, (1,), np.int64), "tradable": tradable, "weights": weights}
    if mode == "universe":
        index["assets"] = spaces.Box(0, n - 1, (n,), np.int64)
    return spaces.Dict(index)


def build(cls: type, mode: str, n: int = ASSETS, window: int = 2, **kwargs: Any) -> Any:
    extractor = {"n_features": FEATURES, "window": window}
    action_space = spaces.Box(-1, 1, (n + 1,), np.float32)
    return cls(
        observation_space(mode, n),
        action_space,
        lambda _: 1e-3,
        features_extractor_kwargs=extractor,
        **kwargs,
    )


def scramble(policy: Any) -> Any:
    """Parameters of the size that training gives them, so that outputs differ between assets."""
    with th.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(0.5 * th.randn_like(parameter))
    return policy


def bind(policy: Any, features: np.ndarray) -> Any:
    for module in policy.modules():
        if isinstance(module, MarketExtractor):
            module.bind(th.tensor(features))
    return policy


def data(rng: np.random.Generator, lanes: int = 7, n: int = ASSETS) -> dict[str, np.ndarray]:
    features = rng.standard_normal((BARS, n, FEATURES)).astype(np.float32)
    t = rng.integers(WINDOW - 1, BARS, (lanes, 1))
    return {
        "features": features,
        "t": t,
        "market": np.stack([features[i - WINDOW + 1 : i + 1] for i in t[:, 0]]),
        "tradable": rng.integers(0, 2, (lanes, n)).astype(np.int8),
        "weights": rng.dirichlet(np.ones(n + 1), lanes).astype(np.float32),
    }


def observations(mode: str, d: dict[str, np.ndarray]) -> Any:
    if mode == "flat":
        parts = (d["market"], d["tradable"], d["weights"])
        return np.concatenate(
            [part.reshape(len(d["t"]), -1) for part in parts], axis=1, dtype=np.float32
        )
    keys = ("market", "tradable", "weights") if mode == "window" else ("t", "tradable", "weights")
    return {key: d[key] for key in keys}


def outputs(policy: Any, obs: Any) -> list[th.Tensor]:
    """Everything the networks compute: actions and values, for PPO and for SAC."""
    tensors, _ = policy.obs_to_tensor(obs)
    with th.no_grad():
        if isinstance(policy, PerAssetSACPolicy):
            mean, log_std, _ = policy.actor.get_action_dist_params(tensors)
            values = policy.critic(tensors, th.tanh(mean))
            return [mean, log_std, *values, policy.critic.q1_forward(tensors, th.tanh(mean))]
        return [policy.get_distribution(tensors).distribution.mean, policy.predict_values(tensors)]


@pytest.mark.parametrize("cls", POLICIES)
def test_window_flat_and_index_observations_give_the_same_numbers(cls: type) -> None:
    d = data(np.random.default_rng(1))
    reference = scramble(build(cls, "window"))
    expected = outputs(reference, observations("window", d))
    for mode in ("flat", "index"):
        policy = build(cls, mode)
        policy.load_state_dict(reference.state_dict())
        bind(policy, d["features"])
        for actual, wanted in zip(outputs(policy, observations(mode, d)), expected, strict=True):
            assert th.equal(actual, wanted)


@pytest.mark.parametrize("cls", POLICIES)
@given(seed=st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_permuting_the_assets_permutes_the_actions(cls: type, seed: int) -> None:
    rng = np.random.default_rng(seed)
    th.manual_seed(seed)
    d = data(rng)
    order = rng.permutation(ASSETS)
    permuted = d | {
        "market": d["market"][:, :, order],
        "tradable": d["tradable"][:, order],
        "weights": np.concatenate([d["weights"][:, :1], d["weights"][:, 1:][:, order]], axis=1),
    }
    policy = scramble(build(cls, "window"))
    slots = np.concatenate([[0], 1 + order])
    before, after = (outputs(policy, observations("window", x)) for x in (d, permuted))
    for a, b in zip(before, after, strict=True):
        wanted = a[:, slots] if a.shape[1] == ASSETS + 1 else a
        th.testing.assert_close(b, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cls", POLICIES)
def test_a_sampled_universe_reads_its_own_assets(cls: type) -> None:
    d = data(np.random.default_rng(2))
    order = np.random.default_rng(3).permuted(np.tile(np.arange(ASSETS), (len(d["t"]), 1)), axis=1)
    policy = bind(scramble(build(cls, "universe")), d["features"])
    window = build(cls, "window")
    window.load_state_dict(policy.state_dict())
    chosen = d | {"market": np.take_along_axis(d["market"], order[:, None, :, None], axis=2)}
    universe = observations("index", d) | {"assets": order}
    pairs = zip(
        outputs(policy, universe), outputs(window, observations("window", chosen)), strict=True
    )
    for actual, wanted in pairs:
        assert th.equal(actual, wanted)


@pytest.mark.parametrize("cls", POLICIES)
def test_the_same_parameters_serve_any_number_of_assets(cls: type) -> None:
    small, large = scramble(build(cls, "window")), build(cls, "window", n=20)
    large.load_state_dict(small.state_dict())
    d = data(np.random.default_rng(4))
    # four copies of the same five assets, weights quartered: every copy is scored as the original
    copies = d | {
        "market": np.tile(d["market"], (1, 1, 4, 1)),
        "tradable": np.tile(d["tradable"], (1, 4)),
        "weights": np.concatenate(
            [d["weights"][:, :1], np.tile(d["weights"][:, 1:] / 4, (1, 4))], axis=1
        ),
    }
    slots = [0, *(1 + i % ASSETS for i in range(20))]
    mean, wide = (
        outputs(p, observations("window", x))[0] for p, x in ((small, d), (large, copies))
    )
    th.testing.assert_close(wide, mean[:, slots], rtol=1e-4, atol=1e-5)
    action, _ = large.predict(observations("window", copies))
    assert action.shape == (7, 21)


@pytest.mark.parametrize("cls", POLICIES)
def test_values_ignore_what_cannot_be_traded(cls: type) -> None:
    d = data(np.random.default_rng(5))
    policy = scramble(build(cls, "window"))
    changed = d | {"market": np.where(d["tradable"][:, None, :, None] == 1, d["market"], 9.0)}
    before, after = (outputs(policy, observations("window", x)) for x in (d, changed))
    if cls is PerAssetSACPolicy:
        tensors = [policy.obs_to_tensor(observations("window", x))[0] for x in (d, changed)]
        action = th.tensor(
            np.random.default_rng(6).uniform(-1, 1, (7, ASSETS + 1)), dtype=th.float32
        )
        other = action.clone()
        other[:, 1:][th.tensor(d["tradable"] == 0)] = 0.7
        assert th.equal(policy.critic(tensors[0], action)[0], policy.critic(tensors[1], other)[0])
    else:
        assert th.equal(before[1], after[1])


def test_masked_mean_counts_the_tradable_alone_and_is_zero_without_any() -> None:
    rows = th.arange(12.0).reshape(2, 3, 2)
    mask = th.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    assert masked_mean(rows, mask).tolist() == [[2.0, 3.0], [0.0, 0.0]]


def test_critics_are_invariant_to_a_common_shift_of_the_logits() -> None:
    policy = scramble(build(PerAssetSACPolicy, "window"))
    tensors, _ = policy.obs_to_tensor(observations("window", data(np.random.default_rng(7))))
    action = th.rand(7, ASSETS + 1)
    with th.no_grad():
        th.testing.assert_close(
            policy.critic(tensors, action)[0], policy.critic(tensors, action + 0.3)[0]
        )


def test_exploration_has_one_width_for_cash_and_one_for_assets() -> None:
    policy = build(PerAssetActorCriticPolicy, "window", log_std_init=-0.5)
    assert policy.log_std.shape == (2,)
    with th.no_grad():
        policy.log_std[0] = -2.0
    tensors, _ = policy.obs_to_tensor(observations("window", data(np.random.default_rng(8))))
    std = policy.get_distribution(tensors).distribution.stddev[0]
    th.testing.assert_close(std, th.tensor([-2.0, *[-0.5] * ASSETS]).exp())


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("cls", POLICIES)
def test_saving_and_loading_a_policy_is_exact(cls: type, share: bool, tmp_path: Any) -> None:
    policy = scramble(build(cls, "window", share_features_extractor=share))
    policy.save(tmp_path / "policy.pt")
    loaded = cls.load(tmp_path / "policy.pt", device="cpu")
    obs = observations("window", data(np.random.default_rng(9)))
    assert loaded.share_features_extractor is share
    for a, b in zip(outputs(policy, obs), outputs(loaded, obs), strict=True):
        assert th.equal(a, b)


@pytest.mark.parametrize("cls", POLICIES)
def test_the_market_is_part_of_no_state_dict(cls: type) -> None:
    policy = build(cls, "index")
    before = set(policy.state_dict())
    bind(policy, data(np.random.default_rng(10))["features"])
    assert set(policy.state_dict()) == before


def test_every_trained_parameter_is_optimised() -> None:
    ppo = build(PerAssetActorCriticPolicy, "window")
    optimised = {id(p) for group in ppo.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in ppo.parameters()}
    sac = build(PerAssetSACPolicy, "window")
    for net in (sac.actor, sac.critic):
        assert {id(p) for g in net.optimizer.param_groups for p in g["params"]} == {
            id(p) for p in net.parameters()
        }
    assert {id(p) for p in sac.critic_target.parameters()}.isdisjoint(
        id(p) for p in sac.critic.parameters()
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_encoder("transformer", 3, 1), "unknown"),
        (lambda: make_encoder("per_asset", 3, 0), "window >= 1"),
        (lambda: build(PerAssetActorCriticPolicy, "window", window=9), "window <= 4"),
        (lambda: build(PerAssetActorCriticPolicy, "flat", n=4, window=9), "window <= 4"),
        (lambda: MarketExtractor(observation_space("flat"), 7, FEATURES), "does not hold"),
        (lambda: build(PerAssetActorCriticPolicy, "window", use_sde=True), "use_sde"),
        (lambda: build(PerAssetSACPolicy, "window", use_sde=True), "use_sde"),
        (lambda: bind(build(PerAssetSACPolicy, "index"), np.zeros((9, 5, 8))), "features"),
        (
            lambda: build(PerAssetSACPolicy, "index").predict(
                observations("index", data(np.random.default_rng(0)))
            ),
            "bind_market",
        ),
    ],
)
def test_errors_name_the_mend(call: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call()
