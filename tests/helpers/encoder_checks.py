"""What every encoder promises, as checks of a function that builds one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch as th
from torch import Tensor

from agents.networks.base import Encoder

BATCH, WINDOW, ASSETS, FEATURES = 3, 7, 4, 5
Make = Callable[..., Encoder]
Inputs = tuple[Tensor, Tensor, Tensor | None]


def build(make: Make, features: int = FEATURES, window: int = WINDOW, **options: Any) -> Encoder:
    th.set_num_threads(1)
    th.manual_seed(0)
    return make(features, window, **options).eval()


def inputs(encoder: Encoder, batch: int = BATCH, assets: int = ASSETS, labels: int = 3) -> Inputs:
    generator = th.Generator().manual_seed(1)
    shape = (batch, encoder.bars, assets, encoder.n_features)
    windows = th.randn(shape, generator=generator)
    tradable = th.ones(batch, assets)
    tradable[:, -1] = 0.0
    if not encoder.uses_codes:
        return windows, tradable, None
    return windows, tradable, th.randint(0, labels, (batch, assets, 2), generator=generator)


def shape(make: Make) -> None:
    for features, window, batch, assets in [(FEATURES, WINDOW, 3, 4), (1, 1, 1, 1), (2, 1, 2, 9)]:
        encoder = build(make, features, window)
        out = encoder(*inputs(encoder, batch, assets))
        assert out.shape == (batch, assets, encoder.channels)
        assert out.dtype == th.float32 and out.isfinite().all()
        assert len(out.flatten(0, 1).unique(dim=0)) == batch * assets  # it reads its input


def number_of_assets_is_free(make: Make) -> None:
    encoder = build(make)
    windows, tradable, codes = inputs(encoder, assets=12)
    few = encoder(windows[:, :, :5], tradable[:, :5], None if codes is None else codes[:, :5])
    assert few.shape == (BATCH, 5, encoder.channels)
    if not encoder.mixes_assets:
        th.testing.assert_close(few, encoder(windows, tradable, codes)[:, :5])


def order_of_assets_carries_over(make: Make) -> None:
    encoder = build(make)
    windows, tradable, codes = inputs(encoder)
    order = th.tensor([2, 0, 3, 1])
    moved = encoder(
        windows[:, :, order], tradable[:, order], None if codes is None else codes[:, order]
    )
    th.testing.assert_close(
        moved, encoder(windows, tradable, codes)[:, order], atol=1e-5, rtol=1e-5
    )


def untradable_assets_stay_apart(make: Make) -> None:
    """Their windows change nothing for the others; their own output is finite."""
    encoder = build(make)
    windows, tradable, codes = inputs(encoder)
    other = windows.clone()
    other[:, :, -1] = 10.0
    out, changed = encoder(windows, tradable, codes), encoder(other, tradable, codes)
    assert th.equal(out[:, :-1], changed[:, :-1]) and changed.isfinite().all()
    assert encoder(windows, th.zeros_like(tradable), codes).isfinite().all()


def rows_of_a_batch_stay_apart(make: Make) -> None:
    for training in (False, True):
        encoder = build(make).train(training)
        windows, tradable, codes = inputs(encoder)
        other = windows.clone()
        other[1:] = -3.0
        out, changed = encoder(windows, tradable, codes), encoder(other, tradable, codes)
        th.testing.assert_close(out[0], changed[0])


def gradients_are_finite(make: Make) -> None:
    """At the bound of features, where they jump between bounds, and where nothing moves."""
    for case in ("bound", "jumps", "constant", "zero"):
        encoder = build(make).train()
        windows, tradable, codes = inputs(encoder)
        values = {
            "bound": windows.sign() * 10,
            "jumps": windows.sign() * 10 * th.tensor([1.0, -1.0] * WINDOW)[:WINDOW, None, None],
            "constant": th.full_like(windows, 0.3),
            "zero": th.zeros_like(windows),
        }
        windows = values[case].requires_grad_()
        out = encoder(windows, tradable, codes)
        assert out.isfinite().all()
        # An output that LayerNorm made has a constant sum, so weigh it.
        (out * th.linspace(-1, 1, encoder.channels)).sum().backward()
        gradients = [windows.grad, *(weight.grad for weight in encoder.parameters())]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def every_weight_learns(make: Make) -> None:
    encoder = build(make).train()
    windows, tradable, codes = inputs(encoder, batch=8)
    (encoder(windows, tradable, codes) ** 3).sum().backward()
    idle = [
        name
        for name, weight in encoder.named_parameters()
        if weight.grad is None or not weight.grad.abs().max() > 0
    ]
    assert not idle


def evaluation_is_deterministic(make: Make) -> None:
    encoder = build(make, dropout=0.5)
    given = inputs(encoder)
    assert th.equal(encoder(*given), encoder(*given))
    encoder.train()
    assert not th.equal(encoder(*given), encoder(*given))
    plain = build(make).train()
    assert th.equal(plain(*given), plain(*given))


def cuda_is_equal(make: Make) -> None:
    if not th.cuda.is_available():
        pytest.skip("needs a CUDA device")
    encoder = build(make)
    given = inputs(encoder)
    exact = encoder(*given)
    there = [None if part is None else part.cuda() for part in given]
    encoder.cuda()
    th.testing.assert_close(encoder(*there).cpu(), exact, atol=1e-3, rtol=1e-3)


def attention_sums_to_one(make: Make) -> None:
    encoder = build(make, dropout=0.5).train()
    for weights in encoder.attention(*inputs(encoder)).values():
        assert weights.shape[:2] == (BATCH, ASSETS) and (weights >= 0).all()
        th.testing.assert_close(weights.sum(-1), th.ones(weights.shape[:-1]))
        assert weights.std() > 0


CHECKS = [
    shape,
    number_of_assets_is_free,
    order_of_assets_carries_over,
    untradable_assets_stay_apart,
    rows_of_a_batch_stay_apart,
    gradients_are_finite,
    every_weight_learns,
    evaluation_is_deterministic,
    cuda_is_equal,
]


def parameters(module: th.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def scrambled(module: Any) -> Any:
    """Parameters of the size that training gives them, in evaluation mode."""
    with th.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * th.randn_like(parameter))
    return module.eval()


def finite_at_extremes(encoder: Encoder, windows: Tensor, tradable: Tensor, kind: str) -> None:
    """Output and gradients at the bounds, at constant and at empty windows."""
    windows = {
        "large": 10 * windows.sign(),
        "constant": windows[:, :1].expand_as(windows),
        "zero": th.zeros_like(windows),
    }[kind].clone()
    windows.requires_grad_()
    out = encoder(windows, tradable)
    assert out.isfinite().all()
    out.square().sum().backward()
    assert windows.grad is not None and windows.grad.isfinite().all()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
