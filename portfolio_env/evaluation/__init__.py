"""Evaluation: backtests through the environment, performance measures, intervals and plots."""

from portfolio_env.evaluation import metrics
from portfolio_env.evaluation.backtest import BacktestResult, Policy, backtest
from portfolio_env.evaluation.comparison import compare, verdict, write_comparison
from portfolio_env.evaluation.statistics import Interval, growth_difference

__all__ = [
    "BacktestResult",
    "Interval",
    "Policy",
    "backtest",
    "compare",
    "growth_difference",
    "metrics",
    "verdict",
    "write_comparison",
]
