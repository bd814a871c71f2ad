"""The economics: compiled pure functions over lanes, and the only place where money moves.

Weights put cash first. ``drifted`` weights ``d`` are what the market left, ``target`` weights ``a``
what is asked for, ``held`` weights what is owned right after trading. Everything is in units of the
wealth
``V`` before trading. One step of a lane (``step_lane``):

1. the action becomes a feasible target (``targets.target_lane``);
2. trading costs shrink the wealth to ``mu V`` (``solve_trade``);
3. the market moves, cash and shorts carry interest, delisted holdings become cash (``drift_lane``).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.compiled import borrowed, inlined, kernel
from portfolio_env.constraints import violation_lane
from portfolio_env.errors import ArgumentError
from portfolio_env.targets import mark_kept, target_lane

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
)
VALUE, LOG_RETURN, TURNOVER, COST, CARRY, DRAWDOWN, CASH, CONCENTRATION, BENCHMARK, VIOLATION = (
    range(len(LEDGER))
)
# An account that has lost 99.9 % is ruined; a log return cannot see below 1e-6 of the initial
# value.
RUIN_FRACTION = 1e-3
LOG_FLOOR = 1e-6

# The numbers of one environment that do not change while it runs: a record read by field name.
RULES = np.dtype(
    [
        ("softmax", np.bool_),  # actions are softmax numerators, else weights
        ("next_open", np.bool_),
        ("sampled", np.bool_),  # lanes trade columns of their own, else all in order
        ("adjustment", np.float64),
        ("no_trade_band", np.float64),
        ("max_turnover", np.float64),
        ("max_period_turnover", np.float64),
        ("cash_rate", np.float64),  # per bar, like the next two
        ("margin_rate", np.float64),
        ("borrow_rate", np.float64),
        ("haircut", np.float64),
        ("fixed_fee", np.float64),
        ("initial_value", np.float64),
    ]
)


class MarketArrays(NamedTuple):
    """What the economics reads of a market; row t is the step from close t to close t + 1."""

    before: Float  # (T - 1, N) gross move between the decision and the trade; 1 at the close
    after: Float  # (T - 1, N) gross move between the trade and the next close
    tradable: Bool  # (T - 1, N) whether the asset can be traded in this step
    delisted: Bool  # (T - 1, N) the asset's last bar is t: what is held becomes cash
    quiet: Bool  # (T - 1,) all assets can be traded and none is delisted
    rates: Float  # (2, N) linear cost per traded notional of purchases and sales
    impact: Float  # (T - 1, N) coefficient of sqrt(money traded), or (0, 0)


class Lanes(NamedTuple):
    """State of B lanes, changed in place by ``step_lanes``."""

    clock: NDArray[
        np.int64
    ]  # (2, B) last closed bar, and the bar at which the episode is truncated
    assets: NDArray[np.int64]  # (B, N) columns of the market the lane trades
    weights: Float  # (B, N + 1) drifted
    held: Float  # (B, N + 1) right after the last trade
    growth: Float  # (2, B) value over value before of the last step, and the highest value so far
    ledger: Float  # (len(LEDGER), B)
    turnovers: Float  # (B, P) ring of the last turnovers, P = 0 without a period limit
    ended: Bool  # (2, B) terminated, truncated
    scratch: Float  # (5, N + 1) work space of one lane
    flags: Bool  # (5, N) delisted, untradable (false again after each lane), fixed, none, kept


def remainder_factor(
    drifted: ArrayLike,
    target: ArrayLike,
    buy_rate: ArrayLike,
    sell_rate: ArrayLike,
    fixed_fee: float = 0.0,
) -> Float:
    r"""Wealth left by rebalancing, as a fraction of the wealth before: the exact solution.

    The largest ``mu`` in (0, 1] with

    .. math:: \mu = 1 - \sum_i s_i (d_i - \mu a_i)^+ - \sum_i b_i (\mu a_i - d_i)^+ - f

    over the risky assets; 0 if trading costs more than there is. Jiang, Xu & Liang (2017,
    arXiv:1706.10059), eq. 14, is the same equation with a purchase rate ``c`` per money *spent*:
    ``b = c / (1 - c)``. The right side minus ``mu`` is concave in ``mu``, so Newton's method from 1
    falls onto the root without overshooting, and ends exactly because the function is piecewise
    linear.

    Args:
        drifted: (B, N + 1) or (N + 1,) weights before trading, cash first, summing to 1.
        target: Weights asked for after trading, same shape, summing to 1.
        buy_rate: Cost of purchases per traded notional in [0, 1): scalar or (N,).
        sell_rate: Cost of sales, same.
        fixed_fee: Fee of a rebalancing that trades anything, as a fraction of the wealth before, >=
            0.

    Returns:
        (B,) float64; shape () for one portfolio.

    Raises:
        ArgumentError: On shapes that do not match, weights not finite or not summing to 1, or bad
            rates.

    >>> float(remainder_factor([1.0, 0.0], [0.0, 1.0], 0.0025, 0.0025))  # 400 / 401
    0.9975062344139651
    """
    d, a = np.asarray(drifted, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if d.shape != a.shape or d.ndim not in (1, 2) or d.shape[-1] < 2:
        raise ArgumentError(
            f"drifted {d.shape} and target {a.shape} must both be (B, N + 1) or (N + 1,), cash "
            "first."
        )
    for name, w in (("drifted", d), ("target", a)):
        if not np.isfinite(w).all() or (np.abs(w.sum(-1) - 1) > 1e-6).any():
            raise ArgumentError(
                f"{name} weights must be finite and sum to 1 within 1e-6, cash included."
            )
    n = d.shape[-1] - 1
    rates = []
    for name, value in (("buy_rate", buy_rate), ("sell_rate", sell_rate)):
        rate = np.asarray(value, dtype=np.float64)
        if rate.shape not in ((), (n,)) or not ((rate >= 0) & (rate < 1)).all():
            raise ArgumentError(
                f"{name} must be a scalar or ({n},) of fractions in [0, 1), got {value!r}."
            )
        rates.append(np.broadcast_to(rate, (n,)).copy())
    if not 0 <= fixed_fee < 1:
        raise ArgumentError(f"fixed_fee={fixed_fee!r} must be a fraction of wealth in [0, 1).")
    mu = _remainder_lanes(np.atleast_2d(d), np.atleast_2d(a), rates[0], rates[1], float(fixed_fee))
    return mu if d.ndim == 2 else mu[0]


@kernel
def _remainder_lanes(d: Float, a: Float, buy: Float, sell: Float, fee: float) -> Float:
    nothing_fixed = np.zeros(d.shape[1] - 1, dtype=np.bool_)
    no_impact = np.zeros(0)
    out = np.empty(d.shape[0])
    for b in range(d.shape[0]):
        out[b] = solve_trade(d[b], a[b], nothing_fixed, 1.0, buy, sell, no_impact, fee)
    return out


@inlined
def solve_trade(
    d: Float, a: Float, fixed: Bool, free: float, buy: Float, sell: Float, impact: Float, fee: float
) -> float:
    r"""Fraction ``x`` of the tradable wealth that is left after trading from ``d`` to ``x a``.

    Solves ``free (1 - x) = fee + sum_i c_i(|x a_i - d_i|)`` over the assets that are not fixed,
    where
    ``c_i(q) = rate_i q + impact_i q^{3/2}``. With nothing fixed, ``free = 1`` and ``x`` is the
    remainder factor. Returns 0 if no wealth is left (the equation has no positive root).
    """
    x = 1.0
    for _ in range(100):
        spent, slope, trades = 0.0, free, False
        for i in range(fixed.shape[0]):
            if fixed[i]:
                continue
            q = x * a[i + 1] - d[i + 1]
            trades |= q != 0.0
            # signed rates spare the branch on the side of the trade, which no processor can
            # predict; at q = 0
            # the side of sales is right, for x only falls
            rate = buy[i] if q > 0.0 else -sell[i]
            marginal = rate
            if impact.shape[0] > 0:
                push = math.copysign(impact[i] * math.sqrt(abs(q)), rate if q == 0.0 else q)
                rate, marginal = rate + push, marginal + 1.5 * push
            spent += rate * q
            slope += marginal * a[i + 1]
        if trades:
            spent += fee
        excess = free * (1.0 - x) - spent  # concave in x and falling at its largest root
        if excess >= 0.0:
            return x
        if slope <= 0.0:
            return 0.0
        new = x + excess / slope
        if new <= 0.0:
            return 0.0
        if x - new <= 1e-16:
            return new
        x = new
    return x


@inlined
def drift_lane(
    w: Float, moves: Float, delisted: Bool, haircut: float, rates: tuple[float, float, float]
) -> tuple[float, float]:
    """Let the market move ``w`` in place; returns (growth of wealth, carry per wealth).

    Cash earns ``rates[0]`` (or pays ``rates[1]`` when negative), shorts pay ``rates[2]`` of their
    value before the move. A delisted holding becomes cash at its last price less the haircut.
    """
    cash, short = w[0], 0.0
    for i in range(moves.shape[0]):
        short -= min(w[i + 1], 0.0)
    carry = cash * (rates[0] if cash > 0 else rates[1]) - short * rates[2]
    cash += carry
    total = 0.0
    for i in range(moves.shape[0]):
        if delisted[i]:
            cash += w[i + 1] * (1.0 - haircut)
            w[i + 1] = 0.0
        else:
            w[i + 1] *= moves[i]
            total += w[i + 1]
    total += cash
    w[0] = cash
    if total > 0.0:
        share = 1.0 / total
        for i in range(w.shape[0]):
            w[i] *= share
    return total, carry


@inlined
def trade_lane(
    d: Float,
    a: Float,
    fixed: Bool,
    free: float,
    costs: tuple[Float, Float, Float, float],
    limit: float,
    held: Float,
) -> tuple[float, float]:
    """Trade from ``d`` towards ``a``; returns (mu, turnover) and writes the weights after trading.

    ``costs`` is (buy, sell, impact coefficients in wealth units, fee). Where the traded notional
    would exceed ``limit`` every trade is cut by the same factor.
    """
    buy, sell, impact, fee = costs
    n = fixed.shape[0]
    if free <= 0.0:  # frozen holdings tie up all the wealth: nothing is left to trade with
        held[:] = d
        return 1.0, 0.0
    x = solve_trade(d, a, fixed, free, buy, sell, impact, fee)
    if x == 0.0:
        held[:] = 0.0
        held[0] = 1.0
        return 0.0, 0.0
    turnover = 0.0
    for i in range(n):
        if not fixed[i]:
            turnover += abs(x * a[i + 1] - d[i + 1])
    cut = limit / turnover if turnover > limit else 1.0
    if cut == 1.0:
        mu = 1.0 - free + free * x
        scale = x / mu  # exactly 1 where nothing is fixed: held weights are the target, bit for bit
        for i in range(n + 1):
            held[i] = d[i] / mu if i > 0 and fixed[i - 1] else scale * a[i]
        return mu, turnover
    spent = fee if cut > 0.0 else 0.0
    bought = 0.0
    for i in range(n):
        q = 0.0 if fixed[i] else cut * (x * a[i + 1] - d[i + 1])
        rate = buy[i] if q > 0 else sell[i]
        if impact.shape[0] > 0:
            rate += impact[i] * math.sqrt(abs(q))
        spent += rate * abs(q)
        bought += q
        held[i + 1] = d[i + 1] + q
    held[0] = d[0] - bought - spent
    mu = 1.0 - spent
    for i in range(n + 1):
        held[i] /= mu
    return mu, cut * turnover


@kernel
def step_lanes(
    actions: Float, active: Bool, owned: Lanes, read: MarketArrays, rules: Any, bounds: Any
) -> int:
    """Advance the active lanes by one bar, in place.

    Args:
        actions: (B, N + 1) softmax numerators or weights, cash first.
        active: (B,) lanes to step; the others, and their columns of the ledger, stay as they are.
        owned: State of the lanes. Log returns are left to the caller: NumPy takes logarithms of all
            at once.
        read: The market.
        rules: (1,) record array of ``RULES``.
        bounds: (1,) record array of ``constraints.BOUNDS``.

    Returns:
        -1, or the first active lane whose action is not finite; then nothing has changed.
    """
    lanes, market, wanted = borrowed(owned), borrowed(read), borrowed(actions)
    bad = _first_not_finite(wanted, active)
    if bad >= 0:
        return bad
    for b in range(actions.shape[0]):
        if active[b]:
            _step_lane(b, wanted[b], lanes, market, rules[0], bounds[0])
    return -1


@inlined
def _first_not_finite(actions: Float, active: Bool) -> int:
    """The first active lane with an action that is not finite, or -1."""
    not_finite = 0
    for value in actions.flat:  # counting is vectorised, leaving early is not
        not_finite += not abs(value) < np.inf
    if not_finite == 0:
        return -1
    for b in range(actions.shape[0]):
        if active[b] and not np.all(np.isfinite(actions[b])):
            return b
    return -1


@inlined
def _step_lane(
    b: int, wanted: Float, lanes: Lanes, market: MarketArrays, rules: Any, bounds: Any
) -> None:
    row, n = lanes.clock[0, b], lanes.assets.shape[1]
    d, held, ledger = lanes.weights[b], lanes.held[b], lanes.ledger
    quiet = market.quiet[row]
    if not quiet:
        for i in range(n):
            column = lanes.assets[b, i]
            lanes.flags[0, i] = market.delisted[row, column]
            lanes.flags[1, i] = not market.tradable[row, column]
    if not rules.softmax:
        mark_kept(wanted, d, lanes.flags[4])
    value = ledger[VALUE, b]
    wealth, mu, turnover, carry, growth = value, 1.0, 0.0, 0.0, 1.0
    delisted = lanes.flags[0]
    if rules.next_open:  # what was held overnight decides what there is to trade with
        moves = _columns(market.before[row], lanes.assets[b], rules.sampled, lanes.scratch[0, 1:])
        growth, _ = drift_lane(d, moves, delisted, rules.haircut, (0.0, 0.0, 0.0))
        wealth = value * growth
        delisted = lanes.flags[3]  # none any more
    if wealth > 0.0:
        mu, turnover = _rebalance(b, wanted, wealth, quiet, lanes, market, rules, bounds)
        for i in range(n + 1):
            d[i] = held[i]
        moves = _columns(market.after[row], lanes.assets[b], rules.sampled, lanes.scratch[0, 1:])
        rates = (rules.cash_rate, rules.margin_rate, rules.borrow_rate)
        growth, carry = drift_lane(d, moves, delisted, rules.haircut, rates)
    if not quiet:
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
    ledger[VIOLATION, b] = 0.0 if bounds.trivial else violation_lane(held, bounds)
    if lanes.turnovers.shape[1] > 0:
        lanes.turnovers[b, row % lanes.turnovers.shape[1]] = turnover
    lanes.clock[0, b] = row + 1
    lanes.ended[0, b] = new <= RUIN_FRACTION * rules.initial_value
    lanes.ended[1, b] = row + 1 >= lanes.clock[1, b]


@inlined
def _columns(row: Float, columns: NDArray[np.int64], sampled: bool, out: Float) -> Float:
    """The lane's columns of a market row: copied to ``out``, or the row where it trades all."""
    if not sampled:
        return row
    for i in range(columns.shape[0]):
        out[i] = row[columns[i]]
    return out


@inlined
def _rebalance(
    b: int, wanted: Float, wealth: float, quiet: bool, lanes: Lanes, market: MarketArrays, rules:
        Any,
    bounds: Any,
) -> tuple[float, float]:  # fmt: skip
    """Steps 1 and 2 of the lane: feasible target, trade; returns (mu, turnover)."""
    row, columns, a, fixed = lanes.clock[0, b], lanes.assets[b], lanes.scratch[1], lanes.flags[2]
    buy = _columns(market.rates[0], columns, rules.sampled, lanes.scratch[2, 1:])
    sell = _columns(market.rates[1], columns, rules.sampled, lanes.scratch[3, 1:])
    impact = lanes.scratch[4, :0]
    if market.impact.shape[0] > 0:
        impact = lanes.scratch[4, 1:]
        for i in range(columns.shape[0]):
            impact[i] = market.impact[row, columns[i]] * math.sqrt(wealth)
    d = lanes.weights[b]
    free = target_lane(wanted, d, quiet, rules, bounds, a, lanes.flags)
    limit = rules.max_turnover
    if lanes.turnovers.shape[1] > 0:
        limit = min(limit, rules.max_period_turnover - _used_turnover(lanes.turnovers[b], row))
    costs = (buy, sell, impact, rules.fixed_fee / wealth)
    return trade_lane(d, a, fixed, free, costs, max(limit, 0.0), lanes.held[b])


@inlined
def _used_turnover(ring: Float, row: int) -> float:
    """Sum of the last P - 1 turnovers: the oldest of the ring is about to be overwritten."""
    used = 0.0
    for k in range(ring.shape[0]):
        if k != row % ring.shape[0]:
            used += ring[k]
    return used
