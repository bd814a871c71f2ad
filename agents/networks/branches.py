"""An encoder with a branch for each group of features, e.g. prices, volumes and sentiment."""

from collections.abc import Mapping, Sequence

import torch as th
from torch import Tensor, nn

from agents.networks.base import RowEncoder, check_sizes
from agents.networks.mlp import ConfigurableMLP, Norm, make_activation
from portfolio_env.errors import ArgumentError

# Widths of the branches of these names; others get the last.
BRANCHES: dict[str, tuple[int, ...]] = {
    "price": (64, 64, 32),
    "volume": (32, 16),
    "sentiment": (16, 16),
}
_OTHER_BRANCH = (32, 16)


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
