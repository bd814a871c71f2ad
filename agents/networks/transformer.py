"""The transformer encoder: attention over each asset's bars, then over the assets."""

import math
from collections.abc import Iterator
from typing import Literal

import torch as th
from torch import Tensor, nn
from torch.nn import functional as F

from agents.networks.base import Encoder, check_heads, check_share, check_sizes
from portfolio_env.errors import ArgumentError


class AttentionBlock(nn.Module):
    """Self-attention and a perceptron per row, each normalised before and added to its input.

    Source: Xiong et al., On layer normalization in the transformer architecture, ICML 2020, fig. 1.

    Args:
        channels: Width of a row, a multiple of ``heads``.
        heads: Attention heads.
        feedforward: Width inside the perceptron.
        dropout: Share dropped in training of the attention weights and of what is added.
    """

    def __init__(self, channels: int, heads: int, feedforward: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_heads(channels, heads)
        check_sizes(feedforward=feedforward)
        check_share("dropout", dropout)
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, feedforward),
            nn.GELU(),
            nn.Linear(feedforward, channels),
        )

    def forward(self, x: Tensor, seen: Tensor | None = None, last: bool = False) -> Tensor:
        """Return the new rows.

        Args:
            x: (batch, rows, channels).
            seen: Bool, broadcast to (batch, rows, rows): [i, j] whether row i attends to row j.
                Each attends to one at least. None: to all.
            last: Return the last row alone, which costs little.

        Returns:
            (batch, rows, channels), or (batch, 1, channels)
        """
        query, key, value = self._heads(x, last)
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=_rows(seen, last),
            dropout_p=self.dropout if self.training else 0.0,
        )
        x = x[:, -1:] if last else x
        x = x + self._dropped(self.out(mixed.transpose(1, 2).flatten(2)))
        return x + self._dropped(self.mlp(x))

    def weights(self, x: Tensor, seen: Tensor | None = None, last: bool = False) -> Tensor:
        """Return the attention before dropout, (batch, heads, rows or 1, rows attended to)."""
        query, key, _ = self._heads(x, last)
        logits = (query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])).float()
        mask = _rows(seen, last)
        if mask is not None:
            logits = logits.masked_fill(~mask, -math.inf)
        return logits.softmax(-1)

    def _heads(self, x: Tensor, last: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each (batch, heads, rows, channels / heads)."""
        rows = self.norm(x)
        split = (self.heads, x.shape[-1] // self.heads)
        query = th.unflatten(self.query(rows[:, -1:] if last else rows), -1, split)
        key, value = th.unflatten(self.key_value(rows), -1, (2, *split)).unbind(2)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


def _rows(seen: Tensor | None, last: bool) -> Tensor | None:
    """Return the mask for all heads, and for the requested rows."""
    if seen is None:
        return None
    return seen[..., -1:, :].unsqueeze(-3) if last else seen.unsqueeze(-3)


def sinusoids(window: int, channels: int) -> Tensor:
    """Return sinusoidal encodings of age, the last bar's first, (window, channels).

    Source: Vaswani et al., Attention is all you need, NeurIPS 2017, section 3.5.
    """
    age = th.arange(window - 1, -1, -1.0).unsqueeze(1)
    pair = th.arange(channels) // 2
    angle = age / 10_000 ** (2 * pair / channels)
    return th.where(th.arange(channels) % 2 == 0, angle.sin(), angle.cos())


class Transformer(Encoder):
    """Reference encoder: pre-normalised transformer blocks over time, then over the assets.

    Each asset's window is read separately, with weights shared over the assets; the vectors of the
    last bar then attend to those of the tradable assets, and to their own.

    Args:
        n_features: Features per asset and bar.
        window: Bars.
        width: Channels, a multiple of ``heads``.
        heads: Attention heads.
        layers: Blocks over time.
        asset_layers: Blocks over the assets; 0 keeps them apart.
        feedforward: Width inside the perceptrons.
        positions: "sinusoidal" or "learned", added to the bars.
        causal: Bars attend to earlier ones and themselves only. Nothing is later than the last bar,
            so this is about what the blocks can compute, not about look-ahead.
        dropout: Share dropped in training.

    Raises:
        ArgumentError: If an option is out of range.
    """

    def __init__(
        self,
        n_features: int,
        window: int,
        *,
        width: int = 64,
        heads: int = 4,
        layers: int = 2,
        asset_layers: int = 1,
        feedforward: int = 128,
        positions: Literal["sinusoidal", "learned"] = "sinusoidal",
        causal: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(n_features, window)
        check_sizes(layers=layers)
        if asset_layers < 0:
            raise ArgumentError(f"asset_layers is {asset_layers}: give at least 0")
        if positions not in ("sinusoidal", "learned"):
            raise ArgumentError(f"positions is {positions!r}: give 'sinusoidal' or 'learned'")
        self.channels = width
        self.causal = causal
        self.mixes_assets = asset_layers > 0
        self.inward = nn.Linear(n_features, width)
        self.positions: Tensor
        if positions == "learned":
            self.positions = nn.Parameter(0.02 * th.randn(window, width))
        else:
            self.register_buffer("positions", sinusoids(window, width), persistent=False)
        block = (width, heads, feedforward, dropout)
        self.time = nn.ModuleList(AttentionBlock(*block) for _ in range(layers))
        self.assets = nn.ModuleList(AttentionBlock(*block) for _ in range(asset_layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Return (batch, assets, width)."""
        x, earlier = self._series(windows)
        for i, block in enumerate(self.time):
            x = block(x, earlier, last=i == len(self.time) - 1)
        x = x.view(len(windows), -1, self.channels)
        seen = _seen(tradable)
        for block in self.assets:
            x = block(x, seen)
        out: Tensor = self.norm(x)
        return out

    def attention(
        self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return attention weights before dropout; the last axis is attended to, and sums to 1.

        Returns:
            "time_0", ...: (batch, assets, heads, window, window), of the last block the last bar
            alone, (batch, assets, heads, 1, window). "assets_0", ...: (batch, heads, assets,
            assets).
        """
        return dict(self._weights(windows, tradable))

    def _weights(self, windows: Tensor, tradable: Tensor) -> Iterator[tuple[str, Tensor]]:
        x, earlier = self._series(windows)
        for i, block in enumerate(self.time):
            assert isinstance(block, AttentionBlock)  # which a ModuleList forgets
            last = i == len(self.time) - 1
            yield f"time_{i}", th.unflatten(block.weights(x, earlier, last), 0, (len(windows), -1))
            x = block(x, earlier, last)
        x = x.view(len(windows), -1, self.channels)
        seen = _seen(tradable)
        for i, block in enumerate(self.assets):
            assert isinstance(block, AttentionBlock)
            yield f"assets_{i}", block.weights(x, seen)
            x = block(x, seen)

    def _series(self, windows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return rows (batch * assets, window, width), and the mask (window, window) over time."""
        x = self.inward(windows.transpose(1, 2)) + self.positions
        if not self.causal:
            return x.flatten(0, 1), None
        earlier = th.ones(self.window, self.window, dtype=th.bool, device=x.device).tril()
        return x.flatten(0, 1), earlier


def _seen(tradable: Tensor) -> Tensor:
    """Return (batch, assets, assets): each asset attends to the tradable ones and to itself."""
    own = th.eye(tradable.shape[1], dtype=th.bool, device=tradable.device)
    return (tradable > 0).unsqueeze(1) | own
