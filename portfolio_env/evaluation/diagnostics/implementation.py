"""Implementation metrics of a strategy: time per decision, memory, cost per trade."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from portfolio_env.evaluation.backtest import BacktestResult

ROUNDING = 1e-9  # smallest trade, as a fraction of the account's value


def implementation_metrics(
    results: Mapping[str, BacktestResult],
    seconds: Mapping[str, Sequence[float]],
    parameter_bytes: Mapping[str, int],
) -> pd.DataFrame:
    """Return latency, memory, and trading costs, one row per strategy.

    Args:
        results: Backtests by name.
        seconds: Time of each decision of one account, by name.
        parameter_bytes: Size of the parameters of models that have any, by name.

    Returns:
        Columns ``latency_p50_ms``, ``latency_p99_ms`` (percentiles over the decisions of the
        backtest), ``parameter_bytes``, ``trades_per_year`` (purchases and sales of single assets),
        ``cost_per_trade`` (money, on average) and ``cost_bps`` (of the traded notional); NaN where
        there is nothing to measure.
    """
    rows = {}
    for name, result in results.items():
        notional = np.abs(result.trades[:, 1:])
        notional[notional <= ROUNDING * result.values[:-1, None]] = 0.0
        trades, traded, cost = np.count_nonzero(notional), notional.sum(), result.costs.sum()
        middle, slow = np.nan, np.nan
        if seconds.get(name):
            middle, slow = 1e3 * np.percentile(seconds[name], [50, 99])
        rows[name] = {
            "latency_p50_ms": float(middle),
            "latency_p99_ms": float(slow),
            "parameter_bytes": float(parameter_bytes.get(name, np.nan)),
            "trades_per_year": trades * result.periods_per_year / len(result.costs),
            "cost_per_trade": float(cost / trades) if trades else np.nan,
            "cost_bps": float(1e4 * cost / traded) if traded else np.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("strategy")
