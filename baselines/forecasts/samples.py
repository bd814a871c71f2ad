"""Training samples of forecasters: features and the returns that followed, all in the past."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from portfolio_env.market import Market
from portfolio_env.market.panel import FloatArray


class Forecaster(Protocol):
    """Forecaster protocol: forecasts every asset's simple return per bar."""

    def fit(self, known: Market, first: int) -> None:
        """Fit the forecaster.

        Args:
            known: The market up to the bar of fitting, and nothing later.
            first: The first row to learn from; its own window may begin before it.

        Raises:
            ArgumentError: If there are too few bars.
        """

    def forecast(self, known: Market) -> FloatArray:
        """Return (N,) expected simple returns per bar after the last bar of ``known``."""

    def state(self) -> dict[str, Any]:
        """Return what was learned: a tree of arrays and JSON, see ``agents.tensors``."""

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned, in a forecaster of the same options.

        Raises:
            DataError: If that is not what such a forecaster learns.
        """


@dataclass(frozen=True, eq=False)
class Samples:
    """Features (M, F) of assets (M,), columns of the market, and their returns (M,) per bar."""

    features: NDArray[np.float32]
    assets: NDArray[np.int64]
    returns: FloatArray


def samples(known: Market, first: int, horizon: int) -> Samples:
    """Return the samples whose returns are complete at the last bar of a market.

    The features are of bar s, the return is from close s to close s + ``horizon``, divided by the
    number of bars. The last s is ``horizon`` bars before the last bar, so that nothing later is
    needed. Bars at which an asset cannot be traded, or after which it is delisted within the
    horizon, give no sample of it.

    Args:
        known: The market up to the bar of fitting.
        first: The first s; never one before ``known.warmup``.
        horizon: Bars.
    """
    rows = np.arange(max(first, known.warmup), known.n_bars - horizon)
    returns = (known.close[rows + horizon] / known.close[rows] - 1) / horizon
    counts = known.tradable[rows] & np.isfinite(returns)
    return Samples(known.features[rows][counts], np.nonzero(counts)[1], returns[counts])
