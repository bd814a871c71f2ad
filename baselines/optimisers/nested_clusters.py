"""Nested clustered optimisation: mean-variance within clusters of assets, then between them."""

from dataclasses import replace

import numpy as np

from baselines.base import Every
from baselines.optimisers.base import Problem, adapter, one_of
from baselines.optimisers.hierarchical import DISTANCES, LINKAGES
from baselines.optimisers.mean_variance import MeanVariance
from portfolio_env.constraints import PortfolioConstraints
from portfolio_env.market import Market
from portfolio_env.panel import FloatArray


class NestedClusters(MeanVariance):
    """NCO: optimal weights within every cluster, then of the clusters' portfolios.

    Lopez de Prado (2019), "A Robust Estimator of the Efficient Frontier", SSRN 3469961; his
    "Machine Learning for Asset Managers" (2020), section 7.4. With W (n, k) the optimal weights of
    the assets within each of the k clusters and v (k,) those of the k portfolios W'r, the weights
    are W v. A covariance of correlated assets is inverted in small blocks only, where its errors
    stay. The clusters are those of ``HierarchicalEqualRisk`` (the papers take k-means), and moments
    are estimated of each cluster's returns and of the portfolios' returns, so of the sample
    covariance C that of the portfolios is W'CW. Portfolios are long-only at both steps; bounds of
    the weights come last: the weights within them that are nearest to W v.

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        lookback: See ``Optimiser``.
        objective: Of both steps, "min_variance" or "max_sharpe", see ``MeanVariance``; a cluster of
            which nothing exceeds the risk-free rate is given its least variance.
        risk_free_rate: Per year; for "max_sharpe".
        linkage: One of ``LINKAGES``.
        distance: One of ``DISTANCES``.
        mean: One of ``MEANS``; for "max_sharpe".
        covariance: One of ``COVARIANCES``.

    Attributes:
        fallbacks: Bars at which a step, of one cluster at least, took the least variance instead.
    """

    source = 'Lopez de Prado (2019), "A Robust Estimator of the Efficient Frontier", SSRN 3469961'

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = "month",
        lookback: int = 756,
        objective: str = "min_variance",
        risk_free_rate: float = 0.05,
        linkage: str = "ward",
        distance: str = "correlation",
        mean: str = "sample",
        covariance: str = "ledoit_wolf",
    ) -> None:
        super().__init__(
            market,
            constraints=constraints,
            every=every,
            lookback=lookback,
            objective=one_of("objective", objective, ("min_variance", "max_sharpe")),
            risk_free_rate=risk_free_rate,
            min_weight=0.0,
            max_weight=1.0,
            mean=mean,
            covariance=covariance,
        )
        self.linkage = one_of("linkage", linkage, LINKAGES)
        self.distance = one_of("distance", distance, DISTANCES)

    def allocate(self, problem: Problem) -> FloatArray:
        """The weights (n,) of both steps, long-only."""
        labels = adapter().clusters(problem.returns, self.distance, self.linkage)
        within = np.zeros((len(labels), labels.max() + 1))
        for cluster in range(labels.max() + 1):
            members = np.flatnonzero(labels == cluster)
            within[members, cluster] = self._optimal(problem, problem.returns[:, members])
        return within @ self._optimal(problem, problem.returns @ within)

    def _optimal(self, problem: Problem, returns: FloatArray) -> FloatArray:
        """The long-only optimum (m,) of these returns (lookback, m), a step of the problem."""
        m = returns.shape[1]
        step = replace(problem, assets=np.arange(m), returns=returns, low=0.0, high=1.0)
        return np.ones(1) if m == 1 else super().allocate(step)
