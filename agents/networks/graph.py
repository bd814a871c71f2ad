"""Attention across assets, at every bar by itself."""

import torch as th
from torch import Tensor, nn
from torch.nn import functional

from portfolio_env.errors import ArgumentError


def attended(present: Tensor, tradable: Tensor) -> Tensor:
    """Which assets the others may look at, never none, as every softmax needs an entry.

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

    The graph is complete: an edge's weight is learned from its two ends. Source: Vaswani et al.
    (2017), "Attention Is All You Need", section 3.2.

    Args:
        channels: width of an asset's vector, a multiple of `heads`.
        heads: attention heads.
        dropout: probability that an attention weight is dropped in training.
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
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        """Let each asset look at the others.

        Args:
            x: (..., assets, channels).
            keys: (..., assets) bool, the assets that are looked at, one at least.

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
        """Attention of `forward` before dropout, (..., heads, assets, assets looked at)."""
        query, key, _ = self._heads(x)
        logits = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        hidden = ~keys.flatten(0, -2)[:, None, None]
        out = logits.float().masked_fill(hidden, -th.inf).softmax(-1)
        return out.view(*x.shape[:-2], *out.shape[1:])

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (rows, heads, assets, channels / heads) each."""
        split = self.project(x).view(-1, x.shape[-2], 3, self.heads, x.shape[-1] // self.heads)
        query, key, value = split.transpose(1, 3).unbind(2)
        return query, key, value
