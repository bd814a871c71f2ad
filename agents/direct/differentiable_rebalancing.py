"""Cost of a rebalancing and the weights after it, in torch, with gradients.

The counterpart of ``simulation.rebalancing``: its solver solves the cost equation, the implicit
function theorem differentiates it. Everything is in units of the wealth before trading; weights put
cash first; B lanes, N assets.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch as th
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as nnf

from portfolio_env.simulation.rebalancing import CASH_ROUNDING, NO_TRADE, solve_trades

_STEPS = 10  # of Newton's method with impact, of which seven were enough in every trial


class _Remainder(th.autograd.Function):
    r"""Solution x of ``free (1 - x) = fee + sum_i c_i(|x a_i - d_i|)`` over the assets not fixed.

    With ``m_i = dc_i/dq_i`` at ``q_i = x a_i - d_i`` and ``D = free + sum_i m_i a_i``, the implicit
    function theorem gives ``dx/dd_i = m_i / D``, ``dx/da_i = -x m_i / D`` and ``dx/dfree = (1 - x)
    / D``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        d: Tensor,
        a: Tensor,
        fixed: Tensor | None,
        free: Tensor | None,
        buy: Tensor,
        sell: Tensor,
        impact: Tensor | None,
        fee: Tensor | None,
    ) -> Tensor:
        if _is_queued(d):
            x = solve_on_device(d, a, fixed, free, Costs(buy, sell, impact, fee)).to(d.dtype)
        else:
            left = solve_trades(
                _numpy(d),
                _numpy(a),
                np.zeros((1, d.shape[1] - 1), np.bool_) if fixed is None else fixed.numpy(),
                np.ones(1) if free is None else _numpy(free),
                _numpy(buy),
                _numpy(sell),
                np.zeros((1, 0)) if impact is None else _numpy(impact),
                np.zeros(1) if fee is None else _numpy(fee),
            )
            x = th.from_numpy(left).to(d)
        ctx.save_for_backward(d, a, fixed, free, buy, sell, impact, x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d, a, fixed, free, buy, sell, impact, x = ctx.saved_tensors
        target, rest = a[:, 1:], x[:, None]
        q = rest * target - d[:, 1:]
        marginal = th.where(q > 0, buy, -sell)
        if impact is not None:
            root = q.abs().sqrt()
            marginal = marginal + 1.5 * impact * root * q.sign()
        if fixed is not None:
            marginal = marginal.masked_fill(fixed, 0.0)
        slope = (1.0 if free is None else free) + (marginal * target).sum(1)
        share = (grad / slope).masked_fill((x <= 0) | (slope <= 0), 0.0)
        by_d = nnf.pad(share[:, None] * marginal, (1, 0))
        by_free = by_impact = by_fee = None
        if ctx.needs_input_grad[3]:
            by_free = share * (1 - x)
        if ctx.needs_input_grad[6]:
            by_impact = -share[:, None] * root**3
            by_impact = by_impact if fixed is None else by_impact.masked_fill(fixed, 0.0)
        if ctx.needs_input_grad[7]:
            by_fee = -share
        return by_d, -rest * by_d, None, by_free, None, None, by_impact, by_fee


def _numpy(values: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    return values.detach().double().contiguous().numpy()


class Costs(NamedTuple):
    """Trading costs of one step: per lane, in units of the wealth before trading.

    Attributes:
        buy: (B, N) or (1, N) cost of purchases per traded notional.
        sell: Cost of sales, same shape.
        impact: (B, N) coefficient of the square-root impact; None is none.
        fee: (B,) charged where anything is traded; None is none.
        limit: Largest turnover.
        least_cash: Lower bound of cash where trades are cut to it.
    """

    buy: Tensor
    sell: Tensor
    impact: Tensor | None = None
    fee: Tensor | None = None
    limit: float = math.inf
    least_cash: float = 0.0


def solve_on_device(
    d: Tensor, a: Tensor, fixed: Tensor | None, free: Tensor | None, costs: Costs
) -> Tensor:
    """Return what ``solve_trades`` does (B,), in a fixed number of operations that nothing awaits.

    The excess is concave in x, and smooth between the points where a purchase turns into a sale.
    From the least of these above the root, Newton's method falls onto it: without impact at once,
    and a second step tells whether there is none.

    Args:
        d: See ``trade``.
        a: See ``trade``.
        fixed: See ``trade``.
        free: See ``trade``.
        costs: Trading costs, whose limits are not read.
    """
    (had, wanted), (buy, sell) = (
        [part.double() for part in parts] for parts in ((d[:, 1:], a[:, 1:]), costs[:2])
    )
    if fixed is not None:
        had, wanted = had.masked_fill(fixed, 0.0), wanted.masked_fill(fixed, 0.0)
    wealth = th.ones_like(had[:, :1]) if free is None else free.double()[:, None]
    fee = th.zeros_like(wealth) if costs.fee is None else costs.fee.double()[:, None]
    push = 0.0 if costs.impact is None else costs.impact.double()[:, None]

    def excess(x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is left over at x (B, K), and how fast it falls."""
        q = x[:, :, None] * wanted[:, None] - had[:, None]
        rate = th.where(q > 0, buy[:, None], -sell[:, None])
        moved = push * q.abs().sqrt() * q.sign()
        spent = ((rate + moved) * q).sum(2) + th.where((q != 0).any(2), fee, 0.0)
        slope = wealth + ((rate + 1.5 * moved) * wanted[:, None]).sum(2)
        return wealth * (1 - x) - spent, slope

    turns = had / wanted.where(wanted != 0, 1.0)
    turns = turns.where((wanted != 0) & (turns > 0) & (turns < 1), 1.0)
    left, slope = excess(turns)
    x = turns.where((left < 0) & (slope > 0), 1.0).amin(1, keepdim=True)
    for _ in range(2 if costs.impact is None else _STEPS):
        left, slope = excess(x)
        lower = x + left / slope.where(slope > 0, 1.0)
        lower = lower.where((slope > 0) & (lower > 0), 0.0)
        x = x.where((left >= 0) | (x <= 0), lower)
    return x[:, 0]


def remainder_factor(drifted: Tensor, target: Tensor, buy: Any, sell: Any) -> Tensor:
    """Return the fraction of wealth left after a rebalancing, with gradients.

    The counterpart of ``portfolio_env.simulation.rebalancing.remainder_factor``.

    Args:
        drifted: (B, N + 1) weights before trading, summing to 1.
        target: (B, N + 1) weights after it.
        buy: Cost of purchases per traded notional in [0, 1): scalar or (N,).
        sell: Cost of sales, same.

    Returns:
        (B,); 0 where nothing is left.
    """
    shape = (1, drifted.shape[1] - 1)
    bought, sold = (
        th.as_tensor(rate, dtype=drifted.dtype).to(drifted.device).expand(shape)
        for rate in (buy, sell)
    )
    return _solve(drifted, target, None, None, Costs(bought, sold))


def _solve(d: Tensor, a: Tensor, fixed: Tensor | None, free: Tensor | None, costs: Costs) -> Tensor:
    parts = (d, a, fixed, free, *costs[:4])
    x: Tensor = _Remainder.apply(*parts)  # type: ignore[no-untyped-call] # torch does not type it
    return x


class Trade(NamedTuple):
    """Result of a rebalancing: ``mu`` (B,), ``turnover`` (B,) and the weights ``held`` after it."""

    mu: Tensor
    turnover: Tensor
    held: Tensor


def trade(d: Tensor, a: Tensor, fixed: Tensor | None, free: Tensor | None, costs: Costs) -> Trade:
    """Trade from ``d`` towards ``a`` as ``simulation.rebalancing.trade_lane`` does, for batches.

    Args:
        d: (B, N + 1) drifted weights.
        a: (B, N + 1) feasible target; fixed assets have their drifted weight in it.
        fixed: (B, N) assets that are not traded; None if all are.
        free: (B,) wealth that is not tied up in them; None where ``fixed`` is.
        costs: Trading costs.
    """
    x = _solve(d, a, fixed, free, costs)
    mu, held = x, a
    if free is not None:
        mu = 1 - free + free * x
    paid = (x > 0) & (mu > 0)
    q = x.where(paid, 1.0)[:, None] * a[:, 1:] - d[:, 1:]
    if fixed is not None:
        q = q.masked_fill(fixed, 0.0)
        kept = nnf.pad(fixed, (1, 0))
        left = mu.where(paid, 1.0)
        held = th.where(kept, d, x[:, None] * a) / left[:, None]
        if free is not None:  # cash pays for what stays, too, where it pays alone
            tied = (d[:, 1:] * fixed).sum(1).where(free == 1, 0.0)
            held = th.cat([held[:, :1] - (tied * (1 - left) / left)[:, None], held[:, 1:]], 1)
    turnover = q.abs().sum(1)
    done = Trade(mu, turnover, held)
    if some(~paid):
        ruined = ~paid & (mu <= NO_TRADE) & (turnover > NO_TRADE)
        nothing = _nothing(d)
        done = _where(paid, done, nothing)
        done = _where(~ruined, done, Trade(th.zeros_like(x), nothing.turnover, all_cash(d)))
    if costs.limit < math.inf:
        done = _cut(done, d, a, q, turnover, costs)
    if costs.fee is not None:
        moved = (a[:, 1:] - d[:, 1:]).abs()
        largest = (moved if fixed is None else moved.masked_fill(fixed, 0.0)).amax(1)
        done = _where(largest > NO_TRADE, done, _nothing(d))
    if free is not None and some(tied := free <= 0):
        done = _where(~tied, done, _nothing(d))
    return done


def some(lanes: Tensor) -> bool:
    """Return whether what concerns these lanes is computed: on a GPU always, see ``_is_queued``."""
    return _is_queued(lanes) or bool(lanes.any())


def _is_queued(part: Tensor) -> bool:
    """Return whether a tensor's values may not exist yet, so that to ask for them is to wait."""
    return part.device.type == "cuda"


def _nothing(d: Tensor) -> Trade:
    """Return trades in which nothing is traded."""
    return Trade(th.ones_like(d[:, 0]), th.zeros_like(d[:, 0]), d)


def _where(lanes: Tensor, one: Trade, other: Trade) -> Trade:
    """Return one trade in the given lanes, the other elsewhere."""
    return Trade(
        one.mu.where(lanes, other.mu),
        one.turnover.where(lanes, other.turnover),
        one.held.where(lanes[:, None], other.held),
    )


def _cut(whole: Trade, d: Tensor, a: Tensor, q: Tensor, turnover: Tensor, costs: Costs) -> Trade:
    """Cut the trades of lanes beyond the turnover limit, as ``rebalancing.trade_part`` does.

    Args:
        whole: Trades where the limit does not bind.
        d: (B, N + 1) drifted weights.
        a: (B, N + 1) target.
        q: (B, N) trades beyond the limit.
        turnover: (B,) theirs.
        costs: Trading costs.
    """
    over = turnover > costs.limit + NO_TRADE
    if not some(over):
        return whole
    if costs.limit <= NO_TRADE:
        return _where(~over, whole, _nothing(d))
    q = q * (costs.limit / turnover.where(over, 1.0))[:, None]
    fee = th.zeros_like(turnover) if costs.fee is None else costs.fee
    least = th.minimum(d[:, 0], a[:, 0]).clamp_max(costs.least_cash)
    buys = q > 0
    taken = q + (1 - least)[:, None] * _price(q, costs)
    needed = taken.where(buys, 0.0).sum(1)
    room = d[:, 0] - fee - least * (1 - fee) - taken.where(~buys, 0.0).sum(1)
    rounding = max(CASH_ROUNDING, 8 * th.finfo(d.dtype).eps)
    short = needed > (room + rounding).clamp_min(0.0)
    fits = (room.clamp_min(0.0) / needed.where(short, 1.0)).where(short, 1.0)
    q = q.where(~buys, fits[:, None] * q)
    spent = fee + _price(q, costs).sum(1)
    mu = 1 - spent
    cash = (d[:, 0] - q.sum(1) - spent) / mu.where(mu > 0, 1.0)
    cash = cash + (th.maximum(cash, least) - cash).detach()
    held = th.cat([cash[:, None], (d[:, 1:] + q) / mu.where(mu > 0, 1.0)[:, None]], 1)
    made = (room >= -rounding) & (mu > 0)
    part = _where(made, Trade(mu, q.abs().sum(1), held), _nothing(d))
    return _where(~over, whole, part)


def _price(q: Tensor, costs: Costs) -> Tensor:
    """Return the trading costs (B, N), without fees."""
    rate = th.where(q > 0, costs.buy, costs.sell)
    if costs.impact is not None:
        rate = rate + costs.impact * q.abs().clamp_min(1e-30).sqrt()
    return rate * q.abs()


def all_cash(like: Tensor) -> Tensor:
    """Return weights that hold nothing but cash."""
    return th.eye(1, like.shape[1], dtype=like.dtype, device=like.device).expand_as(like)
