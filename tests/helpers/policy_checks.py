"""Policies over small made-up markets, and everything that their networks compute."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from agents.encoding.market_rows import MarketRows
from agents.policies import (
    PerAssetActorCriticPolicy,
    PerAssetDirichletPolicy,
    PerAssetSACPolicy,
    PerAssetTD3Policy,
)
from agents.policies.quantile import PerAssetTQCPolicy

BARS, ASSETS, FEATURES, WINDOW = 40, 5, 3, 4
ON_POLICY = [PerAssetActorCriticPolicy, PerAssetDirichletPolicy]
OFF_POLICY = [PerAssetSACPolicy, PerAssetTD3Policy, PerAssetTQCPolicy]
POLICIES = ON_POLICY + OFF_POLICY


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


def build(
    cls: type,
    mode: str,
    n: int = ASSETS,
    window: int = 2,
    extractor: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    extractor = {"n_features": FEATURES, "window": window} | (extractor or {})
    low = 0 if cls is PerAssetDirichletPolicy else -1
    action_space = spaces.Box(low, 1, (n + 1,), np.float32)
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
        if isinstance(module, MarketRows):
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


def action_values(policy: Any, tensors: Any, action: th.Tensor) -> th.Tensor:
    """(batch, critics) or, of quantile critics, (batch, critics * quantiles)."""
    values = policy.critic(tensors, action)
    return th.cat(values, dim=1) if isinstance(values, tuple) else values.flatten(1)


def outputs(policy: Any, obs: Any) -> list[th.Tensor]:
    """Everything the networks compute: what makes the action, first, and the values."""
    tensors, _ = policy.obs_to_tensor(obs)
    with th.no_grad():
        if isinstance(policy, PerAssetDirichletPolicy):
            concentration = policy.get_distribution(tensors).distribution.concentration
            return [concentration, policy.predict_values(tensors)]
        if isinstance(policy, PerAssetActorCriticPolicy):
            mean = policy.get_distribution(tensors).distribution.mean
            return [mean, policy.predict_values(tensors)]
        if isinstance(policy, PerAssetTD3Policy):
            action = policy.actor(tensors)
            q1 = policy.critic.q1_forward(tensors, action)
            return [action, action_values(policy, tensors, action), q1]
        mean, log_std, _ = policy.actor.get_action_dist_params(tensors)
        return [mean, log_std, action_values(policy, tensors, th.tanh(mean))]
