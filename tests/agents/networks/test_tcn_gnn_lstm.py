"""TCN-GNN-LSTM: sizes, causality, masks, equivariance, a range like its windows."""

from typing import Any

import pytest
import torch as th
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from agents.networks.graph import attended
from agents.networks.tcn_gnn_lstm import TcnGnnLstm, TcnGnnLstmSmall
from portfolio_env.errors import ArgumentError

FEATURES, WINDOW = 3, 6
TINY = {"width": 8, "layers": 2, "heads": 2, "lstm_hidden": 4, "lstm_layers": 2}


def build(**options: Any) -> TcnGnnLstm:
    return TcnGnnLstm(FEATURES, options.pop("window", WINDOW), **{**TINY, **options}).eval()


def random_windows(encoder: TcnGnnLstm, batch: int, n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Windows with absent assets (features 0) in some bars, and which assets trade at the last."""
    generator = th.Generator().manual_seed(seed)
    windows = th.randn(batch, encoder.bars, n, encoder.n_features, generator=generator)
    present = th.rand(batch, encoder.bars, n, generator=generator) < 0.8
    tradable = th.rand(batch, n, generator=generator) < 0.7
    return windows * present[..., None], tradable.float()


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# Sizes


def test_receptive_field_of_the_presets() -> None:
    assert TcnGnnLstm(4, 60).receptive_field == 61
    assert TcnGnnLstmSmall(4, 60).receptive_field == 29
    assert TcnGnnLstmSmall(4, 60).bars == 60


@pytest.mark.parametrize(
    ("preset", "inward", "block", "layers", "graph", "lstm", "skip"),
    [
        (TcnGnnLstm, 2_880, 29_120, 4, 16_768, 165_249, 4_160),
        (TcnGnnLstmSmall, 1_440, 7_392, 3, 4_288, 16_833, 1_056),
    ],
)
def test_parameters_against_the_original(
    preset: type[TcnGnnLstm],
    inward: int,
    block: int,
    layers: int,
    graph: int,
    lstm: int,
    skip: int,
) -> None:
    # Less: a residual between equal widths is the identity, not a convolution of `skip` numbers;
    # the logit of the pooling needs no bias. More: LSTM gates have two biases in PyTorch; the
    # recurrence has a residual, and a gain for each of its channels; the pooling has one decay.
    encoder = preset(44, 60)
    hidden, stacked = encoder.channels // 2, encoder.lstm.num_layers
    second_biases = stacked * 2 * 4 * hidden
    assert count(encoder.inward) == inward
    assert [count(one) for one in encoder.tcn.blocks] == [block - skip] * layers
    assert count(encoder.graph) == graph
    summary = count(encoder.lstm) + count(encoder.norm) + count(encoder.pooling)
    assert summary == lstm + second_biases - 1 + 1
    assert count(encoder.skip) == encoder.lstm.input_size * encoder.channels + encoder.channels
    assert encoder.gain.numel() == encoder.channels
    residual = count(encoder.skip) + encoder.channels + 1
    originally = inward + layers * block + graph + lstm
    assert count(encoder) == originally - layers * skip + second_biases - 1 + residual
    # and with the heads of `test_prediction_heads.py` for five assets, the complete models
    heads, complete = (51_600, 352_977) if preset is TcnGnnLstm else (13_520, 58_257)
    assert originally + heads == complete


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("window", "batch", "n"), [(1, 1, 1), (1, 3, 4), (6, 1, 2), (6, 2, 7)])
def test_shapes(bidirectional: bool, window: int, batch: int, n: int) -> None:
    encoder = build(window=window, bidirectional=bidirectional)
    out = encoder(*random_windows(encoder, batch, n))
    assert out.shape == (batch, n, encoder.channels)
    assert encoder.channels == (8 if bidirectional else 4)
    assert out.isfinite().all()


@th.no_grad()
def test_at_the_start_the_last_bar_of_the_asset_itself_counts_most() -> None:
    # A large untrained network is near a linear map of it: little to learn by heart.
    th.manual_seed(0)
    encoder = TcnGnnLstm(FEATURES, 8, bidirectional=False).eval()
    windows, noise = th.randn(2, 64, encoder.bars, 5, FEATURES)
    tradable = th.ones(64, 5)
    out = encoder(windows, tradable)

    def moved(changed: Tensor) -> float:
        return float((encoder(changed, tradable) - out)[:, 0].square().mean())

    last, before, others = windows.clone(), windows.clone(), windows.clone()
    last[:, -1], before[:, :-1], others[:, :, 1:] = noise[:, -1], noise[:, :-1], noise[:, :, 1:]
    assert moved(before) < 1.5 * moved(last)
    assert 0 < moved(others) < moved(last) / 100


# What depends on what


def test_permuting_assets_permutes_vectors() -> None:
    encoder = build()
    windows, tradable = random_windows(encoder, 4, 9)
    order = th.randperm(9)
    out = encoder(windows, tradable)
    assert th.allclose(encoder(windows[:, :, order], tradable[:, order]), out[:, order], atol=1e-5)
    assert out.std(1).min() > 0


@given(st.integers(0, 2**32 - 1))
@examples(25)
def test_untradable_assets_get_no_attention_from_others(seed: int) -> None:
    encoder = build()
    windows, tradable = random_windows(encoder, 4, 5, seed)
    noise = 10 * th.randn_like(windows)
    other = th.where(tradable[:, None, :, None] > 0, windows, noise)
    out, moved = encoder(windows, tradable), encoder(other, tradable)
    assert th.allclose(out[tradable > 0], moved[tradable > 0], atol=1e-6)
    assert moved.isfinite().all()
    weights = encoder.attention(windows, tradable)["assets"]
    some = tradable.bool().any(1)
    hidden = (tradable[some] == 0)[:, None, None, None].expand_as(weights[some])
    assert (weights[some][hidden] == 0).all()


def test_others_matter() -> None:
    encoder = build()
    windows, tradable = th.randn(1, WINDOW, 3, FEATURES), th.ones(1, 3)
    moved = windows.clone()
    moved[:, :, 2] = th.randn(WINDOW, FEATURES)
    difference = (encoder(windows, tradable) - encoder(moved, tradable))[:, :2]
    assert encoder.mixes_assets and difference.abs().min() > 1e-6


def test_absent_bars_get_no_attention_in_time() -> None:
    encoder = build()
    windows = th.randn(2, WINDOW, 3, FEATURES)
    windows[:, :4, 1] = 0.0  # listed at the fifth bar
    weights = encoder.attention(windows, th.ones(2, 3))
    assert (weights["time"][:, 1, :4] == 0).all() and (weights["time"][:, 1, 4:] > 0).all()
    assert (weights["assets"][:, :4, ..., 1] == 0).all()
    assert (weights["assets"][:, 4:, ..., 1] > 0).all()


def test_nothing_tradable_or_nothing_known_is_finite() -> None:
    encoder = build()
    for windows in (th.randn(2, encoder.bars, 4, FEATURES), th.zeros(2, encoder.bars, 4, FEATURES)):
        windows.requires_grad_()
        out = encoder(windows, th.zeros(2, 4))
        out.square().sum().backward()
        assert out.isfinite().all()
        assert windows.grad is not None and windows.grad.isfinite().all()


def test_a_causal_recurrence_has_no_gradient_from_later_bars() -> None:
    windows = th.randn(1, WINDOW, 3, FEATURES, requires_grad=True)
    reach = {}
    for bidirectional in (True, False):
        encoder = build(bidirectional=bidirectional)
        x, present = encoder._over_time(windows)
        states = encoder._states(encoder.graph(x, present))
        (gradient,) = th.autograd.grad(states[2].square().sum(), windows)
        reach[bidirectional] = (gradient.abs().sum((0, 2, 3)) > 0).tolist()
    assert reach[False] == [True] * 3 + [False] * (WINDOW - 3)
    assert reach[True] == [True] * WINDOW


def test_attention_is_normalised_and_that_of_forward() -> None:
    encoder = build()
    windows, tradable = random_windows(encoder, 3, 5)
    weights = encoder.attention(windows, tradable)
    assert weights["assets"].shape == (3, WINDOW, 2, 5, 5)
    assert weights["time"].shape == (3, 5, WINDOW)
    for one in weights.values():
        assert th.allclose(one.sum(-1), th.ones(()), atol=1e-5)
    x, present = encoder._over_time(windows)
    states = encoder._states(encoder.graph(x, attended(present, tradable > 0)))
    pooled = th.einsum("bnt,tbnc->bnc", weights["time"], states)
    assert th.allclose(pooled, encoder(windows, tradable), atol=1e-6)


# Numbers


@pytest.mark.parametrize("preset", [TcnGnnLstm, TcnGnnLstmSmall])
@pytest.mark.parametrize("value", [10.0, -10.0, 0.0, None])
def test_gradients_are_finite_on_extreme_inputs(
    preset: type[TcnGnnLstm], value: float | None
) -> None:
    encoder = preset(5, 12)
    shape = (2, 12, 3, 5)
    windows = th.randn(shape).sign() * 10 if value is None else th.full(shape, value)
    windows.requires_grad_()
    encoder(windows, th.ones(2, 3)).square().sum().backward()
    gradients = [windows.grad, *(p.grad for p in encoder.parameters())]
    assert all(g is not None and g.isfinite().all() for g in gradients)


def test_deterministic_in_evaluation_and_dropout_in_training() -> None:
    encoder = build(dropout=0.3)
    windows, tradable = th.randn(2, WINDOW, 3, FEATURES), th.ones(2, 3)
    assert th.equal(encoder(windows, tradable), encoder(windows, tradable))
    encoder.train()
    assert not th.allclose(encoder(windows, tradable), encoder(windows, tradable))
    plain = build().train()
    assert th.equal(plain(windows, tradable), plain(windows, tradable))


def test_weights_survive_saving() -> None:
    encoder, other = build(), build()
    windows, tradable = random_windows(encoder, 2, 3)
    assert not th.equal(other(windows, tradable), encoder(windows, tradable))
    other.load_state_dict(encoder.state_dict())
    assert th.equal(other(windows, tradable), encoder(windows, tradable))


@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_numbers_of_the_cpu() -> None:
    encoder = build()
    windows, tradable = random_windows(encoder, 4, 5)
    expected = encoder(windows, tradable)
    found = encoder.cuda()(windows.cuda(), tradable.cuda())
    assert th.allclose(found.cpu(), expected, atol=1e-3)
    found.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history": "past"}, "history='past' must be one of 'window', 'stream'"),
        ({"history": "stream", "bidirectional": True}, "bidirectional=True must be False"),
        ({"history": "stream", "bidirectional": False, "block": 0}, "block=0"),
        ({"dropout": 1.0}, "dropout"),
        ({"heads": 3}, "heads"),
        ({"layers": 0}, "layers"),
        ({"lstm_layers": 0}, "lstm_layers"),
    ],
)
def test_bad_options_are_named(options: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        build(**options)
