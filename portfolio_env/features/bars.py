"""Bars for indicators: fields of a panel, and the series that many indicators share."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from portfolio_env.errors import DataError
from portfolio_env.features.windows import change, lagged
from portfolio_env.market.panel import FloatArray, PricePanel
from portfolio_env.market.timeline import Timestamps
from portfolio_env.names import indices_of
from portfolio_env.resampling import closed_groups, resample


class Bars:
    """Bars of one timeframe, all arrays (T, N); NaN where an asset has no bar.

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
    def returns(self) -> FloatArray:
        """Simple returns over one bar."""
        return change(self.close, 1)

    @cached_property
    def log_returns(self) -> FloatArray:
        """Log returns over one bar."""
        return np.log1p(self.returns)

    @cached_property
    def typical(self) -> FloatArray:
        """Typical price (h + l + c) / 3."""
        return (self.high + self.low + self.close) / 3

    @cached_property
    def true_range(self) -> FloatArray:
        """max(h, c of the bar before) - min(l, c of the bar before) (Wilder 1978)."""
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
        """One-bar return of the reference, the same in every column."""
        if self.reference is None:
            column = across(self.returns)
        else:
            column = self.returns[:, indices_of("asset", [self.reference], self.panel.assets)]
        return np.broadcast_to(column, self.close.shape).copy()


def across(x: FloatArray) -> FloatArray:
    """Return the mean over the assets that have a value, (T, N) -> (T, 1); NaN where none has."""
    known = ~np.isnan(x)
    count = known.sum(axis=1, keepdims=True)
    total = np.where(known, x, 0.0).sum(axis=1, keepdims=True)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
