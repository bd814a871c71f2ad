"""The SB3 features extractor around any encoder, for every observation mode of the environment."""

from collections.abc import Mapping
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from agents.market_encoder import Embeddings
from agents.networks import make_encoder
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.market.fingerprints import check_fingerprints, fingerprints_in

MEND = (
    "agents.bind_market(agent, market) binds another (of a DirectAgent: agent.bind(market)), "
    "agents.policy_for(agent, venv) gives a copy of the policy that acts in another environment"
)


class MarketExtractor(BaseFeaturesExtractor):
    """One row per asset: encoder channels, ``n_assets * weight - 1``, tradable flag.

    The three observation modes give the same rows. With ``"index"`` observations the market stays
    on the device (see ``bind``) and each of its bars is encoded once (see ``Embeddings``); ``t`` is
    never a feature, or the network could learn dates by heart. Where the universe is sampled, the
    encoder sees the whole market and each lane takes its own assets.

    Args:
        observation_space: The environment's, of mode ``"window"``, ``"flat"`` or ``"index"``.
        n_assets: Risky assets of the observation (a flat one does not tell).
        n_features: Features per asset.
        window: Bars the encoder sees, at most the environment's window.
        encoder: Name or class of the encoder, see ``agents.networks.make_encoder``.
        encoder_kwargs: Further, JSON-able options of the encoder.
        embedding_kwargs: How the encoder is run: ``frozen``, ``checkpointed`` and ``forecasts``,
            see ``Embeddings``.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        n_assets: int,
        n_features: int,
        window: int = 1,
        encoder: str = "per_asset",
        encoder_kwargs: dict[str, Any] | None = None,
        embedding_kwargs: dict[str, Any] | None = None,
    ) -> None:
        network = make_encoder(encoder, n_features, window, **(encoder_kwargs or {}))
        super().__init__(observation_space, network.channels + 2)
        self.embeddings = Embeddings(network, **(embedding_kwargs or {}))
        self.n_assets = n_assets
        self.n_features = n_features
        self.bars = network.bars
        self.market: Market | None = None
        if isinstance(observation_space, spaces.Dict):
            self.reads_index = "t" in observation_space.spaces
            shape = () if self.reads_index else observation_space["market"].shape or ()
        else:
            self.reads_index = False
            bars = (spaces.flatdim(observation_space) - 1) / n_assets - 2
            shape = (int(bars) // n_features, n_assets, n_features)
            if bars != shape[0] * n_features:
                raise ArgumentError(
                    f"a flat observation of {spaces.flatdim(observation_space)} numbers does not "
                    f"hold {n_assets} assets of {n_features} features; pass the right n_features"
                )
        self.window_shape = shape
        if shape and (shape[0] < self.bars or shape[2] != n_features):
            raise ArgumentError(
                f"observations hold {shape[0]} bars of {shape[2]} features, not {self.bars} of "
                f"{n_features}; pass a window <= {shape[0]} and n_features={shape[2]}, or give the "
                f"environment window={self.bars}"
            )

    @property
    def encoder(self) -> th.nn.Module:
        """The encoder itself."""
        return self.embeddings.encoder

    @property
    def needs_market(self) -> bool:
        """Whether it must be bound before it can be used."""
        return self.reads_index or self.embeddings.encoder.uses_codes

    def bind(
        self,
        features: Tensor,
        tradable: Tensor | None = None,
        codes: Tensor | None = None,
        market: Market | None = None,
    ) -> None:
        """Give it the market, shared and not copied.

        Args:
            features: (T, all assets, F).
            tradable: (T, all assets), 1 or 0; None if all are, always.
            codes: (all assets, K) static categories.
            market: Whose tensors these are: index observations of another are then refused.
        """
        self.embeddings.bind(features, tradable, codes)
        self.market = market

    def forward(self, observations: Tensor | dict[str, Tensor]) -> Tensor:
        """Return rows (batch, assets, channels + 2)."""
        return asset_rows(*self._unpack(observations))

    def _unpack(self, observations: Tensor | dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Channels (batch, assets, C), tradable (batch, assets), weights with cash first."""
        if isinstance(observations, Tensor):
            n = self.n_assets
            windows = observations[:, : -2 * n - 1].reshape(-1, *self.window_shape)
            tradable, weights = observations[:, -2 * n - 1 : -n - 1], observations[:, -n - 1 :]
            return self._encode(windows, tradable), tradable, weights
        self._check(observations)
        tradable, weights = observations["tradable"], observations["weights"]
        if not self.reads_index:
            return self._encode(observations["market"], tradable), tradable, weights
        assets = observations.get("assets")
        channels = self.embeddings(
            observations["t"].long().flatten(), None if assets is None else assets.long()
        )
        return channels, tradable, weights

    def _check(self, observations: dict[str, Tensor]) -> None:
        """Refuse observations that lack a part, and those of another market.

        Fingerprints are compared on a GPU only where no gradient is kept: what is learnt from was
        acted on before, and there the answer would be waited for.
        """
        market = self.market if self.reads_index else None
        part = "t" if self.reads_index else "market"
        check_parts(observations, part, fingerprint=market is not None)
        if market is None or (observations["market"].is_cuda and th.is_grad_enabled()):
            return
        check_fingerprints(observations["market"], market.fingerprint, MEND)

    def _encode(self, windows: Tensor, tradable: Tensor) -> Tensor:
        codes = self.embeddings.codes
        if codes is not None:
            if len(codes) != tradable.shape[1]:
                raise ArgumentError(
                    f"the market has categories of {len(codes)} assets, the observation holds "
                    f'{tradable.shape[1]}; use observation="index" where the universe is sampled'
                )
            codes = codes.expand(len(tradable), *codes.shape)
        return self.embeddings.encode(windows[:, -self.bars :], tradable, codes)


def check_parts(observation: Mapping[str, Any], *parts: str, fingerprint: bool) -> None:
    """Refuse an observation that lacks one of these parts, or what every one has.

    Args:
        observation: A Dict of the environment.
        parts: Names beside ``tradable`` and ``weights``.
        fingerprint: It must say which market it is of.

    Raises:
        ArgumentError: If it lacks something.
    """
    if fingerprint:
        fingerprints_in(observation)
    lacking = [name for name in (*parts, "tradable", "weights") if name not in observation]
    if lacking:
        raise ArgumentError(
            f"the observation lacks {', '.join(map(repr, lacking))}, it holds "
            f"{', '.join(sorted(observation))}; hand on all that the environment gives"
        )


def all_embeddings(network: th.nn.Module) -> list[Embeddings]:
    """The embeddings of all extractors of a policy or network, those of target networks too."""
    return [part.embeddings for part in network.modules() if isinstance(part, MarketExtractor)]


def asset_rows(channels: Tensor, tradable: Tensor, weights: Tensor) -> Tensor:
    """The rows of a ``MarketExtractor`` (batch, assets, C + 2).

    Args:
        channels: (batch, assets, C).
        tradable: (batch, assets), 1 or 0.
        weights: (batch, 1 + assets), cash first.
    """
    own = weights[:, 1:] * tradable.shape[1] - 1.0
    return th.cat([channels, own.unsqueeze(-1), tradable.unsqueeze(-1)], dim=-1)
