"""The head of forecasts: equivariant, and sigma within smooth bounds."""

import math

import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agents.networks.heads import SIGMA_MAX, SIGMA_MIN, PredictionHead, bounded_sigma

WIDTH = 8


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
def test_permuting_assets_permutes_forecasts(seed: int, n: int) -> None:
    generator = th.Generator().manual_seed(seed)
    rows = th.randn(3, n, WIDTH, generator=generator)
    order = th.randperm(n, generator=generator)
    head = scrambled(PredictionHead(WIDTH))
    for mine, theirs in zip(head(rows[:, order]), head(rows), strict=True):
        assert th.allclose(mine, theirs[..., order], atol=1e-6)
        assert theirs.std() > 0


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
    (((mu - 1) / sigma).square().mean() + sigma.log().mean()).backward()
    assert rows.grad is not None and rows.grad.isfinite().all()


@pytest.mark.parametrize(("width", "original"), [(128, 17_802), (64, 4_810)])
def test_parameters_against_the_head_that_was_bound_to_five_assets(
    width: int, original: int
) -> None:
    # That had two outputs per asset after the mean over assets; here a row has two.
    assert count(PredictionHead(width)) == original - 2 * 4 * (width + 1)
