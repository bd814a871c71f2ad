"""Hierarchical portfolios against a slow recursion in plain Python, and at the edges."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy

import portfolio_env as pe
from baselines import optimisers
from baselines.optimisers import HierarchicalEqualRisk, HierarchicalRiskParity
from portfolio_env.errors import ArgumentError

BARS = 61


def market_of(returns):
    close = np.vstack([np.ones(returns.shape[1]), np.cumprod(1 + returns, axis=0)])
    days = pd.bdate_range("2020-01-01", periods=len(close))
    return pe.load_market(pd.DataFrame(close, days, [f"A{i:02d}" for i in range(close.shape[1])]))


def draws(assets, seed=0, bars=BARS - 1):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(bars, 3)) @ rng.normal(size=(3, assets))
    return 0.004 * (common + rng.normal(size=(bars, assets)) * rng.uniform(0.3, 3, assets))


def weights_of(kind, returns, **options):
    model = kind(market_of(returns), lookback=len(returns), **options)
    return model.predict_weights(len(returns)).to_numpy()


def leaves(distance):
    """The leaves of the single-linkage tree, the branch that grew first on the left."""
    clusters = {i: [i] for i in range(len(distance))}
    while len(clusters) > 1:
        pairs = [(a, b) for a in clusters for b in clusters if a < b]
        near = min(
            pairs,
            key=lambda pair: min(
                distance[i, j] for i in clusters[pair[0]] for j in clusters[pair[1]]
            ),
        )
        label = len(distance) * 2 - len(clusters)
        clusters[label] = clusters.pop(near[0]) + clusters.pop(near[1])
    return clusters.popitem()[1]


def bisection(covariance, order):
    """Lopez de Prado (2016), section 3.3: weights by asset, halving the order again and again."""
    if len(order) == 1:
        return {order[0]: 1.0}
    half = len(order) // 2
    parts = order[:half], order[half:]
    variances = []
    for part in parts:
        inverse = [1 / covariance[i, i] for i in part]
        share = [value / sum(inverse) for value in inverse]
        variances.append(
            sum(
                a * b * covariance[i, j]
                for a, i in zip(share, part, strict=True)
                for b, j in zip(share, part, strict=True)
            )
        )
    left = 1 - variances[0] / sum(variances)
    return {i: left * w for i, w in bisection(covariance, parts[0]).items()} | {
        i: (1 - left) * w for i, w in bisection(covariance, parts[1]).items()
    }


@given(assets=st.integers(1, 12), seed=st.integers(0, 2**16))
@settings(max_examples=25)
def test_agreement_with_a_slow_recursion(assets, seed):
    returns = draws(max(assets, 2), seed)
    if assets == 1:
        returns[:, 1] = 0  # a market has two assets; one of them is stale
    found, of_rows = (
        weights_of(HierarchicalRiskParity, returns, distance_of_rows=rows) for rows in (False, True)
    )
    covariance = np.atleast_2d(np.cov(returns[:, :assets].T))
    deviations = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(deviations, deviations)
    distance = np.sqrt(np.clip(0.5 * (1 - correlation), 0, None))
    expected = bisection(covariance, leaves(distance))
    assert found[1:][:assets] == pytest.approx([expected[i] for i in range(assets)], abs=1e-12)
    between_rows = np.linalg.norm(distance[:, None] - distance[None], axis=2)
    expected = bisection(covariance, leaves(between_rows))
    assert of_rows[1:][:assets] == pytest.approx([expected[i] for i in range(assets)], abs=1e-12)
    assert found[0] == 0


def test_order_linkage_and_distance_matter():
    returns = draws(12, seed=5)
    plain = weights_of(HierarchicalRiskParity, returns)
    for options in (
        {"optimal_order": True},
        {"linkage": "ward"},
        {"linkage": "complete", "distance": "spearman"},
        {"distance": "kendall"},
        {"covariance": "ledoit_wolf"},
    ):
        other = weights_of(HierarchicalRiskParity, returns, **options)
        assert other.sum() == pytest.approx(1, abs=1e-12)
        assert abs(other - plain).max() > 1e-4
    for options, message in (
        ({"linkage": "singel"}, "did you mean single"),
        ({"distance": "euclid"}, "distance=.* must be one of"),
        ({"covariance": "none"}, "covariance=.* must be one of"),
    ):
        for kind in (HierarchicalRiskParity, HierarchicalEqualRisk):
            with pytest.raises(ArgumentError, match=message):
                weights_of(kind, returns, **options)


@pytest.mark.parametrize("kind", [HierarchicalRiskParity, HierarchicalEqualRisk])
@pytest.mark.parametrize("linkage", optimisers.LINKAGES)
def test_degenerate_windows(kind, linkage):
    returns = draws(8, seed=2)
    alone, pair, twins, few = returns.copy(), returns.copy(), returns.copy(), returns[:4]
    alone[:, 1:] = 0
    pair[:, 2:] = 0
    twins[:, 4:] = returns[:, :4]
    for window, held in ((alone, 1), (pair, 2), (twins, 8), (few, 8)):
        weights = weights_of(kind, window, linkage=linkage)
        assert weights.sum() == pytest.approx(1, abs=1e-12)
        assert (weights[1:] > 0).sum() == held
        assert weights[0] == 0
    inverse = 1 / pair[:, :2].var(axis=0)
    expected = inverse / inverse.sum()
    assert weights_of(kind, pair, linkage=linkage)[1:3] == pytest.approx(expected, rel=1e-9)
    assert weights_of(kind, np.zeros((60, 3)), linkage=linkage).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("kind", [HierarchicalRiskParity, HierarchicalEqualRisk])
def test_bounds_limit_the_splits(kind):
    returns = draws(10, seed=3)
    free = weights_of(kind, returns)[1:]
    assert free.max() > 0.2 and free.min() < 0.05
    limits = pe.PortfolioConstraints(min_weight=0.05, max_weight=0.2, min_cash=0.1)
    bounded = weights_of(kind, returns, constraints=limits)
    assert bounded[0] == pytest.approx(0.1, abs=1e-9)
    assert bounded[1:].min() >= 0.05 - 1e-9
    assert bounded[1:].max() <= 0.2 + 1e-9


def shared(tree, groups, covariance):
    """Raffinot's recursion: weights by asset below a node, variances sharing it at every split."""
    leaves_below = tree.pre_order()
    inverse = 1 / np.diag(covariance)

    def variance(group):
        share = inverse[group] / inverse[group].sum()
        return share @ covariance[np.ix_(group, group)] @ share

    if sorted(leaves_below) in groups:
        return {i: inverse[i] / inverse[leaves_below].sum() for i in leaves_below}
    sides = [
        sum(variance(group) for group in groups if set(group) <= set(side.pre_order()))
        for side in (tree.left, tree.right)
    ]
    share = 1 - sides[0] / sum(sides)
    out = {i: share * w for i, w in shared(tree.left, groups, covariance).items()}
    return out | {i: (1 - share) * w for i, w in shared(tree.right, groups, covariance).items()}


@pytest.mark.parametrize("linkage", ["ward", "average"])
def test_clusters_share_risk(linkage):
    rng = np.random.default_rng(1)
    returns = np.hstack(
        [
            size * (rng.normal(size=(60, 1)) + 0.8 * rng.normal(size=(60, count)))
            for count, size in ((3, 0.01), (5, 0.02), (4, 0.005))
        ]
    )
    found = weights_of(HierarchicalEqualRisk, returns, linkage=linkage)[1:]
    covariance = np.cov(returns.T)
    distance = np.sqrt(0.5 * (1 - np.corrcoef(returns.T)))
    joined = hierarchy.linkage(distance[np.triu_indices(12, 1)], linkage)
    misses = {}
    for count in range(1, 13):  # the number of clusters is the library's to choose
        labels = hierarchy.fcluster(joined, count, "maxclust")
        groups = [np.flatnonzero(labels == label).tolist() for label in set(labels)]
        expected = shared(hierarchy.to_tree(joined), groups, covariance)
        misses[count] = max(abs(found[i] - expected[i]) for i in range(12))
    assert min(misses.values()) < 1e-12
    assert 1 < min(misses, key=misses.__getitem__) < 12
