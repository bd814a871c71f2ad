"""Networks in plain torch: encoders of market windows and the heads that are shared over assets.

An encoder turns windows of features into one vector per asset, `(batch, window, assets,
features)`` -> ``(batch, assets, channels)`. It is chosen by name, so that a configuration can be
written as JSON.
"""

from typing import Any

from agents.networks.base import Encoder, PerAsset
from agents.networks.branches import BranchEncoder
from agents.networks.factor import FactorEncoder, MlpEncoder, ResidualMlpEncoder
from agents.networks.gat import GAT
from agents.networks.heads import AssetHead, PooledCritic, RowMlp, masked_mean
from agents.networks.lstm import LstmAttention, LstmEncoder
from agents.networks.state_space import StateSpace
from agents.networks.tcn_gnn_lstm import TcnGnnLstm, TcnGnnLstmSmall
from agents.networks.transformer import Transformer
from portfolio_env.errors import ArgumentError
from portfolio_env.names import unknown

ENCODERS: dict[str, type[Encoder]] = {
    "per_asset": PerAsset,
    "tcn_gnn_lstm": TcnGnnLstm,
    "tcn_gnn_lstm_small": TcnGnnLstmSmall,
    "gat": GAT,
    "lstm": LstmEncoder,
    "lstm_attention": LstmAttention,
    "state_space": StateSpace,
    "transformer": Transformer,
    "mlp": MlpEncoder,
    "residual_mlp": ResidualMlpEncoder,
    "branches": BranchEncoder,
    "factor": FactorEncoder,
}
"""Encoders by name."""

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
    """Build the encoder called ``name`` for windows of ``window`` bars of ``n_features`` features.

    Raises:
        ArgumentError: If no encoder has that name, or it does not take an option.
    """
    if name not in ENCODERS:
        raise unknown("encoder", name, ENCODERS)
    try:
        return ENCODERS[name](n_features, window, **options)
    except TypeError as error:  # also where a text stands for a number
        raise ArgumentError(f"encoder {name!r} does not take {options} ({error})") from error
