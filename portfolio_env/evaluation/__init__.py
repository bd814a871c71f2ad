"""Evaluation: backtests through the environment, performance measures, intervals, reports."""

from portfolio_env.evaluation import metrics, statistics
from portfolio_env.evaluation.backtest import BacktestResult, Policy, backtest
from portfolio_env.evaluation.comparison import Comparison, compare, write_comparison
from portfolio_env.evaluation.gate import GateDecision, GatedPolicy, gate_decision, passes_gate
from portfolio_env.evaluation.statistics import Interval, growth_difference
from portfolio_env.evaluation.walk_forward import Fold, stitch, walk_forward_folds

__all__ = [
    "BacktestResult",
    "Comparison",
    "Fold",
    "GateDecision",
    "GatedPolicy",
    "Interval",
    "Policy",
    "backtest",
    "compare",
    "gate_decision",
    "growth_difference",
    "metrics",
    "passes_gate",
    "statistics",
    "stitch",
    "walk_forward_folds",
    "write_comparison",
]
