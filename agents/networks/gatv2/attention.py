"""Attention of GATv2 over all pairs of nodes, or over listed ones: one operator with gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import torch as th
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

_CHUNK = {"cpu": 2**18, "cuda": 2**25}  # numbers of a chunk: the cache of a core, 128 MiB

Inputs: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None]
"""Sources, targets, attention vectors, adjacency, edges and their weight, see ``_Pairs``."""


def attend(
    inputs: Inputs, sources: Tensor | None, slope: float, keep: Tensor | None, scale: float
) -> Tensor:
    """Return what nodes gather from others: (batch, targets, heads, channels).

    Args:
        inputs: Nodes, graph and weights.
        sources: (batch, targets, sources) of each target; None if these are all nodes.
        slope: Negative slope of the rectifier.
        keep: (batch, heads, targets, sources) bool, attention weights that stay; or None.
        scale: Factor of those that are kept.
    """
    if sources is None:
        out: Tensor = _attend(*inputs, slope, keep, scale)
        return out
    # Numbers of edges are made again in the backward pass, as those of pairs are.
    listed: Tensor = checkpoint(
        _of_listed, sources, *inputs, slope, keep, scale, use_reentrant=False
    )
    return listed


def attention_weights(inputs: Inputs, sources: Tensor | None, slope: float) -> Tensor:
    """Return (batch, heads, targets, nodes) weights before dropout; without gradient over pairs."""
    if sources is not None:
        alpha = _attention(_gathered(inputs[0], sources), *inputs[1:], slope)
        whole = alpha.new_zeros(*alpha.shape[:3], inputs[0].shape[1])
        return whole.scatter(3, sources.unsqueeze(1).expand_as(alpha), alpha)
    pairs = _Pairs(*inputs)
    spread = pairs.spread()
    heads, adjacency = len(pairs.attention), pairs.adjacency
    out = pairs.source.new_empty(len(adjacency), heads, *adjacency.shape[1:])
    for at in pairs.chunks():
        out[at.batch, :, at.targets] = pairs.attention_of(at, spread, slope)[1]
    return out


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
