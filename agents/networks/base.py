"""Encoders: windows of market features to one vector per asset."""

from collections.abc import Sequence
from typing import Literal

import torch as th
from torch import Tensor, nn

from portfolio_env.checks import check_choice, check_integer, check_number
from portfolio_env.errors import ArgumentError

History = Literal["window", "stream"]
BLOCK = 120  # bars of a block: W - 1 = 59 more are read before each
BRANCH = 0.01
"""Size at the start of what a layer adds to its residual, where a network is deep.

Source: Touvron et al. (2021), "Going deeper with Image Transformers", section 2.
"""
NO_FEATURES = (
    "the market has no features, and an encoder reads nothing else: load the market with features, "
    "e.g. features='minimal'"
)


class Encoder(nn.Module):
    """Base class of encoders: one vector per asset, equivariant to the order of the assets.

    The number of assets is never a parameter: the same weights serve any number of them.

    A market is encoded window by window, by ``forward``; or, with ``history="stream"`` of an
    encoder that is causal in time, block by block, by ``stream``: one pass over the bars of a block
    and the W - 1 before it serves them all, where windows take a pass over W bars for each.

    Args:
        n_features: Features per asset and bar.
        window: Bars the encoder looks back, the current one included.

    Attributes:
        channels: Width of the vector returned for each asset.
        bars: Bars that ``forward`` expects, the window and what an encoder reads before it.
        mixes_assets: Whether the vector of an asset depends on the others.
        uses_codes: Whether it reads the static codes of the assets.
        block: Bars of a block, on average, with ``history="stream"``; 0 with windows.
        span: With blocks, the time that one takes, in nanoseconds; 0 until a market is bound.
        name_in_messages: Name of a user's encoder in messages; "" if built in.
    """

    channels: int
    bars: int
    mixes_assets = False
    uses_codes = False
    block = 0
    span: Tensor
    name_in_messages = ""

    def __init__(self, n_features: int, window: int) -> None:
        super().__init__()
        if n_features == 0:
            raise ArgumentError(NO_FEATURES)
        if n_features < 1 or window < 1:
            raise ArgumentError(
                f"an encoder needs n_features >= 1 and window >= 1, got {n_features} and {window}"
            )
        self.n_features = n_features
        self.window = window
        self.bars = window

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Encode windows of the market.

        Args:
            windows: (batch, bars, assets, features).
            tradable: (batch, assets), 1 or 0: which assets trade at the last bar; encoders that
                mix assets give the others no attention.
            codes: (batch, assets, K) static categories, 0 where unknown; for encoders that use
                them.

        Returns:
            (batch, assets, channels)
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward()")

    def attention(
        self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the attention weights of ``forward``, in evaluation mode; {} without attention.

        Returns:
            weights by name, whose last axis is attended to: ``"assets..."``, (batch, [bars],
            heads, assets, assets); ``"time..."``, (batch, assets, [heads, bars], bars), in order of
            time; any other, (batch, assets, K).
        """
        return {}

    def stream(self, series: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Encode every bar of a series from its ``window``-th on, in one causal pass.

        The recurrent state runs from zeros before the first bar of the series; attention and
        pooling over time reach back over the last ``window`` bars; attention over assets is masked
        at each bar by what trades there. So the first vector is that of ``forward`` on the first
        ``window`` bars, if the same assets trade in all of them; later ones have seen more bars.

        Args:
            series: (batch, bars, assets, features), at least ``window`` bars.
            tradable: (batch, bars, assets), 1 or 0.
            codes: (batch, assets, K) static categories.

        Returns:
            (batch, bars - window + 1, assets, channels)
        """
        raise NotImplementedError(f"{type(self).__name__} encodes window by window")

    def _set_history(self, history: str, block: int) -> None:
        """Take the options that say whether a market is encoded by windows or in blocks."""
        check_choice("history", history, ("window", "stream"))
        check_integer("block", block)
        if history == "stream":
            self.block = block
            self.register_buffer("span", th.zeros((), dtype=th.int64))


class PerAsset(Encoder):
    """Encoder without weights that lays out the window of each asset in one row.

    The shared scorer behind it is then a small network per asset, which is the recommended
    default: it has too few parameters to memorise a training history.
    """

    def __init__(self, n_features: int, window: int) -> None:
        super().__init__(n_features, window)
        self.channels = n_features * window

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Return (batch, assets, window * features), the oldest bar first."""
        return windows.transpose(1, 2).flatten(2)


def check_sizes(**sizes: int) -> None:
    """Raise an ArgumentError unless each size is an integer of 1 or more."""
    for name, size in sizes.items():
        check_integer(name, size)


def check_share(name: str, share: float) -> None:
    """Raise an ArgumentError unless ``share`` is in [0, 1)."""
    check_number(name, share, 0, below=1)


def check_heads(width: int, heads: int) -> None:
    """Raise an ArgumentError unless ``heads`` divides ``width``."""
    check_sizes(width=width, heads=heads)
    if width % heads:
        raise ArgumentError(f"{heads} heads do not divide {width}: give a divisor of {width}")


def is_traced(tensor: Tensor) -> bool:
    """Return whether a tensor's values are unavailable: in ``torch.vmap``, ``torch.compile``."""
    return th.compiler.is_compiling() or th._C._functorch.is_functorch_wrapped_tensor(tensor)


class CodeEmbedding(nn.Module):
    """Learned vectors of the static categories of an asset, concatenated.

    Code 0, unknown, starts as zeros: it adds nothing until assets without a label were learned
    from.

    Args:
        vocabulary_sizes: Codes of each category, 0 included.
        embed_dim: Width of the vectors, one for all or one per category.

    Attributes:
        width: Width of all vectors together.
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
    """Base class of factor networks: one row per asset, of features and of embedded categories.

    Args:
        n_features: Features per asset and bar.
        window: Bars it may look back.
        flatten: Read the whole window, laid out in one row; otherwise its last bar.
        vocabulary_sizes: Codes of each static category, labels + 1 as code 0 is unknown; without
            any, codes are not read.
        embed_dim: Width of the vector of a category.

    Attributes:
        width: Numbers per row.
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
