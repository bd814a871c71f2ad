"""Follow the winner: portfolios that move towards what has grown most."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from baselines.base import Weights
from baselines.online.base import OnlineModel
from baselines.online.simplex import least_quadratic
from portfolio_env.checks import check_number
from portfolio_env.market import Market
from portfolio_env.market.panel import FloatArray


class ExponentiatedGradient(OnlineModel):
    """EG: ``b_i`` grows by ``exp(eta x_i / (b' x))``, then all are normalised.

    Helmbold, Schapire, Singer & Warmuth (1998), "On-Line Portfolio Selection Using Multiplicative
    Updates", Mathematical Finance 8.

    Args:
        market: The market its environments trade.
        eta: Learning rate, >= 0; 0 is the uniform constant rebalanced portfolio.
        **options: See ``OnlineModel``.
    """

    source = 'Helmbold et al. (1998), "On-Line Portfolio Selection Using Multiplicative Updates"'

    def __init__(
        self,
        market: Market,
        *,
        eta: float = 0.05,
        **options: Any,
    ) -> None:
        super().__init__(market, **options)
        self.eta = check_number("eta", eta, 0)

    def portfolios(self, relatives: Iterator[FloatArray]) -> Iterator[Weights]:
        """Return the portfolios, one multiplicative update per bar."""
        b = self.uniform()
        yield b
        for x in relatives:
            b = b * np.exp(self.eta * x / (b @ x))
            b /= b.sum()
            yield b


class OnlineNewtonStep(OnlineModel):
    """ONS: the sum of gradients through the inverse of the sum of their squares.

    With ``g = x / (b' x)``, ``A = I + sum g g'`` and ``v = (1 + 1 / beta) sum g``, the next
    portfolio is the projection of ``delta A^-1 v`` onto the simplex in the norm of A, mixed with
    ``eta`` of the uniform one. Agarwal, Hazan, Kale & Schapire (2006), "Algorithms for Portfolio
    Management Based on the Newton Method", ICML.

    Args:
        market: The market its environments trade.
        eta: Share of the uniform portfolio, in [0, 1].
        beta: > 0.
        delta: > 0.
        **options: See ``OnlineModel``.
    """

    source = "Agarwal et al. (2006), Algorithms for Portfolio Management Based on the Newton Method"

    def __init__(
        self,
        market: Market,
        *,
        eta: float = 0.0,
        beta: float = 1.0,
        delta: float = 0.125,
        **options: Any,
    ) -> None:
        super().__init__(market, **options)
        self.eta = check_number("eta", eta, 0, 1)
        self.beta = check_number("beta", beta, 1e-9)
        self.delta = check_number("delta", delta, 1e-9)

    def portfolios(self, relatives: Iterator[FloatArray]) -> Iterator[Weights]:
        """Return the portfolios, one Newton step per bar."""
        uniform = b = projected = self.uniform()
        squares, gradients = np.eye(len(b)), np.zeros(len(b))
        yield b
        for x in relatives:
            gradient = x / (b @ x)
            squares += np.outer(gradient, gradient)
            gradients += gradient
            # the nearest point in the norm of A to A^-1 c minimises w' A w / 2 - c' w
            linear = self.delta * (1 + 1 / self.beta) * gradients
            projected = least_quadratic(squares, linear, projected)
            b = (1 - self.eta) * projected + self.eta * uniform
            yield b
