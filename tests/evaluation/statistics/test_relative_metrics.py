"""Measures against a benchmark: independent libraries, constructions with a known answer."""

import empyrical
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import metrics
from portfolio_env.errors import ArgumentError

DAYS = 252
GENERATOR = np.random.default_rng(11)
BENCHMARK = GENERATOR.standard_t(5, 1000) * 0.01 + 0.0002
RETURNS = 0.6 * BENCHMARK + GENERATOR.standard_t(5, 1000) * 0.006 + 0.0003


def test_agrees_with_other_libraries():
    active = RETURNS - BENCHMARK
    for own, other in (
        (metrics.beta(RETURNS, BENCHMARK), empyrical.beta(RETURNS, BENCHMARK)),
        (metrics.correlation(RETURNS, BENCHMARK), np.corrcoef(RETURNS, BENCHMARK)[0, 1]),
        (
            metrics.tracking_error(RETURNS, BENCHMARK, DAYS),
            empyrical.annual_volatility(active),
        ),
        (  # per period there
            metrics.information_ratio(RETURNS, BENCHMARK, DAYS),
            empyrical.excess_sharpe(RETURNS, BENCHMARK) * np.sqrt(DAYS),
        ),
    ):
        assert own == pytest.approx(other, rel=1e-10)


@pytest.mark.parametrize("window", [5, 60, 1000])
def test_rolling_correlation_agrees_with_pandas(window):
    own = metrics.rolling_correlation(RETURNS, BENCHMARK, window)
    other = pd.Series(RETURNS).rolling(window).corr(pd.Series(BENCHMARK))[window - 1 :]
    assert own == pytest.approx(other.to_numpy(), abs=1e-10)


def test_correlation_stability_tells_a_break_from_none():
    generator = np.random.default_rng(3)
    benchmark, noise = generator.normal(0, 0.01, (2, 2000))
    steady = 0.6 * benchmark + 0.8 * noise
    sign = np.where(np.arange(2000) < 1000, 1, -1)
    broken = 0.6 * sign * benchmark + 0.8 * noise
    chance = (1 - 0.36) / np.sqrt(59)
    assert metrics.correlation_stability(steady, benchmark) == pytest.approx(chance, rel=0.3)
    # half the time at +0.6 and half at -0.6
    assert metrics.correlation_stability(broken, benchmark) == pytest.approx(0.6, rel=0.1)
    assert metrics.correlation_stability(2 * benchmark, benchmark) == pytest.approx(0, abs=1e-9)


def test_what_does_not_move_has_no_correlation():
    still = np.zeros(100)
    moving = RETURNS[:100]
    for measure in (metrics.correlation, metrics.correlation_stability):
        assert np.isnan(measure(still, moving))
        assert np.isnan(measure(moving, still))
    assert metrics.beta(still, moving) == 0
    assert np.isnan(metrics.beta(moving, still))
    asleep = np.where(np.arange(100) < 70, 0.001, moving)  # still within the first windows only
    rolling = metrics.rolling_correlation(asleep, moving, 60)
    assert np.isnan(rolling[:11]).all() and not np.isnan(rolling[11:]).any()
    assert np.isnan(metrics.correlation_stability(moving, moving, 100))  # one window has no change


def test_the_benchmark_against_itself():
    values = np.cumprod(1 + BENCHMARK)
    measures = metrics.relative_summary(values, 3 * values, DAYS)
    assert list(measures) == list(metrics.RELATIVE_MEASURES)
    assert measures["beta"] == pytest.approx(1)
    assert measures["correlation"] == pytest.approx(1)
    assert measures["tracking_error"] == pytest.approx(0, abs=1e-12)
    assert measures["correlation_stability"] == pytest.approx(0, abs=1e-7)


@given(st.floats(0.1, 10), st.floats(-0.01, 0.01), st.sampled_from([-1, 1]))
def test_scale_and_shift(scale, shift, sign):
    moved = sign * scale * RETURNS + shift
    assert metrics.beta(moved, BENCHMARK) == pytest.approx(
        sign * scale * metrics.beta(RETURNS, BENCHMARK), rel=1e-9
    )
    assert metrics.correlation(moved, BENCHMARK) == pytest.approx(
        sign * metrics.correlation(RETURNS, BENCHMARK), rel=1e-9
    )
    assert metrics.correlation_stability(moved, BENCHMARK) == pytest.approx(
        metrics.correlation_stability(RETURNS, BENCHMARK), rel=1e-6
    )


def test_lanes_share_a_benchmark_or_have_their_own():
    own = np.stack([RETURNS, -RETURNS, BENCHMARK], axis=1)[:, None]
    others = np.stack([BENCHMARK, RETURNS], axis=1)[..., None]
    for name, measure in metrics.RELATIVE_MEASURES.items():
        shared = measure(own, BENCHMARK, DAYS)
        crossed = measure(own, others, DAYS)
        assert shared.shape == (1, 3) and crossed.shape == (2, 3), name
        for i, j in np.ndindex(2, 3):
            alone = measure(own[:, 0, j], others[:, i, 0], DAYS)
            assert crossed[i, j] == pytest.approx(alone, nan_ok=True, abs=1e-9), name
        assert shared[0] == pytest.approx(crossed[0], nan_ok=True, abs=1e-9), name


@pytest.mark.parametrize("other", [BENCHMARK[:-1], np.zeros((1000, 3))])
def test_refuses_other_periods_and_lanes(other):
    with pytest.raises(ArgumentError, match="cannot be paired"):
        metrics.beta(np.stack([RETURNS, RETURNS], axis=1), other)


@pytest.mark.parametrize("window", [1, 1001])
def test_refuses_windows_without_a_correlation(window):
    with pytest.raises(ArgumentError, match="window"):
        metrics.rolling_correlation(RETURNS, BENCHMARK, window)
