"""Training of a `DirectAgent`: windows of days from random starts, climbed by their net growth."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.direct import DirectAgent
from agents.economics import Economics
from agents.extractors import asset_rows
from portfolio_env import PortfolioEnv
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest
from portfolio_env.market import Market
from portfolio_env.simulator import Simulator

SMALL_MARKET = 8  # assets that one account trades in training, where there are more
_SCALE = 100.0  # of the loss: growth per step is about a hundredth


@dataclass(frozen=True)
class DirectOptions:
    """How a `DirectAgent` is trained; the defaults are the recipe measured to work.

    Attributes:
        iterations: gradient steps.
        lanes: accounts per gradient step.
        steps: bars that each account lives.
        learning_rate: Adam's, decayed to 0 by half a cosine.
        max_grad_norm: gradients are clipped to this norm.
        universe: assets drawn for an account; None is 8 where the market has more, 0 always all.
        validation_every: iterations between two backtests on the validation range.
        patience: backtests without a better one after which training stops; None never stops.
        seed: of the draws.
    """

    iterations: int = 150
    lanes: int = 64
    steps: int = 30
    learning_rate: float = 3e-3
    max_grad_norm: float = 1.0
    universe: int | None = None
    validation_every: int = 15
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every number."""
        for name in ("iterations", "lanes", "steps", "validation_every"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ArgumentError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.patience is not None and self.patience < 1:
            raise ArgumentError(f"patience is {self.patience}; it must be at least 1, or None")


class DirectTrainer:
    """Gradient steps on one agent, which can be stopped and resumed exactly.

    Args:
        agent: what is trained, and bound to the market.
        market: the market.
        start: first bar of the training range.
        end: bar after its last one.
        validation: half-open range of bars on which growth is measured; None measures nothing.
        env_options: keywords of `PortfolioEnv` that define the task: costs, execution, ...
        options: fields of `DirectOptions`.

    Attributes:
        iteration: gradient steps done.
        best: validation growth a year of the best model so far; minus infinity without any.
    """

    def __init__(
        self,
        agent: DirectAgent,
        market: Market,
        start: int,
        end: int,
        *,
        validation: tuple[int, int] | None = None,
        env_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.agent, self.market, self.validation = agent, market, validation
        self.options = DirectOptions(**options)
        self.env_options = {"window": agent.window, **(env_options or {})}
        self.env_options.pop("observation", None)
        self.simulator = self._simulator(start, end)
        self.economics = Economics.of(self.simulator, device=agent.device)
        self._tradable = th.tensor(market.tradable, dtype=th.float32, device=agent.device)
        agent.bind(market)
        self.optimizer = th.optim.Adam(agent.network.parameters(), self.options.learning_rate)
        self.iteration, self.best, self._stale = 0, -math.inf, 0
        self._best_weights: dict[str, Tensor] = {}

    @property
    def finished(self) -> bool:
        """Whether all iterations are done, or patience is over."""
        patience = self.options.patience
        stopped = patience is not None and self._stale >= patience
        return self.iteration >= self.options.iterations or stopped

    def run(self, callback: Callable[[int, dict[str, float]], None] | None = None) -> None:
        """Train to the end and restore the best model.

        Args:
            callback: called after every iteration with its number and what `advance` returned.
        """
        while not self.finished:
            numbers = self.advance()
            if callback is not None:
                callback(self.iteration, numbers)
        self.restore_best()

    def advance(self) -> dict[str, float]:
        """Do one iteration; after every so many a backtest on the validation range.

        Returns:
            Numbers by name: ``train/growth`` a year, ``train/turnover`` a step,
            ``train/gradient_norm``, ``train/learning_rate`` and at times ``validation/growth``.
        """
        network, options = self.agent.network, self.options
        rate = options.learning_rate * 0.5 * (1 + math.cos(math.pi * self.progress))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        cuda = [self.agent.device] if self.agent.device.type == "cuda" else []
        with th.random.fork_rng(devices=cuda):
            th.manual_seed(options.seed + 1_000_003 * self.iteration)  # of dropout
            network.train()
            growth, turnover = self._windows(np.random.default_rng((options.seed, self.iteration)))
            self.optimizer.zero_grad()
            (-_SCALE * growth.mean()).backward()  # type: ignore[no-untyped-call] # torch
            network.eval()
        norm = nn.utils.clip_grad_norm_(network.parameters(), options.max_grad_norm)
        self.optimizer.step()
        self.iteration += 1
        numbers = {
            "train/growth": float(growth.detach().mean()) * self.market.periods_per_year,
            "train/turnover": float(turnover.detach().mean()),
            "train/gradient_norm": float(norm),
            "train/learning_rate": rate,
        }
        due = self.iteration % options.validation_every == 0
        if self.validation is not None and (due or self.iteration == options.iterations):
            numbers["validation/growth"] = self._validate()
        return numbers

    @property
    def progress(self) -> float:
        """Share of the iterations that is done."""
        return self.iteration / self.options.iterations

    def restore_best(self) -> None:
        """Give the agent the weights of the best validation; without any it keeps its own."""
        if self._best_weights:
            self.agent.network.load_state_dict(self._best_weights)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, copied: tensors and numbers, for `torch.save`.

        Draws depend on the seed and the iteration alone, so there is no generator to save.
        """
        state = {
            "options": asdict(self.options),
            "iteration": self.iteration,
            "network": self.agent.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "best_weights": self._best_weights,
            "stale": self._stale,
        }
        return deepcopy(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises:
            ArgumentError: if it was made with other options.
        """
        if state["options"] != asdict(self.options):
            raise ArgumentError(
                f"the checkpoint was made with {state['options']}, not {asdict(self.options)}"
            )
        state = deepcopy(state)  # Adam changes its moments in place
        self.agent.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.iteration, self.best, self._stale = state["iteration"], state["best"], state["stale"]
        self._best_weights = state["best_weights"]

    # ---- details

    def _simulator(self, start: int, end: int) -> Simulator:
        options, market = self.options, self.market
        universe = options.universe
        if universe is None:
            universe = SMALL_MARKET if market.n_assets > SMALL_MARKET else 0
        first = max(start, market.warmup + int(self.env_options["window"]) - 1)
        simulator = Simulator(
            market,
            options.lanes,
            start=first,
            end=end,
            random_start=True,
            episode_length=min(options.steps, end - 1 - first),
            universe=universe or None,
            **self.env_options,
        )
        if simulator.action != "logits" or simulator.logits_scale != self._logits_scale:
            raise ArgumentError(
                f"the environment takes {simulator.action} with logits_scale="
                f"{simulator.logits_scale:g}, the agent answers with logits for "
                f"{self._logits_scale:g}; make both the same"
            )
        return simulator

    @property
    def _logits_scale(self) -> float:
        return float(self.agent.config["logits_scale"])

    def _windows(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Log growth and turnover (lanes, steps) of accounts from random starts."""
        simulator, device = self.simulator, self.agent.device
        simulator.reset(lambda _: rng)
        steps = simulator.episodes.length or 1
        t = th.tensor(simulator.t, device=device)
        assets = th.tensor(simulator.assets, device=device)
        sampled = None if simulator.episodes.universe is None else assets
        bars = t[:, None] + th.arange(steps, device=device)
        channels = self._encode(bars, assets, sampled)
        tradable = self._tradable[bars[:, :, None], assets[:, None, :]]
        weights = th.tensor(self._start_weights(rng), dtype=th.float32, device=device)
        value, growth, turnover = None, [], []
        for k in range(steps):
            actions = self.agent.network(asset_rows(channels[:, k], tradable[:, k], weights))
            target = th.softmax(self._logits_scale * actions, 1)
            step = self.economics.step(weights, target, bars[:, k], sampled, value)
            weights, value = step.weights, step.value
            growth.append(step.log_growth)
            turnover.append(step.turnover)
        return th.stack(growth, 1), th.stack(turnover, 1)

    def _encode(self, bars: Tensor, assets: Tensor, sampled: Tensor | None) -> Tensor:
        """(lanes, steps, N, channels), each distinct bar encoded once."""
        lanes, steps = bars.shape
        wanted = None if sampled is None else assets.repeat_interleave(steps, 0)
        channels: Tensor = self.agent.network.extractor.embeddings(bars.flatten(), wanted)
        return channels.view(lanes, steps, *channels.shape[1:])

    def _start_weights(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """(lanes, N + 1): half of them uniform on the simplex, the others equal weight or cash."""
        simulator = self.simulator
        listed = simulator.episodes.is_listed(simulator.t[:, None], simulator.assets)
        slots = np.concatenate([np.ones((len(listed), 1)), listed], axis=1)
        weights = rng.standard_exponential(slots.shape) * slots
        kind = rng.random(len(slots))
        equal = (kind < 0.25) & listed.any(1)
        weights[equal] = slots[equal] * np.r_[0.0, np.ones(listed.shape[1])]
        weights[kind > 0.75] = np.r_[1.0, np.zeros(listed.shape[1])]
        normal: NDArray[np.float64] = weights / weights.sum(1, keepdims=True)
        return normal

    def _validate(self) -> float:
        """Log growth a year on the validation range; keeps the weights of the best."""
        assert self.validation is not None
        start, end = self.validation
        first = max(start, self.market.warmup + int(self.env_options["window"]) - 1)
        env = PortfolioEnv(
            self.market, observation="index", start=first, end=end, **self.env_options
        )
        growth = float(backtest(self.agent, env).log_returns.mean())
        self._stale += 1
        if growth > self.best or not self._best_weights:
            weights = self.agent.network.state_dict()
            self._best_weights = {name: value.clone() for name, value in weights.items()}
            self.best, self._stale = growth, 0
        return growth * self.market.periods_per_year
