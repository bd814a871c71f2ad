"""Follow the loser: portfolios that move towards what a forecast says will recover."""

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from baselines.base import Weights
from baselines.online.base import FLAT, OnlineModel
from baselines.online.simplex import onto_simplex
from portfolio_env.checks import check_integer, check_number
from portfolio_env.compiled import kernel
from portfolio_env.market import Market
from portfolio_env.market.panel import FloatArray


def passive_aggressive(b: Weights, direction: FloatArray, loss: float) -> Weights:
    """Return the nearest portfolio whose product with ``direction`` is greater by ``loss``.

    ``b + loss / |d - mean(d)|^2 (d - mean(d))``, projected onto the simplex afterwards. Crammer et
    al. (2006), "Online Passive-Aggressive Algorithms", JMLR 7.

    Args:
        b: (N,) weights.
        direction: (N,); if it is the same for all assets, nothing is to be gained.
        loss: Nothing is done unless it is positive.
    """
    centred = direction - direction.mean()
    square = centred @ centred
    if loss <= 0 or square <= FLAT:
        return b
    return onto_simplex(b + loss / square * centred)


class PAMR(OnlineModel):
    """Passive-aggressive mean reversion: away from assets that brought more than ``epsilon``.

    Li, Zhao, Hoi & Gopalkrishnan (2012), "PAMR: Passive Aggressive Mean Reversion Strategy for
    Portfolio Selection", Machine Learning 87.

    Args:
        market: The market its environments trade.
        epsilon: Sensitivity, >= 0: a return b' x above it is a loss.
        **options: See ``OnlineModel``.
    """

    source = 'Li, Zhao, Hoi & Gopalkrishnan (2012), "PAMR", Machine Learning 87'

    def __init__(self, market: Market, *, epsilon: float = 0.5, **options: Any) -> None:
        super().__init__(market, **options)
        self.epsilon = check_number("epsilon", epsilon, 0)

    def portfolios(self, relatives: Iterator[FloatArray]) -> Iterator[Weights]:
        """Return the portfolios, one update per bar."""
        b = self.uniform()
        yield b
        for x in relatives:
            b = passive_aggressive(b, -x, float(b @ x) - self.epsilon)
            yield b


class Reversion(OnlineModel):
    """Move to the nearest portfolio with a forecast of ``epsilon``, where the forecast is less.

    Args:
        market: The market its environments trade.
        epsilon: Threshold, >= 0: a forecast return below it is a loss.
        **options: See ``OnlineModel``.
    """

    def __init__(self, market: Market, *, epsilon: float, **options: Any) -> None:
        super().__init__(market, **options)
        self.epsilon = check_number("epsilon", epsilon, 0)

    @abstractmethod
    def forecasts(self, relatives: Iterator[FloatArray]) -> Iterator[FloatArray]:
        """Return forecasts (N,) of the next relatives, one per relative taken; all 1 is none."""

    def portfolios(self, relatives: Iterator[FloatArray]) -> Iterator[Weights]:
        """Return the portfolios, one forecast and one update per bar."""
        b = self.uniform()
        yield b
        for forecast in self.forecasts(relatives):
            b = passive_aggressive(b, forecast, self.epsilon - float(b @ forecast))
            yield b


class OLMAR2(Reversion):
    """On-line moving average reversion to an exponential moving average of prices.

    The forecast of the next relatives is ``phi = alpha + (1 - alpha) phi / x``. Li, Hoi, Sahoo &
    Liu (2015), "Moving Average Reversion Strategy for On-Line Portfolio Selection", Artificial
    Intelligence 222.

    Args:
        market: The market its environments trade.
        epsilon: See ``Reversion``.
        alpha: Decay of the average, in [0, 1].
        **options: See ``OnlineModel``.
    """

    source = 'Li, Hoi, Sahoo & Liu (2015), "Moving Average Reversion Strategy", AIJ 222'

    def __init__(
        self, market: Market, *, epsilon: float = 10.0, alpha: float = 0.5, **options: Any
    ) -> None:
        super().__init__(market, epsilon=epsilon, **options)
        self.alpha = check_number("alpha", alpha, 0, 1)

    def forecasts(self, relatives: Iterator[FloatArray]) -> Iterator[FloatArray]:
        """Return averages of prices over the last prices."""
        forecast = np.ones(self.market.n_assets)
        for x in relatives:
            forecast = self.alpha + (1 - self.alpha) * forecast / x
            yield forecast


class WindowReversion(Reversion):
    """Reversion to an average of the last ``window`` prices, the present one among them.

    Prices are in units of those after the first relative. As in the authors' code, the forecast is
    the last relative until there is a window.

    Args:
        market: The market its environments trade.
        epsilon: See ``Reversion``.
        window: Prices that are averaged, 2 or more.
        **options: See ``OnlineModel``.
    """

    idle: ClassVar[int]  # relatives before the first update

    def __init__(self, market: Market, *, epsilon: float, window: int = 5, **options: Any) -> None:
        super().__init__(market, epsilon=epsilon, **options)
        self.window = check_integer("window", window, 2)

    @abstractmethod
    def average(self, prices: FloatArray) -> FloatArray:
        """Return (N,) the prices that (window, N) prices are expected to revert to."""

    def forecasts(self, relatives: Iterator[FloatArray]) -> Iterator[FloatArray]:
        """Return averages of the last prices over the last."""
        price = none = np.ones(self.market.n_assets)
        prices: deque[FloatArray] = deque(maxlen=self.window)
        for seen, x in enumerate(relatives, 1):
            price = price * x if prices else price
            prices.append(price)
            forecast = x if seen <= self.window else self.average(np.array(prices)) / price
            yield forecast if seen > self.idle else none


class OLMAR1(WindowReversion):
    """On-line moving average reversion to the simple moving average of prices.

    Li & Hoi (2012), "On-Line Portfolio Selection with Moving Average Reversion", ICML.

    Args:
        market: The market its environments trade.
        epsilon: See ``Reversion``.
        **options: See ``WindowReversion``.
    """

    source = 'Li & Hoi (2012), "On-Line Portfolio Selection with Moving Average Reversion", ICML'
    idle = 1

    def __init__(self, market: Market, *, epsilon: float = 10.0, **options: Any) -> None:
        super().__init__(market, epsilon=epsilon, **options)

    def average(self, prices: FloatArray) -> FloatArray:
        """Return (N,) means."""
        return prices.mean(axis=0)


class RMR(WindowReversion):
    """Robust median reversion: to the geometric median of the last prices.

    Huang, Zhou, Li, Hoi & Zhou (2016), "Robust Median Reversion Strategy for Online Portfolio
    Selection", IEEE TKDE 28.

    Args:
        market: The market its environments trade.
        epsilon: See ``Reversion``.
        **options: See ``WindowReversion``.
    """

    source = 'Huang, Zhou, Li, Hoi & Zhou (2016), "Robust Median Reversion Strategy", TKDE 28'
    idle = 0

    def __init__(self, market: Market, *, epsilon: float = 5.0, **options: Any) -> None:
        super().__init__(market, epsilon=epsilon, **options)

    def average(self, prices: FloatArray) -> FloatArray:
        """Return (N,) the geometric median."""
        return geometric_median(prices, np.median(prices, axis=0))


@kernel
def geometric_median(points: FloatArray, start: FloatArray) -> FloatArray:
    """Return the point whose distances to the given ones have the least sum.

    Vardi & Zhang (2000), "The multivariate L1-median and associated data depth", PNAS 97,
    until a step is below 1e-9 of the point, or 200 are done.

    Args:
        points: (K, N).
        start: (N,), where the iteration begins.

    Returns:
        (N,) float64.
    """
    y = start.copy()
    for _ in range(200):
        pull, weights, touching = np.zeros_like(y), 0.0, 0.0
        for k in range(len(points)):
            away = points[k] - y
            distance = np.sqrt((away * away).sum())
            if distance > 1e-15:
                pull += away / distance
                weights += 1 / distance
            else:
                touching += 1
        force = np.sqrt((pull * pull).sum())
        if force <= touching or weights == 0:
            break
        step = (1 - touching / force) / weights * pull
        y += step
        if np.abs(step).sum() <= 1e-9 * np.abs(y).sum():
            break
    return y
