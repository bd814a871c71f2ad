"""Blocks of a market's bars, each of which an encoder passes over once.

All of it is NumPy: which bars to encode is settled before anything is asked of a GPU, which would
have to finish its work to tell.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.integer]


def span_of(times: Rows, block: int) -> int:
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
        start: (T,) first row of the series of each bar's block.
        longest: Bars of the longest series.
    """

    def __init__(self, times: Rows, span: int, window: int) -> None:
        number = times // span
        _, self.of, counts = np.unique(number, return_inverse=True, return_counts=True)
        self._counts, self._ends = counts, counts.cumsum()
        self._first = (self._ends - counts - (window - 1)).clip(min=0)
        self._lengths = (self._ends - self._first).clip(min=window)
        self.start = self._first[self.of]
        self.longest = int(self._lengths.max()) if len(times) else window
        self._window = window

    def series(self, blocks: Rows) -> Rows:
        """Return the rows (blocks, bars) of the series of some blocks, as long as the longest.

        Shorter series go on with later rows: a causal encoder computes nothing else for that.

        Args:
            blocks: (blocks,) numbers.
        """
        bars = self._lengths[blocks].max()
        rows: Rows = self._first[blocks][:, None] + np.arange(bars)
        return rows.clip(max=len(self.of) - 1)

    def place(self, t: Rows) -> Rows:
        """Return the places of bars among those of their series that have a whole window."""
        return t - self.start[t] - (self._window - 1)

    def parts(self, t: Rows, size: int) -> list[Rows]:
        """Split increasing rows into parts of at most so many blocks each."""
        first = np.flatnonzero(np.diff(self.of[t], prepend=-1))  # of every block
        return np.split(t, first[size::size])

    def rows(self, blocks: Rows) -> tuple[Rows, Rows]:
        """Return the rows with a whole window of some blocks, one block's after another's.

        Args:
            blocks: (blocks,) numbers.

        Returns:
            The rows, and how many there are of each block.
        """
        first = (self._ends - self._counts).clip(min=self._window - 1)[blocks]
        lengths = self._ends[blocks] - first
        ahead = np.repeat(lengths.cumsum() - lengths, lengths)
        return np.repeat(first, lengths) + np.arange(lengths.sum()) - ahead, lengths
