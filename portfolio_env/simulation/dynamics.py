"""Compiled account dynamics over lanes: the only place where money moves.

Weights put cash first. ``drifted`` weights ``d`` are what the market left, ``target`` weights ``a``
what is asked for, ``held`` weights what is owned right after trading. Everything is in units of the
wealth ``V`` before trading. One step of a lane (``step_lanes``):

1. the action becomes a feasible target (``targets.target_lane``);
2. what is filled of the trade is paid for, which leaves ``mu V`` (``rebalancing.trade_lane``);
3. the market moves, cash and shorts carry interest, delisted holdings become cash (``drift_lane``).

``rebalance_lanes`` does the first two alone: what is traded now, with or without a next bar.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from portfolio_env.compiled import borrowed, inlined, kernel, record
from portfolio_env.simulation.projection import GroupBounds, violation_lane
from portfolio_env.simulation.rebalancing import (
    fill_lane,
    money_lost,
    remainder_factor,
    trade_lane,
)
from portfolio_env.simulation.targets import mark_kept, target_lane

__all__ = [
    "LEDGER",
    "Lanes",
    "MarketArrays",
    "new_lanes",
    "rebalance_lanes",
    "remainder_factor",
    "step_lanes",
]

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

# Rows of the ledger: what one step did to each lane; also the keys of Gymnasium's info.
LEDGER = (
    "portfolio_value",
    "log_return",
    "turnover",
    "cost",
    "carry",
    "drawdown",
    "cash",
    "concentration",
    "benchmark_log_return",
    "constraint_violation",
    "unfilled",
)
VALUE, LOG_RETURN, TURNOVER, COST, CARRY, DRAWDOWN, CASH, CONCENTRATION, BENCHMARK = range(9)
VIOLATION, UNFILLED = range(9, len(LEDGER))
# An account that has lost 99.9 % is ruined; a log return cannot see below 1e-6 of the initial
# value.
RUIN_FRACTION = 1e-3
LOG_FLOOR = 1e-6
# Tolerance for money lost or made by rounding, see ``rebalancing.money_lost``.
CONSERVED = 1e-9

# The numbers of one environment that do not change while it runs: a record read by field name.
RULES = record(
    softmax=np.bool_,  # actions are softmax numerators, else weights
    next_open=np.bool_,
    sampled=np.bool_,  # lanes trade columns of their own, else all in order
    adjustment=np.float64,
    no_trade_band=np.float64,
    max_turnover=np.float64,
    max_period_turnover=np.float64,
    haircut=np.float64,
    fixed_fee=np.float64,
    initial_value=np.float64,
)


class MarketArrays(NamedTuple):
    """Market arrays of the simulator; row t is the step from close t to close t + 1."""

    before: Float  # (T - 1, N) gross return between the decision and the trade; 1 at the close
    after: Float  # (T - 1, N) gross return between the trade and the next close
    tradable: Bool  # (T - 1, N) whether the asset can be traded in this step
    delisted: Bool  # (T - 1, N) the asset's last bar is t: what is held becomes cash
    all_tradable: Bool  # (T - 1,) all assets can be traded and none is delisted
    rates: Float  # (2, N) linear cost per traded notional of purchases and sales
    impact: Float  # (T, N) coefficient of sqrt(money traded), or (0, 0)
    interest: Float  # (T - 1, 3) what a unit of cash earns, of debt pays, of a short pays
    capacity: Float = np.zeros((0, 0))  # (T - 1, N) money that an order can be filled with


class Lanes(NamedTuple):
    """State of B lanes, changed in place by ``step_lanes``."""

    clock: NDArray[
        np.int64
    ]  # (2, B) last closed bar, and the bar at which the episode is truncated
    assets: NDArray[np.int64]  # (B, N) columns of the market the lane trades
    weights: Float  # (B, N + 1) drifted
    held: Float  # (B, N + 1) right after the last trade
    growth: Float  # (4, B) value over value before of the last step, the highest value so far,
    # the ``rebalancing.money_lost`` of a trade that broke conservation, else 0, and the share of
    # the way to its target that the last trade went
    ledger: Float  # (len(LEDGER), B)
    turnovers: Float  # (B, P) ring of the last turnovers, P = 0 without a period limit
    ended: Bool  # (2, B) terminated, truncated
    scratch: Float  # (5, N + 1) work space of one lane
    flags: Bool  # (6, N) delisted, untradable (false again after each lane), fixed, none, kept,
    # work space
    fills: Float  # (2, B, N) largest shares of the next orders that are filled, and what of the
    # last orders was not, per wealth, purchases positive; (2, B, 0) where all always is
    keys: NDArray[np.uint64]  # (B,) what the draws of ``Fills`` in this episode depend on


def new_lanes(
    num_lanes: int, n_assets: int, turnover_period: int, *, complete: bool = True
) -> Lanes:
    """Return lanes of zeros that trade all assets, with a ring of so many turnovers.

    Args:
        num_lanes: Number B of lanes.
        n_assets: Number N of assets.
        turnover_period: Turnovers that are remembered.
        complete: All orders are always filled.
    """
    b, n = num_lanes, n_assets
    return Lanes(
        clock=np.zeros((2, b), np.int64),
        assets=np.tile(np.arange(n), (b, 1)),
        weights=np.zeros((b, n + 1)),
        held=np.zeros((b, n + 1)),
        growth=np.zeros((4, b)),
        ledger=np.zeros((len(LEDGER), b)),
        turnovers=np.zeros((b, turnover_period)),
        ended=np.zeros((2, b), np.bool_),
        scratch=np.zeros((5, n + 1)),
        flags=np.zeros((6, n), np.bool_),
        fills=np.array([[[1.0]], [[0.0]]]).repeat(b, 1).repeat(0 if complete else n, 2),
        keys=np.zeros(b, np.uint64),
    )


@inlined
def drift_lane(
    w: Float,
    gross_returns: Float,
    delisted: Bool,
    haircut: float,
    rates: tuple[float, float, float],
    out: Float,
) -> tuple[float, float]:
    """Let the market move weights ``w`` to ``out``; return (growth, carry), per wealth.

    Cash earns ``rates[0]`` (or pays ``rates[1]`` when negative), shorts pay ``rates[2]`` of their
    value before the move. A delisted holding becomes cash at its last price less the haircut.
    """
    cash, short = w[0], 0.0
    if rates[2] != 0.0:
        for i in range(gross_returns.shape[0]):
            short -= min(w[i + 1], 0.0)
    carry = cash * (rates[0] if cash > 0 else rates[1]) - short * rates[2]
    cash += carry
    total = 0.0
    for i in range(gross_returns.shape[0]):
        moved = w[i + 1] * gross_returns[i]
        if delisted[i]:
            cash += w[i + 1] * (1.0 - haircut)
            moved = 0.0
        out[i + 1] = moved
        total += moved
    total += cash
    out[0] = cash
    if total > 0.0:
        share = 1.0 / total
        for i in range(out.shape[0]):
            out[i] *= share
    return total, carry


def step_lanes(
    actions: Float, active: Bool, owned: Lanes, read: MarketArrays, rules: Any, bounds: Any,
    groups: GroupBounds | None,
) -> int:  # fmt: skip
    """Advance the active lanes by one bar, in place.

    Args:
        actions: (B, N + 1) softmax numerators or weights, cash first.
        active: (B,) lanes to step; the others, and their columns of the ledger, stay as they are.
        owned: State of the lanes. Log returns are left to the caller: NumPy takes logarithms of all
            at once.
        read: The market.
        rules: (1,) record array of ``RULES``.
        bounds: (1,) record array of ``constraints.BOUNDS``.
        groups: Bounds of groups of assets, which lanes that trade all assets may have; None where
            scores are traded and ``bounds`` are trivial: what projects is then not compiled.

    Returns:
        -1; or the first active lane whose action is not finite, then nothing has changed; or
        -2 - b where a trade of lane b broke the conservation of money: then b stands before its
        move, with ``held`` and turnover and cost of the ledger as they broke, and the others have
        been stepped.
    """
    partly = _partly(owned)
    return _step_lanes(actions, active, rules, bounds, groups, partly, *owned, *read)


def _partly(lanes: Lanes) -> bool | None:
    """Return None where all orders are filled: what fills a part of them is then not compiled."""
    return True if lanes.fills.shape[2] > 0 else None


# Arrays one by one: numba takes twice as long to recognise the types of those in a tuple.
@kernel
def _step_lanes(
    actions: Float, active: Bool, rules: Any, bounds: Any, groups: GroupBounds | None,
    partly: bool | None,
    clock: Any, assets: Any, weights: Any, held: Any, growth: Any, ledger: Any, turnovers: Any,
    ended: Any, scratch: Any, flags: Any, fills: Any, keys: Any,
    before: Any, after: Any, tradable: Any, delisted: Any, all_tradable: Any, rates: Any,
    impact: Any, interest: Any, capacity: Any,
) -> int:  # fmt: skip
    """Do what ``step_lanes`` says, given the fields of ``Lanes`` and ``MarketArrays``."""
    lanes = borrowed(
        Lanes(
            clock, assets, weights, held, growth, ledger, turnovers, ended, scratch, flags, fills,
            keys,
        )
    )  # fmt: skip
    market = borrowed(
        MarketArrays(
            before, after, tradable, delisted, all_tradable, rates, impact, interest, capacity
        )
    )
    wanted = borrowed(actions)
    bad = _first_not_finite(wanted, active)
    if bad >= 0:
        return bad
    broken = -1
    for b in range(actions.shape[0]):
        if active[b]:
            conserved = _step_lane(b, wanted[b], lanes, market, rules[0], bounds[0], groups, partly)
            if not conserved and broken < 0:
                broken = b
    return -1 if broken < 0 else -2 - broken


@kernel
def rebalance_lanes(
    actions: Float, observed: Float, active: Bool, owned: Lanes, read: MarketArrays, rules: Any,
    bounds: Any, groups: GroupBounds | None,
) -> int:  # fmt: skip
    """Trade in the active lanes at their bars and let nothing move: the first half of a step.

    Orders are filled as a whole. ``held``, turnover and cost of the ledger say what was traded;
    weights, value and clock stay.

    Args:
        actions: See ``step_lanes``.
        observed: (B, N + 1) weights that the actions were decided on: with ``next_open`` those at
            the close before, where the lanes' are those at the open.
        active: See ``step_lanes``.
        owned: State of the lanes.
        read: The market, whose tradability, rates and impact are read: a last row has them too.
        rules: See ``step_lanes``.
        bounds: See ``step_lanes``.
        groups: See ``step_lanes``.

    Returns:
        As ``step_lanes``.
    """
    lanes, market, wanted = borrowed(owned), borrowed(read), borrowed(actions)
    bad = _first_not_finite(wanted, active)
    if bad >= 0:
        return bad
    broken = -1
    for b in range(actions.shape[0]):
        if not active[b]:
            continue
        ledger, all_tradable = lanes.ledger, _flag_assets(b, lanes, market)
        if not rules[0].softmax:
            mark_kept(wanted[b], observed[b], lanes.flags[4])
        wealth = ledger[VALUE, b]
        mu, turnover, _, lost = _rebalance(
            b, wanted[b], wealth, all_tradable, lanes, market, rules[0], bounds[0], groups, None
        )
        lanes.flags[:2] = False
        ledger[TURNOVER, b], ledger[COST, b] = turnover, wealth - mu * wealth
        if not lost <= CONSERVED and broken < 0:
            lanes.growth[2, b] = lost
            broken = b
    return -1 if broken < 0 else -2 - broken


@inlined
def _first_not_finite(actions: Float, active: Bool) -> int:
    """Return the first active lane with an action that is not finite, or -1."""
    not_finite = 0
    for value in actions.flat:  # counting is vectorised, leaving early is not
        not_finite += not abs(value) < np.inf
    if not_finite == 0:
        return -1
    for b in range(actions.shape[0]):
        for i in range(actions.shape[1]):
            if active[b] and not abs(actions[b, i]) < np.inf:
                return b
    return -1


@inlined
def _step_lane(
    b: int, wanted: Float, lanes: Lanes, market: MarketArrays, rules: Any, bounds: Any,
    groups: GroupBounds | None, partly: bool | None,
) -> bool:  # fmt: skip
    """Step one lane; return whether its trade conserved money."""
    row, n = lanes.clock[0, b], lanes.assets.shape[1]
    d, held, ledger = lanes.weights[b], lanes.held[b], lanes.ledger
    all_tradable = _flag_assets(b, lanes, market)
    if not rules.softmax:
        mark_kept(wanted, d, lanes.flags[4])
    value = ledger[VALUE, b]
    wealth, mu, turnover, carry, growth, way = value, 1.0, 0.0, 0.0, 1.0, 1.0
    delisted = lanes.flags[0]
    if rules.next_open:  # what was held overnight decides what there is to trade with
        gross_returns = _columns(
            market.before[row], lanes.assets[b], rules.sampled, lanes.scratch[0, 1:]
        )
        growth, _ = drift_lane(d, gross_returns, delisted, rules.haircut, (0.0, 0.0, 0.0), d)
        wealth = value * growth
        delisted = lanes.flags[3]  # none any more
    if wealth > 0.0:
        mu, turnover, way, lost = _rebalance(
            b, wanted, wealth, all_tradable, lanes, market, rules, bounds, groups, partly
        )
        gross_returns = _columns(
            market.after[row], lanes.assets[b], rules.sampled, lanes.scratch[0, 1:]
        )
        if not lost <= CONSERVED:
            ledger[TURNOVER, b], ledger[COST, b] = turnover, (1.0 - mu) * wealth
            lanes.growth[2, b] = lost
            lanes.flags[:2] = False
            return False
        interest = market.interest[row]
        rates = (interest[0], interest[1], interest[2])
        growth, carry = drift_lane(held, gross_returns, delisted, rules.haircut, rates, d)
    else:  # ruined overnight: there is nothing to trade
        held[:] = 0.0
        held[0] = 1.0
        ledger[UNFILLED, b] = 0.0
        for i in range(lanes.fills.shape[2]):
            lanes.fills[1, b, i] = 0.0
    if not all_tradable:
        lanes.flags[:2] = False
    invested = mu * wealth
    new = invested * growth if wealth > 0.0 else wealth
    if not new > 0.0:
        d[:] = 0.0
        d[0] = 1.0
    floor = LOG_FLOOR * rules.initial_value
    peak = max(lanes.growth[1, b], new)
    lanes.growth[0, b] = max(new, floor) / max(value, floor)
    lanes.growth[1, b] = peak
    lanes.growth[3, b] = way
    ledger[VALUE, b] = new
    ledger[TURNOVER, b] = turnover
    ledger[COST, b] = wealth - invested
    ledger[CARRY, b] = carry * invested
    ledger[DRAWDOWN, b] = 1.0 - new / peak
    ledger[CASH, b] = held[0]
    squares = 0.0
    for i in range(n + 1):
        squares += held[i] * held[i]
    ledger[CONCENTRATION, b] = squares
    ledger[VIOLATION, b] = 0.0
    if groups is not None and not bounds.trivial:
        sizes = lanes.scratch[0, 1:]
        ledger[VIOLATION, b] = violation_lane(held, bounds, sizes, borrowed(groups))
    if lanes.turnovers.shape[1] > 0:
        lanes.turnovers[b, row % lanes.turnovers.shape[1]] = turnover
    lanes.clock[0, b] = row + 1
    lanes.ended[0, b] = new <= RUIN_FRACTION * rules.initial_value
    lanes.ended[1, b] = row + 1 >= lanes.clock[1, b]
    return True


@inlined
def _flag_assets(b: int, lanes: Lanes, market: MarketArrays) -> bool:
    """Flag what is delisted and what cannot be traded; return whether there is none of either."""
    row = lanes.clock[0, b]
    if market.all_tradable[row]:
        return True
    for i in range(lanes.assets.shape[1]):
        column = lanes.assets[b, i]
        lanes.flags[0, i] = market.delisted[row, column]
        lanes.flags[1, i] = not market.tradable[row, column]
    return False


@inlined
def _columns(row: Float, columns: NDArray[np.int64], sampled: bool, out: Float) -> Float:
    """Return the lane's columns of a market row: copied to ``out``, or the row if it trades all."""
    if not sampled:
        return row
    for i in range(columns.shape[0]):
        out[i] = row[columns[i]]
    return out


@inlined
def _rebalance(
    b: int, wanted: Float, wealth: float, all_tradable: bool, lanes: Lanes, market: MarketArrays,
    rules: Any, bounds: Any, groups: GroupBounds | None, partly: bool | None,
) -> tuple[float, float, float, float]:  # fmt: skip
    """Do steps 1 and 2 of a lane: feasible target, trade; return (mu, turnover, way, money lost).

    The way is the share of that from the drifted weights to the feasible target.
    """
    row, columns, a, fixed = lanes.clock[0, b], lanes.assets[b], lanes.scratch[1], lanes.flags[2]
    buy = _columns(market.rates[0], columns, rules.sampled, lanes.scratch[2, 1:])
    sell = _columns(market.rates[1], columns, rules.sampled, lanes.scratch[3, 1:])
    impact = lanes.scratch[4, :0]
    if market.impact.shape[0] > 0:
        impact = lanes.scratch[4, 1:]
        for i in range(columns.shape[0]):
            impact[i] = market.impact[row, columns[i]] * math.sqrt(wealth)
    d, held = lanes.weights[b], lanes.held[b]
    free = target_lane(wanted, d, all_tradable, rules, bounds, groups, a, lanes.flags)
    limit = rules.max_turnover
    if lanes.turnovers.shape[1] > 0:
        limit = min(limit, rules.max_period_turnover - _used_turnover(lanes.turnovers[b], row))
    costs = (buy, sell, impact, rules.fixed_fee / wealth)
    limits = (max(limit, 0.0), bounds.min_cash)
    mu, turnover, way = trade_lane(d, a, fixed, free, costs, limits, held)
    if partly is not None:
        share, most, rest = lanes.fills[0, b], lanes.scratch[0, 1:], lanes.fills[1, b]
        for i in range(columns.shape[0]):
            limited = market.capacity.shape[0] > 0
            most[i] = market.capacity[row, columns[i]] / wealth if limited else np.inf
        fills, whole = (share, most, rest), (mu, turnover, way)
        mu, turnover, way = fill_lane(d, a, fixed, costs, limits[1], fills, whole, held)
        lanes.ledger[UNFILLED, b] = np.abs(rest).sum()
    lost = money_lost(d, held, lanes.flags[1], costs, mu, turnover)
    return mu, turnover, rules.adjustment * way, lost


@inlined
def _used_turnover(ring: Float, row: int) -> float:
    """Return the sum of the last P - 1 turnovers: the ring's oldest is about to be overwritten."""
    used = 0.0
    for k in range(ring.shape[0]):
        if k != row % ring.shape[0]:
            used += ring[k]
    return used
