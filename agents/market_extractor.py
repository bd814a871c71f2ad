"""The SB3 features extractor around any encoder, for every observation mode of the environment."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from agents.market_rows import MarketRows


class MarketExtractor(MarketRows, BaseFeaturesExtractor):
    """``MarketRows`` as a features extractor of SB3: (batch, assets, channels + 2).

    Args:
        observation_space: See ``MarketRows``.
        options: See ``MarketRows``.
    """

    def __init__(self, observation_space: spaces.Space[Any], *args: Any, **options: Any) -> None:
        MarketRows.__init__(self, observation_space, *args, **options)
        # What SB3's constructor would set, which would empty the module once more.
        self._observation_space, self._features_dim = observation_space, self.width
