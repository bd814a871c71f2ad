"""Risk limits hold on what is held after whole lots are traded, and a stop outlives the call."""

import json
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from helpers.bare_markets import market_of, random_market

from baselines import make_baseline
from portfolio_env import PortfolioEnv
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.live import (
    AccountOptions,
    Decision,
    DrawdownStop,
    Holdings,
    Instrument,
    Predictor,
    RiskLimits,
    limited,
    orders_of,
    plan,
    read_limits,
    today,
)

N = 6
MARKET = random_market(3, 90, N)
T = MARKET.n_bars - 1
PRICES = tuple(Decimal(repr(float(each))) for each in MARKET.close[T])
RETURNS = MARKET.close[1:] / MARKET.close[:-1] - 1
OPTIONS = {"window": 1, "action": "weights", "observation": "index"}
COSTS = {"commission_bps": 10, "impact": 0.1}
CLOSE = 1e-9


def drawn(rng):
    """Limits, a decision, and an account of few lots."""
    limits = RiskLimits(
        max_weight=rng.uniform(0.25, 0.6),
        min_cash=0.02,
        max_turnover=rng.choice([None, rng.uniform(0.3, 1.5)]),
        max_var=rng.choice([None, rng.uniform(0.01, 0.03)]),
        confidence=0.9,
        lookback=60,
    )
    instruments = [
        Instrument(Decimal(str(rng.choice([0.5, 1, 3]))), min_notional=Decimal(int(least)))
        for least in rng.choice([0, 0, 150], N)
    ]
    shares = rng.dirichlet(np.full(N + 1, rng.choice([0.4, 3.0]))) * rng.uniform(2_000, 10_000)
    units = [
        each.whole(Decimal(str(x)) / p)
        for each, x, p in zip(instruments, shares[1:], PRICES, strict=True)
    ]
    holdings = Holdings(MARKET.assets, tuple(units), Decimal(str(round(shares[0], 2))))
    wish = rng.dirichlet(np.full(N + 1, 0.4)).astype(np.float32)
    decision = Decision(T, MARKET.timestamps[T], holdings.weights(PRICES), wish)
    return limits, decision, holdings, instruments


def excess_of(weights, limits, held):
    """Excess over each limit, of plain NumPy."""
    own, floor = weights[1:], limits.min_cash
    found = {"max_weight": own.max() - limits.max_weight, "min_cash": floor - weights[0]}
    if limits.max_turnover is not None:
        found["max_turnover"] = abs(own - held[1:]).sum() - limits.max_turnover
    if limits.max_var is not None:
        losses = -(RETURNS[-60:] @ own)
        found["max_var"] = np.quantile(losses, 0.9, method="inverted_cdf") - limits.max_var
    return found


def test_limits_hold_after_rounding_to_lots():
    rng, simulator = (
        np.random.default_rng(0),
        PortfolioEnv(MARKET, **OPTIONS, costs=COSTS).simulator,
    )
    obeyed = rounded_out = 0
    for _ in range(200):
        limits, decision, holdings, instruments = drawn(rng)
        value, held = float(holdings.value(PRICES)), decision.weights
        bare = plan(decision, simulator, value)
        planned = plan(decision, simulator, value, limits=limits)
        own = limited(bare.held, held, limits, RETURNS)
        np.testing.assert_allclose(planned.held, own.weights, rtol=0, atol=1e-14)
        orders = orders_of(planned, holdings, instruments, PRICES)
        spent = sum(map(Decimal.__mul__, orders.units, PRICES), Decimal(0)) + orders.cost
        assert orders.before.cash - orders.after.cash == spent
        assert min(orders.after.units) >= 0 <= orders.after.cash
        found = excess_of(orders.after.weights(PRICES), limits, held)
        assert {name for name, x in found.items() if x > CLOSE} == set(orders.broken)
        if max(excess_of(planned.held, limits, held).values()) > CLOSE:
            continue  # the holdings broke them, and no trade helps
        obeyed += 1
        assert not orders.broken
        plain = orders_of(replace(planned, risk=None), holdings, instruments, PRICES)
        rounded_out += max(excess_of(plain.after.weights(PRICES), limits, held).values()) > CLOSE
    assert obeyed > 100 and rounded_out > 8, (obeyed, rounded_out)


def test_what_lots_cannot_keep_is_said(tmp_path):
    """Of 3 units of a lot of 3 none can be sold but all, which the limit on turnover forbids."""
    path, limits = tmp_path / "h.csv", tmp_path / "limits.json"
    name = MARKET.assets[0]
    path.write_text(f"asset,units\n{name},3\ncash,100\n")
    limits.write_text('{"max_weight": 0.5, "max_turnover": 0.1}')
    equal = Predictor(make_baseline("cash", MARKET), PortfolioEnv(MARKET, **OPTIONS))
    account = AccountOptions(path, lot=3, risk_limits=limits)
    found = today(equal, account, name="x", now=MARKET.timestamps[-1])
    assert set(found.orders.broken) == {"max_weight"}
    assert any(each.startswith("risk limit max_weight: ") for each in found.alerts)
    assert found.to_json()["risk_limits"]["broken"] == found.orders.broken


def test_a_stop_goes_on_from_call_to_call(tmp_path):
    """By the values of a walk, as in a backtest; a bar seen twice or missed changes nothing."""
    (tmp_path / "limits.json").write_text('{"max_drawdown": 0.1, "reentry_after": 3}')
    values = [100, 120, 107, 90, 90, 90, 90]  # stopped at 107, and followed again three bars later
    close = np.full((30 + len(values), N), 50.0)

    def said(bars, value, folder):
        market = market_of(close[: 30 + bars])
        predictor = Predictor(
            make_baseline("equal_weight", market), PortfolioEnv(market, **OPTIONS)
        )
        account = AccountOptions(capital=value, lot=0, risk_limits=tmp_path / "limits.json")
        found = today(
            predictor, account, name="x", now=market.timestamps[-1], folder=tmp_path / folder
        )
        found.write(tmp_path / folder)
        assert (found.orders.plan.held[0] == 1) == (found.stop.bars is not None)
        return found.stop

    limits, stop = read_limits(tmp_path / "limits.json"), DrawdownStop()
    for bars, value in enumerate(values):
        stop = stop.at(value, limits)
        assert said(bars, value, "daily") == said(bars, value, "daily") == stop
        if bars != 4:
            assert said(bars, value, "a_call_missed") == stop
    assert stop == DrawdownStop(90.0)
    record = json.loads((tmp_path / "daily" / "today.json").read_text())
    assert record["drawdown_stop"] == {"peak": 90.0, "bars": None}


def test_a_call_without_limits_ends_no_stop(tmp_path):
    path = tmp_path / "limits.json"
    path.write_text('{"max_drawdown": 0.1, "reentry_after": 9}')
    close = np.full((40, N), 50.0)

    def stop_at(bars, value, limits):
        market = market_of(close[: 30 + bars])
        predictor = Predictor(make_baseline("cash", market), PortfolioEnv(market, **OPTIONS))
        account = AccountOptions(capital=value, lot=0, risk_limits=limits)
        found = today(predictor, account, name="x", now=market.timestamps[-1], folder=tmp_path)
        found.write(tmp_path)
        return found.stop

    assert stop_at(0, 100, path).bars is None
    assert stop_at(1, 80, path) == DrawdownStop(100.0, 0)
    assert stop_at(2, 80, None) == stop_at(2, 80, None) == DrawdownStop(100.0, 1)
    assert stop_at(3, 80, path) == DrawdownStop(100.0, 2)


def test_what_is_bought_to_end_a_short_position_is_not_sold(tmp_path):
    name, other = MARKET.assets[:2]
    path = tmp_path / "h.csv"
    path.write_text(f"asset,units\n{name},-3\n{other},2\ncash,2000\n")
    env = PortfolioEnv(MARKET, **OPTIONS, constraints={"long_only": False})
    found = today(
        Predictor(make_baseline("cash", MARKET), env),
        AccountOptions(path),
        name="x",
        now=MARKET.timestamps[-1],
    )
    assert found.orders.reasons[:2] == ("buy all", "sell all")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (None, DataError, "there is no file"),
        ("[1]", DataError, "limits.json holds no risk limits in JSON"),
        ("{", DataError, r"limits.json holds no risk limits in JSON \(Expecting"),
        ('{"max_wait": 0.1}', ArgumentError, "limits.json: .*max_weight"),
        ('{"max_weight": "much"}', ArgumentError, "limits.json: .*max_weight"),
        ('{"max_var": -1}', ArgumentError, "limits.json: .*max_var"),
    ],
)
def test_a_bad_file_of_limits_is_refused(tmp_path, text, error, message):
    path = tmp_path / "limits.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(error, match=message):
        read_limits(path)
