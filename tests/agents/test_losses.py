"""Losses: against independent formulas, under masks, at the edges."""

import math

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from agents import losses
from agents.losses import MultiTask, sharpe_loss
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


def test_sharpe_loss_per_window_is_the_mean_of_theirs():
    returns = drawn(2)
    own = [sharpe_loss(window[None], 252).item() for window in returns]
    found = sharpe_loss(returns, 252, per_window=True).item()
    assert found == pytest.approx(np.mean(own))
    assert found != pytest.approx(sharpe_loss(returns, 252).item(), rel=1e-3)


def test_sharpe_loss_leaves_out_windows_too_short_for_a_deviation():
    returns, mask = drawn(3), th.ones(SHAPE)
    mask[0, 1:] = mask[1] = 0
    found = sharpe_loss(returns, 252, per_window=True, mask=mask)
    th.testing.assert_close(found, sharpe_loss(returns[2:], 252, per_window=True))


@pytest.mark.parametrize("level", [0.0, 0.01])
@pytest.mark.parametrize("per_window", [False, True])
def test_sharpe_loss_is_finite_at_zero_variance(level, per_window):
    returns = th.full(SHAPE, level, requires_grad=True)
    loss = sharpe_loss(returns, 252, per_window=per_window)
    loss.backward()
    assert loss.isfinite() and returns.grad is not None and returns.grad.isfinite().all()


@pytest.mark.parametrize("returns", [th.zeros(1, 1), th.zeros(5), th.zeros(0, 3)])
def test_sharpe_loss_refuses_what_has_no_deviation(returns):
    with pytest.raises(ArgumentError, match="at least 2"):
        sharpe_loss(returns, 252)


def test_singletons_are_refused_per_window():
    with pytest.raises(ArgumentError, match="at least 2"):
        sharpe_loss(th.zeros(8, 1), 252, per_window=True)


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


def test_log_growth_loss_is_minus_the_mean():
    assert losses.log_growth_loss(drawn(5)).item() == pytest.approx(-drawn(5).mean().item())


@given(seed=st.integers(0, 1000))
def test_gaussian_nll_is_that_of_the_distribution(seed):
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=6), rng.normal(size=6), rng.uniform(0.01, 10, 6)
    y, mean, sigma = map(th.tensor, numbers)
    wanted = -th.distributions.Normal(mean, sigma).log_prob(y).mean().item()
    found = losses.gaussian_nll(y, mean, sigma).item()
    assert found == pytest.approx(wanted - 0.5 * math.log(2 * math.pi))


def test_gaussian_nll_is_lowest_at_the_truth():
    y = th.tensor(np.random.default_rng(0).normal(0.3, 2.0, 10_000))
    mean, log_sigma = (th.zeros(1, dtype=y.dtype, requires_grad=True) for _ in range(2))
    optimizer = th.optim.LBFGS([mean, log_sigma], max_iter=100)

    def closure():
        optimizer.zero_grad()
        loss = losses.gaussian_nll(y, mean.expand_as(y), log_sigma.exp().expand_as(y))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert mean.item() == pytest.approx(y.mean().item(), abs=1e-4)
    assert log_sigma.exp().item() == pytest.approx(y.std(correction=0).item(), rel=1e-3)


def test_gaussian_nll_survives_a_deviation_of_zero():
    sigma = th.zeros(3, requires_grad=True)
    loss = losses.gaussian_nll(th.ones(3), th.zeros(3), sigma)
    loss.backward()
    assert loss.isfinite() and sigma.grad is not None and sigma.grad.isfinite().all()


def test_direction_bce_is_minus_the_log_of_the_probability_given():
    probability = th.tensor([0.2, 0.7, 0.9])
    found = losses.direction_bce(probability.logit(), th.tensor([0.01, -0.02, 0.0]))
    wanted = -(math.log(0.2) + math.log(0.3) + 0.5 * math.log(0.9) + 0.5 * math.log(0.1)) / 3
    assert found.item() == pytest.approx(wanted, rel=1e-5)
    assert losses.direction_bce(th.full((2,), 500.0), th.tensor([-1.0, 1.0])).isfinite()


@pytest.mark.parametrize(("sign", "quantile"), [(-1.0, 0.75), (1.0, 0.5)])
def test_the_best_constant_magnitude_is_the_quantile(sign, quantile):
    realised = sign * th.tensor(np.random.default_rng(1).exponential(0.02, 2001))
    grid = th.linspace(0, 0.1, 1001, dtype=th.float64)
    scores = [losses.asymmetric_magnitude(m.expand_as(realised), realised) for m in grid]
    best = grid[int(th.stack(scores).argmin())]
    assert best.item() == pytest.approx(np.quantile(realised.abs().numpy(), quantile), abs=2e-4)


def test_underestimating_a_loss_costs_three_times_as_much():
    fall = th.tensor([-0.04])
    under, over = (losses.asymmetric_magnitude(th.tensor([m]), fall) for m in (0.02, 0.06))
    assert (under / over).item() == pytest.approx(3.0)
    with pytest.raises(ArgumentError, match="loss_quantile"):
        losses.asymmetric_magnitude(fall, fall, loss_quantile=1.0)


def test_temporal_coherence_is_the_mean_squared_jump():
    states = drawn(6, 3, 10, 4)
    wanted = np.mean(np.diff(states.numpy(), axis=1) ** 2)
    assert losses.temporal_coherence(states).item() == pytest.approx(wanted)
    assert losses.temporal_coherence(th.ones(2, 5, 3)).item() == 0.0
    mask = th.ones(3, 10)
    mask[:, 4] = 0
    states[:, 4] = math.nan
    jumps = np.diff(states.numpy(), axis=1) ** 2
    found = losses.temporal_coherence(states, mask)
    assert found.item() == pytest.approx(np.nanmean(jumps))
    with pytest.raises(ArgumentError, match="at least 2"):
        losses.temporal_coherence(th.zeros(3, 1))


MASKED = {
    "sharpe": lambda r, p, m: sharpe_loss(r + 0 * p, 252, mask=m),
    "sharpe, windows": lambda r, p, m: sharpe_loss(r, 252, per_window=True, mask=m) + 0 * p.sum(),
    "log growth": lambda r, p, m: losses.log_growth_loss(r, m) + 0 * p.sum(),
    "nll": lambda r, p, m: losses.gaussian_nll(r, p, p.abs() + 0.1, m),
    "direction": lambda r, p, m: losses.direction_bce(p, r, m),
    "magnitude": lambda r, p, m: losses.asymmetric_magnitude(p, r, mask=m),
    "value": lambda r, p, m: losses.value_loss(p, r, m),
}


@pytest.mark.parametrize("name", MASKED)
@given(seed=st.integers(0, 1000))
def test_what_a_mask_leaves_out_does_not_matter(name, seed):
    loss, mask = MASKED[name], holes(seed)
    prediction = drawn(seed + 1).requires_grad_()
    first = loss(drawn(seed), prediction, mask)
    (gradient,) = th.autograd.grad(first, prediction)
    broken = drawn(seed).masked_fill(~mask, math.nan)
    second = loss(broken, prediction, mask.double())
    assert th.equal(first, second)
    assert th.equal(gradient, th.autograd.grad(second, prediction)[0])
    assert not gradient[~mask].any()


@pytest.mark.parametrize("name", MASKED)
def test_an_empty_mask_gives_zero_and_no_nan(name):
    prediction = drawn(1).requires_grad_()
    loss = MASKED[name](drawn(0), prediction, th.zeros(SHAPE))
    loss.backward()
    assert loss.item() == 0.0
    assert prediction.grad is not None and prediction.grad.isfinite().all()


def test_a_mask_keeps_the_rest_as_it_would_be_alone():
    mask = th.zeros(SHAPE)
    mask[:2] = 1
    for loss in MASKED.values():
        th.testing.assert_close(
            loss(drawn(0), drawn(1), mask), loss(drawn(0)[:2], drawn(1)[:2], None)
        )


@given(seed=st.integers(0, 1000), gamma=st.floats(0, 1), lam=st.floats(0, 1))
def test_td_lambda_is_the_mixture_of_n_step_returns(seed, gamma, lam):
    rng = np.random.default_rng(seed)
    rewards, values = rng.normal(size=(2, 6)), rng.normal(size=(2, 7))
    found = losses.td_lambda(th.tensor(rewards), th.tensor(values), gamma, lam).numpy()
    for t in range(6):
        n_step = [
            sum(gamma**k * rewards[:, t + k] for k in range(n)) + gamma**n * values[:, t + n]
            for n in range(1, 7 - t)
        ]
        weights = [(1 - lam) * lam**k for k in range(5 - t)] + [lam ** (5 - t)]
        wanted = sum(w * r for w, r in zip(weights, n_step, strict=True))
        np.testing.assert_allclose(found[:, t], wanted, atol=1e-12)


def test_values_do_not_move_their_targets():
    rewards, values = drawn(0).requires_grad_(), drawn(1, 4, 31).requires_grad_()
    target = losses.td_lambda(rewards, values)
    assert not target.requires_grad
    losses.value_loss(values[:, :-1], rewards).backward()
    assert rewards.grad is None and values.grad is not None and values.grad.any()
    with pytest.raises(ArgumentError, match="one value more"):
        losses.td_lambda(rewards, rewards)


def test_stages_are_the_published_weights():
    assert MultiTask.stage(1) == MultiTask(0.0, 1.0, 0.0)
    assert MultiTask.stage(2) == MultiTask(1.0, 0.1, 0.0)
    assert MultiTask.stage(3) == MultiTask(0.5, 0.05, 0.45)
    with pytest.raises(ArgumentError, match="stage 4"):
        MultiTask.stage(4)


@given(weights=st.tuples(*[st.floats(0, 2)] * 3).filter(any))
def test_the_total_and_its_gradients_are_weighted(weights):
    parts = [th.tensor(v, requires_grad=True) for v in (1.5, -2.0, 3.0)]
    total, shown = MultiTask(*weights)(*parts)
    wanted = sum(w * p.item() for w, p in zip(weights, parts, strict=True))
    assert total.item() == pytest.approx(wanted, abs=1e-6)
    assert [part.item() for part in shown.values()] == [1.5, -2.0, 3.0]
    assert not any(part.requires_grad for part in shown.values())
    total.backward()
    for weight, part in zip(weights, parts, strict=True):
        assert (0.0 if part.grad is None else part.grad.item()) == pytest.approx(weight)


def test_a_task_of_weight_zero_cannot_spoil_the_total():
    total, parts = MultiTask.stage(1)(trading=th.tensor(math.nan), prediction=th.tensor(2.0))
    assert total.item() == 2.0 and set(parts) == {"trading", "prediction"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MultiTask.stage(2)(prediction=th.zeros(())), "'trading'"),
        (lambda: MultiTask(0, 0, 0)(th.zeros(())), "all weights"),
        (lambda: MultiTask(trading=-1.0), "trading"),
        (lambda: losses.combine({"a": 1.0}, {"b": th.zeros(())}), "'b'"),
        (lambda: losses.forecast_weights(th.zeros(3), th.ones(3), temperature=0.0), "temperature"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


def test_a_forecast_of_three_losses_adds_up():
    parts = {name: th.tensor(1.0) for name in losses.FORECAST}
    assert losses.combine(losses.FORECAST, parts)[0].item() == pytest.approx(1.0)


@given(seed=st.integers(0, 1000), shift=st.floats(-1, 1))
def test_weights_of_forecasts_are_a_portfolio(seed, shift):
    forecasts, tradable = 100 * drawn(seed, 5, 4), holes(seed, 5, 4)
    weights = losses.forecast_weights(forecasts, tradable, temperature=0.5)
    assert weights.sum(-1).tolist() == pytest.approx([1.0] * 5)
    assert not weights[:, 1:][~tradable].any() and (weights >= 0).all()
    moved = losses.forecast_weights(forecasts + shift, tradable, temperature=0.5, cash=shift)
    th.testing.assert_close(moved, weights)
    nothing = losses.forecast_weights(forecasts, th.zeros(5, 4))
    assert nothing[:, 0].tolist() == [1.0] * 5
