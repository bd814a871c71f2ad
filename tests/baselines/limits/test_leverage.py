"""Models borrow and sell short where the constraints allow it, or say by name that they cannot."""

import numpy as np
import pytest
from helpers.bare_markets import market_of, random_market
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from baselines import BASELINES, make_baseline
from baselines.portfolio_model import PortfolioModel
from portfolio_env import PortfolioConstraints, PortfolioEnv
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest

MARKET = random_market(7, 200, 6)
LOOKBACK = {"lookback": 60}
BOUND = {"max_weight": 0.5}


def target(name, limits, t=150, **options):
    constraints = PortfolioConstraints(**limits)
    weights = make_baseline(name, MARKET, constraints=constraints, **options).predict_weights(t)
    return weights.to_numpy()


@pytest.mark.parametrize(
    "name",
    [
        "mean_variance",
        "min_variance",
        "hrp",
        "herc",
        "risk_parity",
        "inverse_volatility",
        "momentum",
    ],
)
def test_long_models_hold_twice_the_account_where_they_may(name):
    held = target(name, {"max_leverage": 2.0}, **LOOKBACK)
    assert held[0] == pytest.approx(-1) and held.sum() == pytest.approx(1)
    assert (held[1:] >= 0).all()
    unlevered = target(name, {"max_leverage": 2.0, "min_cash": 0.0}, **LOOKBACK)
    assert unlevered == pytest.approx(target(name, {}, **LOOKBACK))
    bounded = target(name, {"max_leverage": 2.0, "max_weight": 0.7}, **LOOKBACK)
    assert bounded[1:].max() <= 0.7 + 1e-9 and bounded[0] < 0


def simple_returns():
    close = MARKET.close[90:151]
    return close[1:] / close[:-1] - 1


@pytest.mark.parametrize("leverage", [1.2, 1.6, 2.5])
def test_largest_return_with_shorts_is_that_of_a_linear_programme(leverage):
    limits = {"long_only": False, "max_leverage": leverage, "max_weight": 0.4}
    held = target("mean_variance", limits, objective="max_return", **LOOKBACK)
    mean = simple_returns().mean(axis=0)
    found = linprog(  # longs, then shorts
        np.r_[-mean, mean],
        A_ub=[np.ones(12)],
        b_ub=[leverage],
        A_eq=[np.r_[np.ones(6), -np.ones(6)]],
        b_eq=[1],
        bounds=[(0, 0.4)] * 12,
    )
    assert held[1:] @ mean == pytest.approx(-found.fun, rel=1e-9)
    assert (held[1:] < 0).any()


def test_least_variance_with_shorts_is_that_of_another_solver():
    """Two assets that move alike, one more than the other: the calm one is hedged by the other."""
    steps = np.random.default_rng(0).normal(0, 0.01, (120, 3))
    steps[:, 1] = 1.8 * steps[:, 0] + 0.1 * steps[:, 1]
    market = market_of(100 * np.exp(steps.cumsum(axis=0)))
    limits = {"long_only": False, "max_leverage": 1.5, "max_weight": 0.9}
    options = {"lookback": 100, "covariance": "sample", "max_weight": 0.9}
    model = make_baseline(
        "min_variance", market, constraints=PortfolioConstraints(**limits), **options
    )
    held = model.predict_weights(115).to_numpy()[1:]
    close = market.close[15:116]
    covariance = np.cov((close[1:] / close[:-1] - 1).T)
    scale = covariance.trace()
    found = minimize(
        lambda w: (w[:3] - w[3:]) @ covariance @ (w[:3] - w[3:]) / scale,
        np.r_[np.full(3, 1 / 3), np.zeros(3)],
        bounds=[(0, 0.9)] * 6,
        constraints=[
            {"type": "eq", "fun": lambda w: w[:3].sum() - w[3:].sum() - 1},
            {"type": "ineq", "fun": lambda w: 1.5 - w.sum()},
        ],
        tol=1e-12,
    )
    assert held @ covariance @ held / scale == pytest.approx(found.fun, rel=1e-4)
    assert held[1] < -0.05


@given(
    seed=st.integers(0, 999),
    leverage=st.floats(1.05, 3),
    objective=st.sampled_from(["max_sharpe", "min_variance", "max_return"]),
)
def test_optimised_shorts_keep_to_the_constraints(seed, leverage, objective):
    market = random_market(seed, 80, 5)
    constraints = PortfolioConstraints(long_only=False, max_leverage=leverage, max_weight=0.6)
    model = make_baseline(
        "mean_variance",
        market,
        constraints=constraints,
        lookback=40,
        objective=objective,
        max_weight=0.6,
    )
    held = model.predict_weights(70).to_numpy()
    assert held[0] == pytest.approx(0, abs=1e-9) and held.sum() == pytest.approx(1)
    assert abs(held[1:]).sum() <= leverage + 1e-9
    assert abs(held[1:]).max() <= 0.6 + 1e-9


@pytest.mark.parametrize("leverage", [1.0, 1.6])
def test_momentum_sells_the_losers(leverage):
    held = target("momentum", {"long_only": False, "max_leverage": leverage}, **LOOKBACK)
    rise = MARKET.close[150] / MARKET.close[90]
    order = np.argsort(-rise)
    expected = np.zeros(6)
    expected[order[:2]], expected[order[-2:]] = leverage / 4, -leverage / 4
    assert held == pytest.approx(np.r_[1.0, expected])


def test_proportions_may_be_negative_where_the_constraints_say_so():
    mix = {"A0": 0.9, "A1": 0.4, "A2": -0.5, "cash": 0.2}
    limits = {"long_only": False, "max_leverage": 2.0}
    held = target("constant_rebalanced", limits, proportions=mix)
    assert held == pytest.approx([0.2, 0.9, 0.4, -0.5, 0, 0, 0])
    borrowed = {"A0": 1.0, "A1": 0.5, "cash": -0.5}
    held = target("constant_rebalanced", {"max_leverage": 2.0}, proportions=borrowed)
    assert held == pytest.approx([-0.5, 1, 0.5, 0, 0, 0, 0])
    for proportions in (mix, borrowed):
        with pytest.raises(ArgumentError, match="short positions or leverage"):
            make_baseline("constant_rebalanced", MARKET, proportions=proportions)


@pytest.mark.parametrize("name", ["momentum", "mean_variance"])
def test_levered_accounts_run(name):
    limits = {"long_only": False, "max_leverage": 1.5}
    model = make_baseline(
        name, MARKET, constraints=PortfolioConstraints(**limits), every=20, **LOOKBACK
    )
    env = PortfolioEnv(
        MARKET, window=1, observation="index", action="weights", start=100, constraints=limits
    )
    result = backtest(model, env)
    assert (result.held[:, 1:] < 0).any(axis=1).all()
    assert abs(result.held[0] - model.predict_weights(100).to_numpy()).max() < 1e-6


def test_long_only_false_is_honoured_or_refused_by_name():
    able = set()
    for name, kind in BASELINES.items():
        if issubclass(kind, PortfolioModel) and not kind.reads_features:
            try:
                make_baseline(
                    name,
                    MARKET,
                    constraints=PortfolioConstraints(long_only=False, max_leverage=2.0),
                )
                able.add(name)
            except ArgumentError as error:
                assert kind.__name__ in str(error) and "mean_variance" in str(error)
    assert able == {
        "constant_rebalanced",
        "cross_sectional_momentum",
        "deep_momentum",
        "mean_variance",
        "min_variance",
        "momentum",
        "time_series_momentum",
    }
    with pytest.raises(ArgumentError, match="leaves MeanVariance no short positions"):
        target("mean_variance", {"long_only": False})
    assert (target("mean_variance", {"long_only": False, "min_cash": 0.4}, **LOOKBACK) < 0).any()


def test_a_function_decides_by_itself():
    limits = PortfolioConstraints(long_only=False, max_leverage=2.0)
    model = make_baseline(
        lambda past: np.array([0.7, 0.8, -0.5, 0, 0, 0, 0]), MARKET, constraints=limits
    )
    assert model.predict_weights(5).tolist() == [0.7, 0.8, -0.5, 0, 0, 0, 0]
