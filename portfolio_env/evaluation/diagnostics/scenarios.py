"""Scenarios: prices, costs, fills and delays changed by a hypothetical shock."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from portfolio_env.checks import check_integer, check_number
from portfolio_env.errors import ArgumentError
from portfolio_env.market.panel import BAR_FIELDS, FloatArray, PricePanel
from portfolio_env.market.timeline import TimeLike, row_of
from portfolio_env.names import indices_of
from portfolio_env.simulation.cost_models import CostModel, Costs, checked_rates
from portfolio_env.simulation.costs import TransactionCosts
from portfolio_env.simulation.fills import Fills

BoolArray: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Base of shocks: what changes, when, and for which assets.

    Attributes:
        start: First bar of it, a row or a date; None for the whole record.
        end: The bar after the last, likewise.
        assets: Affected assets; None is all.
    """

    start: TimeLike | None = None
    end: TimeLike | None = None
    assets: Sequence[str] | None = None

    def prices(self, panel: PricePanel, generator: np.random.Generator) -> PricePanel:
        """Return the shocked panel."""
        return panel

    def costs(self, costs: Costs) -> Costs:
        """Return the shocked costs, for the whole backtest."""
        return costs

    def fills(self, fills: Fills) -> Fills:
        """Return the shocked fills, for the whole backtest."""
        return fills

    def delay(self, bars: int) -> int:
        """Return the shocked delay, for the whole backtest."""
        return bars

    def _rows(self, panel: PricePanel) -> tuple[int, int]:
        times = panel.timestamps
        start = 0 if self.start is None else row_of(times, self.start)
        end = len(times) if self.end is None else row_of(times, self.end, end=True)
        if start >= end:
            raise ArgumentError(
                f"start={self.start!r} and end={self.end!r} stand for rows {start} and {end}: "
                "give a range of at least one bar."
            )
        return start, end

    def _where(self, panel: PricePanel) -> BoolArray:
        """Return (T, N) the affected bars."""
        names = panel.assets if self.assets is None else self.assets
        where = np.zeros(panel.close.shape, np.bool_)
        where[slice(*self._rows(panel)), indices_of("asset", names, panel.assets)] = True
        return where

    def _drawn(
        self, panel: PricePanel, at: TimeLike | None, bars: int, generator: np.random.Generator
    ) -> tuple[int, int]:
        """Return so many bars from a moment on, or from one drawn so that they fit the range."""
        start, end = self._rows(panel)
        if bars < 1 or end - start < bars:
            raise ArgumentError(
                f"bars={bars} must be at least 1 and at most the {end - start} of the range."
            )
        if at is None:
            first = int(generator.integers(start, end - bars + 1))
        else:
            first = row_of(panel.timestamps, at)
        if first + bars > len(panel.timestamps):
            raise ArgumentError(f"at={at!r} leaves no {bars} bars; give an earlier one.")
        return first, first + bars


@dataclass(frozen=True, kw_only=True)
class PriceGap(Scenario):
    """Gap: all prices from one bar on are lower (or higher), with no trading in between.

    Attributes:
        size: Share of the price that is lost, below 1; negative for a rise.
        at: The first bar after the gap, a row or a date; None draws one in [``start``, ``end``).
    """

    size: float = 0.2
    at: TimeLike | None = None

    def __post_init__(self) -> None:
        """Check the size."""
        check_number("size", self.size, below=1)

    def prices(self, panel: PricePanel, generator: np.random.Generator) -> PricePanel:
        """Return the panel with the gap; an asset without a bar there gaps at its next one."""
        first, _ = self._drawn(panel, self.at, 1, generator)
        lost = replace(self, start=first, end=None)._where(panel)  # for all later bars
        fall = np.where(lost, math.log1p(-self.size), 0.0)
        return _scaled(panel, {name: fall for name in BAR_FIELDS if name != "volume"})


@dataclass(frozen=True, kw_only=True)
class VolatilityShock(Scenario):
    """Shock of volatility: log returns are scaled, simple ones keep their mean.

    Attributes:
        factor: Multiple of the volatility, above 0.
    """

    factor: float = 2.0

    def __post_init__(self) -> None:
        """Check the factor."""
        check_number("factor", self.factor, above=0)

    def prices(self, panel: PricePanel, generator: np.random.Generator) -> PricePanel:
        """Return the panel with log returns ``c + factor r``; c keeps the mean of simple ones.

        With the mean of the logs kept instead, a portfolio would gain by volatility. Opens, highs
        and lows move from the close before them in the same way.
        """
        where = self._where(panel)
        returns, _ = _log_moves(panel)
        kept, wilder = (_mean(np.exp(each), where) for each in (returns, self.factor * returns))
        known = kept > 0  # an asset without bars there has no mean
        level = np.log(np.where(known, kept, 1.0) / np.where(known, wilder, 1.0))
        return _moved(
            panel,
            slope=np.where(where, self.factor, 1.0),
            shift=np.where(where, level, 0.0),
        )


@dataclass(frozen=True, kw_only=True)
class CorrelationShock(Scenario):
    """Shock of correlation: returns move together, and diversification vanishes.

    Attributes:
        strength: 1 makes all correlations 1 (where an asset has bars), 0 changes nothing.
    """

    strength: float = 1.0

    def __post_init__(self) -> None:
        """Check the strength."""
        check_number("strength", self.strength, 0, 1)

    def prices(self, panel: PricePanel, generator: np.random.Generator) -> PricePanel:
        """Return the panel with standardised log returns ``strength f + (1 - strength) z_i``.

        f is their mean over the assets; the sum is standardised again, so that every asset keeps
        its mean and its volatility over the bars. Opens, highs and lows move with the close.
        """
        where = self._where(panel)
        returns, _ = _log_moves(panel)
        known = where & np.isfinite(returns)
        standard, mean, scale = _standardised(returns, known)
        count = np.maximum(known.sum(axis=1, keepdims=True), 1)
        common = np.where(known, standard, 0.0).sum(axis=1, keepdims=True) / count
        mixed, _, _ = _standardised(self.strength * common + (1 - self.strength) * standard, known)
        shift = np.where(known, mean + scale * mixed - returns, 0.0)
        return _moved(panel, slope=np.ones_like(shift), shift=shift)


class _Dearer(CostModel):
    """Cost model whose trades cost a factor more."""

    def __init__(self, costs: Costs, factor: float) -> None:
        self._costs, self._factor = costs, factor
        self.fixed_fee = factor * costs.fixed_fee
        self.cash_rate_annual = costs.cash_rate_annual
        self.margin_rate_annual = costs.margin_rate_annual
        self.borrow_rate_annual = costs.borrow_rate_annual
        self.delisting_haircut = costs.delisting_haircut

    def rates(self, assets: Sequence[str]) -> tuple[FloatArray, FloatArray]:
        buy, sell = checked_rates(self._costs, assets)
        return self._factor * buy, self._factor * sell

    def impact_coefficients(self, panel: PricePanel) -> FloatArray:
        return self._factor * self._costs.impact_coefficients(panel)


@dataclass(frozen=True, kw_only=True)
class ThinLiquidity(Scenario):
    """Shock of liquidity: trading costs rise and volumes fall.

    Attributes:
        factor: Multiple of the costs, above 0; volumes are divided by it. Impact grows as the
            root of less volume, on top of its own coefficient.
    """

    factor: float = 5.0

    def __post_init__(self) -> None:
        """Check the factor."""
        check_number("factor", self.factor, above=0)

    def prices(self, panel: PricePanel, generator: np.random.Generator) -> PricePanel:
        """Return the panel with smaller volumes."""
        return _scaled(panel, {"volume": np.where(self._where(panel), -math.log(self.factor), 0.0)})

    def costs(self, costs: Costs) -> Costs:
        """Return all costs of trading, times the factor; rates of interest stay.

        Costs do not vary over time, so these hold for the whole backtest: give it the range of the
        scenario.
        """
        if type(costs) is not TransactionCosts:  # a subclass may have rates of its own
            return _Dearer(costs, self.factor)
        return replace(
            costs,
            commission_bps=self._times(costs.commission_bps),
            buy_commission_bps=self._times(costs.buy_commission_bps),
            sell_commission_bps=self._times(costs.sell_commission_bps),
            slippage_bps=self._times(costs.slippage_bps),
            impact=costs.impact * self.factor,
            fixed_fee=costs.fixed_fee * self.factor,
        )

    def _times(self, rate: Any) -> Any:
        """Return a rate, one per asset or none, times the factor."""
        if isinstance(rate, Mapping):
            return {asset: self.factor * each for asset, each in rate.items()}
        return rate if rate is None else (self.factor * np.asarray(rate)).tolist()


@dataclass(frozen=True, kw_only=True)
class Outage(Scenario):
    """No trading for some bars: they are missing, and the next one has the prices of its time.

    Attributes:
        bars: Number of bars, at least 1.
        at: First bar, a row or a date; None draws a range within [``start``, ``end``).
    """

    bars: int = 5
    at: TimeLike | None = None

    def prices(self, panel: PricePanel, generator: np.random.Generator) -> PricePanel:
        """Return the panel without the bars."""
        first, end = self._drawn(panel, self.at, self.bars, generator)
        gone = replace(self, start=first, end=end)._where(panel)
        bars = {name: getattr(panel, name) for name in BAR_FIELDS}
        kept: dict[str, Any] = {
            name: None if field is None else np.where(gone, np.nan, field)
            for name, field in bars.items()
        }
        return replace(panel, **kept)


@dataclass(frozen=True, kw_only=True)
class OpeningGaps(Scenario):
    """Gaps between closes and the next opens, where ``execution="next_open"`` fills orders.

    Closes stay as they are, so that a gap costs or gains on what is traded alone.

    Attributes:
        size: Standard deviation of the log gap, above 0; gaps of all bars and assets are
            independent and normal.
    """

    size: float = 0.01

    def __post_init__(self) -> None:
        """Check the size."""
        check_number("size", self.size, above=0)

    def prices(self, panel: PricePanel, generator: np.random.Generator) -> PricePanel:
        """Return the panel with other opens; highs and lows reach as far as they do.

        Raises:
            ArgumentError: If the panel has no opens.
        """
        if panel.open is None:
            raise ArgumentError("OpeningGaps needs opening prices, which this market lacks.")
        gaps = generator.normal(0.0, self.size, panel.close.shape)
        opens = panel.open * np.exp(np.where(self._where(panel), gaps, 0.0))
        high, low = panel.high, panel.low
        return replace(
            panel,
            open=opens,
            high=None if high is None else np.maximum(high, opens),
            low=None if low is None else np.minimum(low, opens),
        )


@dataclass(frozen=True, kw_only=True)
class IncompleteFills(Scenario):
    """Orders that fail or are filled in part, in place of the fills of the environment.

    They hold for all bars and assets of the backtest. Draws are those of its seed.

    Attributes:
        participation: See ``simulation.fills.Fills``, as the others.
        failure: Probability that an order fails.
        partial: Probability that an order is filled in part.
    """

    participation: float | None = None
    failure: float = 0.1
    partial: float = 0.2

    def __post_init__(self) -> None:
        """Check the fields."""
        self.fills(Fills())

    def fills(self, fills: Fills) -> Fills:
        """Return the fills."""
        return Fills(self.participation, self.failure, self.partial)


@dataclass(frozen=True, kw_only=True)
class Delay(Scenario):
    """Orders that come later: the market that they were decided on is older.

    It holds for all bars and assets of the backtest.

    Attributes:
        bars: Bars that the delay of the environment grows by, at least 1.
    """

    bars: int = 1

    def __post_init__(self) -> None:
        """Check the number."""
        check_integer("bars", self.bars)

    def delay(self, bars: int) -> int:
        """Return the longer delay."""
        return bars + self.bars


def _log_moves(panel: PricePanel) -> tuple[FloatArray, FloatArray]:
    """Return (T, N) log returns since each asset's bar before, and the log close before it.

    NaN where there is no bar, and at an asset's first.
    """
    close = np.log(panel.close)
    before = pd.DataFrame(close).ffill().shift().to_numpy()
    return close - before, before


def _moved(panel: PricePanel, slope: FloatArray, shift: FloatArray) -> PricePanel:
    """Return the panel whose bars' log distances x from the close before are ``slope x + shift``.

    An increasing map keeps a bar's prices in order; what it adds to closes stays in all later ones.
    """
    returns, before = _log_moves(panel)
    added = np.where(np.isfinite(returns), slope * returns + shift - returns, 0.0)
    level = np.cumsum(added, axis=0) - added  # what was added before each bar
    factors = {}
    for name in BAR_FIELDS[:-1]:
        prices = getattr(panel, name)
        if prices is not None:
            x = np.log(prices) - before
            factors[name] = level + np.where(np.isfinite(x), (slope - 1) * x + shift, 0.0)
    return _in_order(_scaled(panel, factors))


def _in_order(panel: PricePanel) -> PricePanel:
    """Return the panel with highs and lows that rounding has not moved past opens and closes."""
    inner = [prices for prices in (panel.open, panel.close) if prices is not None]
    bounds = {"high": np.maximum.reduce, "low": np.minimum.reduce}
    known = {name: getattr(panel, name) for name in bounds if getattr(panel, name) is not None}
    return replace(panel, **{k: bounds[k]([v, *inner]) for k, v in known.items()})


def _scaled(panel: PricePanel, logs: Mapping[str, FloatArray]) -> PricePanel:
    """Return the panel with fields multiplied by exp(logs)."""
    fields = {name: getattr(panel, name) for name in logs}
    with np.errstate(over="ignore", under="ignore"):  # rejected by the panel, with the bar's name
        made = {k: v * np.exp(logs[k]) for k, v in fields.items() if v is not None}
    return replace(panel, **made)


def _mean(values: FloatArray, where: BoolArray) -> FloatArray:
    """Return (N,) means of the finite values in the chosen bars; 0 where there are none."""
    known = where & np.isfinite(values)
    return np.where(known, values, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)


def _standardised(
    values: FloatArray, known: BoolArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return (T, N) values standardised over the known bars, their means and deviations (N,)."""
    mean = _mean(values, known)
    scale = np.sqrt(_mean(np.square(values - mean), known))
    safe = np.where(scale > 0, scale, 1.0)
    return np.where(known, (values - mean) / safe, 0.0), mean, scale
