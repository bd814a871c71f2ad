"""Event studies: abnormal returns around dated events, and a strategy's profit from them.

MacKinlay (1997), "Event Studies in Economics and Finance", Journal of Economic Literature 35.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from portfolio_env.data.tables.files import read_table
from portfolio_env.data.tables.origin import Origin
from portfolio_env.data.tables.times import read_times
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.backtest import BacktestResult, FloatArray
from portfolio_env.market.panel import PricePanel
from portfolio_env.names import unknown

ALL_ASSETS = "*"
REACTED = 0.9
"""Share of the whole reaction after which prices count as having reacted."""

_SIGNIFICANT = 1.96  # standard errors; a smaller reaction has no time


def read_events(source: str | os.PathLike[str] | pd.DataFrame) -> pd.DataFrame:
    """Read dated events.

    Args:
        source: A CSV or Parquet file, or a frame, with columns date (when it became known; UTC
            where there is a time), type (any text) and, where an event is about one asset, symbol;
            without one or as "*" it is about all assets.

    Returns:
        Columns date (datetime64[ns]), type and symbol, in order of date; rows that say the same
        once.

    Raises:
        DataError: For an unusable file, with the row and the fix.
    """
    if isinstance(source, pd.DataFrame):
        table, origin = source, Origin("the frame of events")
    else:
        table, origin, _ = read_table(source)
    lacking = [name for name in ("date", "type") if name not in table.columns]
    if lacking:
        origin.fail(f"lacks the columns {lacking}; it has {list(table.columns)}: add or rename")
    if not len(table):
        origin.fail("holds no events; give at least one")
    types = table["type"]
    nameless = types.isna().to_numpy() | (types == "").to_numpy()
    origin.refuse(nameless, "there is no type", "say what kind of event it is")
    symbols = table["symbol"] if "symbol" in table.columns else pd.Series(None, table.index)
    events = pd.DataFrame(
        {
            "date": read_times(table["date"], origin),
            "type": types.astype(str).to_numpy(),
            "symbol": symbols.astype(object).fillna(ALL_ASSETS).astype(str).to_numpy(),
        }
    ).replace({"symbol": {"": ALL_ASSETS}})
    order = ["date", "type", "symbol"]
    return events.sort_values(order, ignore_index=True).drop_duplicates(ignore_index=True)


class _Event(NamedTuple):
    date: pd.Timestamp
    type: str
    symbols: tuple[str, ...]
    row: int


_Studied: TypeAlias = tuple[_Event, FloatArray, FloatArray]
_ABOUT = ["date", "type", "symbols"]


@dataclass(frozen=True, eq=False)
class EventStudy:
    """Abnormal returns around events.

    Attributes:
        path: Rows by type and offset in bars (0: the first bar that knows of the event): mean
            ``abnormal_return`` with ``standard_error``, and its sum from the first offset on,
            ``cumulative`` with ``cumulative_error``.
        summary: Rows by type: number of ``events``, ``cumulative`` abnormal return over all offsets
            with ``standard_error`` and ``t``, and ``reaction_time``: the first offset at which the
            sum from 0 on has reached 90 % of its last value, NaN if that is not significantly
            different from 0 (5 %).
        events: One row per event studied: date, type, symbols, bar, its own ``cumulative`` and
            ``standard_error``.
        left_out: Events that could not be studied, with the reason.
    """

    path: pd.DataFrame
    summary: pd.DataFrame
    events: pd.DataFrame
    left_out: pd.DataFrame


def event_study(
    panel: PricePanel,
    events: pd.DataFrame,
    *,
    model: Literal["market", "mean"] = "market",
    before: int = 5,
    after: int = 10,
    estimation: int = 120,
) -> EventStudy:
    """Compute abnormal returns: simple returns less those expected from the estimation window.

    Expected is ``a + b R_m``, where R_m is the mean return of all assets the event is not about
    (market model), or the mean return (events about all assets, and ``model="mean"``), fitted by
    least squares to the ``estimation`` bars before the window. Abnormal returns of one event have
    the covariance ``s^2 (I + X* (X'X)^-1 X*')``: noise, and what the estimate is unsure of
    (MacKinlay's equation 8; Campbell, Lo & MacKinlay 1997, ch. 4.4). Means over events take the
    events as independent (equation 13), so events of one type at one bar, which are not, count as
    one event about all their assets together. Windows of one type that overlap make the errors too
    small.

    Args:
        panel: Prices.
        events: See ``read_events``; symbols are assets of the panel.
        model: Model of expected returns.
        before: Bars of the window before the event, at least 0.
        after: Bars after the first that knows of it, at least 0.
        estimation: Bars before the window, at least 10.

    Raises:
        ArgumentError: For unknown symbols or models, or numbers out of range.
    """
    if model not in ("market", "mean"):
        raise unknown("model", model, ("market", "mean"))
    if min(before, after) < 0 or estimation < 10:
        raise ArgumentError(
            f"before={before} and after={after} must be at least 0, estimation={estimation} 10."
        )
    returns = np.full(panel.close.shape, np.nan)
    returns[1:] = panel.close[1:] / panel.close[:-1] - 1
    width = before + 1 + after
    studied, left_out = [], []
    for event in _placed(events, panel):
        rows = slice(event.row - before - estimation, event.row + after + 1)
        whole = ALL_ASSETS in event.symbols
        about = np.array([whole or asset in event.symbols for asset in panel.assets])
        if rows.start < 1 or rows.stop > len(returns):
            reason = f"needs {estimation} bars and its window within the prices"
            left_out.append((event, reason))
            continue
        known = np.isfinite(returns[rows]).all(axis=0)
        if not (about & known).any():
            left_out.append((event, "prices are missing in its window or before"))
            continue
        own = returns[rows][:, about & known].mean(axis=1)
        others = known & ~about
        regressors = [np.ones(len(own))]
        if model == "market" and others.any():
            regressors.append(returns[rows][:, others].mean(axis=1))
        studied.append((event, *_abnormal(own, np.column_stack(regressors), width)))
    return EventStudy(
        *_means(studied, before),
        events=pd.DataFrame(
            [
                (*event[:3], panel.timestamps[event.row], found.sum(), np.sqrt(covariance.sum()))
                for event, found, covariance in studied
            ],
            columns=[*_ABOUT, "bar", "cumulative", "standard_error"],
        ),
        left_out=pd.DataFrame(
            [(*event[:3], reason) for event, reason in left_out],
            columns=[*_ABOUT, "reason"],
        ),
    )


def _abnormal(own: FloatArray, regressors: FloatArray, width: int) -> tuple[FloatArray, FloatArray]:
    """Return abnormal returns (width,) of the last rows and their covariance, by earlier rows.

    A market that does not move is left out of the fit by the pseudo-inverse.
    """
    past, now = regressors[:-width], regressors[-width:]
    inverse = np.linalg.pinv(past.T @ past, hermitian=True)
    coefficients = inverse @ (past.T @ own[:-width])
    residuals = own[:-width] - past @ coefficients
    variance = residuals @ residuals / (len(past) - past.shape[1])
    return own[-width:] - now @ coefficients, variance * (np.eye(width) + now @ inverse @ now.T)


def _means(studied: list[_Studied], before: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return path and summary over the events of each type."""
    paths, summary = {}, {}
    for kind in sorted({event.type for event, _, _ in studied}):
        own = [(found, covariance) for event, found, covariance in studied if event.type == kind]
        mean = np.mean([found for found, _ in own], axis=0)
        covariance = np.sum([spread for _, spread in own], axis=0) / len(own) ** 2
        sums = np.tril(np.ones((len(mean), len(mean))))
        errors = np.sqrt(np.diag(sums @ covariance @ sums.T))
        columns = (mean, np.sqrt(np.diag(covariance)), mean.cumsum(), errors)
        for k, numbers in enumerate(zip(*columns, strict=True)):
            paths[kind, k - before] = numbers
        later = covariance[before:, before:]
        reaction = _reaction_time(mean[before:], float(np.sqrt(later.sum())))
        total, error = mean.sum(), errors[-1]
        summary[kind] = (len(own), total, error, total / error, reaction)
    names = ["abnormal_return", "standard_error", "cumulative", "cumulative_error"]
    path = pd.DataFrame(list(paths.values()), columns=names)
    path.index = pd.MultiIndex.from_tuples(list(paths), names=["type", "offset"])
    names = ["events", "cumulative", "standard_error", "t", "reaction_time"]
    return path, pd.DataFrame.from_dict(summary, orient="index", columns=names).rename_axis("type")


def _reaction_time(abnormal: FloatArray, error: float) -> float:
    """Return bars from the event until most of the reaction (sum of the abnormal returns) is in."""
    reaction = abnormal.cumsum()
    if abs(reaction[-1]) <= _SIGNIFICANT * error:
        return np.nan
    return float((reaction / reaction[-1] >= REACTED).argmax())


def profit_per_event(
    result: BacktestResult,
    events: pd.DataFrame,
    *,
    after: int = 5,
    benchmark: BacktestResult | None = None,
) -> pd.DataFrame:
    """Return an account's profit in the bars from each event on.

    The window begins with the bar in which the event becomes known: an account that only reacts
    earns nothing extraordinary in it, one that was positioned does.

    Args:
        result: The backtest.
        events: See ``read_events``. Those about assets that the account does not trade, and those
            whose window the record does not hold, are left out.
        after: Bars after the first, at least 0.
        benchmark: Another backtest over the same dates; without it the account's own growth in the
            bars outside all windows is what is usual.

    Returns:
        By type: number of ``events``, mean ``profit`` in money, mean log ``growth`` over the
        window, mean ``excess`` over what is usual with ``standard_error`` and ``t`` (events taken
        as independent), and ``hit_ratio``, the share of events with a positive excess.

    Raises:
        ArgumentError: If ``after`` is negative, or the benchmark ran over other dates.
    """
    if after < 0:
        raise ArgumentError(f"after={after} must be at least 0.")
    if benchmark is not None and not np.array_equal(result.timestamps, benchmark.timestamps):
        raise ArgumentError("account and benchmark ran over different dates; use one range.")
    times, growth = result.timestamps, result.log_returns  # growth[k] ends at times[k + 1]
    windows = {}
    for kind, date, symbol in events[["type", "date", "symbol"]].itertuples(index=False):
        row = int(np.searchsorted(times, np.datetime64(date, "ns")))
        if (symbol == ALL_ASSETS or symbol in result.assets) and 1 <= row < len(times) - after:
            windows[kind, row] = slice(row - 1, row + after)
    inside = np.zeros(len(growth), np.bool_)
    for window in windows.values():
        inside[window] = True
    usual = np.full(len(growth), growth[~inside].mean() if (~inside).any() else 0.0)
    if benchmark is not None:
        usual = benchmark.log_returns
    rows = {
        (kind, row): (
            result.values[window.stop] - result.values[window.start],
            growth[window].sum(),
            (growth - usual)[window].sum(),
        )
        for (kind, row), window in windows.items()
    }
    return _profits(rows)


def _profits(rows: Mapping[tuple[str, int], tuple[float, float, float]]) -> pd.DataFrame:
    table = {}
    for kind in sorted({kind for kind, _ in rows}):
        profit, growth, excess = np.array([v for (own, _), v in rows.items() if own == kind]).T
        error = excess.std(ddof=1) / np.sqrt(len(excess)) if len(excess) > 1 else np.nan
        table[kind] = {
            "events": len(excess),
            "profit": profit.mean(),
            "growth": growth.mean(),
            "excess": excess.mean(),
            "standard_error": error,
            "t": excess.mean() / error if error else np.nan,
            "hit_ratio": (excess > 0).mean(),
        }
    names = ["events", "profit", "growth", "excess", "standard_error", "t", "hit_ratio"]
    return pd.DataFrame.from_dict(table, orient="index", columns=names).rename_axis("type")


def _placed(events: pd.DataFrame, panel: PricePanel) -> list[_Event]:
    """Place events at the first bar at or after their date; merge those of one type and bar."""
    for symbol in events["symbol"].unique():
        if symbol not in (ALL_ASSETS, *panel.assets):
            raise unknown(f"asset of an event (or {ALL_ASSETS!r})", symbol, panel.assets)
    rows = np.searchsorted(panel.timestamps, events["date"].to_numpy("datetime64[ns]"))
    together: dict[tuple[int, str], list[tuple[pd.Timestamp, str]]] = {}
    columns = (rows.tolist(), events["type"], events["date"], events["symbol"])
    for row, kind, date, symbol in zip(*columns, strict=True):
        together.setdefault((row, kind), []).append((date, symbol))
    return [
        _Event(own[0][0], kind, tuple(sorted({symbol for _, symbol in own})), row)
        for (row, kind), own in sorted(together.items())
    ]
