"""Differentiable simulator in torch: the environment's step, for training without RL.

Equal to ``simulation.dynamics.step_lanes``, with gradients to the weights before trading, to the
target and to the value. Weights put cash first; B lanes, N assets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import torch as th
from torch import Tensor

from agents.direct.differentiable_projection import ConstrainedPortfolioLayer, share_rest
from agents.direct.differentiable_rebalancing import Costs, all_cash, some, trade
from portfolio_env.errors import ArgumentError
from portfolio_env.simulation.dynamics import LOG_FLOOR
from portfolio_env.simulation.projection import SUM_ROUNDING
from portfolio_env.simulation.simulator import Simulator
from portfolio_env.simulation.targets import may_borrow

Projection = Callable[[Tensor, Tensor], Tensor]


class Step(NamedTuple):
    """Result of one step of B lanes.

    Attributes:
        log_growth: (B,) log of the value after over the value before, costs and carry included.
        weights: (B, N + 1) drifted weights at the next close.
        held: (B, N + 1) weights right after trading.
        mu: (B,) wealth after over before trading.
        turnover: (B,) traded notional over wealth.
        value: (B,) money at the next close.
    """

    log_growth: Tensor
    weights: Tensor
    held: Tensor
    mu: Tensor
    turnover: Tensor
    value: Tensor


@dataclass(frozen=True, eq=False)
class DifferentiableSimulator:
    """A market and the rules of an environment as tensors; ``step`` is one step of its accounts.

    Attributes:
        before: (T - 1, N) gross return between the decision and the trade.
        after: (T - 1, N) gross return between the trade and the next close.
        tradable: (T - 1, N) whether the asset can be traded in this step.
        delisted: (T - 1, N) whether what is held becomes cash.
        rates: (2, N) cost per traded notional of purchases and sales.
        impact: (T, N) coefficient of sqrt(money traded), or (0, 0).
        interest: (T - 1, 3) what a unit of cash earns, of debt pays, of a short pays.
        all_tradable: Whether every asset can always be traded and none is ever delisted.
        rules: The numbers of ``portfolio_env.simulation.dynamics.RULES`` by name.
        least_cash: Lower bound of cash.
        borrows: Whether cash may be negative, or proceeds of short sales.
        bears_interest: Whether anything is earned or paid at all.
        box: (2, N + 1) lowest and highest weights that are asked for, what lies outside is clipped;
            None where logits are.
        projection: (target, fixed (B, N)) -> the nearest target within the constraints; None where
            every portfolio without shorts and debt is.
    """

    before: Tensor
    after: Tensor
    tradable: Tensor
    delisted: Tensor
    rates: Tensor
    impact: Tensor
    interest: Tensor
    all_tradable: bool
    rules: dict[str, float]
    least_cash: float = 0.0
    borrows: bool = False
    bears_interest: bool = True
    box: Tensor | None = None
    projection: Projection | None = None

    @classmethod
    def of(
        cls,
        simulator: Simulator,
        *,
        dtype: th.dtype = th.float32,
        device: th.device | str = "cpu",
    ) -> DifferentiableSimulator:
        """Return the differentiable counterpart of a simulator.

        Args:
            simulator: Holds the market and the rules.
            dtype: Floating-point type of all tensors.
            device: Device of the tensors.

        Raises:
            ArgumentError: On a limit on the turnover of several steps, incomplete fills or a delay,
                which are left out here.
        """
        if simulator.constraints.max_period_turnover is not None:
            raise ArgumentError(
                "max_period_turnover is not differentiable here; use max_turnover or leave it out"
            )
        if not simulator.fills.complete:
            raise ArgumentError(
                f"fills={simulator.fills} are not differentiable here, where every order is "
                "filled; leave them out to train, and evaluate with them"
            )
        if simulator.delay:
            raise ArgumentError(
                f"delay={simulator.delay}: the last bar is observed here; leave it out to train, "
                "and evaluate with it"
            )
        project = ConstrainedPortfolioLayer(simulator.constraints).project
        arrays = simulator.arrays
        floats = {
            name: th.tensor(getattr(arrays, name), dtype=dtype, device=device)
            for name in ("before", "after", "rates", "impact", "interest")
        }
        masks = {
            name: th.tensor(getattr(arrays, name), device=device)
            for name in ("tradable", "delisted")
        }
        rules = {
            name: float(simulator.rules[name][0]) for name in simulator.rules.dtype.names or ()
        }
        return cls(
            **floats,
            **masks,
            all_tradable=bool(arrays.all_tradable.all()),
            bears_interest=bool(arrays.interest.any()),
            rules=rules,
            least_cash=float(simulator.bounds["min_cash"][0]),
            borrows=bool(may_borrow(simulator.bounds[0])),
            box=None
            if simulator.action == "logits"
            else th.tensor(np.array(simulator.box), dtype=dtype, device=device),
            projection=None if simulator.bounds["trivial"][0] else project,
        )

    def to(self, device: th.device | str) -> DifferentiableSimulator:
        """Return a copy on another device."""
        names = ("before", "after", "tradable", "delisted", "rates", "impact", "interest")
        moved: dict[str, Any] = {name: getattr(self, name).to(device) for name in names}
        moved["box"] = None if self.box is None else self.box.to(device)
        return replace(self, **moved)

    def step(
        self,
        weights: Tensor,
        target: Tensor,
        t: Tensor,
        assets: Tensor | None = None,
        value: Tensor | None = None,
    ) -> Step:
        """Trade at bar t and let the market move to the next close.

        Args:
            weights: (B, N + 1) drifted weights at the close of bar t.
            target: (B, N + 1) weights asked for: for an environment of logits their
                ``differentiable_projection.score_weights``, before ``adjustment``.
            t: (B,) int64 rows of the market.
            assets: (B, N) int64 columns of the market that the lanes trade; None is all in order.
            value: (B,) money at the close of bar t, which matters to impact, fees and ruin; None is
                the initial value.
        """
        rules = self.rules
        value = weights.new_full((len(t),), rules["initial_value"]) if value is None else value
        delisted = None if self.all_tradable else self._at(self.delisted, t, assets)
        d, overnight = weights, None
        if rules["next_open"]:
            d, overnight = self._drift(d, self._at(self.before, t, assets), delisted, None)
            delisted = None
        wealth = value if overnight is None else value * overnight
        a, fixed, free = self._target(weights, d, target, t, assets)
        done = trade(d, a, fixed, free, self._costs(t, assets, wealth))
        interest = self.interest[t] if self.bears_interest else None
        drifted, growth = self._drift(
            done.held, self._at(self.after, t, assets), delisted, interest
        )
        ratio = done.mu * growth if overnight is None else overnight * done.mu * growth
        new = value * ratio
        floor = LOG_FLOOR * rules["initial_value"]
        shown = (value.detach() * ratio).clamp_min(floor) / value.detach().clamp_min(floor)
        gone = new <= 0
        if some(gone):
            drifted = drifted.where(~gone[:, None], all_cash(drifted))
        return Step(shown.log(), drifted, done.held, done.mu, done.turnover, new)

    @staticmethod
    def _at(rows: Tensor, t: Tensor, assets: Tensor | None) -> Tensor:
        return rows[t] if assets is None else rows[t[:, None], assets]

    def _costs(self, t: Tensor, assets: Tensor | None, wealth: Tensor) -> Costs:
        buy, sell = self.rates[:, None] if assets is None else self.rates[:, assets]
        impact, fixed_fee = None, self.rules["fixed_fee"]
        if len(self.impact):
            impact = self._at(self.impact, t, assets) * wealth.clamp_min(0).sqrt()[:, None]
        fee = fixed_fee / wealth if fixed_fee else None
        return Costs(buy, sell, impact, fee, self.rules["max_turnover"], self.least_cash)

    def _target(
        self, seen: Tensor, d: Tensor, a: Tensor, t: Tensor, assets: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the feasible target, the untraded assets and the wealth that the others share.

        The counterpart of ``portfolio_env.simulation.targets.target_lane``.
        """
        if self.box is not None:
            a = a.clamp(*self.box)
        rules, asked = self.rules, a
        band, moved, free = rules["no_trade_band"], rules["adjustment"] < 1, None
        nothing = th.zeros_like(d[:, 1:], dtype=th.bool) if self.projection else None
        if self.projection is not None and nothing is not None:
            a = self.projection(a, nothing)
        if moved:
            a = d + rules["adjustment"] * (a - d)
        untradable = None if self.all_tradable else ~self._at(self.tradable, t, assets)
        reasons = [] if untradable is None else [untradable]
        if not rules["softmax"]:
            same = asked[:, 1:].float() == seen[:, 1:].float()
            reasons.append(same & (seen[:, 1:] != 0))
        if band > 0:
            reasons.append((a[:, 1:] - d[:, 1:]).abs() <= band)
        fixed = reduce(th.logical_or, reasons) if reasons else None
        if fixed is not None:
            a, free = share_rest(d, a, fixed, self.borrows)
        if self.projection is not None and nothing is not None and (moved or fixed is not None):
            stuck = nothing if untradable is None else untradable
            a = self.projection(a, stuck)
            if fixed is not None and free is not None:
                loose = fixed & ~stuck & ((a - d)[:, 1:].abs() > SUM_ROUNDING)
                fixed = fixed & ~loose
                if not self.borrows:
                    free = free + (d[:, 1:] * loose).sum(1)
        return a, fixed, free

    def _drift(
        self, w: Tensor, gross_returns: Tensor, delisted: Tensor | None, interest: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the weights and the growth (B,) after the market moved weights ``w``.

        The counterpart of ``portfolio_env.simulation.dynamics.drift_lane``.
        """
        cash = w[:, :1]
        if interest is not None:
            short = -w[:, 1:].clamp_max(0).sum(1, keepdim=True)
            rate = th.where(cash > 0, interest[:, :1], interest[:, 1:2])
            cash = cash + cash * rate - short * interest[:, 2:]
        moved = w[:, 1:] * gross_returns
        if delisted is not None:
            paid = (w[:, 1:] * delisted).sum(1, keepdim=True) * (1 - self.rules["haircut"])
            cash, moved = cash + paid, moved.masked_fill(delisted, 0.0)
        out = th.cat([cash, moved], 1)
        total = out.sum(1)
        return out / total.where(total > 0, 1.0)[:, None], total
