"""Performance decay: rolling Sharpe ratio, drift of ratio and correlation, signal decay."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from portfolio_env import metrics
from portfolio_env.checks import check_number
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.backtest import BacktestResult, FloatArray, realised_returns
from portfolio_env.evaluation.statistics import growth_difference, probabilistic_sharpe_ratio
from portfolio_env.market.panel import PricePanel
from portfolio_env.metrics.arrays import as_pair, as_series

_NORMAL = NormalDist()
_CONFIDENCE = 0.95


class Drift(NamedTuple):
    """Measure in the earlier and in the later part of a record.

    Attributes:
        early: Measure in the earlier part.
        late: Measure in the later part.
        change: Late less early.
        low: Lower bound of the 95 % interval of the change.
        high: Upper bound.
        p_value: Two-sided, of no change.
    """

    early: float
    late: float
    change: float
    low: float
    high: float
    p_value: float


def rolling_sharpe(returns: ArrayLike, periods_per_year: float, window: int = 120) -> FloatArray:
    """Return the yearly Sharpe ratio within each window of so many periods in a row.

    Args:
        returns: (K,) simple returns, in excess of cash where it earns anything.
        periods_per_year: Periods per year.
        window: Periods, from 2 to K. The ratio of W periods is uncertain by about
            ``sqrt(periods_per_year / W)``: much of what moves is chance, see ``sharpe_drift``.

    Returns:
        (K - window + 1,), the first for the first ``window`` periods; NaN where nothing moves.

    Raises:
        ArgumentError: If the window is out of range.
    """
    series = as_series(returns)
    if not 2 <= window <= len(series):
        raise ArgumentError(
            f"window={window!r} must be at least 2 and at most the {len(series)} periods there are."
        )
    windows = np.lib.stride_tricks.sliding_window_view(series, window)
    return metrics.sharpe(windows.T, periods_per_year)


def sharpe_drift(returns: ArrayLike, periods_per_year: float, split: float = 0.5) -> Drift:
    """Return the change of the yearly Sharpe ratio from the earlier to the later part of a record.

    The parts share no period and are taken as independent, each with the standard error of
    ``probabilistic_sharpe_ratio``.

    Args:
        returns: (K,) simple returns, at least 3 in each part.
        periods_per_year: Periods per year.
        split: Share of the periods in the earlier part, in (0, 1).
    """
    parts = _parts(as_series(returns), split)
    found = [probabilistic_sharpe_ratio(part, periods_per_year) for part in parts]
    reach = _NORMAL.inv_cdf((1 + _CONFIDENCE) / 2)
    first, second = ((test.high - test.low) / (2 * reach) for test in found)
    return _drift(found[0].estimate, found[1].estimate, math.hypot(first, second))


def correlation_drift(
    returns: ArrayLike, benchmark_returns: ArrayLike, split: float = 0.5
) -> Drift:
    """Return the change of correlation with a benchmark from a record's earlier to its later part.

    A strategy that comes to move with the market has lost what set it apart. Interval and p-value
    are those of the difference of Fisher's transforms (1915), with error ``sqrt(1 / (K1 - 3) + 1 /
    (K2 - 3))``, periods taken as independent; the bounds are given as correlations, around the
    early one.

    Args:
        returns: (K,) simple returns, at least 4 in each part.
        benchmark_returns: (K,) those of the benchmark.
        split: Share of the periods in the earlier part, in (0, 1).
    """
    own, other = as_pair(returns, benchmark_returns)
    pairs = list(zip(_parts(own, split), _parts(other, split), strict=True))
    if min(len(part) for part, _ in pairs) < 4:
        raise ArgumentError(f"split={split!r} leaves fewer than 4 of {len(own)} periods in a part.")
    early, late = (float(metrics.correlation(*pair)) for pair in pairs)
    error = math.sqrt(sum(1 / (len(part) - 3) for part, _ in pairs))
    with np.errstate(divide="ignore", invalid="ignore"):  # Fisher's z of 1 is infinite
        start, moved = np.arctanh(early), np.arctanh(late) - np.arctanh(early)
        found = _drift(0.0, float(moved), error)
        low, high = (float(np.tanh(start + bound) - early) for bound in (found.low, found.high))
    return Drift(early, late, late - early, low, high, found.p_value)


def drift_table(result: BacktestResult, benchmark: BacktestResult) -> pd.DataFrame:
    """Test whether an account's Sharpe ratio falls, and its correlation with a benchmark rises.

    Args:
        result: The backtest.
        benchmark: Another over the same dates.

    Returns:
        Rows ``sharpe`` and ``correlation``; the columns of ``Drift`` and ``worse``: the change is
        for the worse and significant (5 %).

    Raises:
        ArgumentError: If the backtests ran over different dates.
    """
    if not np.array_equal(result.timestamps, benchmark.timestamps):
        raise ArgumentError("account and benchmark ran over different dates; use one range.")
    drifts = {
        "sharpe": sharpe_drift(result.excess_returns, result.periods_per_year),
        "correlation": correlation_drift(result.returns, benchmark.returns),
    }
    table = pd.DataFrame.from_dict(
        {name: drift._asdict() for name, drift in drifts.items()}, orient="index"
    )
    table["worse"] = [drifts["sharpe"].high < 0, drifts["correlation"].low > 0]
    return table.rename_axis("measure")


def signal_decay(
    result: BacktestResult,
    panel: PricePanel,
    lags: Sequence[int] = (0, 1, 2, 5, 10),
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the growth of weights that are held with a lag of so many bars.

    A signal that is news loses its edge within bars and needs fast execution; one that loses
    nothing is a tilt; an edge at lag 0 that is gone at lag 1 may be a mistake of one bar. Before
    costs and interest, over the steps that all lags have, against equal weight in the same assets.

    Args:
        result: The backtest.
        panel: Prices of the market that it ran on.
        lags: Bars of delay, each at least 0.
        n_resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        By lag: yearly log ``growth``, its ``edge`` over equal weight with the bounds ``low`` and
        ``high`` of a 95 % interval (paired bootstrap, see ``growth_difference``).

    Raises:
        ArgumentError: If the lags leave no step, or delayed weights lose everything.
    """
    latest = max(lags, default=-1)
    if not lags or min(lags) < 0 or latest >= len(result.costs):
        raise ArgumentError(
            f"lags={lags!r} must lie in [0, {len(result.costs) - 1}], the steps less one."
        )
    returns = realised_returns(result, panel)
    end, year = len(returns), result.periods_per_year
    equal = np.log1p(returns[latest:].mean(axis=1))
    rows = {}
    for lag in lags:
        held = result.held[latest - lag : end - lag, 1:]
        earned = (held * returns[latest:]).sum(axis=1)
        if (earned <= -1).any():
            raise ArgumentError(f"weights that are {lag} bars late lose everything in one bar.")
        own = np.log1p(earned)
        edge = growth_difference(own, equal, year, n_resamples=n_resamples, seed=seed)
        rows[lag] = (float(own.mean() * year), edge.estimate, edge.low, edge.high)
    columns = ["growth", "edge", "low", "high"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("lag")


def _parts(series: FloatArray, split: float) -> tuple[FloatArray, FloatArray]:
    check_number("split", split, above=0, below=1)
    first = round(split * len(series))
    return series[:first], series[first:]


def _drift(early: float, late: float, error: float) -> Drift:
    """Return a change with a normal interval."""
    change = late - early
    reach = _NORMAL.inv_cdf((1 + _CONFIDENCE) / 2) * error
    score = abs(change) / error if error > 0 else np.nan
    p_value = 2 * (1 - _NORMAL.cdf(score)) if np.isfinite(score) else np.nan
    return Drift(early, late, change, change - reach, change + reach, float(p_value))
