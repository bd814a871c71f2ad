"""Validation gate: agents trade only if they significantly outgrow the benchmark in validation."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.checks import check_choice, check_number
from portfolio_env.env import PortfolioEnv
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.backtest import BacktestResult, Policy, backtest
from portfolio_env.evaluation.comparison import DIFFERENCES, INTERVAL_PERIODS, Judge
from portfolio_env.evaluation.runner import Strategy
from portfolio_env.evaluation.statistics import (
    Interval,
    equal_risk_growth_difference,
    growth_difference,
    sharpe_difference,
)
from portfolio_env.evaluation.task import GATED, EvaluationFold, Range
from portfolio_env.market import Market
from portfolio_env.metrics import annual_log_growth
from portfolio_env.simulation.targets import equal_weights


@dataclass(frozen=True)
class GateDecision:
    """Decision of the validation gate.

    Attributes:
        passed: Whether the lower bound is positive.
        estimate: Difference to the benchmark a year, of what ``judge`` says.
        low: One-sided lower confidence bound; minus infinity for a ruined policy, and where
            periods are too few.
        p_value: One-sided, of the null hypothesis that the policy is not ahead.
        judge: "growth", "sharpe" or "equal_risk", see ``Comparison``.
    """

    passed: bool
    estimate: float
    low: float
    p_value: float
    judge: Judge = "growth"


def passes_gate(
    policy_log_returns: ArrayLike,
    benchmark_log_returns: ArrayLike,
    periods_per_year: float,
    *,
    confidence: float = 0.95,
    mean_block: float | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> GateDecision:
    """Test whether a policy's growth exceeds the benchmark's significantly on validation data.

    Being ahead is not enough: of policies that know nothing half are ahead. Here the lower bound of
    the bootstrap interval (see ``growth_difference``) must be positive, which about 1 - confidence
    of those pass that neither gain nor lose by knowing nothing, and fewer of those that pay costs
    for it. Trying many policies on the same data and keeping one that passes spends this
    promise: ``superiority_test`` is for that.

    Args:
        policy_log_returns: (K,) log returns of the policy on validation data, after costs.
        benchmark_log_returns: (K,) those of the benchmark, equal weight as a rule, over the same
            periods.
        periods_per_year: Periods per year.
        confidence: Confidence level of the one-sided bound, in (0.5, 1).
        mean_block: Mean block length in periods, at least 1; None for the ``optimal_block_length``.
        n_resamples: Number of resamples.
        seed: Seed of the resampling: the same input gives the same decision.

    Returns:
        The decision; a policy with a log return of minus infinity is ruined and does not pass, nor
        does any by fewer than ``INTERVAL_PERIODS`` periods.

    Raises:
        ArgumentError: If the series differ in shape or are otherwise not finite, or an option is
            out of range.
    """
    check_number("confidence", confidence, above=0.5, below=1)
    if np.isneginf(np.asarray(policy_log_returns, np.float64)).any():
        return GateDecision(passed=False, estimate=-np.inf, low=-np.inf, p_value=1.0)
    difference = growth_difference(
        policy_log_returns,
        benchmark_log_returns,
        periods_per_year,
        mean_block=mean_block,
        n_resamples=n_resamples,
        confidence=2 * confidence - 1,
        seed=seed,
    )
    return _decided(difference, len(np.asarray(policy_log_returns)), "growth")


def _decided(difference: Interval, periods: int, judge: Judge) -> GateDecision:
    """Return the decision by a two-sided interval, one side of which is the bound."""
    estimate, low, _, two_sided = difference
    if periods < INTERVAL_PERIODS:
        return GateDecision(False, estimate, low=-np.inf, p_value=np.nan, judge=judge)
    p_value = two_sided / 2 if estimate > 0 else 1 - two_sided / 2
    return GateDecision(low > 0, estimate, low, p_value, judge)


def gate_decision(
    policy: BacktestResult, benchmark: BacktestResult, judge: Judge = "growth"
) -> GateDecision:
    """Return the gate's decision from two backtests over the validation range.

    Args:
        policy: Backtest of the policy; a ruined account does not pass.
        benchmark: Backtest of the benchmark, which must not be ruined.
        judge: "growth" asks ``passes_gate``; "sharpe" and "equal_risk" for a positive lower bound
            of the same confidence of ``sharpe_difference`` and ``equal_risk_growth_difference``,
            which an account without risk does not have.

    Raises:
        ArgumentError: If they ran over different dates, or the judge is none of these.
    """
    check_choice("judge", judge, DIFFERENCES)
    shared = len(policy.timestamps)
    if not np.array_equal(policy.timestamps, benchmark.timestamps[:shared]):
        raise ArgumentError("policy and benchmark ran over different dates; use one range.")
    ruined = shared < len(benchmark.timestamps)
    year, periods = benchmark.periods_per_year, len(benchmark.costs)
    if ruined or judge == "growth" or periods < INTERVAL_PERIODS:
        own = np.full(periods, -np.inf) if ruined else policy.log_returns
        return replace(passes_gate(own, benchmark.log_returns, year), judge=judge)
    if judge == "sharpe":
        excess = policy.excess_returns, benchmark.excess_returns
        return _decided(sharpe_difference(*excess, year, confidence=0.9), periods, judge)
    pair, cash = (policy.returns, benchmark.returns), policy.cash_returns
    difference = equal_risk_growth_difference(*pair, year, cash_returns=cash, confidence=0.9)
    return _decided(difference, periods, judge)


class _EqualWeight:
    """Policy of equal weights in what can be traded, restored at every step."""

    action = "weights"

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[NDArray[Any], Any]:
        """Return weights for a batch of observations."""
        return equal_weights(np.asarray(observation["tradable"], np.bool_)), state


def equal_weight_growth(market: Market, rows: Range, options: Mapping[str, Any]) -> float:
    """Return the yearly log growth of equal weight after costs, as an evaluation has it.

    Args:
        market: Market.
        rows: Range of it, half-open.
        options: Keywords of ``PortfolioEnv``, as an agent takes them.

    Returns:
        Its growth; minus infinity if it was ruined.
    """
    own = EvaluationFold(market, {"validation": rows}, options).baseline_options("validation")
    result = backtest(_EqualWeight(), PortfolioEnv(**own))
    return float(annual_log_growth(result.values, result.periods_per_year))


class GatedPolicy:
    """Trade like a policy that passed the gate, else like a fallback.

    Args:
        policy: Answers ``predict``.
        fallback: Takes its place if it did not pass, equal weight as a rule.
        decision: Decision of the gate, on other data than those of the evaluation.

    Attributes:
        chosen: The one of the two that trades. The environment must be one for it: policies may
            differ in the actions they give and the observations they read.
    """

    def __init__(self, policy: Policy, fallback: Policy, decision: GateDecision) -> None:
        self.decision = decision
        self.chosen = policy if decision.passed else fallback
        if hasattr(self.chosen, "action"):
            self.action = self.chosen.action
        self.carries_on = getattr(self.chosen, "carries_on", False)

    @property
    def left_out(self) -> Mapping[str, Mapping[str, str]]:
        """Return what the chosen policy left out, see ``BacktestResult``."""
        found: Mapping[str, Mapping[str, str]] = getattr(self.chosen, "left_out", None) or {}
        return found

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[NDArray[Any], Any]:
        """Return the actions of the chosen policy, see ``Policy``."""
        return self.chosen.predict(observation, state, episode_start, deterministic)


@dataclass(frozen=True, eq=False)
class ValidationGate:
    """Strategy of an agent with the validation gate, which decides separately in every fold.

    Attributes:
        agent: The agent.
        fallback: Strategy that trades if the agent fails, and the benchmark of the gate.
        judge: Measure that the gate goes by: "growth", "sharpe" or "equal_risk".
        decisions: Decisions so far, by fold.
    """

    agent: Strategy
    fallback: Strategy
    judge: Judge = "growth"
    decisions: dict[EvaluationFold, GateDecision] = field(default_factory=dict)

    def decide(self, fold: EvaluationFold) -> GateDecision:
        """Return the decision in a fold, by backtests on its validation range."""
        if fold not in self.decisions:
            own, benchmark = (
                backtest(
                    strategy.build(fold, "validation"),
                    PortfolioEnv(**strategy.options(fold, "validation")),
                )
                for strategy in (self.agent, self.fallback)
            )
            self.decisions[fold] = gate_decision(own, benchmark, self.judge)
        return self.decisions[fold]

    def build(self, fold: EvaluationFold, split: str) -> GatedPolicy:
        """Return the agent's policy if it passed, else the fallback's."""
        agent, fallback = self.agent.build(fold, split), self.fallback.build(fold, split)
        return GatedPolicy(agent, fallback, self.decide(fold))

    def options(self, fold: EvaluationFold, split: str) -> dict[str, Any]:
        """Return keywords of the environment for the one that trades."""
        return (self.agent if self.decide(fold).passed else self.fallback).options(fold, split)

    @property
    def strategy(self) -> Strategy:
        """Return the strategy to backtest."""
        return Strategy(f"{self.agent.name}{GATED}", self.build, self.options, required=True)
