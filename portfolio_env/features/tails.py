"""Rows of a market that must be read to compute the features of its newest bars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from portfolio_env.market.panel import PricePanel


@dataclass(frozen=True, eq=False)
class Tails:
    """The newest rows of a panel, and the rows before them that features remember.

    Only so many rows are looked at, so that it costs the same however long the panel is.

    Attributes:
        panel: The panel.
        start: First of the newest rows.
    """

    panel: PricePanel
    start: int

    def first_row(self, memory: int, assets: npt.NDArray[np.bool_] | None = None) -> int:
        """Return the first row on which values from ``start`` on depend.

        Args:
            memory: Own bars before its row that a value depends on.
            assets: (N,) the assets whose values are wanted; None means those that have a bar from
                ``start`` on: where it did not trade nothing is observed of it, but others are
                compared with it.

        Returns:
            The row by which each of them has one traded bar more before it, or all that it has;
            moved back to the bar before of every asset that has a later one, whose returns the
            others may read.
        """
        traded, present = self.panel.tradable, self.panel.close
        born = self.panel.first_bars
        if assets is None:
            wanted = np.flatnonzero(~np.isnan(present[self.start :]).all(axis=0))
            silent = ~traded[self.start :, wanted].any(axis=0)
        else:
            wanted = np.flatnonzero(assets)
            silent = np.zeros(len(wanted), np.bool_)

        length = memory + 1
        while True:
            low = max(0, self.start - length)
            rows = slice(low, self.start)
            bars = traded[rows, wanted] | (silent & ~np.isnan(present[rows, wanted]))
            count = bars.sum(axis=0)
            if low == 0 or ((count > memory) | (born[wanted] >= low)).all():
                break
            length *= 2
        first = max(0, self.start - memory)
        for k, (i, known) in enumerate(zip(wanted, count, strict=True)):
            if known > memory:
                own = np.flatnonzero(bars[:, k])
                first = min(first, low + int(own[-memory - 1]))
            else:
                first = min(first, max(0, int(born[i])))
        return self.bar_before(first)

    def bar_before(self, first: int) -> int:
        """Return the row of the earliest last bar before a row, of assets with one after it."""
        close = self.panel.close
        later = ~np.isnan(close[first:]).all(axis=0)
        waiting = later & (self.panel.first_bars < first)
        reach, length = first, 1
        while waiting.any() and first - length // 2 > 0:
            low = max(0, first - length)
            found = ~np.isnan(close[low:first, waiting])
            seen = found.any(axis=0)
            if seen.any():
                last = first - 1 - found[::-1, seen].argmax(axis=0)
                reach = min(reach, int(last.min()))
            waiting[np.flatnonzero(waiting)[seen]] = False
            length *= 2
        return reach
