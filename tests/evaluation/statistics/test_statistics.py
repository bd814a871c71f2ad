"""Differences, Sharpe ratios, many strategies at once, seeds: against other libraries."""

import sys

import numpy as np
import pytest
from arch.bootstrap import MCS, SPA
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from skfolio import measures as skfolio

from portfolio_env.errors import ArgumentError, PortfolioError
from portfolio_env.evaluation import statistics
from portfolio_env.evaluation.statistics import sharpe_ratios
from portfolio_env.evaluation.statistics.data_snooping import _deviations

DAYS = 252
RETURNS = np.random.default_rng(7).standard_t(5, 1000) * 0.01 + 0.0004


# ---- normal test of Sharpe ratios


def test_sharpe_difference_of_normal_returns():
    """Memmel's variance in its original form, and its size over many normal samples."""
    rng, n = np.random.default_rng(0), 120
    root = np.linalg.cholesky([[1.0, 0.7], [0.7, 1.0]]) * 0.04
    own, other = 0.008 + root @ rng.normal(size=(2, n))
    found = statistics.sharpe_difference_test(own, other, 12)
    (m, k), (s, t), c = (
        np.mean([own, other], 1),
        np.std([own, other], 1, ddof=1),
        np.cov(own, other),
    )
    theta = 2 * s**2 * t**2 - 2 * s * t * c[0, 1] + (m * t) ** 2 / 2 + (k * s) ** 2 / 2
    theta -= m * k / (s * t) * c[0, 1] ** 2
    z = (t * m - s * k) / np.sqrt(theta / n)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-9)
    assert found.estimate == pytest.approx(np.sqrt(12) * (m / s - k / t))
    assert (found.low > 0 or found.high < 0) == (found.p_value < 0.05)
    draws = 0.008 + np.einsum("ij,rjn->rin", root, rng.normal(size=(800, 2, n)))
    rejected = [statistics.sharpe_difference_test(*pair, 12).p_value < 0.05 for pair in draws]
    assert 0.03 <= np.mean(rejected) <= 0.07


def test_sharpe_difference_at_the_edges():
    levered = statistics.sharpe_difference_test(RETURNS, 2 * RETURNS, DAYS)
    assert levered.estimate == pytest.approx(0, abs=1e-12) and np.isnan(levered.p_value)
    assert np.isnan(statistics.sharpe_difference_test(RETURNS, 0 * RETURNS, DAYS)).all()
    for own, message in ((RETURNS[:2], "shapes"), (np.full(1000, np.nan), "not finite")):
        with pytest.raises(ArgumentError, match=message):
            statistics.sharpe_difference_test(own, RETURNS, DAYS)


# ---- robust t-test of growth


def test_without_lags_it_is_students_t_test():
    own, other = np.random.default_rng(0).normal(0.1, 1, (2, 60))
    found = statistics.growth_difference_test(own, other, DAYS, lags=0, confidence=0.9)
    textbook = stats.ttest_1samp(own - other, 0)
    assert found.p_value == pytest.approx(textbook.pvalue)
    assert found.estimate == pytest.approx((own - other).mean() * DAYS)
    interval = textbook.confidence_interval(0.9)
    assert found[1:3] == pytest.approx((interval.low * DAYS, interval.high * DAYS))


def test_lags_weigh_autocovariances_as_bartlett():
    difference = np.random.default_rng(1).normal(0.1, 1, 80)
    centred = difference - difference.mean()
    lags = 3
    variance = centred @ centred
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * (centred[lag:] @ centred[:-lag])
    error = np.sqrt(variance / 80 / 79)
    found = statistics.growth_difference_test(difference, np.zeros(80), 1, lags=lags)
    assert (found.high - found.low) / 2 == pytest.approx(stats.t(79).ppf(0.975) * error)


@pytest.mark.parametrize(
    ("periods", "lags"), [(3, 1), (27, 2), (30, 3), (99, 3), (100, 4), (1000, 6)]
)
def test_the_number_of_lags_follows_the_published_rule(periods, lags):
    """floor(4 (K / 100)^(2/9))."""
    own = np.random.default_rng(3).normal(size=periods)
    test = statistics.growth_difference_test
    found = test(own, np.zeros(periods), 1)
    assert found == test(own, np.zeros(periods), 1, lags=lags)
    assert found != test(own, np.zeros(periods), 1, lags=lags - 1)


def test_size_and_power():
    """Under autocorrelated noise about 5 % rejections; without lags, far more; with skill, most."""
    generator = np.random.default_rng(2)
    rejections = {"robust": 0, "naive": 0, "skill": 0}
    for _ in range(300):
        noise = generator.normal(size=301)
        noise = noise[1:] + 0.5 * noise[:-1]
        zero = np.zeros(300)
        test = statistics.growth_difference_test
        rejections["robust"] += test(noise, zero, 1).p_value < 0.05
        rejections["naive"] += test(noise, zero, 1, lags=0).p_value < 0.05
        rejections["skill"] += test(noise + 0.35, zero, 1).p_value < 0.05
    assert 0.02 <= rejections["robust"] / 300 <= 0.10, rejections
    assert rejections["naive"] / 300 > 0.10, rejections
    assert rejections["skill"] / 300 > 0.9, rejections


def test_equal_differences_have_no_error():
    found = statistics.growth_difference_test(np.full(9, 0.2), np.full(9, 0.1), 10)
    assert found.estimate == pytest.approx(1)
    assert np.isnan(found[1:]).all()


@pytest.mark.parametrize(
    "options", [{"lags": -1}, {"lags": 3}, {"confidence": 0}, {"confidence": 1}]
)
def test_refuses_lags_and_confidence(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        statistics.growth_difference_test([0.1, 0.2, 0.4], [0.0, 0.0, 0.0], 1, **options)
    with pytest.raises(ArgumentError, match="2 periods must be at least 3"):
        statistics.growth_difference_test([0.1, 0.2], [0.0, 0.0], 1)


# ---- Sharpe ratios


@pytest.mark.parametrize("threshold", [0.0, 0.5, -1.0])
@pytest.mark.parametrize("risk_free", [0.0, 0.03])
def test_probabilistic_sharpe_ratio_agrees_with_skfolio(threshold, risk_free):
    found = statistics.probabilistic_sharpe_ratio(
        RETURNS, DAYS, threshold, risk_free_annual=risk_free
    )
    library = skfolio.probabilistic_sharpe_ratio(
        RETURNS, threshold / np.sqrt(DAYS), risk_free / DAYS
    )
    assert found.probability == pytest.approx(library, rel=1e-10)
    assert found.p_value == pytest.approx(1 - library, rel=1e-10)


def test_deflated_sharpe_ratio_agrees_with_skfolio():
    trials = np.random.default_rng(0).normal(0.3, 0.5, 40)
    found = statistics.deflated_sharpe_ratio(RETURNS, DAYS, trials)
    library = skfolio.deflated_sharpe_ratio(RETURNS, trials / np.sqrt(DAYS))
    assert found.probability == pytest.approx(library, rel=1e-10)
    fewer = statistics.deflated_sharpe_ratio(RETURNS, DAYS, trials, n_trials=7.5)
    expected = skfolio.expected_max_sharpe_ratio(7.5, trials.std(ddof=1))
    assert fewer.threshold == pytest.approx(expected, rel=1e-10)
    assert fewer.probability > found.probability


def test_the_more_trials_the_higher_the_bar():
    bars = [statistics.expected_maximum_sharpe(n, 0.5) for n in (1, 1.5, 2, 10, 100, 1e4)]
    assert bars == sorted(bars) and bars[0] == 0
    best = np.random.default_rng(1).normal(0, 0.5, (4000, 100)).max(axis=1).mean()
    assert bars[4] == pytest.approx(best, rel=0.02)


def test_interval_of_a_sharpe_ratio():
    """For normal returns the error is the textbook's (Lo 2002); the bounds lie where p says."""
    normal = stats.norm.ppf((np.arange(2000) + 0.5) / 2000) + 0.05
    found = statistics.probabilistic_sharpe_ratio(normal, 1)
    error = np.sqrt((1 + found.estimate**2 / 2) / 2000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=1e-3)
    at_bound = statistics.probabilistic_sharpe_ratio(RETURNS, DAYS, confidence=0.9)
    again = statistics.probabilistic_sharpe_ratio(RETURNS, DAYS, at_bound.low)
    assert again.p_value == pytest.approx(0.05)


def test_sharpe_ratios_of_the_least_that_is_allowed():
    assert statistics.probabilistic_sharpe_ratio([0.1, 0.2, 0.0], 1).probability > 0.5
    found = statistics.deflated_sharpe_ratio(RETURNS, DAYS, [0.1, 0.1], n_trials=1)
    assert found.threshold == 0 == statistics.expected_maximum_sharpe(5, 0)


@pytest.mark.parametrize("skewness", [1.0, 1.1])
def test_no_variance_no_test(monkeypatch, skewness):
    """Of a ratio of 2 a period: nothing, and less than nothing by rounding."""
    monkeypatch.setattr(sharpe_ratios, "sharpe", lambda series, periods, rate: 2 * np.sqrt(periods))
    monkeypatch.setattr(sharpe_ratios, "standardised_moments", lambda series: (skewness, 2.0))
    found = statistics.probabilistic_sharpe_ratio(RETURNS, 4, 0.5)
    assert (found.estimate, found.threshold) == (4, 0.5)
    assert np.isnan(found[1:5]).all()


def test_a_sharpe_ratio_and_its_interval_are_yearly():
    found = statistics.probabilistic_sharpe_ratio(RETURNS, DAYS)
    year = RETURNS.mean() / RETURNS.std(ddof=1) * np.sqrt(DAYS)
    assert found.estimate == pytest.approx(year)
    assert found.low < found.estimate
    assert found.high - found.estimate == pytest.approx(found.estimate - found.low)


def test_no_risk_no_test():
    found = statistics.probabilistic_sharpe_ratio(np.full(10, 0.01), DAYS)
    assert np.isnan(found[:5]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: statistics.probabilistic_sharpe_ratio([0.1, 0.2], DAYS), "at least 3"),
        (lambda: statistics.probabilistic_sharpe_ratio([0.1, np.nan, 0], DAYS), "finite"),
        (lambda: statistics.probabilistic_sharpe_ratio(RETURNS, 1, confidence=1), "confidence"),
        (lambda: statistics.probabilistic_sharpe_ratio(RETURNS, 1, confidence=0), "confidence"),
        (lambda: statistics.deflated_sharpe_ratio(RETURNS, DAYS, [0.1]), "trial_sharpes"),
        (lambda: statistics.deflated_sharpe_ratio(RETURNS, 1, [1, 2], n_trials=0.5), "n_trials"),
        (lambda: statistics.expected_maximum_sharpe(5, -1.0), "deviation"),
        (lambda: statistics.expected_maximum_sharpe(5, np.inf), "deviation"),
        (lambda: statistics.expected_maximum_sharpe(np.inf, 1.0), "n_trials"),
    ],
)
def test_sharpe_refusals(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


# ---- many strategies


def strategies(drifts, n=400, seed=0):
    generator = np.random.default_rng(seed)
    market = generator.normal(0, 0.01, n)
    series = {f"s{i}": market + generator.normal(drift, 0.005, n) for i, drift in enumerate(drifts)}
    return {"benchmark": market, **series}


def test_superiority_finds_skill_and_not_luck():
    lucky = strategies([0.0] * 20)
    skilled = strategies([0.0] * 19 + [0.0015])
    luck = statistics.superiority_test(lucky, "benchmark", DAYS, n_resamples=500)
    assert luck.p_value > 0.05
    best = max(statistics.growth_difference(
        lucky[name], lucky["benchmark"], DAYS, n_resamples=10
    ).estimate for name in lucky)  # fmt: skip
    assert luck.estimate == pytest.approx(best)
    skill = statistics.superiority_test(skilled, "benchmark", DAYS, n_resamples=500)
    assert skill.best == "s19" and skill.p_value < 0.01
    assert skill.p_value_low <= skill.p_value <= skill.p_value_high


def test_superiority_is_that_of_arch_in_units_of_standard_errors():
    series = strategies([0.0, 0.0003, -0.001])
    series["s2"] = series["s1"] + 3 * (series["s2"] - series["s1"])
    found = statistics.superiority_test(series, "s1", 1, mean_block=4, n_resamples=300, seed=5)
    losses = -np.transpose([series[name] for name in ("benchmark", "s0", "s2")])
    plain = SPA(-series["s1"], losses, 4, 300, "stationary", seed=np.random.default_rng(5))
    plain.compute()
    scaled = (losses + series["s1"][:, None]) / np.sqrt(plain._loss_diff_var)
    library = SPA(np.zeros(400), scaled, 4, 300, "stationary", seed=np.random.default_rng(5))
    library.compute()
    assert found[2:] == tuple(library.pvalues[["consistent", "lower", "upper"]])


@pytest.mark.parametrize(("periods", "block"), [(12, 6), (12, 1), (200, 7)])
def test_standard_errors_are_those_of_the_stationary_bootstrap(periods, block):
    """Those that arch works out, and those of resamples; blocks may be long for the record."""
    generator = np.random.default_rng(4)
    differences = generator.normal(size=(periods + 2, 3)).cumsum(axis=0)
    differences = differences[2:] - differences[:-2]  # autocorrelated
    found = _deviations(differences, block)
    library = SPA(np.zeros(periods), -differences, block, 10, "stationary")
    library.compute()
    assert found == pytest.approx(np.sqrt(library._loss_diff_var), rel=1e-10)
    means = [
        differences[statistics.stationary_bootstrap_indices(periods, block, generator)].mean(axis=0)
        for _ in range(4000)
    ]
    assert found == pytest.approx(np.std(means, axis=0) * np.sqrt(periods), rel=0.06)


def test_what_never_changes_has_errors_of_rounding():
    assert _deviations(np.full((12, 1), -0.2), 3) == pytest.approx([2e-10], rel=1e-12)
    endless = _deviations(np.random.default_rng(0).normal(size=(12, 40)), 10**18)
    assert (endless < 1e-7).all()  # no root of a variance below 0 by rounding


def test_superiority_finds_a_best_among_noise_as_rarely_as_it_says():
    found = 0
    for seed in range(60):
        series = strategies([0.0] * 20, n=80, seed=seed)
        test = statistics.superiority_test(series, "benchmark", DAYS, n_resamples=100)
        found += test.p_value <= 0.05
    assert found / 60 <= 0.13  # 5 % and three standard errors of 60 draws


def test_a_wild_strategy_does_not_hide_a_steady_one():
    series = strategies([0.0] * 5)
    series["wild"] = series["benchmark"] + 20 * (series["s0"] - series["benchmark"])
    series["steady"] = series["benchmark"] + 1e-4 + (series["s1"] - series["benchmark"]) / 20
    found = statistics.superiority_test(series, "benchmark", DAYS, n_resamples=500)
    assert found.p_value < 0.01
    constant = {"benchmark": series["benchmark"], "ahead": series["benchmark"] + 1e-4}
    wild = {"wild": series["wild"]}
    assert statistics.superiority_test(constant | wild, "benchmark", 1, n_resamples=99).p_value == 0


def test_confidence_set_keeps_the_best_and_drops_the_bad():
    series = strategies([0.0, 0.0, -0.004, 0.001])
    found = statistics.model_confidence_set(series, confidence=0.9, n_resamples=500)
    assert "s3" in found.included and "s2" not in found.included
    assert set(found.included) == {name for name, p in found.p_values.items() if p > 0.1}
    library = MCS(-np.transpose(list(series.values())), 0.1, 500, 3, seed=np.random.default_rng(0))
    library.compute()
    same = statistics.model_confidence_set(series, confidence=0.9, n_resamples=500, mean_block=3)
    names = list(series)
    assert same.included == tuple(names[i] for i in sorted(library.included))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: statistics.superiority_test(s, "nobody", DAYS), "unknown strategy 'nobody'"),
        (lambda s: statistics.superiority_test({"a": s["s0"]}, "a", DAYS), "at least two"),
        (lambda s: statistics.superiority_test(s | {"a": [0.1]}, "s0", DAYS), "same periods"),
        (lambda s: statistics.superiority_test(s | {"a": s["s0"] * np.nan}, "a", 1), "of a is not"),
        (lambda s: statistics.superiority_test(s, "s0", DAYS, n_resamples=0), "n_resamples"),
        (lambda s: statistics.model_confidence_set(s, mean_block=0), "mean_block"),
        (lambda s: statistics.model_confidence_set(s, confidence=1), "confidence"),
        (lambda s: statistics.model_confidence_set(s, confidence=0), "confidence"),
    ],
)
def test_refuses_strategies(call, message):
    with pytest.raises(ArgumentError, match=message):
        call(strategies([0.0]))


def test_one_resample_of_single_periods_is_allowed():
    series = strategies([0.0])
    found = statistics.superiority_test(series, "s0", 1, mean_block=1, n_resamples=1)
    assert found.best == "benchmark"


def test_says_what_to_install(monkeypatch):
    for module in ("arch", "statsmodels.regression"):
        monkeypatch.setitem(sys.modules, module, None)
    series = strategies([0.0])
    for call in (
        lambda: statistics.superiority_test(series, "s0", DAYS),
        lambda: statistics.model_confidence_set(series),
        lambda: statistics.growth_difference_test(series["s0"], series["benchmark"], DAYS),
    ):
        with pytest.raises(PortfolioError, match=r"pip install (arch|statsmodels)"):
            call()


# ---- seeds


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30))
def test_interquartile_mean_agrees_with_scipy(scores):
    own = statistics.interquartile_mean(scores)
    assert own == pytest.approx(stats.trim_mean(scores, 0.25), rel=1e-12, abs=1e-12)


def test_seeds_are_drawn_within_their_market():
    """Markets of different level: only what differs between the seeds of a market is chance."""
    level = np.array([0.0, 100.0])
    assert statistics.seeds_interval(np.tile(level, (5, 1)))[:3] == (50, 50, 50)
    scores = level + np.random.default_rng(0).normal(size=(10, 2))
    interval = statistics.seeds_interval(scores)
    assert interval.estimate == pytest.approx(stats.trim_mean(scores, 0.25, axis=None))
    assert interval.low < interval.estimate < interval.high
    assert interval.high - interval.low < 3
    assert interval == statistics.seeds_interval(scores)


def test_one_resample_of_two_seeds_is_allowed():
    assert 1 <= statistics.seeds_interval([1.0, 2.0], n_resamples=1).low <= 2


def test_one_bad_seed_counts_little():
    scores = np.random.default_rng(1).normal(1, 0.1, 12)
    scores[3] = -50
    interval = statistics.seeds_interval(scores)
    assert interval.estimate == pytest.approx(1, abs=0.1)
    assert interval.low > 0.5


def test_coverage_of_seeds():
    generator = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        interval = statistics.seeds_interval(generator.normal(size=(20, 3)), n_resamples=300)
        hits += interval.low <= 0 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ([1.0], {}, "2 seeds"),
        ([1.0, np.nan], {}, "finite"),
        (np.zeros((2, 2, 2)), {}, "scores"),
        ([1.0, 2.0], {"n_resamples": 0}, "n_resamples"),
        ([1.0, 2.0], {"confidence": 2}, "confidence"),
    ],
)
def test_refuses_scores(scores, options, message):
    with pytest.raises(ArgumentError, match=message):
        statistics.seeds_interval(scores, **options)
