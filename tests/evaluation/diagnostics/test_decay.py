"""Decay that was planted is found, chance is not taken for decay, and delays are what they say."""

from dataclasses import replace

import numpy as np
import pytest

import portfolio_env as pe
from baselines import make_baseline
from portfolio_env.data.generators.planted import PlantedMarket
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest, metrics
from portfolio_env.evaluation.diagnostics.decay import (
    correlation_drift,
    drift_table,
    rolling_sharpe,
    sharpe_drift,
    signal_decay,
)


def test_rolling_sharpe_is_the_ratio_of_each_window():
    returns = np.random.default_rng(0).normal(0.001, 0.01, 50)
    found = rolling_sharpe(returns, 252, window=20)
    expected = [float(metrics.sharpe(returns[k : k + 20], 252)) for k in range(31)]
    np.testing.assert_allclose(found, expected)
    for window in (1, 51):
        with pytest.raises(ArgumentError, match=f"window={window}"):
            rolling_sharpe(returns, 252, window=window)


def test_a_falling_ratio_is_found():
    rng = np.random.default_rng(1)
    returns = rng.normal(0, 0.01, 1000) + np.repeat([0.0015, -0.0005], 500)
    drift = sharpe_drift(returns, 252)
    assert drift.early == pytest.approx(float(metrics.sharpe(returns[:500], 252)))
    assert drift.change == pytest.approx(drift.late - drift.early)
    assert drift.high < 0 and drift.p_value < 0.05
    late = sharpe_drift(returns, 252, split=0.25)
    assert late.early == pytest.approx(float(metrics.sharpe(returns[:250], 252)))


def test_chance_is_seldom_taken_for_drift():
    """Of records without any about 5 % are called one, by both tests."""
    rng = np.random.default_rng(2)
    called = np.zeros(2)
    for _ in range(400):
        own, other = rng.standard_t(6, (2, 300)) * 0.01
        own = own + 0.5 * other
        called += [
            sharpe_drift(own, 252).p_value < 0.05,
            correlation_drift(rng.normal(size=300) + other, other).p_value < 0.05,
        ]
    assert (called / 400 == pytest.approx(0.05, abs=0.04)) and (called > 0).all()


def test_a_rising_correlation_is_found():
    rng = np.random.default_rng(3)
    other, noise = rng.normal(0, 0.01, (2, 800))
    own = np.repeat([0.2, 0.9], 400) * other + noise * 0.7
    drift = correlation_drift(own, other)
    for part, value in ((slice(0, 400), drift.early), (slice(400, 800), drift.late)):
        assert value == pytest.approx(np.corrcoef(own[part], other[part])[0, 1])
    assert 0 < drift.low < drift.change < drift.high
    assert drift.p_value < 0.01
    same = correlation_drift(other, other)
    assert (same.early, same.change) == pytest.approx((1, 0)) and np.isnan(same.p_value)
    with pytest.raises(ArgumentError, match="fewer than 4"):
        correlation_drift(own[:8], other[:8], split=0.3)
    with pytest.raises(ArgumentError, match="split=1"):
        correlation_drift(own, other, split=1)


PLANTED = PlantedMarket.draw(seed=4, bars=900, kappa=0.004, phi=0.8)


class Following:
    """Weights by the planted signal, which fades by a fifth a bar."""

    action = "weights"

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        scores = np.exp(3 * PLANTED.signal[observation["t"][:, 0]])
        weights = np.hstack([np.zeros((len(scores), 1)), scores])
        return weights / weights.sum(axis=1, keepdims=True), state


def run(policy, **options):
    options = {"observation": "index", "action": "weights", "window": 1} | options
    return backtest(policy, pe.PortfolioEnv(PLANTED.market, **options))


def test_the_edge_fades_as_the_signal_does():
    result = run(Following())
    table = signal_decay(result, PLANTED.panel, n_resamples=200)
    assert table.index.tolist() == [0, 1, 2, 5, 10]
    assert table["edge"].is_monotonic_decreasing
    assert table.loc[0, "low"] > 0
    assert table.loc[2, "edge"] / table.loc[0, "edge"] == pytest.approx(0.8**2, abs=0.15)
    assert table.loc[10, "low"] < 0 < table.loc[10, "high"]


def test_delays_are_those_of_the_weights():
    """Lag 0 is the account itself; lag 2 is another account that acts two bars late."""
    free = {"costs": {"commission_bps": 0}}
    result = run(Following(), start=10, end=400, **free)
    table = signal_decay(result, PLANTED.panel, [2, 0], n_resamples=10)
    year = result.periods_per_year
    assert table.loc[0, "growth"] == pytest.approx(result.log_returns[2:].mean() * year)

    class Late(Following):
        def predict(self, observation, *args, **options):
            return super().predict({"t": observation["t"] - 2})

    late = run(Late(), start=12, end=400, **free)
    assert table.loc[2, "growth"] == pytest.approx(late.log_returns.mean() * year)
    with pytest.raises(ArgumentError, match="must lie in"):
        signal_decay(result, PLANTED.panel, [400])
    with pytest.raises(ArgumentError, match="must lie in"):
        signal_decay(result, PLANTED.panel, [])


def test_drifts_of_an_account():
    account, benchmark = run(Following()), run(make_baseline("equal_weight", PLANTED.market))
    table = drift_table(account, benchmark)
    assert table.loc["sharpe", "late"] == pytest.approx(
        float(metrics.sharpe(account.returns[450:], 252)), rel=0.05
    )
    assert not table["worse"].any()
    # an account that becomes its benchmark
    half = len(account.costs) // 2
    returns = np.r_[account.returns[:half], benchmark.returns[half:] + account.returns[half:] * 0.1]
    copying = replace(account, values=1e4 * np.cumprod(np.r_[1.0, 1 + returns]))
    worse = drift_table(copying, benchmark)["worse"]
    assert worse.to_dict() == {"sharpe": True, "correlation": True}
    with pytest.raises(ArgumentError, match="different dates"):
        drift_table(account, run(Following(), start=30))
