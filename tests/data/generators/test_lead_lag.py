"""The market of pairs: what moves an asset stands in its partner's features and nowhere else."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats

from agents.networks import make_encoder
from portfolio_env import ArgumentError, load_market
from portfolio_env.data.generators.lead_lag import LeadLagMarket
from portfolio_env.data.generators.planted import PlantedMarket

BARS, ASSETS = 20_000, 8
FEATURES = ("return_1", "signal", "distractor_98", "distractor_90", "distractor_0")


@pytest.fixture(scope="module")
def market():
    return LeadLagMarket.draw(seed=7, bars=BARS, assets=ASSETS)


@given(seed=st.integers(0, 2**32), pairs=st.integers(2, 8))
def test_everybody_is_its_partners_partner_and_nobody_its_own(seed, pairs):
    partner = LeadLagMarket.draw(seed=seed, bars=2, assets=2 * pairs).partner
    assert np.array_equal(partner[partner], np.arange(2 * pairs))
    assert (partner != np.arange(2 * pairs)).all()


def test_the_order_of_assets_says_nothing():
    partners = np.array([LeadLagMarket.draw(seed=s, bars=2, assets=6).partner for s in range(500)])
    for i in range(6):
        counts = np.bincount(partners[:, i], minlength=6)
        assert counts[i] == 0
        assert stats.chisquare(np.delete(counts, i)).pvalue > 1e-3


def test_the_market_is_the_process_it_says(market):
    returns = market.panel.close[1:] / market.panel.close[:-1] - 1
    moved = market.kappa * market.signal[:-1, market.partner] + market.sigma * market.noise[1:]
    np.testing.assert_allclose(returns, moved, atol=1e-12)
    np.testing.assert_array_equal(market.expected, 0.002 * market.signal[:, market.partner])
    assert market.market.feature_names == FEATURES
    np.testing.assert_allclose(market.market.features[1:, :, 0], returns, atol=1e-6)
    for k, values in enumerate(market.channels.values(), start=1):
        np.testing.assert_array_equal(market.market.features[..., k], values.astype(np.float32))
    assert market.panel.provenance["partner"] == market.partner.tolist()
    json.dumps(market.panel.provenance)


def slope(x, y):
    return (x * y).sum() / (x * x).sum()


def test_returns_follow_the_partners_signal_and_not_the_own(market):
    """Slopes within 4 standard errors, which are those of the process.

    Of the own signal, the partner's adds to the noise: sums of products of two AR(1) processes have
    variance T (1 + phi^2) / (1 - phi^2), and the two assets of a pair share theirs.
    """
    signal, returns = market.signal[:-1], market.returns[1:]
    error = market.sigma / np.sqrt(returns.size)
    assert abs(slope(signal[:, market.partner], returns) - market.kappa) < 4 * error
    assert market.kappa > 20 * error
    persistence = (1 + market.phi**2) / (1 - market.phi**2)
    spread = np.sqrt((market.sigma**2 + 2 * market.kappa**2 * persistence) / returns.size)
    assert abs(slope(signal, returns)) < 4 * spread
    for name, values in market.channels.items():
        if name != "signal":
            for of in (values, values[:, market.partner]):
                assert abs(slope(of[:-1], returns)) < 5 * spread


@pytest.mark.parametrize("correlation", [0.7, 0.0, -0.5])
def test_the_noise_of_partners_is_correlated_and_of_others_is_not(correlation):
    drawn = LeadLagMarket.draw(seed=3, bars=BARS, assets=6, correlation=correlation)
    expected = np.eye(6) + correlation * np.eye(6)[drawn.partner]
    np.testing.assert_allclose(np.cov(drawn.noise.T), expected, atol=0.06)
    np.testing.assert_allclose(np.corrcoef(drawn.noise.T), expected, atol=0.04)


def test_partners_have_the_same_law_of_noise(market):
    one, other = market.noise[:, 0], market.noise[:, market.partner[0]]
    assert stats.ks_2samp(one[::2], other[1::2]).pvalue > 0.01


def test_the_mirrored_market_has_the_same_signals_and_opposite_noise(market):
    mirror = market.mirrored()
    assert isinstance(mirror, LeadLagMarket)
    np.testing.assert_array_equal(mirror.expected, market.expected)
    np.testing.assert_allclose(
        mirror.returns[1:] + market.returns[1:], 2 * market.expected[:-1], atol=1e-15
    )
    assert mirror.mirrored().market.hash == market.market.hash


def test_equal_arguments_give_equal_bits_and_names_load():
    options = {"seed": 5, "bars": 200, "assets": 6, "strength": "weak", "correlation": 0.4}
    one, other = LeadLagMarket.draw(**options), LeadLagMarket.draw(**options)
    assert one.market.hash == other.market.hash
    assert one.market.hash != LeadLagMarket.draw(**options | {"seed": 6}).market.hash
    name = "synthetic-lead-lag?" + "&".join(f"{key}={value}" for key, value in options.items())
    assert load_market(name, features=("return_1", "exogenous")).hash == one.market.hash
    given = LeadLagMarket.draw(bars=50, kappa=0.002, phi=0.95).panel
    assert np.array_equal(load_market("synthetic-lead-lag?bars=50").close, given.close)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**16),
    kappa=st.sampled_from([0.0, 0.0012, 0.01]),
    phi=st.sampled_from([0.0, 0.5, 0.95, 0.99]),
    t=st.integers(0, 39),
)
def test_the_filter_is_the_projection_on_past_returns(seed, kappa, phi, t):
    """Against the normal equations of all covariances at once."""
    drawn = LeadLagMarket.draw(seed=seed, bars=40, assets=4, kappa=kappa, phi=phi)
    rows = np.arange(1, t + 1)
    between = kappa**2 * float(phi) ** np.abs(rows[:, None] - rows) + drawn.sigma**2 * np.eye(t)
    with_state = kappa * float(phi) ** (t + 1 - rows)
    weights = np.linalg.solve(between, with_state)
    np.testing.assert_allclose(drawn.filtered[t], weights @ drawn.returns[rows], atol=1e-10)


def test_the_filter_explains_what_the_riccati_equation_says(market):
    """In units of the signal; errors and estimates are orthogonal over the whole sample."""
    transition, observation = np.array([[market.phi]]), np.array([[market.kappa]])
    unknown = linalg.solve_discrete_are(
        transition,
        observation,
        np.array([[1 - market.phi**2]]),
        np.array([[market.sigma**2]]),
    ).item()
    truth = market.signal[:, market.partner]
    explained = 1 - ((truth - market.filtered)[200:] ** 2).mean() / (truth[200:] ** 2).mean()
    assert 1 - unknown == pytest.approx(0.078, abs=0.001)
    assert explained == pytest.approx(1 - unknown, abs=0.02)
    assert slope(market.filtered, truth) == pytest.approx(1, abs=0.1)


@given(t=st.integers(0, 298), asset=st.integers(0, 5))
def test_the_filter_reads_its_own_past_alone(t, asset):
    drawn = LeadLagMarket.draw(seed=1, bars=300, assets=6)
    changed = drawn.noise.copy()
    changed[t + 1 :, asset] += 1
    changed[:, drawn.partner[asset]] -= 0.5
    other = replace(drawn, noise=changed)
    assert np.array_equal(other.filtered[: t + 1, asset], drawn.filtered[: t + 1, asset])
    assert (other.filtered[t + 1 :, asset] != drawn.filtered[t + 1 :, asset]).all()
    third = [i for i in range(6) if i not in (asset, drawn.partner[asset])]
    assert np.array_equal(other.filtered[:, third], drawn.filtered[:, third])


def opposite(market):
    """The same prices and, for half of the assets, opposite signals; and who is moved by them."""
    leaders = market.partner < np.arange(ASSETS)
    signal = np.where(leaders, -market.signal, market.signal)
    changed = replace(market, channels=market.channels | {"signal": signal})
    gone = (market.expected - changed.expected)[:-1] / market.sigma
    moved = market.noise.copy()
    moved[1:] += gone
    return replace(changed, noise=moved), leaders[market.partner]


def test_own_features_leave_even_the_sign_of_the_expected_return_open(market):
    """Another market, with the opposite expectation, in which every input of an asset is as here.

    An encoder that reads assets one by one says the same in both, graph attention does not.
    """
    other, followers = opposite(market)
    np.testing.assert_array_equal(other.expected[:, followers], -market.expected[:, followers])
    np.testing.assert_allclose(other.panel.close, market.panel.close, rtol=1e-9)
    ours, theirs = (
        th.tensor(np.array(one.market.features[100:140]))[None] for one in (market, other)
    )
    ours[..., 0], theirs[..., 0] = ours[..., 0] / 0.02, ours[..., 0] / 0.02
    followers = th.tensor(followers)
    th.manual_seed(0)
    for name, sees in (("per_asset", False), ("lstm", False), ("gat", True)):
        encoder = make_encoder(name, len(FEATURES), 40).eval()
        with th.no_grad():
            here, there = (encoder(x, th.ones(1, ASSETS))[:, followers] for x in (ours, theirs))
        assert th.equal(here, there) != sees


def test_graph_attention_to_the_nearest_reads_the_partner(market):
    """The largest correlation of 40 returns is the partner's; with threshold 0.3 there are more."""
    encoder = make_encoder("gat", len(FEATURES), 40, neighbours=1)
    rows = np.arange(100, BARS, 97)[:, None] + np.arange(40)
    windows = th.tensor(np.array(market.market.features[rows[rows[:, -1] < BARS]]))
    adjacency, _, sources = encoder.graph(windows, th.ones(len(windows), ASSETS))
    assert adjacency.shape[2] == 2 and adjacency.all()
    assert (sources == th.tensor(market.partner)[:, None]).any(2).float().mean() > 0.99


def test_expected_growth_knows_that_partners_move_together(market):
    """Against the sample of the noise itself."""
    rows = np.arange(0, 100, 20)
    weights = np.zeros((len(rows), ASSETS + 1))
    weights[:, [1, 1 + market.partner[0]]] = 0.5
    noise = np.concatenate([market.noise, -market.noise])
    mean = (weights[:, 1:] * market.expected[rows]).sum(1, keepdims=True)
    sample = np.log1p(mean + market.sigma * weights[:, 1:] @ noise.T).mean(1)
    np.testing.assert_allclose(market.growth(weights, rows), sample, atol=5e-6)
    alone = replace(market, correlation=0.0)
    lost = alone.growth(weights, rows) - market.growth(weights, rows)
    np.testing.assert_allclose(lost, 0.7 * market.sigma**2 / 4, rtol=0.02)


def test_the_best_growth_is_that_of_knowing_the_partner(market):
    rows = np.arange(0, 400, 4)
    best = market.log_optimal_growth(rows)
    swapped = market.log_optimal_weights(rows)[:, [0, *(1 + market.partner)]]
    assert (market.growth(swapped, rows) <= best + 1e-12).all()
    assert market.growth(swapped, rows).mean() < 0.2 * best.mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"assets": 5}, "even number"),
        ({"assets": 2}, "at least 4"),
        ({"correlation": 1.0}, r"correlation=1.0: give one in \(-1, 1\)"),
        ({"correlation": -1.0}, "correlation"),
        ({"correlation": float("nan")}, "correlation"),
        ({"strength": "strong"}, "strength"),
        ({"phi": 1.0}, "phi"),
        ({"kappa": 0.2}, "-100 %"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ArgumentError, match=message):
        LeadLagMarket.draw(**{"bars": 50} | options)


def test_noise_of_pairs_reaches_further_than_that_of_single_assets():
    kappa = 0.55 / np.abs(PlantedMarket.draw(bars=50, assets=8).signal).max()
    PlantedMarket.draw(bars=50, assets=8, kappa=kappa)
    LeadLagMarket.draw(bars=50, kappa=kappa, correlation=0.0)
    with pytest.raises(ArgumentError, match="-100 %"):
        LeadLagMarket.draw(bars=50, kappa=kappa, correlation=0.7)
