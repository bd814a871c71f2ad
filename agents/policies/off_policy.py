"""The per-asset policies of SAC, TD3 and DDPG: action values pooled over assets.

Each network has an extractor of its own, the targets included: encoders are run and kept four times
(TD3: actor, critic and their targets) or three times (SAC, which has no target of the actor). With
`share_features_extractor=True` the critic reads the actor's, which learns from the actor's loss
alone, as in SB3: the critic's loss, which says most about the market, no longer trains the encoder.
That suits an encoder that is pretrained or frozen. TD3's targets of a shared extractor follow with
about twice `tau`, because SB3 averages it once with the actor and once with the critic.
"""

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.sac.policies import Actor, SACPolicy
from stable_baselines3.td3.policies import Actor as DeterministicActor
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn

from agents.networks import AssetHead, PooledCritic, RowMlp
from agents.policies.common import CRITIC, SCORER, MarketExtractor, PerAssetModel, follow, refuse


class PerAssetActor(Actor):
    """SAC's actor with mean and log standard deviation from rows shared over assets."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.latent_pi = RowMlp(self.features_dim, self.net_arch, self.activation_fn)
        self.mu = AssetHead(self.latent_pi.out_width)
        # SB3 types it as a layer or a parameter.
        self.log_std = AssetHead(self.latent_pi.out_width)  # type: ignore[assignment]


class PerAssetDeterministicActor(DeterministicActor):
    """TD3's actor: one logit in (-1, 1) per asset from rows shared over assets, and cash's own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        rows = RowMlp(self.features_dim, self.net_arch, self.activation_fn)
        self.mu = nn.Sequential(rows, AssetHead(rows.out_width), nn.Tanh())


class PerAssetCritic(ContinuousCritic):
    """Critics of SAC and TD3 on per-asset rows that see their weight and their action."""

    def __init__(
        self,
        *,
        features_dim: int,
        net_arch: list[int],
        activation_fn: type[nn.Module],
        **kwargs: Any,
    ) -> None:
        super().__init__(
            features_dim=features_dim, net_arch=net_arch, activation_fn=activation_fn, **kwargs
        )
        self.q_networks = [
            PooledCritic(features_dim, net_arch, activation_fn) for _ in self.q_networks
        ]
        for i, network in enumerate(self.q_networks):
            self.add_module(f"qf{i}", network)

    def forward(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, ...]:
        """Return Q(s, a) of every critic, (batch, 1) each."""
        # A shared extractor learns from the actor's loss alone, as in SB3.
        with th.set_grad_enabled(th.is_grad_enabled() and not self.share_features_extractor):
            rows = self.extract_features(obs, self.features_extractor)
        return tuple(network(rows, actions) for network in self.q_networks)

    def q1_forward(self, obs: PyTorchObs, actions: Tensor) -> Tensor:
        """Return Q(s, a) of the first critic, (batch, 1)."""
        with th.no_grad():
            rows = self.extract_features(obs, self.features_extractor)
        value: Tensor = self.q_networks[0](rows, actions)
        return value


class PerAssetSACPolicy(PerAssetModel, SACPolicy):
    """Per-asset actor and critics for SAC; arguments as in SB3's SACPolicy.

    `net_arch` defaults to two layers of 32 for the actor and of 128 for the critics.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] = MarketExtractor,
        **kwargs: Any,
    ) -> None:
        refuse(kwargs, "use_sde")
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=net_arch or {"pi": list(SCORER), "qf": list(CRITIC)},
            features_extractor_class=features_extractor_class,
            **kwargs,
        )
        follow(self.critic_target)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Actor:
        """Build the actor around `features_extractor`, or around a new one."""
        kwargs = self._update_features_extractor(self.actor_kwargs, features_extractor)
        return PerAssetActor(**kwargs).to(self.device)

    def make_critic(
        self, features_extractor: BaseFeaturesExtractor | None = None
    ) -> ContinuousCritic:
        """Build the critics around `features_extractor`, or around a new one."""
        kwargs = self._update_features_extractor(self.critic_kwargs, features_extractor)
        return PerAssetCritic(**kwargs).to(self.device)


class PerAssetTD3Policy(PerAssetModel, TD3Policy):
    """Per-asset deterministic actor and critics for TD3 and DDPG; arguments as in SB3's TD3Policy.

    `net_arch` defaults to two layers of 32 for the actor and of 128 for the critics.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] = MarketExtractor,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=net_arch or {"pi": list(SCORER), "qf": list(CRITIC)},
            features_extractor_class=features_extractor_class,
            **kwargs,
        )
        follow(self.actor_target)
        follow(self.critic_target)

    def make_actor(
        self, features_extractor: BaseFeaturesExtractor | None = None
    ) -> DeterministicActor:
        """Build the actor around `features_extractor`, or around a new one."""
        kwargs = self._update_features_extractor(self.actor_kwargs, features_extractor)
        return PerAssetDeterministicActor(**kwargs).to(self.device)

    def make_critic(
        self, features_extractor: BaseFeaturesExtractor | None = None
    ) -> ContinuousCritic:
        """Build the critics around `features_extractor`, or around a new one."""
        kwargs = self._update_features_extractor(self.critic_kwargs, features_extractor)
        return PerAssetCritic(**kwargs).to(self.device)
