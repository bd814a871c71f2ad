"""Arrays to which rows are appended at the same cost however many there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]


class GrowableArray:
    """An array to which rows are appended without copying it each time.

    It has spare rows; every ``filled`` is a read-only view that later rows do not change.

    Args:
        first: (T, ...) the rows it starts with, copied.
        more: Number of rows for which it has space at least.
        writable: Its views can be written to, as compiled functions demand that tell the two apart.
    """

    def __init__(self, first: npt.NDArray[Any], more: int = 0, *, writable: bool = False) -> None:
        self._used, self._writable = len(first), writable
        size = self._used + max(more, self._used // 8 + 16)
        self._rows = np.empty((size, *first.shape[1:]), first.dtype)
        self._rows[: self._used] = first
        self._rows.setflags(write=writable)

    def filled(self) -> npt.NDArray[Any]:
        """Return the rows so far."""
        return self._rows[: self._used]

    def fits(self, used: int, more: int) -> bool:
        """Return whether it ends after ``used`` rows and has space for ``more``."""
        return self._used == used and used + more <= len(self._rows)

    def append(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Write rows after the last one; return all of them."""
        end = self._used + len(rows)
        self._rows.setflags(write=True)  # no view of these rows exists yet
        self._rows[self._used : end] = rows
        self._rows.setflags(write=self._writable)
        self._used = end
        return self.filled()

    def extended(self, rows: npt.NDArray[Any]) -> GrowableArray:
        """Return this array with further rows, or where they do not fit a larger one."""
        fits = self.fits(self._used, len(rows))
        own = self if fits else GrowableArray(self.filled(), len(rows), writable=self._writable)
        own.append(rows)
        return own


@dataclass(frozen=True)
class Room:
    """Arrays that grow together, of which their owner shows the last rows up to ``end``.

    Attributes:
        arrays: The arrays by name.
        end: Row after the owner's last one; a longer one may have written further rows.
    """

    arrays: Mapping[str, GrowableArray]
    end: int

    @classmethod
    def of(cls, arrays: Arrays, more: int, before: Room | None) -> Room:
        """Return a room with space for more rows: the one before, or a copy of the arrays."""
        if before is not None and all(own.fits(before.end, more) for own in before.arrays.values()):
            return before
        length = len(next(iter(arrays.values())))
        return cls({name: GrowableArray(rows, more) for name, rows in arrays.items()}, length)

    def appended(self, rows: Arrays, kept: int) -> tuple[dict[str, npt.NDArray[Any]], Room]:
        """Return the last ``kept`` rows with further ones, and the room of their owner."""
        made = {name: own.append(rows[name]) for name, own in self.arrays.items()}
        end = len(next(iter(made.values())))
        return {name: own[end - kept :] for name, own in made.items()}, Room(self.arrays, end)
