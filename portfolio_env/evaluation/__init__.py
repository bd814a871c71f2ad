"""Evaluation: backtests through the environment, comparisons, the validation gate, reports."""

from portfolio_env import metrics
from portfolio_env.evaluation import statistics
from portfolio_env.evaluation.backtest import BacktestResult, Policy, backtest
from portfolio_env.evaluation.comparison import Comparison, compare, write_comparison
from portfolio_env.evaluation.diagnostics.crises import performance_in, windows_around
from portfolio_env.evaluation.diagnostics.decay import drift_table, signal_decay
from portfolio_env.evaluation.diagnostics.events import event_study, profit_per_event, read_events
from portfolio_env.evaluation.diagnostics.plausibility import RealityCheck, reality_check
from portfolio_env.evaluation.diagnostics.regimes import detection_scores, fit_regimes, regime_path
from portfolio_env.evaluation.diagnostics.stress import stress_table, stress_test, stressed
from portfolio_env.evaluation.gate import GateDecision, GatedPolicy, gate_decision, passes_gate
from portfolio_env.evaluation.statistics import Interval, growth_difference
from portfolio_env.evaluation.statistics.overfitting import backtest_overfitting
from portfolio_env.evaluation.walk_forward import Fold, stitch, walk_forward_folds

__all__ = [
    "BacktestResult",
    "Comparison",
    "Fold",
    "GateDecision",
    "GatedPolicy",
    "Interval",
    "Policy",
    "RealityCheck",
    "backtest",
    "backtest_overfitting",
    "compare",
    "detection_scores",
    "drift_table",
    "event_study",
    "fit_regimes",
    "gate_decision",
    "growth_difference",
    "metrics",
    "passes_gate",
    "performance_in",
    "profit_per_event",
    "read_events",
    "reality_check",
    "regime_path",
    "signal_decay",
    "statistics",
    "stitch",
    "stress_table",
    "stress_test",
    "stressed",
    "walk_forward_folds",
    "windows_around",
    "write_comparison",
]
