"""Encoder with its market attached: each bar's window is encoded once, not once per sample.

All lanes that stand at bar t share one window of the market. So the encoder runs once per distinct
t in a batch, or with ``history="stream"`` once per distinct block of bars; while its weights stay
as they are (in a rollout, in evaluation, or because they are frozen), once per t or block at all.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import numpy as np
import torch as th
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from agents.encoding.blocks import Blocks, Rows, span_of
from agents.encoding.memory import copied_to, max_batch_size, memory_of, shared_with, training_bytes
from agents.encoding.vector_cache import Numbers, VectorCache
from agents.networks import Encoder
from agents.networks.base import is_traced
from agents.networks.heads import PredictionHead
from agents.networks.plugins import user_code
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market

_CHUNK = 64  # windows encoded at once where no gradient is kept: more leave a processor's cache
_BLOCKS = 4  # blocks, likewise
_BYTES = 2**26  # kept for the backward pass of a chunk: beyond, a processor's pages are made anew


def market_tensors(
    market: Market, device: th.device | str, first: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return arguments of ``MarketEncoder.bind``: features, tradable flags, codes, times.

    On the CPU the features are the market's own memory, which may be a mapped file: not to write.

    Args:
        market: The market.
        device: Torch device.
        first: First row to take.
    """
    times = market.timestamps[first:].astype("datetime64[ns]").astype(np.int64)
    flags = market.tradable[first:].astype(np.float32)
    arrays = (market.features[first:], flags, market.category_codes, times)
    features, tradable, codes, times_ = (shared_with(array, device) for array in arrays)
    return features, tradable, codes, times_


Encode = Callable[[Rows], Tensor]  # rows are bars, or keys of bars and assets
Split = Callable[[Rows, int], list[Rows]]
Whole = Callable[[Rows], Rows]


class MarketEncoder(nn.Module):
    """Encoder that returns one vector per asset at bar t, from the market's features up to t.

    With windows the vector is ``encoder.forward`` of the window that ends at t. With
    ``history="stream"`` it is ``encoder.stream`` of the bars from the first of t's block, less
    ``window - 1`` bars or as many as there are, up to t: that of the window at the first bar of a
    block, and at later ones a state that has run over up to a block more. Blocks are spans of time
    (``Blocks``); their span is the encoder's, that of ``block`` bars of the first market that it is
    bound to, and is saved with its weights. So embeddings stay the same in every part of a market
    that reaches back to the beginning of the series.

    Args:
        encoder: Makes the vectors.
        frozen: The encoder does not learn; it stays in evaluation mode.
        checkpointed: Windows, or series of blocks, whose activations are kept at a time; where
            there are more, they are computed again in the backward pass. None keeps all, "auto"
            what a quarter of the memory of the device holds, see ``agents.encoding.memory``.
        forecasts: It has a head that forecasts each asset's next return, see ``forecast``; or a
            head of another task, see ``agents.supervised.tasks``.

    Attributes:
        lower: Computes the encoder under bfloat16 autocast; weights, vectors and gradients stay in
            float32.
        compiled: Computes passes that keep gradients by ``torch.compile``.
        cached: Whether vectors are kept while weights stay as they are, which is checked by
            comparison. Switched off for target networks, whose weights change with every update;
            those of a frozen encoder are then kept while its weights are unchanged but for
            rounding.
    """

    features: Tensor | None
    tradable: Tensor | None
    codes: Tensor | None
    times: Tensor | None
    _cache: VectorCache
    _cache_of_keys: VectorCache

    def __init__(
        self,
        encoder: Encoder,
        *,
        frozen: bool = False,
        checkpointed: int | Literal["auto"] | None = "auto",
        forecasts: bool | nn.Module = False,
    ) -> None:
        super().__init__()
        if checkpointed not in (None, "auto") and not (
            isinstance(checkpointed, int) and checkpointed >= 1
        ):
            raise ArgumentError(f"checkpointed is {checkpointed}: give at least 1, 'auto' or None")
        self.encoder = encoder
        own: nn.Module | None = forecasts if isinstance(forecasts, nn.Module) else None
        if own is None and forecasts:
            own = PredictionHead(encoder.channels)
        self.head = own
        self.checkpointed = checkpointed
        for name in ("features", "tradable", "codes", "times"):
            self.register_buffer(name, None, persistent=False)
        self._divided: tuple[Tensor, int, Blocks] | None = None
        self._first = 0
        self.forget()
        self._sizes: tuple[int | None, int | None] | None = None
        self.cached = True
        self.lower = self.compiled = False
        self._programs: dict[str, Callable[..., Tensor]] = {}
        self.frozen = False
        self.freeze(frozen)

    def __getstate__(self) -> dict[str, Any]:
        # A copy compiles its own: programs are bound to the weights of the encoder they came from.
        return self.__dict__ | {"_programs": {}} | self._caches()

    def freeze(self, frozen: bool = True) -> None:
        """Freeze or unfreeze the encoder's weights.

        Frozen weights still require gradients and get none: TRPO takes those of every weight.
        """
        self.frozen = frozen
        self.train(self.training)

    def train(self, mode: bool = True) -> MarketEncoder:
        """Set the mode; a frozen encoder stays in evaluation mode."""
        if self.encoder.training and not mode:
            self.forget()  # some algorithms change weights without a new version (TRPO)
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def bind(
        self,
        features: Tensor,
        tradable: Tensor | None = None,
        codes: Tensor | None = None,
        times: Tensor | None = None,
        first: int = 0,
    ) -> None:
        """Attach the market, see ``MarketRows.bind``.

        Args:
            features: (T, assets, F).
            tradable: (T, assets), 1 or 0; None if all are, always.
            codes: (assets, K) static categories.
            times: (T,) int64, increasing; of blocks. None takes the numbers of the rows.
            first: Row of the market that these begin with; vectors of rows before it, and of those
                that look back beyond it, are then not to be had.
        """
        if features.ndim != 3 or features.shape[2] != self.encoder.n_features:
            raise ArgumentError(
                f"the market's features have shape {tuple(features.shape)}, the network reads "
                f"(T, assets, {self.encoder.n_features}); load the features it was trained on"
            )
        self.tradable = features.new_ones(features.shape[:2]) if tradable is None else tradable
        self.features, self.codes = features, codes
        self.times = th.arange(len(features), device=features.device) if times is None else times
        if self.encoder.block and not int(self.encoder.span):
            self.encoder.span.fill_(span_of(self.times.cpu().numpy(), self.encoder.block))
        self._first = first
        self._divided = None
        self.forget()
        self._sizes = None

    def first_row(self, market: Market, row: int) -> int:
        """Return the first row that the vectors of a market's row, and later ones, depend on."""
        if self.encoder.block:  # its block begins at the same time in every part of a market
            span, when = int(self.encoder.span), market.timestamps[row].astype("datetime64[ns]")
            begin = np.datetime64(int(when.astype(np.int64)) // span * span, "ns")
            row = int(np.searchsorted(market.timestamps, begin))
        return max(0, row - (self.encoder.bars - 1))

    def reaches(self, row: int) -> bool:
        """Return whether all that a row of the market looks back to is attached."""
        return self.features is not None and row - self._first >= self.encoder.bars - 1

    def forget(self) -> None:
        """Drop the cached vectors of bars; they are computed again when they are needed."""
        self.__dict__ |= self._caches()

    def _caches(self) -> dict[str, VectorCache]:
        """Return empty caches of bars and of keys, by the names of their attributes."""
        bars, assets = (0, 0) if self.features is None else self.features.shape[:2]
        keys = VectorCache(bars * assets, bars, _CHUNK * assets)
        return {"_cache": VectorCache(bars, bars, _CHUNK), "_cache_of_keys": keys}

    def forward(self, t: Tensor, assets: Tensor | None = None) -> Tensor:
        """Return the vectors of bars.

        Args:
            t: (batch,) rows of the market, each at least ``encoder.bars - 1``; best on the CPU, as
                a GPU that holds them is waited for.
            assets: (batch, k) the assets wanted of each; None wants all N.

        Returns:
            (batch, k or N, channels)
        """
        features, tradable = self._market()
        if not any(True for _ in self.encoder.parameters()) or is_traced(t):
            return self._each(t.to(features.device) - self._first, assets, features, tradable)
        # What to encode is settled in NumPy: sizes found on a GPU would be waited for, one by one.
        bars = t.cpu().numpy() - self._first
        if len(bars) and bars.min() < self.encoder.bars - 1:
            row = bars.min() + self._first
            raise ArgumentError(
                f"row {row} is asked for, and the market is bound from row {self._first} on, as a "
                "predictor does: bind the whole of it again"
                if self._first
                else f"the encoder looks back {self.encoder.bars} bars, which row {row} does not "
                f"have; give the environment window={self.encoder.bars}"
            )
        if assets is None or self.encoder.mixes_assets:
            way = self._encode_bars, self._parts, self._whole
            rows = self._rows(bars, self._cache, *way)
            return rows if assets is None else rows[_lanes(assets), assets]
        # Of assets that nothing mixes, those that are drawn are encoded, each by itself.
        keys = self._keys(bars, assets.cpu().numpy())
        way_of_keys = self._encode_keys, self._parts_of_keys, self._whole_of_keys
        return self._rows(keys, self._cache_of_keys, *way_of_keys)

    def _rows(
        self, wanted: Rows, cache: VectorCache, encode: Encode, split: Split, whole: Whole
    ) -> Tensor:
        """Return the vectors of bars or keys, of any shape; each distinct one is encoded once."""
        if self.frozen or (self.cached and not (th.is_grad_enabled() or self.encoder.training)):
            at_once = partial(self._at_once, encode=encode, split=split)
            return cache.rows(wanted, self._state(), at_once, whole if self.encoder.block else None)
        distinct, place = np.unique(wanted, return_inverse=True)
        rows = self._in_chunks(distinct, encode, split)
        return rows[copied_to(place.reshape(wanted.shape), rows.device)]

    def _at_once(self, rows: Rows, encode: Encode, split: Split) -> Tensor:
        """Return the vectors of distinct, increasing rows without gradients."""
        size = _BLOCKS if self.encoder.block else _CHUNK
        with th.no_grad():
            return th.cat([encode(part) for part in split(rows, size)])

    def forecast(self, t: Tensor) -> Any:
        """Return mean and deviation (batch, N) of all assets' next returns, see ``forecast_of``.

        With the head of another task it is what that head returns, a tuple of (batch, N).
        """
        return self.forecast_of(self(t))

    def forecast_of(self, rows: Tensor) -> Any:
        """Return the forecast of rows (..., N, channels) that are encoded already.

        The unit is that of the returns it was trained on, see ``agents.forecasts.NextReturns``.
        """
        if self.head is None:
            raise ArgumentError("there is no head for forecasts; build it with forecasts=True")
        return self.head(rows)

    def encode(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Encode windows (batch, bars, assets, F) as (batch, assets, channels)."""
        return self._called("forward", windows, tradable, codes)

    def groups(self, t: Rows) -> Rows:
        """Return the group of each bar: bars of one are encoded together, at the cost of one.

        A group is a block, or with windows a bar.
        """
        if not self.encoder.block:
            return t
        return self._blocks().of[t - self._first]

    def _called(self, way: str, series: Tensor, *others: Tensor | None) -> Tensor:
        """Return what the encoder makes of its inputs by ``forward`` or ``stream``, in float32."""
        called = self.encoder.name_in_messages
        with (
            th.set_grad_enabled(th.is_grad_enabled() and not self.frozen),
            user_code(f"encoder {called}") if called else nullcontext(),
            th.autocast(series.device.type, th.bfloat16) if self.lower else nullcontext(),
        ):
            out = self._program(way)(series, *others)
        return out.float() if self.lower else out

    def _program(self, way: str) -> Callable[..., Tensor]:
        """Return a method of the encoder, compiled where that is asked for and it learns."""
        plain: Callable[..., Tensor] = self.encoder if way == "forward" else self.encoder.stream
        if not self.compiled or not th.is_grad_enabled() or th.compiler.is_compiling():
            return plain
        if way not in self._programs:  # of any number of windows: batches differ in length
            self._programs[way] = th.compile(plain, dynamic=True)
        return self._programs[way]

    def _blocks(self) -> Blocks:
        """Return the blocks of the market, whose span may differ since it was bound."""
        self._market()
        assert self.times is not None
        span, held = self.encoder.span, self._divided
        # A version tells of a new value, which a GPU would have to be asked for.
        version = 0 if span.is_inference() else span._version
        if held is None or held[0] is not span or held[1] != version:
            blocks = Blocks(self.times.cpu().numpy(), int(span), self.encoder.bars)
            held = self._divided = span, version, blocks
        return held[2]

    def _market(self) -> tuple[Tensor, Tensor]:
        if self.features is None or self.tradable is None:
            raise ArgumentError(
                "index observations need their market; call agents.bind_market(model, market)"
            )
        return self.features, self.tradable

    def _each(self, t: Tensor, assets: Tensor | None, features: Tensor, tradable: Tensor) -> Tensor:
        """Encode every window separately, without sharing equal ones.

        An encoder without weights only rearranges its input, and reads fewer bars this way.
        """
        if self.encoder.block:
            blocks = self._blocks()
            start = th.as_tensor(blocks.start, device=t.device)[t]
            series = start[:, None] + th.arange(blocks.longest, device=t.device)
            place = t - start - (self.encoder.bars - 1)
            rows = self._stream(series.clamp(max=len(features) - 1))
            rows = rows[th.arange(len(t), device=t.device), place]
            return rows if assets is None else rows[_lanes(t), assets]
        bars, codes = self._bars(t), self.codes
        if assets is not None and not self.encoder.mixes_assets:
            windows = features[bars[:, :, None], assets[:, None, :]]
            own = tradable[t[:, None], assets]
            return self.encode(windows, own, None if codes is None else codes[assets])
        codes = None if codes is None else codes.expand(len(t), *codes.shape)
        rows = self.encode(features[bars], tradable[t], codes)
        return rows if assets is None else rows[_lanes(t), assets]

    def _bars(self, t: Tensor) -> Tensor:
        """Return the rows (batch, bars) of the windows that end at t."""
        return t[:, None] + th.arange(1 - self.encoder.bars, 1, device=t.device)

    def _encode_bars(self, t: Rows) -> Tensor:
        """Return vectors (batch, N, channels) of distinct, increasing t."""
        features, tradable = self._market()
        if self.encoder.block and len(t):
            blocks = self._blocks()
            own, place = np.unique(blocks.of[t], return_inverse=True)
            arrays = (blocks.series(own), place, blocks.place(t))
            series, place_, bar = (copied_to(array, features.device) for array in arrays)
            return self._stream(series)[place_, bar]
        codes = None if self.codes is None else self.codes.expand(len(t), *self.codes.shape)
        rows = copied_to(t, features.device)
        return self.encode(features[self._bars(rows)], tradable[rows], codes)

    def _stream(self, series: Tensor) -> Tensor:
        """Return the vectors of all bars with a whole window of series (batch, bars) of rows."""
        features, tradable = self._market()
        codes = None if self.codes is None else self.codes.expand(len(series), *self.codes.shape)
        return self._called("stream", features[series], tradable[series], codes)

    def _parts(self, t: Rows, size: int) -> list[Rows]:
        """Split distinct, increasing rows into parts of at most so many windows or blocks."""
        if self.encoder.block:
            return self._blocks().parts(t, size)
        return np.split(t, range(size, len(t), size))

    def _whole(self, t: Rows) -> Rows:
        """Return all bars with a whole window of the blocks that hold some, increasing."""
        blocks = self._blocks()
        return blocks.rows(np.unique(blocks.of[t]))[0]

    def _keys(self, t: Rows, assets: Rows) -> Rows:
        """Return one number for each bar (batch,) and asset (batch, k), in order of both."""
        return assets * len(self._market()[0]) + t[:, None]

    def _encode_keys(self, keys: Rows) -> Tensor:
        """Return vectors (keys, channels) of distinct, increasing keys, each asset by itself."""
        features, tradable = self._market()
        asset, t = np.divmod(keys, len(features))
        if self.encoder.block:
            blocks = self._blocks()
            own, place = np.unique(self._series_of(keys), return_inverse=True)
            asset, block = np.divmod(own, len(features))
            bars = trading = blocks.series(block)
        else:
            trading = t[:, None]
            bars = trading + np.arange(1 - self.encoder.bars, 1)
        rows, when, which = (
            copied_to(array, features.device) for array in (bars, trading, asset[:, None])
        )
        windows, trades = features[rows, which].unsqueeze(2), tradable[when, which]
        codes = None if self.codes is None else self.codes[which]
        if not self.encoder.block:
            return self.encode(windows, trades, codes)[:, 0]
        vectors = self._called("stream", windows, trades.unsqueeze(2), codes)
        at, bar = (copied_to(array, features.device) for array in (place, blocks.place(t)))
        return vectors[at, bar, 0]

    def _series_of(self, keys: Rows) -> Rows:
        """Return one number for each asset and block, or window, in order of the keys."""
        if not self.encoder.block:
            return keys
        asset, t = np.divmod(keys, len(self._market()[0]))
        return asset * len(self._market()[0]) + self._blocks().of[t]

    def _parts_of_keys(self, keys: Rows, size: int) -> list[Rows]:
        """Split increasing keys into parts as large as so many windows or blocks of all assets."""
        first = np.flatnonzero(np.diff(self._series_of(keys), prepend=-1))
        most = size * self._market()[0].shape[1]
        return np.split(keys, first[most::most])

    def _whole_of_keys(self, keys: Rows) -> Rows:
        """Return the keys of all bars with a whole window of the blocks that hold some."""
        n_bars = len(self._market()[0])
        asset, block = np.divmod(np.unique(self._series_of(keys)), n_bars)
        rows, lengths = self._blocks().rows(block)
        return np.repeat(asset, lengths) * n_bars + rows

    def _in_chunks(self, rows: Rows, encode: Encode, split: Split) -> Tensor:
        """Return the vectors of distinct, increasing rows with gradients, encoded in chunks.

        Beyond what memory holds, every chunk is computed again in the backward pass.
        """
        most, size = self._at_a_time()
        parts = [rows] if size is None else split(rows, size)
        if len(parts) <= 1 or most is None or len(split(rows, most)) == 1:
            return th.cat([encode(part) for part in parts])
        return th.cat([checkpoint(encode, part, use_reentrant=False) for part in parts])

    def _at_a_time(self) -> tuple[int | None, int | None]:
        """Return how many windows or blocks are kept at most, and how many make a chunk."""
        if self._sizes is None:
            features = self._market()[0]
            at = (features.device, self.codes)
            most = self.checkpointed
            if most == "auto":
                budget = memory_of(features.device) // 4  # actor and critic may have one each
                most = max_batch_size(self.encoder, features.shape[1], budget, *at)
            size = most
            if features.device.type == "cpu":
                one = training_bytes(self.encoder, features.shape[1], 1, *at)
                size = max(1, _BYTES // max(one, 1))
                size = size if most is None else min(size, most)
            self._sizes = most, size
        return self._sizes

    def _state(self) -> object:
        """Return a value that changes whenever a weight changes."""
        weights = [*self.encoder.parameters(), *self.encoder.buffers()]
        return Numbers(weights, averaged=not self.cached)


def _lanes(t: Tensor) -> Tensor:
    return th.arange(len(t), device=t.device)[:, None]
