"""Per-asset policies for PPO and SAC: a scorer shared over assets, a cash logit, a pooled critic.

A flat network over all assets memorises the training history; sharing one small scorer over the
assets makes the policy permutation-equivariant and its parameters independent of the number of
assets, so a model trained on 5 assets runs on 20.
"""

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel, ContinuousCritic
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.sac.policies import Actor, SACPolicy
from torch import Tensor, nn

from agents.extractors import AssetExtractor
from agents.networks import AssetHead, PooledCritic, RowMlp, masked_mean
from portfolio_env.errors import ArgumentError

LOG_STD_INIT = -0.5  # of logits in [-1, 1]: wide, or learning takes far longer
SCORER = (32, 32)
CRITIC = (128, 128)  # of SAC, where narrower ones were less reliable over seeds


def _refuse_sde(options: dict[str, Any]) -> None:
    if options.get("use_sde"):
        raise ArgumentError("use_sde=True is not available with the per-asset policy; leave it out")


class _PerAsset(BaseModel):
    """What both policies share: how the extractor is built, and saving of every option."""

    share_features_extractor: bool

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """Build the extractor; the number of assets is that of the action space less cash."""
        n_assets = spaces.flatdim(self.action_space) - 1
        kwargs = {"n_assets": n_assets, **self.features_extractor_kwargs}
        return self.features_extractor_class(self.observation_space, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        # SB3 forgets this one, and `policy.load` would then share what was trained apart.
        return super()._get_constructor_parameters() | {
            "share_features_extractor": self.share_features_extractor
        }


class _ActorCriticRows(nn.Module):
    """Stands where SB3 puts its MlpExtractor: rows for the actor, pooled rows for the critic."""

    def __init__(
        self, width: int, net_arch: dict[str, list[int]], activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.policy_net = RowMlp(width, net_arch["pi"], activation)
        self.value_net = RowMlp(width, net_arch["vf"], activation)
        self.latent_dim_pi = self.policy_net.out_width
        self.latent_dim_vf = self.value_net.out_width

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_actor(rows), self.forward_critic(rows)

    def forward_actor(self, rows: Tensor) -> Tensor:
        latent: Tensor = self.policy_net(rows)  # (batch, assets, latent_dim_pi)
        return latent

    def forward_critic(self, rows: Tensor) -> Tensor:
        return masked_mean(self.value_net(rows), rows[..., -1])  # (batch, latent_dim_vf)


class PerAssetActorCriticPolicy(_PerAsset, ActorCriticPolicy):
    """Per-asset actor and pooled critic for PPO (and A2C).

    The exploration noise has two parameters, `log_std[0]` for cash and `log_std[1]` for every
    asset.

    Args:
        observation_space: see `AssetExtractor`.
        action_space: logits of cash and assets, Box(-1, 1, (1 + assets,)).
        lr_schedule: learning rate as a function of the remaining progress.
        net_arch: layer widths `{"pi": [...], "vf": [...]}`; default two of 32 each.
        log_std_init: initial log standard deviation of the noise on logits in [-1, 1].
        features_extractor_class: `AssetExtractor` or a subclass.
        kwargs: further options of SB3's ActorCriticPolicy. `ortho_init` concerns the encoder only
            (the heads are always initialised orthogonally) and is off, so that encoders keep
            their own start.
    """

    action_dist: DiagGaussianDistribution
    net_arch: dict[str, list[int]]

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: dict[str, list[int]] | None = None,
        log_std_init: float = LOG_STD_INIT,
        ortho_init: bool = False,
        features_extractor_class: type[BaseFeaturesExtractor] = AssetExtractor,
        **kwargs: Any,
    ) -> None:
        _refuse_sde(kwargs)
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=net_arch or {"pi": list(SCORER), "vf": list(SCORER)},
            log_std_init=log_std_init,
            ortho_init=ortho_init,
            features_extractor_class=features_extractor_class,
            **kwargs,
        )

    def _build_mlp_extractor(self) -> None:
        rows = _ActorCriticRows(self.features_dim, self.net_arch, self.activation_fn)
        self.mlp_extractor = rows  # type: ignore[assignment]

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        self.action_net = AssetHead(self.mlp_extractor.latent_dim_pi)
        self.log_std = nn.Parameter(th.full((2,), float(self.log_std_init)))
        nn.init.orthogonal_(self.value_net.weight)
        nn.init.zeros_(self.value_net.bias)
        # SB3 made its optimiser with the parameters replaced above.
        kwargs = {"lr": lr_schedule(1), **self.optimizer_kwargs}
        self.optimizer = self.optimizer_class(self.parameters(), **kwargs)

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Distribution:
        mean = self.action_net(latent_pi)
        log_std = th.cat([self.log_std[:1], self.log_std[1:].expand(mean.shape[1] - 1)])
        return self.action_dist.proba_distribution(mean, log_std)


class PerAssetActor(Actor):
    """SAC's actor with mean and log standard deviation from rows shared over assets."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.latent_pi = RowMlp(self.features_dim, self.net_arch, self.activation_fn)
        self.mu = AssetHead(self.latent_pi.out_width)
        self.log_std = AssetHead(self.latent_pi.out_width)  # type: ignore[assignment]


class PerAssetCritic(ContinuousCritic):
    """SAC's twin critics on per-asset rows that see their weight and their action."""

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


class PerAssetSACPolicy(_PerAsset, SACPolicy):
    """Per-asset actor and critics for SAC; arguments as in SB3's SACPolicy.

    `net_arch` defaults to two layers of 32 for the actor and of 128 for the critics.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] = AssetExtractor,
        **kwargs: Any,
    ) -> None:
        _refuse_sde(kwargs)
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=net_arch or {"pi": list(SCORER), "qf": list(CRITIC)},
            features_extractor_class=features_extractor_class,
            **kwargs,
        )

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
