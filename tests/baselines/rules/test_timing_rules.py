"""Momentum over months, low volatility, trends, regimes and managed volatility, by hand."""

import numpy as np
import pandas as pd
import pytest

import portfolio_env as pe
from baselines import make_baseline
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest
from portfolio_env.evaluation.diagnostics.regimes import fit_regimes, regime_path


def market_of(close, freq="D"):
    days = pd.date_range("2022-01-01", periods=len(close), freq=freq)
    return pe.load_market(pd.DataFrame(close, days, list("ABCDEF")[: close.shape[1]]))


def walks(seed=0, bars=500, volatility=(0.01, 0.02, 0.03, 0.04), drift=0.0):
    steps = np.random.default_rng(seed).normal(drift, 1, (bars, len(volatility))) * volatility
    return 100 * np.exp(steps.cumsum(axis=0))


def held(name, market, row, limits=None, **options):
    constraints = pe.PortfolioConstraints(**limits or {})
    model = make_baseline(name, market, constraints=constraints, **options)
    return model.predict_weights(row).to_numpy()


@pytest.mark.parametrize("freq", ["D", "B", "6h"])
def test_months_are_counted_by_the_markets_bars_per_year(freq):
    close = walks(bars=1600)
    market, row = market_of(close, freq), 1590
    per_year = market.panel.past(row).bars_per_year()
    assert per_year == pytest.approx({"D": 365.25, "B": 261, "6h": 1461}[freq], rel=0.01)
    begin, end = row - round(per_year), row - round(per_year / 12)
    order = np.argsort(close[begin] / close[end])
    found = held("cross_sectional_momentum", market, row, top=0.5)
    expected = np.zeros(5)
    expected[1 + order[:2]] = 0.5
    assert found == pytest.approx(expected)
    sold = held("cross_sectional_momentum", market, row, {"long_only": False}, top=0.5)
    expected[0], expected[1:] = 1, np.where(expected[1:] > 0, 0.25, -0.25)
    assert sold == pytest.approx(expected)


@pytest.mark.parametrize(
    "limits",
    [{}, {"max_leverage": 1.5}, {"long_only": False}, {"long_only": False, "max_leverage": 2.0}],
)
def test_own_momentum_is_the_mean_of_signs_at_equal_risk(limits):
    close, row = walks(3), 480
    found = held("time_series_momentum", market_of(close), row, limits, months=[3, 12], lookback=60)
    month = 365.25 / 12
    signs = [np.sign(close[row - round(month)] - close[row - round(k * month)]) for k in (3, 12)]
    deviations = pd.DataFrame(np.log(close)).diff().iloc[row - 59 : row + 1].std().to_numpy()
    shares = (1 / deviations) / (1 / deviations).sum()
    expected = limits.get("max_leverage", 1.0) * shares * np.mean(signs, axis=0)
    if "long_only" not in limits:
        expected = np.maximum(expected, 0)
    assert found[1:] == pytest.approx(expected, rel=1e-9)
    assert found[0] == pytest.approx(1 - expected.sum())
    assert 0 < abs(expected).sum() <= limits.get("max_leverage", 1.0) + 1e-12


def test_low_volatility_and_trend_by_hand():
    close, row = walks(1), 470
    market = market_of(close)
    calm = held("low_volatility", market, row, share=0.5)
    assert calm.tolist() == [0, 0.5, 0.5, 0, 0]
    month = 365.25 / 12
    above = close[row] > close[row + 1 - round(10 * month) : row + 1].mean(axis=0)
    assert 0 < above.sum() < 4
    trend = held("trend_filter", market, row)
    assert trend[1:] == pytest.approx(above / 4) and trend[0] == pytest.approx(1 - above.mean())
    borrowed = held("trend_filter", market, row, {"max_leverage": 2.0})
    assert borrowed[1:] == pytest.approx(above / 2)


@pytest.mark.parametrize(
    "name", ["cross_sectional_momentum", "time_series_momentum", "low_volatility", "trend_filter"]
)
def test_an_asset_listed_late_waits_and_a_lost_close_does_not_disqualify(name):
    close = walks(2, drift=0.2)
    close[:470, 0] = np.nan
    close[300, 1] = np.nan
    options = {"top": 1.0} if "cross" in name else {"share": 1.0} if "low" in name else {}
    model = make_baseline(name, market_of(close), **options)
    weights = model.predict_weights(490)
    assert weights["A"] == 0 and (weights[["B", "C", "D"]] > 0).all()
    assert "has no price" in next(iter(model.left_out.values()))["A"]
    assert model.predict_weights(100)["cash"] == 1


def test_volatility_managed_by_hand():
    """Two equal assets over three months of returns of one size each."""
    days = pd.date_range("2023-01-31", "2023-04-05")
    month = (days.month.to_numpy() - 1)[1:]  # 1 to 3
    size = np.array([0.0, 0.01, 0.02, 0.04])[month]
    sign = np.where(np.arange(len(month)) % 2, 1, -1)
    close = 100 * np.cumprod(np.r_[1.0, 1 + size * sign])
    market = pe.load_market(pd.DataFrame({"A": close, "B": close}, days))
    model = make_baseline("volatility_managed", market)
    with pytest.raises(ArgumentError, match="not fitted"):
        model.predict_weights(50)
    last = int(np.flatnonzero(days == "2023-03-31")[0])
    model.fit(market.panel, (0, last + 1))
    february, march = (size * sign)[month == 1], (size * sign)[month == 2]
    # exposures 1 / variance of February act on March's returns, but the first of these, which is
    # decided at the last close of February, when no whole month is known
    scaled = march[1:] / february.var()
    assert model.scale == pytest.approx(march[1:].std() / scaled.std())
    assert model.scale == pytest.approx(february.var())  # of a single factor
    april = int(np.flatnonzero(days == "2023-04-03")[0])
    exposure = february.var() / march.var()
    assert exposure == pytest.approx(0.25, rel=0.01)  # twice as volatile: a quarter
    assert model.predict_weights(april).tolist() == pytest.approx(
        [1 - exposure, exposure / 2, exposure / 2]
    )


def test_volatility_managed_borrows_as_far_as_the_account_may():
    close = walks(5, volatility=(0.01, 0.01))
    close[300:] = close[300] * np.exp(0.3 * np.log(close[300:] / close[300]))  # calm later
    market = market_of(close)
    for leverage in (1.0, 1.6):
        limits = pe.PortfolioConstraints(max_leverage=leverage)
        model = make_baseline("volatility_managed", market, constraints=limits)
        model.fit(market.panel, (0, 300))
        weights = model.predict_weights(450)
        assert weights["cash"] == pytest.approx(1 - leverage)
        env = pe.PortfolioEnv(
            market, observation="index", action="weights", window=1, start=400,
            constraints=limits, costs={"margin_rate_annual": 0.1},
        )  # fmt: skip
        carry = backtest(model, env).carries.sum()
        assert (carry < 0) == (leverage > 1)


def test_the_regime_is_that_of_the_packages_filter_and_never_smoothed():
    rng = np.random.default_rng(0)
    calm = np.repeat([True, False, True, False], [300, 100, 150, 50])
    steps = rng.normal(0, np.where(calm, 0.005, 0.03))[:, None] * [1.0, 1.0]
    market = market_of(100 * np.exp(steps.cumsum(axis=0)))
    model = make_baseline("regime_switching", market, turbulent=0.2).fit(market.panel, (0, 450))
    returns = np.log1p((market.close[1:] / market.close[:-1] - 1).mean(axis=1))
    detector = fit_regimes(returns[:449])
    path = regime_path(detector.filtered(returns))
    rows = [380, 500, 520, 590, 599]
    found = [model.predict_weights(row)["cash"] for row in rows]
    assert found == pytest.approx([0.8 * path[row - 1] for row in rows])
    assert set(path[[379, 499, 589]]) == {0, 1}
    early = make_baseline("regime_switching", market)
    with pytest.raises(ArgumentError, match="at least 100"):
        early.fit(market.panel, (0, 60))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cross_sectional_momentum", {"skip": 12}, "skip=12"),
        ("time_series_momentum", {"months": 3}, "list of numbers"),
        ("time_series_momentum", {"months": [3], "skip": 3}, "skip=3"),
        ("low_volatility", {"share": 0}, "share=0"),
        ("trend_filter", {"months": 0}, "months=0"),
        ("regime_switching", {"threshold": 0.4}, "threshold=0.4"),
        ("volatility_target", {"target": 0}, "target=0"),
        ("volatility_target", {"band": 1}, "band=1"),
        ("volatility_target", {"cap": -1}, "cap=-1"),
    ],
)
def test_bad_options_of_timing_are_refused(name, options, message):
    with pytest.raises(ArgumentError, match=message):
        make_baseline(name, market_of(walks(bars=50)), **options)
