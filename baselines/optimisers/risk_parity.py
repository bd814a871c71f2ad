"""Risk parity: every asset contributes its share to the risk of the portfolio."""

from collections.abc import Mapping

import numpy as np

from baselines.optimisers.base import COVARIANCES, Optimiser, Problem, adapter
from baselines.rows import Every
from portfolio_env.checks import check_choice
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.market.panel import FloatArray
from portfolio_env.names import indices_of
from portfolio_env.simulation.constraints import PortfolioConstraints


class RiskParity(Optimiser):
    """Weights whose shares of the variance, ``w_i (C w)_i / w'Cw``, are as the risk budgets.

    Maillard, Roncalli & Teiletche (2010), "The Properties of Equally Weighted Risk Contribution
    Portfolios", J. of Portfolio Management 36; budgets: Bruder & Roncalli (2012), SSRN 2009778.
    Bounds of the weights come first: where they bind, contributions are off their budgets.

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        lookback: See ``Optimiser``.
        budgets: Positive shares of the risk by the name of every asset, normalised over those that
            can be held; None for equal budgets.
        covariance: One of ``COVARIANCES``.
    """

    source = (
        'Maillard, Roncalli & Teiletche (2010), "Equally Weighted Risk Contribution Portfolios"'
    )

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = "month",
        lookback: int = 252,
        budgets: Mapping[str, float] | None = None,
        covariance: str = "ledoit_wolf",
    ) -> None:
        super().__init__(market, constraints=constraints, every=every, lookback=lookback)
        self.covariance = check_choice("covariance", covariance, COVARIANCES)
        self.budgets = None if budgets is None else dict(budgets)
        self._budgets = np.ones(market.n_assets)
        if self.budgets is not None:
            given = np.zeros(market.n_assets)
            given[indices_of("asset", list(self.budgets), market.assets)] = [*self.budgets.values()]
            if not ((given > 0) & np.isfinite(given)).all():
                raise ArgumentError(
                    f"budgets={self.budgets!r}: give every asset of {market.assets} a positive "
                    "number."
                )
            self._budgets = given

    def allocate(self, problem: Problem) -> FloatArray:
        """Return the weights (n,) at which contributions are as budgeted."""
        library = adapter()
        covariance = library.covariance(self.covariance, problem.returns)
        budgets = self._budgets[problem.assets]
        return library.risk_budgeting(problem, covariance, budgets / budgets.sum())
