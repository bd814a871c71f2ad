"""Scores agree with slow or other computations, and find nothing where there is nothing."""

import numpy as np
import pytest
from scipy import stats

from agents.supervised.scores import Base, Forecasts, verdict
from portfolio_env.errors import ArgumentError

S, N = 240, 4


def forecasts(skill: float, seed: int = 0, bias: float = 0.0) -> Forecasts:
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=(S, N))
    realised = 0.01 * (skill * mean + rng.normal(size=(S, N)) + bias)
    realised[rng.random((S, N)) < 0.1] = np.nan
    forecast, sigma = 0.01 * skill * mean, np.full((S, N), 0.01)
    base = Base(0.0, 0.01 * float(np.sqrt(1 + skill**2)), 0.5)
    times = np.datetime64("2020-01-01", "ns") + np.arange(S) * np.timedelta64(1, "D")
    up = stats.norm.cdf(forecast / sigma)
    return Forecasts(times, forecast, sigma, up, realised, base)


def test_scores_are_those_of_other_formulas() -> None:
    given = forecasts(0.7)
    found = given.scores(n_resamples=50)["value"]
    known = np.isfinite(given.realised)
    mean, sigma, up, realised = (
        part[known] for part in (given.mean, given.sigma, given.up, given.realised)
    )
    gain = realised > 0
    assert found["accuracy"] == pytest.approx(np.mean((up > 0.5) == gain))
    assert found["brier"] == pytest.approx(np.mean((up - gain) ** 2))
    assert found["log_score"] == pytest.approx(stats.bernoulli.logpmf(gain, up).mean())
    assert found["log_density"] == pytest.approx(stats.norm.logpdf(realised, mean, sigma).mean())
    assert found["rank_correlation"] == pytest.approx(stats.spearmanr(mean, realised).statistic)
    # CRPS = E|X - y| - E|X - X'| / 2, by quantiles of the forecast
    q = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
    x = mean[:50, None] + sigma[:50, None] * q
    spread = 0.01 * 2 / np.sqrt(np.pi) / 2
    slow = np.abs(x - realised[:50, None]).mean(1) - spread
    each = given._each()["crps"][known][:50]
    np.testing.assert_allclose(each, slow, rtol=1e-3)


def test_the_classification_report_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    given = forecasts(0.7)
    gain, up = (given.realised > 0)[given.known], (given.up > 0.5)[given.known]
    counts = metrics.confusion_matrix(gain, up, labels=[True, False])
    np.testing.assert_array_equal(given.confusion().to_numpy(), counts)
    others = metrics.precision_recall_fscore_support(gain, up, labels=[True, False])
    np.testing.assert_allclose(given.classification().to_numpy().T, others)


def test_skill_is_found_and_none_is_not() -> None:
    skilled = forecasts(0.7).scores(n_resamples=300)
    for name in ("accuracy", "brier", "log_score", "crps", "log_density", "rank_correlation"):
        assert skilled.loc[name, "low"] > 0
        assert skilled.loc[name, "p_value"] < 0.01
    assert "it beats the base rate" in verdict(skilled)
    noise = forecasts(0.7)
    order = np.random.default_rng(1).permutation(S)
    shuffled = Forecasts(
        noise.times, noise.mean[order], noise.sigma, noise.up[order], noise.realised, noise.base
    ).scores(n_resamples=300)
    assert "it beats" not in verdict(shuffled)
    assert shuffled.loc["log_score", "gain"] < 0


def test_the_base_rate_is_that_of_the_more_frequent_direction() -> None:
    """In a market that rises, a forecast of always up has the base rate's accuracy: no gain."""
    rising = forecasts(0.0, bias=0.5)
    always = np.full((S, N), 0.6)
    table = Forecasts(
        rising.times, rising.mean, rising.sigma, always, rising.realised, rising.base
    ).scores(n_resamples=50)
    share = np.mean(rising.realised[np.isfinite(rising.realised)] > 0)
    assert table.loc["accuracy", "value"] == table.loc["accuracy", "base"] == pytest.approx(share)
    assert table.loc["accuracy", "gain"] == 0
    assert "it does not beat the base rate" in verdict(table)
    assert np.isnan(table.loc["rank_correlation", "value"])  # of a constant


def test_calibrated_forecasts_look_so() -> None:
    given = forecasts(0.7)
    assert stats.kstest(given.pit(), "uniform").pvalue > 0.01
    forecast, share = given.reliability(4)
    np.testing.assert_allclose(forecast, share, atol=0.08)
    nothing = np.full((S, N), np.nan)
    with pytest.raises(ArgumentError, match="widen the range"):
        Forecasts(given.times, given.mean, given.sigma, given.up, nothing, given.base)
