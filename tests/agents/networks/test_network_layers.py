"""Layers along time and across assets: equal to plain PyTorch, and what they reach."""

import pytest
import torch as th
from helpers import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agents.networks.graph import GraphAttention, attended
from agents.networks.temporal import (
    CausalConv,
    Tcn,
    TcnBlock,
    TemporalPooling,
    receptive_field,
)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("kernel", "layers", "bars"), [(3, 4, 61), (3, 3, 29), (2, 3, 15)])
def test_receptive_field_measured_by_gradient(kernel: int, layers: int, bars: int) -> None:
    tcn = Tcn(4, 4, layers, kernel)
    x = th.randn(bars + 5, 1, 4, requires_grad=True)
    tcn(x)[-1].square().sum().backward()
    assert x.grad is not None
    reached = x.grad.abs().sum((1, 2)) > 0
    assert reached.tolist() == [False] * 5 + [True] * bars
    assert tcn.receptive_field == receptive_field(kernel, layers) == bars


def test_residual_is_linear_between_different_widths() -> None:
    # 25,536 numbers in the original, of which 50 * 64 + 64 are the residual
    assert count(TcnBlock(50, 64)) == 25_536
    assert count(TcnBlock(64, 64)) == 29_120 - 4_160


def test_blocks_are_the_usual_convolutions() -> None:
    block = TcnBlock(5, 8, kernel=3, dilation=4)
    x = th.randn(20, 6, 5)
    out = x.permute(1, 2, 0)  # (rows, channels, bars)
    for conv, norm in zip(block.convs, block.norms, strict=True):
        weight = conv.weight
        out = nn.functional.conv1d(nn.functional.pad(out, (8, 0)), weight, conv.bias, dilation=4)
        out = nn.functional.gelu(norm(out.transpose(1, 2))).transpose(1, 2)
    expected = out.permute(2, 0, 1) + block.skip(x)
    assert th.allclose(block(x), expected, atol=1e-6)


@given(
    bars=st.integers(1, 12),
    rows=st.integers(1, 3),
    kernel=st.integers(1, 4),
    dilation=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_convolutions_are_those_of_the_library(
    bars: int, rows: int, kernel: int, dilation: int
) -> None:
    conv = CausalConv(3, 2, kernel, dilation).double()
    x = th.randn(bars, rows, 3, dtype=th.float64, requires_grad=True)
    padding = ((kernel - 1) * dilation, 0)
    plain = nn.functional.conv1d(
        nn.functional.pad(x.permute(1, 2, 0), padding), conv.weight, conv.bias, dilation=dilation
    )
    out = conv(x)
    weights = th.randn_like(out)
    results = []
    for one in (out, plain.permute(2, 0, 1)):
        gradients = th.autograd.grad((one * weights).sum(), [x, *conv.parameters()])
        results.append((one, *gradients))
    th.testing.assert_close(*results)


def test_attention_is_multihead_attention() -> None:
    ours = GraphAttention(8, 2)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.project.weight,
            "in_proj_bias": ours.project.bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    x, keys = th.randn(4, 6, 8), th.rand(4, 6) < 0.6
    keys[:, 0] = True
    mixed, weights = theirs(x, x, x, key_padding_mask=~keys, average_attn_weights=False)
    assert th.allclose(ours(x, keys), ours.norm(x + mixed), atol=1e-6)
    assert th.allclose(ours.weights(x, keys), weights, atol=1e-6)


@given(st.integers(1, 9), st.integers(0, 6), st.integers(0, 2**32 - 1))
@examples(25)
def test_pooling_of_a_band_is_that_of_every_window(window: int, more: int, seed: int) -> None:
    generator = th.Generator().manual_seed(seed)
    pooling, bars = TemporalPooling(3), window + more
    x = th.randn(bars, 2, 4, 3, generator=generator)
    seen = th.rand(bars, 2, 4, generator=generator) < 0.4
    windows = [slice(i, i + window) for i in range(more + 1)]
    expected = th.stack([pooling(x[own], seen[own]) for own in windows])
    th.testing.assert_close(pooling.banded(x, seen, window), expected, rtol=1e-5, atol=1e-6)


def test_pooling_without_a_preference_decays_with_age() -> None:
    pooling = TemporalPooling(2)
    with th.no_grad():
        pooling.logit.weight.zero_()
        pooling.decay.fill_(0.3)
    seen = th.ones(6, 1, dtype=th.bool)
    seen[4] = False
    weights = pooling.weights(th.randn(6, 1, 2), seen)[:, 0]
    expected = th.exp(-0.3 * th.tensor([5.0, 4.0, 3.0, 2.0, th.inf, 0.0]))
    th.testing.assert_close(weights, expected / expected.sum())


def test_pooling_can_select_one_bar() -> None:
    pooling = TemporalPooling(2)
    with th.no_grad():
        pooling.logit.weight.fill_(1.0)
    x = th.zeros(60, 1, 2)
    x[17] = 20.0  # logits are not bounded
    weights = pooling.weights(x, th.ones(60, 1, dtype=th.bool))
    assert weights[17].item() > 0.999


def test_there_is_always_somebody_to_look_at() -> None:
    def keys(present: list[int], tradable: list[int]) -> list[bool]:
        return attended(th.tensor(present).bool(), th.tensor(tradable).bool()).tolist()

    assert keys([1, 0, 1], [1, 1, 0]) == [True, False, False]
    assert keys([0, 0, 1], [1, 1, 0]) == [True, True, False]  # the third is hidden all the same
    assert keys([0, 1, 1], [0, 0, 0]) == [True, True, True]


def test_convolutions_train_under_autocast() -> None:
    conv, x = CausalConv(4, 3, 3, 2), th.randn(9, 5, 4, requires_grad=True)
    expected = th.autograd.grad(conv(x).square().sum(), [x, *conv.parameters()])
    with th.autocast("cpu", th.bfloat16):
        out = conv(x)
    assert out.dtype == th.bfloat16
    found = th.autograd.grad(out.float().square().sum(), [x, *conv.parameters()])
    for own, other in zip(found, expected, strict=True):
        assert own.dtype == th.float32
        th.testing.assert_close(own, other, rtol=0.05, atol=0.05 * float(other.abs().max()))
