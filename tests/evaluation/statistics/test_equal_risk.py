"""Differences at equal risk: the bootstrap step by step, invariances, and what intervals cover."""

import math

import numpy as np
import pytest
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.statistics import equal_risk_growth_difference, sharpe_difference
from portfolio_env.evaluation.statistics.equal_risk import _circular_sums, _long_run_variance
from portfolio_env.metrics import sharpe

DAYS = 252
FEW = {"n_resamples": 199}


def pair(seed, n=200, mean=(0.0006, 0.0003), together=0.6):
    """Returns of two accounts that move together, with fat tails."""
    generator = np.random.default_rng(seed)
    common, *own = generator.standard_t(5, size=(3, n)) / 100
    return [
        m + together * common + (1 - together) * each for m, each in zip(mean, own, strict=True)
    ]


def test_the_difference_is_that_of_the_ratios():
    one, other = pair(0)
    found = sharpe_difference(one, other, DAYS, **FEW)
    assert found.estimate == pytest.approx(float(sharpe(one, DAYS) - sharpe(other, DAYS)))
    assert found.low < found.estimate < found.high
    assert found.high - found.estimate == pytest.approx(found.estimate - found.low)
    again = sharpe_difference(other, one, DAYS, **FEW)
    assert again.estimate == pytest.approx(-found.estimate)


@pytest.mark.parametrize("block", [1, 7, 25])
def test_distances_of_resamples_are_those_of_the_paper_step_by_step(block):
    """Ledoit & Wolf (2008), section 3.2.2: four moments, and their covariance by blocks."""
    one, other = pair(1, n=60)
    n, count = len(one), 50
    found = sharpe_difference(one, other, 1.0, block=block, n_resamples=count, seed=3)
    generator = np.random.default_rng(3)
    starts = generator.integers(n, size=(n // block + 1, count))
    data = np.column_stack([one / one.std(), other / other.std()])
    difference = np.subtract(*(data.mean(axis=0) / data.std(axis=0)))
    scores = []
    for r in range(count):
        rows = [(start + k) % n for start in starts[:, r] for k in range(block)][:n]
        taken = data[rows]
        (m1, m2), (s1, s2) = taken.mean(axis=0), (taken**2).mean(axis=0)
        v1, v2 = s1 - m1**2, s2 - m2**2
        gradient = [s1 / v1**1.5, -s2 / v2**1.5, -m1 / (2 * v1**1.5), m2 / (2 * v2**1.5)]
        y = np.column_stack([taken - [m1, m2], taken**2 - [s1, s2]])
        covariance = np.zeros((4, 4))
        for j in range(n // block):
            zeta = y[j * block : (j + 1) * block].sum(axis=0) / math.sqrt(block)
            covariance += np.outer(zeta, zeta) / (n // block)
        error = math.sqrt(np.array(gradient) @ covariance @ gradient / n)
        scores.append(abs(m1 / v1**0.5 - m2 / v2**0.5 - difference) / error)
    moments = np.column_stack([data, data**2])
    m1, m2, s1, s2 = moments.mean(axis=0)
    v1, v2 = s1 - m1**2, s2 - m2**2
    gradient = np.array([s1 / v1**1.5, -s2 / v2**1.5, -m1 / (2 * v1**1.5), m2 / (2 * v2**1.5)])
    error = math.sqrt(_long_run_variance(moments - moments.mean(axis=0), gradient) / n)
    reach = np.quantile(scores, 0.95, method="closest_observation") * error * math.sqrt((n - 1) / n)
    assert found.high - found.estimate == pytest.approx(reach)
    assert found.p_value == (1 + sum(np.array(scores) >= abs(difference) / error)) / (1 + count)


def test_the_long_run_variance_is_that_of_a_known_process():
    """Of a mean of an AR(1) with coefficient a: the variance over (1 - a)^2."""
    generator, gradient = np.random.default_rng(2), np.array([1.0, 0.0, 0.0, 0.0])
    for slope in (0.0, 0.5, -0.4):
        series = generator.normal(size=(40_000, 4))
        for t in range(1, len(series)):
            series[t] += slope * series[t - 1]
        found = _long_run_variance(series - series.mean(axis=0), gradient)
        assert found == pytest.approx(1 / (1 - slope) ** 2, rel=0.08)


@given(st.integers(1, 30), st.integers(0, 29))
@examples(30)
def test_circular_sums_are_sums_of_neighbours(n, length):
    length = min(length, n)
    series = np.random.default_rng(n).normal(size=(n, 4))
    expected = [sum((series[(t + k) % n] for k in range(length)), np.zeros(4)) for t in range(n)]
    assert np.allclose(_circular_sums(series, length).T, expected)


@given(st.integers(0, 999), st.floats(0.1, 4.0), st.floats(0.1, 4.0))
@examples(20)
def test_leverage_changes_nothing(seed, first, second):
    """Of both accounts the Sharpe difference; of the account alone growth at equal volatility."""
    one, other = pair(seed, n=60)
    plain = sharpe_difference(one, other, DAYS, **FEW)
    both = sharpe_difference(first * one, second * other, DAYS, **FEW)
    assert both == pytest.approx(plain, rel=1e-6, abs=1e-6)
    cash = np.full(60, 1e-4)
    excess = one - cash
    plain = equal_risk_growth_difference(one, other, DAYS, cash_returns=cash, **FEW)
    levered = first * excess + cash
    found = equal_risk_growth_difference(levered, other, DAYS, cash_returns=cash, **FEW)
    assert found == pytest.approx(plain, rel=1e-9, abs=1e-12)


def test_a_multiple_of_the_benchmark_is_neither_better_nor_worse():
    one, _ = pair(3)
    for factor in (0.5, 1.0, 3.0):
        found = sharpe_difference(factor * one, one, DAYS, **FEW)
        assert found[:3] == (0, 0, 0) and math.isnan(found.p_value)
        found = equal_risk_growth_difference(factor * one, one, DAYS, **FEW)
        assert found[:3] == pytest.approx((0, 0, 0), abs=1e-12)


def test_growth_at_equal_risk_is_that_of_the_mixed_account():
    one, other = pair(4)
    cash, factor = 2e-4, np.std(other) / np.std(one)
    mixed = factor * (one - cash) + cash
    expected = DAYS * (np.log1p(mixed) - np.log1p(other)).mean()
    found = equal_risk_growth_difference(one, other, DAYS, cash_returns=cash, **FEW)
    assert found.estimate == pytest.approx(expected)
    assert found.low < found.estimate < found.high


def test_nothing_is_said_without_risk_nor_of_a_leverage_that_ruins():
    one, _ = pair(5)
    for own, other in ((np.full(200, 1e-3), one), (one, np.full(200, 1e-3))):
        assert np.isnan(sharpe_difference(own, other, DAYS, **FEW)).all()
        assert np.isnan(equal_risk_growth_difference(own, other, DAYS, **FEW)).all()
    crash, wild = np.full(200, 1e-3), np.tile([-0.5, 0.8], 100)
    crash[50] = -0.1
    assert np.isnan(equal_risk_growth_difference(crash, wild, DAYS, **FEW)).all()


@pytest.mark.parametrize("function", [sharpe_difference, equal_risk_growth_difference])
def test_bad_input_is_refused(function):
    one, other = pair(6, n=20)
    for bad in (one[:9], one[:19], np.where(np.arange(20) == 3, np.nan, one), one[:, None]):
        with pytest.raises(ArgumentError):
            function(bad, other, DAYS, **FEW)
    for option in ({"n_resamples": 0}, {"confidence": 1.0}):
        with pytest.raises(ArgumentError, match=next(iter(option))):
            function(one, other, DAYS, **option)
    with pytest.raises(ArgumentError, match="block"):
        sharpe_difference(one, other, DAYS, block=11)


@pytest.mark.slow
@pytest.mark.parametrize("signal", [0.0, 0.0008])
def test_intervals_cover_what_they_promise(signal):
    """The true difference of two accounts, one of them with more volatility, that is clustered."""
    draws, covered, held = 400, 0, 0
    truth = math.sqrt(DAYS) * (signal / 0.01)
    for seed in range(draws):
        generator = np.random.default_rng(seed)
        noise = generator.normal(size=(500, 2)) @ np.linalg.cholesky([[1, 0.7], [0.7, 1]]).T
        wave = np.exp(0.5 * np.sin(np.arange(500) / 40))[:, None]
        wave /= np.sqrt(np.square(wave).mean())
        one, other = (0.01 * noise * wave).T
        found = sharpe_difference(2 * (one + signal), other, DAYS, n_resamples=399, seed=seed)
        covered += found.low <= truth <= found.high
        held += found.p_value > 0.05
    assert 0.92 <= covered / draws <= 0.98
    assert (held / draws > 0.92) == (signal == 0)
