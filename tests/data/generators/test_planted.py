from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from portfolio_env import ArgumentError, load_market
from portfolio_env.data.generators import noise
from portfolio_env.data.generators.log_optimal import GAP, log_growth, log_optimal
from portfolio_env.data.generators.planted import PlantedMarket
from portfolio_env.errors import PortfolioError

CUT = 25.0


@pytest.fixture(scope="module")
def weak():
    return PlantedMarket.draw(seed=7, bars=12_000, strength="weak")


@pytest.fixture(scope="module")
def log_optimum(weak):
    return weak.log_optimal_weights(slice(0, 400))


def test_the_noise_is_the_cut_t_law_of_variance_one():
    deviation = CUT / noise.LARGEST
    law = stats.t(5)
    second = integrate.quad(lambda t: t * t * law.pdf(t), -CUT, CUT)[0] + 2 * CUT**2 * law.sf(CUT)
    assert deviation == pytest.approx(np.sqrt(second), rel=1e-9)
    p = np.array([1e-7, 1e-4, 0.01, 0.3, 0.5, 0.77, 0.999, 1 - 1e-7])
    expected = np.clip(law.ppf(p), -CUT, CUT) / deviation
    np.testing.assert_allclose(noise.quantile(p), expected, rtol=1e-6, atol=1e-12)
    sample = noise.draw(np.random.default_rng(0), (200_000,))
    assert abs(sample.std() - 1) < 0.01
    assert stats.kstest(sample * deviation, law.cdf).pvalue > 0.01


@pytest.mark.parametrize("assets", [2, 5, 15])
def test_scenarios_have_the_moments_of_the_noise(assets):
    points = noise.scenarios(assets)
    assert points.shape == (4096, assets)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-13)
    np.testing.assert_allclose(points.T @ points / 4096, np.eye(assets), atol=1e-12)
    np.testing.assert_allclose((points**3).mean(axis=0), 0, atol=1e-10)
    levels = np.array([-2.0, -1, -0.5, 0, 0.5, 1, 2])
    below = (points[:, :, None] < levels).mean(axis=0)
    expected = stats.t(5).cdf(levels * CUT / noise.LARGEST)
    np.testing.assert_allclose(below, np.tile(expected, (assets, 1)), atol=0.01)
    assert np.array_equal(points, noise.scenarios(assets))


def test_the_market_is_the_process_it_says(weak):
    returns = weak.panel.close[1:] / weak.panel.close[:-1] - 1
    np.testing.assert_allclose(
        returns, weak.kappa * weak.signal[:-1] + weak.sigma * weak.noise[1:], atol=1e-12
    )
    np.testing.assert_array_equal(weak.expected, 0.0012 * weak.signal)
    assert (weak.kappa, weak.phi, weak.sigma) == (0.0012, 0.98, 0.02)
    persistence = {"signal": 0.98, "distractor_98": 0.98, "distractor_90": 0.9, "distractor_0": 0.0}
    for name, phi in persistence.items():
        values = weak.channels[name]
        assert abs(values.std() - 1) < 0.1
        lagged = [np.corrcoef(x[1:], x[:-1])[0, 1] for x in values.T]
        np.testing.assert_allclose(lagged, phi, atol=0.03)
    slope = (weak.signal[:-1] * returns).mean() / (weak.signal[:-1] ** 2).mean()
    assert abs(slope - weak.kappa) < 5 * weak.sigma / np.sqrt(5 * 12_000)
    correlation = np.corrcoef(np.concatenate([returns, weak.signal[:-1]], axis=1).T)
    between = correlation[:5, :5][np.triu_indices(5, 1)]
    assert (np.abs(between) < 0.05).all()


def test_features_are_the_channels_and_nothing_else(weak):
    market = weak.market
    assert market.feature_names == (
        "signal",
        "distractor_98",
        "distractor_90",
        "distractor_0",
    )
    for k, values in enumerate(weak.channels.values()):
        np.testing.assert_array_equal(market.features[..., k], values.astype(np.float32))
    assert market.warmup == 0
    assert market.periods_per_year == 252


def test_strengths_and_names(weak):
    name = "synthetic-momentum?seed=7&bars=12000&strength=weak"
    assert load_market(name, features="exogenous").hash == weak.market.hash
    given = PlantedMarket.draw(bars=50, kappa=0.002, phi=0.95)
    assert load_market("synthetic-momentum?bars=50", features="exogenous").hash == given.market.hash
    null = load_market("synthetic-null?bars=50&seed=1", features="exogenous")
    assert null.hash == PlantedMarket.draw(bars=50, seed=1, kappa=0.0).market.hash
    assert null.feature_names == weak.market.feature_names
    assert null.hash != load_market("synthetic-null?bars=50&seed=2").hash


def test_nothing_predicts_returns_of_the_null_market():
    market = load_market("synthetic-null?bars=20000&seed=3")
    returns = market.close[1:] / market.close[:-1] - 1
    for k in range(market.n_features):
        correlation = np.corrcoef(market.features[:-1, :, k].ravel(), returns.ravel())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(returns.size)
    assert np.abs(autocorrelations(returns)).max() < 4 / np.sqrt(len(returns))


def autocorrelations(returns):
    return np.array([np.corrcoef(x[1:], x[:-1])[0, 1] for x in returns.T])


def test_the_mirrored_market_has_the_same_features_and_opposite_noise(weak):
    mirror = weak.mirrored()
    assert np.array_equal(mirror.market.features, weak.market.features)
    both = [m.panel.close[1:] / m.panel.close[:-1] - 1 for m in (weak, mirror)]
    np.testing.assert_allclose(both[0] + both[1], 2 * weak.expected[:-1], atol=1e-12)
    assert mirror.mirrored().market.hash == weak.market.hash


def test_null_markets_are_best_left_alone():
    null = PlantedMarket.draw(bars=20, kappa=0.0)
    weights = null.log_optimal_weights()
    np.testing.assert_allclose(weights[:, 0], 1, atol=1e-5)
    np.testing.assert_allclose(null.log_optimal_growth(), 0, atol=1e-11)


def slsqp(expected, shocks):
    """The same optimum by an independent solver, returns in units of a percent."""
    relatives = 1 + np.concatenate([np.zeros((len(shocks), 1)), expected + shocks], axis=1)
    n = relatives.shape[1]
    found = optimize.minimize(
        lambda w: -1e4 * np.log(relatives @ w).mean(),
        np.full(n, 1 / n),
        jac=lambda w: -1e4 * (relatives / (relatives @ w)[:, None]).mean(axis=0),
        bounds=[(0, 1)] * n,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(n)},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    weights = np.maximum(found.x, 0)
    return weights / weights.sum()


@settings(max_examples=25)
@given(data=st.data())
def test_log_optimal_weights_agree_with_an_independent_solver(data):
    assets = data.draw(st.integers(1, 6))
    seed = data.draw(st.integers(0, 2**16))
    scale = data.draw(st.sampled_from([0.005, 0.02, 0.1]))
    rng = np.random.default_rng(seed)
    shocks = scale * rng.standard_t(5, (300, assets)).clip(-6, 6)
    mean = data.draw(st.sampled_from([0.1, 1.0])) * scale
    expected = rng.uniform(-mean, mean, (1, assets))
    weights, gaps = log_optimal(expected, shocks)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    assert gaps[0] + 1e-15 >= 0 and gaps[0] <= GAP
    oracle = slsqp(expected[0], shocks)
    assert log_growth(weights, expected, shocks)[0] >= (
        log_growth(oracle[None], expected, shocks)[0] - GAP
    )
    np.testing.assert_allclose(weights[0], oracle, atol=2e-3)


@given(seed=st.integers(0, 2**32), share=st.floats(1e-6, 1))
def test_no_other_portfolio_grows_faster(weak, log_optimum, seed, share):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 400, 20)
    other = rng.dirichlet(np.full(6, rng.choice([0.1, 1.0, 10.0])), 20)
    mixed = (1 - share) * log_optimum[rows] + share * other
    best = weak.growth(log_optimum[rows], rows)
    assert (weak.growth(mixed, rows) <= best + GAP).all()


def test_more_signal_gives_more_weight_and_permuting_assets_permutes_weights(weak):
    shocks = 0.02 * noise.scenarios(3)
    expected = np.array([[0.0005, 0.0001, -0.002], [0.0006, 0.0001, -0.002]])
    weights, _ = log_optimal(expected, shocks)
    assert weights[1, 1] > weights[0, 1] > weights[0, 2] > 0
    assert weights[0, 3] == weights[1, 3] == 0
    order = [2, 0, 1]
    permuted, _ = log_optimal(expected[:, order], shocks[:, order])
    np.testing.assert_allclose(permuted[:, 1:], weights[:, 1:][:, order], atol=1e-6)


def test_the_optimum_over_the_quadrature_is_one_over_the_true_law(weak, log_optimum):
    """Many draws of the true noise, mirrored, judge weights and growth found with the scenarios."""
    rows = np.arange(0, 400, 40)
    draws = weak.sigma * noise.draw(np.random.default_rng(1), (200_000, 5))
    draws = np.concatenate([draws, -draws])
    expected = weak.expected[rows]
    true_growth = log_growth(log_optimum[rows], expected, draws)
    np.testing.assert_allclose(weak.growth(log_optimum[rows], rows), true_growth, atol=3e-6)
    true_best, _ = log_optimal(expected[:3], draws[::10])
    np.testing.assert_allclose(log_optimum[rows[:3]], true_best, atol=0.05)


def test_no_policy_of_a_parametric_family_grows_faster_on_the_path(weak):
    weights = weak.log_optimal_weights(slice(0, 1000))
    best = weak.growth(weights, slice(0, 1000)).mean()
    for temperature in (0.5, 1, 2, 4, 8, 100):
        for cash in (-5.0, 0.0, 1.0):
            logits = np.concatenate(
                [np.full((1000, 1), cash), temperature * weak.signal[:1000]], axis=1
            )
            family = np.exp(logits - logits.max(axis=1, keepdims=True))
            family /= family.sum(axis=1, keepdims=True)
            assert weak.growth(family, slice(0, 1000)).mean() < best
    equal = np.tile([0, 0.2, 0.2, 0.2, 0.2, 0.2], (1000, 1))
    assert 0.001 < best - weak.growth(equal, slice(0, 1000)).mean() < 0.0016


def test_rows_select_decisions(weak, log_optimum):
    np.testing.assert_array_equal(weak.log_optimal_weights(5), log_optimum[5:6])
    picked = weak.log_optimal_weights(np.array([9, 3]))
    np.testing.assert_array_equal(picked, log_optimum[[9, 3]])
    growth = weak.log_optimal_growth(np.array([9, 3]))
    np.testing.assert_array_equal(growth, weak.growth(picked, np.array([9, 3])))
    short = replace(weak, channels={k: v[:30] for k, v in weak.channels.items()})
    assert short.log_optimal_weights().shape == (30, 6)


def test_bad_arguments(weak):
    with pytest.raises(ArgumentError, match="weights have shape"):
        weak.growth(np.ones((3, 5)), slice(0, 3))
    for expected in (np.nan, -0.9, np.inf):
        with pytest.raises((ArgumentError, PortfolioError)):
            log_optimal(np.array([[expected, 0.0]]), 0.2 * noise.scenarios(2))
    with pytest.raises(ArgumentError, match="finite returns"):
        log_optimal(np.zeros((1, 2)), np.full((4, 2), np.inf))
