"""Recurrent encoders: the contract of encoders, attention over time, sizes."""

from collections.abc import Callable

import pytest
import torch as th
from helpers.encoder_checks import (
    ASSETS,
    BATCH,
    CHECKS,
    WINDOW,
    Make,
    attention_sums_to_one,
    build,
    inputs,
    parameters,
)
from torch import nn

from agents.networks.lstm import LstmAttention, LstmEncoder
from portfolio_env.errors import ArgumentError

ENCODERS = [LstmEncoder, LstmAttention]


@pytest.mark.parametrize("check", [*CHECKS, attention_sums_to_one])
@pytest.mark.parametrize("make", ENCODERS)
def test_it_keeps_the_contract_of_encoders(make: Make, check: Callable[[Make], None]) -> None:
    check(make)


def test_dropout_acts_between_the_layers_and_one_layer_has_none() -> None:
    windows = inputs(build(LstmAttention))[0][:, :, 0].transpose(0, 1)
    stacked, single = (LstmAttention(windows.shape[-1], WINDOW, 16, n, 2, 0.5) for n in (2, 1))
    once, again = (stacked.recurrent(windows)[0] for _ in range(2))
    assert not th.equal(once, again)
    assert single.recurrent.dropout == 0.0


def test_attention_over_time_is_that_of_the_library() -> None:
    encoder = build(LstmAttention, causal=False)
    library = nn.MultiheadAttention(128, 8, batch_first=True)
    library.load_state_dict(
        {
            "in_proj_weight": encoder.project.weight,
            "in_proj_bias": encoder.project.bias,
            "out_proj.weight": encoder.out.weight,
            "out_proj.bias": encoder.out.bias,
        }
    )
    windows, tradable, _ = inputs(encoder)
    for asset in range(ASSETS):
        states = encoder.recurrent(windows[:, :, asset].transpose(0, 1))[0].transpose(0, 1)
        mixed, weights = library(states, states, states, average_attn_weights=False)
        expected = encoder.norm(states + mixed)
        th.testing.assert_close(encoder(windows, tradable)[:, asset], expected[:, -1])
        found = encoder.attention(windows, tradable)["time"][:, asset]
        th.testing.assert_close(found, weights)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_looks_at_later_bars_only_where_it_is_not_causal(causal: bool) -> None:
    encoder = build(LstmAttention, causal=causal)
    windows, tradable, _ = inputs(encoder)
    maps = encoder.attention(windows, tradable)["time"]
    assert maps.shape == (BATCH, ASSETS, 8, WINDOW, WINDOW)
    assert (maps.triu(1) == 0).all() == causal


def test_the_output_is_the_same_causal_or_not() -> None:
    causal, free = build(LstmAttention, causal=True), build(LstmAttention, causal=False)
    given = inputs(causal)
    assert th.equal(causal(*given), free(*given))


def test_attention_pools_what_the_layers_add_to_the_features() -> None:
    encoder = build(LstmEncoder)
    th.nn.init.normal_(encoder.gain)
    windows, tradable, _ = inputs(encoder)
    weights = encoder.attention(windows, tradable)["time"]
    assert weights.shape == (BATCH, ASSETS, WINDOW)
    for row in range(BATCH):
        recurrent = encoder.second(encoder.norm(encoder.first(windows[row])[0]))[0]
        states = encoder.skip(windows[row]) + encoder.gain * recurrent
        pooled = sum(weights[row, :, t, None] * states[t] for t in range(WINDOW))
        expected = encoder.out_norm(states[-1] + pooled)
        th.testing.assert_close(encoder(windows, tradable)[row], expected)


def test_parameters_are_accounted_for() -> None:
    # Keras: LSTM 21,760 and 12,416, where torch has a second vector of biases; LayerNorm holds as
    # much as the trained half of a BatchNorm of 256; attention had no weights.
    encoder = LstmEncoder(20, 30)
    assert parameters(encoder.first) == 21_760 + 4 * 64
    assert parameters(encoder.second) == 12_416 + 4 * 32
    assert parameters(encoder.norm) == 256 // 2
    assert parameters(encoder.query) + parameters(encoder.key) == 2 * 32 * 32 + 32
    assert parameters(encoder.skip) + encoder.gain.numel() == (20 + 1) * 32 + 32  # of our own
    assert parameters(encoder) == 22_016 + 12_544 + 128 + 2_080 + 64 + 704
    # 275,073 with one output and without LayerNorm.
    assert parameters(LstmAttention(20, 60)) == 275_073 - (128 + 1) + 2 * 128
    assert parameters(LstmAttention(44, 60)) == 287_877 - 5 * (128 + 1) + 2 * 128


def test_bad_sizes_are_named() -> None:
    for make, options, part in [
        (LstmEncoder, {"dropout": 1.0}, "dropout=1.0"),
        (LstmEncoder, {"hidden": 0}, "hidden=0"),
        (LstmAttention, {"heads": 7}, "7 heads do not divide 128"),
        (LstmAttention, {"layers": 0}, "layers=0"),
    ]:
        with pytest.raises(ArgumentError, match=part):
            make(3, 4, **options)
