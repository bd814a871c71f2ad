"""Nested clusters against a slow search over supports, against skfolio's own, and at the edges."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy
from skfolio.measures import RiskMeasure
from skfolio.moments import EmpiricalCovariance, EmpiricalMu, LedoitWolf
from skfolio.optimization import MeanRisk, NestedClustersOptimization, ObjectiveFunction
from skfolio.prior import EmpiricalPrior

import portfolio_env as pe
from baselines.optimisers import LINKAGES, NestedClusters
from baselines.optimisers.base import adapter
from portfolio_env.errors import ArgumentError

BARS = 60
ACCURACY = 2e-4  # of the interior-point solver, in weights


def draws(assets, seed=0, bars=BARS, drift=0.002):
    """Returns (bars, assets) of assets in groups that move together."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 3, assets)
    common = rng.normal(size=(bars, 3))[:, groups]
    own = rng.normal(size=(bars, assets)) * rng.uniform(0.5, 1.5, assets)
    return drift + 0.005 * (common + own)


def weights_of(returns, **options):
    close = np.vstack([np.ones(returns.shape[1]), np.cumprod(1 + returns, axis=0)])
    days = pd.bdate_range("2020-01-01", periods=len(close))
    names = [f"A{i:02d}" for i in range(close.shape[1])]
    market = pe.load_market(pd.DataFrame(close, days, names))
    model = NestedClusters(market, lookback=len(returns), **options)
    return model, model.predict_weights(len(returns)).to_numpy()


def least_variance(covariance):
    """Long-only, by trying every set of assets that may be held."""
    n = len(covariance)
    best, least = None, np.inf
    for size in range(1, n + 1):
        for chosen in combinations(range(n), size):
            inverse = np.linalg.solve(covariance[np.ix_(chosen, chosen)], np.ones(size))
            if (inverse >= 0).all():
                weights = np.zeros(n)
                weights[list(chosen)] = inverse / inverse.sum()
                if weights @ covariance @ weights < least:
                    best, least = weights, weights @ covariance @ weights
    return best


@given(assets=st.integers(2, 9), seed=st.integers(0, 2**16))
@settings(max_examples=15)
def test_agreement_with_a_slow_search(assets, seed):
    returns = draws(assets, seed)
    _, found = weights_of(returns, covariance="sample")
    labels = adapter().clusters(returns, "correlation", "ward")
    distance = np.sqrt(np.clip(0.5 * (1 - np.corrcoef(returns.T)), 0, None))
    joined = hierarchy.linkage(distance[np.triu_indices(assets, 1)], "ward")
    groups = hierarchy.fcluster(joined, labels.max() + 1, "maxclust")
    assert ((labels[:, None] == labels) == (groups[:, None] == groups)).all()

    covariance = np.cov(returns.T)
    within = np.zeros((assets, labels.max() + 1))
    for cluster in range(labels.max() + 1):
        members = np.flatnonzero(labels == cluster)
        within[members, cluster] = least_variance(covariance[np.ix_(members, members)])
    expected = within @ least_variance(within.T @ covariance @ within)
    assert found[1:] == pytest.approx(expected, abs=ACCURACY)
    assert found[0] == 0


@pytest.mark.parametrize("objective", ["min_variance", "max_sharpe"])
@pytest.mark.parametrize("covariance", ["sample", "ledoit_wolf"])
def test_agreement_with_skfolio(objective, covariance):
    returns = draws(12, seed=4)
    estimators = {"sample": EmpiricalCovariance(), "ledoit_wolf": LedoitWolf()}
    step = MeanRisk(
        objective_function={
            "min_variance": ObjectiveFunction.MINIMIZE_RISK,
            "max_sharpe": ObjectiveFunction.MAXIMIZE_RATIO,
        }[objective],
        risk_measure=RiskMeasure.STANDARD_DEVIATION,
        prior_estimator=EmpiricalPrior(EmpiricalMu(), estimators[covariance]),
        risk_free_rate=0.0,
        solver_params={"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10},
    )
    model = NestedClustersOptimization(inner_estimator=step, outer_estimator=step, cv="ignore")
    expected = model.fit(returns).weights_
    options = {"objective": objective, "covariance": covariance, "risk_free_rate": 0.0}
    model, found = weights_of(returns, **options)
    assert model.fallbacks == {}
    assert found[1:] == pytest.approx(expected, abs=ACCURACY)
    assert len(set(adapter().clusters(returns, "correlation", "ward"))) > 1


@given(order=st.permutations(range(8)), seed=st.integers(0, 2**16))
@settings(max_examples=10)
def test_the_order_of_assets_does_not_matter(order, seed):
    returns = draws(8, seed)
    _, plain = weights_of(returns)
    _, permuted = weights_of(returns[:, order])
    assert permuted[1:] == pytest.approx(plain[1:][list(order)], abs=ACCURACY)


@pytest.mark.parametrize("objective", ["min_variance", "max_sharpe"])
@pytest.mark.parametrize("linkage", LINKAGES)
def test_degenerate_windows(objective, linkage):
    returns = draws(8, seed=2)
    alone, pair, twins, hedged, hedge = (returns.copy() for _ in range(5))
    alone[:, 1:] = 0
    pair[:, 2:] = 0
    twins[:, 4:] = returns[:, :4]
    hedged[:, 4:] = 0.004 - returns[:, :4]
    hedge[:, 1:] = 0
    hedge[:, 1] = 0.004 - returns[:, 0]
    for covariance in ("sample", "ledoit_wolf"):
        options = {"objective": objective, "linkage": linkage, "covariance": covariance}
        for window, held in (
            (alone, 1),
            (pair, 2),
            (hedge, 2),
            (twins, 8),
            (hedged, 8),
            (returns[:4], 8),
        ):
            _, weights = weights_of(window, **options)
            assert weights.sum() == pytest.approx(1, abs=1e-12)
            assert weights[0] == 0 and weights.min() >= 0
            assert (weights[1 + held :] == 0).all()
    assert weights_of(np.zeros((BARS, 3)))[1].tolist() == [1, 0, 0, 0]


def test_of_two_assets_nothing_is_nested():
    returns = draws(2, seed=3)
    _, found = weights_of(returns, covariance="sample")
    assert found[1:] == pytest.approx(least_variance(np.cov(returns.T)), abs=ACCURACY)


def test_losers_are_given_their_least_variance():
    returns = draws(6, seed=1, drift=-0.005)
    model, found = weights_of(returns, objective="max_sharpe")
    _, calm = weights_of(returns)
    assert (found == calm).all()
    assert list(model.fallbacks) == [str(model.market.timestamps[-1])]
    assert model.model_info()["fallbacks"] == model.fallbacks


def test_bounds_are_kept_to_by_the_nearest_weights():
    returns = draws(10, seed=3)
    _, free = weights_of(returns)
    assert free[1:].max() > 0.2 and free[1:].min() < 0.05
    limits = pe.PortfolioConstraints(min_weight=0.05, max_weight=0.2, min_cash=0.1)
    _, bounded = weights_of(returns, constraints=limits)
    assert bounded[0] == pytest.approx(0.1, abs=1e-9)
    assert bounded[1:].min() >= 0.05 - 1e-9 and bounded[1:].max() <= 0.2 + 1e-9
    shift = bounded[1:] / 0.9 - free[1:]  # the same for all weights that no bound holds
    inside = (bounded[1:] > 0.05 + 1e-6) & (bounded[1:] < 0.2 - 1e-6)
    assert inside.sum() > 1 and np.ptp(shift[inside]) < 1e-6
    _, few = weights_of(returns, constraints=pe.PortfolioConstraints(top_k=3))
    assert (few[1:] > 0).sum() <= 3 and few.sum() == pytest.approx(1, abs=1e-12)


def test_options_matter_and_are_checked():
    returns = 0.01 * np.random.default_rng(5).normal(0.2, 1, (BARS, 12))  # no clear groups
    _, plain = weights_of(returns)
    for options in (
        {"objective": "max_sharpe"},
        {"linkage": "single"},
        {"distance": "mutual_information"},
        {"covariance": "exponential"},
    ):
        assert abs(weights_of(returns, **options)[1] - plain).max() > 1e-3
    for options, message in (
        ({"objective": "target_return"}, "must be one of 'min_variance', 'max_sharpe'"),
        ({"linkage": "singel"}, "did you mean single"),
        ({"distance": "euclid"}, "distance=.* must be one of"),
        ({"covariance": "none"}, "covariance=.* must be one of"),
    ):
        with pytest.raises(ArgumentError, match=message):
            weights_of(returns, **options)
