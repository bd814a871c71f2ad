"""Tasks of supervised learning: the head of an encoder, its loss, and the forecast it stands for.

Every task answers with the same forecast, so that all are judged alike: the mean and the standard
deviation of each asset's return, and the probability that it is positive.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch as th
from torch import Tensor, nn

from agents.forecasts import NextReturns
from agents.losses import coherence_loss, direction_loss, gaussian_nll, magnitude_loss
from agents.networks.heads import DirectionHead, HybridHead, PredictionHead
from portfolio_env.checks import check_choice, check_number, from_object


class Forecast(NamedTuple):
    """Forecast of returns in the unit of ``NextReturns``, (B, N) each.

    Attributes:
        mean: Expected return.
        sigma: Its standard deviation.
        up: Probability that the return is positive.
    """

    mean: Tensor
    sigma: Tensor
    up: Tensor


class Task(Protocol):
    """Task protocol: what a head learns, and how its outputs are read."""

    name: ClassVar[str]
    loss_name: ClassVar[str]
    """Name of the loss in curves."""
    neighbours: ClassVar[int]
    """Bars in a row that a batch keeps together."""

    def head(self, width: int) -> nn.Module:
        """Return a new head for rows of that width."""

    def loss(self, outputs: Any, returns: NextReturns, t: Tensor) -> Tensor:
        """Return the loss of the head's outputs at bars t, on the device of the returns."""

    def forecast(self, outputs: Any, size: float) -> Forecast:
        """Return the forecast of the head's outputs; see ``NextReturns.size``."""


@dataclass(frozen=True)
class Regression:
    """Mean and deviation of the return, by its Gaussian likelihood."""

    name: ClassVar[str] = "return"
    loss_name: ClassVar[str] = "nll"
    neighbours: ClassVar[int] = 1

    def head(self, width: int) -> nn.Module:
        """Return a ``PredictionHead``."""
        return PredictionHead(width)

    def loss(self, outputs: Any, returns: NextReturns, t: Tensor) -> Tensor:
        """Return the negative log likelihood."""
        mean, sigma = outputs
        return returns.nll(mean, sigma, t)

    def forecast(self, outputs: Any, size: float) -> Forecast:
        """Return mean and deviation as they are, and the Gaussian probability of a gain."""
        mean, sigma = outputs
        return Forecast(mean, sigma, th.special.ndtr(mean / sigma))


@dataclass(frozen=True)
class Classification:
    """Probability that the return is positive, by its cross-entropy.

    For what needs returns, a gain and a loss have the mean size of the training range: the mean is
    ``(2 p - 1) size``, and the deviation is what remains of a mean square of 1.
    """

    name: ClassVar[str] = "direction"
    loss_name: ClassVar[str] = "loss"
    neighbours: ClassVar[int] = 1

    def head(self, width: int) -> nn.Module:
        """Return a ``DirectionHead``."""
        return DirectionHead(width)

    def loss(self, outputs: Any, returns: NextReturns, t: Tensor) -> Tensor:
        """Return the cross-entropy."""
        return direction_loss(returns.target[t], outputs[0], returns.mask[t])

    def forecast(self, outputs: Any, size: float) -> Forecast:
        """Return the probability, and the two-point distribution that it stands for."""
        up = outputs[0].sigmoid()
        mean = (2 * up - 1) * size
        return Forecast(mean, (1 - mean.square()).clamp_min(1e-4).sqrt(), up)


@dataclass(frozen=True)
class Hybrid:
    """Direction, magnitude and uncertainty, from three heads and one loss.

    The mean return is ``(2 p - 1) m``, of the probability of a gain and the size forecast; sigma is
    its deviation. The loss is ``direction`` x cross-entropy + ``magnitude`` x squared error of the
    size + ``uncertainty`` x Gaussian likelihood + ``coherence`` x squared change of the mean from
    bar to bar.

    Attributes:
        direction: Weight.
        magnitude: Weight.
        uncertainty: Weight.
        coherence: Weight.
        underestimation: Weight of losses that were larger than forecast, see ``magnitude_loss``.
    """

    direction: float = 0.4
    magnitude: float = 0.4
    uncertainty: float = 0.2
    coherence: float = 0.05
    underestimation: float = 2.0

    name: ClassVar[str] = "hybrid"
    loss_name: ClassVar[str] = "loss"
    neighbours: ClassVar[int] = 8

    def __post_init__(self) -> None:
        """Check every weight."""
        for name in ("direction", "magnitude", "uncertainty", "coherence"):
            check_number(name, getattr(self, name), 0)
        check_number("underestimation", self.underestimation, above=0)

    def head(self, width: int) -> nn.Module:
        """Return a ``HybridHead``."""
        return HybridHead(width)

    def loss(self, outputs: Any, returns: NextReturns, t: Tensor) -> Tensor:
        """Return the weighted sum of the losses."""
        logit, magnitude, sigma = outputs
        realised, mask = returns.target[t], returns.mask[t]
        mean = self.forecast(outputs, 1.0).mean
        return (
            self.direction * direction_loss(realised, logit, mask)
            + self.magnitude * magnitude_loss(realised, magnitude, mask, self.underestimation)
            + self.uncertainty * gaussian_nll(realised, mean, sigma, mask)
            + self.coherence * coherence_loss(mean, t, mask)
        )

    def forecast(self, outputs: Any, size: float) -> Forecast:
        """Return the mean of direction and size, the deviation, and the probability."""
        logit, magnitude, sigma = outputs
        up = logit.sigmoid()
        return Forecast((2 * up - 1) * magnitude, sigma, up)


TASKS: dict[str, type[Any]] = {each.name: each for each in (Regression, Classification, Hybrid)}
"""Tasks by name: "return", "direction", "hybrid"."""


def make_task(name: str, **options: Any) -> Task:
    """Return a task by name.

    Args:
        name: One of ``TASKS``.
        **options: Options of the task; "hybrid" has weights, see ``Hybrid``.

    Raises:
        ArgumentError: If there is no such task, or it does not take an option.
    """
    kind = TASKS[check_choice("task", name, tuple(TASKS))]
    made: Task = from_object(kind, asdict(kind()) | options, f"task {name}")
    return made
