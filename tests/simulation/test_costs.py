"""TransactionCosts: rates, impact coefficients, and errors."""

import json
from dataclasses import FrozenInstanceError, asdict

import numpy as np
import pandas as pd
import pytest

from portfolio_env import (
    ArgumentError,
    DataError,
    PortfolioEnv,
    PricePanel,
    TransactionCosts,
    load_market,
)


@pytest.fixture(scope="module")
def market():
    return load_market("synthetic?seed=2&bars=120&assets=3&ragged=true")


@pytest.fixture(scope="module")
def panel(market):
    return market.panel


def test_sides_and_assets_may_differ():
    costs = TransactionCosts(10, sell_commission_bps=[20, 30], slippage_bps=[1, 2])
    buy, sell = costs.rates(2)
    assert buy == pytest.approx([0.0011, 0.0012])
    assert sell == pytest.approx([0.0021, 0.0032])


def test_impact_coefficient_is_that_of_a_slow_computation(panel):
    costs = TransactionCosts(impact=0.7, impact_window=10)
    found = costs.impact_coefficients(panel)
    for i in range(len(panel.assets)):
        close = pd.Series(panel.close[:, i]).dropna()
        volume = pd.Series(panel.volume[:, i]).dropna()
        for t in (close.index[15], close.index[-1]):
            last = close.loc[:t].iloc[-11:]
            sigma = last.pct_change().dropna().std(ddof=1)
            money = (close * volume).loc[:t].iloc[-10:].mean()
            assert found[t, i] == pytest.approx(0.7 * sigma / np.sqrt(money), rel=1e-12)


def test_impact_begins_with_two_returns_and_needs_trades():
    close = np.array([10.0, 11.0, 10.0, 12.0])[:, None] * np.ones(3)
    volume = np.array([1.0, 1e-3, 0.0]) * np.ones((4, 1))
    dates = pd.date_range("2020-01-01", periods=4).to_numpy("datetime64[ns]")
    panel = PricePanel(timestamps=dates, assets=("A", "B", "C"), close=close, volume=volume)
    found = TransactionCosts(impact=1.0).impact_coefficients(panel)
    assert (found[:2] == 0).all() and (found[:, 2] == 0).all()
    assert (found[2:, :2] > 0).all()
    assert found[2, 1] == pytest.approx(found[2, 0] * np.sqrt(1000))


def test_impact_of_nothing_has_no_coefficients(panel):
    assert TransactionCosts().impact_coefficients(panel).shape == (0, 0)


def test_impact_sees_no_later_bar(market):
    costs = TransactionCosts(impact=1.0)
    whole = costs.impact_coefficients(market.panel)
    assert (costs.impact_coefficients(market.past(60).panel) == whole[:61]).all()


def test_impact_needs_volumes():
    prices = pd.DataFrame(
        np.exp(np.random.default_rng(0).normal(0, 0.01, (50, 2)).cumsum(0)),
        index=pd.date_range("2020-01-01", periods=50),
        columns=["A", "B"],
    )
    with pytest.raises(DataError, match="traded volumes"):
        PortfolioEnv(load_market(prices), window=1, costs={"impact": 1.0})


def test_larger_accounts_pay_more_impact():
    market = load_market("synthetic?seed=2&bars=120&assets=3")
    paid = []
    for money in (1e4, 1e6, 1e8):
        env = PortfolioEnv(
            market, window=1, costs={"commission_bps": 0, "impact": 1.0}, initial_value=money
        )
        env.reset(seed=0)
        _, _, _, _, info = env.step(np.array([-1, 1, 1, 1], np.float32))
        paid.append(info["cost"] / money)
    assert paid[1] == pytest.approx(10 * paid[0], rel=0.05)
    assert paid[0] < paid[1] < paid[2]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"commission_bps": -1}, "commission_bps"),
        ({"commission_bps": 10_000}, "commission_bps"),
        ({"slippage_bps": [1, float("nan")]}, "slippage_bps"),
        ({"sell_commission_bps": [[1]]}, "sell_commission_bps"),
        ({"impact": -0.1}, "impact"),
        ({"impact_window": 1}, "impact_window"),
        ({"fixed_fee": float("inf")}, "fixed_fee"),
        ({"cash_rate_annual": 5}, r"cash_rate_annual=5 must be in \[-1, 1\].* 0.05 for 5 %"),
        ({"margin_rate_annual": -1.1}, "margin_rate_annual"),
        ({"delisting_haircut": 1.5}, "delisting_haircut"),
        ({"delisting_haircut": -0.1}, "delisting_haircut"),
        ({"commission_bps": None}, "commission_bps=None must be a finite number"),
        ({"commission_bps": "10"}, "commission_bps='10'"),
        ({"commission_bps": True}, "commission_bps=True"),
        ({"commission_bps": [1, "2"]}, "commission_bps="),
        ({"commission_bps": [1, None]}, "commission_bps="),
        ({"commission_bps": [[1], [1, 2]]}, "commission_bps="),
        ({"slippage_bps": float("nan")}, "slippage_bps=nan"),
        ({"impact": "1"}, "impact='1'"),
        ({"impact": True}, "impact=True"),
        ({"impact_window": True}, "impact_window=True must be a whole number"),
        ({"fixed_fee": None}, "fixed_fee=None"),
        ({"fixed_fee": 10**400}, "a number of 400 digits"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ArgumentError, match=message):
        TransactionCosts(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"commission_bps": 9999.5},
        {"impact_window": 2},
        {"cash_rate_annual": -1},
        {"borrow_rate_annual": 10},
        {"delisting_haircut": 1},
    ],
)
def test_bounds_are_allowed(fields):
    assert asdict(TransactionCosts(**fields)).items() >= fields.items()


def test_defaults_are_a_commission_of_ten_basis_points_and_nothing_else():
    costs = TransactionCosts()
    assert asdict(costs) == {
        **dict.fromkeys(asdict(costs), 0),
        "commission_bps": 10,
        "buy_commission_bps": None,
        "sell_commission_bps": None,
        "impact_window": 20,
    }
    with pytest.raises(FrozenInstanceError):
        costs.commission_bps = 0


def test_numbers_and_arrays_of_numpy_are_those_of_python():
    costs = TransactionCosts(
        np.array([1, 2]),
        slippage_bps=np.float32(0.5),
        impact_window=np.int64(9),
        impact=np.array(1),
    )
    plain = TransactionCosts([1, 2], slippage_bps=0.5, impact_window=9, impact=1)
    assert costs == plain and json.dumps(asdict(costs)) == json.dumps(asdict(plain))


def test_per_asset_fields_must_fit_the_market():
    with pytest.raises(ArgumentError, match="3 values but the market has 2"):
        TransactionCosts([1, 2, 3]).rates(2)
    with pytest.raises(ArgumentError, match="reaches 12000 bp"):
        TransactionCosts(6000, slippage_bps=6000).rates(2)
    with pytest.raises(ArgumentError, match="reaches 10000 bp"):
        TransactionCosts(5000, slippage_bps=5000).rates(2)
