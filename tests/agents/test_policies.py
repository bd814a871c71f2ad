"""The per-asset policies: equal on every observation mode, equivariant, exact to save."""

from typing import Any

import numpy as np
import pytest
import torch as th
from helpers import examples
from helpers.policy_checks import (
    ASSETS,
    FEATURES,
    OFF_POLICY,
    ON_POLICY,
    POLICIES,
    action_values,
    bind,
    build,
    data,
    observation_space,
    observations,
    outputs,
    scramble,
)
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.utils import polyak_update

from agents.market_extractor import MarketExtractor
from agents.networks import ENCODERS, Encoder, make_encoder, masked_mean
from agents.policies import (
    PerAssetActorCriticPolicy,
    PerAssetSACPolicy,
    PerAssetTD3Policy,
)
from agents.policies.quantile import PerAssetTQCPolicy
from portfolio_env.errors import ArgumentError


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
@examples(20)
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
    if cls in OFF_POLICY:
        tensors = [policy.obs_to_tensor(observations("window", x))[0] for x in (d, changed)]
        action = th.tensor(
            np.random.default_rng(6).uniform(-1, 1, (7, ASSETS + 1)), dtype=th.float32
        )
        other = action.clone()
        other[:, 1:][th.tensor(d["tradable"] == 0)] = 0.7
        pairs = zip(tensors, (action, other), strict=True)
        assert th.equal(*(action_values(policy, *pair) for pair in pairs))
    else:
        assert th.equal(before[1], after[1])


def test_masked_mean_counts_the_tradable_alone_and_is_zero_without_any() -> None:
    rows = th.arange(12.0).reshape(2, 3, 2)
    mask = th.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    assert masked_mean(rows, mask).tolist() == [[2.0, 3.0], [0.0, 0.0]]


@pytest.mark.parametrize("cls", OFF_POLICY)
def test_critics_are_invariant_to_a_common_shift_of_the_logits(cls: type) -> None:
    policy = scramble(build(cls, "window"))
    tensors, _ = policy.obs_to_tensor(observations("window", data(np.random.default_rng(7))))
    action = th.rand(7, ASSETS + 1)
    with th.no_grad():
        th.testing.assert_close(
            action_values(policy, tensors, action),
            action_values(policy, tensors, action + 0.3),
            rtol=1e-4,
            atol=1e-5,
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


def optimised(network: Any) -> set[int]:
    return {id(p) for group in network.optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("cls", ON_POLICY)
@pytest.mark.parametrize("share", [True, False])
def test_every_parameter_is_optimised(cls: type, share: bool) -> None:
    policy = build(cls, "window", share_features_extractor=share)
    assert optimised(policy) == {id(p) for p in policy.parameters()}


@pytest.mark.parametrize("cls", OFF_POLICY)
def test_actors_and_critics_are_optimised_and_targets_are_not(cls: type) -> None:
    policy = build(cls, "window")
    for network in (policy.actor, policy.critic):
        assert optimised(network) == {id(p) for p in network.parameters()}
    targets = [m for name, m in policy.named_children() if name.endswith("target")]
    trained = optimised(policy.actor) | optimised(policy.critic)
    assert len(targets) == 1 + (cls is PerAssetTD3Policy)
    assert {id(p) for target in targets for p in target.parameters()}.isdisjoint(trained)


class Tiny(Encoder):
    """An encoder with weights, which start as no initialisation of SB3 would leave them."""

    def __init__(self, n_features: int, window: int) -> None:
        super().__init__(n_features, window)
        self.channels = 4
        self.layer = th.nn.Linear(n_features, self.channels)
        th.nn.init.constant_(self.layer.bias, 0.37)

    def forward(
        self, windows: th.Tensor, tradable: th.Tensor, codes: th.Tensor | None = None
    ) -> th.Tensor:
        return th.tanh(self.layer(windows)).mean(1)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setitem(ENCODERS, "tiny", Tiny)
    return {"encoder": "tiny"}


def encoders(network: Any) -> list[Any]:
    return [m.encoder for m in network.modules() if isinstance(m, MarketExtractor)]


@pytest.mark.parametrize("cls", POLICIES)
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("ortho", [None, True, False])
def test_encoders_keep_the_start_they_were_given(
    cls: type, share: bool, ortho: bool | None, tiny: dict[str, Any]
) -> None:
    options = {} if ortho is None or cls in OFF_POLICY else {"ortho_init": ortho}
    policy = build(cls, "window", extractor=tiny, share_features_extractor=share, **options)
    found = {id(encoder): encoder for encoder in encoders(policy)}.values()
    assert len(found) == expected_encoders(cls, share)
    for encoder in found:
        assert th.equal(encoder.layer.bias, th.full((4,), 0.37))
        weight = encoder.layer.weight
        # orthogonal columns, as SB3's start has them, would make this product diagonal
        assert not th.allclose(weight.T @ weight, th.eye(3) * (weight**2).sum() / 3, atol=1e-3)


def expected_encoders(cls: type, share: bool) -> int:
    if cls in ON_POLICY:
        return 1 if share else 2
    return (2 if share else 3) + (cls is PerAssetTD3Policy and not share)


@pytest.mark.parametrize("cls", ON_POLICY)
def test_heads_start_orthogonal(cls: type) -> None:
    policy = build(cls, "window")
    layer = policy.mlp_extractor.policy_net[2]
    th.testing.assert_close(layer.weight @ layer.weight.T, 2 * th.eye(32), rtol=1e-4, atol=1e-5)
    assert (policy.value_net.weight**2).sum().item() == pytest.approx(1, abs=1e-5)
    assert policy.action_net.asset.weight.norm().item() == pytest.approx(0.01, abs=1e-6)


@pytest.mark.parametrize("cls", OFF_POLICY)
@pytest.mark.parametrize("share", [True, False])
def test_a_shared_encoder_learns_from_the_actor_alone(
    cls: type, share: bool, tiny: dict[str, Any]
) -> None:
    policy = build(cls, "window", extractor=tiny, share_features_extractor=share)
    scramble(policy)
    tensors, _ = policy.obs_to_tensor(observations("window", data(np.random.default_rng(11))))
    action_values(policy, tensors, th.rand(7, ASSETS + 1)).square().mean().backward()
    (encoder,) = encoders(policy.critic)
    assert (encoder.layer.weight.grad is None) == share
    if cls is PerAssetTD3Policy:
        policy.actor(tensors).sum().backward()
    else:
        policy.actor.action_log_prob(tensors)[0].sum().backward()
    (encoder,) = encoders(policy.actor)
    assert encoder.layer.weight.grad.abs().max() > 0


@pytest.mark.parametrize("cls", OFF_POLICY)
@pytest.mark.parametrize("share", [True, False])
def test_targets_see_their_encoders_move(cls: type, share: bool, tiny: dict[str, Any]) -> None:
    """Polyak averages leave no trace on a weight: an embedding kept from before would be stale."""
    d = data(np.random.default_rng(12))
    policy, fresh = (
        build(cls, "index", extractor=tiny, share_features_extractor=share) for _ in range(2)
    )
    bind(policy, d["features"])
    names = ["critic"] + ["actor"] * (cls is PerAssetTD3Policy)
    tensors, _ = policy.obs_to_tensor(observations("index", d))
    action = th.rand(7, ASSETS + 1)

    def targets(policy: Any) -> list[th.Tensor]:
        with th.no_grad():
            values = policy.critic_target(tensors, action)
            values = [th.cat(values, 1) if isinstance(values, tuple) else values]
            return values + [policy.actor_target(tensors) for _ in names[1:]]

    before = targets(policy)
    scramble(policy.actor), scramble(policy.critic)
    for name in names:
        online, target = getattr(policy, name), getattr(policy, f"{name}_target")
        polyak_update(online.parameters(), target.parameters(), 0.5)
    fresh.load_state_dict(policy.state_dict())
    bind(fresh, d["features"])
    for old, new, wanted in zip(before, targets(policy), targets(fresh), strict=True):
        assert th.equal(new, wanted)
        assert not th.allclose(old, new)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_encoder("oracle", 3, 1), "unknown"),
        (lambda: make_encoder("per_asset", 3, 0), "window >= 1"),
        (lambda: build(PerAssetActorCriticPolicy, "window", window=9), "window <= 4"),
        (lambda: build(PerAssetActorCriticPolicy, "flat", n=4, window=9), "window <= 4"),
        (lambda: MarketExtractor(observation_space("flat"), 7, FEATURES), "does not hold"),
        (lambda: build(PerAssetActorCriticPolicy, "window", use_sde=True), "use_sde"),
        (lambda: build(PerAssetSACPolicy, "window", use_sde=True), "use_sde"),
        (lambda: build(PerAssetTQCPolicy, "window", use_sde=True), "use_sde"),
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


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("cls", ON_POLICY)
def test_the_critic_teaches_a_shared_encoder_as_much_as_it_may(
    cls: type, share: float, tiny: dict[str, Any]
) -> None:
    gradients = []
    start = scramble(build(cls, "window", extractor=tiny)).state_dict()
    for own in (share, 1.0):
        policy = build(cls, "window", extractor=tiny, critic_gradient=own)
        policy.load_state_dict(start)
        tensors, _ = policy.obs_to_tensor(observations("window", data(np.random.default_rng(13))))
        actions = th.full((7, ASSETS + 1), 1 / (ASSETS + 1))
        values, log_prob, _ = policy.evaluate_actions(tensors, actions)
        (encoder,) = {id(one): one for one in encoders(policy)}.values()
        weights = (encoder.layer.weight, policy.value_net.weight)
        gradients.append(
            [
                th.autograd.grad(part.sum(), weights, retain_graph=True, allow_unused=True)
                for part in (values, log_prob)
            ]
        )
    (of_value, of_actor), (whole_value, whole_actor) = gradients
    assert whole_value[0].abs().max() > 0
    if share:
        th.testing.assert_close(of_value[0], share * whole_value[0])
    else:
        assert of_value[0] is None
    th.testing.assert_close(of_value[1], whole_value[1])
    th.testing.assert_close(of_actor[0], whole_actor[0])
