"""Market arrays from a price panel: gross returns, tradability, delistings and rates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import ArgumentError
from portfolio_env.market import PricePanel
from portfolio_env.market.rates import rates_at
from portfolio_env.market.timeline import years_between
from portfolio_env.simulation.cost_models import Costs, checked_impact, checked_rates
from portfolio_env.simulation.dynamics import MarketArrays
from portfolio_env.simulation.fills import Fills

COMPLETE = Fills()


def listed_rows(panel: PricePanel) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (N,) rows of the first and the last bar of each asset; (T, -1) if it has none."""
    bars = np.isfinite(panel.close)
    first = np.where(bars.any(0), bars.argmax(0), len(bars))
    last = np.where(bars.any(0), len(bars) - 1 - bars[::-1].argmax(0), -1)
    return first, last


def market_arrays(
    panel: PricePanel, costs: Costs, next_open: bool, fills: Fills = COMPLETE
) -> MarketArrays:
    """Return the arrays of each step from close t to close t + 1.

    Where an asset has no bar its latest price stands, for valuation alone: it cannot be traded.
    With
    ``next_open`` the move is split at the open of bar t + 1, where the trade takes place.

    Raises:
        ArgumentError: If ``next_open`` is asked of a market without opening prices.
    """
    bars = np.isfinite(panel.close)
    steps = len(bars) - 1
    latest = np.maximum.accumulate(np.where(bars, np.arange(len(bars))[:, None], -1), axis=0)
    listed = latest >= 0
    marks = np.where(listed, np.take_along_axis(panel.close, np.maximum(latest, 0), axis=0), 1.0)
    after = np.where(listed[:-1], marks[1:] / marks[:-1], 1.0)
    before = np.ones_like(after)
    tradable = panel.tradable[:-1]
    if next_open:
        if panel.open is None:
            raise ArgumentError(
                "execution='next_open' needs opening prices, which this market lacks; use "
                "execution='close'."
            )
        tradable = panel.tradable[1:]
        opens = np.where(bars[1:], panel.open[1:], marks[1:])
        before = np.where(listed[:-1], opens / marks[:-1], 1.0)
        after = marks[1:] / opens
    delisted = np.arange(steps)[:, None] == listed_rows(panel)[1]
    return MarketArrays(
        before=before,
        after=after,
        tradable=tradable.copy(),
        delisted=delisted,
        all_tradable=(tradable & ~delisted).all(-1),
        rates=checked_rates(costs, panel.assets),
        impact=np.ascontiguousarray(checked_impact(costs, panel)),
        interest=interest(panel, costs),
        capacity=fills.capacity(panel, next_open),
    )


def interest(panel: PricePanel, costs: Costs) -> NDArray[np.float64]:
    """Return (T - 1, 3) what a unit of cash earns, of debt pays, of a short pays until t + 1.

    The yearly rate known at the close of bar t, times the years until t + 1 by the clock: simple
    interest within a step, compounded from step to step. NaN where a rate is not known yet.
    """
    times = panel.timestamps
    names = ("cash_rate_annual", "margin_rate_annual", "borrow_rate_annual")
    rates = [rates_at(name, getattr(costs, name), times[:-1]) for name in names]
    return np.ascontiguousarray(np.stack(rates, axis=1) * years_between(times)[:, None])


class Benchmark:
    """Equal weight in the assets that can be traded, rebalanced at every bar, without costs."""

    def __init__(self, market: MarketArrays, haircut: float) -> None:
        """Compute each asset's return of a step, without assets that cannot be traded."""
        self._counts = market.tradable | market.delisted
        whole = np.where(market.delisted, 1.0 - haircut, market.before * market.after)
        self._moves = np.where(self._counts, whole, 0.0)
        self._all = np.r_[0.0, self._log_mean(self._moves, self._counts)]  # by the bar after

    @staticmethod
    def _log_mean(
        gross_returns: NDArray[np.float64], counts: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        mean = gross_returns.sum(-1) / np.maximum(counts.sum(-1), 1)
        return np.log(np.where(mean > 0, mean, 1.0))

    def log_return(
        self, t: NDArray[np.int64], assets: NDArray[np.int64] | None
    ) -> NDArray[np.float64]:
        """Return (B,) log returns of the steps that end at bars ``t``, of all columns or (B, N)."""
        if assets is None:
            return self._all.take(t)
        pick = (t[:, None] - 1, assets)
        return self._log_mean(self._moves[pick], self._counts[pick])
