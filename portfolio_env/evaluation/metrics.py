"""Performance measures of an account, as pure functions over time series.

Conventions, the same everywhere:

- Time runs along axis 0; any further axes are lanes and stay. ``K`` periods have ``K + 1`` values.
- ``returns`` are *simple* returns per period; logarithms appear only where the name says so.
- Standard deviations divide by ``K - 1`` (``ddof=1``).
- Yearly figures follow from ``periods_per_year``: means scale with it, deviations with its root.
- Ratios use arithmetic mean excess returns; a yearly risk-free rate is spread over the periods.
- Losses (drawdown, value at risk, expected shortfall, cost drag) are positive numbers. An account
  that ends with nothing, or (after leverage or shorts) with debt, is ruined.
- A measure that is undefined (a ratio without risk, the deviation of one period) is NaN.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.errors import ArgumentError

FloatArray: TypeAlias = NDArray[np.float64]

TAIL = 0.05  # the worst share of the periods that value at risk and expected shortfall describe


def simple_returns(values: ArrayLike) -> FloatArray:
    """Simple returns per period of a path of values.

    Args:
        values: (K + 1, ...) account values, K >= 1.

    Returns:
        (K, ...) returns.

    Raises:
        ArgumentError: If there are fewer than two values, or the first is not positive.

    >>> simple_returns([100.0, 110.0, 99.0]).round(12).tolist()
    [0.1, -0.1]
    """
    path = _path(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return path[1:] / path[:-1] - 1


def total_return(values: ArrayLike) -> FloatArray:
    """Last value over first value, minus 1."""
    path = _path(values)
    return path[-1] / path[0] - 1


def annual_log_growth(values: ArrayLike, periods_per_year: float) -> FloatArray:
    """Yearly growth ``log(V_K / V_0) * periods_per_year / K``; minus infinity after ruin."""
    path = _path(values)
    with np.errstate(divide="ignore"):
        growth = np.log(np.maximum(path[-1] / path[0], 0))
    return growth * periods_per_year / (len(path) - 1)


def annual_return(values: ArrayLike, periods_per_year: float) -> FloatArray:
    """Compound yearly return ``(V_K / V_0) ** (periods_per_year / K) - 1``."""
    return np.expm1(annual_log_growth(values, periods_per_year))


def volatility(returns: ArrayLike, periods_per_year: float) -> FloatArray:
    """Yearly standard deviation of the returns."""
    return _deviation(_series(returns)) * np.sqrt(periods_per_year)


def sharpe(
    returns: ArrayLike, periods_per_year: float, risk_free_annual: float = 0.0
) -> FloatArray:
    """Yearly Sharpe ratio: mean excess return over its standard deviation.

    Sharpe (1994), "The Sharpe Ratio", Journal of Portfolio Management 21.
    """
    excess = _series(returns) - risk_free_annual / periods_per_year
    return _ratio(excess.mean(axis=0), _deviation(excess)) * np.sqrt(periods_per_year)


def sortino(
    returns: ArrayLike, periods_per_year: float, risk_free_annual: float = 0.0
) -> FloatArray:
    """Yearly Sortino ratio: mean excess return over the root mean square of the negative ones.

    The mean square runs over all periods, with the risk-free rate as the target (Sortino & Price
    1994, "Performance Measurement in a Downside Risk Framework", Journal of Investing 3).
    """
    excess = _series(returns) - risk_free_annual / periods_per_year
    downside = np.sqrt(np.square(np.minimum(excess, 0)).mean(axis=0))
    return _ratio(excess.mean(axis=0), downside) * np.sqrt(periods_per_year)


def drawdowns(values: ArrayLike) -> FloatArray:
    """Fraction lost since the highest value so far, at each of the K + 1 points; above 1 in debt.

    >>> drawdowns([100.0, 120.0, 90.0]).tolist()
    [0.0, 0.0, 0.25]
    """
    path = _path(values)
    return 1 - path / np.maximum.accumulate(path, axis=0)


def max_drawdown(values: ArrayLike) -> FloatArray:
    """Largest fraction lost from a peak."""
    return drawdowns(values).max(axis=0)


def max_drawdown_length(values: ArrayLike) -> NDArray[np.int64]:
    """Longest time under water: most periods in a row that end below an earlier value.

    >>> int(max_drawdown_length([1.0, 0.9, 0.95, 1.0, 0.5]))
    2
    """
    under = drawdowns(values) > 0
    steps = np.arange(len(under)).reshape((-1,) + (1,) * (under.ndim - 1))
    last_peak = np.maximum.accumulate(np.where(under, 0, steps), axis=0)
    return np.asarray((steps - last_peak).max(axis=0), dtype=np.int64)


def calmar(values: ArrayLike, periods_per_year: float) -> FloatArray:
    """Compound yearly return over the largest drawdown (Young 1991, "Calmar Ratio", Futures 20)."""
    return _ratio(annual_return(values, periods_per_year), max_drawdown(values))


def value_at_risk(returns: ArrayLike) -> FloatArray:
    """Historical 95 % value at risk per period: minus the 5 % quantile, linearly interpolated."""
    return 0.0 - np.quantile(_series(returns), TAIL, axis=0)  # no negative zero


def expected_shortfall(returns: ArrayLike) -> FloatArray:
    """Historical 95 % expected shortfall per period: mean loss of the worst 5 % of the periods.

    The period that the 5 % mark falls into counts in part (Acerbi & Tasche 2002, "On the Coherence
    of Expected Shortfall"), so the measure never falls below the value at risk.
    """
    ordered = np.sort(_series(returns), axis=0)
    share = np.clip(TAIL * len(ordered) - np.arange(len(ordered)), 0, 1)
    return 0.0 - np.tensordot(share, ordered, axes=(0, 0)) / share.sum()


def hit_ratio(returns: ArrayLike) -> FloatArray:
    """Share of periods with a positive return."""
    return np.asarray((_series(returns) > 0).mean(axis=0), dtype=np.float64)


def annual_turnover(turnovers: ArrayLike, periods_per_year: float) -> FloatArray:
    """Traded notional per year over wealth (buying everything and selling it again is 2)."""
    return _series(turnovers).mean(axis=0) * periods_per_year


def cost_drag(costs: ArrayLike, values: ArrayLike, periods_per_year: float) -> FloatArray:
    """Yearly growth lost to trading costs: ``-mean log(1 - cost / value) * periods_per_year``.

    Args:
        costs: (K, ...) money paid for trading in each period.
        values: (K + 1, ...) account values; a cost is set against the value its period starts with.
        periods_per_year: Periods per year.
    """
    share = _ratio(_series(costs), _path(values)[:-1])
    return 0.0 - np.log1p(-share).mean(axis=0) * periods_per_year


def effective_assets(weights: ArrayLike) -> FloatArray:
    """Mean effective number of risky assets: inverse Herfindahl index of their shares.

    Args:
        weights: (K, ..., N + 1) held weights, cash first. Shorts count by size, all cash as 0.

    >>> float(effective_assets([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]))
    1.0
    """
    size = np.abs(_series(weights)[..., 1:])
    gross, squares = size.sum(axis=-1), np.square(size).sum(axis=-1)
    held = squares > 0
    return (gross**2 / np.where(held, squares, 1)).mean(axis=0)


def summary(
    values: ArrayLike,
    held: ArrayLike,
    turnovers: ArrayLike,
    costs: ArrayLike,
    periods_per_year: float,
) -> dict[str, float]:
    """Every measure of one account, by name.

    Args:
        values: (K + 1,) account values.
        held: (K, N + 1) weights right after trading, cash first.
        turnovers: (K,) traded notional over wealth per period.
        costs: (K,) money paid for trading per period.
        periods_per_year: Periods per year.

    Returns:
        Measures in the order of a table's columns; see the functions of the same names.
    """
    returns = simple_returns(values)
    measures = {
        "total_return": total_return(values),
        "annual_return": annual_return(values, periods_per_year),
        "annual_log_growth": annual_log_growth(values, periods_per_year),
        "volatility": volatility(returns, periods_per_year),
        "sharpe": sharpe(returns, periods_per_year),
        "sortino": sortino(returns, periods_per_year),
        "calmar": calmar(values, periods_per_year),
        "max_drawdown": max_drawdown(values),
        "max_drawdown_length": max_drawdown_length(values),
        "value_at_risk": value_at_risk(returns),
        "expected_shortfall": expected_shortfall(returns),
        "hit_ratio": hit_ratio(returns),
        "annual_turnover": annual_turnover(turnovers, periods_per_year),
        "cost_drag": cost_drag(costs, values, periods_per_year),
        "effective_assets": effective_assets(held),
    }
    return {name: float(measure) for name, measure in measures.items()}


def _path(values: ArrayLike) -> FloatArray:
    path = np.asarray(values, dtype=np.float64)
    if path.ndim == 0 or len(path) < 2:
        raise ArgumentError(
            f"values has shape {path.shape}; at least two points in time are needed."
        )
    if not (path[0] > 0).all():
        raise ArgumentError(f"values starts with {path[0].min():g}; an account starts above 0.")
    return path


def _series(periods: ArrayLike) -> FloatArray:
    series = np.asarray(periods, dtype=np.float64)
    if series.ndim == 0 or len(series) < 1:
        raise ArgumentError(f"shape {series.shape} holds no period; at least one is needed.")
    return series


def _deviation(series: FloatArray) -> FloatArray:
    if len(series) < 2:
        return np.full(series.shape[1:], np.nan)
    deviation = series.std(axis=0, ddof=1)
    # The deviation of equal numbers is rounding noise, not risk.
    return np.where(np.ptp(series, axis=0) == 0, 0.0, deviation)


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    defined = denominator != 0
    return np.where(defined, numerator, np.nan) / np.where(defined, denominator, 1)
