"""The GAT encoder: attention between assets along their correlations."""

from collections.abc import Iterator

import torch as th
from torch import Tensor, nn
from torch.nn import functional as F

from agents.networks.base import Encoder, check_heads, check_share, check_sizes
from agents.networks.gatv2.layer import GATv2Layer
from agents.networks.graph import EDGE_DIM, Graph, correlation_graph
from portfolio_env.errors import ArgumentError


class WindowSummary(nn.Module):
    """One vector per asset from its window: its last bar and learned averages of its features.

    The averages start as exponential ones, of half-lives from 1 bar to the whole window. They are
    shared over the features, so that there are ``window * filters`` weights for time and not one
    for each feature and bar, which would learn the training history by heart.

    Args:
        n_features: Features per asset and bar.
        window: Bars.
        channels: Width of the vector.
        filters: Learned averages; at most one for each bar is made.
    """

    def __init__(self, n_features: int, window: int, channels: int, filters: int = 8) -> None:
        super().__init__()
        filters = min(filters, window)
        age = th.arange(window - 1, -1, -1.0)
        half_lives = th.logspace(0.0, 1.0, filters, base=float(window))
        decay = 0.5 ** (age / half_lives.unsqueeze(1))
        self.averages = nn.Parameter(decay / decay.sum(1, keepdim=True))  # (filters, window)
        self.mlp = nn.Sequential(
            nn.Linear(n_features * (filters + 1), channels),
            nn.GELU(),
            nn.Linear(channels, channels),
        )

    def forward(self, windows: Tensor) -> Tensor:
        """Map (batch, window, assets, features) to (batch, assets, channels)."""
        averages = th.unflatten(self.averages @ windows.flatten(2), 2, windows.shape[2:])
        rows = th.cat([windows[:, -1:].to(averages.dtype), averages], dim=1)
        out: Tensor = self.mlp(rows.transpose(1, 2).flatten(2))
        return out


class GAT(Encoder):
    """Graph attention (GATv2) between assets whose returns correlate over the window.

    Each asset's window is summed up in a vector (see ``WindowSummary``), and each layer adds to it
    what the asset reads from its neighbours: ``h + elu(GATv2(norm(h)))``. Edges carry the
    correlation, its size and its sign; see ``correlation_graph``, also for windows of one bar.

    Correlations over few bars are noise of size ``1 / sqrt(window)``, and an asset may lead another
    without moving with it: ``threshold=0`` connects all, and leaves it to the attention. Bars in
    which an asset did not trade have features of 0 and count as such, which makes correlations over
    few common bars small.

    Args:
        n_features: Features per asset and bar.
        window: Bars.
        hidden: Width of the vectors, a multiple of ``heads``.
        heads: Attention heads.
        layers: Graph layers.
        filters: Learned averages over the window.
        threshold: Least size of a correlation for an edge, in [0, 1].
        neighbours: Instead of the threshold, edges from so many assets of the largest ones.
        return_feature: Index of the return feature, of which correlations are taken.
        dropout: Share of attention weights and of what a layer adds that is dropped in training.

    Raises:
        ArgumentError: If an option is out of range.
    """

    mixes_assets = True

    def __init__(
        self,
        n_features: int,
        window: int,
        *,
        hidden: int = 64,
        heads: int = 8,
        layers: int = 3,
        filters: int = 8,
        threshold: float = 0.3,
        neighbours: int | None = None,
        return_feature: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(n_features, window)
        check_heads(hidden, heads)
        check_sizes(layers=layers, filters=filters)
        check_share("dropout", dropout)
        if not 0 <= threshold <= 1:
            raise ArgumentError(f"threshold is {threshold}: give a size of correlation in [0, 1]")
        if neighbours is not None and neighbours < 1:
            raise ArgumentError(f"neighbours is {neighbours}: give at least 1, or None")
        if not 0 <= return_feature < n_features:
            raise ArgumentError(
                f"return_feature is {return_feature}: give the column of one of the {n_features} "
                "features, counted from 0"
            )
        self.channels = hidden
        self.threshold, self.neighbours = threshold, neighbours
        self.return_feature, self.dropout = return_feature, dropout
        self.summary = WindowSummary(n_features, window, hidden, filters)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        self.layers = nn.ModuleList(
            GATv2Layer(hidden, hidden // heads, heads, EDGE_DIM, dropout=dropout, self_loops=False)
            for _ in range(layers)
        )
        self.final_norm = nn.LayerNorm(hidden)

    def graph(self, windows: Tensor, tradable: Tensor) -> Graph:
        """Return the graph of the assets: which of them attend to which."""
        returns = windows[..., self.return_feature]
        return correlation_graph(returns, tradable, self.threshold, self.neighbours)

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Return (batch, assets, hidden)."""
        graph = self.graph(windows, tradable)
        nodes = self.summary(windows)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            added = F.elu(layer(norm(nodes), *graph))
            nodes = nodes + F.dropout(added, self.dropout, self.training)
        out: Tensor = self.final_norm(nodes)
        return out

    def attention(
        self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return {"assets_0": (batch, heads, assets, assets), ...}, before dropout.

        Row i holds how much asset i reads from each asset, which sums to 1.
        """
        return dict(self._weights(windows, tradable))

    def _weights(self, windows: Tensor, tradable: Tensor) -> Iterator[tuple[str, Tensor]]:
        graph = self.graph(windows, tradable)
        nodes = self.summary(windows)
        for i, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True)):
            assert isinstance(layer, GATv2Layer)  # which a ModuleList forgets
            rows = norm(nodes)
            yield f"assets_{i}", layer.weights(rows, *graph)
            nodes = nodes + F.elu(layer(rows, *graph))
