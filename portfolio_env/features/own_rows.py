"""Rows of each asset's own bars: where they lie on the common calendar, and how many are needed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from portfolio_env.compiled import kernel
from portfolio_env.market.panel import FloatArray

BoolArray = npt.NDArray[np.bool_]


class OwnRows:
    """Moves the bars of each asset together, so that they follow each other, and apart again.

    The last bar of an asset stays in its row, and those before it move down to it: an asset
    without gaps stays where it is.

    Args:
        present: (T, N) whether the asset has a bar in the row.
    """

    def __init__(self, present: BoolArray) -> None:
        bars, assets = present.shape
        rank = np.cumsum(present, axis=0, dtype=np.int32)
        count = rank[-1]
        first, last = np.argmax(present, axis=0), bars - 1 - np.argmax(present[::-1], axis=0)
        self.present = present
        self.gapless = bool((last - first + 1 == count)[count > 0].all())
        """Whether every asset has a bar in all rows from its first to its last one."""
        if not self.gapless:
            self._on_calendar = np.flatnonzero(present)
            rows = (rank + (last - count))[present]
            self._in_line = rows * assets + self._on_calendar % assets

    def together(self, x: FloatArray) -> FloatArray:
        """Return the values (T, N) of each asset's own rows in line, NaN before the first."""
        if self.gapless:
            return np.where(self.present, x, np.nan)
        return self._moved(x, self._on_calendar, self._in_line)

    def apart(self, x: FloatArray) -> FloatArray:
        """Return values (T, N) that are in line on the calendar, NaN between own rows."""
        return x if self.gapless else self._moved(x, self._in_line, self._on_calendar)

    def _moved(
        self, x: FloatArray, from_: npt.NDArray[np.intp], to: npt.NDArray[np.intp]
    ) -> FloatArray:
        out = np.full(self.present.shape, np.nan)
        out.reshape(-1)[to] = np.broadcast_to(x, out.shape).reshape(-1)[from_]
        return out


@kernel
def since_own_bar(x: FloatArray, present: BoolArray) -> FloatArray:
    """Return the compound of returns x (T,) since the bar before of each asset, (T, N).

    At the first bar of an asset it is the return of that row; NaN where the asset has no bar.
    """
    bars, lanes = present.shape
    out = np.full((bars, lanes), np.nan)
    for i in range(lanes):
        grown = 0.0
        fresh, seen = True, False
        for t in range(bars):
            grown = x[t] if fresh else grown + x[t] + grown * x[t]
            fresh = False
            if present[t, i]:
                out[t, i] = grown if seen else x[t]
                fresh = seen = True
    return out


def first_row(present: BoolArray, traded: BoolArray, start: int, memory: int) -> int:
    """Return the first row on which the values from row ``start`` on depend.

    Args:
        present: (T, N) whether each asset has a bar in each row.
        traded: (T, N) whether it was traded there.
        start: Row from which on values are wanted.
        memory: Own bars before its row that a value depends on.

    Returns:
        The row by which each asset that trades from ``start`` on has so many traded bars before it,
        or all that it has; moved back to the bar before of every asset that has a later one, whose
        returns the others may read.
    """
    first = max(0, start - memory)
    for i in np.flatnonzero(traded[start:].any(axis=0)):
        own = _last_before(traded[:, i], start, memory + 1)
        if len(own) <= memory:  # all that it has, those without volume too
            own = np.flatnonzero(present[:start, i])[:1]
        first = min([first, *own[-memory - 1 :].tolist()])
    reach = first
    for i in np.flatnonzero(present[first:].any(axis=0)):
        reach = min([reach, *_last_before(present[:, i], first, 1)[-1:].tolist()])
    return reach


def _last_before(there: BoolArray, end: int, count: int) -> npt.NDArray[np.intp]:
    """Return so many of the last rows before ``end`` that are True, or more, or all that are."""
    span = 2 * count
    while True:  # most assets have bars in most rows, so that the history is seldom read
        first = max(0, end - span)
        found = np.flatnonzero(there[first:end]) + first
        if len(found) >= count or not first:
            return found
        span *= 8
