"""Oracles: the best portfolios in hindsight, fitted to the bars they are evaluated on."""

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.base import Weights
from baselines.online.base import relatives
from baselines.online.simplex import log_optimal
from baselines.portfolio_model import PortfolioModel, portfolio
from portfolio_env.errors import ArgumentError
from portfolio_env.market.panel import FloatArray, PricePanel
from portfolio_env.market.timeline import time_text


class Hindsight(PortfolioModel):
    """Portfolio chosen with knowledge of the evaluation: an upper bound, not a competitor.

    ``fit(panel, (start, end))`` gives it the bars of the evaluation. It chooses among the assets
    with a price at all of them.
    """

    oracle = True
    shorts = False

    def target(self, past: PricePanel) -> Weights:
        """Return the fitted portfolio, restricted to what can be traded now."""
        if self.fit_period is None:
            raise ArgumentError(
                f"{type(self).__name__} is chosen in hindsight: call fit(panel, (start, end)) with "
                "the bars it is to be judged on."
            )
        tradable = past.tradable[-1]
        return portfolio(tradable, self.chosen[tradable])

    def _fit(self, bars: PricePanel) -> None:
        known: NDArray[np.bool_] = np.all(np.isfinite(bars.close), axis=0)
        if not known.any():
            raise ArgumentError(
                f"no asset has a price at every bar from {time_text(bars.timestamps[0])} to "
                f"{time_text(bars.timestamps[-1])}; give a shorter fit_period."
            )
        self.chosen: Weights = np.zeros(len(known))
        self.chosen[known] = self.best(np.array(list(relatives(bars.close[:, known]))))

    def state(self) -> dict[str, Any]:
        """Return the chosen portfolio."""
        return {"chosen": self.chosen} if self.fit_period else {}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the chosen portfolio, see ``Baseline``."""
        self.chosen = state["chosen"]

    @abstractmethod
    def best(self, relatives: FloatArray) -> Weights:
        """Return (N,) weights, from the (T, N) relatives of the evaluation."""


class BestAsset(Hindsight):
    """The asset that rose most, from the first bar to the last."""

    def best(self, relatives: FloatArray) -> Weights:
        """Return all on the asset with the largest product of relatives; the first of equals."""
        return np.eye(relatives.shape[1])[relatives.prod(axis=0).argmax()]


class BestConstantRebalanced(Hindsight):
    """BCRP: the constant rebalanced portfolio of largest growth without costs, in hindsight.

    Cover (1991), "Universal Portfolios", Mathematical Finance 1.
    """

    source = 'Cover (1991), "Universal Portfolios", Mathematical Finance 1'

    def best(self, relatives: FloatArray) -> Weights:
        """Return the log-optimal weights, to an excess of 1e-12."""
        return log_optimal(relatives)
