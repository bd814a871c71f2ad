"""What the per-asset policies of all algorithms share."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from agents.market_extractor import MarketExtractor
from portfolio_env.errors import ArgumentError

__all__ = [
    "CRITIC",
    "LOG_STD_INIT",
    "SCORER",
    "MarketExtractor",
    "PerAssetModel",
    "follow",
    "refuse",
]

LOG_STD_INIT = -0.5  # of logits in [-1, 1]: wide, or learning takes far longer
SCORER = (32, 32)
CRITIC = (128, 128)  # of action values, where narrower ones were less reliable over seeds


def refuse(options: dict[str, Any], *names: str) -> None:
    """Raise ArgumentError for options of SB3's policies that have no meaning here."""
    for name in names:
        value = options.get(name)
        if value is not None and value is not False:
            raise ArgumentError(f"{name}={value!r} is not available with this policy; leave it out")


def follow(target: nn.Module) -> None:
    """Let the extractors of a target network see that its weights move."""
    for module in target.modules():
        if isinstance(module, MarketExtractor):
            module.embeddings.cached = False


class PerAssetModel(BaseModel):
    """How the extractor is built, and saving of every option."""

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
