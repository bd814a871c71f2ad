"""Losses as pure functions, finite for constant returns and for empty masks."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from portfolio_env.errors import ArgumentError


def sharpe_loss(
    returns: Tensor,
    periods_per_year: float,
    *,
    weights: Tensor | None = None,
    concentration: float = 0.0,
    eps: float = 1e-4,
) -> Tensor:
    r"""Return minus the yearly Sharpe ratio, plus a penalty on concentrated weights.

    .. math:: -\sqrt{P} \, \frac{\bar r}{\sqrt{s^2 + \epsilon^2}} + c \, \overline{\sum_i w_i^2}

    with the sample variance (divisor n - 1). The mean and the variance are those of all windows
    together, which is the ratio of the whole period; the mean of the ratios of short windows is
    another, much noisier number.

    Args:
        returns: (B, S) simple returns a step, after costs, in contiguous windows of S steps.
        periods_per_year: P, steps a year (365 for daily bars of a market that never closes).
        weights: (B, S, N + 1) held, cash first; needed with ``concentration``, where cash does not
            count.
        concentration: C >= 0.
        eps: Added to the deviation, in quadrature: bounds the loss and its gradient where returns
            are constant, as in cash; at least 1e-6.

    Raises:
        ArgumentError: On fewer than 2 steps, of which no deviation can be taken, or bad numbers.
    """
    n = returns.numel()
    if returns.ndim < 2 or n < 2:
        raise ArgumentError(
            f"returns have shape {tuple(returns.shape)}: need (windows, steps) with at least 2 of "
            "them"
        )
    if not eps >= 1e-6 or not periods_per_year > 0 or concentration < 0:
        raise ArgumentError(
            f"eps={eps}, periods_per_year={periods_per_year}, concentration={concentration}: need "
            "eps >= 1e-6, periods_per_year > 0, concentration >= 0"
        )
    mean = returns.mean()
    variance = (returns - mean).square().sum() / (n - 1)
    loss = -math.sqrt(periods_per_year) * (mean / (variance + eps**2).sqrt())
    if concentration:
        if weights is None:
            raise ArgumentError("concentration needs the weights held; pass weights=")
        loss = loss + concentration * weights[..., 1:].square().sum(-1).mean()
    return loss


def gaussian_nll(
    realised: Tensor, mean: Tensor, sigma: Tensor, mask: Tensor, eps: float = 1e-4
) -> Tensor:
    """Return the mean Gaussian negative log likelihood, less its constant; 0 without forecasts.

    Args:
        realised: Realised values, of any shape.
        mean: Forecast, same shape.
        sigma: Standard deviation, same shape; below ``eps`` it counts as ``eps``.
        mask: Same shape, 1 or True where a forecast counts; what happened may be NaN elsewhere.
        eps: Lower bound of ``sigma``.
    """
    kept, sigma = realised.masked_fill(mask <= 0, 0.0), sigma.clamp_min(eps)
    return _mean(sigma.log() + 0.5 * ((kept - mean) / sigma).square(), mask)


def direction_loss(realised: Tensor, logit: Tensor, mask: Tensor) -> Tensor:
    """Return the mean cross-entropy of forecasts that a return is positive; 0 without forecasts.

    Args:
        realised: Realised returns, of any shape; one of 0 is not positive.
        logit: Log odds of a positive return, same shape.
        mask: See ``gaussian_nll``.
    """
    up = (realised > 0).to(logit.dtype)
    return _mean(binary_cross_entropy_with_logits(logit, up, reduction="none"), mask)


def magnitude_loss(
    realised: Tensor, magnitude: Tensor, mask: Tensor, underestimation: float = 2.0
) -> Tensor:
    """Return the mean squared error of forecast sizes of returns; 0 without forecasts.

    Args:
        realised: Realised returns, of any shape.
        magnitude: Forecast of their absolute values, same shape.
        mask: See ``gaussian_nll``.
        underestimation: Weight of the errors on losses that were larger than forecast; the others
            weigh 1.
    """
    kept = realised.masked_fill(mask <= 0, 0.0)
    error = kept.abs() - magnitude
    weight = 1.0 + (underestimation - 1.0) * ((kept < 0) & (error > 0))
    return _mean(weight * error.square(), mask)


def coherence_loss(forecast: Tensor, t: Tensor, mask: Tensor) -> Tensor:
    """Return the mean squared change of forecasts from a bar to the next; 0 without any pair.

    Args:
        forecast: (B, N).
        t: (B,) bars; rows that follow each other by one bar make a pair.
        mask: (B, N), see ``gaussian_nll``; both of a pair count.
    """
    follows = (t[1:] == t[:-1] + 1)[:, None]
    return _mean(
        (forecast[1:] - forecast[:-1]).square(), (mask[1:] > 0) & (mask[:-1] > 0) & follows
    )


def _mean(each: Tensor, mask: Tensor) -> Tensor:
    """Return the mean where the mask is positive; 0 where it is nowhere."""
    counts = mask > 0
    return each.masked_fill(~counts, 0.0).sum() / counts.sum().clamp_min(1)
