"""Attention maps of every encoder in one shape, and their pictures."""

from typing import Any

import numpy as np
import pytest
import torch as th

from agents.inspection import attention_figure, attention_maps
from agents.networks import ENCODERS, make_encoder
from portfolio_env import Market

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
