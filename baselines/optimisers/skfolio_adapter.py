"""Adapter of skfolio for arrays: everything that the optimisers take from it.

Its modules move between minor versions; this is the one place that follows them. Returns are
(T, n), moments are per bar, weights are (n,) and sum to 1.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skfolio import RiskMeasure
from skfolio.cluster import HierarchicalClustering, LinkageMethod
from skfolio.distance import (
    BaseDistance,
    DistanceCorrelation,
    KendallDistance,
    MutualInformation,
    PearsonDistance,
    SpearmanDistance,
)
from skfolio.exceptions import OptimizationError
from skfolio.moments import (
    OAS,
    EmpiricalCovariance,
    EmpiricalMu,
    EWCovariance,
    EWMu,
    GerberCovariance,
    LedoitWolf,
    ShrunkMu,
)
from skfolio.optimization import (
    BaseOptimization,
    HierarchicalEqualRiskContribution,
    HierarchicalRiskParity,
    MeanRisk,
    ObjectiveFunction,
    RiskBudgeting,
)
from skfolio.prior import BasePrior, ReturnDistribution
from skfolio.seriation import HierarchicalSeriation

from portfolio_env.errors import PortfolioError
from portfolio_env.market.panel import FloatArray

if TYPE_CHECKING:
    from baselines.optimisers.base import Problem

# tolerances of the duality gap, in usual variances: rounding can keep the solver from the first
_TOLERANCES = (1e-10, 1e-6)
_NEAR = 1e-7  # the solver is no more accurate than this

DISTANCES: dict[str, type[BaseDistance]] = {
    "correlation": PearsonDistance,
    "kendall": KendallDistance,
    "spearman": SpearmanDistance,
    "distance_correlation": DistanceCorrelation,
    "mutual_information": MutualInformation,
}


def mean(name: str, returns: FloatArray) -> FloatArray:
    """Return (n,) expected returns by an estimator of ``MEANS``."""
    estimators = {
        "sample": EmpiricalMu(),
        "exponential": EWMu(half_life=len(returns) / 4, min_observations=1),
        # a sample covariance of few bars could not be inverted
        "james_stein": ShrunkMu(covariance_estimator=LedoitWolf()),
    }
    return np.asarray(estimators[name].fit(returns).mu_)


def covariance(name: str, returns: FloatArray) -> FloatArray:
    """Return (n, n) covariance by an estimator of ``COVARIANCES``."""
    estimators = {
        "sample": EmpiricalCovariance(nearest=False),
        "ledoit_wolf": LedoitWolf(nearest=False),
        "oas": OAS(nearest=False),
        "exponential": EWCovariance(half_life=len(returns) / 4, min_observations=1, nearest=False),
        "gerber": GerberCovariance(nearest=False),
    }
    return np.asarray(estimators[name].fit(returns).covariance_)


def minimum_variance(
    problem: Problem,
    covariance: FloatArray,
    mean: FloatArray | None = None,
    least: ArrayLike | None = None,
) -> FloatArray:
    """Return minimum-variance weights; with ``least``, of portfolios with that expected return.

    Args:
        problem: Problem whose bounds apply.
        covariance: (n, n).
        mean: (n,) expected returns; needed with ``least``.
        least: A number, or (k,) of them.

    Returns:
        (n,) weights, or (k, n).
    """
    unit = _unit(covariance)
    mean = np.zeros(len(covariance)) if mean is None else mean
    return _solve(
        problem,
        MeanRisk(
            prior_estimator=_Given(mean / unit, covariance / unit**2),
            min_return=None if least is None else np.asarray(least) / unit,
            min_weights=problem.low,
            max_weights=problem.high,
            max_short=_most_short(problem),
        ),
    )


def maximum_sharpe(
    problem: Problem, mean: FloatArray, covariance: FloatArray, risk_free: float
) -> FloatArray:
    """Return the weights of largest ``(w' mean - risk_free) / sqrt(w' C w)``, some above that rate.

    Charnes & Cooper (1962), "Programming with linear fractional functionals": the ratio's convex
    equivalent.
    """
    unit = _unit(covariance)
    return _solve(
        problem,
        MeanRisk(
            objective_function=ObjectiveFunction.MAXIMIZE_RATIO,
            # with the variance in its place the solver fails where the best excess is small
            risk_measure=RiskMeasure.STANDARD_DEVIATION,
            prior_estimator=_Given(mean / unit, covariance / unit**2),
            risk_free_rate=risk_free / unit,
            min_weights=problem.low,
            max_weights=problem.high,
            max_short=_most_short(problem),
        ),
    )


def risk_budgeting(problem: Problem, covariance: FloatArray, budgets: FloatArray) -> FloatArray:
    """Return weights with risk contributions proportional to the budgets (n,), within bounds."""
    unit = _unit(covariance)
    return _solve(
        problem,
        RiskBudgeting(
            prior_estimator=_Given(np.zeros(len(budgets)), covariance / unit**2),
            risk_budget=budgets,
            min_weights=problem.low,
            max_weights=problem.high,
        ),
    )


def hierarchical_risk_parity(
    problem: Problem, covariance: FloatArray, distance: str, linkage: str, optimal_order: bool
) -> FloatArray:
    """Return the weights by recursive bisection of the leaves of a tree of the assets."""
    return _fit(
        problem,
        HierarchicalRiskParity(
            prior_estimator=_Given(np.zeros(len(covariance)), covariance),
            distance_estimator=DISTANCES[distance](),
            seriation_estimator=HierarchicalSeriation(
                hierarchical_clustering_estimator=_tree(linkage), optimal_ordering=optimal_order
            ),
            min_weights=problem.low,
            max_weights=problem.high,
        ),
    )


def hierarchical_equal_risk(
    problem: Problem, covariance: FloatArray, distance: str, linkage: str
) -> FloatArray:
    """Return risk parity between the clusters of a tree, inverse variances within each."""
    return _fit(
        problem,
        HierarchicalEqualRiskContribution(
            prior_estimator=_Given(np.zeros(len(covariance)), covariance),
            distance_estimator=DISTANCES[distance](),
            hierarchical_clustering_estimator=_tree(linkage),
            min_weights=problem.low,
            max_weights=problem.high,
        ),
    )


def clusters(returns: FloatArray, distance: str, linkage: str) -> NDArray[np.int64]:
    """Return (n,) the cluster of a tree that each asset belongs to, counted from 0.

    How many there are is where the second difference of the gap statistic is largest.
    """
    apart = DISTANCES[distance]().fit(returns).distance_
    return np.asarray(_tree(linkage).fit(apart).labels_, np.int64)


class _Given(BasePrior):  # type: ignore[misc] # skfolio has no types
    """Moments that are known already."""

    def __init__(self, mean: FloatArray, covariance: FloatArray) -> None:
        self.mean, self.covariance = mean, covariance

    def fit(self, X: FloatArray, y: None = None, **routed: Any) -> _Given:  # noqa: N803  # skfolio's
        self.return_distribution_ = ReturnDistribution(self.mean, self.covariance, X)
        return self


def _tree(linkage: str) -> HierarchicalClustering:
    return HierarchicalClustering(linkage_method=LinkageMethod[linkage.upper()])


def _most_short(problem: Problem) -> float | None:
    """Return the largest sum of short positions; None where there are none."""
    return problem.short if problem.low < 0 else None


def _unit(covariance: FloatArray) -> float:
    """Return a typical deviation: in its units the solver's absolute tolerances are small."""
    return float(np.sqrt(np.median(np.diag(covariance))))


def _solve(problem: Problem, estimator: BaseOptimization) -> FloatArray:
    """Return the weights of an interior-point method, which ends near the bounds, not on them."""
    for tolerance in _TOLERANCES:
        estimator.set_params(solver_params={"tol_gap_abs": tolerance, "tol_gap_rel": tolerance})
        try:
            weights = _fit(problem, estimator)
            break
        except PortfolioError:
            if tolerance == _TOLERANCES[-1]:
                raise
    at_low, at_high = weights < problem.low + _NEAR, weights > problem.high - _NEAR
    weights = np.where(at_low, problem.low, np.where(at_high, problem.high, weights))
    between = ~(at_low | at_high)
    missing = 1 - weights.sum(axis=-1, keepdims=True)
    return weights + between * missing / np.maximum(between.sum(axis=-1, keepdims=True), 1)


def _fit(problem: Problem, estimator: BaseOptimization) -> FloatArray:
    try:
        with warnings.catch_warnings():
            # so solutions are reported that are short of the tolerance
            warnings.simplefilter("error", UserWarning)
            weights = estimator.fit(problem.returns).weights_
    except (OptimizationError, UserWarning) as error:
        raise PortfolioError(
            f"{type(estimator).__name__} found no weights of {len(problem.assets)} assets at "
            f"{problem.date} ({error}); take a longer lookback or a shrunk covariance."
        ) from error
    return np.asarray(weights, np.float64)
