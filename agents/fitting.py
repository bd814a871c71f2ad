"""Fitting of a network by gradient steps, in rounds that can be stopped and resumed exactly.

What forecasts (``agents.supervised``) and net growth (``agents.direct.training``) are trained
with: Adam with clipped gradients and decoupled weight decay, a schedule of the learning rate, an
average of the weights, and the weights that were best on validation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import torch as th
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau
from torch.optim.swa_utils import get_ema_multi_avg_fn

from agents.tensors import load_tensors, reason_of, save_tensors
from portfolio_env.checks import check_choice, check_integer, check_number
from portfolio_env.errors import MALFORMED, ArgumentError, DataError, PortfolioError

KIND = "fit"

Schedule = Literal["cosine", "plateau"]


@dataclass(frozen=True)
class FitOptions:
    """Options of fitting a network.

    Attributes:
        learning_rate: Adam's, at the start.
        max_grad_norm: Gradients are clipped to this norm.
        schedule: Schedule of the learning rate: "cosine" decays it to 0 by half a cosine over all
            rounds, "plateau" halves it after every third validation in a row without a better one.
        ema: Decay per step of an exponential moving average of the weights, which is validated and
            kept in their place; 0 keeps none.
        patience: Validations in a row without a better one after which fitting stops; None never
            stops. The untrained network's does not count: many a training falls behind it first.
        min_delta: A validation is better if its loss is lower than the best by more than this.
        weight_decay: Share of the weights taken off at each step, times the learning rate; AdamW,
            Loshchilov & Hutter (2019), "Decoupled Weight Decay Regularization", ICLR.
        warmup: Gradient steps in which the learning rate rises to its own, in equal parts.
        seed: Seed of all draws.
    """

    learning_rate: float = 1e-3
    max_grad_norm: float = 1.0
    schedule: Schedule = "cosine"
    ema: float = 0.0
    patience: int | None = None
    min_delta: float = 0.0
    weight_decay: float = 0.0
    warmup: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every number."""
        for name in ("learning_rate", "max_grad_norm"):
            check_number(name, getattr(self, name), above=0)
        check_choice("schedule", self.schedule, ("cosine", "plateau"))
        check_number("ema", self.ema, 0, below=1)
        if self.patience is not None:
            check_integer("patience", self.patience)
        check_number("min_delta", self.min_delta, 0)
        check_number("weight_decay", self.weight_decay, 0)
        check_integer("warmup", self.warmup, 0)


class Fit:
    """State of a network that is being fitted in rounds of gradient steps.

    Args:
        network: Network to fit.
        options: See ``FitOptions``.
        rounds: After which it is finished.

    Attributes:
        round: Rounds done.
        steps: Gradient steps done.
        best: Least loss on validation so far; infinity without any.
        best_steps: Gradient steps of that model: 0 for the untrained one, None where a checkpoint
            of an earlier version does not say.
        best_trained: Least loss on validation of a trained model.
    """

    def __init__(self, network: nn.Module, options: FitOptions, rounds: int) -> None:
        self.network, self.options, self.rounds = network, options, rounds
        self.optimizer = th.optim.AdamW(
            network.parameters(), options.learning_rate, weight_decay=options.weight_decay
        )
        self.schedule = (
            CosineAnnealingLR(self.optimizer, rounds)
            if options.schedule == "cosine"
            else ReduceLROnPlateau(self.optimizer, factor=0.5, patience=2, threshold=0.0)
        )
        self.round, self.stale, self.steps = 0, 0, 0
        self.best_steps: int | None = 0
        self.best = self.best_trained = math.inf
        self._best_weights: dict[str, Tensor] = {}
        self._average: list[Tensor] = []

    @property
    def finished(self) -> bool:
        """Return whether all rounds are done, or patience is over."""
        patience = self.options.patience
        return self.round >= self.rounds or (patience is not None and self.stale >= patience)

    @property
    def learning_rate(self) -> float:
        """Return the learning rate of the next step."""
        warm = min(1.0, (self.steps + 1) / self.options.warmup) if self.options.warmup else 1.0
        return warm * float(self.optimizer.param_groups[0]["lr"])

    @contextmanager
    def draws(self) -> Iterator[None]:
        """Within this context, of a round's steps, torch draws from seed and round alone.

        Raises:
            ArgumentError: If the weights are not finite after it.
        """
        device = next(self.network.parameters()).device
        with (
            refuse_divergence(self.network, lambda: f"gradient step {self.steps:,}"),
            th.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        ):
            th.manual_seed(self.options.seed + 1_000_003 * self.round)
            yield

    def step(self, losses: Tensor | Iterable[Tensor]) -> Tensor:
        """Take one gradient step; return the norm of the gradient before it was clipped, ().

        Args:
            losses: A loss, or parts of one: their gradients are added one by one, so that the
                activations of one part are held at a time.
        """
        self.optimizer.zero_grad()
        for loss in (losses,) if isinstance(losses, Tensor) else losses:
            loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.options.max_grad_norm)
        (group,) = self.optimizer.param_groups
        scheduled, group["lr"] = group["lr"], self.learning_rate
        self.optimizer.step()
        group["lr"] = scheduled
        self.steps += 1
        if self.options.ema:
            weights = [weight.detach() for weight in self.network.parameters()]
            if self._average:
                update = get_ema_multi_avg_fn(self.options.ema)  # type: ignore[no-untyped-call] # torch
                update(self._average, weights, None)
            else:
                self._average = [weight.clone() for weight in weights]
        return norm  # not a number: a GPU would be waited for

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within this context the network has the averaged weights, where an average is kept."""
        if not self._average:
            yield
            return
        own = [weight.detach().clone() for weight in self.network.parameters()]
        self._give(self._average)
        try:
            yield
        finally:
            self._give(own)

    def judge(self, loss: float) -> None:
        """Record a validation loss of the network in ``averaged``; less is better.

        The untrained network may be judged first: it is kept if no other is better, but neither
        patience nor the schedule "plateau" begins with it.
        """
        margin = self.options.min_delta
        if loss < self.best - margin or not self._best_weights:
            self.best, self.best_steps, self._best_weights = loss, self.steps, self.weights()
        if not self.steps:
            return
        self.stale += 1
        if loss < self.best_trained - margin:
            self.best_trained, self.stale = loss, 0
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(loss)

    def end_round(self) -> None:
        """End a round, after its steps and its validation."""
        self.round += 1
        if isinstance(self.schedule, CosineAnnealingLR):
            self.schedule.step()

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights to use now: averaged ones where an average is kept."""
        with self.averaged():
            return {name: value.clone() for name, value in self.network.state_dict().items()}

    def best_weights(self) -> dict[str, Tensor]:
        """Return the weights of the best validation; without any, the present ones."""
        return self._best_weights or self.weights()

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to resume, copied: tensors and numbers, for ``save_tensors``.

        Draws depend on the seed and the round alone, so there is no generator to save.
        """
        state = {
            "options": asdict(self.options),
            "round": self.round,
            "steps": self.steps,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "best": self.best,
            "best_steps": self.best_steps,
            "best_trained": self.best_trained,
            "stale": self.stale,
            "best_weights": self._best_weights,
            "average": self._average,
        }
        return deepcopy(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a ``state_dict``.

        Raises:
            ArgumentError: If it was made with other options.
        """
        defaults = {each.name: each.default for each in fields(self.options)}
        if defaults | state["options"] != asdict(self.options):  # earlier versions had fewer
            raise ArgumentError(
                f"the checkpoint was made with {state['options']}, not {asdict(self.options)}"
            )
        state = deepcopy(state)  # Adam changes its moments in place
        if state["best_weights"]:
            self.network.load_state_dict(state["best_weights"])  # which checks that they fit
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.round, self.best, self.stale = state["round"], state["best"], state["stale"]
        self.steps = state.get("steps", 0)
        self.best_steps = state.get("best_steps")
        trained = math.inf if self.best_steps == 0 else self.best
        self.best_trained = state.get("best_trained", trained)
        device = next(self.network.parameters()).device
        self._best_weights = {name: w.to(device) for name, w in state["best_weights"].items()}
        self._average = [weight.to(device) for weight in state["average"]]

    def _give(self, weights: list[Tensor]) -> None:
        with th.no_grad():
            for own, other in zip(self.network.parameters(), weights, strict=True):
                own.copy_(other)


@contextmanager
def refuse_divergence(network: nn.Module, done: Callable[[], str]) -> Iterator[None]:
    """Refuse weights that are not finite after this context, and explain what they raise in it.

    A distribution, an environment or a loss may be the first to complain about what they give.

    Args:
        network: The network that is trained.
        done: Returns how far the training has come, e.g. "64 steps".

    Raises:
        ArgumentError: If the training diverged.
    """
    cause = None
    try:
        yield
    except ValueError as error:
        cause = error
    sound = [weight.isfinite().all() for weight in network.parameters()]
    if sound and not th.stack(sound).all():
        raise ArgumentError(
            f"the training diverged: after {done()} weights of the network are no longer finite; "
            "lower learning_rate among the options of the algorithm, or the scale of the reward"
        ) from cause
    if cause is not None:
        raise cause


class Trainer(Protocol):
    """Trainer protocol: the members of an object that fits a network round by round."""

    fit: Fit

    @property
    def samples(self) -> int:
        """Return the number of samples seen so far, in bars or in steps of accounts."""

    def advance(self) -> dict[str, float]:
        """Run one round; return its numbers by name."""


def take_up(trainer: Trainer, file: Path) -> None:
    """Restore a new trainer from the last checkpoint of a stopped training, if there is one.

    Raises:
        DataError: If the checkpoint is damaged.
        ArgumentError: If it was made with other options.
    """
    if not file.exists():
        return
    state = load_tensors(file, kind=KIND)
    try:
        trainer.fit.load_state_dict(state)
    except PortfolioError:
        raise
    except (*MALFORMED, RuntimeError) as error:
        raise DataError(
            f"{file} is not a checkpoint of this training ({reason_of(error)})"
        ) from error


def run_rounds(
    trainer: Trainer,
    file: Path,
    record: Callable[[dict[str, float], int], None],
    every: int = 1,
    watches: Sequence[Callable[[int], None]] = (),
) -> None:
    """Train to the end.

    Args:
        trainer: New, or after ``take_up``.
        file: File of the checkpoint, complete or absent.
        record: Called after every round with its numbers and the samples seen so far.
        every: Rounds between two checkpoints; the last is always one.
        watches: Called after every round with the number of rounds so far, e.g. a bar.
    """
    fit = trainer.fit
    while not fit.finished:
        record(trainer.advance(), trainer.samples)
        for watch in watches:
            watch(fit.round)
        if fit.finished or fit.round % every == 0:
            save_tensors(file, fit.state_dict(), kind=KIND)
