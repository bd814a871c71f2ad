"""What a rebalancing costs and what is held after it, in torch, with gradients.

The twin of `portfolio_env.trading`: its solver solves the cost equation, the implicit function
theorem differentiates it. Everything is in units of the wealth before trading; weights put cash
first; B lanes, N assets.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch as th
from torch import Tensor
from torch.autograd.function import once_differentiable

from portfolio_env.trading import solve_trades


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
        fixed: Tensor,
        free: Tensor,
        buy: Tensor,
        sell: Tensor,
        impact: Tensor,
        fee: Tensor,
    ) -> Tensor:
        rates = (_numpy(v) for v in (buy, sell, impact, fee))
        left = solve_trades(_numpy(d), _numpy(a), fixed.cpu().numpy(), _numpy(free), *rates)
        x = th.from_numpy(left).to(d)
        ctx.save_for_backward(d, a, fixed, free, buy, sell, impact, x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d, a, fixed, free, buy, sell, impact, x = ctx.saved_tensors
        a = a[:, 1:]
        q = (x[:, None] * a - d[:, 1:]).masked_fill(fixed, 0.0)
        marginal = th.where(q > 0, buy, -sell).masked_fill(fixed, 0.0)
        root = q.abs().sqrt() if impact.shape[1] else None
        if root is not None:
            marginal = marginal + 1.5 * impact * root * q.sign()
        slope = free + (marginal * a).sum(1)
        share = (grad / slope).masked_fill((x <= 0) | (slope <= 0), 0.0)
        by_d = th.nn.functional.pad(share[:, None] * marginal, (1, 0))
        by_a = -x[:, None] * by_d
        by_impact = None if root is None else -share[:, None] * root**3
        return by_d, by_a, None, share * (1 - x), None, None, by_impact, -share


def _numpy(values: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    return values.detach().to("cpu", th.float64).contiguous().numpy()


class Costs(NamedTuple):
    """What trading costs in one step: per lane, in units of the wealth before trading.

    Attributes:
        buy: (B, N) cost of purchases per traded notional.
        sell: (B, N) cost of sales.
        impact: (B, N) coefficient of the square-root impact, or (B, 0).
        fee: (B,) charged where anything is traded.
        limit: Largest turnover.
    """

    buy: Tensor
    sell: Tensor
    impact: Tensor
    fee: Tensor
    limit: float = np.inf

    @classmethod
    def linear(cls, buy: Any, sell: Any, like: Tensor) -> Costs:
        """Rates alone, each a scalar or (N,), for weights ``like`` (B, N + 1)."""
        shape = like[:, 1:].shape
        bought, sold = (
            th.as_tensor(rate, dtype=like.dtype).to(like.device).expand(shape)
            for rate in (buy, sell)
        )
        return cls(bought, sold, like.new_zeros(shape[0], 0), like.new_zeros(shape[0]))


def remainder_factor(drifted: Tensor, target: Tensor, buy: Any, sell: Any) -> Tensor:
    """Wealth left by rebalancing, as a fraction of the wealth before, with gradients.

    The twin of `portfolio_env.dynamics.remainder_factor`.

    Args:
        drifted: (B, N + 1) weights before trading, summing to 1.
        target: (B, N + 1) weights after it.
        buy: cost of purchases per traded notional in [0, 1): scalar or (N,).
        sell: cost of sales, same.

    Returns:
        (B,); 0 where nothing is left.
    """
    costs = Costs.linear(buy, sell, drifted)
    fixed = th.zeros_like(drifted[:, 1:], dtype=th.bool)
    free = th.ones_like(drifted[:, 0])
    x: Tensor = _Remainder.apply(drifted, target, fixed, free, *costs[:4])  # type: ignore[no-untyped-call] # torch does not type it
    return x


class Trade(NamedTuple):
    """A rebalancing: ``mu`` (B,), ``turnover`` (B,) and the weights ``held`` after it."""

    mu: Tensor
    turnover: Tensor
    held: Tensor


def trade(d: Tensor, a: Tensor, fixed: Tensor | None, free: Tensor, costs: Costs) -> Trade:
    """Trade from ``d`` towards ``a``; the twin of `portfolio_env.trading.trade_lane`.

    Args:
        d: (B, N + 1) drifted weights.
        a: (B, N + 1) feasible target; fixed assets have their drifted weight in it.
        fixed: (B, N) assets that are not traded; None if all are.
        free: (B,) wealth that is not tied up in them.
        costs: what trading costs.
    """
    mask = th.zeros_like(d[:, 1:], dtype=th.bool) if fixed is None else fixed
    x: Tensor = _Remainder.apply(d, a, mask, free, *costs[:4])  # type: ignore[no-untyped-call] # torch does not type it
    q = x[:, None] * a[:, 1:] - d[:, 1:]
    if fixed is not None:
        q = q.masked_fill(fixed, 0.0)
    turnover = q.abs().sum(1)
    mu, held = x, a
    if fixed is not None:
        mu = 1 - free + free * x
        kept = th.nn.functional.pad(fixed, (1, 0))
        held = th.where(kept, d, x[:, None] * a) / mu.where(mu > 0, 1.0)[:, None]
    if np.isfinite(costs.limit):
        mu, turnover, held = _cut(Trade(mu, turnover, held), d, q, costs)
    lost, tied = x <= 0, free <= 0
    if fixed is not None:
        mu, turnover = mu.where(~tied, 1.0), turnover.where(~tied, 0.0)
        held, lost = held.where(~tied[:, None], d), lost & ~tied
    if bool(lost.any()):
        mu, turnover = mu.where(~lost, 0.0), turnover.where(~lost, 0.0)
        held = held.where(~lost[:, None], all_cash(held))
    return Trade(mu, turnover, held)


def _cut(done: Trade, d: Tensor, q: Tensor, costs: Costs) -> Trade:
    """The trades of lanes beyond the turnover limit, all cut by the same factor."""
    over = done.turnover > costs.limit
    if not bool(over.any()):
        return done
    cut = costs.limit / done.turnover.where(over, 1.0)
    q = q * cut[:, None]
    rate = th.where(q > 0, costs.buy, costs.sell)
    if costs.impact.shape[1]:
        rate = rate + costs.impact * q.abs().clamp_min(1e-30).sqrt()
    spent = (rate * q.abs()).sum(1) + (costs.fee if costs.limit > 0 else 0.0)
    cash = d[:, 0] - q.sum(1) - spent
    held = th.cat([cash[:, None], d[:, 1:] + q], 1) / (1 - spent)[:, None]
    return Trade(
        th.where(over, 1 - spent, done.mu),
        th.where(over, cut * done.turnover, done.turnover),
        th.where(over[:, None], held, done.held),
    )


def all_cash(like: Tensor) -> Tensor:
    """Weights of nothing but cash."""
    return th.eye(1, like.shape[1], dtype=like.dtype, device=like.device).expand_as(like)
