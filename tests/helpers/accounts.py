"""Backtests made up from returns, and rules of trading in which every cost and limit binds."""

import numpy as np

from portfolio_env.evaluation import BacktestResult

DAYS = 252.0
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


def account(log_returns, *, cost=0.001, assets=("A", "B"), start="2020-01-01"):
    """An account with these log returns that trades a tenth of itself at every step."""
    k = len(log_returns)
    values = 10_000 * np.exp(np.r_[0.0, np.cumsum(log_returns)])
    held = np.tile([0.2, *np.full(len(assets), 0.8 / len(assets))], (k, 1))
    costs = cost * 0.1 * values[:-1]
    traded = 0.1 * values[:-1, None] * np.array([-0.5, 1.0, *np.zeros(len(assets) - 2), -0.5])
    traded[:, 0] = -traded[:, 1:].sum(axis=1) - costs
    return BacktestResult(
        assets=tuple(assets),
        timestamps=np.datetime64(start, "ns") + np.arange(k + 1) * np.timedelta64(1, "D"),
        values=values,
        drifted=held,
        held=held,
        trades=traded,
        turnovers=np.full(k, 0.1),
        costs=costs,
        carries=np.zeros(k),
        last_weights=held[-1],
        stated_periods_per_year=DAYS,
    )


def ruined(steps):
    """An account that lost all but a thousandth at its last step."""
    return account(np.r_[np.zeros(steps - 1), np.log(1e-3)])
