"""Bars for indicators: fields of a panel, and the series that many indicators share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from portfolio_env.errors import DataError
from portfolio_env.features.own_rows import OwnRows, since_own_bar
from portfolio_env.features.windows import change, lagged
from portfolio_env.market.panel import BAR_FIELDS, FloatArray, PricePanel
from portfolio_env.market.timeline import Timestamps
from portfolio_env.names import indices_of
from portfolio_env.resampling import closed_groups, resample


class Bars:
    """Bars of one timeframe, all arrays (T, N); NaN where an asset has no bar.

    Returns and ranges are taken from one of an asset's own bars to the next, however many rows of
    the common calendar lie between.

    Args:
        panel: The bars.
        reference: The asset that stands for the market in cross-asset indicators; None takes the
            equally weighted mean of all assets.
    """

    def __init__(self, panel: PricePanel, reference: str | None = None) -> None:
        self.panel = panel
        self.reference = reference
        self.close = panel.close
        self.timestamps: Timestamps = panel.timestamps
        self._higher: dict[str, Bars | None] = {}

    def _field(self, name: str) -> FloatArray:
        values: FloatArray | None = getattr(self.panel, name)
        if values is None:
            raise DataError(
                f"the bars have no {name}; declare it among the inputs of the indicator, which is "
                "then left out where it is missing"
            )
        return values

    @property
    def open(self) -> FloatArray:
        """Opening prices."""
        return self._field("open")

    @property
    def high(self) -> FloatArray:
        """Highest prices."""
        return self._field("high")

    @property
    def low(self) -> FloatArray:
        """Lowest prices."""
        return self._field("low")

    @property
    def volume(self) -> FloatArray:
        """Units traded."""
        return self._field("volume")

    def at(self, timeframe: str) -> Bars | None:
        """Return the closed bars of a higher timeframe; None before the first one closes."""
        if timeframe not in self._higher:
            closed = closed_groups(self.timestamps, self.panel.periods_per_year, timeframe)[1]
            some = bool(len(closed)) and closed[-1] >= 0
            upper = Bars(resample(self.panel, timeframe), self.reference) if some else None
            self._higher[timeframe] = upper
        return self._higher[timeframe]

    @cached_property
    def rows(self) -> OwnRows:
        """Rows of each asset's own bars."""
        return OwnRows(np.isfinite(self.close))

    @cached_property
    def own(self) -> Bars:
        """The same bars with those of each asset in line, so that windows count own bars.

        Rows then mean another time for each asset: no row may be compared across assets or with
        ``timestamps``. These bars themselves where no asset has a gap.
        """
        if self.rows.gapless:
            return self
        fields = {name: getattr(self.panel, name) for name in BAR_FIELDS}
        moved: dict[str, Any]
        moved = {k: self.rows.together(x) for k, x in fields.items() if x is not None}
        channels = {k: self.rows.together(x) for k, x in self.panel.exogenous.items()}
        return Bars(replace(self.panel, **moved, exogenous=channels), self.reference)

    def by_asset(
        self, function: Callable[..., FloatArray], w: int, *series: FloatArray
    ) -> FloatArray:
        """Return ``function(*series, w)`` over each asset's own rows of the series, (T, N)."""
        return self.rows.apart(function(*(self.rows.together(x) for x in series), w))

    def by_trade(
        self, function: Callable[[FloatArray, int], FloatArray], w: int, x: FloatArray
    ) -> FloatArray:
        """Return ``function(x, w)`` over the rows in which x is known, as money traded is, (T, N).

        A bar without volume is left out of the windows instead of making them unknown.
        """
        rows = OwnRows(~np.isnan(x))
        return rows.apart(function(rows.together(x), w))

    @cached_property
    def returns(self) -> FloatArray:
        """Simple returns over one own bar."""
        if self.own is not self:
            return self.rows.apart(self.own.returns)
        return change(self.close, 1)

    @cached_property
    def log_returns(self) -> FloatArray:
        """Log returns over one own bar."""
        return np.log1p(self.returns)

    @cached_property
    def typical(self) -> FloatArray:
        """Typical price (h + l + c) / 3."""
        return (self.high + self.low + self.close) / 3

    @cached_property
    def true_range(self) -> FloatArray:
        """max(h, c of the bar before) - min(l, c of the bar before) (Wilder 1978)."""
        if self.own is not self:
            return self.rows.apart(self.own.true_range)
        before = lagged(self.close, 1)
        return np.maximum(self.high, before) - np.minimum(self.low, before)

    @cached_property
    def signed_volume(self) -> FloatArray:
        """Volume with the sign of the bar's price change."""
        return np.sign(self.returns) * self.volume

    @cached_property
    def dollar_volume(self) -> FloatArray:
        """Money traded: typical price x volume; NaN where nothing was."""
        return np.where(self.volume > 0, self.typical * self.volume, np.nan)

    @cached_property
    def market_returns(self) -> FloatArray:
        """Return of the reference in each row, the same in every column.

        0 in a row in which the reference, or every asset, has no return.
        """
        if self.reference is None:
            column, present = across(self.returns), self.rows.present
        else:
            at = indices_of("asset", [self.reference], self.panel.assets)
            column, present = self.returns[:, at], self.rows.present[:, at]
        begun = np.append(False, np.logical_or.accumulate(present.any(axis=1))[:-1])
        column[begun & np.isnan(column[:, 0])] = 0.0
        return np.broadcast_to(column, self.close.shape).copy()

    @cached_property
    def market_since(self) -> FloatArray:
        """Return of the reference since each asset's own bar before; NaN where it has no bar."""
        return since_own_bar(np.ascontiguousarray(self.market_returns[:, 0]), self.rows.present)


def across(x: FloatArray) -> FloatArray:
    """Return the mean over the assets that have a value, (T, N) -> (T, 1); NaN where none has."""
    known = ~np.isnan(x)
    count = known.sum(axis=1, keepdims=True)
    total = np.where(known, x, 0.0).sum(axis=1, keepdims=True)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
