"""Moments from the returns that exist: a lost close or another calendar disqualifies nobody."""

import numpy as np
import pandas as pd
import pytest
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

import portfolio_env as pe
from baselines import make_baseline
from baselines.optimisers import COVARIANCES, DISTANCES, MEANS, HierarchicalRiskParity
from baselines.optimisers.base import adapter
from baselines.optimisers.pairwise import exponential_covariance, pairwise_covariance
from baselines.windows import apart, completed, own_returns, volatilities

MODELS = ("mean_variance", "min_variance", "risk_parity", "hrp", "herc", "nested_clusters")
ALL = (*MODELS, "momentum", "inverse_volatility")


def returns_of(seed, bars=80, assets=6, missing=0.2):
    """Correlated returns of which some are missing."""
    rng = np.random.default_rng(seed)
    returns = rng.normal(0, 0.01, (bars, 1)) + rng.normal(3e-4, 0.01, (bars, assets))
    returns[rng.random(returns.shape) < missing] = np.nan
    return returns


def prices_of(seed=0, bars=420, assets=5):
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.007, (bars, 1)) + rng.normal(4e-4, 0.01, (bars, assets))
    days = pd.date_range("2021-01-01", periods=bars)
    return pd.DataFrame(np.exp(steps.cumsum(axis=0)), days, list("ABCDE")[:assets])


@examples(40)
@given(seed=st.integers(0, 2**16), missing=st.sampled_from([0.0, 0.02, 0.3, 0.6]))
def test_pairwise_covariances_are_those_of_pandas_and_positive_definite(seed, missing):
    returns = returns_of(seed, missing=missing)
    expected = pd.DataFrame(returns).cov(min_periods=2).to_numpy()
    np.testing.assert_allclose(pairwise_covariance(returns), expected, rtol=1e-9, atol=1e-15)
    found = adapter().covariance("sample", returns)
    assert np.linalg.eigvalsh(found).min() > 0
    share = (~np.isnan(returns)).mean(axis=0)
    np.testing.assert_allclose(np.diag(found), np.diag(expected) * share, rtol=1e-9)
    scaled = expected * np.sqrt(np.outer(share, share))
    if np.linalg.eigvalsh(expected).min() > 1e-9:
        np.testing.assert_allclose(found, scaled, rtol=1e-9, atol=1e-15)


def test_a_pairwise_covariance_that_is_indefinite_is_made_definite():
    rng = np.random.default_rng(1)
    returns = np.full((90, 3), np.nan)
    for rows, pair, sign in ((slice(0, 30), (0, 1), 1), (slice(30, 60), (1, 2), 1),
                             (slice(60, 90), (0, 2), -1)):  # fmt: skip
        x = rng.normal(0, 0.01, 30)
        returns[rows, pair[0]], returns[rows, pair[1]] = x, sign * x + rng.normal(0, 1e-4, 30)
    assert np.linalg.eigvalsh(pairwise_covariance(returns)).min() < -1e-5
    for name in COVARIANCES:
        assert np.linalg.eigvalsh(adapter().covariance(name, returns)).min() > 0, name


@pytest.mark.parametrize("name", COVARIANCES)
def test_covariances_with_few_gaps_are_near_those_without(name):
    whole = returns_of(3, bars=250, missing=0.0)
    holes = whole.copy()
    holes[np.random.default_rng(0).random(whole.shape) < 0.01] = np.nan
    before, after = (adapter().covariance(name, one) for one in (whole, holes))
    scale = np.sqrt(np.outer(np.diag(before), np.diag(before)))
    assert np.abs(after - before).max() < 0.1 * scale.min()
    assert not np.array_equal(before, after)


@pytest.mark.parametrize("name", MEANS)
def test_means_with_few_gaps_are_near_those_without(name):
    whole = returns_of(3, bars=250, missing=0.0)
    holes = whole.copy()
    holes[5, 0] = np.nan
    before, after = (adapter().mean(name, one) for one in (whole, holes))
    assert after == pytest.approx(before, abs=2e-4)


def test_exponential_moments_of_complete_returns_are_those_of_the_library():
    whole = returns_of(2, missing=0.0)
    expected = adapter().covariance("exponential", whole)
    np.testing.assert_allclose(exponential_covariance(whole), expected, rtol=0.05)


@pytest.mark.parametrize("distance", DISTANCES[:3])
def test_distances_are_of_the_bars_that_a_pair_has(distance):
    returns = returns_of(7)
    method = {"correlation": "pearson"}.get(distance, distance)
    rho = pd.DataFrame(returns).corr(method=method).to_numpy()
    found = adapter()._distance(distance, returns).fit(completed(returns)).distance_
    np.testing.assert_allclose(found**2, (1 - rho) / 2, atol=1e-12)


def test_a_return_bridges_the_bars_that_an_asset_lacks():
    close = prices_of(bars=40)
    close.iloc[[20, 21, 30], 0] = np.nan
    close.iloc[9, 1] = np.nan  # just before the window
    past = pe.load_market(close, features="none").panel
    found = own_returns(past, 30)
    for column in range(5):
        own = close.iloc[:, column].dropna().pct_change().reindex(close.index).to_numpy()[-30:]
        np.testing.assert_allclose(found[:, column], own, atol=1e-14)
    np.testing.assert_allclose(
        (1 + np.nan_to_num(found[:, 0])).prod(), close.iloc[-1, 0] / close.iloc[9, 0]
    )


def test_volatilities_are_per_bar_of_the_market():
    returns = returns_of(0, bars=7000, assets=1, missing=0.0)
    weekly = returns.copy()
    weekly[np.arange(7000) % 7 > 4] = np.nan
    assert volatilities(weekly) == pytest.approx(volatilities(returns) * np.sqrt(5 / 7), rel=0.02)


@examples(6)
@given(row=st.integers(200, 415), column=st.integers(0, 4))
@pytest.mark.parametrize("name", ALL)
def test_a_lost_close_changes_weights_by_a_few_percent(name, row, column):
    close = prices_of()
    options = {"lookback": 120, "every": 1}
    whole = make_baseline(name, pe.load_market(close, features="none"), **options)
    close.iloc[row, column] = np.nan
    hole = make_baseline(name, pe.load_market(close, features="none"), **options)
    assert hole.predict_weights(row - 1).equals(whole.predict_weights(row - 1))
    assert hole.predict_weights(row).iloc[1 + column] == 0  # it cannot be traded
    if name in ("momentum", "nested_clusters", "hrp", "herc", "mean_variance"):
        return  # a choice or a tree may jump
    for later in (row + 1, row + 4):
        assert np.abs(hole.predict_weights(later) - whole.predict_weights(later)).max() < 0.06


@pytest.mark.parametrize("name", ALL)
def test_stocks_beside_crypto_are_held(name):
    close = prices_of()
    closed = close.index.day_of_week >= 5
    close.loc[closed, ["A", "B", "C"]] = np.nan
    model = make_baseline(name, pe.load_market(close, features="none"), lookback=140, every=1)
    weekdays = np.flatnonzero(~closed)
    for row in weekdays[weekdays > 145][::25]:
        weights = model.predict_weights(int(row))
        assert weights["cash"] < 0.999
        if name not in ("momentum", "min_variance", "mean_variance"):
            assert (weights[["A", "B", "C"]] > 0).all()
    assert not model.left_out


def test_who_is_left_out_when_and_why_is_recorded():
    close = prices_of()
    close.iloc[:300, 0] = np.nan  # listed late
    close.iloc[100:, 1] = np.where(np.arange(320) % 4, np.nan, close.iloc[100:, 1])
    close.iloc[:, 2] = 5.0
    model = HierarchicalRiskParity(pe.load_market(close, features="none"), lookback=100)
    assert (model.predict_weights(380)[["A", "B", "C"]] == 0).all()
    assert model.left_out == {
        str(model.market.timestamps[380]): {
            "A": "has no price from 100 bars before",
            "B": "has a bar in less than 50% of the last 100",
            "C": "its price did not move, or grew at one rate",
        }
    }


def test_assets_without_bars_in_common_are_not_taken_together():
    returns = returns_of(0, bars=100, assets=4, missing=0.0)
    returns[::2, 0] = returns[1::2, 1] = np.nan  # never both
    returns[:5, 1] = np.nan
    assert apart(returns).tolist() == [1]
    assert apart(returns[:, [0, 2, 3]]).tolist() == []
