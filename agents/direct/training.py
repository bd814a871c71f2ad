"""Training of direct agents: gradient ascent on the net growth of windows from random starts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_type_hints

import numpy as np
import torch as th
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from agents.direct.differentiable_projection import bounds_of, scaled_weights, score_weights
from agents.direct.differentiable_simulator import DifferentiableSimulator
from agents.encoding.market_rows import asset_rows
from agents.encoding.memory import copied_to
from agents.fitting import Fit, FitOptions
from agents.forecasts import NextReturns
from agents.losses import sharpe_loss
from portfolio_env import PortfolioEnv
from portfolio_env.checks import check_choice, check_integer, check_number, checked
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest
from portfolio_env.evaluation.gate import equal_weight_growth
from portfolio_env.market import Market
from portfolio_env.names import check_keywords
from portfolio_env.simulation.simulator import Simulator

if TYPE_CHECKING:
    from agents.direct.agent import DirectAgent

_LOGGER = logging.getLogger(__name__)
SMALL_MARKET = 8  # assets that one account trades in training, where there are more
_SCALE = 100.0  # scale of the loss: growth per step is about a hundredth
_CONCENTRATION = 0.1  # weight of the penalty that goes with the Sharpe ratio
_BLOCK = 256  # bars that are scored at once in a validation

Loss = Literal["growth", "sharpe"]


@dataclass(frozen=True)
class DirectOptions(FitOptions):
    """Training options of a ``DirectAgent``; the defaults are the recipe measured to work.

    Attributes:
        iterations: Gradient steps; each is a round.
        lanes: Accounts per gradient step.
        steps: Bars that each account lives.
        universe: Assets drawn for an account; None is 8 where the market has more, 0 always all.
        validation_every: Iterations between two backtests on the validation range, which growth
            alone decides.
        loss: Objective: "growth", net log growth, or "sharpe", the net Sharpe ratio less 0.1
            times the concentration of the weights.
        prediction: Weight of the Gaussian likelihood of the next returns beside it; needs an agent
            whose encoder forecasts.
        frozen: Share of the iterations, at the start, in which the encoder stays as it is.
    """

    learning_rate: float = 3e-3
    iterations: int = 150
    lanes: int = 64
    steps: int = 30
    universe: int | None = None
    validation_every: int = 15
    loss: Loss = "growth"
    prediction: float = 0.0
    frozen: float = 0.0

    def __post_init__(self) -> None:
        """Check every number."""
        super().__post_init__()
        for name in ("iterations", "lanes", "steps", "validation_every"):
            check_integer(name, getattr(self, name))
        check_choice("loss", self.loss, ("growth", "sharpe"))
        check_number("prediction", self.prediction, 0)
        check_number("frozen", self.frozen, 0, 1)


_OF_SETTINGS = (
    "iterations",
    "lanes",
    "validation_every",
    "universe",
    "prediction",
    "frozen",
    "seed",
)
_OF_AGENT = {"net_arch": Sequence[int], "sees_holdings": bool}


def sorted_direct_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sort the options of the direct agent into those of the agent and those of its training.

    Args:
        options: ``net_arch`` and ``sees_holdings``, and fields of ``DirectOptions`` but for those
            that other settings of a run decide.

    Raises:
        ArgumentError: For a name that neither has, with the nearest, or a value that does not fit.
    """
    hints = get_type_hints(DirectOptions)
    known = {name: hint for name, hint in hints.items() if name not in _OF_SETTINGS} | _OF_AGENT
    check_keywords("algo 'direct'", "option", options, known)
    for name, value in options.items():
        checked(name, value, known[name])
    of_agent = {name: value for name, value in options.items() if name in _OF_AGENT}
    of_training = {name: value for name, value in options.items() if name not in _OF_AGENT}
    DirectOptions(**of_training)
    if not all(width >= 1 for width in of_agent.get("net_arch", ())):
        raise ArgumentError(f"net_arch is {of_agent['net_arch']}; widths are at least 1")
    return of_agent, of_training


class Rollout(NamedTuple):
    """Trajectories of ``lanes`` accounts over ``steps`` bars, with the encoder's inputs.

    Attributes:
        growth: (lanes, steps) log growth.
        turnover: (lanes, steps).
        held: (lanes, steps, N + 1) weights after trading, cash first.
        channels: (lanes, steps, N, channels) of the encoder.
        bars: (lanes, steps).
        assets: (lanes, N) that the accounts trade.
    """

    growth: Tensor
    turnover: Tensor
    held: Tensor
    channels: Tensor
    bars: Tensor
    assets: Tensor


class DirectTrainer:
    """Gradient steps on one agent, which can be stopped and resumed exactly.

    Args:
        agent: Agent to train, which is bound to the market.
        market: The market.
        start: First bar of the training range.
        end: Bar after its last one.
        validation: Half-open range of bars on which growth is measured; None measures nothing.
        env_options: Keywords of ``PortfolioEnv`` that define the task: costs, execution, ...
        scales: (T, all assets) factors of the weights that scores give, at every bar, see
            ``direct.differentiable_projection.scaled_weights``; None leaves them as they are.
        parts: Parts of the lanes that are computed one after another, each again in the backward
            pass, so that the activations of one are held at a time.
        options: Fields of ``DirectOptions``.

    Attributes:
        fit: The state of the training.
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
        scales: NDArray[np.float64] | None = None,
        parts: int = 1,
        **options: Any,
    ) -> None:
        self.agent, self.market, self.validation = agent, market, validation
        self.parts = check_integer("parts", parts)
        self.options = DirectOptions(**options)
        if self.options.schedule == "plateau" and validation is None:
            raise ArgumentError("the schedule 'plateau' needs a validation range: give one")
        self.env_options = {"window": agent.window, **(env_options or {})}
        self.env_options.pop("observation", None)
        self.simulator = self._simulator(start, end)
        self.differentiable = DifferentiableSimulator.of(self.simulator, device=agent.device)
        self.scales = None
        if scales is not None:
            self.scales = th.tensor(scales, dtype=th.float32, device=agent.device)
        self.tradable = th.tensor(market.tradable, dtype=th.float32, device=agent.device)
        agent.bind(market)
        self.embeddings = agent.network.extractor.embeddings
        self.returns: NextReturns | None = None
        if self.options.prediction:
            self.returns = NextReturns(market, (start, end), agent.window, agent.device)
        self.fit = Fit(agent.network, self.options, self.options.iterations)
        self._benchmark: float | None = None  # growth of equal weight on the validation range

    @property
    def samples(self) -> int:
        """Return the number of account steps simulated so far."""
        return self.fit.round * self.options.lanes * self.options.steps

    @property
    def best(self) -> float:
        """Return the best model's validation growth per bar so far; minus infinity without any."""
        return -self.fit.best

    def run(self, callback: Callable[[int, dict[str, float]], None] | None = None) -> None:
        """Train to the end and restore the best model, which may be the untrained one.

        Args:
            callback: Called after every iteration with its number and what ``advance`` returned.
        """
        while not self.fit.finished:
            numbers = self.advance()
            if callback is not None:
                callback(self.fit.round, numbers)
        self.restore_best()

    def advance(self) -> dict[str, float]:
        """Run one iteration; every so many iterations, backtest on the validation range.

        Returns:
            Numbers by name: ``train/loss``, ``train/growth`` a year, ``train/turnover`` a step,
            ``train/gradient_norm``, ``train/learning_rate``, with a weight of predictions
            ``train/nll``, and at times the numbers of a ``Calibration`` and, with the same units as
            in every training, ``validation/growth``, ``validation/excess_growth`` (both a year) and
            ``validation/turnover`` (a step).
        """
        fit, options, network = self.fit, self.options, self.agent.network
        rate = fit.learning_rate
        if fit.round == 0 and self.validation is not None:
            # A training whose every model loses to none at all, by trading on noise, is in vain.
            fit.judge(-self._validate(self.validation)["growth"])
        self.embeddings.freeze(fit.round < options.frozen * options.iterations)
        with fit.draws():
            network.train()
            rollout = self._rollout(np.random.default_rng((options.seed, fit.round)))
            loss, nll = self._loss(rollout)
            norm = fit.step(loss)
            network.eval()
        numbers = {
            "train/loss": float(loss.detach()),
            "train/growth": float(rollout.growth.detach().mean()) * self._year,
            "train/turnover": float(rollout.turnover.detach().mean()),
            "train/gradient_norm": float(norm),
            "train/learning_rate": rate,
        }
        if nll is not None:
            numbers["train/nll"] = float(nll.detach())
        done = fit.round + 1
        due = done % options.validation_every == 0 or done == options.iterations
        if self.validation is not None and due:
            with fit.averaged():
                judged = self._validate(self.validation)
                fit.judge(-judged["growth"])
                if self.returns is not None:
                    rows = self.returns.rows(self.validation)
                    numbers |= self.returns.calibration(self.embeddings, rows).numbers()
            if self._benchmark is None:
                self._benchmark = equal_weight_growth(
                    self.market, self.validation, self.env_options
                )
            growth = judged["growth"] * self.market.bars_per_year(*self.validation)
            numbers["validation/growth"] = growth
            numbers["validation/excess_growth"] = growth - self._benchmark
            numbers["validation/turnover"] = judged["turnover"]
        fit.end_round()
        return numbers

    def restore_best(self) -> None:
        """Restore the weights of the best validation; without any, keep the present ones."""
        if self.validation is not None and self.fit.round and self.fit.best_steps == 0:
            _LOGGER.info(
                "no model of the training grows as much on the validation range as the untrained "
                "one, which is the best model"
            )
        self.agent.network.load_state_dict(self.fit.best_weights())

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
    def _year(self) -> float:
        """Return the bars per year of the training range."""
        return self.market.bars_per_year(self.simulator.episodes.start, self.simulator.episodes.end)

    @property
    def _logits_scale(self) -> float:
        return float(self.agent.config["logits_scale"])

    def _loss(self, rollout: Rollout) -> tuple[Tensor, Tensor | None]:
        """Return the loss, and the likelihood of forecasts where that is part of it."""
        if self.options.loss == "growth":
            loss = _SCALE * -rollout.growth.mean()
        else:
            loss = sharpe_loss(
                rollout.growth.expm1() - self.differentiable.interest[rollout.bars, 0],
                self.market.periods_per_year,
                weights=rollout.held,
                concentration=_CONCENTRATION,
            )
        weight = self.options.prediction
        if not weight or self.embeddings.frozen or self.returns is None:
            return loss, None
        mean, sigma = self.embeddings.forecast_of(rollout.channels.flatten(0, 1))
        assets = rollout.assets.repeat_interleave(rollout.bars.shape[1], 0)
        nll = self.returns.nll(mean, sigma, rollout.bars.flatten(), assets)
        return loss + weight * nll, nll

    def _rollout(self, rng: np.random.Generator) -> Rollout:
        """Simulate accounts from random starts to their ends."""
        simulator, device = self.simulator, self.agent.device
        simulator.reset(lambda _: rng)
        rows = simulator.t[:, None] + np.arange(simulator.episodes.length or 1)
        bars, assets = copied_to(rows, device), copied_to(simulator.assets.copy(), device)
        weights = copied_to(self._start_weights(rng).astype(np.float32), device)
        if self.parts == 1:
            lived: tuple[Tensor, ...] = self._lived(rows, bars, assets, weights)
        else:
            found = []
            for k in range(0, len(rows), size := -(-len(rows) // self.parts)):
                part = (each[k : k + size] for each in (rows, bars, assets, weights))
                found.append(checkpoint(self._lived, *part, use_reentrant=False))
            lived = tuple(th.cat(each) for each in zip(*found, strict=True))
        return Rollout._make((*lived, bars, assets))

    def _lived(
        self, rows: NDArray[np.integer], bars: Tensor, assets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return growth, turnover, weights and channels of accounts, as in ``Rollout``."""
        simulator = self.simulator
        sampled = None if simulator.episodes.universe is None else assets
        channels = self._encode(rows, sampled)
        tradable = self.tradable[bars[:, :, None], assets[:, None, :]]
        value, lived = None, []
        bounds = bounds_of(simulator.constraints, simulator.n_assets)
        for k in range(rows.shape[1]):
            actions = self.agent.network(asset_rows(channels[:, k], tradable[:, k], weights))
            target = score_weights(actions, self._logits_scale, bounds)
            if self.scales is not None:
                target = scaled_weights(target, self.scales[bars[:, k, None], assets], bounds)
            step = self.differentiable.step(weights, target, bars[:, k], sampled, value)
            weights, value = step.weights, step.value
            lived.append((step.log_growth, step.turnover, step.held))
        growth, turnover, held = (th.stack(part, 1) for part in zip(*lived, strict=True))
        return growth, turnover, held, channels

    def _encode(self, rows: NDArray[np.integer], assets: Tensor | None) -> Tensor:
        """Return encodings (lanes, steps, N, channels), each distinct bar encoded once."""
        lanes, steps = rows.shape
        wanted = None if assets is None else assets.repeat_interleave(steps, 0)
        channels: Tensor = self.embeddings(th.from_numpy(rows.ravel()), wanted)
        return channels.view(lanes, steps, *channels.shape[1:])

    def _start_weights(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw (lanes, N + 1): half uniform on the simplex, the others equal weight or cash."""
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

    def _validate(self, within: tuple[int, int]) -> dict[str, float]:
        """Return growth and turnover on a range, both per bar."""
        start, end = within
        first = max(start, self.market.warmup + int(self.env_options["window"]) - 1)
        action = {} if self.scales is None else {"action": "weights"}
        options = self.env_options | action
        env = PortfolioEnv(self.market, observation="index", start=first, end=end, **options)
        result = backtest(_Policy(self, np.arange(first, end)), env)
        return {
            "growth": float(result.log_returns.mean()),
            "turnover": float(result.turnovers.mean()),
        }


class _Policy:
    """The agent of a trainer on rows of its market, which are encoded all at once.

    ``DirectAgent.predict`` would compare the weights with those of the bar before, at every bar.

    Args:
        trainer: Its agent, as it is now.
        rows: Consecutive rows of the bars that are to be decided.
    """

    def __init__(self, trainer: DirectTrainer, rows: NDArray[np.integer]) -> None:
        self.trainer, self.first = trainer, int(rows[0])
        self.bounds = bounds_of(trainer.simulator.constraints, trainer.market.n_assets)
        self.action = trainer.agent.action if trainer.scales is None else "weights"
        network = trainer.agent.network
        with th.no_grad():
            self.channels = trainer.embeddings(th.from_numpy(rows))
            self.scores: Tensor | None = None
            if not network.sees_holdings:  # which need not be asked bar by bar
                held = self.channels.new_zeros(len(rows), trainer.market.n_assets + 1)
                inputs = (self.channels, trainer.tradable[rows[0] : rows[-1] + 1], held)
                parts = zip(*(each.split(_BLOCK) for each in inputs), strict=True)
                self.scores = th.cat([network(asset_rows(*part)) for part in parts]).cpu()

    @th.no_grad()
    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[NDArray[Any], Any]:
        """Return logits, or where there are scales target weights (B, N + 1)."""
        trainer, rows = self.trainer, observation["t"][:, 0]
        scores = (
            self._scores(observation) if self.scores is None else self.scores[rows - self.first]
        )
        if trainer.scales is None:
            return scores.numpy(), state
        target = score_weights(scores.double(), trainer.agent.config["logits_scale"], self.bounds)
        scales = trainer.scales.cpu().double()[rows]
        return scaled_weights(target, scales, self.bounds).numpy(), state

    def _scores(self, observation: Any) -> Tensor:
        rows = observation["t"][:, 0] - self.first
        channels = self.channels[copied_to(rows, self.channels.device)]
        tradable, weights = (
            th.tensor(observation[name], dtype=th.float32, device=channels.device)
            for name in ("tradable", "weights")
        )
        scores: Tensor = self.trainer.agent.network(asset_rows(channels, tradable, weights))
        return scores.cpu()
