"""Evaluation: backtests through the environment, performance measures, intervals and plots."""

from portfolio_env.evaluation import metrics, statistics
from portfolio_env.evaluation.backtest import BacktestResult, Policy, backtest
from portfolio_env.evaluation.comparison import compare, verdict, write_comparison
from portfolio_env.evaluation.gate import GateDecision, passes_gate
from portfolio_env.evaluation.statistics import Interval, growth_difference

__all__ = [
    "BacktestResult",
    "GateDecision",
    "Interval",
    "Policy",
    "backtest",
    "compare",
    "growth_difference",
    "metrics",
    "passes_gate",
    "statistics",
    "verdict",
    "write_comparison",
]
