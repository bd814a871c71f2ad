"""Portfolios from a tree of the assets: hierarchical risk parity and equal risk contributions."""

from baselines.base import Every
from baselines.optimisers.base import COVARIANCES, Optimiser, Problem, adapter, one_of
from portfolio_env.constraints import PortfolioConstraints
from portfolio_env.market import Market
from portfolio_env.panel import FloatArray

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
    weights. The covariance is never inverted. The paper's code takes the distances between columns
    of the distance matrix for the tree; here the tree is of the distances themselves. Bounds of the
    weights limit every split.

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        lookback: See ``Optimiser``.
        linkage: One of ``LINKAGES``.
        distance: One of ``DISTANCES``.
        optimal_order: Flip the branches so that neighbours are close (Bar-Joseph et al., 2001,
            Bioinformatics 17) instead of leaving them as the tree was built.
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
        covariance: str = "sample",
    ) -> None:
        super().__init__(market, constraints=constraints, every=every, lookback=lookback)
        self.linkage = one_of("linkage", linkage, LINKAGES)
        self.distance = one_of("distance", distance, DISTANCES)
        self.optimal_order = optimal_order
        self.covariance = one_of("covariance", covariance, COVARIANCES)

    def allocate(self, problem: Problem) -> FloatArray:
        """The weights (n,) of the recursive bisection."""
        library = adapter()
        covariance = library.covariance(self.covariance, problem.returns)
        return library.hierarchical_risk_parity(
            problem, covariance, self.distance, self.linkage, self.optimal_order
        )


class HierarchicalEqualRisk(Optimiser):
    """HERC: clusters of the tree, and risk shared down the tree between them.

    Raffinot (2018), "The Hierarchical Equal Risk Contribution Portfolio", SSRN 3237540. How many
    there are is where the second difference of the gap statistic is largest. Inverse
    variances within each cluster; the variances of clusters at these weights share the weight at
    every split of the tree that joins them.

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
        self.linkage = one_of("linkage", linkage, LINKAGES)
        self.distance = one_of("distance", distance, DISTANCES)
        self.covariance = one_of("covariance", covariance, COVARIANCES)

    def allocate(self, problem: Problem) -> FloatArray:
        """The weights (n,) down the tree."""
        library = adapter()
        covariance = library.covariance(self.covariance, problem.returns)
        return library.hierarchical_equal_risk(problem, covariance, self.distance, self.linkage)
