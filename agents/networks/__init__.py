"""Networks in plain torch: encoders of market windows and the heads that are shared over assets.

An encoder turns windows of features into one vector per asset, `(batch, window, assets,
features)`` -> ``(batch, assets, channels)`. It is chosen by name, so that a configuration can be
written as JSON; names of users' own are ``"module:Class"``.
"""

from typing import Any

from torch import nn

from agents.networks.base import Encoder, PerAsset
from agents.networks.eiie import Eiie
from agents.networks.factor import BranchEncoder, FactorEncoder, MlpEncoder, ResidualMlpEncoder
from agents.networks.gat import GAT
from agents.networks.heads import AssetHead, PooledCritic, RowMlp, masked_mean
from agents.networks.lstm import LstmAttention, LstmEncoder
from agents.networks.plugins import Maker, check_options, user_encoder
from agents.networks.state_space import StateSpace
from agents.networks.tcn_gnn_lstm import TcnGnnLstm, TcnGnnLstmSmall
from agents.networks.transformer import Transformer
from portfolio_env.errors import ArgumentError
from portfolio_env.names import find

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
    "eiie": Eiie,
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
    "encoder_class",
    "make_encoder",
    "masked_mean",
]


def make_encoder(encoder: str | Maker, n_features: int, window: int, **options: Any) -> Encoder:
    """Build an encoder for windows of ``window`` bars of ``n_features`` features.

    Args:
        encoder: A name of ``ENCODERS``, of an installed package's entry point ``encoder.NAME``, or
            ``"module:Class"``; or a class or function itself. What is not built in is a subclass of
            ``Encoder`` or any ``nn.Module`` that is made by ``(n_features, window, **options)`` and
            called by ``(windows, tradable, codes)``, see ``agents.networks.plugins``; it is tried
            out on a small batch.
        n_features: Features per asset and bar.
        window: Bars the encoder sees.
        options: Further options of the encoder.

    Raises:
        ArgumentError: If there is no such encoder, it does not take an option, or it breaks what
            encoders promise.
    """
    maker = encoder_class(encoder) if isinstance(encoder, str) else encoder
    called = repr(encoder) if isinstance(encoder, str) else getattr(encoder, "__name__", "")
    if isinstance(maker, nn.Module):
        raise ArgumentError(
            f"encoder is a {type(maker).__name__} that is made already; give the class, or a "
            "function (n_features, window) that makes one"
        )
    if not callable(maker):
        raise ArgumentError(f"encoder is {encoder!r:.60}; give a name, or a class of nn.Module")
    if maker not in ENCODERS.values():
        return user_encoder(maker, called or repr(encoder), n_features, window, options)
    check_options(maker, called, n_features, window, options)
    try:
        made: Encoder = maker(n_features, window, **options)  # type: ignore[assignment]  # a module
    except TypeError as error:  # where a text stands for a number
        raise ArgumentError(f"encoder {called} does not take {options}: {error}") from error
    return made


def encoder_class(name: str) -> type[nn.Module]:
    """Return the class of an encoder's name, see ``make_encoder``.

    Raises:
        ArgumentError: If there is none of that name, or it is not a class of ``nn.Module``: what a
            file names is called for nothing else.
    """
    found: Any = find("encoder", name, ENCODERS)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ArgumentError(
            f"encoder {name!r} is {found!r:.60}; a name must stand for a class of torch's nn.Module"
        )
    return found
