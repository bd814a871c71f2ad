"""Blocks of a market's bars, each of which an encoder passes over once."""

from __future__ import annotations

from collections.abc import Iterator

import torch as th
from torch import Tensor


def span_of(times: Tensor, block: int) -> int:
    """Return the time that ``block`` bars take on average, at least 1.

    Args:
        times: (T,) int64, increasing.
        block: Bars.
    """
    if len(times) < 2:
        return block
    return max(1, block * int(times[-1] - times[0]) // (len(times) - 1))


class Blocks:
    """Blocks of bars of equal time: two bars are in one if their ``time // span`` is the same.

    A bar's block depends on its time alone and so is the same in every part of a market. The series
    of a block begins ``window - 1`` bars before it, or at the market's first bar.

    Args:
        times: (T,) int64, increasing, e.g. nanoseconds since 1970.
        span: Time that a block takes.
        window: Bars that the encoder looks back, the current one included.

    Attributes:
        of: (T,) number of each bar's block, from 0 on.
        longest: Bars of the longest series.
    """

    def __init__(self, times: Tensor, span: int, window: int) -> None:
        number = times.div(span, rounding_mode="floor")
        _, self.of, counts = th.unique_consecutive(number, return_inverse=True, return_counts=True)
        ends = counts.cumsum(0)
        self._first = (ends - counts - (window - 1)).clamp(min=0)
        self._lengths = (ends - self._first).clamp(min=window)
        self.longest = int(self._lengths.max()) if len(times) else window
        self._window = window

    def series(self, blocks: Tensor, bars: int | None = None) -> Tensor:
        """Return the rows (blocks, bars) of the series of some blocks.

        Shorter series go on with later rows: a causal encoder computes nothing else for that.

        Args:
            blocks: (blocks,) numbers.
            bars: Bars of each; default those of the longest.
        """
        if bars is None:
            bars = int(self._lengths[blocks].max())
        rows = self._first[blocks][:, None] + th.arange(bars, device=blocks.device)
        return rows.clamp(max=len(self.of) - 1)

    def place(self, t: Tensor) -> Tensor:
        """Return the places of bars among those of their series that have a whole window."""
        return t - self._first[self.of[t]] - (self._window - 1)

    def parts(self, t: Tensor, size: int) -> Iterator[Tensor]:
        """Split increasing rows into parts of at most so many blocks each."""
        _, counts = th.unique_consecutive(self.of[t], return_counts=True)
        yield from th.split(t, [int(part.sum()) for part in th.split(counts, size)])

    def whole(self, t: Tensor) -> Tensor:
        """Return all rows with a whole window of the blocks that hold some rows, increasing."""
        rows = th.isin(self.of, self.of[t]).nonzero().flatten()
        return rows[rows >= t.min().clamp(max=self._window - 1)]
