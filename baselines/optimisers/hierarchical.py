"""Portfolios from a tree of the assets: HRP, equal risk contributions, nested clusters."""

from dataclasses import replace

import numpy as np

from baselines.optimisers.base import COVARIANCES, Optimiser, Problem, adapter
from baselines.optimisers.mean_variance import MeanVariance
from baselines.rows import Every
from portfolio_env.checks import check_choice
from portfolio_env.market import Market
from portfolio_env.market.panel import FloatArray
from portfolio_env.market.rates import Rate
from portfolio_env.simulation.constraints import PortfolioConstraints

LINKAGES = ("single", "complete", "average", "weighted", "centroid", "median", "ward")
"""How far apart two clusters are, by scipy's names."""
DISTANCES = ("correlation", "kendall", "spearman", "distance_correlation", "mutual_information")
"""How far apart two assets are: sqrt((1 - rho) / 2) with Pearson's rho for "correlation", or with
Kendall's or Spearman's; or by dependence of any kind, which takes seconds for many assets."""


class HierarchicalRiskParity(Optimiser):
    """HRP: assets are put in the order of a tree, and risk is shared by halving that order.

    Lopez de Prado (2016), "Building Diversified Portfolios that Outperform Out of Sample", J. of
    Portfolio Management 42. The tree joins what is least apart; its leaves from left to right are
    the order; the order is halved again and again, and of the weight that two halves share the left
    one gets ``1 - v_l / (v_l + v_r)``, with v the variances of the halves at inverse-variance
    weights. The covariance is never inverted. The paper's tree joins assets whose rows of the
    distance matrix are least apart (``distance_of_rows=True``); by default it is of the distances
    themselves. Bounds of the weights limit every split.

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        lookback: See ``Optimiser``.
        linkage: One of ``LINKAGES``.
        distance: One of ``DISTANCES``.
        optimal_order: Flip the branches so that neighbours are close (Bar-Joseph et al., 2001,
            Bioinformatics 17) instead of leaving them as the tree was built.
        distance_of_rows: Take Euclidean distances between the rows of the distance matrix for the
            tree, as the paper does: assets are near that are as far from all others.
        covariance: One of ``COVARIANCES``, of the variances v.
    """

    source = (
        'Lopez de Prado (2016), "Building Diversified Portfolios that Outperform Out of Sample"'
    )

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = "month",
        lookback: int = 756,
        linkage: str = "single",
        distance: str = "correlation",
        optimal_order: bool = False,
        distance_of_rows: bool = False,
        covariance: str = "sample",
    ) -> None:
        super().__init__(market, constraints=constraints, every=every, lookback=lookback)
        self.linkage = check_choice("linkage", linkage, LINKAGES)
        self.distance = check_choice("distance", distance, DISTANCES)
        self.optimal_order = optimal_order
        self.distance_of_rows = distance_of_rows
        self.covariance = check_choice("covariance", covariance, COVARIANCES)

    def allocate(self, problem: Problem) -> FloatArray:
        """Return the weights (n,) of the recursive bisection."""
        library = adapter()
        covariance = library.covariance(self.covariance, problem.returns)
        return library.hierarchical_risk_parity(
            problem,
            covariance,
            self.distance,
            self.linkage,
            self.optimal_order,
            self.distance_of_rows,
        )


class HierarchicalEqualRisk(Optimiser):
    """HERC: clusters of the tree, and risk shared down the tree between them.

    Raffinot (2018), "The Hierarchical Equal Risk Contribution Portfolio", SSRN 3237540. The
    number of clusters is the one at which the second difference of the gap statistic is largest.
    Within a cluster, weights go by inverse variance; at every split of the tree above the clusters,
    the two sides share the weight in inverse proportion to the variances that their clusters have
    at these weights, summed.

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        lookback: See ``Optimiser``.
        linkage: One of ``LINKAGES``.
        distance: One of ``DISTANCES``.
        covariance: One of ``COVARIANCES``.
    """

    source = 'Raffinot (2018), "The Hierarchical Equal Risk Contribution Portfolio"'

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = "month",
        lookback: int = 756,
        linkage: str = "ward",
        distance: str = "correlation",
        covariance: str = "sample",
    ) -> None:
        super().__init__(market, constraints=constraints, every=every, lookback=lookback)
        self.linkage = check_choice("linkage", linkage, LINKAGES)
        self.distance = check_choice("distance", distance, DISTANCES)
        self.covariance = check_choice("covariance", covariance, COVARIANCES)

    def allocate(self, problem: Problem) -> FloatArray:
        """Return the weights (n,) down the tree."""
        library = adapter()
        covariance = library.covariance(self.covariance, problem.returns)
        return library.hierarchical_equal_risk(problem, covariance, self.distance, self.linkage)


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
        objective: Objective of both steps, "min_variance" or "max_sharpe", see ``MeanVariance``; a
            cluster of which nothing exceeds the risk-free rate is given its least variance.
        risk_free_rate: See ``MeanVariance``; for "max_sharpe".
        linkage: One of ``LINKAGES``.
        distance: One of ``DISTANCES``.
        mean: One of ``MEANS``; for "max_sharpe".
        covariance: One of ``COVARIANCES``.

    Attributes:
        fallbacks: Bars at which a step, of one cluster at least, took the least variance instead.
    """

    shorts = False
    source = 'Lopez de Prado (2019), "A Robust Estimator of the Efficient Frontier", SSRN 3469961'

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = "month",
        lookback: int = 756,
        objective: str = "min_variance",
        risk_free_rate: Rate = 0.0,
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
            objective=check_choice("objective", objective, ("min_variance", "max_sharpe")),
            risk_free_rate=risk_free_rate,
            min_weight=0.0,
            max_weight=1.0,
            mean=mean,
            covariance=covariance,
        )
        self.linkage = check_choice("linkage", linkage, LINKAGES)
        self.distance = check_choice("distance", distance, DISTANCES)

    def allocate(self, problem: Problem) -> FloatArray:
        """Return the weights (n,) of both steps, long-only."""
        labels = adapter().clusters(problem.returns, self.distance, self.linkage)
        within = np.zeros((len(labels), labels.max() + 1))
        for cluster in range(labels.max() + 1):
            members = np.flatnonzero(labels == cluster)
            within[members, cluster] = self._optimal(problem, problem.returns[:, members])
        # a portfolio earns nothing on what has no bar, and the return over the gap after it
        return within @ self._optimal(problem, np.nan_to_num(problem.returns) @ within)

    def _optimal(self, problem: Problem, returns: FloatArray) -> FloatArray:
        """Return the long-only optimum (m,) of the returns (lookback, m) of one step."""
        m = returns.shape[1]
        step = replace(
            problem, assets=np.arange(m), returns=returns, low=0.0, high=1.0, labels=(), groups={}
        )
        return np.ones(1) if m == 1 else super().allocate(step)
