"""Heads behind an encoder: equivariant or invariant, masked, and sigma within smooth bounds."""

import math

import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agents.networks.heads import (
    SIGMA_MAX,
    SIGMA_MIN,
    DirectionHead,
    PredictionHead,
    TradingHead,
    ValueHead,
    bounded_sigma,
)

WIDTH = 8


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    th.set_num_threads(1)
    th.manual_seed(0)


def scrambled(head: nn.Module) -> nn.Module:
    """Parameters of the size that training gives them, so that outputs differ between assets."""
    with th.no_grad():
        for parameter in head.parameters():
            parameter.copy_(0.5 * th.randn_like(parameter))
    return head


def count(head: nn.Module) -> int:
    return sum(parameter.numel() for parameter in head.parameters())


@given(st.integers(0, 2**32 - 1), st.integers(2, 50))
@settings(max_examples=40)
def test_permuting_assets_permutes_what_is_theirs_and_leaves_the_value(seed: int, n: int) -> None:
    generator = th.Generator().manual_seed(seed)
    rows = th.randn(3, n, WIDTH, generator=generator)
    tradable = (th.rand(3, n, generator=generator) < 0.7).float()
    order = th.randperm(n, generator=generator)
    columns = th.cat([th.zeros(1, dtype=th.long), 1 + order])
    trading, value = scrambled(TradingHead(WIDTH)), scrambled(ValueHead(WIDTH))
    weights = trading.weights(rows, tradable)
    permuted = trading.weights(rows[:, order], tradable[:, order])
    assert th.allclose(permuted, weights[:, columns], atol=1e-6)
    assert weights[:, 1:].std() > 0
    assert th.allclose(weights.sum(1), th.ones(3))
    for head in (scrambled(PredictionHead(WIDTH)), scrambled(DirectionHead(WIDTH))):
        for mine, theirs in zip(head(rows[:, order]), head(rows), strict=True):
            assert th.allclose(mine, theirs[..., order], atol=1e-6)
    assert th.allclose(value(rows[:, order], tradable[:, order]), value(rows, tradable), atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(2, 50))
@settings(max_examples=40)
def test_what_cannot_be_traded_is_not_bought_and_not_valued(seed: int, n: int) -> None:
    generator = th.Generator().manual_seed(seed)
    rows = th.randn(3, n, WIDTH, generator=generator)
    tradable = (th.rand(3, n, generator=generator) < 0.5).float()
    other = th.where(tradable[..., None] > 0, rows, 100 * th.randn(rows.shape, generator=generator))
    trading, value = scrambled(TradingHead(WIDTH)), scrambled(ValueHead(WIDTH))
    weights = trading.weights(rows, tradable)
    assert (weights[:, 1:][tradable == 0] == 0).all()
    assert (weights[:, 1:][tradable == 1] > 0).all()
    assert th.allclose(weights, trading.weights(other, tradable))
    assert th.allclose(value(rows, tradable), value(other, tradable))


def test_nothing_tradable_is_all_cash_and_finite() -> None:
    rows, tradable = th.randn(2, 4, WIDTH, requires_grad=True), th.zeros(2, 4)
    weights = TradingHead(WIDTH).weights(rows, tradable)
    assert weights.tolist() == [[1.0, 0, 0, 0, 0]] * 2
    (weights.square().sum() + ValueHead(WIDTH)(rows, tradable).sum()).backward()
    assert rows.grad is not None and rows.grad.isfinite().all()


@given(st.floats(-100, 100))
def test_sigma_stays_within_its_bounds(raw: float) -> None:
    sigma = bounded_sigma(th.tensor(raw)).item()
    assert SIGMA_MIN * (1 - 1e-5) <= sigma <= SIGMA_MAX * (1 + 1e-5)


@given(st.floats(-12, 10))
def test_sigma_has_a_gradient_outside_its_bounds_where_a_clip_has_none(raw: float) -> None:
    x = th.tensor(raw, requires_grad=True)
    bounded_sigma(x).log().backward()
    assert x.grad is not None and 1e-3 < x.grad.item() <= 1 + 1e-6


def test_sigma_is_about_the_exponential_in_the_middle_of_its_range() -> None:
    raw = th.linspace(math.log(0.15), math.log(0.65), 20)
    assert th.allclose(bounded_sigma(raw), raw.exp(), rtol=0.02)


@pytest.mark.parametrize("value", [-10.0, 0.0, 10.0, 1e4])
def test_gradients_are_finite_on_extreme_rows(value: float) -> None:
    rows = th.full((2, 3, WIDTH), value, requires_grad=True)
    mu, sigma = PredictionHead(WIDTH)(rows)
    loss = ((mu - 1) / sigma).square().mean() + sigma.log().mean()
    (loss + DirectionHead(WIDTH)(rows).sum()).backward()
    assert rows.grad is not None and rows.grad.isfinite().all()


def test_bfloat16_keeps_sigma_in_float32() -> None:
    with th.autocast("cpu", dtype=th.bfloat16):
        mu, sigma = PredictionHead(WIDTH)(th.randn(2, 3, WIDTH))
    assert mu.isfinite().all() and sigma.dtype == th.float32


@pytest.mark.parametrize(
    ("width", "original"),
    [(128, (17_157, 17_802, 16_641)), (64, (4_485, 4_810, 4_225))],
)
def test_parameters_against_the_heads_that_were_bound_to_five_assets(
    width: int, original: tuple[int, int, int]
) -> None:
    # Those had a layer of one output per asset after the mean over assets. Here a row has one
    # output (two in prediction), and cash has a logit of its own; the value is the same network.
    n = 5
    trading, prediction, value = original
    output = width + 1
    assert count(TradingHead(width)) == trading - (n - 1) * output + 1
    assert count(PredictionHead(width)) == prediction - 2 * (n - 1) * output
    assert count(ValueHead(width)) == value
    assert count(DirectionHead(width)) == value
