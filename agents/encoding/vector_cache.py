"""Cache of encoded vectors, which is valid as long as an encoder's weights stay as they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch as th
from torch import Tensor

from agents.encoding.blocks import Rows
from agents.encoding.memory import copied_to


class Numbers:
    """Weights compared by value: changes through ``.data`` leave no other trace.

    Args:
        weights: Any tensors.
        averaged: They may be an average of equal weights, which equals them but for rounding.
    """

    def __init__(self, weights: list[Tensor], *, averaged: bool = False) -> None:
        self.averaged = averaged
        with th.no_grad():
            self.numbers = th.cat([weight.flatten().float() for weight in weights])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Numbers) or self.numbers.device != other.numbers.device:
            return False
        if self.averaged:
            return th.allclose(self.numbers, other.numbers, rtol=1e-6, atol=1e-9)
        return th.equal(self.numbers, other.numbers)  # a GPU is waited for, once per step of lanes


class VectorCache:
    """Cache of the vectors of rows requested so far, for one state of the weights.

    Rows are bars of a market, or bars of one asset after another's. Lanes walk from bar to bar, and
    a few windows at a time cost several times what many do. So wherever rows are missing again at
    the same weights, the bars that follow them are encoded too, as files are read ahead: 1, 3, 7,
    ... each, as long as one chunk holds them.

    Args:
        size: Rows.
        bars: Bars of the market, of which ``size`` is a multiple.
        chunk: Rows that are encoded at once.
    """

    def __init__(self, size: int, bars: int, chunk: int) -> None:
        self._size, self._bars, self._chunk = size, bars, chunk
        self._state: object = None

    def rows(
        self,
        wanted: Rows,
        state: object,
        encode: Callable[[Rows], Tensor],
        whole: Callable[[Rows], Rows] | None = None,
    ) -> Tensor:
        """Return the vectors of the wanted rows; only those not stored yet are encoded.

        Args:
            wanted: Rows, in any shape.
            state: Value of the weights; a new one empties the cache.
            encode: Encodes distinct, increasing rows.
            whole: Adds to rows all that are encoded with them; None reads ahead instead.
        """
        if state != self._state:
            self._state, self._used, self._ahead = state, 0, 0
            # Zeros take no memory until they are written to: rows may be those of all assets.
            self._place, self._stored = np.zeros(self._size, np.int64), th.empty(0)
        missing = np.unique(wanted[self._place[wanted] == 0])
        if len(missing) and whole is not None:
            self._store(whole(missing), encode)
        elif len(missing):
            ahead = min(self._ahead, self._chunk // len(missing) - 1)
            self._ahead = 2 * self._ahead + 1
            if ahead > 0:
                last = (missing // self._bars + 1) * self._bars - 1
                further = missing[:, None] + np.arange(ahead + 1)
                near = np.unique(np.minimum(further, last[:, None]))
                missing = near[self._place[near] == 0]
            self._store(missing, encode)
        return self._stored[copied_to(self._place[wanted] - 1, self._stored.device)]

    def _store(self, rows: Rows, encode: Callable[[Rows], Tensor]) -> None:
        fresh = encode(rows)
        end = self._used + len(rows)
        if end > len(self._stored):
            grown = fresh.new_empty(2 * end, *fresh.shape[1:])
            if self._used:
                grown[: self._used] = self._stored[: self._used]
            self._stored = grown
        self._stored[self._used : end] = fresh
        self._place[rows] = np.arange(self._used + 1, end + 1)
        self._used = end
