"""Returns by calendar period, and the deepest drawdowns with their dates."""

from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from portfolio_env.checks import check_choice, check_integer
from portfolio_env.errors import ArgumentError
from portfolio_env.metrics.arrays import FloatArray, as_path
from portfolio_env.metrics.paths import drawdowns

CalendarPeriod: TypeAlias = Literal["week", "month", "quarter", "year"]
_FREQUENCIES = {"week": "W-SUN", "month": "M", "quarter": "Q-DEC", "year": "Y-DEC"}


def calendar_returns(
    values: ArrayLike, timestamps: ArrayLike, period: CalendarPeriod = "month"
) -> pd.Series:
    """Return the compound returns of an account in each calendar period.

    A bar belongs to the period that holds its timestamp, in UTC. The first and the last period
    may be cut short by the ends of the record. A period without a bar has no row; its return is
    part of the next one's.

    Args:
        values: (K + 1,) account values.
        timestamps: (K + 1,) increasing times of these values.
        period: "week" (Monday to Sunday), "month", "quarter" or "year".

    Returns:
        Simple returns, indexed by a ``PeriodIndex``: the value at the last bar of the period over
        the value at the last bar before it, minus 1.

    Raises:
        ArgumentError: If the lengths differ, the times do not increase, or the period is unknown.

    >>> days = np.array(["2024-01-30", "2024-01-31", "2024-02-01", "2024-02-29"], "datetime64[D]")
    >>> calendar_returns([100.0, 110.0, 99.0, 121.0], days).round(12).tolist()
    [0.1, 0.1]
    """
    path, times = _dated(values, timestamps)
    check_choice("period", period, _FREQUENCIES)
    periods = times[1:].to_period(_FREQUENCIES[period])
    last = pd.Series(path[1:], periods).groupby(level=0).last()
    before = np.r_[path[0], last.to_numpy()[:-1]]
    with np.errstate(invalid="ignore", divide="ignore"):
        return pd.Series(last.to_numpy() / before - 1, last.index, name="return")


def monthly_table(values: ArrayLike, timestamps: ArrayLike) -> pd.DataFrame:
    """Return monthly returns: a row per year, a column per month, and the year's return.

    Args:
        values: (K + 1,) account values.
        timestamps: (K + 1,) increasing times of these values.

    Returns:
        Columns 1 to 12 and "year"; NaN for months without a bar.

    Raises:
        ArgumentError: If the lengths differ, or the times do not increase.
    """
    months = calendar_returns(values, timestamps, "month")
    index = pd.PeriodIndex(months.index)
    table = months.set_axis([index.year, index.month]).unstack()
    table = table.reindex(columns=pd.RangeIndex(1, 13)).astype(object).astype(float)
    years = calendar_returns(values, timestamps, "year")
    table["year"] = years.set_axis(pd.PeriodIndex(years.index).year)
    return table.rename_axis(index="year", columns=None)


def worst_drawdowns(values: ArrayLike, timestamps: ArrayLike, count: int = 5) -> pd.DataFrame:
    """Return the deepest drawdowns of an account, deepest first.

    A drawdown lasts from a highest value so far to the first bar that reaches it again.

    Args:
        values: (K + 1,) account values.
        timestamps: (K + 1,) increasing times of these values.
        count: Most rows, at least 1.

    Returns:
        Columns "peak", "trough" and "recovery" (times; NaT where it is not over), "depth" (the
        fraction lost, positive), "bars" and "days" (from the peak to the recovery, or to the end).

    Raises:
        ArgumentError: If the lengths differ, the times do not increase, or ``count`` is below 1.

    >>> days = np.arange("2024-01-01", "2024-01-06", dtype="datetime64[D]")
    >>> found = worst_drawdowns([100.0, 90.0, 100.0, 120.0, 60.0], days)
    >>> found["depth"].round(12).tolist(), found["bars"].tolist()
    ([0.5, 0.1], [1, 2])
    """
    path, times = _dated(values, timestamps)
    check_integer("count", count)
    losses = drawdowns(path)
    under = np.r_[False, losses > 0, False]
    starts = np.flatnonzero(~under[:-1] & under[1:])  # first bar under water
    ends = np.flatnonzero(under[:-1] & ~under[1:])  # first bar after it
    rows = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        trough = start + int(losses[start:end].argmax())
        over = end < len(path)
        close = end if over else len(path) - 1
        rows.append(
            {
                "peak": times[start - 1],
                "trough": times[trough],
                "recovery": times[end] if over else pd.NaT,
                "depth": float(losses[trough]),
                "bars": close - start + 1,
                "days": (times[close] - times[start - 1]) / pd.Timedelta(days=1),
            }
        )
    columns = ["peak", "trough", "recovery", "depth", "bars", "days"]
    found = pd.DataFrame(rows, columns=columns)
    found = found.astype({"peak": times.dtype, "trough": times.dtype, "recovery": times.dtype})
    found = found.sort_values("depth", ascending=False, kind="stable").head(count)
    return found.reset_index(drop=True)


def _dated(values: ArrayLike, timestamps: ArrayLike) -> tuple[FloatArray, pd.DatetimeIndex]:
    """Return the values and their times, checked."""
    path = as_path(values)
    times = pd.DatetimeIndex(np.asarray(timestamps, dtype="datetime64[ns]"))
    if path.ndim != 1 or len(path) != len(times):
        raise ArgumentError(
            f"values of shape {path.shape} and {len(times)} timestamps do not match; "
            "give one time for each value of one account."
        )
    if not (times.is_monotonic_increasing and times.is_unique):
        raise ArgumentError("timestamps must increase; sort the record by time.")
    return path, times
