"""Graph attention (GATv2) over dense, batched graphs, in memory that does not grow with channels.

The score of an edge from j to i is ``a . leaky_relu(source_j + target_i + edge_ij)``, one vector
per pair. All of them together would be ``batch * assets^2 * channels`` numbers; here they are made
in chunks that fit the cache, reduced to one number per head, and made again in the backward pass.

Source: Brody, Alon and Yahav, How attentive are graph attention networks?, ICLR 2022, eq. 7.
"""

from __future__ import annotations

from typing import Literal

import torch as th
from torch import Tensor, nn

from agents.networks.base import check_share, check_sizes
from agents.networks.gatv2.attention import Inputs, attend, attention_weights
from portfolio_env.errors import ArgumentError


class GATv2Layer(nn.Module):
    """One layer of graph attention; equal to ``GATv2Conv`` of PyTorch Geometric on equal weights.

    Args:
        in_channels: Width of the nodes.
        out_per_head: Width of each head.
        heads: Attention heads.
        edge_dim: Attributes of an edge; None without attributes.
        concat: The heads side by side; otherwise their mean.
        dropout: Share of the attention weights that are dropped in training.
        negative_slope: Slope of the leaky rectifier, at least 0.
        residual: Add a linear map of the nodes.
        self_loops: Every node attends to itself, too; loops in the graph given are replaced.
        fill: Attributes of these loops: a number, or "mean", those of the edges that come in.

    Raises:
        ArgumentError: If a size or an option is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        out_per_head: int,
        heads: int = 1,
        edge_dim: int | None = None,
        *,
        concat: bool = True,
        dropout: float = 0.0,
        negative_slope: float = 0.2,
        residual: bool = False,
        self_loops: bool = True,
        fill: float | Literal["mean"] = "mean",
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, out_per_head=out_per_head, heads=heads)
        if edge_dim is not None:
            check_sizes(edge_dim=edge_dim)
        check_share("dropout", dropout)
        if negative_slope < 0:
            raise ArgumentError(f"negative_slope is {negative_slope}: give at least 0")
        if isinstance(fill, str) and fill != "mean":
            raise ArgumentError(f"fill is {fill!r}: give 'mean' or a number")
        inner = heads * out_per_head
        self.heads, self.out_per_head, self.concat = heads, out_per_head, concat
        self.dropout, self.negative_slope = dropout, negative_slope
        self.self_loops, self.fill = self_loops, fill
        self.out_channels = inner if concat else out_per_head
        self.source = nn.Linear(in_channels, inner)
        self.target = nn.Linear(in_channels, inner)
        self.edge = None if edge_dim is None else nn.Linear(edge_dim, inner, bias=False)
        self.attention = nn.Parameter(th.empty(heads, out_per_head))
        self.bias = nn.Parameter(th.zeros(self.out_channels))
        self.skip = nn.Linear(in_channels, self.out_channels, bias=False) if residual else None
        for linear in (self.source, self.target, self.edge, self.skip):
            if linear is not None:
                nn.init.xavier_uniform_(linear.weight)
        for linear in (self.source, self.target):
            nn.init.zeros_(linear.bias)
        nn.init.xavier_uniform_(self.attention)

    def forward(
        self,
        nodes: Tensor,
        adjacency: Tensor,
        edges: Tensor | None = None,
        sources: Tensor | None = None,
    ) -> Tensor:
        """Return the new nodes.

        Args:
            nodes: (batch, nodes, in_channels).
            adjacency: (batch, nodes, sources) bool, [i, j] whether node i attends to source j. A
                node without any edge gets the bias.
            edges: (batch, nodes, sources, edge_dim), attributes of the edge from source j to i.
            sources: (batch, nodes, sources), the sources of each node where they are few, which
                then are all that is computed; None if they are the nodes, in their order. Lists
                hold a node's loops themselves: for layers with ``self_loops=False``.

        Returns:
            (batch, nodes, out_channels)
        """
        pairs = self._pairs(nodes, adjacency, edges, sources)
        keep = None
        if self.training and self.dropout > 0:
            shape = (len(nodes), self.heads, *adjacency.shape[1:])
            keep = th.rand(shape, device=nodes.device) >= self.dropout
        # Its chunks write into memory of one type; autocast would change that of their products.
        with th.autocast(nodes.device.type, enabled=False):
            out = attend(pairs, sources, self.negative_slope, keep, 1 / (1 - self.dropout))
        out = out.flatten(2) if self.concat else out.mean(2)
        if self.skip is not None:
            out = out + self.skip(nodes)
        return out + self.bias

    def weights(
        self,
        nodes: Tensor,
        adjacency: Tensor,
        edges: Tensor | None = None,
        sources: Tensor | None = None,
    ) -> Tensor:
        """Return (batch, heads, target, source) attention, before dropout and without gradient.

        Arguments as of ``forward``; sources are all nodes, also where they are listed.
        """
        with th.no_grad():
            pairs = self._pairs(nodes, adjacency, edges, sources)
            return attention_weights(pairs, sources, self.negative_slope)

    def _pairs(
        self, nodes: Tensor, adjacency: Tensor, edges: Tensor | None, sources: Tensor | None
    ) -> Inputs:
        """Return the inputs of the attention."""
        if (edges is None) != (self.edge is None):
            raise ArgumentError(
                "this layer needs edges" if edges is None else "this layer was built without edges"
            )
        if self.self_loops:
            if sources is not None:
                raise ArgumentError(
                    "sources are listed and self_loops=True adds others: list each node among its "
                    "own, and give the layer self_loops=False"
                )
            adjacency, edges = with_self_loops(adjacency, edges, self.fill)
        split = (self.heads, self.out_per_head)
        kind = self.attention.dtype
        source = th.unflatten(self.source(nodes).to(kind), -1, split)
        target = th.unflatten(self.target(nodes).to(kind), -1, split)
        weight = None if self.edge is None else self.edge.weight.t()
        if edges is not None:
            edges = edges.to(source.dtype)
        return source, target, self.attention, adjacency, edges, weight


def with_self_loops(
    adjacency: Tensor, edges: Tensor | None, fill: float | Literal["mean"]
) -> tuple[Tensor, Tensor | None]:
    """Return the graph with an edge from every node to itself, see ``GATv2Layer``."""
    loops = th.eye(adjacency.shape[1], dtype=th.bool, device=adjacency.device)
    if edges is not None:
        if fill == "mean":
            incoming = (adjacency & ~loops).unsqueeze(-1)
            total = (edges * incoming).sum(2) / incoming.sum(2).clamp(min=1)
            edges = th.where(loops[..., None], total.unsqueeze(2), edges)
        else:
            edges = edges.masked_fill(loops[..., None], float(fill))
    return adjacency | loops, edges
