"""Callbacks for encoders within RL: forecasts as an auxiliary loss, a frozen start, figures."""

from __future__ import annotations

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from agents.encoding.market_encoder import MarketEncoder
from agents.encoding.market_rows import market_encoders
from agents.encoding.memory import copied_to
from agents.forecasts import NextReturns
from agents.inspection import encoder_figures
from agents.sb3.curves import write_points
from agents.training.callbacks import PeriodicCallback
from agents.training.config import Range
from portfolio_env.market import Market


class FrozenStart(BaseCallback):
    """Freeze the encoder at first; it learns from the first rollout after some timesteps on.

    What is frozen follows from the number of timesteps alone, so a resumed training needs no more.

    Args:
        until: Environment steps over all lanes from which on it learns.
    """

    def __init__(self, until: int) -> None:
        super().__init__()
        self.until = until

    def _on_rollout_start(self) -> None:
        frozen = self.model.num_timesteps < self.until
        for embeddings in market_encoders(self.model.policy):
            if embeddings.frozen != frozen:
                embeddings.freeze(frozen)

    def _on_step(self) -> bool:
        return True


class PredictionLoss(BaseCallback):
    """Add forecasts of the next bar to the algorithm's loss, with a weight.

    Before each step of an optimiser that trains an encoder, the gradient of the weighted negative
    log likelihood on some bars of the training range joins that of the algorithm. A training of its
    own in between would need an optimiser of its own, and Adam's steps do not depend on a weight. A
    frozen encoder is left alone.

    Args:
        weight: Weight of the likelihood of returns in units of their deviation.
        market: The market the encoder is bound to.
        train: Half-open range of bars.
        seed: Seed of the choice of bars, with the number of steps so far, so that a resumed
            training chooses the same.
        batch: Bars per step.
    """

    def __init__(
        self, weight: float, market: Market, train: Range, seed: int = 0, batch: int = 64
    ) -> None:
        super().__init__()
        self.weight, self.market, self.train, self.seed = weight, market, train, seed
        self.batch = batch
        self.hooks: list[RemovableHandle] = []

    def _on_training_start(self) -> None:
        model = self.model
        found = market_encoders(model.policy)
        self.returns = NextReturns(self.market, self.train, found[0].encoder.bars, model.device)
        self.rows = self.returns.rows(self.train)
        for part in model.policy.modules():
            optimizer = getattr(part, "optimizer", None)
            if isinstance(optimizer, Optimizer):
                self.hooks += [
                    optimizer.register_step_pre_hook(lambda *_, own=own: self._add(own))
                    for own in found
                    if _trains(optimizer, own)
                ]

    def _add(self, embeddings: MarketEncoder) -> None:
        if embeddings.frozen:
            return
        rows = self.rows
        if embeddings.encoder.block:  # bars of one block cost as much as one of them
            groups = embeddings.groups(rows)
            rows = rows[groups == self.rng.choice(groups)]
        t = self.rng.choice(rows, self.batch)
        mean, sigma = embeddings.forecast(th.from_numpy(t))
        nll = self.returns.nll(mean, sigma, copied_to(t, self.model.device))
        (self.weight * nll).backward()  # type: ignore[no-untyped-call] # torch
        self.logger.record_mean("train/prediction_nll", float(nll.detach()))

    def _on_rollout_start(self) -> None:
        self.rng = np.random.default_rng((self.seed, self.model.num_timesteps))

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        for hook in self.hooks:
            hook.remove()


def _trains(optimizer: Optimizer, embeddings: MarketEncoder) -> bool:
    trained = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    return any(id(weight) in trained for weight in embeddings.parameters())


class EncoderFigures(PeriodicCallback):
    """Log figures of the encoder's attention and of the calibration of its forecasts.

    Args:
        market: The market.
        train: Half-open range of bars.
        validation: Half-open range; attention is that of its last bar.
        every: Environment steps between two figures.
    """

    def __init__(self, market: Market, train: Range, validation: Range, every: int) -> None:
        super().__init__(every)
        self.market, self.train, self.validation = market, train, validation

    def act(self) -> None:
        """Draw and log the figures."""
        self.model.policy.set_training_mode(False)
        (embeddings, *_) = market_encoders(self.model.policy)
        returns = None
        if embeddings.head is not None:
            bars = embeddings.encoder.bars
            returns = NextReturns(self.market, self.train, bars, self.model.device)
            calibration = returns.calibration(embeddings, returns.rows(self.validation))
            write_points(self.logger, calibration.numbers(), self.model.num_timesteps)
        figures = encoder_figures(embeddings, self.market, self.validation, returns)
        write_points(self.logger, figures, self.model.num_timesteps)
