"""Intervals of every measure: the right resamples, pairing, what they cover, refusals."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import growth_difference, metrics
from portfolio_env.evaluation.statistics import optimal_block_length, resample_measures
from portfolio_env.evaluation.statistics.bootstrap import stationary_bootstrap_indices

DAYS = 252
K = 150


def account(returns, generator):
    values = 100 * np.cumprod(np.r_[1, 1 + returns])
    k = len(returns)
    held = generator.dirichlet(np.ones(4), k)
    return values, held, generator.random(k) * 0.2, generator.random(k) * values[:-1] * 1e-4


GENERATOR = np.random.default_rng(0)
MARKET = GENERATOR.normal(0.0005, 0.01, K)
ACCOUNTS = {
    name: account(beta * MARKET + GENERATOR.normal(0, 0.005, K), GENERATOR)
    for name, beta in {"market": 1.0, "calm": 0.3, "short": -0.5}.items()
}
RECORDS = {name: metrics.track_record(*parts) for name, parts in ACCOUNTS.items()}


def resample(**options):
    options = {"benchmark": "market", "n_resamples": 200, "mean_block": 5} | options
    return resample_measures(RECORDS, DAYS, **options)


def test_estimates_are_the_summaries():
    found = resample(n_resamples=1)
    for name, (values, *others) in ACCOUNTS.items():
        expected = metrics.summary(values, *others, DAYS)
        expected |= metrics.relative_summary(values, ACCOUNTS["market"][0], DAYS)
        assert found.measures == tuple(expected)
        for measure, value in expected.items():
            estimate = found.interval(name, measure).estimate
            assert estimate == pytest.approx(value, rel=1e-12, abs=1e-12, nan_ok=True), measure


def test_draws_are_the_summaries_of_resampled_accounts():
    """Every measure of every resample, computed the long way: account by account, in money."""
    found = resample(n_resamples=3, seed=9)
    generator = np.random.default_rng(9)
    for resample_number in range(3):
        rows = stationary_bootstrap_indices(K, 5, generator)
        paths = {}
        for name, (values, held, turnovers, costs) in ACCOUNTS.items():
            path = np.cumprod(np.r_[1, (values[1:] / values[:-1])[rows]])
            paths[name] = (
                path,
                held[rows],
                turnovers[rows],
                (costs / values[:-1])[rows] * path[:-1],
            )
        for column, (name, parts) in enumerate(paths.items()):
            expected = metrics.summary(*parts, DAYS)
            expected |= metrics.relative_summary(parts[0], paths["market"][0], DAYS)
            for row, (measure, value) in enumerate(expected.items()):
                draw = found.draws[row, column, resample_number]
                assert draw == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True), (
                    name,
                    measure,
                )


def test_results_are_frozen_and_equal_to_themselves_alone():
    found, again = resample(n_resamples=2), resample(n_resamples=2)
    assert found == found != again
    with pytest.raises(FrozenInstanceError):
        found.mean_block = 1.0


def test_growth_difference_is_the_difference_in_growth():
    found = resample(measures=["annual_log_growth"], seed=3)
    own, other = (np.log1p(RECORDS[name].returns) for name in ("calm", "market"))
    expected = growth_difference(own, other, DAYS, mean_block=5, n_resamples=200, seed=3)
    assert found.difference("calm", "market", "annual_log_growth") == pytest.approx(expected)


def test_differences_are_paired():
    found = resample()
    for measure in ("annual_turnover", "volatility", "max_drawdown", "value_at_risk"):
        same = found.difference("calm", "calm", measure)
        assert same == (0, 0, 0, 1)
        there = found.difference("calm", "market", measure)
        back = found.difference("market", "calm", measure)
        assert there.estimate == -back.estimate
        assert there.p_value == back.p_value
    near = {"market": RECORDS["market"], "near": shifted(RECORDS["market"], 1e-4)}
    both = resample_measures(near, DAYS, n_resamples=200, measures=["sharpe"])
    alone = both.interval("near", "sharpe")
    paired = both.difference("near", "market", "sharpe")
    assert paired.high - paired.low < 0.1 * (alone.high - alone.low)


def shifted(record, amount):
    returns = record.returns + amount
    return record._replace(returns=returns, values=np.cumprod(np.r_[1, 1 + returns]))


def test_automatic_block_is_the_longest_of_returns_and_squares():
    found = resample(mean_block=None, n_resamples=1)
    series = [record.returns for record in RECORDS.values()]
    series += [np.square(returns - returns.mean()) for returns in series]
    assert found.mean_block == max(optimal_block_length(one) for one in series)


def test_unknown_measures_stay_unknown():
    """An account that rests has no Sharpe ratio in any resample."""
    values = np.full(K + 1, 10.0)
    cash = np.tile([1.0, 0, 0, 0], (K, 1))
    resting = metrics.track_record(values, cash, np.zeros(K), np.zeros(K))
    found = resample_measures({"cash": resting}, DAYS, n_resamples=10)
    assert np.isnan(found.interval("cash", "sharpe")).all()
    assert found.interval("cash", "volatility") == (0, 0, 0, 1)
    assert found.interval("cash", "exposure")[:3] == (0, 0, 0)


def test_a_loss_not_recovered_from_has_no_upper_bound():
    interval = resample().interval("calm", "recovery_time", confidence=0.9)
    assert 0 < interval.low < interval.high == np.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"benchmark": "markte"}, "unknown strategy 'markte': did you mean market"),
        ({"measures": ["sharp"]}, "unknown measure 'sharp': did you mean sharpe"),
        ({"measures": ["beta"], "benchmark": None}, "unknown measure 'beta'"),
        ({"measures": []}, "measures is empty"),
        ({"n_resamples": 0}, "n_resamples"),
        ({"mean_block": 0}, "mean_block"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ArgumentError, match=message):
        resample(**options)


def test_refuses_records():
    with pytest.raises(ArgumentError, match="empty"):
        resample_measures({}, DAYS)
    other = metrics.track_record(*account(MARKET[:-1], GENERATOR))
    with pytest.raises(ArgumentError, match="cannot be paired"):
        resample_measures({**RECORDS, "other": other}, DAYS)
    for loss in (-1.0, -1.5, np.nan):
        returns = MARKET.copy()
        returns[50] = loss
        ruined = RECORDS["market"]._replace(returns=returns)
        with pytest.raises(ArgumentError, match="unlucky has a return"):
            resample_measures({**RECORDS, "unlucky": ruined}, DAYS)
    with pytest.raises(ArgumentError, match="unknown strategy"):
        resample(n_resamples=1).interval("nobody", "sharpe")
    with pytest.raises(ArgumentError, match="confidence"):
        resample(n_resamples=1).interval("calm", "sharpe", confidence=1)


# ---- what the intervals cover


def clustered(generator, n, burn_in=200):
    """GARCH(1, 1) with t(6) shocks around a yearly Sharpe ratio of 0.8, unconditional 1 %."""
    shocks = generator.standard_t(6, n + burn_in) / np.sqrt(6 / 4)
    variance, returns = 1.0, np.empty(n + burn_in)
    for t, shock in enumerate(shocks):
        returns[t] = np.sqrt(variance) * shock
        variance = 0.1 + 0.08 * returns[t] ** 2 + 0.82 * variance
    return returns[burn_in:] * 0.01 + 0.01 * 0.8 / np.sqrt(DAYS)


@pytest.mark.slow
def test_coverage_under_clustered_volatility():
    """95 % intervals hold the truth about as often as they say, for Sharpe ratios and differences.

    The bounds are three binomial standard errors of 200 records. For volatility itself 750 periods
    hold too few clusters; the automatic blocks come nearer than single periods.
    """
    generator = np.random.default_rng(8)
    year = np.sqrt(DAYS)
    hits = dict.fromkeys(["sharpe", "difference", "volatility", "volatility of single periods"], 0)
    for seed in range(200):
        records = {
            name: metrics.track_record(*account(clustered(generator, 750), generator))
            for name in ("first", "second")
        }
        options = {"measures": ["sharpe", "volatility"], "n_resamples": 300, "seed": seed}
        found = resample_measures(records, DAYS, **options)
        single = resample_measures(records, DAYS, mean_block=1, **options)
        for name, interval, truth in (
            ("sharpe", found.interval("first", "sharpe"), 0.8),
            ("difference", found.difference("first", "second", "sharpe"), 0),
            ("volatility", found.interval("first", "volatility"), 0.01 * year),
            ("volatility of single periods", single.interval("first", "volatility"), 0.01 * year),
        ):
            hits[name] += interval.low <= truth <= interval.high
    assert 181 <= hits["sharpe"] <= 199, hits
    assert 181 <= hits["difference"] <= 199, hits
    assert hits["volatility"] >= 140, hits
    assert hits["volatility of single periods"] < hits["volatility"] - 10, hits
