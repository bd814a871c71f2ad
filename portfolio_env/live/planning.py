"""Plan: what is traded for a decision, by the compiled first half of the simulator's step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.errors import ArgumentError, ConservationError
from portfolio_env.live.predictor import Decision
from portfolio_env.market import Market
from portfolio_env.simulation import dynamics
from portfolio_env.simulation.market_arrays import latest_prices
from portfolio_env.simulation.simulator import Simulator
from portfolio_env.simulation.targets import checked_actions

Bool = NDArray[np.bool_]
Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Plan:
    """Trades for a decision in an account of any fraction of a unit; weights put cash first.

    Attributes:
        assets: N names.
        timestamp: Time of the bar that was decided at.
        prices: (N,) prices at which it is sized; NaN where an asset never had one.
        tradable: (N,) what can be traded now.
        value: Money of the account before trading.
        weights: (N + 1,) weights before trading.
        held: (N + 1,) weights after it.
        cost: Money that trading costs.
        turnover: Traded notional over the value before.
        rates: (2, N) cost per traded notional of purchases and sales.
        impact: (N,) coefficient of the square root of the money traded.
        fee: Money charged once if anything is traded.
        min_cash: Lower bound of the weight of cash.
    """

    assets: tuple[str, ...]
    timestamp: np.datetime64
    prices: Float
    tradable: Bool
    value: float
    weights: Float
    held: Float
    cost: float
    turnover: float
    rates: Float
    impact: Float
    fee: float
    min_cash: float

    @property
    def money(self) -> Float:
        """Return (N + 1,) money in every slot after trading."""
        return (self.value - self.cost) * self.held

    @property
    def units(self) -> Float:
        """Return (N,) units after trading; 0 where there is no price."""
        return np.where(np.isfinite(self.prices), self.money[1:] / self.prices, 0.0)


def last_prices(market: Market, t: int) -> Float:
    """Return (N,) latest closing prices up to a bar; NaN where there is none yet."""
    return latest_prices(market.panel, t)


def plan(
    decision: Decision,
    simulator: Simulator,
    value: float,
    *,
    weights: ArrayLike | None = None,
    prices: ArrayLike | None = None,
    tradable: ArrayLike | None = None,
    rates: Float | None = None,
    turnovers: Sequence[float] = (),
) -> Plan:
    """Return what a step of the simulator would trade for a decision.

    By default it is sized at the close that was decided on. Orders that go out later, as with
    ``execution="next_open"``, are sized by the weights, prices and tradable assets of then.

    Args:
        decision: The decision.
        simulator: Rules of trading, constraints and costs.
        value: Money of the account before trading, > 0.
        weights: (N + 1,) weights before trading; those decided on by default.
        prices: (N,) prices; the last closes by default.
        tradable: (N,) what can be traded; what could be at the bar by default.
        rates: (2, N) cost per traded notional of purchases and sales; those of the costs by
            default.
        turnovers: Turnovers of the steps before, the latest last, for limits over several steps.

    Raises:
        ArgumentError: If the value is not positive, or the action is none.
        ConservationError: If the trade lost or made money, a fault of the program.
    """
    market, row = simulator.market, decision.row
    if not 0 < value < np.inf:
        raise ArgumentError(f"the account is worth {value:g}; there is nothing to trade with.")
    can = np.array(market.tradable[row] if tradable is None else tradable, np.bool_)
    each = simulator.arrays.rates if rates is None else rates
    impact = simulator.arrays.impact
    n, period = market.n_assets, simulator.lanes.turnovers.shape[1]
    lanes = dynamics.new_lanes(1, n, period)
    lanes.weights[0] = decision.weights if weights is None else np.array(weights, np.float64)
    lanes.ledger[dynamics.VALUE] = value
    # the ring's first place stands for the turnover that is planned now
    past = np.array(turnovers, np.float64)[::-1][: max(period - 1, 0)]
    lanes.turnovers[0, 1 : 1 + len(past)] = past
    now = dynamics.MarketArrays(
        before=np.ones((1, n)),
        after=np.ones((1, n)),
        tradable=can[None],
        delisted=np.zeros((1, n), np.bool_),
        all_tradable=np.array([can.all()]),
        rates=np.ascontiguousarray(each, np.float64),
        impact=impact[row : row + 1] if len(impact) else impact,
        interest=np.zeros((1, 3)),
    )
    before = lanes.weights[0].copy()
    action: Any = checked_actions(decision.action[None], (1, n + 1))
    code = dynamics.rebalance_lanes(
        simulator.wanted(action),
        decision.weights[None],
        np.ones(1, np.bool_),
        lanes,
        now,
        simulator.rules,
        simulator.bounds,
        simulator.groups,
    )
    if code >= 0:
        raise ArgumentError(
            f"the action is not finite: {decision.action.tolist()}; check the policy for NaN."
        )
    if code != -1:
        raise ConservationError(
            f"the trade planned at {decision.timestamp} is off by {lanes.growth[2, 0]:.3g} of the "
            "wealth. This is a fault of the program, not of the action: report it."
        )
    return Plan(
        assets=market.assets,
        timestamp=decision.timestamp,
        prices=np.array(last_prices(market, row) if prices is None else prices, np.float64),
        tradable=can,
        value=value,
        weights=before,
        held=lanes.held[0].copy(),
        cost=float(lanes.ledger[dynamics.COST, 0]),
        turnover=float(lanes.ledger[dynamics.TURNOVER, 0]),
        rates=now.rates,
        impact=now.impact[0] if len(now.impact) else np.zeros(n),
        fee=simulator.costs.fixed_fee,
        min_cash=float(simulator.bounds["min_cash"][0]),
    )
