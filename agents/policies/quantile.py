"""The per-asset policy of sb3-contrib's TQC; only this module needs that library."""

from typing import Any

import torch as th
from sb3_contrib.tqc.policies import Actor, Critic, TQCPolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn

from agents.networks import AssetHead, PooledCritic, RowMlp
from agents.policies.common import OffPolicyModel


class PerAssetTQCActor(Actor):
    """TQC's actor with mean and log standard deviation from rows shared over assets."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.latent_pi = RowMlp(self.features_dim, self.net_arch, self.activation_fn)
        self.mu = AssetHead(self.latent_pi.out_width)
        self.log_std = AssetHead(self.latent_pi.out_width)  # type: ignore[assignment]  # of sb3-contrib


class QuantileCritic(Critic):
    """TQC's critics on per-asset rows joined with their weight and their action, pooled once."""

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
        self.q_networks = []
        for i in range(self.n_critics):
            network = PooledCritic(features_dim, net_arch, activation_fn)
            network.value = nn.Linear(network.rows.out_width, self.n_quantiles)
            self.add_module(f"qf{i}", network)
            self.q_networks.append(network)  # type: ignore[arg-type]  # typed as Sequential

    def forward(self, obs: PyTorchObs, action: Tensor) -> Tensor:
        """Return quantiles of the action value, (batch, critics, n_quantiles)."""
        # A shared extractor learns from the actor's loss alone, as in sb3-contrib.
        with th.set_grad_enabled(th.is_grad_enabled() and not self.share_features_extractor):
            rows = self.extract_features(obs, self.features_extractor)
        return th.stack([network(rows, action) for network in self.q_networks], dim=1)


class PerAssetTQCPolicy(OffPolicyModel, TQCPolicy):
    """Per-asset actor and quantile critics for TQC; arguments as in sb3-contrib's TQCPolicy.

    For the default of ``net_arch`` see ``OffPolicyModel``, for what a shared extractor learns from
    ``agents.policies.off_policy``.
    """

    actor_class = PerAssetTQCActor
    critic_class = QuantileCritic
