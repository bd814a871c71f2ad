"""Factor networks: perceptrons that encode each asset's row of features and categories."""

from collections.abc import Sequence
from typing import Any

import torch as th
from torch import Tensor

from agents.networks.base import RowEncoder, check_sizes
from agents.networks.mlp import ARCHITECTURES, ConfigurableMLP, Norm, ResidualMLP
from portfolio_env.errors import ArgumentError
from portfolio_env.names import unknown


class MlpEncoder(RowEncoder):
    """A perceptron for each asset's row, see ``ConfigurableMLP``.

    Args:
        n_features: Features per asset and bar.
        window: Bars it may look back.
        architecture: A name of ``ARCHITECTURES``, or the widths of the layers.
        depth: Layers, in place of an architecture; 3 if only ``width`` is given.
        width: Width of each of these layers; 128 if only ``depth`` is given.
        activation: One of ``agents.networks.mlp.ACTIVATIONS``.
        norm: "layer", "batch" (for supervised training alone) or None.
        dropout: Share dropped in training.
        **options: ``flatten``, ``vocabulary_sizes`` and ``embed_dim``, see ``RowEncoder``.
    """

    def __init__(
        self,
        n_features: int,
        window: int,
        architecture: str | Sequence[int] | None = None,
        depth: int | None = None,
        width: int | None = None,
        activation: str = "relu",
        norm: Norm = "layer",
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(n_features, window, **options)
        layers = _layers(architecture, depth, width)
        self.network = ConfigurableMLP(
            self.width, layers, None, activation=activation, norm=norm, dropout=dropout
        )
        self.channels = self.network.out_width

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Return (batch, assets, width of the last layer)."""
        out: Tensor = self.network(self.rows(self.series(windows), codes))
        return out


def _layers(
    architecture: str | Sequence[int] | None, depth: int | None, width: int | None
) -> Sequence[int]:
    if architecture is None:
        depth, width = 3 if depth is None else depth, 128 if width is None else width
        check_sizes(depth=depth, width=width)
        return [width] * depth
    if depth is not None or width is not None:
        raise ArgumentError(
            f"architecture is {architecture!r}, depth {depth} and width {width}: give the "
            "architecture, or depth and width"
        )
    if not isinstance(architecture, str):
        check_sizes(layers=len(architecture))
        return architecture
    if architecture not in ARCHITECTURES:
        raise unknown("architecture", architecture, ARCHITECTURES)
    return ARCHITECTURES[architecture]


class ResidualMlpEncoder(RowEncoder):
    """Residual blocks for each asset's row, see ``ResidualMLP`` and ``RowEncoder``.

    Args:
        n_features: Features per asset and bar.
        window: Bars it may look back.
        channels: Width of the blocks and of the output.
        blocks: Number of blocks.
        activation: One of ``agents.networks.mlp.ACTIVATIONS``.
        norm: "layer", "batch" (for supervised training alone) or None.
        dropout: Share dropped in training.
        **options: ``flatten``, ``vocabulary_sizes`` and ``embed_dim``, see ``RowEncoder``.
    """

    def __init__(
        self,
        n_features: int,
        window: int,
        channels: int = 128,
        blocks: int = 4,
        activation: str = "relu",
        norm: Norm = "layer",
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(n_features, window, **options)
        self.network = ResidualMLP(
            self.width,
            channels,
            blocks,
            None,
            activation=activation,
            norm=norm,
            dropout=dropout,
        )
        self.channels = channels

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Return (batch, assets, channels)."""
        out: Tensor = self.network(self.rows(self.series(windows), codes))
        return out


class FactorEncoder(RowEncoder):
    """The combined factor model: gates on the features, embeddings, residual blocks.

    Squeeze and excite (Hu et al., CVPR 2018, section 3) on the inputs, so that a gate says how much
    of a feature is let in: the means of the features over the bars that are read, and the embedded
    categories, give one gate in (0, 1) per feature. Then a layer with GELU, and residual blocks.

    Args:
        n_features: Features per asset and bar.
        window: Bars it may look back.
        channels: Width of the blocks and of the output.
        blocks: Residual blocks.
        gate_width: Hidden width of the network of the gates.
        activation: Activation of the blocks, one of ``agents.networks.mlp.ACTIVATIONS``.
        norm: "layer", "batch" (for supervised training alone) or None.
        dropout: Share dropped in training.
        **options: ``flatten``, ``vocabulary_sizes`` and ``embed_dim``, see ``RowEncoder``.
    """

    def __init__(
        self,
        n_features: int,
        window: int,
        channels: int = 128,
        blocks: int = 3,
        gate_width: int = 32,
        activation: str = "relu",
        norm: Norm = "layer",
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(n_features, window, **options)
        self.gate = ConfigurableMLP(n_features + self.embedded, [gate_width], n_features, norm=None)
        self.network = ResidualMLP(
            self.width,
            channels,
            blocks,
            None,
            activation=activation,
            first_activation="gelu",
            norm=norm,
            dropout=dropout,
        )
        self.channels = channels

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Return (batch, assets, channels)."""
        series = self.series(windows)
        gated = series * self._gates(series, codes).unsqueeze(2)
        out: Tensor = self.network(self.rows(gated, codes))
        return out

    def attention(
        self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return ``"gates"``: (batch, assets, features), each in (0, 1) on its own."""
        return {"gates": self._gates(self.series(windows), codes)}

    def _gates(self, series: Tensor, codes: Tensor | None) -> Tensor:
        return th.sigmoid(self.gate(self.rows(series.mean(2), codes)))
