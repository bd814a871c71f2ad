"""Whether the uncertainty of forecasts is right: coverage of intervals, size of errors.

The interval `mean +- q sigma` of a Gaussian forecast, q the normal quantile of (1 + level) / 2,
should hold a share `level` of what happens, and the squared standardised error should be 1 on
average (Gneiting, Balabdaoui & Raftery, 2007, "Probabilistic forecasts, calibration and
sharpness").
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.errors import ArgumentError
from portfolio_env.rendering import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = (0.5, 0.68, 0.9, 0.95)
"""Levels of the intervals that `Calibration.numbers` reports."""
_BINS = 10


@dataclass(frozen=True, eq=False)
class Calibration:
    """Errors of Gaussian forecasts beside the deviations that were forecast.

    Attributes:
        error: (M,) realised less mean, M >= 1.
        sigma: (M,) deviations forecast, positive, in the same unit.

    Raises:
        ArgumentError: on other shapes or signs.
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
        """Share of errors within the central interval of each level in (0, 1)."""
        quantiles = [NormalDist().inv_cdf((1 + float(p)) / 2) for p in np.ravel(levels)]
        size = np.sort(np.abs(self.error / self.sigma))
        return np.searchsorted(size, quantiles, side="right") / len(size)

    @property
    def mean_square(self) -> float:
        """Mean squared standardised error: 1 if sigma is right, more if it is too small."""
        return float(np.mean(np.square(self.error / self.sigma)))

    def by_sigma(self, bins: int = _BINS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Root mean square (bins,) of sigma and of the error, in bins of equally many, by sigma.

        The two are equal where sigma tells large errors from small ones as it should.
        """
        parts = np.array_split(np.argsort(self.sigma, kind="stable"), min(bins, len(self.sigma)))
        squares = np.square(self.sigma), np.square(self.error)
        sigma, error = (np.sqrt([s[part].mean() for part in parts]) for s in squares)
        return sigma, error

    def numbers(self) -> dict[str, float]:
        """``calibration/coverage_50``, ... for all `LEVELS`, and ``calibration/mean_square_z``."""
        shares = zip(LEVELS, self.coverage(LEVELS), strict=True)
        coverage = {f"calibration/coverage_{100 * p:.0f}": float(share) for p, share in shares}
        return coverage | {"calibration/mean_square_z": self.mean_square}

    def figure(self) -> Figure:
        """Two plots: coverage against level, and size of errors against sigma, with diagonals.

        Raises:
            PortfolioError: if matplotlib is not installed.
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
            title=f"Errors by sigma, mean squared z {self.mean_square:.2f}",
            xlabel="sigma forecast (root mean square of a tenth)",
            ylabel="error (root mean square)",
            xlim=span,
            ylim=span,
            aspect="equal",
        )
        return figure
