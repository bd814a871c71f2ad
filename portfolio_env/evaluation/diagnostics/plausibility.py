"""Plausibility checks of a backtest, which look-ahead, illiquidity and other mistakes fail."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from portfolio_env import metrics
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation.backtest import (
    BacktestResult,
    FloatArray,
    decision_rows,
    realised_returns,
)
from portfolio_env.market import Market
from portfolio_env.market.panel import PricePanel
from portfolio_env.names import indices_of
from portfolio_env.simulation.cost_models import Costs
from portfolio_env.simulation.costs import TransactionCosts

_ERRORS = 3.0  # standard errors that a measure of timing must be above its bound


@dataclass(frozen=True)
class Bounds:
    """Limits of plausible values.

    Attributes:
        sharpe: Yearly Sharpe ratio.
        timing: Correlation of trades with the returns right after them. Of forecasts with the
            outcomes, Grinold & Kahn (2000), "Active Portfolio Management", call .05 good and .1
            great.
        foresight: Share of what perfect foresight of every bar would have earned over equal weight.
        participation: Largest trade over the money traded in its bar; 1 to 10 % are common limits.
    """

    sharpe: float = 3.0
    timing: float = 0.1
    foresight: float = 0.2
    participation: float = 0.05


@dataclass(frozen=True, eq=False)
class PlausibilityCheck:
    """Measurements of a backtest, and the checks that it failed.

    Attributes:
        table: Rows by check: ``value``, ``bound``, ``suspicious`` and ``meaning``. A check that
            cannot be made (too few trades, no volumes, no edge) has the value NaN and is not
            suspicious.
    """

    table: pd.DataFrame

    @property
    def suspicious(self) -> tuple[str, ...]:
        """Return the checks that failed.

        A result can pass all and be wrong: what is fitted in hindsight to the test range and hardly
        trades is beyond these checks.
        """
        return tuple(str(name) for name in self.table.index[self.table["suspicious"]])


def plausibility_check(
    result: BacktestResult,
    market: Market | PricePanel,
    *,
    costs: Costs | None = None,
    benchmark: BacktestResult | None = None,
    bounds: Bounds | None = None,
    capital: float | None = None,
    execution: Literal["close", "next_open"] = "close",
) -> PlausibilityCheck:
    """Check a backtest for the signs of common mistakes.

    ``sharpe``: the Sharpe ratio. ``timing`` and ``foresight``: see the functions of these names;
    each must be three standard errors above its bound to be suspicious. ``participation``: see
    ``largest_participation``. ``capacity``: the capital to be managed must be below it.

    Args:
        result: The backtest.
        market: Market of the backtest.
        costs: Costs of the backtest; with an ``impact`` of 0, capacity is computed at 1.
        benchmark: Benchmark of ``capacity``.
        bounds: Limits of plausible values.
        capital: Capital to be managed; that of the backtest by default.
        execution: When trades were filled.
    """
    bounds = bounds or Bounds()
    panel = market.panel if isinstance(market, Market) else market
    sharpe = float(metrics.sharpe(result.excess_returns, result.periods_per_year))
    next_bar, error, last_bar = timing(result, panel)
    share, share_error = foresight(result, panel)
    volumes = panel.volume is not None
    largest = largest_participation(result, panel, execution) if volumes else np.nan
    limit = capacity(result, panel, costs, benchmark=benchmark) if volumes else np.nan
    limit = limit if limit > 0 else np.nan  # a strategy without an edge is not too good
    needed = float(result.values[0]) if capital is None else capital
    rows = {
        "sharpe": (sharpe, bounds.sharpe, sharpe > bounds.sharpe, "yearly Sharpe ratio"),
        "timing": (
            next_bar,
            bounds.timing,
            next_bar - _ERRORS * error > bounds.timing,
            f"correlation of trades with the next bar's returns ({last_bar:.2f} with the last)",
        ),
        "foresight": (
            share,
            bounds.foresight,
            share - _ERRORS * share_error > bounds.foresight,
            "share of what perfect foresight earns over equal weight",
        ),
        "participation": (
            largest,
            bounds.participation,
            largest > bounds.participation,
            "largest trade over the money traded in its bar",
        ),
        "capacity": (limit, needed, limit < needed, "capital at which impact consumes the edge"),
    }
    columns = ["value", "bound", "suspicious", "meaning"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("check")
    return PlausibilityCheck(table.astype({"value": float, "bound": float, "suspicious": bool}))


def timing(result: BacktestResult, panel: PricePanel) -> tuple[float, float, float]:
    """Return correlations of trades with their assets' returns right after and right before.

    Over all assets and all steps with trades, in weights. What is known at a bar can explain a
    correlation with the returns before, also a strong one: rebalancing sells what rose. With the
    returns after it, only a forecast can, or a mistake of one bar.

    Returns:
        The correlation with the next bar's return, its standard error (with steps as independent,
        but not assets), and the correlation with the last bar's return. NaN for fewer than 10 steps
        with trades.
    """
    returns = realised_returns(result, panel)
    traded = np.flatnonzero(result.turnovers[1:] > 0) + 1  # the first has no bar before
    if len(traded) < 10:
        return np.nan, np.nan, np.nan
    changes = (result.held - result.drifted)[traded, 1:]
    after, error = _clustered_correlation(changes, returns[traded])
    before, _ = _clustered_correlation(changes, returns[traded - 1])
    return after, error, before


def _clustered_correlation(first: FloatArray, second: FloatArray) -> tuple[float, float]:
    """Return the correlation of (K, N) series, and its error if only rows are independent."""
    x, y = first - first.mean(), second - second.mean()
    size = np.sqrt(np.square(x).sum() * np.square(y).sum())
    if size == 0:
        return np.nan, np.nan
    parts = (x * y).sum(axis=1) / size
    return float(parts.sum()), float(parts.std(ddof=1) * np.sqrt(len(parts)))


def foresight(result: BacktestResult, panel: PricePanel) -> tuple[float, float]:
    """Return the share of perfect foresight's edge over equal weight, before costs.

    ``sum_k (w_k r_k - mean_i r_ki) / sum_k (max_i r_ki - mean_i r_ki)``, with cash (0) among what
    can be chosen: 1 for an account that holds the best at every bar, 0 for equal weight.

    Returns:
        The share and its standard error, with periods as independent; NaN for fewer than 10.
    """
    returns = realised_returns(result, panel)
    if len(returns) < 10:
        return np.nan, np.nan
    equal = returns.mean(axis=1)
    best = np.maximum(returns.max(axis=1), 0.0) - equal
    earned = (result.held[:, 1:] * returns).sum(axis=1) - equal
    if best.sum() == 0:
        return np.nan, np.nan
    error = earned.std(ddof=1) / np.sqrt(len(earned)) / best.mean()
    return float(earned.sum() / best.sum()), float(error)


def largest_participation(
    result: BacktestResult, panel: PricePanel, execution: Literal["close", "next_open"] = "close"
) -> float:
    """Return the largest trade in an asset over the money traded in it in the bar of the trade.

    Money is close times volume; a trade in a bar without volume is infinite. Trades filled at the
    next open are compared with the bar that opens so.

    Raises:
        DataError: If the market has no volumes.
    """
    if panel.volume is None:
        raise DataError("the market has no volumes: fills cannot be checked.")
    start, end = decision_rows(result, panel)
    columns = indices_of("asset", result.assets, panel.assets)
    later = int(execution == "next_open")
    rows = slice(start + later, end + later)
    money = np.nan_to_num(panel.close * panel.volume)[rows][:, columns]
    trades = np.abs(result.trades[:, 1:])
    with np.errstate(divide="ignore"):
        shares = np.divide(trades, money, out=np.zeros_like(trades), where=trades > 0)
    return float(shares.max())


def capacity(
    result: BacktestResult,
    panel: PricePanel,
    costs: Costs | None = None,
    *,
    benchmark: BacktestResult | None = None,
) -> float:
    """Return the capital at which the market impact of the strategy's trades consumes its edge.

    Impact is that of ``TransactionCosts``: a trade of share q of a capital C costs
    ``b sigma sqrt(q C / D) q`` of it, so impact takes ``A sqrt(C)`` of yearly growth, with A the
    mean over the recorded trades, times the periods of a year. The edge is the yearly log growth
    without impact, less the benchmark's; capacity is ``(edge / A)^2``. To first order: growth
    less A sqrt(C), with a capital that is kept at C and trades that stay as they are.

    Args:
        result: The backtest.
        panel: Bars of the backtest, with volumes.
        costs: Costs of the backtest. Impact it has paid is added to the edge; without any (an
            ``impact`` of 0), the coefficient b is taken to be 1.
        benchmark: Account that the strategy must outgrow, over the same dates; None is cash.

    Returns:
        Money; 0 without an edge, infinite without trades.

    Raises:
        ArgumentError: If the benchmark ran over other dates.
        DataError: If the market has no volumes.
    """
    if benchmark is not None and not np.array_equal(result.timestamps, benchmark.timestamps):
        raise ArgumentError("strategy and benchmark ran over different dates; use one range.")
    costs = costs or TransactionCosts()
    coefficients = costs.impact_coefficients(panel)
    paid = coefficients.size > 0
    if not paid:
        window = costs.impact_window if isinstance(costs, TransactionCosts) else 20
        coefficients = TransactionCosts(impact=1.0, impact_window=window).impact_coefficients(panel)
    start, end = decision_rows(result, panel)
    columns = indices_of("asset", result.assets, panel.assets)
    coefficients = coefficients[start:end][:, columns]
    year = result.periods_per_year
    values = result.values[:-1, None]
    shares = np.abs(result.trades[:, 1:]) / values

    def drag(capital: FloatArray | float) -> float:
        """Return the yearly growth that impact takes from such a capital."""
        return float((coefficients * shares**1.5 * np.sqrt(capital)).sum(axis=1).mean() * year)

    edge = float(metrics.annual_log_growth(result.values, year)) + (drag(values) if paid else 0.0)
    if benchmark is not None:
        edge -= float(metrics.annual_log_growth(benchmark.values, year))
    if edge <= 0:
        return 0.0
    per_root = drag(1.0)
    return (edge / per_root) ** 2 if per_root > 0 else np.inf


def plausibility_sentences(checks: Mapping[str, PlausibilityCheck]) -> list[str]:
    """Return one sentence per check that a strategy failed, with its numbers."""
    return [
        f"{name}: {check} is {row['value']:.4g}, plausible is "
        f"{'at least' if check == 'capacity' else 'at most'} {row['bound']:.4g} ({row['meaning']})"
        for name, found in checks.items()
        for check, row in found.table[found.table["suspicious"]].iterrows()
    ]
