"""Convex problems on the simplex, and the oracles that solve them in hindsight."""

import numpy as np
import pandas as pd
import pytest
from helpers.panels import panel_of
from hypothesis import given
from hypothesis import strategies as st

import portfolio_env as pe
from baselines import BASELINES, make_baseline
from baselines.online.simplex import least_quadratic, log_optimal
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest

ORACLES = ["best_asset", "best_constant_rebalanced"]
MARKET = pe.load_market("synthetic?assets=4&bars=120")


def wealth(policy, market=MARKET, **options):
    options = {"start": 40, "end": 100, "window": 1, "costs": {"commission_bps": 0}} | options
    return backtest(
        policy, pe.PortfolioEnv(market, observation="index", action="weights", **options)
    ).values[-1]


@given(
    seed=st.integers(0, 2**16), n=st.integers(2, 8), start=st.sampled_from(["uniform", "corner"])
)
def test_least_quadratics_satisfy_the_conditions_of_a_minimum(seed, n, start):
    generator = np.random.default_rng(seed)
    root = generator.normal(size=(n, n + 2))
    hessian, linear = root @ root.T, generator.normal(size=n) * 3
    begin = np.full(n, 1 / n) if start == "uniform" else np.eye(n)[0]
    w = least_quadratic(hessian, linear, begin)
    assert (w >= 0).all() and w.sum() == pytest.approx(1, abs=1e-12)
    gradient = hessian @ w - linear
    # what is held has the least gradient; by convexity nothing else is needed
    assert gradient[w > 0] == pytest.approx(np.full((w > 0).sum(), gradient.min()), abs=1e-9)


@given(seed=st.integers(0, 2**16), bars=st.integers(1, 60), n=st.integers(2, 6))
def test_log_optimal_portfolios_satisfy_covers_condition(seed, bars, n):
    x = np.exp(0.1 * np.random.default_rng(seed).normal(size=(bars, n)))
    b = log_optimal(x)
    assert (b >= 0).all() and b.sum() == pytest.approx(1, abs=1e-12)
    assert (x / (x @ b)[:, None]).mean(axis=0).max() <= 1 + 1e-10


def test_log_optimal_portfolios_of_assets_that_move_alike():
    x = np.exp(0.1 * np.random.default_rng(1).normal(size=(50, 3)))[:, [0, 1, 1, 2]]
    b = log_optimal(x)
    assert np.log(x @ b).mean() == pytest.approx(
        np.log(x[:, [0, 1, 3]] @ log_optimal(x[:, [0, 1, 3]])).mean(), abs=1e-12
    )


def test_oracles_beat_what_they_are_the_best_of():
    stock, rebalanced = (
        wealth(make_baseline(name, MARKET).fit(MARKET.panel, (40, 100))) for name in ORACLES
    )
    singles = 1e4 * MARKET.close[99] / MARKET.close[40]
    assert stock == pytest.approx(singles.max(), rel=1e-12)
    assert rebalanced >= stock
    for seed in range(5):
        mix = dict(
            zip(MARKET.assets, np.random.default_rng(seed).dirichlet(np.ones(4)), strict=True)
        )
        assert wealth(make_baseline("constant_rebalanced", MARKET, proportions=mix)) <= rebalanced


@pytest.mark.parametrize("name", ORACLES)
def test_oracles_say_what_they_are_and_need_their_period(name):
    model = make_baseline(name, MARKET)
    assert model.model_info()["oracle"]
    with pytest.raises(ArgumentError, match=r"call fit\(panel, \(start, end\)\)"):
        model.predict_weights(50)
    assert [kind for kind in BASELINES if getattr(BASELINES[kind], "oracle", False)] == ORACLES


@pytest.mark.parametrize("name", ORACLES)
def test_oracles_choose_among_assets_with_all_prices(name):
    panel = panel_of("D", 90, assets=4, seed=2, ragged=False)
    close = np.array(panel.close)
    close[:, 1] *= np.linspace(1, 50, 90)  # by far the best
    close[70:, 1] = np.nan
    market = pe.load_market(pd.DataFrame(close, panel.timestamps, panel.assets))
    assert make_baseline(name, market).fit(market.panel, (10, 60)).chosen[1] > 0.5
    assert make_baseline(name, market).fit(market.panel, (10, 80)).chosen[1] == 0
    close[40, [0, 2, 3]] = np.nan
    bare = pe.load_market(pd.DataFrame(close, panel.timestamps))
    with pytest.raises(ArgumentError, match="give a shorter fit_period"):
        make_baseline(name, bare).fit(bare.panel, (10, 80))
