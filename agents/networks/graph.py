"""Graphs of assets from their correlations, and attention across assets within every bar."""

from typing import NamedTuple

import torch as th
from torch import Tensor, nn
from torch.nn import functional

from agents.networks.base import BRANCH, is_traced
from portfolio_env.errors import ArgumentError


def attended(present: Tensor, tradable: Tensor) -> Tensor:
    """Return the mask of assets to attend to; never empty, as every softmax needs an entry.

    Args:
        present: (..., assets) bool, assets with any feature at the bar.
        tradable: (..., assets) bool, assets that trade at the decision.

    Returns:
        (..., assets) bool: the tradable assets that are present; where there are none, the tradable
        assets; where there are none of them either, all.
    """
    both = present & tradable
    either = th.where(both.any(-1, keepdim=True), both, tradable)
    return either | ~either.any(-1, keepdim=True)


class GraphAttention(nn.Module):
    """Multi-head scaled dot-product attention over assets, residual, LayerNorm after it.

    The graph is complete: an edge's weight is learned from its two ends. What is gathered starts at
    ``BRANCH`` of the usual size. Source: Vaswani et al. (2017), "Attention Is All You Need",
    section 3.2.

    Args:
        channels: Width of an asset's vector, a multiple of ``heads``.
        heads: Attention heads.
        dropout: Probability that an attention weight is dropped in training.
    """

    def __init__(self, channels: int, heads: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ArgumentError(
                f"channels={channels} is not a multiple of heads={heads}; choose heads that divide"
            )
        self.heads = heads
        self.dropout = dropout
        self.project = nn.Linear(channels, 3 * channels)  # queries, keys, values
        self.out = nn.Linear(channels, channels)
        with th.no_grad():
            self.out.weight.mul_(BRANCH)
            self.out.bias.zero_()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        """Let each asset attend to the others.

        Args:
            x: (..., assets, channels).
            keys: (..., assets) bool, the assets to attend to, one at least.

        Returns:
            (..., assets, channels)
        """
        query, key, value = self._heads(x)
        mixed = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=keys.flatten(0, -2)[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )
        out: Tensor = self.norm(x + self.out(mixed.transpose(1, 2).reshape(x.shape)))
        return out

    def weights(self, x: Tensor, keys: Tensor) -> Tensor:
        """Return the attention before dropout, (..., heads, assets, assets attended to)."""
        query, key, _ = self._heads(x)
        logits = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        hidden = ~keys.flatten(0, -2)[:, None, None]
        out = logits.float().masked_fill(hidden, -th.inf).softmax(-1)
        return out.view(*x.shape[:-2], *out.shape[1:])

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each (rows, heads, assets, channels / heads)."""
        split = self.project(x).view(-1, x.shape[-2], 3, self.heads, x.shape[-1] // self.heads)
        query, key, value = split.transpose(1, 3).unbind(2)
        return query, key, value


EDGE_DIM = 3
_SMALL = 1e-10  # share of variance in the mean square under which a series counts as constant


class Graph(NamedTuple):
    """Adjacency and edge features of a graph of assets, with self-loops.

    Attributes:
        adjacency: (batch, assets, sources) bool, [i, j] whether i attends to source j.
        edges: (batch, assets, sources, 3): correlation, its size, its sign.
        sources: (batch, assets, sources) the assets that may be attended to by each; None if
            these are all assets, in their order.
    """

    adjacency: Tensor
    edges: Tensor
    sources: Tensor | None = None


def correlations(returns: Tensor) -> Tensor:
    """Return Pearson's correlation over the bars, without gradient.

    Args:
        returns: (batch, bars, assets).

    Returns:
        (batch, assets, assets) within [-1, 1]; 0 where a series is constant, as it is in a single
        bar; 1 on the diagonal. Rounded to four digits, which makes equal series tie exactly.
    """
    with th.no_grad():
        series = returns.float()
        centred = series - series.mean(1, keepdim=True)
        power = centred.square().sum(1, keepdim=True)
        varies = power > _SMALL * series.square().sum(1, keepdim=True)
        unit = th.where(varies, centred * power.clamp(min=1e-30).rsqrt(), 0.0)
        rho = (unit.transpose(1, 2) @ unit).clamp(-1.0, 1.0).round(decimals=4)
        loops = th.eye(rho.shape[1], dtype=th.bool, device=rho.device)
        return rho.masked_fill(loops, 1.0)


def correlation_graph(
    returns: Tensor, tradable: Tensor, threshold: float, neighbours: int | None = None
) -> Graph:
    """Connect each asset with itself and with the tradable assets that correlate with it.

    Args:
        returns: (batch, bars, assets); a single bar gives a complete graph of correlations 0.
        tradable: (batch, assets), 1 or 0; nobody else attends to an asset that does not trade.
        threshold: Least size of a correlation; 0 gives the complete graph.
        neighbours: Instead of the threshold, so many of the largest correlations other than 0,
            with all that tie with the last one.

    Returns:
        The graph. Its attributes carry no gradient: the graph is data. With ``neighbours`` that are
        few among many assets it lists the sources of each.
    """
    rho = correlations(returns)
    size = rho.abs()
    n = rho.shape[1]
    loops = th.eye(n, dtype=th.bool, device=rho.device)
    seen = (tradable > 0).unsqueeze(1) & ~loops
    if neighbours is None:
        near = size >= threshold
    else:
        others = size.masked_fill(~seen, 0.0)
        least = others.topk(min(neighbours, n)).values[..., -1:]
        near = (others >= least) & (others > 0)
    if returns.shape[1] == 1:
        near = th.ones_like(seen)
    adjacency = (near & seen) | loops
    sources = None if neighbours is None or is_traced(rho) else _listed(adjacency)
    if sources is not None:
        adjacency, rho, size = (each.gather(2, sources) for each in (adjacency, rho, size))
    return Graph(adjacency, th.stack([rho, size, rho.sign()], dim=-1), sources)


def _listed(adjacency: Tensor) -> Tensor | None:
    """Return (batch, assets, most) sources of each asset and others; None where they are many."""
    n = adjacency.shape[1]
    most = int(adjacency.sum(-1).max()) if adjacency.numel() else n
    if 2 * most > n:
        return None
    return adjacency.to(th.float32).topk(most).indices
