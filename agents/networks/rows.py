"""One row per asset: its features and a vector for each of its static categories."""

from collections.abc import Sequence

import torch as th
from torch import Tensor, nn

from agents.networks.checks import check_sizes
from agents.networks.encoders import Encoder
from portfolio_env.errors import ArgumentError


class CodeEmbedding(nn.Module):
    """A vector for each static category of an asset, side by side.

    Code 0, unknown, starts as zeros: it adds nothing until assets without a label were learned
    from.

    Args:
        vocabulary_sizes: codes of each category, 0 included.
        embed_dim: width of the vectors, one for all or one per category.

    Attributes:
        width: of all vectors together.
    """

    def __init__(self, vocabulary_sizes: Sequence[int], embed_dim: int | Sequence[int]) -> None:
        super().__init__()
        dims = [embed_dim] * len(vocabulary_sizes) if isinstance(embed_dim, int) else embed_dim
        if len(dims) != len(vocabulary_sizes):
            raise ArgumentError(
                f"embed_dim has {len(dims)} widths for {len(vocabulary_sizes)} categories; give "
                "one of each, or one number"
            )
        for size, dim in zip(vocabulary_sizes, dims, strict=True):
            check_sizes(vocabulary_size=size, embed_dim=dim)
        self.tables = nn.ModuleList(map(nn.Embedding, vocabulary_sizes, dims))
        self.width = sum(dims)
        for table in self.tables:
            with th.no_grad():
                table.get_parameter("weight")[0] = 0.0

    def forward(self, codes: Tensor) -> Tensor:
        """Return (batch, assets, width) of codes (batch, assets, categories)."""
        if codes.shape[-1] != len(self.tables):
            raise ArgumentError(
                f"assets have {codes.shape[-1]} categories, the network knows {len(self.tables)}; "
                "give vocabulary_sizes one size per category of the market"
            )
        parts = [table(codes[..., k]) for k, table in enumerate(self.tables)]
        return th.cat(parts, dim=-1)


class RowEncoder(Encoder):
    """What factor networks share: one row per asset, of features and of embedded categories.

    Args:
        n_features: features per asset and bar.
        window: bars it may look back.
        flatten: read the whole window, laid out in one row; otherwise its last bar.
        vocabulary_sizes: codes of each static category, labels + 1 as code 0 is unknown; without
            any, codes are not read.
        embed_dim: width of the vector of a category.

    Attributes:
        width: numbers per row.
    """

    def __init__(
        self,
        n_features: int,
        window: int,
        *,
        flatten: bool = False,
        vocabulary_sizes: Sequence[int] = (),
        embed_dim: int | Sequence[int] = 8,
    ) -> None:
        super().__init__(n_features, window)
        self.bars = window if flatten else 1
        self.uses_codes = len(vocabulary_sizes) > 0
        self.embedding = CodeEmbedding(vocabulary_sizes, embed_dim) if self.uses_codes else None
        self.embedded = 0 if self.embedding is None else self.embedding.width
        self.width = self.bars * n_features + self.embedded

    def series(self, windows: Tensor) -> Tensor:
        """Return the bars that are read, (batch, assets, bars, features)."""
        return windows[:, -self.bars :].transpose(1, 2)

    def rows(self, series: Tensor, codes: Tensor | None) -> Tensor:
        """Return (batch, assets, ... + embedded) of (batch, assets, ...) and the codes."""
        if self.embedding is None:
            return series.flatten(2)
        if codes is None:
            shape = (*series.shape[:2], len(self.embedding.tables))
            codes = th.zeros(shape, dtype=th.long, device=series.device)
        return th.cat([series.flatten(2), self.embedding(codes)], dim=-1)
