"""Baselines that decide from prices alone: targets, rebalancing dates, constraints."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from baselines.base import BASELINES, Baseline, Weights
from baselines.checks import DECISIONS, check_sum, checked_answer, checked_decision
from baselines.rows import Every, bar_of, rebalancing_dates
from baselines.selection import within_selection
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.backtest import ASKED
from portfolio_env.market import Market
from portfolio_env.market.growing import GrowableArray
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.timeline import TimeLike, row_of, time_text
from portfolio_env.simulation.constraints import PortfolioConstraints


class PortfolioModel(Baseline):
    """Baseline that decides from prices: a pure function of the bars up to the last closed one.

    Subclasses write ``target``, and ``_fit`` where there is something to fit. They keep every
    option of their constructor under its own name, as scikit-learn's estimators do:
    ``model_info`` reads them there.

    On rebalancing dates every lane gets the target. Between them it gets what it holds,
    exactly as observed, which the environment takes for "no trade"; an account of nothing but cash
    is invested at once, unless cash is what the model chose: that is the ``state`` of ``predict``,
    so hand back what it returned. Targets are kept by bar: costs, seeds and lanes compute nothing
    again.

    Args:
        market: The market its environments trade.
        constraints: Constraints of the targets, which act within what a target holds (see
            ``selection.within_selection``); None is any long-only portfolio.
        every: Rebalancing dates: every k-th bar of the market, or the first bar of each calendar
            week (from Monday), month, quarter or year.

    Attributes:
        left_out: Assets that could be traded at a decision but were not considered, by its date
            and by name, with the reason.
        refused: Dates of decisions that asked for a short position or for leverage that the
            constraints do not allow.

    Raises:
        ArgumentError: If ``every`` is not a schedule, no portfolio of the market's assets keeps to
            the constraints, or they allow short positions or leverage that the model cannot use.
    """

    shorts: ClassVar[bool] = True  # can hold short positions
    leverage: ClassVar[bool] = True  # can be asked for more than the account is worth
    source: ClassVar[str] = ""  # where the method was published
    _decides_by: ClassVar[str] = "target"
    oracle: ClassVar[bool] = False  # fitted to the evaluated bars: not to be ranked

    def __init_subclass__(cls, **options: Any) -> None:
        """Make a class that overrides ``target`` decide by it, not by a parent's faster way."""
        super().__init_subclass__(**options)
        for faster in ("_target_at", "_decisions"):
            owner = next(kind for kind in cls.__mro__ if {"target", faster} & vars(kind).keys())
            if faster not in vars(owner):
                setattr(cls, faster, getattr(PortfolioModel, faster))

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = 1,
    ) -> None:
        super().__init__(market)
        self.constraints = constraints or PortfolioConstraints()
        self._labels = self.constraints.labels(market.panel)
        self.every = every
        self._targets: dict[int, Weights] = {}
        self.left_out: dict[str, dict[str, str]] = {}
        self.refused: set[str] = set()
        self._due = GrowableArray(rebalancing_dates(market.timestamps, every))
        # rejects infeasible constraints
        bounds = self.constraints.bounds(market.n_assets, self._labels)[0]
        # total weight of a long-only portfolio that borrows all it may
        self._exposure = 1 - min(float(bounds["min_cash"]), 0.0)
        if self.constraints.max_leverage > 1 and not self.leverage:
            raise ArgumentError(
                f"max_leverage={self.constraints.max_leverage:g} is above 1: {type(self).__name__} "
                "holds unlevered portfolios; lower max_leverage to 1."
            )
        if not self.constraints.long_only and not self.shorts:
            able = sorted(
                name
                for name, kind in BASELINES.items()
                if issubclass(kind, PortfolioModel) and kind.shorts
            )
            raise ArgumentError(
                f"long_only=False: {type(self).__name__} holds no short positions; give "
                f"long_only=True, or choose one of {', '.join(able)}."
            )

    @abstractmethod
    def target(self, past: PricePanel) -> Weights:
        """Return the weights to hold from the last bar of ``past`` on; only ``past`` is read.

        Args:
            past: The bars up to the decision, of the market's assets; see ``PricePanel.past``.

        Returns:
            (N + 1,) float64 summing to 1, cash first. Assets that are not tradable at the last bar,
            or lack prices the model needs, are given 0; all cash if nothing can be held.
        """

    def leave_out(self, past: PricePanel, reasons: Mapping[str, str]) -> None:
        """Record in ``left_out`` which assets a decision at the last bar does not consider."""
        if reasons:
            self.left_out.setdefault(str(past.timestamps[-1]), {}).update(reasons)

    def fit(self, panel: PricePanel, fit_period: tuple[TimeLike, TimeLike]) -> Self:
        """Fit the model on the bars of a period and no others.

        Args:
            panel: Bars of the market's assets.
            fit_period: Half-open range of its rows or dates, at least two bars.

        Returns:
            The model itself.

        Raises:
            ArgumentError: If the panel is of other assets, or the period is none.
        """
        if panel.assets != self.market.assets:
            raise ArgumentError(
                f"the panel has the assets {panel.assets}, the market {self.market.assets}: "
                "fit on the same."
            )
        times = panel.timestamps
        start, end = row_of(times, fit_period[0]), row_of(times, fit_period[1], end=True)
        if end - start < 2:
            raise ArgumentError(
                f"fit_period={fit_period!r} stands for rows {start} to {end}: give two bars or more"
            )
        self._fit(panel.subset(slice(start, end)))
        self.fit_period = (start, end)
        self._fitted_on = [str(panel.timestamps[row]) for row in (start, end - 1)]
        self._targets = {}
        return self

    def _fit(self, bars: PricePanel) -> None:
        """Fit to these bars; most models have nothing to fit."""

    def follow(self, market: Market) -> None:
        """Go on with a market that continues the one it has; targets stay as they were."""
        due = rebalancing_dates(market.timestamps, self.every, self.market.n_bars)
        self._due = self._due.extended(due)
        super().follow(market)

    def weights(self, observation: Mapping[str, NDArray[Any]]) -> Weights:
        """Return target weights for a batch of lanes: new ones where due, else those that are held.

        Raises:
            ArgumentError: If the observation does not say which bar it is, or is of another market,
                or lanes trade assets of their own.
        """
        return self._answer(observation)[0]

    def _answer(
        self,
        observation: Mapping[str, NDArray[Any]],
        state: Any = None,
        starts: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[Weights, NDArray[np.bool_]]:
        """Return the weights of a batch and (B,) lanes for which the model last chose cash."""
        rows = self._rows(observation)
        out = np.array(observation["weights"], np.float64)
        chose_cash = np.zeros(len(rows), np.bool_) if state is None else np.array(state)
        if starts is not None:
            chose_cash[starts] = False
        in_cash = (out[:, 1:] == 0).all(axis=1)
        asked = self._due.filled()[rows] | (in_cash & ~chose_cash)
        for row in set(rows[asked].tolist()):
            lanes = asked & (rows == row)
            out[lanes] = self._decisions(row, out[lanes])
        chose_cash[asked] = (out[asked, 1:] == 0).all(axis=1)
        return out, chose_cash

    def _decisions(self, row: int, held: Weights) -> Weights:
        """Return (N + 1,) the target of all accounts at a bar, or (L, N + 1) one of each.

        Args:
            row: The bar.
            held: (L, N + 1) weights of the accounts, which the target of most models ignores.
        """
        return self._decided(row)

    def predict_weights(self, t: TimeLike) -> pd.Series:
        """Return the target decided at a bar, whether or not it is a rebalancing date.

        Args:
            t: A row of the market, or a date: the first bar at or after it.

        Returns:
            (N + 1,) float64, indexed by "cash" and the assets' names.

        Raises:
            ArgumentError: If the market has no such bar.
        """
        weights = self._decided(bar_of(self.market, "t", t))
        return pd.Series(weights.copy(), ["cash", *self.market.assets])

    def _decided(self, row: int) -> Weights:
        """Return (N + 1,) the target of a bar within the constraints, computed once."""
        if row not in self._targets:
            untradable = ~self.market.tradable[row]
            target = self._target_at(row) if self._built_in else self._tried_target(row)
            limits, assets = self.constraints, target[1:]
            shorts = limits.long_only and assets.min(initial=0) < -ASKED
            if shorts or np.abs(assets).sum() > limits.max_leverage + ASKED:
                self.refused.add(str(self.market.timestamps[row]))
            self._targets[row] = self._constrained(target, untradable)
        return self._targets[row]

    def _constrained(self, target: Weights, untradable: NDArray[np.bool_]) -> Weights:
        """Return (N + 1,) a target within the constraints."""
        return within_selection(self.constraints, target, untradable, self._labels)

    def _tried_target(self, row: int) -> Weights:
        """Return the target of a user-defined model at a bar, tested for look-ahead at first."""
        if self.oracle or len(self._targets) >= DECISIONS:
            return self._checked_target(row)
        return checked_decision(
            self, self.market, row, lambda model: model._checked_target(row), self._at(row)
        )

    def _checked_target(self, row: int) -> Weights:
        """Return the target of a user-defined model at a bar, after checks."""
        slots = self.market.n_assets + 1
        target = checked_answer(
            lambda: self._target_at(row), (slots,), self._at(row), self.market.assets
        )
        check_sum(target, self._at(row))
        return target

    def _at(self, row: int) -> str:
        return f"{self._name} at bar {row} ({time_text(self.market.timestamps[row])})"

    def _target_at(self, row: int) -> Weights:
        """Return ``target`` at a bar; a model that can continue or batch overrides it."""
        return self.target(self.market.panel.past(row))

    def model_info(self) -> dict[str, Any]:
        """Return a JSON-able description of the model: name, parameters, fitting period, source."""
        values = {name: getattr(self, name) for name in self._options()}
        return {
            "name": type(self).__name__,
            "parameters": {
                n: asdict(v) if isinstance(v, PortfolioConstraints) else v
                for n, v in values.items()
            },
            "fitted_on": self._fitted_on,  # the first and the last bar
            "oracle": self.oracle,
            "source": self.source,
        }

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_targets": {}, "left_out": {}, "refused": set()}


def portfolio(chosen: NDArray[np.bool_], weights: Any = None) -> Weights:
    """Return the weights of all slots, from those of some assets.

    Args:
        chosen: (N,) bool, the assets that may be held.
        weights: (number of chosen,) weights >= 0, normalised to the sum 1 here; None is equal ones.

    Returns:
        (N + 1,) float64, cash first; all cash if nothing is chosen or all weights are 0.
    """
    out = np.zeros(len(chosen) + 1)
    out[1:][chosen] = 1.0 if weights is None else weights
    total = out.sum()
    if total > 0:
        return out / total
    out[0] = 1.0
    return out


def levered(weights: Weights, exposure: float) -> Weights:
    """Return (N + 1,) weights whose assets are held so many times over, on borrowed cash."""
    if exposure == 1:
        return weights
    out = exposure * weights
    out[0] += 1 - exposure
    return out
