"""Plan: what is traded for a decision, by the compiled first half of the simulator's step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.errors import ArgumentError, ConservationError
from portfolio_env.live.predictor import Decision
from portfolio_env.live.risk import Limited, limited
from portfolio_env.live.risk_limits import RiskLimits, past_returns
from portfolio_env.market import Market
from portfolio_env.simulation import dynamics
from portfolio_env.simulation.constraints import NO_LIMIT, PortfolioConstraints
from portfolio_env.simulation.market_arrays import latest_prices
from portfolio_env.simulation.projection import NO_GROUPS
from portfolio_env.simulation.simulator import Simulator
from portfolio_env.simulation.targets import checked_actions

Bool = NDArray[np.bool_]
Float = NDArray[np.float64]
_WIDE = 1e6  # of wealth: weights within it pass the projection unchanged


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
        risk: Decision of the risk manager, which ``held`` is then; None without limits.
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
    risk: Limited | None = None

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
    limits: RiskLimits | None = None,
    stopped: bool = False,
) -> Plan:
    """Return what a step of the simulator would trade for a decision, within risk limits.

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
        limits: Risk limits, which hold together on the weights after trading, see ``limited``.
        stopped: Whether their drawdown stop holds: cash is held.

    Raises:
        ArgumentError: If the value is not positive, the action is none, or returns are too few for
            the measures of the limits.
        ConservationError: If the trade lost or made money, a fault of the program.
    """
    market, row = simulator.market, decision.row
    if not 0 < value < np.inf:
        raise ArgumentError(f"the account is worth {value:g}; there is nothing to trade with.")
    can = np.array(market.tradable[row] if tradable is None else tradable, np.bool_)
    n, period = market.n_assets, simulator.lanes.turnovers.shape[1]
    lanes = dynamics.new_lanes(1, n, period)
    lanes.weights[0] = decision.weights if weights is None else np.array(weights, np.float64)
    lanes.ledger[dynamics.VALUE] = value
    # the ring's first place stands for the turnover that is planned now
    past = np.array(turnovers, np.float64)[::-1][: max(period - 1, 0)]
    lanes.turnovers[0, 1 : 1 + len(past)] = past
    now = _one_bar(simulator, row, can, rates)
    before = lanes.weights[0].copy()
    action: Any = checked_actions(decision.action[None], (1, n + 1))
    rules, bounds, groups = simulator.rules, simulator.bounds, simulator.groups
    where = (np.ones(1, np.bool_), lanes, now)
    code = dynamics.rebalance_lanes(
        simulator.wanted(action), decision.weights[None], *where, rules, bounds, groups
    )
    if code >= 0:
        raise ArgumentError(
            f"the action is not finite: {decision.action.tolist()}; check the policy for NaN."
        )
    risk = None
    if code == -1 and limits is not None:
        risk = limited(
            lanes.held[0], before, limits, past_returns(market.close, row, limits.lookback),
            fixed=~can, labels=limits.constraints.labels(market.panel), stopped=stopped,
        )  # fmt: skip
        if not np.array_equal(risk.weights, lanes.held[0]):
            code = dynamics.rebalance_lanes(
                risk.weights[None], before[None], *where, *_freely(rules, n), NO_GROUPS
            )
    if code != -1:
        raise ConservationError(
            f"the trade planned at {decision.timestamp} is off by {lanes.growth[2, 0]:.3g} of the "
            "wealth. This is a fault of the program, not of the action: report it."
        )
    least = float(bounds["min_cash"][0])
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
        min_cash=least if risk is None else max(least, float(risk.excess.bounds["min_cash"])),
        risk=risk,
    )


def _one_bar(
    simulator: Simulator, row: int, can: NDArray[np.bool_], rates: Float | None
) -> dynamics.MarketArrays:
    """Return the market arrays of one bar at which prices stand still."""
    n, impact = len(can), simulator.arrays.impact
    return dynamics.MarketArrays(
        before=np.ones((1, n)),
        after=np.ones((1, n)),
        tradable=can[None],
        delisted=np.zeros((1, n), np.bool_),
        all_tradable=np.array([can.all()]),
        rates=np.ascontiguousarray(simulator.arrays.rates if rates is None else rates, np.float64),
        impact=impact[row : row + 1] if len(impact) else impact,
        interest=np.zeros((1, 3)),
    )


def _freely(rules: NDArray[np.void], n: int) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Return rules and bounds with which weights are traded as they are given."""
    own = rules.copy()
    own["softmax"], own["adjustment"], own["no_trade_band"] = False, 1.0, 0.0
    own["max_turnover"] = own["max_period_turnover"] = NO_LIMIT
    wide = PortfolioConstraints(long_only=False, max_weight=_WIDE, max_leverage=_WIDE)
    return own, wide.bounds(n)
