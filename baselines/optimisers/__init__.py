"""Portfolio optimisation on a look-back window: mean-variance, hierarchical, risk parity.

skfolio solves (extra ``baselines``); it is imported when the first weights are asked for.
"""

from baselines.optimisers.base import COVARIANCES, Optimiser
from baselines.optimisers.frontier import Frontier, efficient_frontier
from baselines.optimisers.hierarchical import (
    DISTANCES,
    LINKAGES,
    HierarchicalEqualRisk,
    HierarchicalRiskParity,
    NestedClusters,
)
from baselines.optimisers.mean_variance import MEANS, OBJECTIVES, MeanVariance, MinimumVariance
from baselines.optimisers.risk_parity import RiskParity

__all__ = [
    "COVARIANCES",
    "DISTANCES",
    "LINKAGES",
    "MEANS",
    "OBJECTIVES",
    "Frontier",
    "HierarchicalEqualRisk",
    "HierarchicalRiskParity",
    "MeanVariance",
    "MinimumVariance",
    "NestedClusters",
    "Optimiser",
    "RiskParity",
    "efficient_frontier",
]
