"""Market arrays from a price panel: gross returns, tradability, delistings and rates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import ArgumentError
from portfolio_env.features.tails import Tails
from portfolio_env.market import PricePanel
from portfolio_env.market.growing import GrowableArray
from portfolio_env.market.rates import rates_at
from portfolio_env.market.timeline import Timestamps, years_between
from portfolio_env.simulation.cost_models import Costs, check_bound, checked_impact, checked_rates
from portfolio_env.simulation.costs import TransactionCosts
from portfolio_env.simulation.dynamics import MarketArrays
from portfolio_env.simulation.fills import Fills

Bool = NDArray[np.bool_]
Float = NDArray[np.float64]
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
    steps = len(panel.timestamps) - 1
    delisted = np.arange(steps)[:, None] == listed_rows(panel)[1]
    impact = checked_impact(costs, panel)
    return _arrays_from(0, panel, panel.close[0], (costs, next_open, fills), delisted, impact)


def _arrays_from(
    first: int,
    panel: PricePanel,
    prices: Float,
    rules: tuple[Costs, bool, Fills],
    delisted: Bool,
    impact: Float,
) -> MarketArrays:
    """Return the arrays of the steps from a row on, and of the bars that impact is given of.

    The prices (N,) are the latest ones at that row. The rules are costs, whether trades are filled
    at the next open, and fills.
    """
    costs, next_open, fills = rules
    bars = np.isfinite(panel.close[first:])
    known = np.vstack([prices[None], panel.close[first + 1 :]])
    latest = np.where(np.isfinite(known), np.arange(len(known))[:, None], 0)
    marks = np.take_along_axis(known, np.maximum.accumulate(latest, axis=0), axis=0)
    listed = np.isfinite(marks[:-1])
    after = np.where(listed, marks[1:] / marks[:-1], 1.0)
    before = np.ones_like(after)
    tradable: Bool = panel.tradable[first:-1]
    if next_open:
        if panel.open is None:
            raise ArgumentError(
                "execution='next_open' needs opening prices, which this market lacks; use "
                "execution='close'."
            )
        tradable = panel.tradable[first + 1 :]
        opens = np.where(bars[1:], panel.open[first + 1 :], marks[1:])
        before = np.where(listed, opens / marks[:-1], 1.0)
        after = np.where(np.isfinite(marks[1:]), marks[1:] / opens, 1.0)
    return MarketArrays(
        before=before,
        after=after,
        tradable=tradable.copy(),
        delisted=delisted,
        all_tradable=np.all(tradable & ~delisted, axis=-1),
        rates=checked_rates(costs, panel.assets),
        impact=np.ascontiguousarray(impact),
        interest=interest(panel.timestamps[first:], costs),
        capacity=fills.capacity(panel, next_open)[first:],
    )


def latest_prices(panel: PricePanel, t: int) -> Float:
    """Return (N,) latest closes up to row t, NaN where there is none yet.

    Rows are searched from t on backwards: it costs the same for any t, unless an asset has had no
    bar for long.
    """
    found, end, length = panel.close[t].copy(), t, 1
    while len(columns := np.flatnonzero(np.isnan(found) & (panel.first_bars < end))):
        rows = panel.close[max(0, end - length) : end, columns][::-1]
        latest = np.isfinite(rows).argmax(axis=0)
        found[columns] = rows[latest, np.arange(len(columns))]
        end, length = max(0, end - length), 2 * length
    return found


class GrowingArrays:
    """Market arrays to which the steps of later bars are appended, at the same cost for any market.

    A bar that an asset lacks is not its delisting, which only the end of a whole market shows.

    Args:
        arrays: The arrays so far.
        costs: Costs they were made for. Impact of a ``CostModel`` of one's own is computed of the
            whole market again, as nobody knows what it remembers.
        next_open: See ``market_arrays``.
        fills: See ``market_arrays``.
    """

    def __init__(
        self, arrays: MarketArrays, costs: Costs, next_open: bool, fills: Fills = COMPLETE
    ) -> None:
        parts = arrays._asdict()
        self._rates, self._rules = parts.pop("rates"), (costs, next_open, fills)
        self._parts = {name: GrowableArray(own, writable=True) for name, own in parts.items()}
        self._prices: Float | None = None

    def extended(self, panel: PricePanel, delisted: Bool) -> MarketArrays:
        """Return the arrays of a panel that has further bars.

        Args:
            panel: The panel.
            delisted: (N,) assets whose last bar was the last one so far.
        """
        first = len(self._parts["before"].filled())
        if self._prices is None:
            self._prices = latest_prices(panel, first)
        gone = np.zeros((len(panel.timestamps) - 1 - first, len(panel.assets)), np.bool_)
        gone[0] = delisted
        impact = _later_impact(self._rules[0], panel, first + 1)
        later = _arrays_from(first, panel, self._prices, self._rules, gone, impact)
        for close in panel.close[first + 1 :]:
            self._prices = np.where(np.isnan(close), self._prices, close)
        for name, own in self._parts.items():
            self._parts[name] = own.extended(getattr(later, name))
        grown = {name: own.filled() for name, own in self._parts.items()}
        return MarketArrays(rates=self._rates, **grown)


def _later_impact(costs: Costs, panel: PricePanel, first: int) -> Float:
    """Return the impact coefficients of the bars from a row on; (0, 0) without impact."""
    if type(costs) is not TransactionCosts:
        return checked_impact(costs, panel)[first:]
    start = Tails(panel, first).bar_before(max(0, first + 1 - costs.impact_window))
    read = panel.without(start)
    found = costs.impact_coefficients(read)[first - start :]
    if found.size:
        check_bound(costs, found, read.without(first - start))
    return found


def interest(times: Timestamps, costs: Costs) -> NDArray[np.float64]:
    """Return (T - 1, 3) what a unit of cash earns, of debt pays, of a short pays until t + 1.

    The yearly rate known at the close of bar t, times the years until t + 1 by the clock: simple
    interest within a step, compounded from step to step. NaN where a rate is not known yet.
    """
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
