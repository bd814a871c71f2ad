"""Rows appended to an immutable array without copying it each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class Room:
    """An array with spare rows; every `filled` is a read-only view that later rows do not change.

    Args:
        first: (T, ...) the rows it starts with, copied.
    """

    def __init__(self, first: npt.NDArray[Any]) -> None:
        self._used = len(first)
        self._rows = np.empty((self._used + self._used // 8 + 16, *first.shape[1:]), first.dtype)
        self._rows[: self._used] = first
        self._rows.setflags(write=False)

    def filled(self) -> npt.NDArray[Any]:
        """The rows so far."""
        return self._rows[: self._used]

    def fits(self, used: int, more: int) -> bool:
        """Whether it ends after ``used`` rows and has room for ``more``."""
        return self._used == used and used + more <= len(self._rows)

    def append(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Write rows after the last one; returns all of them."""
        end = self._used + len(rows)
        self._rows.setflags(write=True)  # nobody holds a view of these rows yet
        self._rows[self._used : end] = rows
        self._rows.setflags(write=False)
        self._used = end
        return self.filled()
