"""Returns of style accounts, built from the same universe by what was known at each decision."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from portfolio_env.evaluation.backtest import BacktestResult, decision_rows, realised_returns
from portfolio_env.evaluation.statistics.bootstrap import FloatArray
from portfolio_env.market.panel import PricePanel

MARKET = "market"
SIDE = 1 / 3  # share of the assets on each side of a style
MONTHS = 12  # in a year; styles are formed again once a month
LEAST_ASSETS = 3
_LEAST_MONTHS = 3  # of the past, before a style is held


class _Past(NamedTuple):
    """Prices and volumes that are known at a decision.

    Attributes:
        close: (L + 1, N) closes up to the decision; NaN where there was none.
        logs: (L, N) log returns.
        volume: (L + 1, N) units traded, or None.
        month: Bars of a month.
    """

    close: FloatArray
    logs: FloatArray
    volume: FloatArray | None
    month: int


def _volatility(past: _Past) -> FloatArray:
    return _enough(past.logs, np.nanstd(past.logs, axis=0))


def _beta(past: _Past) -> FloatArray:
    market = np.nanmean(past.logs, axis=1, keepdims=True)
    known = np.isfinite(past.logs) & np.isfinite(market)
    own, other = np.where(known, past.logs, np.nan), np.where(known, market, np.nan)
    own, other = own - np.nanmean(own, axis=0), other - np.nanmean(other, axis=0)
    return _enough(past.logs, np.nansum(own * other, axis=0) / np.nansum(other**2, axis=0))


def _momentum(past: _Past) -> FloatArray:
    return past.close[-1 - past.month] / past.close[0] - 1


def _reversal(past: _Past) -> FloatArray:
    return 1 - past.close[-1] / past.close[-1 - past.month]


def _volume(past: _Past) -> FloatArray:
    money = np.full(past.close.shape, np.nan) if past.volume is None else past.close * past.volume
    return _enough(money, np.nanmean(money, axis=0))


def _enough(series: FloatArray, signal: FloatArray) -> FloatArray:
    """Return a signal where at least half of what it is made of is known."""
    return np.where(np.isfinite(series).mean(axis=0) >= 0.5, signal, np.nan)


STYLES: dict[str, Callable[[_Past], FloatArray]] = {
    "volatility": _volatility,
    "beta": _beta,
    "momentum": _momentum,
    "reversal": _reversal,
    "volume": _volume,
}
"""Signal of every style: its account holds the third of the assets where it is largest."""


def style_returns(result: BacktestResult, panel: PricePanel) -> pd.DataFrame:
    """Return the returns of style accounts in the periods of a backtest, before costs.

    ``market`` is the mean of the returns of all assets that can be traded, less those of cash. The
    others hold the third of the assets with the largest signal in equal weights, sell the third
    with the smallest short, and choose again once a month, by the past year or what there is of
    it: volatility and beta (to the mean of all) of log returns, momentum from a year to a month
    ago (Jegadeesh & Titman 1993, Journal of Finance 48), the loss of the last month (reversal,
    Jegadeesh 1990, Journal of Finance 45), the money traded (volume). Long less short, as the
    factors of Fama & French (1993), Journal of Financial Economics 33, but of equal weights.

    Args:
        result: Any backtest over the periods.
        panel: The market that it ran on, with bars from before it where there are any.

    Returns:
        (K, styles) simple returns; 0 while a style has under 3 months of past. One without a
        signal in over half of the periods, as of volume where none is known, is left out.

    Raises:
        ArgumentError: If the panel does not hold the bars or the assets of the backtest.
    """
    start, end = decision_rows(result, panel)
    columns = [panel.assets.index(asset) for asset in result.assets]
    returns = realised_returns(result, panel)
    close = pd.DataFrame(panel.close[:end, columns]).ffill().to_numpy()
    with np.errstate(invalid="ignore"):
        logs = np.diff(np.log(panel.close[:end, columns]), axis=0)
    volume = None if panel.volume is None else panel.volume[:end, columns]
    tradable = panel.tradable[start:end, columns]
    count = np.maximum(tradable.sum(axis=1), 1)
    market = (returns * tradable).sum(axis=1) / count - result.cash_returns
    found, held = {MARKET: market}, dict.fromkeys(STYLES, 0)
    found |= {name: np.zeros(end - start) for name in STYLES}
    month = max(1, round(result.periods_per_year / MONTHS))
    for row in range(start, end, month):
        lookback = min(round(result.periods_per_year), row)
        if lookback < _LEAST_MONTHS * month:
            continue
        past = _Past(
            close[row - lookback : row + 1],
            logs[row - lookback : row],
            None if volume is None else volume[row - lookback : row + 1],
            month,
        )
        periods = slice(row - start, min(row + month, end) - start)
        for name, signal in STYLES.items():
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of assets without a past
                sides = _sides(np.where(tradable[row - start], signal(past), np.nan))
            if sides is not None:
                found[name][periods] = returns[periods] @ sides
                held[name] += periods.stop - periods.start
    kept = [MARKET, *(name for name in STYLES if held[name] > (end - start) / 2)]
    return pd.DataFrame({name: found[name] for name in kept})


def _sides(signal: FloatArray) -> NDArray[np.float64] | None:
    """Return (N,) weights of the largest third less the smallest; None with too few assets."""
    known = np.flatnonzero(np.isfinite(signal))
    if len(known) < LEAST_ASSETS:
        return None
    count = max(1, round(SIDE * len(known)))
    order = known[np.argsort(signal[known], kind="stable")]
    weights = np.zeros(len(signal))
    weights[order[-count:]] += 1 / count
    weights[order[:count]] -= 1 / count
    return weights
