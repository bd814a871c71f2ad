"""Windows of past prices: the returns that exist, and the assets that have enough of them.

A return leads from one bar of an asset to its next one, however many bars of the market lie
between: a lost close or a holiday is bridged by the return over it, and every move of the price is
in the window once. An asset is left out of a window if it was not listed before it, or has a bar
in less than ``LEAST_SHARE`` of it; two assets are not taken together if they have bars in common in
less than ``LEAST_OVERLAP`` of it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from portfolio_env.market.panel import FloatArray, PricePanel

LEAST_SHARE = 0.5
LEAST_OVERLAP = 0.25
STALE = "its price did not move, or grew at one rate"


def carried(past: PricePanel, lookback: int) -> FloatArray:
    """Return the last ``lookback + 1`` closes, where there is none the one before it.

    Args:
        past: The bars up to the decision, at least ``lookback + 1``.
        lookback: Bars of the window.

    Returns:
        (lookback + 1, N); NaN before an asset's first bar.
    """
    close = np.vstack([last_known(past, lookback + 1)[None], past.close[-lookback:]])
    rows = np.where(np.isnan(close), 0, np.arange(len(close))[:, None])
    return np.take_along_axis(close, np.maximum.accumulate(rows, axis=0), axis=0)


def own_returns(past: PricePanel, lookback: int) -> FloatArray:
    """Return the simple returns of the last ``lookback`` bars, each since the asset's bar before.

    Args:
        past: See ``carried``.
        lookback: Bars of the window.

    Returns:
        (lookback, N); NaN where an asset has no bar, or none before.
    """
    close = carried(past, lookback)
    return np.where(np.isnan(past.close[-lookback:]), np.nan, close[1:] / close[:-1] - 1)


def own_log_returns(past: PricePanel, lookback: int) -> FloatArray:
    """Return the log returns, see ``own_returns``."""
    close = carried(past, lookback)
    return np.where(np.isnan(past.close[-lookback:]), np.nan, np.diff(np.log(close), axis=0))


def bars_of_months(past: PricePanel, months: float, least: int = 1) -> int:
    """Return the bars of so many months by the panel's bars per year, at least ``least``."""
    return max(least, round(months / 12 * past.bars_per_year()))


def completed(returns: FloatArray) -> FloatArray:
    """Return returns with the mean of its own in place of each that an asset lacks, (T, n)."""
    missing = np.isnan(returns)
    if not missing.any():
        return returns
    return np.where(missing, np.nanmean(returns, axis=0), returns)


def share_known(returns: FloatArray) -> FloatArray:
    """Return the share of the bars in which each asset has a return, (n,) in [0, 1].

    Moments of its returns times this share are per bar of the market.
    """
    return (~np.isnan(returns)).mean(axis=0)


def volatilities(returns: FloatArray) -> FloatArray:
    """Return the standard deviations (n,) per bar of the market (ddof 1)."""
    found: FloatArray = returns.std(axis=0, ddof=1)
    gaps = np.isnan(found)
    own = np.nanstd(returns[:, gaps], axis=0, ddof=1)
    found[gaps] = own * np.sqrt(share_known(returns[:, gaps]))
    return found


def last_known(past: PricePanel, bars: int) -> FloatArray:
    """Return each asset's last close up to the first of the last bars, (N,); NaN for none."""
    first = len(past.close) - bars
    last = past.close[first].copy()
    for column in np.flatnonzero(np.isnan(last)):
        known = np.flatnonzero(~np.isnan(past.close[:first, column]))
        if len(known):
            last[column] = past.close[known[-1], column]
    return last


def holdable(past: PricePanel, bars: int) -> NDArray[np.bool_]:
    """Return the assets that can be traded at the last bar and have prices for so many bars.

    Args:
        past: The bars up to the decision.
        bars: Closes needed, the last one included; a window of w returns takes w + 1.

    Returns:
        (N,) bool; none while there are fewer bars. An asset has prices if it has a close at or
        before the first of these bars, and one in half of those after it.
    """
    if len(past.timestamps) < bars:
        return np.zeros(len(past.assets), np.bool_)
    listed = np.isfinite(last_known(past, bars))
    return past.tradable[-1] & listed & (_count(past, bars) >= LEAST_SHARE * (bars - 1))


def why_not(past: PricePanel, bars: int) -> dict[str, str]:
    """Return why assets that can be traded at the last bar are not ``holdable``, by name."""
    if len(past.timestamps) < bars:
        return {"all assets": f"have fewer than {bars} bars"}
    listed = np.isfinite(last_known(past, bars))
    out = past.tradable[-1] & ~holdable(past, bars)
    return named(past, out & ~listed, f"has no price from {bars - 1} bars before") | named(
        past, out & listed, f"has a bar in less than {LEAST_SHARE:.0%} of the last {bars - 1}"
    )


def named(past: PricePanel, columns: NDArray[Any], reason: str) -> dict[str, str]:
    """Return a reason by the names of some columns, given as a mask or as numbers."""
    return dict.fromkeys(np.array(past.assets, object)[columns].tolist(), reason)


def apart(returns: FloatArray) -> NDArray[np.int64]:
    """Return the assets to leave out so that all others have enough bars in common, sorted.

    Of the assets with too little in common with another one, that with the most of these, and of
    equals the one with the fewest bars, goes first.

    Args:
        returns: (lookback, n), NaN where there is no bar.
    """
    known = (~np.isnan(returns)).astype(np.float64)
    common = known.T @ known
    count = np.diag(common).copy()
    short = common < LEAST_OVERLAP * len(returns)
    out: list[int] = []
    while short.any():
        worst = int(np.lexsort((count, -short.sum(axis=0)))[0])
        out.append(worst)
        short[worst], short[:, worst] = False, False
    return np.array(sorted(out), np.int64)


def _count(past: PricePanel, bars: int) -> NDArray[np.int64]:
    """Return the closes of each asset after the first of the last bars, (N,)."""
    found: NDArray[np.int64] = np.isfinite(past.close[len(past.close) - bars + 1 :]).sum(axis=0)
    return found
