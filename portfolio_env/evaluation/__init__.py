"""Evaluation: backtests through the environment, comparisons, the validation gate, reports."""

from portfolio_env import metrics
from portfolio_env.evaluation import statistics
from portfolio_env.evaluation.attribution.attribution import Attribution
from portfolio_env.evaluation.backtest import BacktestResult, Policy, backtest
from portfolio_env.evaluation.comparison import Comparison, compare
from portfolio_env.evaluation.diagnostics.crises import performance_in, windows_around
from portfolio_env.evaluation.diagnostics.decay import drift_table, rolling_sharpe, signal_decay
from portfolio_env.evaluation.diagnostics.events import event_study, profit_per_event, read_events
from portfolio_env.evaluation.diagnostics.plausibility import PlausibilityCheck, plausibility_check
from portfolio_env.evaluation.diagnostics.regimes import detection_scores, fit_regimes, regime_path
from portfolio_env.evaluation.diagnostics.strategies_under_stress import (
    scenario_of,
    stress_strategies,
)
from portfolio_env.evaluation.diagnostics.stress import stress_table, stress_test, stressed
from portfolio_env.evaluation.evaluation import Evaluation, evaluate, write_evaluation
from portfolio_env.evaluation.gate import (
    GateDecision,
    GatedPolicy,
    ValidationGate,
    gate_decision,
    passes_gate,
)
from portfolio_env.evaluation.orders import allocate, check_account, orders_at_end, predictor_of
from portfolio_env.evaluation.printing import print_summary
from portfolio_env.evaluation.report.inputs import report_inputs
from portfolio_env.evaluation.report.report import write_report
from portfolio_env.evaluation.report.subperiods import seed_sentences
from portfolio_env.evaluation.report.tear_sheet import tear_sheet
from portfolio_env.evaluation.runner import BacktestRuns, Strategy, agent_strategies, run_backtests
from portfolio_env.evaluation.statistics import Interval, growth_difference
from portfolio_env.evaluation.statistics.overfitting import backtest_overfitting
from portfolio_env.evaluation.task import (
    EvaluationFold,
    EvaluationTask,
    Hindsight,
    TrainedAgent,
    commissions_of,
)
from portfolio_env.evaluation.usage_log import earlier_sharpes, log_usage, trials, usage_entry
from portfolio_env.evaluation.walk_forward import (
    Fold,
    combinatorial_folds,
    stitch,
    walk_forward_folds,
)
from portfolio_env.evaluation.writing import write_comparison

__all__ = [
    "Attribution",
    "BacktestResult",
    "BacktestRuns",
    "Comparison",
    "Evaluation",
    "EvaluationFold",
    "EvaluationTask",
    "Fold",
    "GateDecision",
    "GatedPolicy",
    "Hindsight",
    "Interval",
    "PlausibilityCheck",
    "Policy",
    "Strategy",
    "TrainedAgent",
    "ValidationGate",
    "agent_strategies",
    "allocate",
    "backtest",
    "backtest_overfitting",
    "check_account",
    "combinatorial_folds",
    "commissions_of",
    "compare",
    "detection_scores",
    "drift_table",
    "earlier_sharpes",
    "evaluate",
    "event_study",
    "fit_regimes",
    "gate_decision",
    "growth_difference",
    "log_usage",
    "metrics",
    "orders_at_end",
    "passes_gate",
    "performance_in",
    "plausibility_check",
    "predictor_of",
    "print_summary",
    "profit_per_event",
    "read_events",
    "regime_path",
    "report_inputs",
    "rolling_sharpe",
    "run_backtests",
    "scenario_of",
    "seed_sentences",
    "signal_decay",
    "statistics",
    "stitch",
    "stress_strategies",
    "stress_table",
    "stress_test",
    "stressed",
    "tear_sheet",
    "trials",
    "usage_entry",
    "walk_forward_folds",
    "windows_around",
    "write_comparison",
    "write_evaluation",
    "write_report",
]
