"""The volatility target: the scale by hand, leverage and cash, band, any member, no look-ahead."""

import numpy as np
import pytest
from helpers.bare_markets import market_of, random_market
from helpers.panels import panel_of, rewritten_after

import portfolio_env as pe
from baselines import evaluate, make_baseline
from portfolio_env.evaluation import backtest
from portfolio_env.metrics import volatility

MARKET = random_market(3, 400, 5)


def environment(market=MARKET, **options):
    options = {"window": 1, "start": 100, "observation": "index", "action": "weights"} | options
    return pe.PortfolioEnv(market, **options)


def yearly(result):
    return float(volatility(result.values[1:] / result.values[:-1] - 1, result.periods_per_year))


@pytest.mark.parametrize(("target", "limits"), [(0.13, {}), (0.2, {"max_leverage": 1.6})])
def test_the_scale_is_target_over_volatility_of_present_weights(target, limits):
    constraints = pe.PortfolioConstraints(**limits)
    model = make_baseline(
        "volatility_target", MARKET, members=["equal_weight"], target=target, lookback=40, band=0.0,
        constraints=constraints,
    )  # fmt: skip
    result = backtest(model, environment(constraints=limits))
    returns = MARKET.close[1:] / MARKET.close[:-1] - 1
    exposures = []
    for row in range(100, 390):
        window = returns[row - 40 : row].mean(axis=1)  # equal weights
        per_year = MARKET.bars_per_year(row - 40, row + 1)
        scale = min(target / (window.std(ddof=1) * per_year**0.5), limits.get("max_leverage", 1.0))
        exposures.append(scale)
    found = result.held[: len(exposures), 1:].sum(axis=1)
    assert found == pytest.approx(np.array(exposures), abs=1e-6)
    assert np.ptp(found) > 0.01


def test_the_target_is_met_and_cash_or_borrowing_pays():
    """On prices of constant volatility the account has the target's, above and below one."""
    steps = np.random.default_rng(0).normal(0, 0.01, (1500, 4))
    market = market_of(100 * np.exp(steps.cumsum(axis=0)))
    free = {"commission_bps": 0}
    plain = backtest(make_baseline("equal_weight", market), environment(market, costs=free))
    own = yearly(plain)
    for ratio, leverage in ((0.5, 1.0), (1.5, 2.0)):
        limits = pe.PortfolioConstraints(max_leverage=leverage)
        model = make_baseline(
            "volatility_target", market, target=ratio * own, band=0.05, constraints=limits
        )
        options = {"constraints": limits, "costs": free | {"margin_rate_annual": 0.05}}
        result = backtest(model, environment(market, **options))
        reached = yearly(result)
        assert reached == pytest.approx(ratio * own, rel=0.05)
        assert (result.carries.sum() < 0) == (leverage > 1)


def test_a_band_trades_less_and_stays_within_it():
    members = ["buy_and_hold"]
    calm, wide = (
        backtest(
            make_baseline("volatility_target", MARKET, members=members, target=0.1, band=band),
            environment(),
        )
        for band in (0.0, 0.2)
    )
    assert wide.turnovers.sum() < 0.5 * calm.turnovers.sum()
    exposure = [each.held[:, 1:].sum(axis=1) for each in (calm, wide)]
    assert abs(exposure[1] / exposure[0] - 1).max() < 0.3


def test_members_with_options_and_shorts_are_scaled_as_they_are():
    limits = pe.PortfolioConstraints(long_only=False, max_leverage=3.0)
    member = make_baseline(
        "momentum", MARKET, lookback=20, constraints=pe.PortfolioConstraints(long_only=False)
    )
    model = make_baseline(
        "volatility_target", MARKET, members={"m": member}, target=0.3, constraints=limits
    )
    env = environment(constraints=limits)
    weights, _ = model.predict(env.reset(seed=0)[0])
    alone = member.predict_weights(100).to_numpy()
    scale = abs(weights[1:]).sum() / abs(alone[1:]).sum()
    assert weights[1:] == pytest.approx(scale * alone[1:]) and scale > 1
    assert (backtest(model, env).held[:, 1:] < 0).any(axis=1).all()


def test_no_later_bar_changes_a_decision():
    panel = panel_of("B", 200, assets=5, seed=3)
    accounts = [
        backtest(
            make_baseline("volatility_target", market, members=["momentum"], target=0.1),
            environment(market, start=100, end=140),
        )
        for market in (pe.load_market(panel), pe.load_market(rewritten_after(panel, 139, seed=1)))
    ]
    assert (accounts[0].held == accounts[1].held).all()


def test_from_text_with_leverage_the_members_are_not_levered_twice():
    name = "volatility_target(members=['inverse_volatility'], target=0.15, lookback=30)"
    limits = {"max_leverage": 1.5}
    found = evaluate(name, MARKET, start=200, n_resamples=20, constraints=limits)
    result = found.results[name]
    gross = result.held[:, 1:].sum(axis=1)
    assert gross.max() <= 1.5 + 1e-9 and gross.max() > 1
    model = make_baseline(
        "volatility_target", MARKET, members=["inverse_volatility"], target=0.15, lookback=30,
        constraints=pe.PortfolioConstraints(**limits),
    )  # fmt: skip
    again = backtest(model, environment(start=200, constraints=limits))
    assert (again.values == result.values).all()
