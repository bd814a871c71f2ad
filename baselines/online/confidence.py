"""Confidence-weighted mean reversion: a normal distribution over portfolios."""

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from baselines.base import Weights
from baselines.online.base import FLAT, OnlineModel
from baselines.online.simplex import onto_simplex
from portfolio_env.checks import check_number
from portfolio_env.market import Market
from portfolio_env.market.panel import FloatArray


def largest_root(a: float, b: float, c: float) -> float:
    """Return the largest root of ``a y^2 + b y + c`` if it is real and positive, else 0.

    >>> largest_root(1.0, -3.0, 2.0), largest_root(0.0, 2.0, -1.0), largest_root(1.0, 0.0, 1.0)
    (2.0, 0.5, 0.0)
    """
    discriminant = b * b - 4 * a * c
    if discriminant <= 0:
        return 0.0
    larger = -(b + math.copysign(math.sqrt(discriminant), b)) / 2  # rounding noise of equal terms
    return max(larger / a if a != 0 else 0.0, c / larger, 0.0)


class ConfidenceWeighted(OnlineModel):
    """CWMR: the distribution of portfolios nearest to the last one that is likely to have lost.

    Portfolios are normal with mean ``mu`` and diagonal covariance ``s``; the next distribution is
    the nearest by Kullback-Leibler divergence for which the return of the last bar was below
    ``epsilon`` with confidence ``phi``, then ``mu`` is projected onto the simplex and ``s`` scaled
    to the sum 1 / N. The portfolio is the mean. Li, Hoi, Zhao & Gopalkrishnan (2013), "Confidence
    Weighted Mean Reversion Strategy for Online Portfolio Selection", ACM TKDD 7.

    Args:
        market: The market its environments trade.
        phi: Confidence, > 0, as a quantile of the normal distribution: 1.65 is 95 %.
        epsilon: Sensitivity, >= 0.
        **options: See ``OnlineModel``.
    """

    source = 'Li, Hoi, Zhao & Gopalkrishnan (2013), "Confidence Weighted Mean Reversion", TKDD 7'

    def __init__(
        self,
        market: Market,
        *,
        phi: float = 2.0,
        epsilon: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(market, **options)
        self.phi = check_number("phi", phi, 1e-9)
        self.epsilon = check_number("epsilon", epsilon, 0)

    @abstractmethod
    def step(self, excess: float, v: float, gain: float) -> tuple[float, float]:
        """Return the multiplier of the constraint, and what ``x^2`` adds to the inverse covariance.

        Args:
            excess: ``epsilon - mu' x``.
            v: Variance of the return, ``sum s x^2``.
            gain: Reduction of the return per unit of the multiplier, ``sum s (x - mean_s(x))^2``.
        """

    def portfolios(self, relatives: Iterator[FloatArray]) -> Iterator[Weights]:
        """Return the portfolios after one update of the distribution per bar."""
        mu = self.uniform()
        s = mu / len(mu)
        yield mu
        for x in relatives:
            centred = x - (s @ x) / s.sum()
            if centred @ centred > FLAT:
                v, gain = float(s @ x**2), float(s @ centred**2)
                multiplier, precision = self.step(self.epsilon - float(mu @ x), v, gain)
                mu = onto_simplex(mu - multiplier * s * centred)
                s = 1 / (1 / s + precision * x**2)
                s /= s.sum() * len(s)
            yield mu


class CWMRStdev(ConfidenceWeighted):
    """CWMR whose constraint is linear in the standard deviation of the return."""

    def step(self, excess: float, v: float, gain: float) -> tuple[float, float]:
        """Solve the constraint with equality: a quadratic in the multiplier."""
        square = self.phi**2 * v
        multiplier = largest_root(
            gain * (gain + square), 2 * excess * (gain + square / 2), excess**2 - square
        )
        shift = multiplier * self.phi * v
        deviation = 2 * v / (shift + math.sqrt(shift**2 + 4 * v))
        return multiplier, multiplier * self.phi / deviation


class CWMRVar(ConfidenceWeighted):
    """CWMR whose constraint is linear in the variance of the return."""

    def step(self, excess: float, v: float, gain: float) -> tuple[float, float]:
        """Solve the constraint with equality: a quadratic in the multiplier."""
        multiplier = largest_root(
            2 * self.phi * v * gain, 2 * self.phi * v * excess + gain, excess - self.phi * v
        )
        return multiplier, 2 * multiplier * self.phi
