"""A market walked bar by bar with an account of units and cash, beside the backtest."""

from decimal import Decimal, localcontext

import numpy as np

from portfolio_env import PortfolioEnv
from portfolio_env.live import Holdings, Instrument, Predictor, orders_of, plan
from portfolio_env.live.money import decimal_of
from portfolio_env.live.planning import last_prices

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
