"""Base classes of the per-asset policies of all algorithms."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from agents.actor_critic import LOG_STD_INIT, SCORER, action_means
from agents.market_extractor import MarketExtractor
from agents.networks import AssetHead
from portfolio_env.errors import ArgumentError

__all__ = [
    "CRITIC",
    "LOG_STD_INIT",
    "SCORER",
    "MarketExtractor",
    "OffPolicyModel",
    "PerAssetModel",
    "follow",
    "refuse",
]

_LARGEST = 0.99  # logit of a bounded actor: its slope before the tanh is 50 there, infinite at 1
CRITIC = (128, 128)  # widths for action values, where narrower ones were less reliable over seeds


def refuse(options: dict[str, Any], *names: str) -> None:
    """Raise ArgumentError for options of SB3's policies that have no meaning here."""
    for name in names:
        value = options.get(name)
        if value is not None and value is not False:
            raise ArgumentError(f"{name}={value!r} is not available with this policy; leave it out")


def follow(target: nn.Module) -> None:
    """Notify the extractors of a target network when its weights change."""
    for module in target.modules():
        if isinstance(module, MarketExtractor):
            module.embeddings.cached = False


class PerAssetModel(BaseModel):
    """Mixin that builds the extractor and saves every option."""

    share_features_extractor: bool

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """Build the extractor; the number of assets is that of the action space less cash."""
        n_assets = spaces.flatdim(self.action_space) - 1
        kwargs = {"n_assets": n_assets, **self.features_extractor_kwargs}
        if issubclass(self.features_extractor_class, MarketExtractor):  # noqa: SIM102  # an effect
            if kwargs.setdefault("output", "assets") != "assets":
                raise ArgumentError(
                    f"output={kwargs['output']!r} is for SB3's own policies; {type(self).__name__} "
                    "reads rows of assets, leave it out"
                )
        return self.features_extractor_class(self.observation_space, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        # SB3 omits this option, and ``policy.load`` would then share what was trained apart.
        return super()._get_constructor_parameters() | {
            "share_features_extractor": self.share_features_extractor
        }


class BoundedHead(AssetHead):
    """Means before an actor's tanh, whose weights are those of the direct agent's scores.

    The logits of ``action_means``, cut at 0.99 of the box where the tanh would need infinite ones.
    """

    def forward(self, rows: Tensor) -> Tensor:
        """Return (batch, 1 + assets) of rows (batch, assets, width)."""
        return action_means(super().forward(rows)).clamp(-_LARGEST, _LARGEST).atanh()


class OffPolicyModel(PerAssetModel):
    """Base of the per-asset policies of SAC, TD3 and TQC; SB3's class comes after it.

    Arguments are those of SB3's class. ``net_arch`` defaults to two layers of 32 for the actor and
    of 128 for the critics. ``bounded_scores`` gives the actor the scorer of the direct agent, tanh
    layers and the head ``BoundedHead``, for an agent that starts from the scorer of one.
    """

    actor_class: type[nn.Module]
    critic_class: type[nn.Module]
    actor_kwargs: dict[str, Any]
    critic_kwargs: dict[str, Any]

    def __init__(
        self,
        *args: Any,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] = MarketExtractor,
        bounded_scores: bool = False,
        **kwargs: Any,
    ) -> None:
        self.bounded_scores = bounded_scores
        refuse(kwargs, "use_sde")
        kwargs["net_arch"] = net_arch or {"pi": list(SCORER), "qf": list(CRITIC)}
        kwargs["features_extractor_class"] = features_extractor_class
        super().__init__(*args, **kwargs)
        for name in ("actor_target", "critic_target"):
            if hasattr(self, name):
                follow(getattr(self, name))

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        """Build the actor around ``features_extractor``, or around a new one."""
        kwargs = self._update_features_extractor(self.actor_kwargs, features_extractor)
        if not self.bounded_scores:
            return self.actor_class(**kwargs).to(self.device)
        actor: Any = self.actor_class(**kwargs | {"activation_fn": nn.Tanh})
        if isinstance(actor.mu, nn.Sequential):  # rows, head and tanh of a deterministic actor
            scorer: Any = actor.mu[0]
            actor.mu[1] = BoundedHead(scorer.out_width)
        else:
            actor.mu = BoundedHead(actor.latent_pi.out_width)
        return actor.to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"bounded_scores": self.bounded_scores}
        return super()._get_constructor_parameters() | own

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        """Build the critics around ``features_extractor``, or around a new one."""
        kwargs = self._update_features_extractor(self.critic_kwargs, features_extractor)
        return self.critic_class(**kwargs).to(self.device)
