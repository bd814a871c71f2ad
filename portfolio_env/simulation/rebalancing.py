"""Exact cost of a rebalancing and the weights after it.

Everything is in units of the wealth before trading; weights put cash first.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.compiled import inlined, inner, kernel
from portfolio_env.errors import ArgumentError

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

# Cash this close to its bound, in units of the wealth, is at it.
CASH_ROUNDING = 1e-15
# Smaller fractions of the wealth are no trade (no fee is due), no wealth that is tied up and no
# breach of the turnover limit.
NO_TRADE = 1e-12


def remainder_factor(
    drifted: ArrayLike,
    target: ArrayLike,
    buy_rate: ArrayLike,
    sell_rate: ArrayLike,
    fixed_fee: float = 0.0,
) -> Float:
    r"""Return the fraction of wealth left after a rebalancing, by the exact solution.

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
        rates.append(np.broadcast_to(rate, (n,)))
    if not 0 <= fixed_fee < 1:
        raise ArgumentError(f"fixed_fee={fixed_fee!r} must be a fraction of wealth in [0, 1).")
    d2, a2 = (np.ascontiguousarray(np.atleast_2d(w)) for w in (d, a))
    buy, sell = (np.ascontiguousarray(rate)[None] for rate in rates)
    nothing_fixed, no_impact = np.zeros((1, n), np.bool_), np.zeros((1, 0))
    fee = np.array([float(fixed_fee)])
    mu: Float = solve_trades(d2, a2, nothing_fixed, np.ones(1), buy, sell, no_impact, fee)
    return mu if d.ndim == 2 else mu[0]


@kernel
def solve_trades(
    d: Float, a: Float, fixed: Bool, free: Float, buy: Float, sell: Float, impact: Float, fee: Float
) -> Float:
    """Solve ``solve_trade`` for lanes: (B, N + 1) weights, (B,) ``free`` and ``fee``, else (B, N).

    ``impact`` may be (B, 0) for none; of the others but the weights, one row serves all lanes.
    """
    out = np.empty(d.shape[0])
    for b in range(d.shape[0]):
        at, left, sides = b % fixed.shape[0], b % free.shape[0], b % buy.shape[0]
        push, charged = b % impact.shape[0], b % fee.shape[0]
        out[b] = solve_trade(
            d[b], a[b], fixed[at], free[left], buy[sides], sell[sides], impact[push], fee[charged]
        )
    return out


@inlined
def solve_trade(
    d: Float, a: Float, fixed: Bool, free: float, buy: Float, sell: Float, impact: Float, fee: float
) -> float:
    r"""Return the fraction ``x`` of tradable wealth left after trading from ``d`` to ``x a``.

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
            # No processor can predict the side of a trade: both signed rates are loaded and one is
            # selected, which spares a branch and a fifth of the time of the whole step. At q = 0
            # the side of sales is right, for x only falls.
            bought, sold = buy[i], -sell[i]
            rate = bought if q > 0.0 else sold
            marginal = rate
            if impact.shape[0] > 0:
                push = math.copysign(impact[i] * math.sqrt(abs(q)), q)
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


@inner
def copy_weights(w: Float, out: Float) -> None:
    """Copy weights; a loop compiles in a tenth of the time of a slice, which may not fit."""
    for i in range(w.shape[0]):
        out[i] = w[i]


@inlined
def trade_lane(
    d: Float,
    a: Float,
    fixed: Bool,
    free: float,
    costs: tuple[Float, Float, Float, float],
    limits: tuple[float, float],
    held: Float,
) -> tuple[float, float, float]:
    """Trade from ``d`` towards ``a``; return (mu, turnover, way) and write the weights after it.

    The way is the share of the trade that was made: below 1 where a turnover limit cut it.

    A target that is met already but for rounding is no trade, and charged no fee. A trade that
    costs all the wealth there is, frozen shorts counted, ruins the account: mu is 0
    and nothing but cash is held. One whose costs only the holdings that do not trade could pay is
    not made.

    Args:
        d: (N + 1,) drifted weights.
        a: (N + 1,) feasible target; what it has of fixed assets is not read.
        fixed: (N,) assets that are not traded.
        free: Wealth that pays for the trades, and that they share with cash: what is not tied up in
            fixed assets; 1 where cash pays alone, see ``target_lane``.
        costs: (buy, sell, impact coefficients in wealth units, fee).
        limits: Largest turnover, which rounding alone may exceed, and the lower bound of cash where
            trades are cut to it.
        held: (N + 1,) receives the weights after trading.
    """
    buy, sell, impact, fee = costs
    n = fixed.shape[0]
    if free <= 0.0:  # frozen holdings tie up all the wealth: nothing is left to trade with
        copy_weights(d, held)
        return 1.0, 0.0, 1.0
    if fee > 0.0:
        largest = 0.0
        for i in range(n):
            if not fixed[i]:
                largest = max(largest, abs(a[i + 1] - d[i + 1]))
        if largest <= NO_TRADE:
            copy_weights(d, held)
            return 1.0, 0.0, 1.0
    x = solve_trade(d, a, fixed, free, buy, sell, impact, fee)
    mu = 1.0 - free + free * x
    paid = x > 0.0 and mu > 0.0
    way = x if paid else 1.0  # what cannot be paid as a whole is cut in the direction of the target
    turnover = 0.0
    for i in range(n):
        if not fixed[i]:
            turnover += abs(way * a[i + 1] - d[i + 1])
    if not paid and turnover <= NO_TRADE:  # rounding ruins nobody, however levered
        copy_weights(d, held)
        return 1.0, 0.0, 1.0
    if turnover > limits[0] + NO_TRADE:
        return trade_part(d, a, fixed, costs, (way, turnover, *limits), held)
    if paid:
        scale = x / mu  # exactly 1 where nothing is fixed: held weights are the target, bit for bit
        tied = 0.0
        for i in range(n + 1):
            stays = i > 0 and fixed[i - 1]
            held[i] = d[i] / mu if stays else scale * a[i]
            tied += d[i] if stays else 0.0
        if free == 1.0 and abs(tied) > CASH_ROUNDING:  # cash pays for what stays, too
            held[0] -= tied * (1.0 - mu) / mu
        return mu, turnover, 1.0
    if mu > NO_TRADE:  # more than rounding is tied up
        copy_weights(d, held)
        return 1.0, 0.0, 1.0
    held[:] = 0.0
    held[0] = 1.0
    return 0.0, 0.0, 1.0


@inner
def trade_part(
    d: Float,
    a: Float,
    fixed: Bool,
    costs: tuple[Float, Float, Float, float],
    part: tuple[float, float, float, float],
    held: Float,
) -> tuple[float, float, float]:
    """Trade a part of the way from ``d`` to ``way a``; arguments and results of ``trade_lane``.

    A fee is charged whole for a part of a trade. Where cash would fall below its lower bound, or
    below where it was or was to go if that is less, all purchases are cut by one more factor;
    where even sales alone do not pay for themselves, nothing is traded.

    Args:
        d: See ``trade_lane``.
        a: See ``trade_lane``.
        fixed: See ``trade_lane``.
        costs: See ``trade_lane``.
        part: ``way``, turnover of the whole trade, its limit, the lower bound of cash.
        held: See ``trade_lane``.
    """
    way, cut, least = part[0], part[2] / part[1], min(part[3], d[0], a[0])
    for i in range(fixed.shape[0]):
        held[i + 1] = 0.0 if fixed[i] else cut * (way * a[i + 1] - d[i + 1])
    if part[2] <= NO_TRADE:
        copy_weights(d, held)
        return 1.0, 0.0, 0.0
    mu, turnover, fits = trade_orders(d, costs, least, held)
    return mu, cut * part[1] if fits == 1.0 else turnover, cut * fits


@kernel
def trade_orders(
    d: Float, costs: tuple[Float, Float, Float, float], least: float, held: Float
) -> tuple[float, float, float]:
    """Trade given orders; return (mu, turnover, fits) and write the weights after it.

    All purchases are made at the share ``fits`` of them that leaves cash at its lower bound; 0
    where even sales alone do not pay for themselves, and nothing is traded.

    Args:
        d: (N + 1,) weights before trading.
        costs: See ``trade_lane``.
        least: Lower bound of cash, at most where it is.
        held: (N + 1,) has orders in wealth units in the place of assets, purchases positive;
            receives the weights after trading.
    """
    buy, sell, impact, fee = costs
    n = buy.shape[0]
    room, needed = d[0] - fee - least * (1.0 - fee), 0.0
    for i in range(n):
        q = held[i + 1]
        rate = buy[i] if q > 0 else sell[i]
        if impact.shape[0] > 0:
            rate += impact[i] * math.sqrt(abs(q))
        taken = q + (1.0 - least) * rate * abs(q)  # of what cash is above its bound
        if q > 0:
            needed += taken
        else:
            room -= taken
    fits = max(room, 0.0) / needed if needed > max(room + CASH_ROUNDING, 0.0) else 1.0
    spent, net, turnover = fee, 0.0, 0.0
    for i in range(n):
        q = held[i + 1]
        if q > 0:
            q *= fits
        rate = buy[i] if q > 0 else sell[i]
        if impact.shape[0] > 0:
            rate += impact[i] * math.sqrt(abs(q))
        spent += rate * abs(q)
        net += q
        turnover += abs(q)
        held[i + 1] = d[i + 1] + q
    mu = 1.0 - spent
    if room < -CASH_ROUNDING or mu <= 0.0:
        copy_weights(d, held)
        return 1.0, 0.0, 0.0
    held[0] = d[0] - net - spent
    for i in range(n + 1):
        held[i] /= mu
    held[0] = max(held[0], least)  # only rounding differs between them
    return mu, turnover, fits


@kernel
def fill_lane(
    d: Float,
    a: Float,
    fixed: Bool,
    costs: tuple[Float, Float, Float, float],
    least: float,
    fills: tuple[Float, Float, Float],
    whole: tuple[float, float, float],
    held: Float,
) -> tuple[float, float, float]:
    """Trade what is filled of the orders of a trade; arguments and results of ``trade_lane``.

    Where all orders are filled the trade stays as it is, to the bit. Else purchases are cut to what
    the filled sales pay for, see ``trade_orders``; the way is less by the same factor. Where all of
    the wealth would be lost to costs, the orders are those that lead to ``a``.

    Args:
        d: See ``trade_lane``.
        a: See ``trade_lane``.
        fixed: See ``trade_lane``.
        costs: See ``trade_lane``.
        least: Lower bound of cash, unless it is lower or was to be.
        fills: (N,) largest shares of the orders that are filled, the largest fills in wealth units,
            and what receives the rest of the orders, purchases positive.
        whole: Results of ``trade_lane``.
        held: (N + 1,) weights after the whole trade; receives those after what is filled of it.
    """
    share, most, rest = fills
    mu, _, way = whole
    planned, traded, short = held[0] if mu > 0.0 else a[0], 0.0, False
    for i in range(fixed.shape[0]):
        order = (mu * held[i + 1] if mu > 0.0 else a[i + 1]) - d[i + 1]
        rest[i] = 0.0 if fixed[i] or abs(order) <= NO_TRADE else order
        size = abs(rest[i])
        done = min(share[i] * size, most[i])
        short |= size - done > NO_TRADE
        traded += done
    if not short:
        rest[:] = 0.0
        return whole
    if traded <= NO_TRADE:
        copy_weights(d, held)
        return 1.0, 0.0, way
    for i in range(fixed.shape[0]):
        held[i + 1] = math.copysign(min(share[i] * abs(rest[i]), most[i]), rest[i])
    mu, turnover, fits = trade_orders(d, costs, min(least, d[0], planned), held)
    for i in range(fixed.shape[0]):
        left = rest[i] - (mu * held[i + 1] - d[i + 1])
        rest[i] = 0.0 if abs(left) <= NO_TRADE else left
    return mu, turnover, way * fits


@inlined
def money_lost(
    d: Float,
    held: Float,
    frozen: Bool,
    costs: tuple[Float, Float, Float, float],
    mu: float,
    turnover: float,
) -> float:
    """Return the violation of conservation of money by a trade; 0 but for rounding.

    The sum of: what the held weights are off 1; what the wealth before is off the wealth after
    plus the costs of the trades that lead from ``d`` to ``held``; the value of trades in assets
    that cannot be traded. In units of the larger of the wealth before and the gross holdings.

    Args:
        d: (N + 1,) weights before trading.
        held: (N + 1,) weights after it.
        frozen: (N,) assets that cannot be traded.
        costs: See ``trade_lane``.
        mu: Wealth after over wealth before.
        turnover: Traded notional over wealth before.
    """
    buy, sell, impact, fee = costs
    left = d[0] - mu * held[0] - (fee if turnover > 0.0 else 0.0)
    total, gross, forbidden = held[0], abs(held[0]), 0.0
    for i in range(frozen.shape[0]):
        total += held[i + 1]
        gross += abs(held[i + 1])
        q = mu * held[i + 1] - d[i + 1]
        cost = max(buy[i] * q, -sell[i] * q)  # no rate is negative: the side needs no branch
        if impact.shape[0] > 0:
            cost += impact[i] * abs(q) * math.sqrt(abs(q))
        left -= q + cost
        forbidden += abs(q) if frozen[i] else 0.0
    if mu == 0.0:  # costs are capped at all the wealth
        left, forbidden = 0.0, 0.0
    return (abs(total - 1.0) + abs(left) + forbidden) / max(gross, 1.0)
