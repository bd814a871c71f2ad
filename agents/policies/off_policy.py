"""The per-asset policies of SAC, TD3 and DDPG: action values pooled over assets.

Each network has an extractor of its own, the targets included: encoders are run and kept four times
(TD3: actor, critic and their targets) or three times (SAC, which has no target of the actor). With
``share_features_extractor=True`` the critic reads the actor's, which learns from the actor's loss
alone, as in SB3: the critic's loss, which says most about the market, no longer trains the encoder.
That suits an encoder that is pretrained or frozen. TD3's targets of a shared extractor follow with
about twice ``tau``, because SB3 averages it once with the actor and once with the critic.
"""

from typing import Any

import torch as th
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.sac.policies import Actor, SACPolicy
from stable_baselines3.td3.policies import Actor as DeterministicActor
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn

from agents.networks import AssetHead, PooledCritic, RowMlp
from agents.policies.common import OffPolicyModel


class PerAssetActor(Actor):
    """SAC's actor with mean and log standard deviation from rows shared over assets."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.latent_pi = RowMlp(self.features_dim, self.net_arch, self.activation_fn)
        self.mu = AssetHead(self.latent_pi.out_width)
        self.log_std = AssetHead(self.latent_pi.out_width)  # type: ignore[assignment]  # of SB3


class PerAssetDeterministicActor(DeterministicActor):
    """TD3's actor: a logit in (-1, 1) per asset from rows shared over assets, and one for cash."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        rows = RowMlp(self.features_dim, self.net_arch, self.activation_fn)
        self.mu = nn.Sequential(rows, AssetHead(rows.out_width), nn.Tanh())


class PerAssetCritic(ContinuousCritic):
    """Critics of SAC and TD3 on per-asset rows joined with their weight and their action."""

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


class PerAssetSACPolicy(OffPolicyModel, SACPolicy):
    """Per-asset actor and critics for SAC; arguments as in SB3's SACPolicy.

    For the default of ``net_arch`` see ``OffPolicyModel``.
    """

    actor_class = PerAssetActor
    critic_class = PerAssetCritic


class PerAssetTD3Policy(OffPolicyModel, TD3Policy):
    """Per-asset deterministic actor and critics for TD3 and DDPG; arguments as in SB3's TD3Policy.

    For the default of ``net_arch`` see ``OffPolicyModel``.
    """

    actor_class = PerAssetDeterministicActor
    critic_class = PerAssetCritic
