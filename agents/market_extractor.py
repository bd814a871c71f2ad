"""The SB3 features extractor around any encoder, for every observation mode of the environment."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from agents.encoding.market_rows import MarketRows, Observation, asset_rows
from agents.networks import masked_mean
from portfolio_env.errors import ArgumentError
from portfolio_env.names import check_keywords

OUTPUTS = ("flat", "pooled", "assets")


class MarketExtractor(MarketRows, BaseFeaturesExtractor):
    """``MarketRows`` as a features extractor, for any policy of SB3 and sb3-contrib.

    >>> from portfolio_env import PortfolioEnv
    >>> from stable_baselines3 import PPO
    >>> env = PortfolioEnv("synthetic?bars=300&assets=4", window=20)
    >>> network = {"encoder": "gat", "output": "flat"}
    >>> kwargs = {"features_extractor_class": MarketExtractor, "features_extractor_kwargs": network}
    >>> agent = PPO("MultiInputPolicy", env, policy_kwargs=kwargs)

    Args:
        observation_space: See ``MarketRows``.
        args: See ``MarketRows``.
        output: ``"flat"``, (batch, assets * (C + 2) + 1): the rows side by side, then cash;
            ``"pooled"``, (batch, C + assets + 1): the mean of the channels over the assets that can
            be traded, then all weights; ``"assets"``, (batch, assets, C + 2): the rows themselves,
            for policies with weights shared over assets, which ask for them.
        options: See ``MarketRows``.

    Raises:
        ArgumentError: For another output or an unknown option, and as ``MarketRows`` does.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        *args: Any,
        output: str = "flat",
        **options: Any,
    ) -> None:
        if output not in OUTPUTS:
            raise ArgumentError(f"output={output!r} must be one of {', '.join(map(repr, OUTPUTS))}")
        known = [*signature(MarketRows.__init__).parameters][2:]
        check_keywords("MarketExtractor", "option", options, [*known, "output"])
        MarketRows.__init__(self, observation_space, *args, **options)
        n, channels = self.n_assets, self.width - 2
        widths = {"flat": n * self.width + 1, "pooled": channels + n + 1, "assets": self.width}
        self.output = output
        # Set here because SB3's constructor would empty the module once more.
        self._observation_space, self._features_dim = observation_space, widths[output]

    def forward(self, observation: Observation) -> Tensor:
        """Return the features of a batch of observations, in the form that ``output`` names."""
        if self.reads_index and self.output != "assets" and isinstance(observation, Mapping):
            given = {
                name: self._tensor(part).to(self._home.device) for name, part in observation.items()
            }
            observation = _without_padding(given)
        channels, tradable, weights = self.parts(observation)
        if self.output == "pooled":
            return th.cat([masked_mean(channels, tradable), weights], dim=1)
        rows = asset_rows(channels, tradable, weights)
        return rows if self.output == "assets" else th.cat([rows.flatten(1), weights[:, :1]], dim=1)


def _without_padding(observation: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace the zeros with which RecurrentPPO pads sequences by the first observation.

    Their outputs are ignored there, but as a row of a market they would be rejected. Weights sum
    to 1, so that no other observation holds zeros alone.
    """
    if "weights" not in observation:
        return observation
    padding = (observation["weights"] == 0).all(1, keepdim=True)
    first = (~padding).flatten().int().argmax()
    return {name: th.where(padding, part[first], part) for name, part in observation.items()}
