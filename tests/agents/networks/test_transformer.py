"""The transformer encoder: a plain oracle, masks, causality, equivariance, extremes."""

import math
from typing import Any

import pytest
import torch as th
from helpers.encoder_checks import finite_at_extremes, scrambled
from torch import Tensor

from agents.networks.transformer import AttentionBlock, Transformer, sinusoids
from portfolio_env.errors import ArgumentError

BATCH, WINDOW, ASSETS, FEATURES = 3, 7, 5, 4
SMALL = {"width": 16, "heads": 2, "feedforward": 24}
OPTIONS = [
    {},
    SMALL | {"positions": "learned", "causal": False},
    SMALL | {"layers": 1, "asset_layers": 3},
    SMALL | {"layers": 3, "asset_layers": 0},
]


def inputs(window: int = WINDOW) -> tuple[Tensor, Tensor]:
    tradable = (th.rand(BATCH, ASSETS) < 0.6).float()
    tradable[:, 0] = 1
    return th.randn(BATCH, window, ASSETS, FEATURES), tradable


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("window", [1, WINDOW])
def test_permuting_assets_permutes_the_output(options: dict[str, Any], window: int) -> None:
    encoder = scrambled(Transformer(FEATURES, window, **options))
    windows, tradable = inputs(window)
    out = encoder(windows, tradable)
    assert out.shape == (BATCH, ASSETS, encoder.channels)
    order = th.randperm(ASSETS)
    assert th.allclose(encoder(windows[:, :, order], tradable[:, order]), out[:, order], atol=1e-5)
    alone = th.cat([encoder(windows[i : i + 1], tradable[i : i + 1]) for i in range(BATCH)])
    assert th.allclose(alone, out, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_nobody_reads_assets_that_do_not_trade(options: dict[str, Any]) -> None:
    encoder = scrambled(Transformer(FEATURES, WINDOW, **options))
    windows, tradable = inputs()
    tradable[:, 1] = 0
    other = windows.clone()
    other[:, :, 1] = 10 * th.randn(BATCH, WINDOW, FEATURES)
    out, changed = encoder(windows, tradable), encoder(other, tradable)
    rest = [i for i in range(ASSETS) if i != 1]
    assert th.allclose(out[:, rest], changed[:, rest], atol=1e-6)
    assert not th.allclose(out[:, 1], changed[:, 1])
    tradable[:, 1] = 1
    mixed = encoder(windows, tradable)[:, rest]
    assert th.allclose(mixed, out[:, rest], atol=1e-6) != encoder.mixes_assets
    nobody = th.zeros(BATCH, ASSETS)
    none = encoder(windows, nobody)
    assert none.isfinite().all()
    assert th.allclose(encoder(windows[:, :, rest], nobody[:, rest]), none[:, rest], atol=1e-5)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_a_block_equals_torchs_layer(masked: bool, last: bool) -> None:
    block = scrambled(AttentionBlock(8, 2, 12))
    layer = th.nn.TransformerEncoderLayer(
        8, 2, 12, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).eval()
    with th.no_grad():
        layer.self_attn.in_proj_weight.copy_(th.cat([block.query.weight, block.key_value.weight]))
        layer.self_attn.in_proj_bias.copy_(th.cat([block.query.bias, block.key_value.bias]))
        layer.self_attn.out_proj.load_state_dict(block.out.state_dict())
        layer.norm1.load_state_dict(block.norm.state_dict())
        for ours, theirs in ((0, layer.norm2), (1, layer.linear1), (3, layer.linear2)):
            theirs.load_state_dict(block.mlp[ours].state_dict())
    x = th.randn(BATCH, WINDOW, 8)
    seen = (th.rand(WINDOW, WINDOW) < 0.5) | th.eye(WINDOW, dtype=th.bool)
    expected = layer(x, src_mask=~seen if masked else None)
    out = block(x, seen if masked else None, last)
    assert th.allclose(out, expected[:, -1:] if last else expected, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_causal_blocks_have_no_gradient_from_later_bars(causal: bool) -> None:
    encoder = scrambled(Transformer(FEATURES, WINDOW, **SMALL, causal=causal))
    windows, _ = inputs()
    windows.requires_grad_()
    x, earlier = encoder._series(windows)
    for block in encoder.time:
        x = block(x, earlier)
    for bar in range(WINDOW):
        (grad,) = th.autograd.grad(x[:, bar].square().sum(), windows, retain_graph=True)
        by_bar = grad.abs().sum((0, 2, 3))
        assert (by_bar[: bar + 1] > 0).all()
        assert (by_bar[bar + 1 :] > 0).all() != causal or bar == WINDOW - 1
        if causal:
            assert (by_bar[bar + 1 :] == 0).all()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_attention_is_what_the_blocks_use(options: dict[str, Any]) -> None:
    encoder = scrambled(Transformer(FEATURES, WINDOW, **options))
    windows, tradable = inputs()
    attention = encoder.attention(windows, tradable)
    layers, across = len(encoder.time), len(encoder.assets)
    names = [f"time_{i}" for i in range(layers)] + [f"assets_{i}" for i in range(across)]
    assert list(attention) == names
    heads = encoder.time[0].heads
    for name, weights in attention.items():
        assert th.allclose(weights.sum(-1), th.ones(()), atol=1e-5)
        if name.startswith("assets"):
            assert weights.shape == (BATCH, heads, ASSETS, ASSETS)
            seen = (tradable > 0)[:, None] | th.eye(ASSETS, dtype=th.bool)
            assert (weights > 0).eq(seen[:, None]).all()
        else:
            queries = 1 if name == f"time_{layers - 1}" else WINDOW
            assert weights.shape == (BATCH, ASSETS, heads, queries, WINDOW)
            later = th.ones(WINDOW, WINDOW, dtype=th.bool).triu(1)[-queries:]
            assert ((weights == 0) == (later & encoder.causal)).all()

    def mixed(block: AttentionBlock, x: Tensor, weights: Tensor) -> Tensor:
        value = block.key_value(block.norm(x)).chunk(2, -1)[1].unflatten(-1, (heads, -1))
        read = th.einsum("bhij,bjhc->bihc", weights, value).flatten(2)
        x = x[:, -read.shape[1] :] + block.out(read)
        return x + block.mlp(x)

    x = (encoder.inward(windows.transpose(1, 2)) + encoder.positions).flatten(0, 1)
    for i, block in enumerate(encoder.time):
        x = mixed(block, x, attention[f"time_{i}"].flatten(0, 1))
    x = x.view(BATCH, ASSETS, -1)
    for i, block in enumerate(encoder.assets):
        x = mixed(block, x, attention[f"assets_{i}"])
    assert th.allclose(encoder.norm(x), encoder(windows, tradable), atol=1e-5)


def test_positions_are_counted_back_from_the_last_bar() -> None:
    long, short = sinusoids(20, 6), sinusoids(5, 6)
    assert th.allclose(long[-5:], short)
    for age in range(5):
        for pair in range(3):
            angle = age / 10_000 ** (2 * pair / 6)
            row = short[4 - age, 2 * pair : 2 * pair + 2]
            assert th.allclose(row, th.tensor([math.sin(angle), math.cos(angle)]), atol=1e-6)
    assert "positions" not in Transformer(FEATURES, 5).state_dict()
    assert "positions" in Transformer(FEATURES, 5, positions="learned").state_dict()


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_the_order_of_bars_matters(positions: Any) -> None:
    encoder = scrambled(Transformer(FEATURES, WINDOW, **SMALL, positions=positions, causal=False))
    windows, tradable = inputs()
    order = [2, 0, 1, 3, 4, 5, 6]
    assert not th.allclose(encoder(windows[:, order], tradable), encoder(windows, tradable))


@pytest.mark.parametrize("kind", ["large", "constant", "zero"])
def test_gradients_are_finite(kind: str) -> None:
    encoder = Transformer(FEATURES, WINDOW, dropout=0.1, positions="learned")
    windows, tradable = inputs()
    tradable[0] = 0
    finite_at_extremes(encoder, windows, tradable, kind)


def test_dropout_acts_in_training_only() -> None:
    windows, tradable = inputs()
    encoder = Transformer(FEATURES, WINDOW, dropout=0.5)
    assert not th.equal(encoder(windows, tradable), encoder(windows, tradable))
    encoder.eval()
    assert th.equal(encoder(windows, tradable), encoder(windows, tradable))


def test_counts_its_parameters() -> None:
    encoder = Transformer(44, 60)
    block = 4 * (64 * 64 + 64) + (64 * 128 + 128) + (128 * 64 + 64) + 2 * 128
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert count == 44 * 64 + 64 + 3 * block + 128 == 103_424
    assert encoder.mixes_assets and not Transformer(44, 60, asset_layers=0).mixes_assets


def test_refuses_bad_options() -> None:
    for options in (
        {"width": 30},
        {"layers": 0},
        {"asset_layers": -1},
        {"feedforward": 0},
        {"positions": "rotary"},
        {"dropout": 1.0},
    ):
        with pytest.raises(ArgumentError):
            Transformer(FEATURES, WINDOW, **options)


@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu() -> None:
    encoder = scrambled(Transformer(FEATURES, WINDOW))
    windows, tradable = inputs()
    expected = encoder(windows, tradable)
    out = encoder.cuda()(windows.cuda(), tradable.cuda())
    assert th.allclose(out.cpu(), expected, atol=1e-4)
