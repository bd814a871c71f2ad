"""Stage 1 of a curriculum: an encoder learns to forecast the next bar's returns, without trading.

A curriculum trains in stages: 1 forecasts, 2 net growth by its gradient (``direct.agent``), 3 the
algorithm of reinforcement learning. Each stage starts from the encoder of the one before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch as th
from numpy.typing import NDArray
from torch import Tensor

from agents.fitting import Fit, FitOptions
from agents.forecasts import NextReturns
from agents.market_encoder import MarketEncoder, market_tensors
from agents.memory import copied_to
from portfolio_env.checks import check_integer
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market


@dataclass(frozen=True)
class PretrainingOptions(FitOptions):
    """Options of pretraining an encoder.

    Attributes:
        epochs: Passes over the training range, at most; a round is an epoch.
        batch: Bars per gradient step.
    """

    epochs: int = 20
    batch: int = 64
    patience: int | None = 5

    def __post_init__(self) -> None:
        """Check every number."""
        super().__post_init__()
        for name in ("epochs", "batch"):
            check_integer(name, getattr(self, name))


class Pretrainer:
    """Fit an encoder and its head by the Gaussian likelihood of simple returns t -> t + 1.

    Targets never reach beyond the range they belong to, see ``NextReturns``.

    Args:
        embeddings: An encoder with a head for forecasts; it is bound to the market.
        market: Market with the encoder's features.
        train: Half-open range of bars.
        validation: Half-open range on which training is stopped.
        options: See ``PretrainingOptions``.

    Attributes:
        fit: The state of the training.

    Raises:
        ArgumentError: If a range holds no window with a next bar, or the encoder has no weights.
    """

    def __init__(
        self,
        embeddings: MarketEncoder,
        market: Market,
        train: tuple[int, int],
        validation: tuple[int, int],
        options: PretrainingOptions | None = None,
    ) -> None:
        self.options = options or PretrainingOptions()
        weights = [*embeddings.encoder.parameters()]
        if not weights:
            raise ArgumentError("this encoder has no weights to pretrain: choose another one")
        self.embeddings = embeddings
        self.device = weights[0].device
        embeddings.bind(*market_tensors(market, self.device))
        self.returns = NextReturns(market, train, embeddings.encoder.bars, self.device)
        self.train, self.validation = self.returns.rows(train), self.returns.rows(validation)
        self.fit = Fit(embeddings, self.options, self.options.epochs)

    @property
    def samples(self) -> int:
        """Return the number of bars seen so far."""
        return self.fit.round * len(self.train)

    def advance(self) -> dict[str, float]:
        """Run one epoch.

        Returns:
            ``train/nll`` (in standardised returns), ``train/learning_rate``, ``validation/nll``,
            and the numbers of ``Calibration`` on the validation range.
        """
        fit, options = self.fit, self.options
        numbers = {"train/learning_rate": fit.learning_rate}
        order = self._order(np.random.default_rng((options.seed, fit.round)))
        losses = []
        with fit.draws():
            self.embeddings.train()
            for start in range(0, len(order), options.batch):
                loss = self._nll(order[start : start + options.batch])
                fit.step(loss)
                losses.append(loss.detach())
        self.embeddings.eval()
        with fit.averaged(), th.no_grad():
            nll = float(self._nll(self.validation))
            calibration = self.returns.calibration(self.embeddings, self.validation)
            fit.judge(nll)
        fit.end_round()
        each = th.stack(losses).cpu().numpy()  # a GPU is waited for once, not at every step
        mean = float(each.mean(dtype=np.float64))
        numbers |= {"train/nll": mean, "validation/nll": nll}
        return numbers | calibration.numbers()

    def restore_best(self) -> None:
        """Restore the weights of the best validation of encoder and head, in evaluation mode."""
        self.embeddings.load_state_dict(self.fit.best_weights())
        self.embeddings.eval()  # a training that was resumed at its end has not been

    def _order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the bars of the training range in random order, those of a block together."""
        groups = self.embeddings.groups(self.train)
        distinct, place = np.unique(groups, return_inverse=True)
        rank = np.empty(len(distinct), np.int64)
        rank[rng.permutation(len(distinct))] = np.arange(len(distinct))
        return self.train[np.argsort(rank[place], kind="stable")]

    def _nll(self, rows: NDArray[np.int64]) -> Tensor:
        forecast = self.embeddings.forecast(th.from_numpy(rows))
        return self.returns.nll(*forecast, copied_to(rows, self.device))
