"""What is forecast of a market: each asset's next return, and the likelihood of a forecast."""

from __future__ import annotations

import numpy as np
import torch as th
from numpy.typing import NDArray
from torch import Tensor

from agents.calibration import Calibration
from agents.embeddings import Embeddings
from agents.losses import gaussian_nll
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market


class NextReturns:
    """Simple returns from close t to close t + 1, in units of their training range's deviation.

    In these units the bounds of a `PredictionHead`'s sigma mean the same in every market. A bar
    counts for the assets that trade at t and have a bar at t + 1.

    Args:
        market: the market.
        train: half-open range of bars whose returns give the unit; no later bar has a say in it.
        bars: of the window that a forecast reads, the current bar included.
        device: where the tensors are.

    Attributes:
        scale: the unit.
        target: (T - 1, N) returns in that unit, 0 where they do not count.
        mask: (T - 1, N) bool, where they count.

    Raises:
        ArgumentError: if the training range holds no such bar.
    """

    def __init__(
        self,
        market: Market,
        train: tuple[int, int],
        bars: int,
        device: th.device | str = "cpu",
    ) -> None:
        self.first = market.warmup + bars - 1
        simple = market.close[1:] / market.close[:-1] - 1
        counts = market.tradable[:-1] & np.isfinite(simple)
        own = self.rows(train)
        self.scale = float(simple[own][counts[own]].std()) or 1.0
        target = np.where(counts, simple / self.scale, 0.0)
        self.target = th.tensor(target, dtype=th.float32, device=device)
        self.mask = th.tensor(counts, device=device)

    def rows(self, within: tuple[int, int]) -> NDArray[np.int64]:
        """Bars of a half-open range that have a whole window, and a next bar in that range.

        Raises:
            ArgumentError: if there is none.
        """
        start, end = within
        rows = np.arange(max(start, self.first), end - 1)
        if not len(rows):
            raise ArgumentError(
                f"the range {start} to {end} has no bar from {self.first} on, the first with a "
                "whole window, that has a next one: widen it"
            )
        return rows

    def nll(self, mean: Tensor, sigma: Tensor, t: Tensor, assets: Tensor | None = None) -> Tensor:
        """Gaussian negative log likelihood of forecasts, less its constant.

        Args:
            mean: (B, N) forecast at bars t.
            sigma: (B, N) its standard deviation.
            t: (B,) bars.
            assets: (B, N) the assets forecast; None is all in order.
        """
        at = t if assets is None else (t[:, None], assets)
        return gaussian_nll(self.target[at], mean, sigma, self.mask[at])

    def calibration(self, embeddings: Embeddings, rows: NDArray[np.int64]) -> Calibration:
        """The calibration of an encoder's forecasts, in evaluation mode, at some rows."""
        t = th.as_tensor(rows, device=self.mask.device)
        with th.no_grad():
            mean, sigma = embeddings.forecast(t)
        mask = self.mask[t]
        error = (self.target[t] - mean)[mask]
        return Calibration(error.cpu().numpy(), sigma[mask].cpu().numpy())
