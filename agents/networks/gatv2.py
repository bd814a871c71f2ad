"""Graph attention (GATv2) over dense, batched graphs, in memory that does not grow with channels.

The score of an edge from j to i is ``a . leaky_relu(source_j + target_i + edge_ij)``, one vector
per pair. All of them together would be ``batch * assets^2 * channels`` numbers; here they are made
in chunks that fit the cache, reduced to one number per head, and made again in the backward pass.

Source: Brody, Alon and Yahav, How attentive are graph attention networks?, ICLR 2022, eq. 7.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch as th
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from agents.networks.base import check_share, check_sizes
from portfolio_env.errors import ArgumentError

_CHUNK = {"cpu": 2**18, "cuda": 2**25}  # numbers of a chunk: the cache of a core, 128 MiB


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
        way = (self.negative_slope, keep, 1 / (1 - self.dropout))
        # Its chunks write into memory of one type; autocast would change that of their products.
        with th.autocast(nodes.device.type, enabled=False):
            if sources is None:
                out: Tensor = _attend(*pairs, *way)
            else:
                # Numbers of edges are made again in the backward pass, as those of pairs are.
                out = checkpoint(_of_listed, sources, *pairs, *way, use_reentrant=False)
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
            inputs = self._pairs(nodes, adjacency, edges, sources)
            if sources is not None:
                own = _gathered(inputs[0], sources)
                alpha = _attention(own, *inputs[1:], self.negative_slope)
                whole = alpha.new_zeros(*alpha.shape[:3], nodes.shape[1])
                return whole.scatter(3, sources.unsqueeze(1).expand_as(alpha), alpha)
            pairs = _Pairs(*inputs)
            spread = pairs.spread()
            out = pairs.source.new_empty(len(nodes), self.heads, *adjacency.shape[1:])
            for at in pairs.chunks():
                alpha = pairs.attention_of(at, spread, self.negative_slope)[1]
                out[at.batch, :, at.targets] = alpha
        return out

    def _pairs(
        self, nodes: Tensor, adjacency: Tensor, edges: Tensor | None, sources: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Return the inputs of the attention, in the order of ``_Pairs``."""
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


class _Chunk(NamedTuple):
    """A chunk of the computation: some samples and some of their targets."""

    batch: slice
    targets: slice


class _Pairs(NamedTuple):
    """Attention over all pairs of nodes; (batch, N, heads, channels) nodes, (K, inner) weight."""

    source: Tensor
    target: Tensor
    attention: Tensor
    adjacency: Tensor
    edges: Tensor | None
    weight: Tensor | None

    @property
    def inner(self) -> int:
        return self.attention.numel()

    def chunks(self) -> Iterator[_Chunk]:
        batch, n = self.adjacency.shape[:2]
        room = max(_CHUNK.get(self.source.device.type, 2**18) // max(n * self.inner, 1), 1)
        samples, targets = max(room // n, 1), min(room, n)
        for first in range(0, batch, samples):
            for row in range(0, n, targets):
                yield _Chunk(slice(first, first + samples), slice(row, row + targets))

    def spread(self) -> Tensor:
        """Return (heads, inner) attention vectors, each on the channels of its head alone."""
        heads = len(self.attention)
        own = th.eye(heads, dtype=self.attention.dtype, device=self.attention.device)
        return (own.unsqueeze(-1) * self.attention).flatten(1)

    def attention_of(self, at: _Chunk, spread: Tensor, slope: float) -> tuple[Tensor, Tensor]:
        """Return (b, targets, N, inner) rectified sums, (b, heads, targets, N) weights."""
        source, target = self.source[at.batch].flatten(2), self.target[at].flatten(2)
        if self.edges is None or self.weight is None:
            hidden = source.unsqueeze(1) + target.unsqueeze(2)
        else:
            hidden = self.edges[at] @ self.weight
            hidden += source.unsqueeze(1)
            hidden += target.unsqueeze(2)
        F.leaky_relu_(hidden, slope)
        scores = spread @ hidden.flatten(1, 2).transpose(1, 2)
        scores = scores.view(*scores.shape[:2], *hidden.shape[1:3])
        # As numbers, not filled in, for speed; twice, for a node without edges gets weights of 0.
        edge = self.adjacency[at].unsqueeze(1).to(scores.dtype)
        scores += (edge - 1) * (th.finfo(scores.dtype).max / 2)
        alpha = scores.softmax(-1)
        alpha *= edge
        return hidden, alpha


@th.library.custom_op("portfolio::gatv2", mutates_args=())
def _attend(
    source: Tensor,
    target: Tensor,
    attention: Tensor,
    adjacency: Tensor,
    edges: Tensor | None,
    weight: Tensor | None,
    slope: float,
    keep: Tensor | None,
    scale: float,
) -> Tensor:
    """Return the attention-weighted mean of the sources, times ``scale``; ``keep`` is a mask."""
    pairs = _Pairs(source, target, attention, adjacency, edges, weight)
    out, spread = th.empty_like(source, memory_format=th.contiguous_format), pairs.spread()
    for at in pairs.chunks():
        alpha = pairs.attention_of(at, spread, slope)[1]
        if keep is not None:
            alpha *= keep[at.batch, :, at.targets] * scale
        out[at] = (alpha @ source[at.batch].transpose(1, 2)).transpose(1, 2)
    return out


@_attend.register_fake
def _(source: Tensor, *_: object) -> Tensor:
    return th.empty_like(source, memory_format=th.contiguous_format)


@th.library.custom_op("portfolio::gatv2_backward", mutates_args=())
def _attend_backward(
    grad: Tensor,
    out: Tensor,
    source: Tensor,
    target: Tensor,
    attention: Tensor,
    adjacency: Tensor,
    edges: Tensor | None,
    weight: Tensor | None,
    slope: float,
    keep: Tensor | None,
    scale: float,
    edges_too: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return gradients of source, target, attention, edges and weight (None for unused inputs)."""
    pairs = _Pairs(source, target, attention, adjacency, edges, weight)
    heads, inner = attention.shape[0], pairs.inner
    spread = pairs.spread()
    d_source, d_target = source.new_zeros(source.shape), source.new_empty(source.shape)
    d_spread = th.zeros_like(spread)
    d_weight = source.new_zeros(0 if weight is None else weight.shape)
    d_edges = source.new_empty(edges.shape if edges is not None and edges_too else 0)
    # Softmax's gradient takes off the mean of d_alpha under alpha, which is grad . out.
    mean = (grad * out).sum(-1).transpose(1, 2).unsqueeze(-1)
    for at in pairs.chunks():
        hidden, alpha = pairs.attention_of(at, spread, slope)
        d_out = grad[at].transpose(1, 2)  # (b, heads, targets, channels)
        d_scores = d_out @ source[at.batch].permute(0, 2, 3, 1)
        kept = alpha
        if keep is not None:
            factor = keep[at.batch, :, at.targets] * scale
            d_scores *= factor
            kept = alpha * factor
        d_source[at.batch] += (kept.transpose(2, 3) @ d_out).transpose(1, 2)
        d_scores -= mean[at.batch, :, at.targets]
        d_scores *= alpha
        flat = d_scores.flatten(2)  # (b, heads, targets * N)
        d_spread += (flat @ hidden.flatten(1, 2)).sum(0)
        d_hidden = (flat.transpose(1, 2) @ spread).view_as(hidden)
        # The rectifier keeps the sign, so that its result determines its slope.
        th.ops.aten.leaky_relu_backward.grad_input(
            d_hidden, hidden, slope, True, grad_input=d_hidden
        )
        d_target[at] = d_hidden.sum(2).view_as(d_target[at])
        d_source[at.batch] += d_hidden.sum(1).view_as(source[at.batch])
        if edges is not None and weight is not None:
            rows = d_hidden.reshape(-1, inner)
            d_weight += edges[at].reshape(len(rows), -1).t() @ rows
            if edges_too:
                d_edges[at] = d_hidden @ weight.t()
    own = d_spread.view(heads, *attention.shape).diagonal(dim1=0, dim2=1).t().contiguous()
    return d_source, d_target, own, d_edges, d_weight


@_attend_backward.register_fake
def _(
    grad: Tensor,
    out: Tensor,
    source: Tensor,
    target: Tensor,
    attention: Tensor,
    adjacency: Tensor,
    edges: Tensor | None,
    weight: Tensor | None,
    slope: float,
    keep: Tensor | None,
    scale: float,
    edges_too: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    d_weight = source.new_empty(0 if weight is None else weight.shape)
    d_edges = source.new_empty(edges.shape if edges is not None and edges_too else 0)
    shape = source.shape
    return (
        source.new_empty(shape),
        source.new_empty(shape),
        attention.new_empty(attention.shape),
        d_edges,
        d_weight,
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.slope, keep, ctx.scale = inputs
    ctx.edges_too = ctx.needs_input_grad[4]
    ctx.save_for_backward(output, *tensors, keep)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    out, *tensors, keep = ctx.saved_tensors
    has_edges = tensors[-1] is not None
    d_source, d_target, d_attention, d_edges, d_weight = _attend_backward(
        grad.contiguous(), out, *tensors, ctx.slope, keep, ctx.scale, ctx.edges_too
    )
    return (
        d_source,
        d_target,
        d_attention,
        None,
        d_edges if ctx.edges_too else None,
        d_weight if has_edges else None,
        None,
        None,
        None,
    )


_attend.register_autograd(_gradients, setup_context=_save)


def _differentiable(
    source: Tensor,
    target: Tensor,
    attention: Tensor,
    adjacency: Tensor,
    edges: Tensor | None,
    weight: Tensor | None,
    slope: float,
    keep: Tensor | None,
    scale: float,
) -> Tensor:
    """Compute ``_attend`` by operations that torch differentiates.

    Here ``source`` is (batch, targets or 1, sources, heads, channels): each target's own, or all.
    """
    alpha = _attention(source, target, attention, adjacency, edges, weight, slope)
    if keep is not None:
        alpha = alpha * keep * scale
    if source.shape[1] == 1:
        return (alpha @ source[:, 0].transpose(1, 2)).transpose(1, 2)
    return (alpha.permute(0, 2, 1, 3).unsqueeze(-2) @ source.transpose(2, 3)).squeeze(-2)


def _attention(
    source: Tensor,
    target: Tensor,
    attention: Tensor,
    adjacency: Tensor,
    edges: Tensor | None,
    weight: Tensor | None,
    slope: float,
) -> Tensor:
    """Return the weights (batch, heads, targets, sources), differentiable."""
    hidden = source + target.unsqueeze(2)  # (batch, targets, sources, heads, channels)
    if edges is not None and weight is not None:
        hidden = hidden + (edges @ weight).view_as(hidden)
    scores = (F.leaky_relu(hidden, slope) * attention).sum(-1).permute(0, 3, 1, 2)
    edge = adjacency.unsqueeze(1)
    alpha: Tensor = scores.masked_fill(~edge, th.finfo(scores.dtype).min).softmax(-1) * edge
    return alpha


def _of_listed(sources: Tensor, source: Tensor, *rest: Any) -> Tensor:
    """Compute ``_attend`` over the sources that each target lists."""
    return _differentiable(_gathered(source, sources), *rest)


def _gathered(nodes: Tensor, sources: Tensor) -> Tensor:
    """Return (batch, targets, sources, heads, channels) of the nodes that each target lists."""
    return nodes[th.arange(len(nodes), device=nodes.device)[:, None, None], sources]


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grad, _, *tensors, ctx.slope, keep, ctx.scale, ctx.edges_too = inputs
    ctx.save_for_backward(grad, *tensors, keep)


def _second_gradients(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    """Return gradients of ``_attend_backward``, for algorithms that need them, such as TRPO."""
    given, source, target, attention, adjacency, edges, weight, keep = ctx.saved_tensors
    names = ("given", "source", "target", "attention", "edges", "weight")
    values = (given, source, target, attention, edges, weight)
    with th.enable_grad():
        leaf = {
            name: value.detach().requires_grad_()
            for name, value in zip(names, values, strict=True)
            if value is not None
        }
        out = _differentiable(
            leaf["source"].unsqueeze(1),
            leaf["target"],
            leaf["attention"],
            adjacency,
            leaf.get("edges"),
            leaf.get("weight"),
            ctx.slope,
            keep,
            ctx.scale,
        )
        due = dict(zip(names[1:], grads, strict=True))  # of the first gradients, one each
        if not ctx.edges_too:
            del due["edges"]
        if weight is None:
            del due["weight"]
        wanted = [leaf[name] for name in due]
        first = th.autograd.grad(out, wanted, leaf["given"], create_graph=True)
        second = th.autograd.grad(first, list(leaf.values()), list(due.values()), allow_unused=True)
    found = dict(zip(leaf, second, strict=True))
    return (
        found["given"],
        None,
        found["source"],
        found["target"],
        found["attention"],
        None,
        found.get("edges"),
        found.get("weight"),
        None,
        None,
        None,
        None,
    )


_attend_backward.register_autograd(_second_gradients, setup_context=_save_backward)
