"""Long-short optimisers, excess returns, utility and Bayes-Stein against textbook algebra."""

import numpy as np
import pandas as pd
import pytest
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

import portfolio_env as pe
from baselines.optimisers import MeanVariance
from baselines.optimisers.bayes_stein import predictive_covariance, shrunk_means
from portfolio_env.errors import ArgumentError
from portfolio_env.market.rates import rates_from_returns

BARS, FREE = 61, {"long_only": False, "max_leverage": 50.0, "max_weight": 50.0, "min_cash": 0.0}


def market_of(returns):
    close = np.vstack([np.ones(returns.shape[1]), np.cumprod(1 + returns, axis=0)])
    months = pd.date_range("2001-01-31", periods=len(close), freq="ME")
    return pe.load_market(pd.DataFrame(close, months, list("ABCDEFGH")[: returns.shape[1]]))


def draws(seed, assets=4):
    rng = np.random.default_rng(seed)
    return rng.normal(0.01, 0.03, (BARS - 1, 1)) + rng.normal(0.002, 0.04, (BARS - 1, assets))


def weights(returns, rates=0.0, shorts=True, **options):
    limits = pe.PortfolioConstraints(**FREE) if shorts else None
    most = 50.0 if shorts else 1.0
    options = {"covariance": "sample", "max_weight": most, "min_weight": None} | options
    market = market_of(returns)
    model = MeanVariance(
        market, constraints=limits, lookback=BARS - 1, risk_free_rate=rates, **options
    )
    return model.predict_weights(BARS - 1).to_numpy()[1:]


@examples(10)
@given(seed=st.integers(0, 2**16))
def test_without_bounds_that_bind_the_weights_are_those_of_algebra(seed):
    returns, bill = draws(seed), np.random.default_rng(seed).uniform(0, 0.01, BARS - 1)
    rates = rates_from_returns(market_of(returns).timestamps, bill)
    own = returns - bill[:, None]
    mean, covariance, ones = own.mean(axis=0), np.cov(own.T), np.ones(4)
    calm = np.linalg.solve(covariance, ones)
    found = weights(returns, rates, excess=True, objective="min_variance")
    np.testing.assert_allclose(found, calm / calm.sum(), atol=1e-9)
    best = np.linalg.solve(covariance, mean)
    if best.sum() > 0 and abs(best).sum() < 40 * best.sum():
        np.testing.assert_allclose(
            weights(returns, rates, excess=True), best / best.sum(), atol=1e-7
        )


def test_bounds_that_bind_are_left_to_the_solver():
    returns = draws(3)
    returns[:, 0] += 0.8 * returns[:, 1:].sum(axis=1)
    free = weights(returns, objective="min_variance")
    assert free.min() < -0.05
    bounded = weights(returns, objective="min_variance", min_weight=-0.02)
    assert bounded.min() == pytest.approx(-0.02, abs=1e-9)
    assert weights(returns, shorts=False, objective="min_variance").min() >= 0


@pytest.mark.parametrize("aversion", [1.0, 8.0])
def test_utility_is_that_of_another_solver(aversion):
    returns = draws(1)
    mean, covariance = returns.mean(axis=0), np.cov(returns.T)
    found = weights(
        returns, shorts=False, objective="utility", risk_aversion=aversion, min_weight=0.0
    )

    def cost(w):
        return -100 * (w @ mean - 0.5 * aversion * w @ covariance @ w)

    whole = {"type": "eq", "fun": lambda w: w.sum() - 1}
    best = minimize(cost, np.full(4, 0.25), bounds=[(0, 1)] * 4, constraints=whole, tol=1e-12)
    np.testing.assert_allclose(found, best.x, atol=2e-4)
    assert cost(found) <= best.fun + 1e-9


def test_excess_returns_are_over_the_time_of_each_return():
    returns, bill = draws(5), np.linspace(0.0, 0.02, BARS - 1)
    market = market_of(returns)
    rates = rates_from_returns(market.timestamps, bill)
    close = pd.DataFrame(market.close.copy(), market.timestamps, market.assets)
    close.iloc[[30, 31], 0] = np.nan
    gaps = pe.load_market(close)
    model = MeanVariance(gaps, lookback=BARS - 1, risk_free_rate=rates, excess=True)
    problem = model.problem(gaps.panel.past(BARS - 1))
    found = model._estimated(problem)
    np.testing.assert_allclose(found[:, 1:], returns[:, 1:] - bill[:, None], atol=1e-12)
    over = np.prod(1 + returns[29:32, 0]) - np.prod(1 + bill[29:32])
    assert found[31, 0] == pytest.approx(over, abs=1e-12)
    later = dict(list(rates.items())[5:])
    late = MeanVariance(gaps, lookback=BARS - 1, risk_free_rate=later, excess=True)
    with pytest.raises(ArgumentError, match="risk_free_rate is not known in all of the window"):
        late.predict_weights(BARS - 1)


@given(seed=st.integers(0, 2**16), assets=st.integers(2, 6))
def test_bayes_stein_is_jorions_formula(seed, assets):
    """By its Bayesian form: the posterior of the means, and its spread added to that of returns."""
    returns = draws(seed, assets)
    n, mean = len(returns), returns.mean(axis=0)
    covariance = (returns - mean).T @ (returns - mean) / (n - assets - 2)
    ones = np.ones(assets)
    calm = np.linalg.solve(covariance, ones)
    centre = mean @ calm / calm.sum()
    distance = (mean - centre) @ np.linalg.solve(covariance, mean - centre)
    precision = (assets + 2) / distance  # of the prior, in observations
    posterior = (n * mean + precision * centre) / (n + precision)
    sample = np.cov(returns.T)
    np.testing.assert_allclose(shrunk_means(mean, sample, n), posterior, atol=1e-12)
    wider = covariance * (1 + 1 / (n + precision))
    wider += precision / (n * (n + 1 + precision)) * np.outer(ones, ones) / calm.sum()
    np.testing.assert_allclose(predictive_covariance(mean, sample, n), wider, rtol=1e-9)


def test_bayes_stein_needs_more_returns_than_assets():
    with pytest.raises(ArgumentError, match="more than 6 returns, not 6: raise lookback"):
        shrunk_means(np.ones(4), np.eye(4), 6)
    with pytest.raises(ArgumentError, match="cannot be inverted"):
        shrunk_means(np.ones(2), np.ones((2, 2)), 60)
