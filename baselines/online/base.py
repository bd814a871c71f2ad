"""Base class of online portfolio selection: a recursion over price relatives, bar by bar."""

from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import numpy as np

from baselines.base import Weights
from baselines.portfolio_model import PortfolioModel, portfolio
from baselines.rows import Every, bar_of
from portfolio_env.market import Market
from portfolio_env.market.panel import FloatArray, PricePanel
from portfolio_env.market.timeline import TimeLike
from portfolio_env.simulation.constraints import PortfolioConstraints

# The squared length below which centred relatives are 0 but for rounding.
FLAT = 1e-24


class OnlineModel(PortfolioModel):
    """Algorithm that turns one portfolio into the next when a bar closes.

    Its first portfolio, at bar ``start``, is uniform. The recursion runs over all assets: one that
    has no price yet, or no longer, has the relative 1. The target is the recursion's portfolio
    without what cannot be traded now, normalised; all cash where nothing is left.

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``; the recursion knows nothing of them.
        every: See ``PortfolioModel``; the recursion runs at every bar all the same.
        start: Row or date of the bar at which the recursion starts.
    """

    shorts = False

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = 1,
        start: TimeLike = 0,
    ) -> None:
        super().__init__(market, constraints=constraints, every=every)
        self.start = bar_of(market, "start", start)
        self._restart()

    def _restart(self) -> None:
        closes = (self.market.close[row] for row in count(self.start))  # also of a longer market
        self._running = self.portfolios(relatives(closes))
        self._passed: list[Weights] = []

    @abstractmethod
    def portfolios(self, relatives: Iterator[FloatArray]) -> Iterator[Weights]:
        """Return the portfolios of the recursion, the first before any relative is taken.

        Each one is given away before the next relative is taken: that makes it blind to the future.

        Args:
            relatives: (N,) closes over the closes of the bar before, bar by bar.

        Yields:
            (N,) weights of the assets, summing to 1.
        """

    def uniform(self) -> Weights:
        """Return (N,) the initial, uniform portfolio."""
        return np.full(self.market.n_assets, 1 / self.market.n_assets)

    def target(self, past: PricePanel) -> Weights:
        """Return the portfolio after the last bar; the recursion is run from its start."""
        first = min(self.start, len(past.timestamps) - 1)
        b = deque(self.portfolios(relatives(past.close[first:])), maxlen=1)[0]
        return portfolio(past.tradable[-1], b[past.tradable[-1]])

    def _target_at(self, row: int) -> Weights:
        # continues where it stands: T targets take T steps
        place = max(0, row - self.start)
        while len(self._passed) <= place:
            self._passed.append(next(self._running))
        tradable = self.market.tradable[row]
        return portfolio(tradable, self._passed[place][tradable])

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {name: state[name] for name in state if name not in ("_running", "_passed")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._restart()


def relatives(close: Iterable[FloatArray]) -> Iterator[FloatArray]:
    """Return closes over the last known closes, bar by bar; 1 where either is unknown.

    Args:
        close: (N,) closes of every bar, NaN where there is none.

    Yields:
        (N,) for the second and every later bar, which are read when they are asked for.
    """
    rows = iter(close)
    last = next(rows)
    for row in rows:
        now = np.where(np.isnan(row), last, row)
        yield np.where(np.isnan(last), 1.0, now / last)
        last = now
