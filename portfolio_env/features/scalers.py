"""Scalers: fitted on past rows, one pooled or one per asset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from portfolio_env.errors import ArgumentError
from portfolio_env.market.panel import FloatArray
from portfolio_env.names import unknown

SCALERS = ("robust", "standard", "rank")
_RANKS = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class Scaler:
    """Scaling of the values of one feature.

    Attributes:
        kind: "robust": (x - median) / max(interquartile range, a tenth of the range from the 1st to
            the 99th percentile). The second counts where most values are all but equal, as gaps
            around the clock are, and keeps 98 % of the fitted values within +-10.
            "standard": (x - mean) / standard deviation (ddof 0).
            "rank": 2 F(x) - 1 in [-1, 1], F the distribution function, linear between percentiles;
            a value that fills several percentiles gets their middle.
        numbers: (1, P) or (N, P): the two numbers of the first kinds, 101 percentiles of the last.
            NaN where nothing is known.
    """

    kind: str
    numbers: FloatArray

    @classmethod
    def fit(cls, kind: str, values: FloatArray, per_asset: bool) -> Scaler:
        """Fit on values (T, N), ignoring NaN; an asset without any takes the pooled parameters."""
        pooled = _numbers(kind, values)
        if not per_asset:
            return cls(kind, pooled[None])
        own = np.stack([_numbers(kind, values[:, i]) for i in range(values.shape[1])])
        return cls(kind, np.where(np.isnan(own), pooled, own))

    def __call__(self, values: FloatArray) -> FloatArray:
        """Scale values (T, N); NaN stays NaN."""
        if self.kind != "rank":
            return (values - self.numbers[:, 0]) / self.numbers[:, 1]
        knots = np.broadcast_to(self.numbers, (values.shape[1], len(_RANKS)))
        columns = [_share_below(values[:, i], knots[i]) for i in range(values.shape[1])]
        return 2 * np.stack(columns, axis=1) - 1

    def to_dict(self) -> dict[str, Any]:
        """Return the scaler as JSON-able data, to the last bit."""
        numbers = self.numbers.astype(object)
        numbers[np.isnan(self.numbers)] = None  # JSON has no NaN
        return {"kind": self.kind, "numbers": numbers.tolist()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Scaler:
        """Invert ``to_dict``.

        Raises:
            ArgumentError: If the kind is unknown, or the numbers are not those of the kind.
        """
        kind, numbers = str(plain["kind"]), np.array(plain["numbers"], np.float64)
        if kind not in SCALERS:
            raise unknown("scaler", kind, SCALERS)
        width = len(_RANKS) if kind == "rank" else 2
        if numbers.ndim != 2 or not len(numbers) or numbers.shape[1] != width:
            raise ArgumentError(
                f"a {kind} scaler of shape {numbers.shape} must have {width} numbers in a row, "
                "of all assets or of each."
            )
        if kind != "rank" and (numbers[:, 1] <= 0).any():
            raise ArgumentError(f"a {kind} scaler divides by {numbers[:, 1].min():g}, not above 0.")
        return cls(kind, numbers)


def _numbers(kind: str, values: FloatArray) -> FloatArray:
    """Return the parameters of a scaler of one feature, NaN without any value."""
    known = values[~np.isnan(values)]
    if kind == "rank":
        return np.quantile(known, _RANKS) if len(known) else np.full(len(_RANKS), np.nan)
    if not len(known):
        return np.full(2, np.nan)
    if kind == "robust":
        bottom, low, center, high, top = np.quantile(known, (0.01, 0.25, 0.5, 0.75, 0.99))
        scale = max(high - low, (top - bottom) / 10)
    else:
        center, scale = known.mean(), known.std()
    return np.array([center, scale if scale > 0 else 1.0])


def _share_below(x: FloatArray, percentiles: FloatArray) -> FloatArray:
    """Return F(x) by interpolation, averaged from both sides, which splits ties evenly."""
    from_left = np.interp(x, percentiles, _RANKS)
    from_right = 1 - np.interp(-x, -percentiles[::-1], _RANKS)
    return (from_left + from_right) / 2
