"""Dirichlet policy of PPO and A2C: target weights drawn on the simplex."""

import math
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn
from torch.distributions import Dirichlet
from torch.nn.functional import softplus

from agents.networks import AssetHead
from agents.policies.common import refuse
from agents.policies.on_policy import PerAssetActorCriticPolicy
from portfolio_env.errors import ArgumentError

EPSILON = 1e-6  # smallest weight before rescaling to 1: log densities stay finite in float32


def onto_simplex(weights: Tensor) -> Tensor:
    """Return weights (..., slots) of at least ``EPSILON`` each, scaled to the sum 1."""
    weights = weights.clamp(min=EPSILON)
    return weights / weights.sum(-1, keepdim=True)


class DirichletDistribution(Distribution):
    """Dirichlet distribution over cash and assets, as an SB3 distribution.

    An action passes the same projection when it is drawn and when its density is computed, so that
    an action from a buffer has the density it had when it was drawn. The deterministic action is
    the mean: for concentrations below 1 there is no mode.
    """

    distribution: Dirichlet

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # SB3 leaves it untyped

    def proba_distribution_net(self, latent_dim: int) -> AssetHead:
        """Return the layer from rows (batch, assets, latent_dim) to numbers (batch, 1 + assets)."""
        return AssetHead(latent_dim)

    def proba_distribution(self, concentration: Tensor) -> "DirichletDistribution":
        """Set the concentrations (batch, 1 + assets), each above 0."""
        # Its own check of actions is stricter than float32 sums over many assets allow.
        self.distribution = Dirichlet(concentration, validate_args=False)
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log densities (batch,) of weights (batch, 1 + assets) on the simplex."""
        weights = onto_simplex(actions)
        density: Tensor = self.distribution.log_prob(weights)  # type: ignore[no-untyped-call]  # torch
        return density

    def entropy(self) -> Tensor:
        """Return entropies (batch,): at most that of the uniform, -lgamma(1 + assets)."""
        entropy: Tensor = self.distribution.entropy()  # type: ignore[no-untyped-call]  # torch
        return entropy

    def sample(self) -> Tensor:
        """Draw weights (batch, 1 + assets), differentiable in the concentrations."""
        return onto_simplex(self.distribution.rsample())

    def mode(self) -> Tensor:
        """Return the mean (batch, 1 + assets)."""
        mean: Tensor = self.distribution.mean
        return mean

    def actions_from_params(self, concentration: Tensor, deterministic: bool = False) -> Tensor:
        """Return weights for concentrations."""
        return self.proba_distribution(concentration).get_actions(deterministic)

    def log_prob_from_params(self, concentration: Tensor) -> tuple[Tensor, Tensor]:
        """Return drawn weights for concentrations, and their log densities."""
        actions = self.actions_from_params(concentration)
        return actions, self.log_prob(actions)


class PerAssetDirichletPolicy(PerAssetActorCriticPolicy):
    """Per-asset concentrations of a Dirichlet distribution over target weights, for PPO and A2C.

    An asset's concentration is ``floor + softplus(scale * x)`` of a number x made from its row,
    that of cash of a learned number; their sum says how sure the policy is. Where the environment
    bounds weights more tightly than to [0, 1], SB3 clips what was drawn and the environment
    projects it, as it does with any weights.

    Args:
        observation_space: See ``MarketExtractor``.
        action_space: Weights of cash and assets, Box(0, 1, (1 + assets,)), as of an environment
            with ``action="weights"``.
        lr_schedule: Learning rate as a function of the remaining progress.
        concentration_init: Concentration of cash and of every asset at the start, above ``floor``.
        floor: Least concentration, above 0: the smaller, the more of the draws lie on the border of
            the simplex, where densities are steep.
        scale: Scale by which concentrations follow the network, as ``logits_scale`` of the
            environment does for logits.
        kwargs: Further options of ``PerAssetActorCriticPolicy``, except for the noise of logits.

    Raises:
        ArgumentError: If the actions are no long-only weights, or an option makes no sense.
    """

    action_dist: DirichletDistribution

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        concentration_init: float = 0.2,
        floor: float = 0.01,
        scale: float = 5.0,
        **kwargs: Any,
    ) -> None:
        refuse(kwargs, "log_std_init", "squash_output", "bounded_scores")
        if not isinstance(action_space, spaces.Box) or action_space.low.min() < 0:
            raise ArgumentError(
                f"a Dirichlet policy names long-only weights, the actions are {action_space}; "
                'build the environment with action="weights" and without short positions'
            )
        if not 0 < floor < concentration_init < math.inf or not 0 < scale < math.inf:
            raise ArgumentError(
                f"floor={floor}, concentration_init={concentration_init}, scale={scale}: need "
                "0 < floor < concentration_init and scale > 0"
            )
        self.concentration_init = concentration_init
        self.floor = floor
        self.scale = scale
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build_actor(self) -> None:
        del self.log_std  # SB3 made it for its Gaussian
        self.action_dist = DirichletDistribution()
        head = self.action_dist.proba_distribution_net(self.mlp_extractor.latent_dim_pi)
        above = self.concentration_init - self.floor
        # softplus(scale * start) == above
        start = (above + math.log(-math.expm1(-above))) / self.scale
        nn.init.constant_(head.cash, start)
        nn.init.constant_(head.asset.bias, start)
        self.action_net = head

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Distribution:
        concentration = self.floor + softplus(self.scale * self.action_net(latent_pi))
        return self.action_dist.proba_distribution(concentration)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        options = super()._get_constructor_parameters()
        for name in ("log_std_init", "squash_output", "bounded_scores"):
            del options[name]
        own = ("concentration_init", "floor", "scale")
        return options | {name: getattr(self, name) for name in own}
