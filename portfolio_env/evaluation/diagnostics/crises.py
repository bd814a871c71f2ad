"""Performance before, in and after known crises."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from portfolio_env import metrics
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.backtest import BacktestResult, FloatArray
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.timeline import Date, Windows, as_timestamp

EQUITY_BREAKS: Mapping[str, Date] = {
    "Lehman": "2008-09-15",  # files for bankruptcy
    "COVID low": "2020-03-23",  # lowest close of the S&P 500
    "tightening": "2022-01-03",  # last record of the S&P 500 before the rate rises of 2022
}
EQUITY_WINDOWS: Windows = {
    "normal": ("2019-01-01", "2019-12-31"),
    "crisis": ("2020-03-01", "2020-04-30"),
    "thin holidays": ("2019-12-24", "2019-12-26"),
}
# 2021-05-18: notice of three Chinese financial associations. Terra: Liu, Makarov & Schoar (2023),
# "Anatomy of a Run: The Terra Luna Crash", NBER 31160. FTX: Chapter 11 petition of 2022-11-11,
# Delaware; withdrawals were stopped on the 8th.
CRYPTO_BREAKS: Mapping[str, Date] = {
    "COVID crash": "2020-03-12",
    "China": "2021-05-19",
    "Terra": "2022-05-09",
    "FTX": "2022-11-08",
}
# Of daily BTC/USDT bars on Binance, 2017-08 to 2024: 2023 has the lowest volatility of all years
# (44 %), March and April 2020 the highest of two months (155 %), and on the holidays of 2022 the
# money traded was 0.44 of its mean over the 90 days before.
CRYPTO_WINDOWS: Windows = {
    "normal": ("2023-01-01", "2023-12-31"),
    "crisis 2020": ("2020-03-01", "2020-04-30"),
    "crisis 2022": ("2022-05-01", "2022-06-30"),
    "thin holidays": ("2022-12-23", "2022-12-26"),
}

MADE_UP = "synthetic"  # prefix of the source of a generated market

_DAY = np.timedelta64(86_400 * 10**9, "ns")
_COLUMNS = ("first", "last", "bars", "growth", "volatility", "max_drawdown", "recovery")


def known_dates(panel: PricePanel) -> tuple[Windows, Mapping[str, Date]] | None:
    """Return known crisis windows and breaks for a market of this kind.

    A market that trades at weekends is taken for one of cryptocurrencies, any other for one of
    equities. A generated market knows neither.

    Args:
        panel: Bars of the market.
    """
    if str(panel.provenance.get("source", "")).startswith(MADE_UP):
        return None
    if np.is_busday(panel.timestamps.astype("datetime64[D]")).all():
        return EQUITY_WINDOWS, EQUITY_BREAKS
    return CRYPTO_WINDOWS, CRYPTO_BREAKS


def windows_around(
    breaks: Mapping[str, Date], *, before: int = 90, after: int = 250
) -> dict[str, tuple[Date, Date]]:
    """Return the windows before each date, and from it on.

    Args:
        breaks: Dates by name.
        before: Calendar days before the date, at least 1.
        after: Calendar days from the date on, at least 1.

    Returns:
        Two windows per date, "NAME, before" and "NAME, after"; the day itself belongs to the
        second.

    >>> windows_around({"x": "2020-03-12"}, before=2, after=1)["x, before"]
    (np.datetime64('2020-03-10'), np.datetime64('2020-03-11'))
    """
    if min(before, after) < 1:
        raise ArgumentError(f"before={before} and after={after} must be at least 1 day.")
    windows: dict[str, tuple[Date, Date]] = {}
    for name, when in breaks.items():
        day = as_timestamp(when).astype("datetime64[D]")
        windows[f"{name}, before"] = (day - before, day - 1)
        windows[f"{name}, after"] = (day, day + (after - 1))
    return windows


def performance_in(results: Mapping[str, BacktestResult], windows: Windows) -> pd.DataFrame:
    """Return the performance of each account in each window.

    The return of a bar belongs to the window that holds the bar's time, so it begins with the value
    at the bar before.

    Args:
        results: Backtests by name.
        windows: First and last day by name, both included, or exact times.

    Returns:
        A row per window and strategy (both in the index). ``first`` and ``last`` are the bars
        within the record, ``bars`` their number (0 where the record does not reach: the rest is
        NaN then). ``growth`` is the log growth over the window (not per year), ``volatility``
        yearly, ``max_drawdown`` that within the window, and ``recovery`` the bars from its bottom
        until the peak before it within the window is reached again, be it after the window;
        infinite if that is after the record too.

    Raises:
        ArgumentError: If a window ends before it begins.
    """
    rows = {}
    for window, (start, end) in windows.items():
        first, last = as_timestamp(start), as_timestamp(end)
        if last == last.astype("datetime64[D]"):  # a day includes its end
            last = last + _DAY - np.timedelta64(1, "ns")
        if last < first:
            raise ArgumentError(f"window {window!r} ends on {end}, before {start}; swap them.")
        for name, result in results.items():
            rows[window, name] = _performance(result, first, last)
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=list(_COLUMNS))
    frame.index = pd.MultiIndex.from_tuples(list(rows), names=["window", "strategy"])
    return frame


def _performance(
    result: BacktestResult, first: np.datetime64, last: np.datetime64
) -> tuple[pd.Timestamp, pd.Timestamp, int, float, float, float, float]:
    times, values = result.timestamps, result.values
    start = max(0, int(np.searchsorted(times, first)) - 1)
    end = int(np.searchsorted(times, last, side="right"))
    bars = end - 1 - start
    if bars < 1:
        nothing = pd.Timestamp("NaT")
        return nothing, nothing, 0, np.nan, np.nan, np.nan, np.nan
    path, year = values[start:end], result.periods_per_year
    return (
        pd.Timestamp(times[start + 1]),
        pd.Timestamp(times[end - 1]),
        bars,
        float(metrics.annual_log_growth(path, year)) * bars / year,
        float(metrics.volatility(metrics.simple_returns(path), year)),
        float(metrics.max_drawdown(path)),
        _recovery(values, start, end),
    )


def _recovery(values: FloatArray, start: int, end: int) -> float:
    """Return bars from the trough of the largest drawdown in [start, end) to its recovery."""
    bottom = start + int(metrics.drawdowns(values[start:end]).argmax())
    regained = values[bottom:] >= values[start : bottom + 1].max()
    return float(regained.argmax()) if regained.any() else np.inf
