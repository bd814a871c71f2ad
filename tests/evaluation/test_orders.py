"""What a capital buys, and what running a strategy costs."""

import numpy as np
import pytest
from helpers.accounts import account
from hypothesis import given
from hypothesis import strategies as st

import portfolio_env as pe
from baselines import make_baseline
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest
from portfolio_env.evaluation.diagnostics.implementation import implementation_metrics
from portfolio_env.evaluation.orders import allocate
from portfolio_env.evaluation.runner import Stopwatch

COSTS = pe.TransactionCosts(commission_bps=30, buy_commission_bps=50, slippage_bps=5, fixed_fee=2)
NAMES = ["A", "B", "C"]


@st.composite
def portfolios(draw):
    parts = draw(st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda x: sum(x) > 0.1))
    prices = draw(st.lists(st.floats(0.01, 5000), min_size=3, max_size=3))
    return np.array(parts) / sum(parts), prices


@given(portfolios(), st.floats(100, 1e6), st.sampled_from([1.0, 0.01, 5.0, 0.0]))
def test_orders_spend_the_capital_and_no_more(drawn, capital, lot):
    weights, prices = drawn
    orders = allocate(weights, NAMES, prices, capital, lot=lot, costs=COSTS)
    table = orders.table()
    assert list(table.index) == [*NAMES, "cash"]
    assert table["money_after"].sum() + table["cost"].sum() == pytest.approx(capital)
    bought, planned = table.loc[NAMES], orders.plan.money
    assert (bought["money_after"] <= planned[1:] * (1 + 1e-9) + 1e-6).all()
    assert (table.loc["cash", "units_after"] >= planned[0] - 1e-6 * capital).all()
    if lot:
        steps = bought["units_after"] / lot
        assert steps.to_numpy() == pytest.approx(np.round(steps), abs=1e-6)
        left = planned[1:] - bought["money_after"]
        uncut = ~bought["reason"].str.contains("cash")
        assert (left <= lot * bought["price"] * (1 + 1e-9) + 1e-6)[uncut].all()
    else:
        assert bought["money_after"].to_numpy() == pytest.approx(planned[1:], abs=1e-9 * capital)


def test_fractions_are_what_the_environment_holds_after_its_first_trade():
    market = pe.load_market("synthetic?assets=3&bars=60")
    options = {"observation": "index", "window": 1, "action": "weights", "start": 40, "end": 42}
    costs = {"commission_bps": 30, "buy_commission_bps": 50, "fixed_fee": 2}
    env = pe.PortfolioEnv(market, **options, costs=costs, initial_value=500.0)
    result = backtest(make_baseline("random", market), env)
    orders = allocate(
        result.held[0], market.assets, market.close[40], 500.0,
        lot=0, costs=pe.TransactionCosts(**costs),
    )  # fmt: skip
    assert float(orders.cost) == pytest.approx(result.costs[0])
    assert orders.table().loc[list(market.assets), "order_money"].to_numpy() == pytest.approx(
        result.trades[0, 1:]
    )


def test_short_positions_are_cut_towards_zero():
    orders = allocate([0.8, 0.5, -0.3], ["A", "B"], [30.0, 7.0], 100.0)
    assert orders.table().loc[["A", "B"], "units_after"].tolist() == [1, -4]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"capital": 0}, "capital=0"),
        ({"lot": -1}, "lot=-1"),
        ({"prices": [1.0, np.nan]}, "B should be held but has no price"),
        ({"costs": pe.TransactionCosts(fixed_fee=200)}, "eats capital"),
    ],
)
def test_refusals(changed, message):
    options = {"weights": [0.2, 0.5, 0.3], "assets": ["A", "B"], "prices": [1, 2], "capital": 100}
    with pytest.raises(ArgumentError, match=message):
        allocate(**options | changed)


def test_all_cash_costs_nothing():
    orders = allocate([1.0, 0, 0], ["A", "B"], [1.0, np.nan], 50.0, costs=COSTS)
    assert orders.table()["money_after"].to_dict() == {"A": 0, "B": 0, "cash": 50}
    assert orders.cost == 0


# ---- in practice


def test_a_timed_policy_answers_like_itself():
    market = pe.load_market("synthetic?assets=3&bars=60")
    options = {"observation": "index", "window": 1, "action": "weights"}
    policy = make_baseline("random", market)
    watch = Stopwatch(policy)
    own, timed = (backtest(each, pe.PortfolioEnv(market, **options)) for each in (policy, watch))
    assert (own.values == timed.values).all()
    assert watch.action == "weights"
    assert len(watch.seconds) == len(timed.costs)
    assert min(watch.seconds) > 0


def test_figures():
    busy = account(np.zeros(100), cost=0.002)  # trades both assets every day, half in each
    figures = implementation_metrics({"busy": busy}, {"busy": [0.001] * 99 + [0.1]}, {"busy": 40})
    row = figures.loc["busy"]
    assert row["latency_p50_ms"] == pytest.approx(1)
    assert 1 < row["latency_p99_ms"] <= 100
    assert row["parameter_bytes"] == 40
    assert row["trades_per_year"] == pytest.approx(2 * 252)
    assert row["cost_per_trade"] == pytest.approx(1.0)  # 2 a day, of 10,000
    assert row["cost_bps"] == pytest.approx(1e4 * 2 / 1500)


def test_rounding_is_no_trade():
    market = pe.load_market("synthetic?assets=3&bars=60")
    options = {"observation": "index", "window": 1, "action": "weights"}
    results = {
        name: backtest(make_baseline(name, market), pe.PortfolioEnv(market, **options))
        for name in ("buy_and_hold", "cash")
    }
    figures = implementation_metrics(results, {}, {})
    years = len(results["cash"].costs) / results["cash"].periods_per_year
    assert figures.loc["buy_and_hold", "trades_per_year"] * years == pytest.approx(3)
    assert figures.loc["buy_and_hold", "cost_bps"] == pytest.approx(10)
    assert figures.loc["cash", "trades_per_year"] == 0
    assert np.isnan(figures.loc["cash", ["cost_per_trade", "cost_bps", "latency_p50_ms"]]).all()
