"""Factor networks: perceptrons that encode each asset's row of features, whole or by groups."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch as th
from torch import Tensor, nn

from agents.networks.base import RowEncoder, check_sizes
from agents.networks.mlp import (
    ARCHITECTURES,
    ConfigurableMLP,
    Norm,
    ResidualMLP,
    make_activation,
)
from portfolio_env.errors import ArgumentError
from portfolio_env.names import unknown

# Widths of the branches of these names; others get the last.
BRANCHES: dict[str, tuple[int, ...]] = {
    "price": (64, 64, 32),
    "volume": (32, 16),
    "sentiment": (16, 16),
}
_OTHER_BRANCH = (32, 16)


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


class BranchEncoder(RowEncoder):
    """A perceptron for each group of features, attention over the groups, and an output layer.

    ``y = join([K a_1 b_1, ..., K a_K b_K])``, b_k the branch of group k, `a = softmax(linear([b_1,
    ..., b_K]))`, so that equal attention changes nothing.

    Args:
        n_features: Features per asset and bar.
        window: Bars it may look back.
        groups: Name to columns of the features, e.g. ``{"price": [0, 1], "volume": [2]}``. Columns
            of no group are not read. None puts all in one.
        branches: Name to widths of the branch; those not named are taken from ``BRANCHES``.
        hidden: Width of the layer that joins the branches.
        channels: Width of the output.
        activation: One of ``agents.networks.mlp.ACTIVATIONS``.
        norm: "layer", "batch" (for supervised training alone) or None.
        dropout: Share dropped in training.
        flatten: Read the whole window, see ``RowEncoder``.

    Raises:
        ArgumentError: If a group is empty, names a column twice or one that does not exist.
    """

    def __init__(
        self,
        n_features: int,
        window: int,
        groups: Mapping[str, Sequence[int]] | None = None,
        branches: Mapping[str, Sequence[int]] | None = None,
        hidden: int = 64,
        channels: int = 32,
        activation: str = "relu",
        norm: Norm = "layer",
        dropout: float = 0.0,
        flatten: bool = False,
    ) -> None:
        super().__init__(n_features, window, flatten=flatten)
        groups = {"all": range(n_features)} if groups is None else groups
        widths = dict(BRANCHES, **(branches or {}))
        _check_groups(groups, branches or {}, n_features)
        self.names = tuple(groups)
        self.branches = nn.ModuleList()
        for k, (name, columns) in enumerate(groups.items()):
            *inner, last = widths.get(name, _OTHER_BRANCH)
            branch = ConfigurableMLP(
                self.bars * len(columns),
                inner,
                last,
                activation=activation,
                norm=norm,
                dropout=dropout,
            )
            self.branches.append(branch.append(make_activation(activation)))
            # Not persistent: they come from the options.
            self.register_buffer(f"columns_{k}", th.tensor(list(columns)), persistent=False)
        total = sum(widths.get(name, _OTHER_BRANCH)[-1] for name in groups)
        self.score = nn.Linear(total, len(groups))
        self.join = ConfigurableMLP(
            total, [hidden], channels, activation=activation, norm=norm, dropout=dropout
        )
        self.join.append(make_activation(activation))
        self.channels = channels

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Return (batch, assets, channels)."""
        parts = self._branches(windows)
        shares = self._shares(parts) * len(parts)
        weighed = [part * shares[..., k, None] for k, part in enumerate(parts)]
        out: Tensor = self.join(th.cat(weighed, dim=-1))
        return out

    def attention(
        self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return ``"branches"``: (batch, assets, groups), in the order of ``names``."""
        return {"branches": self._shares(self._branches(windows))}

    def _branches(self, windows: Tensor) -> list[Tensor]:
        series = self.series(windows)
        return [
            branch(series.index_select(-1, self.get_buffer(f"columns_{k}")).flatten(2))
            for k, branch in enumerate(self.branches)
        ]

    def _shares(self, parts: list[Tensor]) -> Tensor:
        shares: Tensor = self.score(th.cat(parts, dim=-1)).softmax(-1)
        return shares


def _check_groups(
    groups: Mapping[str, Sequence[int]], branches: Mapping[str, Sequence[int]], n_features: int
) -> None:
    check_sizes(groups=len(groups))
    for name, columns in groups.items():
        known = set(columns) & set(range(n_features))
        if not columns or len(known) < len(columns):
            raise ArgumentError(
                f"group {name!r} has columns {list(columns)}: give different columns from 0 to "
                f"{n_features - 1}"
            )
    for name, widths in branches.items():
        if name not in groups or not widths:
            raise ArgumentError(
                f"branch {name!r} has widths {list(widths)}: give at least one, for one of the "
                f"groups {sorted(groups)}"
            )
