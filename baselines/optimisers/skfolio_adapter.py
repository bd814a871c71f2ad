"""Adapter of skfolio for arrays: everything that the optimisers take from it.

Its modules move between minor versions; this is the one place that follows them. Returns are
(T, n), moments are per bar, weights are (n,) and sum to 1.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist, squareform
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
from skfolio.utils.stats import cov_nearest

from baselines.optimisers.bayes_stein import predictive_covariance, shrunk_means
from baselines.optimisers.pairwise import (
    exponential_covariance,
    pairwise_covariance,
    weighted_means,
)
from baselines.windows import completed, share_known
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
    """Return (n,) expected returns per bar of the market by an estimator of ``MEANS``.

    Args:
        name: The estimator.
        returns: (T, n), NaN where an asset has no bar: its mean is then that of its own returns.
    """
    estimators = {
        "sample": EmpiricalMu(),
        "exponential": EWMu(half_life=len(returns) / 4, min_observations=1),
        # a sample covariance of few bars could not be inverted
        "james_stein": ShrunkMu(covariance_estimator=LedoitWolf()),
    }
    if name == "bayes_stein":
        return shrunk_means(mean("sample", returns), covariance("sample", returns), len(returns))
    whole = completed(returns)
    own = np.asarray(estimators[name].fit(whole).mu_)
    if whole is returns:
        return own
    if name == "exponential":
        own = np.array([weighted_means(one[:, None])[0, 0] for one in returns.T])
    return own * share_known(returns)


def covariance(name: str, returns: FloatArray) -> FloatArray:
    """Return (n, n) covariance per bar of the market by an estimator of ``COVARIANCES``.

    Args:
        name: The estimator.
        returns: (T, n), NaN where an asset has no bar. Each pair of assets is then estimated from
            the bars that both have, by "gerber" with no move where one is missing, and the
            result is made positive definite by ``skfolio.utils.stats.cov_nearest``, which clips
            eigenvalues of the correlations and leaves variances.
    """
    estimators = {
        "sample": EmpiricalCovariance(nearest=False),
        "ledoit_wolf": LedoitWolf(nearest=False),
        "oas": OAS(nearest=False),
        "exponential": EWCovariance(half_life=len(returns) / 4, min_observations=1, nearest=False),
        "gerber": GerberCovariance(nearest=False),
    }
    if name == "bayes_stein":
        return predictive_covariance(
            mean("sample", returns), covariance("sample", returns), len(returns)
        )
    whole = completed(returns)
    if whole is returns:
        return np.asarray(estimators[name].fit(returns).covariance_)
    if name == "sample":
        found = pairwise_covariance(returns)
    elif name == "exponential":
        found = exponential_covariance(returns)
    else:
        found = np.asarray(estimators[name].fit(whole).covariance_)
    if name in ("ledoit_wolf", "oas"):
        shrunk = estimators[name].shrinkage_
        sample = pairwise_covariance(returns, ddof=0)
        found = (1 - shrunk) * sample + shrunk * np.diag(sample).mean() * np.eye(len(sample))
    scale = np.sqrt(share_known(returns))
    return np.asarray(cov_nearest(found)) * np.outer(scale, scale)


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
            **_groups(problem),
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
            **_groups(problem),
        ),
    )


def maximum_utility(
    problem: Problem, mean: FloatArray, covariance: FloatArray, risk_aversion: float
) -> FloatArray:
    """Return the weights of largest ``w' mean - risk_aversion / 2 w' C w``."""
    unit = _unit(covariance)
    return _solve(
        problem,
        MeanRisk(
            objective_function=ObjectiveFunction.MAXIMIZE_UTILITY,
            prior_estimator=_Given(mean / unit, covariance / unit**2),
            risk_aversion=0.5 * risk_aversion * unit,
            min_weights=problem.low,
            max_weights=problem.high,
            max_short=_most_short(problem),
            **_groups(problem),
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
            **_groups(problem),
        ),
    )


def hierarchical_risk_parity(
    problem: Problem,
    covariance: FloatArray,
    distance: str,
    linkage: str,
    optimal_order: bool,
    of_rows: bool,
) -> FloatArray:
    """Return the weights by recursive bisection of the leaves of a tree of the assets."""
    apart = _distance(distance, problem.returns)
    return _fit(
        problem,
        HierarchicalRiskParity(
            prior_estimator=_Given(np.zeros(len(covariance)), covariance),
            distance_estimator=_OfRows(apart) if of_rows else apart,
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
            distance_estimator=_distance(distance, problem.returns),
            hierarchical_clustering_estimator=_tree(linkage),
            min_weights=problem.low,
            max_weights=problem.high,
        ),
    )


def clusters(returns: FloatArray, distance: str, linkage: str) -> NDArray[np.int64]:
    """Return (n,) the cluster of a tree that each asset belongs to, counted from 0.

    How many there are is where the second difference of the gap statistic is largest.
    """
    apart = _distance(distance, returns).fit(completed(returns)).distance_
    return np.asarray(_tree(linkage).fit(apart).labels_, np.int64)


class _Given(BasePrior):  # type: ignore[misc] # skfolio has no types
    """Moments that are known already."""

    def __init__(self, mean: FloatArray, covariance: FloatArray) -> None:
        self.mean, self.covariance = mean, covariance

    def fit(self, X: FloatArray, y: None = None, **routed: Any) -> _Given:  # noqa: N803  # skfolio's
        self.return_distribution_ = ReturnDistribution(self.mean, self.covariance, X)
        return self


class _Apart(BaseDistance):  # type: ignore[misc] # skfolio has no types
    """Distances that are known already."""

    def __init__(self, correlation: FloatArray) -> None:
        self.correlation = correlation

    def fit(self, X: FloatArray, y: None = None) -> _Apart:  # noqa: N803  # skfolio's
        self.codependence_ = self.correlation
        self.distance_ = np.sqrt(np.maximum((1 - self.correlation) / 2, 0.0))
        return self


class _OfRows(BaseDistance):  # type: ignore[misc] # skfolio has no types
    """Euclidean distances between the rows of another distance's matrix."""

    def __init__(self, inner: BaseDistance) -> None:
        self.inner = inner

    def fit(self, X: FloatArray, y: None = None) -> _OfRows:  # noqa: N803  # skfolio's
        first = self.inner.fit(X)
        self.codependence_ = first.codependence_
        self.distance_ = squareform(pdist(np.asarray(first.distance_)))
        return self


def _distance(name: str, returns: FloatArray) -> BaseDistance:
    """Return the estimator; where bars are missing, correlations are of those that a pair has."""
    kinds: dict[str, Literal["pearson", "kendall", "spearman"]]
    kinds = {"correlation": "pearson", "kendall": "kendall", "spearman": "spearman"}
    if name not in kinds or not np.isnan(returns).any():
        return DISTANCES[name]()
    found = pd.DataFrame(returns).corr(method=kinds[name]).to_numpy(copy=True)
    np.fill_diagonal(found, 1.0)
    return _Apart(np.nan_to_num(found))  # a rank without ties or moves in common: unrelated


def _tree(linkage: str) -> HierarchicalClustering:
    return HierarchicalClustering(linkage_method=LinkageMethod[linkage.upper()])


def _most_short(problem: Problem) -> float | None:
    """Return the largest sum of short positions; None where there are none."""
    return problem.short if problem.low < 0 else None


def _groups(problem: Problem) -> dict[str, FloatArray | None]:
    """Return the bounds of groups as linear inequalities."""
    left, right = problem.inequalities
    return {"left_inequality": left, "right_inequality": right}


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
        # Solutions are refused that are short of the tolerance. Where several are asked for at
        # once, skfolio sets filters of its own: there a warning cannot be made an error.
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("error", UserWarning)
            weights = estimator.fit(completed(problem.returns)).weights_
        for each in told:
            if issubclass(each.category, UserWarning):
                raise UserWarning(each.message)
    except (OptimizationError, UserWarning) as error:
        raise PortfolioError(
            f"{type(estimator).__name__} found no weights of {len(problem.assets)} assets at "
            f"{problem.date} ({error}); take a longer lookback or a shrunk covariance."
        ) from error
    return np.asarray(weights, np.float64)
