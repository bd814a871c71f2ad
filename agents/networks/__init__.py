"""Networks in plain torch: encoders of market windows and the heads that are shared over assets.

An encoder turns windows of features into one vector per asset, `(batch, window, assets,
features)` -> `(batch, assets, channels)`. It is chosen by name, so that a configuration can be
written as JSON.
"""

from typing import Any

from agents.networks.encoders import Encoder, PerAsset
from agents.networks.heads import AssetHead, PooledCritic, RowMlp, masked_mean
from portfolio_env.errors import ArgumentError

ENCODERS: dict[str, type[Encoder]] = {"per_asset": PerAsset}

__all__ = [
    "ENCODERS",
    "AssetHead",
    "Encoder",
    "PerAsset",
    "PooledCritic",
    "RowMlp",
    "make_encoder",
    "masked_mean",
]


def make_encoder(name: str, n_features: int, window: int, **options: Any) -> Encoder:
    """Build the encoder called `name` for windows of `window` bars of `n_features` features.

    Raises:
        ArgumentError: if no encoder has that name.
    """
    if name not in ENCODERS:
        raise ArgumentError(f"encoder {name!r} is unknown; choose one of {sorted(ENCODERS)}")
    return ENCODERS[name](n_features, window, **options)
