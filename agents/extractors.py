"""The SB3 features extractor around any encoder, for every observation mode of the environment."""

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from agents.networks import make_encoder
from portfolio_env.errors import ArgumentError


class AssetExtractor(BaseFeaturesExtractor):
    """One row per asset: encoder channels, `n_assets * weight - 1`, tradable flag.

    The three observation modes give the same rows. With `"index"` observations the market's
    features stay in a non-persistent buffer (see `bind`) and windows are gathered on its device
    by `t`; `t` is never a feature, or the network could learn dates by heart.

    Args:
        observation_space: the environment's, of mode `"window"`, `"flat"` or `"index"`.
        n_assets: risky assets of the observation (a flat one does not tell).
        n_features: features per asset.
        window: bars the encoder sees, at most the environment's window.
        encoder: name of the encoder, see `agents.networks.ENCODERS`.
        encoder_kwargs: further, JSON-able options of the encoder.
    """

    market: Tensor | None

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        n_assets: int,
        n_features: int,
        window: int = 1,
        encoder: str = "per_asset",
        encoder_kwargs: dict[str, Any] | None = None,
    ) -> None:
        network = make_encoder(encoder, n_features, window, **(encoder_kwargs or {}))
        super().__init__(observation_space, network.channels + 2)
        self.encoder = network
        self.n_assets = n_assets
        self.n_features = n_features
        self.window = window
        self.register_buffer("market", None, persistent=False)
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
        if shape and (shape[0] < window or shape[2] != n_features):
            raise ArgumentError(
                f"observations hold {shape[0]} bars of {shape[2]} features, not {window} of "
                f"{n_features}; pass a window <= {shape[0]} and n_features={shape[2]}"
            )

    def bind(self, features: Tensor) -> None:
        """Give the extractor the market's `features` (T, all assets, F), shared, not copied."""
        if features.ndim != 3 or features.shape[2] != self.n_features:
            raise ArgumentError(
                f"the market's features have shape {tuple(features.shape)}, the network reads "
                f"(T, assets, {self.n_features}); load the features it was trained on"
            )
        self.market = features

    def forward(self, observations: Tensor | dict[str, Tensor]) -> Tensor:
        """Return rows (batch, assets, channels + 2)."""
        windows, tradable, weights = self._unpack(observations)
        own = weights[:, 1:] * tradable.shape[1] - 1.0
        channels = self.encoder(windows, tradable)
        return th.cat([channels, own.unsqueeze(-1), tradable.unsqueeze(-1)], dim=-1)

    def _unpack(self, observations: Tensor | dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Windows (batch, window, assets, F), tradable (batch, assets), weights with cash first."""
        if isinstance(observations, Tensor):
            n = self.n_assets
            windows = observations[:, : -2 * n - 1].reshape(-1, *self.window_shape)
            tradable, weights = observations[:, -2 * n - 1 : -n - 1], observations[:, -n - 1 :]
            return windows[:, -self.window :], tradable, weights
        tradable, weights = observations["tradable"], observations["weights"]
        if self.reads_index:
            return self._gather(observations), tradable, weights
        return observations["market"][:, -self.window :], tradable, weights

    def _gather(self, observations: dict[str, Tensor]) -> Tensor:
        """Windows that end at `t`, of the assets of each lane where the universe is sampled."""
        if self.market is None:
            raise ArgumentError(
                "index observations need their market; call agents.bind_market(model, market)"
            )
        t = observations["t"].long()
        bars = t + th.arange(1 - self.window, 1, device=t.device)  # (batch, window)
        if "assets" in observations:
            return self.market[bars[:, :, None], observations["assets"].long()[:, None, :]]
        return self.market[bars]
