"""Perceptrons for rows, plain and residual: (..., in) -> (..., out), any leading dimensions."""

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn

from agents.networks.base import check_share, check_sizes
from portfolio_env.errors import ArgumentError
from portfolio_env.names import unknown

Norm = Literal["layer", "batch"] | None

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}

# Widths of the hidden layers of five shapes to compare.
ARCHITECTURES: dict[str, tuple[int, ...]] = {
    "shallow_wide": (256, 128),
    "deep_narrow": (64, 64, 64, 64, 64),
    "pyramid": (256, 128, 64, 32),
    "hourglass": (64, 128, 64),
    "uniform": (128, 128, 128),
}


def make_activation(name: str) -> nn.Module:
    """Build the activation called ``name``.

    Raises:
        ArgumentError: If none has that name.
    """
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def make_norm(norm: Norm, width: int) -> nn.Module:
    """Build the normalisation of rows of ``width`` numbers: "layer", "batch" or None.

    "batch" makes the output of a row depend on the others it is trained with, so that it is for
    supervised training alone, and needs more than one row there.

    Raises:
        ArgumentError: For another name.
    """
    if norm == "layer":
        return nn.LayerNorm(width)
    if norm == "batch":
        return RowBatchNorm(width)
    if norm is not None:
        raise ArgumentError(f"norm is {norm!r}: give 'layer', 'batch' or None")
    return nn.Identity()


class RowBatchNorm(nn.BatchNorm1d):
    """Batch normalisation over all leading dimensions."""

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise (..., width)."""
        return super().forward(rows.flatten(0, -2)).view_as(rows)


class ConfigurableMLP(nn.Sequential):
    """Layers of any widths, each linear, norm, activation, dropout; then a linear output.

    Args:
        width: Numbers per row.
        layers: Widths of the hidden layers.
        out: Numbers returned; None returns the last hidden layer.
        activation: One of ``ACTIVATIONS``.
        norm: "layer", "batch" (see ``make_norm``) or None.
        dropout: Share dropped in training.

    Attributes:
        out_width: Numbers returned per row.

    Raises:
        ArgumentError: If a name is unknown or a size is out of range.
    """

    def __init__(
        self,
        width: int,
        layers: Sequence[int],
        out: int | None = 1,
        *,
        activation: str = "relu",
        norm: Norm = "layer",
        dropout: float = 0.0,
    ) -> None:
        check_sizes(width=width, layer=min(layers, default=1), out=1 if out is None else out)
        check_share("dropout", dropout)
        parts: list[nn.Module] = []
        self.out_width = width
        for layer in layers:
            parts += [nn.Linear(self.out_width, layer), make_norm(norm, layer)]
            parts += [make_activation(activation), nn.Dropout(dropout)]
            self.out_width = layer
        if out is not None:
            parts.append(nn.Linear(self.out_width, out))
            self.out_width = out
        super().__init__(*parts)


class ResidualBlock(nn.Module):
    """``activation(x + norm(linear(dropout(activation(norm(linear(x)))))))``."""

    def __init__(
        self,
        width: int,
        *,
        activation: str = "relu",
        norm: Norm = "layer",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(width=width)
        check_share("dropout", dropout)
        self.change = nn.Sequential(
            nn.Linear(width, width),
            make_norm(norm, width),
            make_activation(activation),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            make_norm(norm, width),
        )
        self.activation = make_activation(activation)

    def forward(self, rows: Tensor) -> Tensor:
        """Return (..., width)."""
        out: Tensor = self.activation(rows + self.change(rows))
        return out


class ResidualMLP(nn.Sequential):
    """A hidden layer, residual blocks of its width, a linear output; see ``ConfigurableMLP``.

    Args:
        width: Numbers per row.
        hidden: Width of the blocks.
        blocks: Number of blocks.
        out: Numbers returned; None returns the last block.
        activation: One of ``ACTIVATIONS``.
        first_activation: Activation of the hidden layer; None takes the same.
        norm: "layer", "batch" or None.
        dropout: Share dropped in training.
    """

    def __init__(
        self,
        width: int,
        hidden: int = 128,
        blocks: int = 4,
        out: int | None = 1,
        *,
        activation: str = "relu",
        first_activation: str | None = None,
        norm: Norm = "layer",
        dropout: float = 0.0,
    ) -> None:
        check_sizes(blocks=blocks, out=1 if out is None else out)
        first = first_activation or activation
        parts: list[nn.Module] = [
            ConfigurableMLP(width, [hidden], None, activation=first, norm=norm, dropout=dropout)
        ]
        parts += [
            ResidualBlock(hidden, activation=activation, norm=norm, dropout=dropout)
            for _ in range(blocks)
        ]
        if out is not None:
            parts.append(nn.Linear(hidden, out))
        super().__init__(*parts)
        self.out_width = hidden if out is None else out
