"""Every measure by name, as a function of an account's track record."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.metrics import paths, relative, returns, trading
from portfolio_env.metrics.arrays import FloatArray, as_series


class TrackRecord(NamedTuple):
    """Input of all measures of an account, with lanes behind the time axis.

    Attributes:
        values: (K + 1, ...) account values.
        returns: (K, ...) simple returns per period.
        excess_returns: (K, ...) those less what cash earned, which ratios over risk are of.
        turnovers: (K, ...) traded notional over wealth.
        cost_shares: (K, ...) costs over the value that the period starts with.
        effective_numbers: (K, ...) effective number of risky assets held.
        exposures: (K, ...) share not in cash.
    """

    values: FloatArray
    returns: FloatArray
    excess_returns: FloatArray
    turnovers: FloatArray
    cost_shares: FloatArray
    effective_numbers: FloatArray
    exposures: FloatArray


Measure: TypeAlias = Callable[[TrackRecord, float], FloatArray | NDArray[np.int64]]
RelativeMeasure: TypeAlias = Callable[[FloatArray, FloatArray, float], FloatArray]

MEASURES: Mapping[str, Measure] = {
    "total_return": lambda record, year: paths.total_return(record.values),
    "annual_return": lambda record, year: paths.annual_return(record.values, year),
    "annual_log_growth": lambda record, year: paths.annual_log_growth(record.values, year),
    "volatility": lambda record, year: returns.volatility(record.returns, year),
    "sharpe": lambda record, year: returns.sharpe(record.excess_returns, year),
    "sortino": lambda record, year: returns.sortino(record.excess_returns, year),
    "calmar": lambda record, year: paths.calmar(record.values, year),
    "omega": lambda record, year: returns.omega(record.excess_returns, year),
    "profit_factor": lambda record, year: paths.profit_factor(record.values),
    "max_drawdown": lambda record, year: paths.max_drawdown(record.values),
    "max_drawdown_length": lambda record, year: paths.max_drawdown_length(record.values),
    "recovery_time": lambda record, year: paths.recovery_time(record.values),
    "value_at_risk": lambda record, year: returns.value_at_risk(record.returns),
    "expected_shortfall": lambda record, year: returns.expected_shortfall(record.returns),
    "tail_ratio": lambda record, year: returns.tail_ratio(record.returns),
    "skewness": lambda record, year: returns.skewness(record.returns),
    "kurtosis": lambda record, year: returns.kurtosis(record.returns),
    "hit_ratio": lambda record, year: returns.hit_ratio(record.returns),
    "annual_turnover": lambda record, year: trading.annual_turnover(record.turnovers, year),
    "cost_drag": lambda record, year: trading.growth_lost(record.cost_shares, year),
    "effective_assets": lambda record, year: record.effective_numbers.mean(axis=0),
    "exposure": lambda record, year: record.exposures.mean(axis=0),
}
"""Measures of one account, in the order of a table's columns; see the functions of these names."""

RELATIVE_MEASURES: Mapping[str, RelativeMeasure] = {
    "beta": lambda own, other, year: relative.beta(own, other),
    "correlation": lambda own, other, year: relative.correlation(own, other),
    "correlation_stability": lambda own, other, year: relative.correlation_stability(own, other),
    "tracking_error": relative.tracking_error,
    "information_ratio": relative.information_ratio,
}
"""Measures of an account's returns against a benchmark's."""


def track_record(
    values: ArrayLike,
    held: ArrayLike,
    turnovers: ArrayLike,
    costs: ArrayLike,
    cash_returns: ArrayLike = 0.0,
) -> TrackRecord:
    """Return the track record of an account.

    Args:
        values: (K + 1, ...) account values.
        held: (K, ..., N + 1) weights right after trading, cash first.
        turnovers: (K, ...) traded notional over wealth per period.
        costs: (K, ...) money paid for trading per period.
        cash_returns: Earnings of a unit of cash per period, (K, ...) or one number.
    """
    earned = paths.simple_returns(values)
    return TrackRecord(
        values=np.asarray(values, np.float64),
        returns=earned,
        excess_returns=earned - np.asarray(cash_returns, np.float64),
        turnovers=as_series(turnovers),
        cost_shares=trading.cost_shares(costs, values),
        effective_numbers=trading.effective_numbers(held),
        exposures=trading.exposures(held),
    )


def summary(
    values: ArrayLike,
    held: ArrayLike,
    turnovers: ArrayLike,
    costs: ArrayLike,
    periods_per_year: float,
    cash_returns: ArrayLike = 0.0,
) -> dict[str, float]:
    """Return every measure of one account, by name.

    Args:
        values: (K + 1,) account values.
        held: (K, N + 1) weights right after trading, cash first.
        turnovers: (K,) traded notional over wealth per period.
        costs: (K,) money paid for trading per period.
        periods_per_year: Periods per year.
        cash_returns: Earnings of a unit of cash per period, (K,) or one number: Sharpe, Sortino and
            Omega ratios are of returns in excess of it.

    Returns:
        Measures in the order of a table's columns; see the functions of the same names.
    """
    record = track_record(values, held, turnovers, costs, cash_returns)
    return {name: float(measure(record, periods_per_year)) for name, measure in MEASURES.items()}


def relative_summary(
    values: ArrayLike, benchmark_values: ArrayLike, periods_per_year: float
) -> dict[str, float]:
    """Return every measure of one account against a benchmark, by name.

    Args:
        values: (K + 1,) account values.
        benchmark_values: (K + 1,) values of the benchmark at the same times.
        periods_per_year: Periods per year.
    """
    own, other = paths.simple_returns(values), paths.simple_returns(benchmark_values)
    return {
        name: float(measure(own, other, periods_per_year))
        for name, measure in RELATIVE_MEASURES.items()
    }
