"""Forecast targets of a market: each asset's next return, its likelihood, and the calibration."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import torch as th
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from agents.encoding.market_encoder import MarketEncoder
from agents.losses import gaussian_nll
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.plotting.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class NextReturns:
    """Returns that follow each bar, divided by their deviation in the training range.

    In these units the bounds of a ``PredictionHead``'s sigma mean the same in every market. Which
    returns are known, and what a delisting is worth, is said by ``Market.targets``.

    Args:
        market: The market.
        train: Half-open range of bars whose returns give the unit; no later bar has a say in it.
        bars: Bars of the window that a forecast reads, the current one included.
        device: Device of the tensors.
        horizon: Bars that a return takes.

    Attributes:
        scale: The unit.
        size: Mean absolute return of the training range over the root of its mean square.
        target: (T, N) returns in that unit, 0 where they do not count.
        mask: (T, N) bool, where they count.

    Raises:
        ArgumentError: If the training range holds no such bar.
    """

    def __init__(
        self,
        market: Market,
        train: tuple[int, int],
        bars: int,
        device: th.device | str = "cpu",
        horizon: int = 1,
    ) -> None:
        self.first, self.horizon = market.warmup + bars - 1, horizon
        simple = market.targets("return", horizon)
        counts = np.isfinite(simple)
        rows = self.rows(train)
        own = simple[rows][counts[rows]]
        self.scale = float(own.std()) or 1.0
        square = float(np.square(own).mean())
        self.size = float(np.abs(own).mean() / np.sqrt(square)) if square else 0.0
        target = np.where(counts, simple / self.scale, 0.0)
        self.target = th.tensor(target, dtype=th.float32, device=device)
        self.mask = th.tensor(counts, device=device)

    def rows(self, within: tuple[int, int]) -> NDArray[np.int64]:
        """Return the bars of a half-open range with a whole window and a return within that range.

        Raises:
            ArgumentError: If there is none.
        """
        start, end = within
        rows = np.arange(max(start, self.first), end - self.horizon)
        if not len(rows):
            ahead = "a next one" if self.horizon == 1 else f"one {self.horizon} bars later"
            raise ArgumentError(
                f"the range {start} to {end} has no bar from {self.first} on, the first with a "
                f"whole window, that has {ahead}: widen it"
            )
        return rows

    def nll(self, mean: Tensor, sigma: Tensor, t: Tensor, assets: Tensor | None = None) -> Tensor:
        """Return the Gaussian negative log likelihood of forecasts, less its constant.

        Args:
            mean: (B, N) forecast at bars t.
            sigma: (B, N) its standard deviation.
            t: (B,) bars.
            assets: (B, N) the assets forecast; None is all in order.
        """
        at = t if assets is None else (t[:, None], assets)
        return gaussian_nll(self.target[at], mean, sigma, self.mask[at])

    def calibration(self, embeddings: MarketEncoder, rows: NDArray[np.int64]) -> Calibration:
        """Return the calibration of an encoder's forecasts, in evaluation mode, at some rows."""
        t = th.from_numpy(rows)
        with th.no_grad():
            mean, sigma = embeddings.forecast(t)
        t = t.to(self.mask.device)
        mask = self.mask[t]
        error = (self.target[t] - mean)[mask]
        return Calibration(error.cpu().numpy(), sigma[mask].cpu().numpy())


LEVELS = (0.5, 0.68, 0.9, 0.95)
"""Levels of the intervals that ``Calibration.numbers`` reports."""
_BINS = 10


@dataclass(frozen=True, eq=False)
class Calibration:
    """Errors of Gaussian forecasts and the standard deviations that were forecast.

    Attributes:
        error: (M,) realised less mean, M >= 1.
        sigma: (M,) deviations forecast, positive, in the same unit.

    Raises:
        ArgumentError: On other shapes or signs.
    """

    error: NDArray[np.floating]
    sigma: NDArray[np.floating]

    def __post_init__(self) -> None:
        """Check shapes and signs."""
        shapes = np.shape(self.error), np.shape(self.sigma)
        if len(shapes[0]) != 1 or shapes[0] != shapes[1] or shapes[0] == (0,):
            raise ArgumentError(
                f"error and sigma have shapes {shapes[0]} and {shapes[1]}: give vectors of the "
                "same length, at least 1"
            )
        if not (self.sigma > 0).all():
            raise ArgumentError(f"the least sigma is {self.sigma.min()}: it must be positive")

    def coverage(self, levels: ArrayLike) -> NDArray[np.float64]:
        """Return the share of errors within the central interval of each level in (0, 1)."""
        quantiles = [NormalDist().inv_cdf((1 + float(p)) / 2) for p in np.ravel(levels)]
        size = np.sort(np.abs(self.error / self.sigma))
        return np.searchsorted(size, quantiles, side="right") / len(size)

    @property
    def mean_square(self) -> float:
        """Return the mean squared standardised error: 1 if sigma is right, more if too small."""
        return float(np.mean(np.square(self.error / self.sigma)))

    def by_sigma(self, bins: int = _BINS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the RMS (bins,) of sigma and of the error, in bins of equal size sorted by sigma.

        The two are equal where sigma is calibrated.
        """
        parts = np.array_split(np.argsort(self.sigma, kind="stable"), min(bins, len(self.sigma)))
        squares = np.square(self.sigma), np.square(self.error)
        sigma, error = (np.sqrt([s[part].mean() for part in parts]) for s in squares)
        return sigma, error

    def numbers(self) -> dict[str, float]:
        """Return ``calibration/coverage_50``, ... (`LEVELS`), and ``calibration/mean_square_z``."""
        shares = zip(LEVELS, self.coverage(LEVELS), strict=True)
        coverage = {f"calibration/coverage_{100 * p:.0f}": float(share) for p, share in shares}
        return coverage | {"calibration/mean_square_z": self.mean_square}

    def figure(self) -> Figure:
        """Plot coverage against level and size of errors against sigma, with diagonals.

        Raises:
            PortfolioError: If matplotlib is not installed.
        """
        figure = new_figure((9, 4.5), 100)
        left, right = figure.subplots(1, 2)
        levels = np.linspace(0.05, 0.95, 19)
        left.plot([0, 1], [0, 1], color="gray", linewidth=0.8)
        left.plot(levels, self.coverage(levels), marker="o", markersize=4)
        left.set(
            title=f"Coverage of intervals, {len(self.error):,} forecasts",
            xlabel="level of the interval",
            ylabel="share of returns within it",
            xlim=(0, 1),
            ylim=(0, 1),
            aspect="equal",
        )
        sigma, error = self.by_sigma()
        both = np.r_[sigma, error]
        span = np.array([0.9 * both.min(), 1.1 * both.max()])
        right.plot(span, span, color="gray", linewidth=0.8)
        right.plot(sigma, error, marker="o", markersize=4, linestyle="none")
        right.set(
            title=f"Error by forecast sigma, mean squared z {self.mean_square:.2f}",
            xlabel="forecast sigma (root mean square of each decile)",
            ylabel="error (root mean square)",
            xlim=span,
            ylim=span,
            aspect="equal",
        )
        return figure
