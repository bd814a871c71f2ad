"""Rows of a market: of a bar that an option names, of some bars, and of a rebalancing schedule."""

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.timeline import TimeLike, Timestamps, time_text

Every: TypeAlias = int | Literal["week", "month", "quarter", "year"]


def rebalancing_dates(timestamps: Timestamps, every: Every, first: int = 0) -> NDArray[np.bool_]:
    """Return which bars are rebalancing dates; each is known from its own bar and the one before.

    Args:
        timestamps: (T,) sorted.
        every: A number k for the rows divisible by k, or "week", "month", "quarter", "year" for the
            first bar of each; the very first bar is one.
        first: First row that is asked about.

    Returns:
        (T - first,) bool.

    >>> days = np.arange("2024-01-30", "2024-02-03", dtype="datetime64[D]")
    >>> rebalancing_dates(days, "month").tolist()
    [True, False, True, False]
    """
    if isinstance(every, int) and not isinstance(every, bool) and every >= 1:
        return np.arange(first, len(timestamps)) % every == 0
    timestamps = timestamps[max(first - 1, 0) :]
    days = timestamps.astype("datetime64[D]").astype(np.int64)
    months = timestamps.astype("datetime64[M]").astype(np.int64)
    # the first day of the epoch was a Thursday
    calendars = {
        "week": (days + 3) // 7,
        "month": months,
        "quarter": months // 3,
        "year": months // 12,
    }
    if not isinstance(every, str) or every not in calendars:
        raise ArgumentError(
            f"every={every!r} is not a schedule; give a number of bars of 1 or more, or one of "
            f"{', '.join(map(repr, calendars))}."
        )
    due: NDArray[np.bool_] = np.diff(calendars[every], prepend=-(10**9)) != 0
    return due[min(first, 1) :]


def bar_of(market: Market, name: str, when: TimeLike) -> int:
    """Return the row of an option that names a bar.

    Raises:
        ArgumentError: If the market has no such bar.
    """
    row = market.row(when)
    if row == market.n_bars:
        raise ArgumentError(f"{name}={when!r} is the end of the market; give an earlier bar.")
    return row


def rows_of(market: Market, bars: PricePanel) -> tuple[int, int]:
    """Return the first and the last row of bars of a market, which models that read features need.

    Raises:
        ArgumentError: If these are no bars of the market.
    """
    first, last = np.searchsorted(market.timestamps, bars.timestamps[[0, -1]]).tolist()
    rows = slice(first, last + 1)
    if not (
        np.array_equal(market.timestamps[rows], bars.timestamps)
        and np.array_equal(market.close[last], bars.close[-1], equal_nan=True)
    ):
        raise ArgumentError(
            f"the bars from {time_text(bars.timestamps[0])} to {time_text(bars.timestamps[-1])} "
            "are none of the model's market, whose features it reads; build the model on the "
            "market of these bars."
        )
    return first, last
