"""The gate lets chance through as rarely as it says, and skill nearly always."""

import numpy as np
import pytest
from helpers.accounts import account, ruined

import portfolio_env as pe
from baselines import make_baseline
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import (
    GateDecision,
    GatedPolicy,
    backtest,
    gate_decision,
    passes_gate,
)
from portfolio_env.evaluation.comparison import DIFFERENCES
from portfolio_env.evaluation.statistics.bootstrap import resampled
from portfolio_env.evaluation.summary import gate_sentence

DAYS = 252


def test_noise_seldom_passes_and_a_sign_would_let_half_through():
    generator = np.random.default_rng(0)
    gate = signs = 0
    for seed in range(300):
        noise = generator.standard_t(4, 120) * 0.01
        benchmark = generator.normal(0, 0.01, 120)
        decision = passes_gate(benchmark + noise, benchmark, DAYS, n_resamples=250, seed=seed)
        gate += decision.passed
        signs += decision.estimate > 0
    assert gate / 300 <= 0.09  # 5 % and two standard errors of 300 draws
    assert 0.4 <= signs / 300 <= 0.6


def test_skill_passes():
    generator = np.random.default_rng(1)
    passed = sum(
        passes_gate(generator.normal(0.3, 1, 250), np.zeros(250), DAYS, n_resamples=300).passed
        for _ in range(50)
    )
    assert passed >= 45


def test_decision_agrees_with_its_bound_and_p_value():
    generator = np.random.default_rng(2)
    for drift in (-0.3, -0.05, 0.05, 0.12, 0.3):
        policy, benchmark = generator.normal(drift, 1, 200), np.zeros(200)
        decision = passes_gate(policy, benchmark, 1)
        assert decision.passed is (decision.low > 0) is (decision.p_value < 0.05)
        assert decision.estimate == pytest.approx(policy.mean())
        assert 0 < decision.p_value < 1
        stricter = passes_gate(policy, benchmark, 1, confidence=0.99)
        assert stricter.low < decision.low
        assert stricter.p_value == decision.p_value


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_the_bound_is_one_sided(confidence):
    """Of the resampled differences a share of 1 - confidence lies below it, not half of that."""
    policy = np.random.default_rng(5).normal(0.3, 1, 60)
    found = passes_gate(policy, np.zeros(60), DAYS, confidence=confidence, mean_block=3, seed=2)
    means = resampled(
        policy * DAYS, lambda taken: taken.mean(axis=0), mean_block=3, n_resamples=2000, seed=2
    )
    assert (means < found.low).mean() == pytest.approx(1 - confidence, abs=1e-3)
    assert found.p_value == pytest.approx((1 + (means <= 0).sum()) / 2001)
    behind = passes_gate(-policy, np.zeros(60), DAYS, mean_block=3, seed=2)
    assert behind.p_value == pytest.approx(1 - found.p_value)


def test_no_more_growth_than_the_benchmark_is_no_evidence():
    """The mean is exactly 0, most resamples are below it."""
    skewed = np.tile([7.5, -1.0, -1.25, -1.75, -0.5, -1.5, -0.75, -0.75], 2)
    assert 0.51 < passes_gate(skewed, np.zeros(16), DAYS, mean_block=1).p_value < 0.6


def test_a_ruined_policy_does_not_pass():
    policy = np.full(100, 0.1)
    policy[-1] = -np.inf
    decision = passes_gate(policy, np.zeros(100), DAYS)
    assert not decision.passed and decision.low == -np.inf and decision.p_value == 1


def test_equal_accounts_do_not_pass():
    returns = np.random.default_rng(3).normal(size=50)
    assert not passes_gate(returns, returns, DAYS).passed


def test_a_few_periods_do_not_pass():
    """Of noise without costs half would: one period is as likely ahead as behind."""
    for steps in (1, 3, 9):
        decision = passes_gate(np.full(steps, 0.01), np.zeros(steps), DAYS, n_resamples=50)
        assert not decision.passed and decision.low == -np.inf and decision.estimate > 0
    assert passes_gate(np.full(10, 0.01), np.zeros(10), DAYS, n_resamples=50).passed


@pytest.mark.parametrize(
    ("policy", "options", "message"),
    [
        ([0.1, 0.2], {}, "paired"),
        ([0.1, np.nan, 0.2], {}, "not finite"),
        ([0.1, 0.2, 0.3], {"confidence": 0.5}, r"confidence=0.5 .* \(0.5, 1\)"),
        ([0.1, 0.2, 0.3], {"confidence": 0.3}, r"confidence=0.3 .* \(0.5, 1\)"),
        ([0.1, 0.2, 0.3], {"confidence": 1.0}, r"confidence=1.0 .* \(0.5, 1\)"),
        ([0.1, 0.2, 0.3], {"confidence": 1.5}, r"confidence=1.5 .* \(0.5, 1\)"),
        ([0.1, 0.2, 0.3], {"n_resamples": 0}, "n_resamples"),
    ],
)
def test_refusals(policy, options, message):
    with pytest.raises(ArgumentError, match=message):
        passes_gate(policy, [0.0, 0.0, 0.0], DAYS, **options)


# ---- of backtests, and in use


def test_decision_on_two_backtests():
    generator = np.random.default_rng(4)
    market, noise = generator.normal(0, 0.01, 200), generator.normal(0, 0.002, 200)
    policy, benchmark = account(market + noise + 0.002), account(market)
    decision = gate_decision(policy, benchmark)
    assert decision == passes_gate(policy.log_returns, benchmark.log_returns, DAYS)
    assert decision.passed
    assert not gate_decision(account(market - 0.002 + noise), benchmark).passed
    ruin = GateDecision(passed=False, estimate=-np.inf, low=-np.inf, p_value=1.0)
    assert gate_decision(ruined(60), account(np.zeros(200))) == ruin
    with pytest.raises(ArgumentError, match="different dates"):
        gate_decision(account(market, start="2021-01-01"), benchmark)


def test_at_equal_risk_leverage_does_not_pass_and_a_better_account_of_less_risk_does():
    generator = np.random.default_rng(5)
    market = generator.normal(0.0012, 0.01, 1500)
    benchmark, levered = account(market), account(np.log1p(2 * np.expm1(market) - 2e-5))
    better = market + generator.normal(0.0012, 0.003, 1500)
    careful = account(np.log1p(0.5 * np.expm1(better)))
    passed = {judge: gate_decision(levered, benchmark, judge).passed for judge in DIFFERENCES}
    assert passed == {"growth": True, "sharpe": False, "equal_risk": False}
    passed = {judge: gate_decision(careful, benchmark, judge).passed for judge in DIFFERENCES}
    assert passed == {"growth": False, "sharpe": True, "equal_risk": True}
    found = gate_decision(careful, benchmark, "sharpe")
    assert found.low < found.estimate and found.p_value < 0.05
    assert "Sharpe difference +" in gate_sentence("own", found)
    assert not gate_decision(account(np.zeros(1500)), benchmark, "sharpe").passed  # without risk
    assert not gate_decision(account(better[:9]), account(market[:9]), "sharpe").passed
    assert not gate_decision(ruined(60), benchmark, "equal_risk").passed
    with pytest.raises(ArgumentError, match="judge"):
        gate_decision(levered, benchmark, "luck")


OPEN = GateDecision(passed=True, estimate=0.1, low=0.01, p_value=0.01)
CLOSED = GateDecision(passed=False, estimate=0.1, low=-0.01, p_value=0.1)


@pytest.mark.parametrize("decision", [OPEN, CLOSED])
def test_trades_like_the_chosen_one(decision):
    market = pe.load_market("synthetic?assets=3&bars=60")
    options = {"observation": "index", "window": 1, "action": "weights"}

    def run(policy):
        return backtest(policy, pe.PortfolioEnv(market, **options)).values

    policy, fallback = (make_baseline(name, market) for name in ("random", "equal_weight"))
    gated = run(GatedPolicy(policy, fallback, decision))
    assert (gated == run(policy if decision.passed else fallback)).all()
    assert not (gated == run(fallback if decision.passed else policy)).all()


def test_declares_the_actions_of_the_chosen_one():
    class Logits:
        def predict(self, observation, state=None, episode_start=None, deterministic=True):
            return np.zeros((1, 4)), state

    weights = make_baseline("cash", pe.load_market("synthetic?assets=3&bars=60"))
    assert GatedPolicy(Logits(), weights, CLOSED).action == "weights"
    assert not hasattr(GatedPolicy(Logits(), weights, OPEN), "action")
