"""Windows and targets of a market as a torch ``Dataset``, and as tables for other libraries."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch as th
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from portfolio_env.checks import check_integer
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.market.samples import Kind, Range


class Table(NamedTuple):
    """Samples as one row each, for libraries such as scikit-learn.

    Attributes:
        inputs: (M, bars x F) float32, the oldest bar first.
        target: (M,) float64.
        rows: (M,) rows of the market.
        assets: (M,) columns of the market.
    """

    inputs: NDArray[np.float32]
    target: NDArray[np.float64]
    rows: NDArray[np.int64]
    assets: NDArray[np.int64]


class WindowDataset(Dataset[dict[str, Tensor]]):
    """Windows of a range of bars with what followed them, one item per bar.

    An item holds ``window`` (bars, N, F), ``tradable`` (N,), ``codes`` (N, K), ``time`` (ns since
    1970), ``target`` (N,), which is 0 where it is unknown, and ``mask`` (N,), where it is known.
    Windows are views of the market until an item is asked for.

    Args:
        market: The market.
        within: Half-open range of bars. Targets lie within it; windows may reach back before it.
        bars: Bars of a window.
        kind: See ``Market.targets``.
        horizon: Bars that a return takes.

    Attributes:
        rows: (S,) rows of the market, at which windows end.

    Raises:
        ArgumentError: If no bar of the range has a whole window and a known target.
    """

    def __init__(
        self, market: Market, within: Range, bars: int, kind: Kind = "return", horizon: int = 1
    ) -> None:
        self.market, self.bars = market, bars
        self.windows = market.windows(bars)
        self.targets = market.targets(kind, horizon)
        self.targets.flags.writeable = False
        self.mask = np.isfinite(self.targets)
        start, end = max(within[0], market.warmup + bars - 1), within[1] - horizon
        self.rows = start + np.flatnonzero(self.mask[start : max(end, start)].any(axis=1))
        if not len(self.rows):
            raise ArgumentError(
                f"the range {within[0]} to {within[1]} has no bar with a whole window of {bars}, "
                f"from {market.warmup + bars - 1} on, and a known target: widen it"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        row, market = int(self.rows[item]), self.market
        return {
            "window": th.tensor(self.windows[row - self.bars + 1]),
            "tradable": th.tensor(market.tradable[row], dtype=th.float32),
            "codes": th.tensor(market.category_codes),
            "time": th.tensor(int(market.timestamps[row].astype("datetime64[ns]").astype(int))),
            "target": th.tensor(np.nan_to_num(self.targets[row]), dtype=th.float32),
            "mask": th.tensor(self.mask[row]),
        }

    def loader(
        self, batch: int = 64, *, training: bool, seed: int = 0, **options: Any
    ) -> DataLoader[dict[str, Tensor]]:
        """Return batches of the items, of which the last may be smaller.

        Args:
            batch: Items per batch.
            training: Shuffle them, in a new order at each pass; otherwise in order of time.
            seed: Seed of the shuffling.
            **options: Further options of torch's ``DataLoader``, e.g. ``num_workers``.
        """
        check_integer("batch", batch)
        generator = th.Generator().manual_seed(seed)
        return DataLoader(self, batch, shuffle=training, generator=generator, **options)

    def table(self) -> Table:
        """Return the known targets and their windows as rows of numbers; copies the windows."""
        at, assets = np.nonzero(self.mask[self.rows])
        rows = self.rows[at]
        inputs = self.windows[rows - self.bars + 1, :, assets].reshape(len(rows), -1)
        return Table(inputs, self.targets[rows, assets], rows, assets)
