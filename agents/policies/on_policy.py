"""The per-asset policy of PPO and A2C: Gaussian logits, and a value pooled over assets."""

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from agents.actor_critic import ActorCriticRows, action_means, noise_of, noise_parameter
from agents.networks import AssetHead
from agents.networks.heads import orthogonal
from agents.policies.common import LOG_STD_INIT, SCORER, MarketExtractor, PerAssetModel, refuse


class PerAssetActorCriticPolicy(PerAssetModel, ActorCriticPolicy):
    """Per-asset actor and pooled critic for PPO and A2C.

    The exploration noise has two parameters, ``log_std[0]`` for cash and ``log_std[1]`` for every
    asset. Actor and critic share the extractor, which learns from the actor's loss, unless
    ``critic_gradient`` lets the critic's through or ``share_features_extractor=False`` gives each
    its own.

    Args:
        observation_space: See ``MarketExtractor``.
        action_space: Logits of cash and assets, Box(-1, 1, (1 + assets,)).
        lr_schedule: Learning rate as a function of the remaining progress.
        net_arch: Layer widths ``{"pi": [...], "vf": [...]}``; default two of 32 each.
        log_std_init: Initial log standard deviation of the noise on logits in [-1, 1].
        features_extractor_class: ``MarketExtractor`` or a subclass.
        critic_gradient: Share, 0 to 1, of the critic's gradient that reaches a shared extractor,
            see ``ActorCriticRows``.
        bounded_scores: Keep the means of logits in the box by the map of the direct agent, see
            ``action_means``: for an agent that starts from the scorer of one. From scratch it
            learns as much or a little less.
        kwargs: Further options of SB3's ActorCriticPolicy. Of these ``ortho_init`` changes nothing:
            the heads start orthogonal, an encoder keeps the start it was given.
    """

    action_dist: Distribution
    net_arch: dict[str, list[int]]
    parts = 1
    """Parts of a minibatch that ``evaluate_actions`` computes one after another."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: dict[str, list[int]] | None = None,
        log_std_init: float = LOG_STD_INIT,
        features_extractor_class: type[BaseFeaturesExtractor] = MarketExtractor,
        critic_gradient: float = 0.0,
        bounded_scores: bool = False,
        **kwargs: Any,
    ) -> None:
        self.critic_gradient, self.bounded_scores = critic_gradient, bounded_scores
        refuse(kwargs, "use_sde")
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=net_arch or {"pi": list(SCORER), "vf": list(SCORER)},
            log_std_init=log_std_init,
            features_extractor_class=features_extractor_class,
            **kwargs,
        )

    @staticmethod
    def init_weights(module: nn.Module, gain: float = 1) -> None:
        """Keep every layer's own initialisation; SB3's would replace that of an encoder, too."""

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = ("critic_gradient", "bounded_scores")
        return super()._get_constructor_parameters() | {name: getattr(self, name) for name in own}

    def evaluate_actions(
        self, obs: PyTorchObs, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values, log likelihoods and entropies of a minibatch, (batch, 1) or (batch,).

        In several parts, no more than the activations of one are held: each is computed again in
        the backward pass, whose gradients add up to those of the whole.
        """
        if self.parts == 1 or not th.is_grad_enabled():
            return super().evaluate_actions(obs, actions)
        evaluate = super().evaluate_actions
        found = []
        for first in range(0, len(actions), size := -(-len(actions) // self.parts)):
            at = slice(first, first + size)
            part = {k: v[at] for k, v in obs.items()} if isinstance(obs, dict) else obs[at]
            found.append(checkpoint(evaluate, part, actions[at], use_reentrant=False))
        values, likelihoods, entropies = zip(*found, strict=True)
        entropy = None if entropies[0] is None else th.cat(entropies)
        return th.cat(values), th.cat(likelihoods), entropy

    def _build_mlp_extractor(self) -> None:
        rows = ActorCriticRows(
            self.features_dim, self.net_arch, self.activation_fn, self.critic_gradient
        )
        self.mlp_extractor = rows  # type: ignore[assignment]  # it stands in for SB3's

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        orthogonal(self.value_net, 1.0)
        self._build_actor()
        # SB3 made its optimiser with the parameters replaced above.
        kwargs = {"lr": lr_schedule(1), **self.optimizer_kwargs}
        self.optimizer = self.optimizer_class(self.parameters(), **kwargs)

    def _build_actor(self) -> None:
        self.action_net = AssetHead(self.mlp_extractor.latent_dim_pi)
        self.log_std = noise_parameter(self.log_std_init)

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Distribution:
        assert isinstance(self.action_dist, DiagGaussianDistribution)  # as SB3 made it for the Box
        scores = self.action_net(latent_pi)
        mean = action_means(scores) if self.bounded_scores else scores
        return self.action_dist.proba_distribution(mean, noise_of(self.log_std, mean.shape[1] - 1))
