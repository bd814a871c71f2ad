"""Stage 1 of a curriculum: an encoder learns to forecast the next bar's returns, without trading.

A curriculum trains in stages: 1 forecasts, 2 net growth by its gradient (`agents.direct`), 3 the
algorithm of reinforcement learning. Each stage starts from the encoder of the one before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch as th
from torch import Tensor, nn

from agents.embeddings import Embeddings
from agents.losses import gaussian_nll
from agents.networks import Encoder
from agents.networks.prediction_heads import PredictionHead
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market


@dataclass(frozen=True)
class PretrainingOptions:
    """How an encoder is pretrained.

    Attributes:
        epochs: passes over the training range, at most.
        batch: bars per gradient step.
        learning_rate: Adam's, decayed to 0 by half a cosine over all epochs.
        max_grad_norm: gradients are clipped to this norm.
        patience: epochs without a better validation after which training stops.
        seed: of the head's first weights, the order of bars, and dropout.
    """

    epochs: int = 20
    batch: int = 64
    learning_rate: float = 1e-3
    max_grad_norm: float = 1.0
    patience: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every number."""
        for name in ("epochs", "batch", "patience"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ArgumentError(f"{name} is {getattr(self, name)}; it must be positive")


class Pretrainer:
    """Fits encoder and `PredictionHead` by the Gaussian likelihood of simple returns t -> t + 1.

    Returns are divided by their standard deviation over the training range, so that the bounds of
    sigma mean the same in every market. A bar counts for the assets that trade at t and have a bar
    at t + 1; targets never reach beyond the range they belong to.

    Args:
        encoder: what is trained; with the best weights of `run` in the end.
        market: with the features the encoder reads.
        train: half-open range of bars.
        validation: half-open range on which training is stopped.
        options: see `PretrainingOptions`.
        device: where it runs.

    Raises:
        ArgumentError: if a range holds no window with a next bar, or the encoder has no weights.
    """

    def __init__(
        self,
        encoder: Encoder,
        market: Market,
        train: tuple[int, int],
        validation: tuple[int, int],
        options: PretrainingOptions | None = None,
        device: th.device | str = "cpu",
    ) -> None:
        self.options = options or PretrainingOptions()
        if not any(True for _ in encoder.parameters()):
            raise ArgumentError("this encoder has no weights to pretrain: choose another one")
        self.encoder = encoder.to(device)
        with th.random.fork_rng(devices=[]):
            th.manual_seed(self.options.seed)
            self.head = PredictionHead(encoder.channels).to(device)
        self.embeddings = Embeddings(encoder)
        arrays = (market.features, market.tradable.astype(np.float32), market.category_codes)
        self.embeddings.bind(*(th.tensor(array, device=device) for array in arrays))
        first = market.warmup + encoder.bars - 1
        self.rows = {
            name: np.arange(max(start, first), end - 1)
            for name, (start, end) in (("train", train), ("validation", validation))
        }
        for name, rows in self.rows.items():
            if not len(rows):
                raise ArgumentError(
                    f"the {name} range has no bar with {encoder.bars} bars of features up to it "
                    "and a next one: widen it"
                )
        simple = market.close[1:] / market.close[:-1] - 1
        seen = market.tradable[:-1] & np.isfinite(simple)
        own = self.rows["train"]
        self.scale = float(simple[own][seen[own]].std()) or 1.0
        self._mask = th.tensor(seen, device=device)
        target = np.where(seen, simple / self.scale, 0.0)
        self._target = th.tensor(target, dtype=th.float32, device=device)
        weights = [*encoder.parameters(), *self.head.parameters()]
        self.optimizer = th.optim.Adam(weights, self.options.learning_rate)
        self.epoch, self.best, self.stale = 0, math.inf, 0
        self._best_weights: dict[str, Tensor] = {}

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or patience is over."""
        return self.epoch >= self.options.epochs or self.stale >= self.options.patience

    def run(self) -> Iterator[dict[str, float]]:
        """Train to the end, yielding the numbers of every epoch; restores the best encoder."""
        while not self.finished:
            yield self.advance()
        self.encoder.load_state_dict(self._best_weights)

    def advance(self) -> dict[str, float]:
        """Do one epoch.

        Returns:
            ``pretraining/nll`` of the training (in standardised returns), ``validation_nll``, and
            ``coverage``: the share of validation errors within one sigma, 0.683 if it is right.
        """
        options = self.options
        rate = options.learning_rate * 0.5 * (1 + math.cos(math.pi * self.epoch / options.epochs))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        order = np.random.default_rng((options.seed, self.epoch)).permutation(self.rows["train"])
        losses = []
        with th.random.fork_rng(devices=[]):
            th.manual_seed(options.seed + 1_000_003 * self.epoch)  # of dropout
            self.embeddings.train()
            for start in range(0, len(order), options.batch):
                t = th.as_tensor(order[start : start + options.batch], device=self._mask.device)
                losses.append(self._step(t))
        self.epoch += 1
        nll, coverage = self.validate()
        self.stale += 1
        if nll < self.best:
            self.best, self.stale = nll, 0
            self._best_weights = deepcopy(self.encoder.state_dict())
        return {
            "pretraining/nll": float(np.mean(losses)),
            "pretraining/validation_nll": nll,
            "pretraining/coverage": coverage,
            "pretraining/learning_rate": rate,
        }

    def _step(self, t: Tensor) -> float:
        mu, sigma = self.head(self.embeddings(t))
        loss = gaussian_nll(self._target[t], mu, sigma, self._mask[t])
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch
        weights = [*self.encoder.parameters(), *self.head.parameters()]
        nn.utils.clip_grad_norm_(weights, self.options.max_grad_norm)
        self.optimizer.step()
        return float(loss.detach())

    def validate(self) -> tuple[float, float]:
        """Likelihood on the validation range, and the share of errors within one sigma."""
        self.embeddings.eval()
        t = th.as_tensor(self.rows["validation"], device=self._mask.device)
        with th.no_grad():
            mu, sigma = self.head(self.embeddings(t))
            mask, target = self._mask[t], self._target[t]
            within = ((target - mu).abs() <= sigma)[mask].float().mean()
            return float(gaussian_nll(target, mu, sigma, mask)), float(within)
