"""Decisions, plans and orders make the same account as the backtest, bar by bar."""

from dataclasses import replace
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from helpers.bare_markets import random_market

from agents import make_agent, make_sb3_vec_env
from agents.direct.agent import DirectAgent
from baselines import make_baseline
from portfolio_env import Market, PortfolioEnv, load_market
from portfolio_env.evaluation import backtest
from portfolio_env.live import Holdings, Instrument, Predictor, orders_of, plan
from portfolio_env.live.money import decimal_of
from portfolio_env.live.planning import last_prices

EXACT = 1e-12
COSTS = {
    "commission_bps": 10,
    "sell_commission_bps": 25,
    "slippage_bps": 3,
    "impact": 0.4,
    "fixed_fee": 0.5,
    "cash_rate_annual": 0.04,
    "margin_rate_annual": 0.08,
    "borrow_rate_annual": 0.05,
    "delisting_haircut": 0.3,
}
CONSTRAINTS = {
    "max_weight": 0.5,
    "min_cash": 0.02,
    "no_trade_band": 0.01,
    "max_turnover": 0.4,
    "max_period_turnover": 1.0,
    "turnover_period": 5,
}


ANY_FRACTION = Instrument(lot=Decimal(0))


def decimals(prices):
    return tuple(map(decimal_of, prices))


def walk(policy, **options):
    """Held weights and values of every bar, from decisions, plans and orders alone."""
    env = PortfolioEnv(**options)
    predictor, simulator, market = Predictor(policy, env), env.simulator, env.market
    start, end = simulator.episodes.start, simulator.episodes.end
    account = Holdings.of_cash(market.assets, simulator.initial_value)
    values, held, turnovers = [simulator.initial_value], [], []
    for t in range(start, end - 1):
        closes = decimals(last_prices(market, t))
        decision = predictor.decide(account.weights(closes), t)
        prices, can = closes, market.tradable[t]
        gone = simulator.arrays.delisted[t]
        if options.get("execution") == "next_open":
            account = delisted(account, closes, gone, simulator.costs.delisting_haircut)
            opens = np.where(np.isfinite(market.close[t + 1]), market.open[t + 1], closes)
            prices, can = decimals(opens), market.tradable[t + 1]
        now = plan(
            decision,
            simulator,
            float(account.value(prices)),
            weights=account.weights(prices),
            prices=[float(price) for price in prices],
            tradable=can,
            turnovers=turnovers,
        )
        orders = orders_of(now, account, [ANY_FRACTION] * len(prices), prices)
        held.append(orders.after.weights(prices))
        turnovers.append(now.turnover)
        account = with_interest(orders.after, prices, simulator.arrays.interest[t])
        if options.get("execution") != "next_open":
            account = delisted(account, prices, gone, simulator.costs.delisting_haircut)
        values.append(float(account.value(decimals(last_prices(market, t + 1)))))
    return np.array(held), np.array(values)


def with_interest(account, prices, rates):
    """The account after a step's interest, to 34 digits."""
    short = sum((min(part, Decimal(0)) for part in account.worth(prices)), Decimal(0))
    with localcontext() as context:
        context.prec = 34
        rate = rates[0] if account.cash > 0 else rates[1]
        cash = account.cash * (1 + decimal_of(rate)) + short * decimal_of(rates[2])
    return Holdings(account.assets, account.units, cash)


def delisted(account, prices, gone, haircut):
    """The account after the holdings of some assets became cash."""
    units, cash = list(account.units), account.cash
    for place in np.flatnonzero(gone):
        if units[place]:
            cash += units[place] * prices[place] * (1 - decimal_of(haircut))
            units[place] = Decimal(0)
    return Holdings(account.assets, tuple(units), cash)


def ragged() -> Market:
    """Assets that start late, stop, and do not trade at times; with opens and volumes."""
    return load_market("synthetic?bars=180&assets=5&seed=3&ragged=true")


def check(policy: Any, **options: Any) -> None:
    result = backtest(policy, PortfolioEnv(**options))
    held, values = walk(policy, **options)
    assert result.turnovers.sum() > 0.1
    assert np.abs(held - result.held).max() < EXACT
    assert np.abs(values / result.values - 1).max() < EXACT


BASE = {"observation": "index", "action": "weights", "window": 1, "start": 40}


@pytest.mark.parametrize("execution", ["close", "next_open"])
@pytest.mark.parametrize(
    "name", ["equal_weight", "buy_and_hold", "momentum", "inverse_volatility", "hrp", "random"]
)
def test_baselines(name: str, execution: str) -> None:
    market = ragged()
    assert (~market.tradable[40:]).any()
    options = {"lookback": 30, "every": 5} if name == "hrp" else {}
    model = make_baseline(name, market, **options)
    check(model, market=market, **BASE, execution=execution, costs=COSTS)


@pytest.mark.parametrize("execution", ["close", "next_open"])
def test_constraints_and_adjustment(execution: str) -> None:
    market = ragged()
    check(
        make_baseline("random", market),
        market=market,
        **BASE,
        execution=execution,
        costs=COSTS,
        constraints=CONSTRAINTS,
        adjustment=0.3,
    )


@pytest.mark.parametrize("execution", ["close", "next_open"])
def test_bounds_of_groups(execution: str) -> None:
    market = ragged()
    labels = {"kind": tuple("ABABA"[: market.n_assets])}
    market = replace(market, panel=replace(market.panel, categories=labels))
    bounds = {"A": (0.2, 0.3), "B": (0.0, 0.25)}
    options: dict[str, Any] = {"market": market, **BASE, "execution": execution}
    options["constraints"] = {"group_by": "kind", "group_bounds": bounds}
    free = backtest(make_baseline("random", market), PortfolioEnv(market, **BASE))
    sums = free.held[:, 1:] @ np.array([[kind == "A" for kind in labels["kind"]]]).T
    assert (sums > 0.3).any()  # so that the bounds bind
    check(make_baseline("random", market), **options, costs=COSTS)


class LongShort:
    """Weights with leverage and shorts that change from bar to bar."""

    action = "weights"

    def predict(self, observation: Any, state: Any = None, *_: Any, **__: Any) -> Any:
        rng = np.random.default_rng(int(observation["t"][0, 0]))
        risky = rng.uniform(-0.5, 0.7, observation["tradable"].shape[1])
        return np.r_[1 - risky.sum(), risky][None], state


def test_a_plan_is_the_first_half_of_a_step_to_the_last_bit() -> None:
    market = ragged()
    options: dict[str, Any] = {**BASE, "costs": COSTS, "constraints": {"max_turnover": 0.4}}
    env = PortfolioEnv(market, **options)
    predictor = Predictor(make_baseline("random", market), PortfolioEnv(market, **options))
    env.reset()
    for t in range(40, 120):
        value = float(env.simulator.ledger[0, 0])
        decision = predictor.decide(env.weights, t)
        now = plan(decision, predictor.simulator, value)
        info = env.step(decision.action)[4]
        assert np.array_equal(now.held, env.simulator.held[0])
        assert now.turnover == info["turnover"]
        assert now.cost == pytest.approx(info["cost"], rel=1e-10)  # a small part of the value


def test_leverage_and_short_positions() -> None:
    market = random_market(3, 200, 4, halted=0.1)
    constraints = {"long_only": False, "max_leverage": 1.6, "min_cash": -0.6}
    costs = COSTS | {"impact": 0}
    check(LongShort(), market=market, **BASE, costs=costs, constraints=constraints)


@pytest.mark.parametrize("execution", ["close", "next_open"])
def test_agents(execution: str) -> None:
    market = ragged()
    options: dict[str, Any] = {"execution": execution, "costs": COSTS, "adjustment": 0.5}
    options |= {"observation": "index", "window": 8}
    venv = make_sb3_vec_env(market, 2, **options)
    ppo = make_agent("ppo", venv, seed=1, n_steps=8, batch_size=16, device="cpu")
    ppo.learn(64)
    check(ppo, market=market, **options)
    direct = DirectAgent(market.n_features, encoder="lstm", window=8, device="cpu")
    direct.bind(market)
    check(direct, market=market, **options)
