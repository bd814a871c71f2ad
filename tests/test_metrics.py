"""Performance measures against an independent library, hand computations and their properties."""

import empyrical
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import growth_difference, metrics
from portfolio_env.evaluation.statistics import stationary_bootstrap_indices

DAYS = 252
RETURNS = np.random.default_rng(7).standard_t(5, 1000) * 0.01 + 0.0004
VALUES = 100 * np.cumprod(np.r_[1, 1 + RETURNS])

some_returns = arrays(np.float64, st.integers(2, 60), elements=st.floats(-0.5, 0.5, width=32))


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (metrics.total_return(VALUES), empyrical.cum_returns_final(RETURNS)),
        (metrics.annual_return(VALUES, DAYS), empyrical.annual_return(RETURNS)),
        (metrics.volatility(RETURNS, DAYS), empyrical.annual_volatility(RETURNS)),
        (metrics.sharpe(RETURNS, DAYS), empyrical.sharpe_ratio(RETURNS)),
        (
            metrics.sharpe(RETURNS, DAYS, risk_free_annual=0.0252),
            empyrical.sharpe_ratio(RETURNS, risk_free=0.0001),
        ),
        (metrics.sortino(RETURNS, DAYS), empyrical.sortino_ratio(RETURNS)),
        (
            metrics.sortino(RETURNS, DAYS, risk_free_annual=0.0252),
            empyrical.sortino_ratio(RETURNS, required_return=0.0001),
        ),
        (metrics.calmar(VALUES, DAYS), empyrical.calmar_ratio(RETURNS)),
        (metrics.max_drawdown(VALUES), -empyrical.max_drawdown(RETURNS)),
        (metrics.value_at_risk(RETURNS), -empyrical.value_at_risk(RETURNS)),
        (metrics.expected_shortfall(RETURNS), -empyrical.conditional_value_at_risk(RETURNS)),
    ],
)
def test_agrees_with_empyrical(own, other):
    assert own == pytest.approx(other, rel=1e-12)


def test_hand_computed_account():
    values = [100.0, 110.0, 99.0, 99.0, 120.0]
    held = [[0, 0.5, 0.5], [0.5, 0.5, 0.0], [1, 0, 0], [0, 1.5, -0.5]]
    measures = metrics.summary(values, held, [1, 0.5, 0.5, 2], [1.0, 0, 0, 9.9], 4)
    assert measures["total_return"] == pytest.approx(0.2)
    assert measures["annual_return"] == pytest.approx(0.2)
    assert measures["annual_log_growth"] == pytest.approx(np.log(1.2))
    assert measures["max_drawdown"] == pytest.approx(0.1)
    assert measures["max_drawdown_length"] == 2
    assert measures["hit_ratio"] == 0.5
    assert measures["annual_turnover"] == 4.0
    assert measures["cost_drag"] == pytest.approx(-np.log(0.99) - np.log(0.9))
    assert measures["effective_assets"] == pytest.approx((2 + 1 + 0 + 4 / 2.5) / 4)


def test_expected_shortfall_counts_the_last_period_in_part():
    returns = -np.arange(30.0) / 100  # the worst 5 % are one and a half periods
    assert metrics.expected_shortfall(returns) == pytest.approx((0.29 + 0.5 * 0.28) / 1.5)


def test_measures_without_risk_are_undefined_not_zero():
    flat = np.full(5, 100.0)
    returns = metrics.simple_returns(flat)
    for ratio in (
        metrics.sharpe(returns, DAYS),
        metrics.sortino(returns, DAYS),
        metrics.calmar(flat, DAYS),
        metrics.volatility(returns[:1], DAYS),
        metrics.sharpe(
            np.full(9, 0.1), DAYS
        ),  # equal numbers have no deviation, not a rounding error
    ):
        assert np.isnan(ratio)
    assert metrics.max_drawdown_length(flat) == 0


def test_ruin():
    values = [100.0, 50.0, 0.0]
    assert metrics.annual_log_growth(values, DAYS) == -np.inf
    assert metrics.total_return(values) == -1
    assert metrics.annual_return(values, DAYS) == -1
    assert metrics.max_drawdown(values) == 1
    debt = [100.0, 50.0, -20.0]  # what a short position or leverage can leave
    assert metrics.annual_log_growth(debt, DAYS) == -np.inf
    assert metrics.total_return(debt) == pytest.approx(-1.2)
    assert metrics.max_drawdown(debt) == pytest.approx(1.2)


@given(some_returns, st.floats(0.01, 1e6))
def test_scaling_money_changes_nothing(returns, scale):
    values = np.cumprod(np.r_[1, 1 + returns])
    held, turnovers = np.ones((len(returns), 3)) / 3, np.abs(returns)
    costs = 0.001 * values[:-1]
    before = metrics.summary(values, held, turnovers, costs, DAYS)
    after = metrics.summary(scale * values, held, turnovers, scale * costs, DAYS)
    # A path that returns to its peak may miss it by rounding, and equal returns may differ by it.
    exact = before.keys() - {"max_drawdown_length", "recovery_time", "hit_ratio", "skewness"}
    for name in exact - {
        "sharpe",
        "sortino",
        "calmar",
        "omega",
        "profit_factor",
        "tail_ratio",
        "kurtosis",
    }:
        assert after[name] == pytest.approx(before[name], rel=1e-9, abs=1e-9, nan_ok=True), name


@given(some_returns)
def test_bounds(returns):
    values = np.cumprod(np.r_[1, 1 + returns])
    falls = metrics.drawdowns(values)
    assert ((falls >= 0) & (falls < 1)).all()
    assert metrics.max_drawdown_length(values) <= len(returns)
    assert 0 <= metrics.hit_ratio(returns) <= 1
    assert metrics.expected_shortfall(returns) >= metrics.value_at_risk(returns) - 1e-12


def test_lanes_are_independent():
    returns = np.random.default_rng(0).normal(0, 0.02, (80, 4))
    values = np.vstack([np.ones(4), np.cumprod(1 + returns, axis=0)])
    for lane in range(4):
        for measure in (
            metrics.total_return, metrics.max_drawdown, metrics.max_drawdown_length,
        ):  # fmt: skip
            assert measure(values)[lane] == measure(values[:, lane])
        for measure in (metrics.sharpe, metrics.sortino, metrics.volatility):
            assert measure(returns, DAYS)[lane] == pytest.approx(measure(returns[:, lane], DAYS))
        for measure in (metrics.value_at_risk, metrics.expected_shortfall, metrics.hit_ratio):
            assert measure(returns)[lane] == pytest.approx(measure(returns[:, lane]))


@pytest.mark.parametrize("values", [3.0, [1.0], [-1.0, 1.0], [0.0, 1.0]])
def test_bad_paths(values):
    with pytest.raises(ArgumentError, match="values"):
        metrics.total_return(values)


def test_no_periods():
    with pytest.raises(ArgumentError, match="no period"):
        metrics.hit_ratio([])


# ---- intervals


def test_bootstrap_indices_are_blocks_of_the_asked_length():
    n, mean_block = 20_000, 10
    indices = stationary_bootstrap_indices(n, mean_block, np.random.default_rng(0))
    assert indices.min() >= 0 and indices.max() < n
    continues = indices[1:] == (indices[:-1] + 1) % n
    assert (~continues).mean() == pytest.approx(1 / mean_block, rel=0.1)
    starts = indices[1:][~continues]
    assert starts.mean() == pytest.approx(n / 2, rel=0.05)


def test_equal_accounts_do_not_differ():
    assert growth_difference(RETURNS, RETURNS, DAYS) == (0, 0, 0, 1)


def test_interval_is_paired_and_repeatable():
    common = np.random.default_rng(1).normal(0, 0.1, 500)
    interval = growth_difference(common + 0.001, common, DAYS)
    assert interval == growth_difference(common + 0.001, common, DAYS)
    assert interval.estimate == pytest.approx(0.252)
    assert interval.high - interval.low < 1e-12  # what both accounts share cancels
    opposite = growth_difference(common, common + 0.001, DAYS)
    assert opposite.estimate == pytest.approx(-interval.estimate)


def test_single_period_blocks_give_the_textbook_standard_error():
    noise = np.random.default_rng(2).normal(0, 0.01, 400)
    interval = growth_difference(noise, np.zeros(400), 1, mean_block=1, resamples=4000)
    error = noise.std() / np.sqrt(400)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_coverage_under_autocorrelation():
    """Single periods pretend to know more than they do; blocks do not."""
    generator = np.random.default_rng(3)
    hits = {1: 0, 20: 0}
    for _ in range(150):
        shocks = generator.normal(size=400)
        series = np.convolve(shocks, np.ones(5) / 5, "valid")
        for mean_block in hits:
            interval = growth_difference(
                series, np.zeros_like(series), 1, mean_block=mean_block, resamples=200
            )
            hits[mean_block] += interval.low <= 0 <= interval.high
    assert hits[1] / 150 < 0.75
    assert 0.86 <= hits[20] / 150 <= 0.99


@pytest.mark.parametrize(
    ("series", "options", "message"),
    [
        (([0.1], [0.1, 0.2]), {}, "paired"),
        (([], []), {}, "paired"),
        (([-np.inf, 0.0], [0.0, 0.0]), {}, "not finite"),
        (([0.0, 0.1], [0.0, 0.0]), {"mean_block": 0.5}, "mean_block"),
        (([0.0, 0.1], [0.0, 0.0]), {"resamples": 0}, "resamples"),
        (([0.0, 0.1], [0.0, 0.0]), {"confidence": 1.0}, "confidence"),
    ],
)
def test_bad_comparisons(series, options, message):
    with pytest.raises(ArgumentError, match=message):
        growth_difference(*series, DAYS, **options)
