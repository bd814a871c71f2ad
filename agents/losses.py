"""Losses as pure functions: masked means, finite for constant returns and for empty masks.

A mask is 1 or True where a value counts; what it leaves out may be NaN. Returns are simple returns
after costs over contiguous windows, e.g. ``expm1`` of `agents.direct.simulator.Economics.roll`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch as th
from torch import Tensor
from torch.nn import functional as nnf

from portfolio_env.errors import ArgumentError

FORECAST = {"direction": 0.4, "magnitude": 0.4, "coherence": 0.2}
"""Weights of the losses of a forecast of direction, magnitude and uncertainty, for `combine`."""


def masked(values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Values with 0 where the mask is, and the weight of each, of the shape of the values."""
    if mask is None:
        return values, th.ones_like(values)
    counts = mask.expand_as(values) > 0
    return values.masked_fill(~counts, 0.0), counts.to(values.dtype)


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    kept, weight = masked(values, mask)
    return kept.sum() / weight.sum().clamp_min(1.0)


def sharpe_loss(
    returns: Tensor,
    periods_per_year: float,
    *,
    weights: Tensor | None = None,
    concentration: float = 0.0,
    per_window: bool = False,
    eps: float = 1e-4,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Minus the Sharpe ratio a year, plus a penalty on concentrated weights.

    .. math:: -\sqrt{P} \, \frac{\bar r}{\sqrt{s^2 + \epsilon^2}} + c \, \overline{\sum_i w_i^2}

    with the sample variance (divisor n - 1). The mean and the variance are those of all windows
    together, which is the ratio of the whole period; the mean of the ratios of short windows is
    another, much noisier number.

    Args:
        returns: (B, S) simple returns a step, after costs, in contiguous windows of S steps.
        periods_per_year: P, steps a year (365 for daily bars of a market that never closes).
        weights: (B, S, N + 1) held, cash first; needed with ``concentration``, where cash does not
            count.
        concentration: c >= 0.
        per_window: the mean of the windows' own ratios instead. Windows with fewer than 2 returns
            are left out.
        eps: added to the deviation, in quadrature: bounds the loss and its gradient where returns
            are constant, as in cash; at least 1e-6.
        mask: (B, S).

    Raises:
        ArgumentError: on fewer than 2 steps, of which no deviation can be taken, or bad numbers.
    """
    _check_steps("returns", returns, 1 if not per_window else 2)
    if not eps >= 1e-6 or not periods_per_year > 0 or concentration < 0:
        raise ArgumentError(
            f"eps={eps}, periods_per_year={periods_per_year}, concentration={concentration}: need "
            "eps >= 1e-6, periods_per_year > 0, concentration >= 0"
        )
    kept, weight = masked(returns, mask)
    if not per_window:
        kept, weight = kept.reshape(1, -1), weight.reshape(1, -1)
    n = weight.sum(1)
    mean = kept.sum(1) / n.clamp_min(1.0)
    spread = ((kept - mean[:, None]) * weight).square().sum(1) / (n - 1).clamp_min(1.0)
    ratio = mean / (spread + eps**2).sqrt()
    loss = -math.sqrt(periods_per_year) * _mean(ratio, n >= 2)
    if concentration:
        if weights is None:
            raise ArgumentError("concentration needs the weights held; pass weights=")
        loss = loss + concentration * _mean(weights[..., 1:].square().sum(-1), mask)
    return loss


def log_growth_loss(log_growth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Minus the mean log growth a step, of any shape."""
    return -_mean(log_growth, mask)


def gaussian_nll(
    realised: Tensor, mean: Tensor, sigma: Tensor, mask: Tensor | None = None, eps: float = 1e-4
) -> Tensor:
    """Negative log likelihood of Gaussian forecasts, less its constant.

    Args:
        realised: what happened, of any shape.
        mean: forecast, same shape.
        sigma: its standard deviation, same shape; below ``eps`` it counts as ``eps``.
        mask: same shape.
        eps: lower bound of ``sigma``.
    """
    kept, _ = masked(realised, mask)
    sigma = sigma.clamp_min(eps)
    return _mean(sigma.log() + 0.5 * ((kept - mean) / sigma).square(), mask)


def direction_bce(logits: Tensor, realised: Tensor, mask: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of the probability of a rise; no move counts as half a rise.

    Args:
        logits: of the probability that ``realised`` is positive, any shape.
        realised: returns, same shape.
        mask: same shape.
    """
    kept, _ = masked(realised, mask)
    rises = 0.5 * (1 + kept.sign())
    return _mean(nnf.binary_cross_entropy_with_logits(logits, rises, reduction="none"), mask)


def asymmetric_magnitude(
    predicted: Tensor,
    realised: Tensor,
    loss_quantile: float = 0.75,
    gain_quantile: float = 0.5,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Quantile loss of the size of a move, stricter about losses that were underestimated.

    .. math:: \max(\tau e, (\tau - 1) e), \quad e = |r| - m

    with the quantile ``tau`` of falls or of rises (Koenker & Bassett, 1978): the best ``m`` for
    falls is their ``loss_quantile``. At .75 an underestimate costs three times an overestimate.

    Args:
        predicted: m >= 0, any shape.
        realised: returns r, same shape.
        loss_quantile: in (0, 1), for r < 0.
        gain_quantile: in (0, 1), for the others.
        mask: same shape.
    """
    for name, value in (("loss_quantile", loss_quantile), ("gain_quantile", gain_quantile)):
        if not 0 < value < 1:
            raise ArgumentError(f"{name}={value}: it must be in (0, 1)")
    kept, _ = masked(realised, mask)
    error = kept.abs() - predicted
    quantile = th.full_like(error, gain_quantile).masked_fill(kept < 0, loss_quantile)
    return _mean(th.maximum(quantile * error, (quantile - 1) * error), mask)


def temporal_coherence(states: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared change of hidden states or predictions from one step to the next.

    Args:
        states: (B, S, ...) along S steps.
        mask: (B, S); a change counts where both its ends do.

    Raises:
        ArgumentError: on fewer than 2 steps.
    """
    _check_steps("states", states, 2)
    changes = (states[:, 1:] - states[:, :-1]).square().flatten(2).mean(2)
    return _mean(changes, None if mask is None else (mask[:, 1:] > 0) & (mask[:, :-1] > 0))


def value_loss(predicted: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error of values; no gradient reaches the target, nor the policy behind it."""
    return _mean((predicted - masked(target.detach(), mask)[0]).square(), mask)


def td_lambda(rewards: Tensor, values: Tensor, gamma: float = 0.9, lam: float = 0.95) -> Tensor:
    r"""Targets of values along windows, without gradient.

    .. math:: G_t = r_t + \gamma ((1 - \lambda) V_{t+1} + \lambda G_{t+1}), \quad G_S = V_S

    (Sutton & Barto, 2018, section 12.1).

    Args:
        rewards: (B, S).
        values: (B, S + 1), of the states before each reward and after the last.
        gamma: discount in [0, 1].
        lam: in [0, 1]; 0 looks one step ahead, 1 to the end of the window.

    Returns:
        (B, S)
    """
    if values.shape != (rewards.shape[0], rewards.shape[1] + 1):
        raise ArgumentError(
            f"values have shape {tuple(values.shape)}: rewards {tuple(rewards.shape)} need one "
            "value more than rewards in each window"
        )
    rewards, values = rewards.detach(), values.detach()
    ahead, targets = values[:, -1], []
    for k in reversed(range(rewards.shape[1])):
        ahead = rewards[:, k] + gamma * ((1 - lam) * values[:, k + 1] + lam * ahead)
        targets.append(ahead)
    return th.stack(targets[::-1], 1)


def combine(
    weights: Mapping[str, float], losses: Mapping[str, Tensor | None]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of losses, and the unweighted parts without gradient.

    A loss of weight 0 is not part of the sum (a NaN in it does no harm) and may be None.

    Raises:
        ArgumentError: on names that do not match, a missing loss, or nothing to sum.
    """
    if unknown := set(losses) - set(weights):
        raise ArgumentError(f"no weight for {sorted(unknown)}; there are {sorted(weights)}")
    terms = []
    for name, weight in weights.items():
        loss = losses.get(name)
        if weight and loss is None:
            raise ArgumentError(f"the loss {name!r} has weight {weight} but is missing; pass it")
        if weight and loss is not None:
            terms.append(weight * loss)
    if not terms:
        raise ArgumentError(f"all weights are 0 in {dict(weights)}; give one that is not")
    parts = {name: loss.detach() for name, loss in losses.items() if loss is not None}
    return th.stack(terms).sum(), parts


@dataclass(frozen=True)
class MultiTask:
    """Weights of the objectives of one network with heads for trading, prediction and value.

    Attributes:
        trading: >= 0, as the others.
        prediction: of forecasts of returns.
        value: of values of states.
    """

    trading: float = 1.0
    prediction: float = 0.1
    value: float = 0.0

    def __post_init__(self) -> None:
        """Check every weight."""
        for name, weight in vars(self).items():
            if not 0 <= weight < math.inf:
                raise ArgumentError(f"{name}={weight}: it must be a number of at least 0")

    @classmethod
    def stage(cls, number: int) -> MultiTask:
        """The weights of stage 1 (prediction), 2 (trading) or 3 (with values).

        >>> MultiTask.stage(3)
        MultiTask(trading=0.5, prediction=0.05, value=0.45)
        """
        stages = {1: cls(0.0, 1.0, 0.0), 2: cls(1.0, 0.1, 0.0), 3: cls(0.5, 0.05, 0.45)}
        if number not in stages:
            raise ArgumentError(f"stage {number} is unknown; choose 1, 2 or 3")
        return stages[number]

    def __call__(
        self,
        trading: Tensor | None = None,
        prediction: Tensor | None = None,
        value: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total and its parts by name, see `combine`."""
        losses = {"trading": trading, "prediction": prediction, "value": value}
        return combine(vars(self), losses)


def forecast_weights(
    forecasts: Tensor, tradable: Tensor, temperature: float = 1.0, cash: float = 0.0
) -> Tensor:
    """Weights (..., N + 1), cash first, from forecasts: a softmax with cash at a fixed score.

    Args:
        forecasts: (..., N) expected returns or scores.
        tradable: (..., N), 1 or 0; what cannot be traded gets weight 0.
        temperature: > 0 by which scores are divided.
        cash: score of cash, in units of the forecasts.
    """
    if not temperature > 0:
        raise ArgumentError(f"temperature={temperature}: it must be positive")
    scores = nnf.pad(forecasts.masked_fill(tradable <= 0, -math.inf), (1, 0), value=cash)
    return (scores / temperature).softmax(-1)


def _check_steps(name: str, values: Tensor, steps: int) -> None:
    if values.ndim < 2 or values.shape[1] < steps or values.shape[0] * values.shape[1] < 2:
        raise ArgumentError(
            f"{name} have shape {tuple(values.shape)}: need (windows, steps) with at least "
            f"{max(steps, 2)} of them"
        )
