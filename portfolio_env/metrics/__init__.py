"""Performance measures of an account, as pure functions over time series.

Conventions, the same everywhere:

- Time runs along axis 0; any further axes are lanes and stay. ``K`` periods have ``K + 1`` values:
  a measure takes ``returns`` (K, ...) or ``values`` (K + 1, ...), and gives (...), a number a lane.
- ``returns`` are *simple* returns per period; logarithms appear only where the name says so.
- Standard deviations divide by ``K - 1`` (``ddof=1``).
- Yearly figures follow from ``periods_per_year``: means scale with it, deviations with its root.
- Ratios use arithmetic mean excess returns, over what the account's own cash earned in the same
  period; a constant yearly risk-free rate is spread over the periods.
- Losses (drawdown, value at risk, expected shortfall, cost drag) are positive numbers. An account
  that ends with nothing, or (after leverage or shorts) with debt, is ruined.
- A measure that is undefined (a ratio without risk, the deviation of one period) is NaN. Returns
  that differ by rounding, at most 1e-12 of gross returns, are without risk.

``summary`` and ``relative_summary`` give all measures by name.
"""

from portfolio_env.metrics.paths import (
    annual_log_growth,
    annual_return,
    calmar,
    drawdowns,
    max_drawdown,
    max_drawdown_length,
    profit_factor,
    recovery_time,
    simple_returns,
    total_return,
)
from portfolio_env.metrics.periods import (
    CalendarPeriod,
    calendar_returns,
    monthly_table,
    worst_drawdowns,
)
from portfolio_env.metrics.records import (
    MEASURES,
    RELATIVE_MEASURES,
    TrackRecord,
    relative_summary,
    summary,
    track_record,
)
from portfolio_env.metrics.relative import (
    beta,
    correlation,
    correlation_stability,
    information_ratio,
    rolling_correlation,
    tracking_error,
)
from portfolio_env.metrics.returns import (
    TAIL,
    certainty_equivalent,
    expected_shortfall,
    hit_ratio,
    kurtosis,
    omega,
    sharpe,
    skewness,
    sortino,
    standardised_moments,
    tail_ratio,
    value_at_risk,
    volatility,
)
from portfolio_env.metrics.trading import (
    annual_turnover,
    cost_drag,
    effective_assets,
    exposure,
)

__all__ = [
    "MEASURES",
    "RELATIVE_MEASURES",
    "TAIL",
    "CalendarPeriod",
    "TrackRecord",
    "annual_log_growth",
    "annual_return",
    "annual_turnover",
    "beta",
    "calendar_returns",
    "calmar",
    "certainty_equivalent",
    "correlation",
    "correlation_stability",
    "cost_drag",
    "drawdowns",
    "effective_assets",
    "expected_shortfall",
    "exposure",
    "hit_ratio",
    "information_ratio",
    "kurtosis",
    "max_drawdown",
    "max_drawdown_length",
    "monthly_table",
    "omega",
    "profit_factor",
    "recovery_time",
    "relative_summary",
    "rolling_correlation",
    "sharpe",
    "simple_returns",
    "skewness",
    "sortino",
    "standardised_moments",
    "summary",
    "tail_ratio",
    "total_return",
    "track_record",
    "tracking_error",
    "value_at_risk",
    "volatility",
    "worst_drawdowns",
]
