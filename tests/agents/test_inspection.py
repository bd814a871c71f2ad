"""Figures of encoders: attention maps in one shape, and the calibration of Gaussian forecasts."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from agents.forecasts import LEVELS, Calibration
from agents.inspection import attention_figure, attention_maps
from agents.networks import ENCODERS, make_encoder
from portfolio_env import Market
from portfolio_env.errors import ArgumentError

T, WINDOW = 120, 6
OPTIONS: dict[str, Any] = {"branches": {"groups": {"one": [0, 1], "other": [2]}}}
KINDS = {
    "tcn_gnn_lstm": {"assets", "time"},
    "tcn_gnn_lstm_small": {"assets", "time"},
    "gat": {"assets_0", "assets_1", "assets_2"},
    "lstm": {"time"},
    "lstm_attention": {"time"},
    "state_space": {"time"},
    "transformer": {"time_0", "time_1", "assets_0"},
    "branches": {"branches"},
    "factor": {"gates"},
}


def encoder_of(name: str, market: Market) -> Any:
    th.manual_seed(0)
    encoder = make_encoder(name, market.n_features, WINDOW, **OPTIONS.get(name, {}))
    for weight in encoder.parameters():  # or some would look at everything alike
        weight.data += 0.1 * th.randn(weight.shape)
    return encoder


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_says_what_it_looks_at_in_the_same_shape(name: str, market: Market) -> None:
    encoder = encoder_of(name, market).train()
    maps = attention_maps(encoder, market, T)
    assert set(maps) == KINDS.get(name, set())
    assert encoder.training
    for kind, weights in maps.items():
        assert weights.shape[0] == market.n_assets and (weights >= 0).all()
        if kind.startswith("assets"):
            assert weights.shape == (market.n_assets, market.n_assets)
        if kind.startswith("time"):
            assert weights.shape == (market.n_assets, WINDOW)
        if kind != "gates":  # which are open or shut each by itself
            np.testing.assert_allclose(weights.sum(1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("name", ["tcn_gnn_lstm_small", "gat", "lstm", "state_space"])
def test_maps_know_nothing_of_later_bars_and_all_of_the_window(name: str, market: Market) -> None:
    encoder = encoder_of(name, market)
    maps = attention_maps(encoder, market, T)
    past = attention_maps(encoder, market.past(T), T)
    before = attention_maps(encoder, market, T - 1)
    for kind, weights in maps.items():
        np.testing.assert_array_equal(past[kind], weights)
        assert not np.allclose(before[kind], weights)


def test_heads_are_averaged_at_the_last_bar(market: Market) -> None:
    encoder = encoder_of("tcn_gnn_lstm_small", market).eval()
    windows = th.tensor(market.features[None, T - WINDOW + 1 : T + 1])
    tradable = th.tensor(market.tradable[None, T], dtype=th.float32)
    with th.no_grad():
        full = encoder.attention(windows, tradable)["assets"]  # (1, bars, heads, N, N)
    expected = (full[0, -1, 0] + full[0, -1, 1]) / 2
    np.testing.assert_allclose(attention_maps(encoder, market, T)["assets"], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["assets_1", "time", "gates"])
def test_pictures_show_the_map_with_its_labels(name: str, market: Market) -> None:
    weights = np.random.default_rng(0).random((market.n_assets, 5), np.float32)
    weights = weights[:, : market.n_assets] if name.startswith("assets") else weights
    figure = attention_figure(name, weights, market, T)
    axes = figure.axes[0]
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), weights)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(market.assets)
    if name == "time":  # the last bar is at 0, the first 4 before it
        assert image.get_extent()[:2] == [-4.5, 0.5]
    if name.startswith("assets"):
        assert [label.get_text() for label in axes.get_xticklabels()] == list(market.assets)


def drawn(seed: int, n: int = 40_000, too_small: float = 1.0) -> Calibration:
    """Errors of a Gaussian with many deviations, of which some share is forecast."""
    rng = np.random.default_rng(seed)
    sigma = rng.uniform(0.5, 3.0, n)
    return Calibration(sigma * rng.standard_normal(n), sigma * too_small)


def test_true_forecasts_cover_what_they_say() -> None:
    numbers = drawn(0).numbers()
    assert list(numbers) == [
        *(f"calibration/coverage_{p}" for p in (50, 68, 90, 95)),
        "calibration/mean_square_z",
    ]
    for level in LEVELS:
        assert numbers[f"calibration/coverage_{round(100 * level)}"] == pytest.approx(
            level, abs=0.01
        )
    assert numbers["calibration/mean_square_z"] == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_a_wrong_sigma_shows_by_as_much_as_the_normal_distribution_says(share: float) -> None:
    found = drawn(1, too_small=share)
    # P(|z| <= q) of the true z is erf(q / sqrt 2), and the forecast's q is `share` of it.
    for level, quantile in ((0.6827, 1.0), (0.9545, 2.0), (0.9973, 3.0)):
        expected = math.erf(share * quantile / math.sqrt(2))
        assert found.coverage(level)[0] == pytest.approx(expected, abs=0.01)
    assert found.mean_square == pytest.approx(1 / share**2, rel=0.03)


@given(seed=st.integers(0, 1000), factor=st.floats(0.1, 10))
def test_the_unit_of_returns_does_not_matter(seed: int, factor: float) -> None:
    found = drawn(seed, 200)
    scaled = Calibration(found.error * factor, found.sigma * factor)
    levels = np.linspace(0.1, 0.9, 9)
    np.testing.assert_allclose(scaled.coverage(levels), found.coverage(levels), atol=0.01)
    np.testing.assert_allclose(scaled.mean_square, found.mean_square)
    for own, other in zip(scaled.by_sigma(), found.by_sigma(), strict=True):
        np.testing.assert_allclose(own, factor * other)


@given(seed=st.integers(0, 1000))
def test_coverage_is_the_share_counted_one_by_one_and_grows_with_the_level(seed: int) -> None:
    found = drawn(seed, 50)
    size = np.abs(found.error) / found.sigma
    for level, quantile in ((0.5, 0.6744897501960817), (0.95, 1.959963984540054)):
        assert found.coverage([level])[0] == sum(z <= quantile for z in size) / 50
    assert (np.diff(found.coverage(np.linspace(0.01, 0.99, 30))) >= 0).all()


def test_bins_tell_large_errors_from_small_ones_only_where_sigma_does() -> None:
    found = drawn(2)
    sigma, error = found.by_sigma(5)
    np.testing.assert_allclose(error, sigma, rtol=0.05)
    assert sigma[-1] > 2 * sigma[0]
    np.testing.assert_allclose(np.mean(error**2), np.mean(found.error**2))
    constant = Calibration(found.error, np.full(len(found.error), 1.5))
    sigma, error = constant.by_sigma(5)
    assert np.ptp(sigma) == 0 and np.ptp(error) < 0.1
    assert len(Calibration(np.ones(3), np.ones(3)).by_sigma(10)[0]) == 3


def test_the_picture_shows_what_the_numbers_say() -> None:
    found = drawn(3, too_small=0.5)
    left, right = found.figure().axes
    level, share = left.lines[1].get_data()
    np.testing.assert_allclose(share, found.coverage(level))
    np.testing.assert_allclose(right.lines[1].get_data(), found.by_sigma())
    assert "4.0" in right.get_title()


@pytest.mark.parametrize(
    ("error", "sigma", "text"),
    [
        (np.ones(3), np.ones(2), "same length"),
        (np.ones(0), np.ones(0), "at least 1"),
        (np.ones((2, 2)), np.ones((2, 2)), "vectors"),
        (np.ones(2), np.array([1.0, 0.0]), "least sigma is 0.0"),
    ],
)
def test_bad_forecasts_are_refused(error: np.ndarray, sigma: np.ndarray, text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        Calibration(error, sigma)
