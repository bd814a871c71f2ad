"""PortfolioEnv: one account as a Gymnasium environment."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, TypedDict, Unpack

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from portfolio_env.checks import check_choice, shortened
from portfolio_env.data import load_market
from portfolio_env.errors import ArgumentError
from portfolio_env.html import card
from portfolio_env.market import Market
from portfolio_env.market.timeline import time_text
from portfolio_env.names import check_keywords
from portfolio_env.observations import Observer
from portfolio_env.simulation import dynamics
from portfolio_env.simulation.constraints import PortfolioConstraints
from portfolio_env.simulation.cost_models import CostSpec
from portfolio_env.simulation.episodes import When
from portfolio_env.simulation.executor import Executor
from portfolio_env.simulation.rewards import RewardSpec
from portfolio_env.simulation.simulator import Simulator
from portfolio_env.simulation.targets import numbers

_ELSEWHERE = {  # what one environment takes and the other does not
    "num_envs": "lanes are of PortfolioVectorEnv.",
    "autoreset_mode": "it belongs to PortfolioVectorEnv; this one is reset by its caller.",
    "max_episode_steps": "gym.make and PortfolioVectorEnv take it; here, give episode_length.",
    "stagger": "lanes are of PortfolioVectorEnv.",
}


def summary(simulator: Simulator, options: Mapping[str, Any]) -> str:
    """An environment in a few words: its market, and how it is seen and traded."""
    return (
        f"{simulator.market!r}; observation {options['observation']!r}, window "
        f"{simulator.window}, action {simulator.action!r}; {_range(simulator)}"
    )


def facts(
    simulator: Simulator,
    options: Mapping[str, Any],
    observation: spaces.Space[Any],
    action: spaces.Space[Any],
) -> dict[str, str]:
    """What there is to know of an environment at a glance, by name."""
    defaults = all_options("window", {})
    changed = {n: value for n, value in options.items() if n in _OPTIONS and value != defaults[n]}
    parts = observation.spaces.items() if isinstance(observation, spaces.Dict) else ()
    shapes = ", ".join(f"{name} {part.shape}" for name, part in parts) or f"{observation.shape}"
    return {
        "market": repr(simulator.market),
        "range": _range(simulator),
        "observation": f"{options['observation']}: {shapes}",
        "action": f"{simulator.action}: {action.shape}, cash first",
        "arguments": ", ".join(f"{n}={shortened(v)}" for n, v in changed.items()) or "defaults",
    }


def _range(simulator: Simulator) -> str:
    episodes, times = simulator.episodes, simulator.market.timestamps
    return f"{time_text(times[episodes.start])} to {time_text(times[episodes.end - 1])}"


def action_space(simulator: Simulator) -> spaces.Box:
    """The actions of one lane: scores in [-1, 1], or weights within the constraints, cash first."""
    if simulator.action == "logits":
        return spaces.Box(-1.0, 1.0, (simulator.n_assets + 1,), np.float32)
    return spaces.Box(*simulator.box, dtype=np.float32)


class EnvOptions(TypedDict, total=False):
    """Keywords that both environments pass on to the Simulator, which documents them."""

    window: int
    action: str
    reward: RewardSpec
    costs: CostSpec
    constraints: PortfolioConstraints | Mapping[str, Any]
    execution: str
    start: When
    end: When
    episode_length: int | None
    random_start: bool
    universe: int | None
    adjustment: float
    initial: str | Sequence[float]
    initial_value: float
    logits_scale: float


_OPTIONS = {
    name: each
    for name, each in inspect.signature(Simulator).parameters.items()
    if each.kind is each.KEYWORD_ONLY
}


def shows_options(init: Callable[..., None]) -> Callable[..., None]:
    """Show the keywords of ``EnvOptions``, with their defaults, in the signature of a class."""
    signature = inspect.signature(init)
    own = list(signature.parameters.values())[:-1]  # all but **options
    shown = signature.replace(parameters=[*own, *_OPTIONS.values()])
    init.__signature__ = shown  # type: ignore[attr-defined]
    return init


def check_options(environment: type, options: Mapping[str, Any]) -> None:
    """Refuse keywords that the environment does not have; ``options`` are those it hands on."""
    own = inspect.signature(environment).parameters.values()
    named = [each.name for each in own if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    known = list(dict.fromkeys([*named, *_OPTIONS]))
    for name in options:
        if name in _ELSEWHERE and name not in known:
            raise ArgumentError(
                f"{environment.__name__} has no keyword {name!r}; {_ELSEWHERE[name]}"
            )
    check_keywords(environment.__name__, "keyword", options, known)


def all_options(observation: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What an environment observes, and the keywords of ``EnvOptions`` with their defaults."""
    defaults = {name: each.default for name, each in _OPTIONS.items()}
    return {"observation": observation, **defaults, **options}


class PortfolioEnv(gym.Env[Any, Any]):
    """Allocate an account over the assets of a market and cash, one bar at a time.

    At close t the agent has seen bars up to and including t and names target weights; they are
    traded at that close (or at the next open), at exactly solved costs; the reward is what the
    account makes of it by close t + 1. ``terminated`` on ruin, ``truncated`` at the end of the
    episode or of the range.

    Args:
        market: A ``Market``, the name of a bundled or synthetic one (``"sp500"``...), or a path.
        observation: ``"window"``, ``"flat"`` or ``"index"``, see ``observations.Observer``; an
            index observation belongs to one market and cannot be flattened.
        render_mode: None, ``"ansi"`` or ``"rgb_array"``.
        **options: See ``simulation.simulator.Simulator``: window, action, reward, costs,
            constraints, execution, start, end, episode_length, random_start, universe, adjustment,
            initial, initial_value, logits_scale.

    ``reset(options={"t": ..., "weights": ...})`` starts at a given bar and from given weights.
    ``info`` holds the numbers of ``simulation.dynamics.LEDGER`` at every step.

    Raises:
        ArgumentError: On bad options, or actions of the wrong shape or not finite.

    >>> env = PortfolioEnv("synthetic?bars=300&assets=3", window=5, observation="index")
    >>> observation, info = env.reset(seed=0)
    >>> observation["weights"].tolist(), info["portfolio_value"]
    ([1.0, 0.0, 0.0, 0.0], 10000.0)
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 10}  # type: ignore[misc]

    @shows_options
    def __init__(
        self,
        market: Market | str = "synthetic",
        *,
        observation: str = "window",
        render_mode: str | None = None,
        **options: Unpack[EnvOptions],
    ) -> None:
        """Build a simulator with one lane."""
        check_options(type(self), options)
        self.simulator = Simulator(opened_market(market), 1, **options)
        self.env_options = all_options(observation, options)
        self._observer = Observer(self.simulator, observation)
        self.observation_space = self._observer.space
        self.action_space = action_space(self.simulator)
        self.render_mode = checked_render_mode(render_mode, self.metadata)
        self._values: list[float] = []  # of this episode, kept for rendering only
        self._running = False

    @property
    def executor(self) -> Executor:
        """What carries out the actions: the simulator."""
        return self.simulator

    @property
    def market(self) -> Market:
        """The market that is traded."""
        return self.simulator.market

    @property
    def weights(self) -> NDArray[np.float64]:
        """(N + 1,) weights at the last close, as the market left them, cash first; a copy."""
        return self.simulator.weights[0].copy()

    @property
    def timestamp(self) -> np.datetime64:
        """Time of the last closed bar."""
        now: np.datetime64 = self.market.timestamps[self.simulator.t[0]]
        return now

    def __repr__(self) -> str:
        value = self.simulator.ledger[dynamics.VALUE, 0]
        now = f"; value {value:,.2f} at {time_text(self.timestamp)}" if value else ""
        return f"{type(self).__name__}({summary(self.simulator, self.env_options)}{now})"

    def __str__(self) -> str:
        return f"<{self!r}>"  # wrappers of Gymnasium put their own names before it

    def _repr_html_(self) -> str:
        found = facts(self.simulator, self.env_options, self.observation_space, self.action_space)
        if value := self.simulator.ledger[dynamics.VALUE, 0]:
            found |= {"account": f"value {value:,.2f} at {time_text(self.timestamp)}"}
        return card(type(self).__name__, found)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; ``options`` may hold ``t`` (row or date) and ``weights`` (N + 1,)."""
        super().reset(seed=seed)
        t, weights = read_reset_options(options)
        self.simulator.reset(lambda _: self.np_random, t=t, weights=weights)
        self._running = True
        self._values = []
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Trade towards the action and move to the next bar."""
        if not self._running:
            raise ArgumentError(
                "the episode is over or was never started; call reset() before step()."
            )
        simulator, array = self.simulator, numbers(action)
        if array.shape != (simulator.n_assets + 1,) or array.dtype.kind not in "fiu":
            raise ArgumentError(
                f"the action has shape {array.shape} and type {array.dtype}, expected "
                f"({simulator.n_assets + 1},) numbers, cash first."
            )
        reward = simulator.step(array[None])
        terminated, truncated = bool(simulator.terminated[0]), bool(simulator.truncated[0])
        self._running = not (terminated or truncated)
        return self._observation(), float(reward[0]), terminated, truncated, self._info()

    def _observation(self) -> Any:
        rows = self._observer()
        return {name: row[0] for name, row in rows.items()} if isinstance(rows, dict) else rows[0]

    def _info(self) -> dict[str, Any]:
        numbers = self.simulator.ledger[:, 0].tolist()
        if self.render_mode is not None:
            self._values.append(numbers[dynamics.VALUE])
        return dict(zip(dynamics.LEDGER, numbers, strict=True))

    def render(self) -> Any:
        """The account as text (``ansi``) or as a picture (``rgb_array``, (H, W, 3) uint8)."""
        if self.render_mode is None:
            gym.logger.warn(
                "render() needs render_mode='ansi' or 'rgb_array' when the environment is made."
            )
            return None
        return render_lane(self.simulator, 0, np.array(self._values), self.render_mode)


def render_lane(simulator: Simulator, lane: int, values: Any, mode: str) -> Any:
    """Draw one lane in the given mode; ``values`` are its portfolio values so far."""
    from portfolio_env import rendering  # matplotlib comes with it

    draw = rendering.render_ansi if mode == "ansi" else rendering.render_rgb
    return draw(
        assets=[simulator.market.assets[i] for i in simulator.assets[lane]],
        timestamp=simulator.market.timestamps[simulator.t[lane]],
        values=values,
        weights=simulator.weights[lane],
        drawdown=float(simulator.ledger[dynamics.DRAWDOWN, lane]),
    )


def checked_render_mode(render_mode: str | None, metadata: dict[str, Any]) -> str | None:
    """The render mode, if there is such a one."""
    if render_mode is not None:
        check_choice("render_mode", render_mode, metadata["render_modes"])
    return render_mode


def read_reset_options(options: dict[str, Any] | None) -> tuple[Any, Any]:
    """``(t, weights)`` of the reset options; a name that means nothing is an error, not ignored."""
    given = dict(options or {})
    t, weights = given.pop("t", None), given.pop("weights", None)
    if given:
        raise ArgumentError(
            f"unknown reset options {sorted(given)}; this environment knows 't' and 'weights'."
        )
    return t, weights


def opened_market(market: Market | str) -> Market:
    """The market itself, or the one of a name or path (see ``load_market``)."""
    return market if isinstance(market, Market) else _named_market(market)


@lru_cache(maxsize=8)
def _named_market(name: str) -> Market:
    """One copy of a named market per process, however many environments use it."""
    if not isinstance(name, str):
        raise ArgumentError(f"market={name!r} must be a Market, a name or a path.")
    return load_market(name)
