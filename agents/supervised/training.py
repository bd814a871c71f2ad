"""The trainer of forecasts: an encoder and a head learn what follows each bar, without trading.

It is stage 1 of a curriculum too, which trains in stages: 1 forecasts, 2 net growth by its gradient
(``direct.agent``), 3 the algorithm of reinforcement learning. Each stage starts from the encoder of
the one before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch as th
from numpy.typing import NDArray
from torch import Tensor

from agents.encoding.market_encoder import MarketEncoder, market_tensors
from agents.encoding.memory import copied_to
from agents.fitting import Fit, FitOptions
from agents.forecasts import Calibration, NextReturns
from agents.supervised.tasks import Forecast, Regression, Task
from portfolio_env.checks import check_choice, check_integer
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market


@dataclass(frozen=True)
class SupervisedOptions(FitOptions):
    """Options of training forecasts.

    Attributes:
        epochs: Passes over the training range, at most; a round is an epoch.
        batch: Bars per batch.
        accumulation: Batches per gradient step; what is left at the end of an epoch is a step too.
        measure: Criterion of validation: "loss", or "accuracy" of the direction.
    """

    epochs: int = 20
    batch: int = 64
    accumulation: int = 1
    measure: Literal["loss", "accuracy"] = "loss"
    patience: int | None = 5

    def __post_init__(self) -> None:
        """Check every number."""
        super().__post_init__()
        for name in ("epochs", "batch", "accumulation"):
            check_integer(name, getattr(self, name))
        check_choice("measure", self.measure, ("loss", "accuracy"))


class SupervisedTrainer:
    """Fit an encoder and its head to the returns that follow each bar.

    Targets never reach beyond the range they belong to, see ``NextReturns``.

    Args:
        embeddings: An encoder with the head of the task; it is bound to the market.
        market: Market with the encoder's features.
        train: Half-open range of bars.
        validation: Half-open range on which training is stopped.
        options: See ``SupervisedOptions``.
        task: Task of the head, see ``agents.supervised.tasks``; the mean and the deviation of
            returns by default.
        horizon: Bars that a return takes.

    Attributes:
        fit: The state of the training.
        returns: Targets and their unit.

    Raises:
        ArgumentError: If the ranges overlap, one holds no window with a known return, or the
            encoder has no weights.
    """

    def __init__(
        self,
        embeddings: MarketEncoder,
        market: Market,
        train: tuple[int, int],
        validation: tuple[int, int],
        options: SupervisedOptions | None = None,
        task: Task | None = None,
        horizon: int = 1,
    ) -> None:
        self.options = options or SupervisedOptions()
        self.task: Task = task or Regression()
        overlap = max(train[0], validation[0]), min(train[1], validation[1])
        if overlap[0] < overlap[1]:
            raise ArgumentError(
                f"train={train} and validation={validation} share the bars {overlap[0]} to "
                f"{overlap[1] - 1}: what was fitted says nothing there; give ranges apart, e.g. "
                "those of market.split"
            )
        weights = [*embeddings.encoder.parameters()]
        if not weights:
            raise ArgumentError("this encoder has no weights to train: choose another one")
        self.embeddings = embeddings
        self.device = weights[0].device
        embeddings.bind(*market_tensors(market, self.device))
        bars = embeddings.encoder.bars
        self.returns = NextReturns(market, train, bars, self.device, horizon)
        self.train, self.validation = self.returns.rows(train), self.returns.rows(validation)
        self.fit = Fit(embeddings, self.options, self.options.epochs)

    @property
    def samples(self) -> int:
        """Return the number of bars seen so far."""
        return self.fit.round * len(self.train)

    def advance(self) -> dict[str, float]:
        """Run one epoch.

        Returns:
            ``train/learning_rate``; ``train/`` and ``validation/`` with the name of the task's loss
            ("nll", in standardised returns, of the task "return"; else "loss");
            ``validation/accuracy``, the share of directions forecast right; and the numbers of
            ``Calibration`` on the validation range.
        """
        fit, options = self.fit, self.options
        numbers = {"train/learning_rate": fit.learning_rate}
        order = self._order(np.random.default_rng((options.seed, fit.round)))
        batches = [order[k : k + options.batch] for k in range(0, len(order), options.batch)]
        losses: list[Tensor] = []
        with fit.draws():
            self.embeddings.train()
            for k in range(0, len(batches), options.accumulation):
                fit.step(self._parts(batches[k : k + options.accumulation], losses))
        self.embeddings.eval()
        with fit.averaged(), th.no_grad():
            loss = float(self._loss(self.validation))
            forecast = self.forecast(self.validation)
            judged = self._judged(forecast)
            fit.judge(loss if options.measure == "loss" else -judged["validation/accuracy"])
        fit.end_round()
        each = th.stack(losses).cpu().numpy()  # a GPU is waited for once, not at every step
        mean, name = float(each.mean(dtype=np.float64)), self.task.loss_name
        return numbers | {f"train/{name}": mean, f"validation/{name}": loss} | judged

    def forecast(self, rows: NDArray[np.int64]) -> Forecast:
        """Return the forecast at rows of the market; gradients and mode are the caller's."""
        return self.task.forecast(self.embeddings.forecast(th.from_numpy(rows)), self.returns.size)

    def restore_best(self) -> None:
        """Restore the weights of the best validation of encoder and head, in evaluation mode."""
        self.embeddings.load_state_dict(self.fit.best_weights())
        self.embeddings.eval()  # a training that was resumed at its end has not been

    def _parts(self, batches: list[NDArray[np.int64]], losses: list[Tensor]) -> Iterator[Tensor]:
        """Yield the parts of the mean loss of some batches; add each batch's to the losses."""
        for rows in batches:
            loss = self._loss(rows)
            losses.append(loss.detach())
            yield loss / len(batches)

    def _order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the bars of the training range in random order, those of a group together."""
        groups = self.embeddings.groups(self.train)
        if not self.embeddings.encoder.block:
            groups = groups // self.task.neighbours
        distinct, place = np.unique(groups, return_inverse=True)
        rank = np.empty(len(distinct), np.int64)
        rank[rng.permutation(len(distinct))] = np.arange(len(distinct))
        return self.train[np.argsort(rank[place], kind="stable")]

    def _loss(self, rows: NDArray[np.int64]) -> Tensor:
        outputs = self.embeddings.forecast(th.from_numpy(rows))
        return self.task.loss(outputs, self.returns, copied_to(rows, self.device))

    def _judged(self, forecast: Forecast) -> dict[str, float]:
        """Return accuracy and calibration of the forecast on the validation range."""
        t = copied_to(self.validation, self.device)
        mask = self.returns.mask[t]
        realised = self.returns.target[t][mask]
        mean, sigma, up = (part[mask] for part in forecast)
        right = ((up > 0.5) == (realised > 0)).float().mean()
        calibration = Calibration((realised - mean).cpu().numpy(), sigma.cpu().numpy())
        return {"validation/accuracy": float(right)} | calibration.numbers()
