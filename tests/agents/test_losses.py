"""Losses: against independent formulas, under masks, at the edges."""

import math

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from agents import losses
from agents.losses import sharpe_loss
from portfolio_env import ArgumentError, metrics

SHAPE = (4, 30)


def drawn(seed: int, *shape: int) -> th.Tensor:
    return th.tensor(np.random.default_rng(seed).normal(0.001, 0.02, shape or SHAPE))


def holes(seed: int, *shape: int) -> th.Tensor:
    return th.tensor(np.random.default_rng(seed).random(shape or SHAPE) < 0.7)


@given(seed=st.integers(0, 1000), periods=st.sampled_from([12.0, 252.0, 365.0]))
def test_sharpe_loss_is_minus_the_ratio_of_the_whole_period(seed, periods):
    returns = drawn(seed)
    r = returns.numpy().ravel()
    wanted = -math.sqrt(periods) * r.mean() / r.std(ddof=1)
    assert sharpe_loss(returns, periods, eps=1e-6).item() == pytest.approx(wanted, rel=1e-6)


def test_sharpe_loss_agrees_with_the_evaluation():
    returns = drawn(1, 1, 250)
    values = np.r_[1.0, np.cumprod(1 + returns.numpy()[0])]
    wanted = -metrics.sharpe(metrics.simple_returns(values), 365)
    assert sharpe_loss(returns, 365, eps=1e-6).item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("level", [0.0, 0.01])
def test_sharpe_loss_is_finite_at_zero_variance(level):
    returns = th.full(SHAPE, level, requires_grad=True)
    loss = sharpe_loss(returns, 252)
    loss.backward()
    assert loss.isfinite() and returns.grad is not None and returns.grad.isfinite().all()


@pytest.mark.parametrize("returns", [th.zeros(1, 1), th.zeros(5), th.zeros(0, 3)])
def test_sharpe_loss_refuses_what_has_no_deviation(returns):
    with pytest.raises(ArgumentError, match="at least 2"):
        sharpe_loss(returns, 252)


@pytest.mark.parametrize(
    "options", [{"eps": 0.0}, {"periods_per_year": 0.0}, {"concentration": -1.0}]
)
def test_sharpe_loss_refuses_bad_numbers(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        sharpe_loss(drawn(0), **({"periods_per_year": 252.0} | options))


def test_concentration_counts_assets_and_not_cash():
    returns, weights = drawn(4), th.zeros(*SHAPE, 5, dtype=th.float64)
    weights[..., 0] = 1.0
    plain = sharpe_loss(returns, 252)
    th.testing.assert_close(sharpe_loss(returns, 252, weights=weights, concentration=0.1), plain)
    weights[..., 0], weights[..., 2], weights[..., 3] = 0.2, 0.5, 0.3
    found = sharpe_loss(returns, 252, weights=weights, concentration=0.1)
    assert (found - plain).item() == pytest.approx(0.1 * 0.34)
    with pytest.raises(ArgumentError, match="weights"):
        sharpe_loss(returns, 252, concentration=0.1)


@given(seed=st.integers(0, 1000))
def test_gaussian_nll_is_that_of_the_distribution(seed):
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=6), rng.normal(size=6), rng.uniform(0.01, 10, 6)
    y, mean, sigma = map(th.tensor, numbers)
    wanted = -th.distributions.Normal(mean, sigma).log_prob(y).mean().item()
    found = losses.gaussian_nll(y, mean, sigma, th.ones(6)).item()
    assert found == pytest.approx(wanted - 0.5 * math.log(2 * math.pi))


def test_gaussian_nll_is_lowest_at_the_truth():
    y = th.tensor(np.random.default_rng(0).normal(0.3, 2.0, 10_000))
    mean, log_sigma = (th.zeros(1, dtype=y.dtype, requires_grad=True) for _ in range(2))
    optimizer = th.optim.LBFGS([mean, log_sigma], max_iter=100)

    def closure():
        optimizer.zero_grad()
        loss = losses.gaussian_nll(
            y, mean.expand_as(y), log_sigma.exp().expand_as(y), th.ones_like(y)
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    assert mean.item() == pytest.approx(y.mean().item(), abs=1e-4)
    assert log_sigma.exp().item() == pytest.approx(y.std(correction=0).item(), rel=1e-3)


def test_gaussian_nll_survives_a_deviation_of_zero():
    sigma = th.zeros(3, requires_grad=True)
    loss = losses.gaussian_nll(th.ones(3), th.zeros(3), sigma, th.ones(3))
    loss.backward()
    assert loss.isfinite() and sigma.grad is not None and sigma.grad.isfinite().all()


@given(seed=st.integers(0, 1000))
def test_what_a_mask_leaves_out_does_not_matter(seed):
    mask, mean = holes(seed), drawn(seed + 1).requires_grad_()
    first = losses.gaussian_nll(drawn(seed), mean, mean.abs() + 0.1, mask)
    (gradient,) = th.autograd.grad(first, mean)
    broken = drawn(seed).masked_fill(~mask, math.nan)
    second = losses.gaussian_nll(broken, mean, mean.abs() + 0.1, mask.double())
    assert th.equal(first, second)
    assert th.equal(gradient, th.autograd.grad(second, mean)[0])
    assert not gradient[~mask].any()


def test_an_empty_mask_gives_zero_and_no_nan():
    mean = drawn(1).requires_grad_()
    loss = losses.gaussian_nll(drawn(0), mean, mean.abs() + 0.1, th.zeros(SHAPE))
    loss.backward()
    assert loss.item() == 0.0
    assert mean.grad is not None and mean.grad.isfinite().all()


def test_a_mask_keeps_the_rest_as_it_would_be_alone():
    mask = th.zeros(SHAPE)
    mask[:2] = 1
    given = drawn(0), drawn(1), drawn(2).abs() + 0.1
    alone = losses.gaussian_nll(*(part[:2] for part in given), th.ones(2, SHAPE[1]))
    th.testing.assert_close(losses.gaussian_nll(*given, mask), alone)
