"""PortfolioVectorEnv: any number of accounts as one Gymnasium vector environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Unpack

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from portfolio_env.arguments import (
    EnvOptions,
    action_space,
    all_options,
    check_options,
    checked_render_mode,
    facts,
    opened_market,
    read_reset_options,
    read_seed,
    shows_options,
    summary,
)
from portfolio_env.checks import check_integer, checked
from portfolio_env.errors import ArgumentError
from portfolio_env.html import card
from portfolio_env.market import Market
from portfolio_env.observations import Observer
from portfolio_env.rendering import History
from portfolio_env.simulation import dynamics
from portfolio_env.simulation.executor import Executor
from portfolio_env.simulation.simulator import Simulator
from portfolio_env.simulation.state import restore_simulator, simulator_state

Bool = NDArray[np.bool_]


class PortfolioVectorEnv(VectorEnv[Any, Any, Any]):
    """B accounts in the same market, stepped by one compiled call.

    Lane i seeded with s is a ``PortfolioEnv`` seeded with ``s + i``, bit for bit; that class says
    what an account does, and what is said there of spaces, rewards, start and end of an episode
    holds for every lane.

    Action space:
        (B, N + 1): a row per lane, each of ``single_action_space``.

    Observation space:
        That of ``PortfolioEnv``, lanes in front; ``single_observation_space`` is that of one lane.

    Rewards:
        (B,) float64.

    Starting state:
        ``reset(options=...)`` takes ``t`` and ``weights``, for all lanes or one row per lane, and
        ``reset_mask`` (B,) for some lanes only.

    Episode end:
        (B,) terminated and (B,) truncated; what follows is said by ``autoreset_mode``.

    Info:
        (B,) arrays of ``simulation.dynamics.LEDGER``, each with Gymnasium's mask ``_name``.

    Version history:
        ``Portfolio-v0``: first version.

    Args:
        num_envs: Number of lanes B.
        market: See ``PortfolioEnv``.
        observation: See ``PortfolioEnv``.
        render_mode: None, ``"rgb_array"`` or ``"ansi"``; ``render()`` gives one frame per lane.
        autoreset_mode: ``AutoresetMode`` or its value. ``NEXT_STEP``: the step after the last of
            an episode ignores the lane's action and returns its reset. ``SAME_STEP``: the reset
            observation comes with the last step, whose own is in ``info["final_obs"]`` and
            ``info["final_info"]``. ``DISABLED``: a lane that has ended stands still, rewarded 0,
            until ``reset(options={"reset_mask": mask})``; when all have ended, a step is an error.
        max_episode_steps: Truncate episodes after so many steps at the latest, as ``gym.make``'s
            ``TimeLimit`` does; None or -1: no limit. Unlike ``episode_length`` it changes neither
            what is drawn nor what an episode must have room for.
        stagger: Cut the episodes that a reset of all lanes starts, so that lanes do not go on to
            end together: lane i of B after (i + 1) / B of its steps, rounded up. Episodes that
            follow, and those of a ``reset_mask``, are whole. Nothing else that is drawn changes.
        start_groups: Number of groups of neighbouring lanes that start at the same drawn bar, 1 to
            B; None draws a start for every lane. Networks that encode each bar once then see fewer
            distinct bars. A lane that ends before its group, ruined, rejoins it.
        **options: See ``PortfolioEnv``.

    Attributes:
        market: The market that is traded.
        weights: (B, N + 1) weights at the last close, as the market left them, cash first.
        timestamp: (B,) time of the last closed bar.
        env_options: Keywords of a ``PortfolioEnv`` like a lane, on any market.

    Raises:
        ArgumentError: On bad options, or actions of the wrong shape or not finite.

    >>> envs = PortfolioVectorEnv(2, "synthetic?bars=300&assets=3", observation="index")
    >>> observations, infos = envs.reset(seed=0)
    >>> observations["weights"].shape, infos["portfolio_value"].tolist()
    ((2, 4), [10000.0, 10000.0])
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 10}  # type: ignore[misc]

    @shows_options
    def __init__(
        self,
        num_envs: int = 1,
        market: Market | str | os.PathLike[str] = "synthetic",
        *,
        observation: str = "window",
        render_mode: str | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        stagger: bool = False,
        start_groups: int | None = None,
        **options: Unpack[EnvOptions],
    ) -> None:
        """Build a simulator with ``num_envs`` lanes."""
        check_options(type(self), options)
        check_integer("num_envs", num_envs)
        self.simulator = Simulator(opened_market(market), num_envs, **options)
        self.env_options = all_options(observation, options)
        self.num_envs = num_envs
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        # one dict per object: the class holds none, as two environments may differ in mode
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}  # type: ignore[misc]
        self.render_mode = checked_render_mode(render_mode, self.metadata)
        self._observer = Observer(self.simulator, observation)
        self.single_observation_space = self._observer.space
        self.single_action_space = action_space(self.simulator)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._time_limit = _time_limit(max_episode_steps)
        self._stagger = checked("stagger", stagger, bool)
        count = num_envs if start_groups is None else start_groups
        check_integer("start_groups", count, 1, num_envs)
        self._groups = np.arange(num_envs) * count // num_envs  # of each lane
        self._grouped = count < num_envs and self.simulator.episodes.random_start
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._ended = np.zeros(num_envs, np.bool_)
        self._started = False
        self._histories: list[History] = []  # of each lane, kept for rendering only
        if self.render_mode is not None:
            self._histories = [History(self.simulator, lane) for lane in range(num_envs)]

    # ---- Gymnasium

    @property
    def executor(self) -> Executor:
        """Return the executor of the actions: the simulator."""
        return self.simulator

    @property
    def market(self) -> Market:
        """Return the market that is traded."""
        return self.simulator.market

    @property
    def weights(self) -> NDArray[np.float64]:
        """Return a copy of the (B, N + 1) weights at the last close, before trading, cash first."""
        return self.simulator.weights.copy()

    @property
    def timestamp(self) -> NDArray[np.datetime64]:
        """Return the (B,) times of the last closed bar of every lane."""
        return self.market.timestamps[self.simulator.t]

    def __repr__(self) -> str:
        lanes = f"{self.num_envs} lane{'s' * (self.num_envs != 1)}"
        mode = self.autoreset_mode.value
        return (
            f"{type(self).__name__}({lanes}, {mode}; {summary(self.simulator, self.env_options)})"
        )

    def _repr_html_(self) -> str | None:
        spaces = self.single_observation_space, self.single_action_space
        lanes = {"lanes": f"{self.num_envs}", "autoreset": self.autoreset_mode.value}
        return card(type(self).__name__, lanes | facts(self.simulator, self.env_options, *spaces))

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes in all lanes, or in those of ``options["reset_mask"]``.

        Args:
            seed: Lane i is seeded with ``seed + i``; or one seed (or None) per lane.
            options: ``reset_mask`` (B,) bool, ``t`` (row, date or (B,) rows), ``weights`` (as
                ``initial``, or (B, N + 1), cash first).
        """
        mask, t, weights = read_reset_options(options, "reset_mask", "t", "weights")
        mask = _reset_mask(mask, self.num_envs)
        if not self._started and mask is not None and not mask.all():
            raise ArgumentError(
                "the first reset must start every lane; call reset() without reset_mask once."
            )
        self._seed(seed, mask)
        self._restart(mask, t=t, weights=weights)
        if self._stagger and mask is None:
            clock, count = self.simulator.lanes.clock, self._groups[-1] + 1
            clock[1] = clock[0] - (clock[0] - clock[1]) * (self._groups + 1) // count  # rounds up
        self._ended[mask] = False
        self._started = True
        infos = _info_arrays(self.simulator.ledger, mask)
        self._remember(mask, fresh=mask)
        return self._observer(), infos

    def step(self, actions: Any) -> tuple[Any, NDArray[np.float64], Bool, Bool, dict[str, Any]]:
        """Step every lane, with resets according to ``autoreset_mode``."""
        if not self._started:
            raise ArgumentError("call reset() before step().")
        simulator, idle = self.simulator, self._ended
        if self.autoreset_mode is AutoresetMode.SAME_STEP or not idle.any():
            rewards = simulator.step(actions)
        elif self.autoreset_mode is AutoresetMode.DISABLED and idle.all():
            raise ArgumentError(
                "every lane has ended and nothing would move; call reset(), with "
                "options={'reset_mask': mask} for some lanes, or build the environment with "
                "autoreset_mode='NextStep' or 'SameStep'."
            )
        else:
            rewards = simulator.step(actions, ~idle)
            if self.autoreset_mode is AutoresetMode.NEXT_STEP:
                self._restart(idle)
        terminated, truncated = simulator.terminated.copy(), simulator.truncated.copy()
        ended = terminated | truncated
        infos: dict[str, Any] = {}
        fresh = idle if self.autoreset_mode is AutoresetMode.NEXT_STEP else np.zeros_like(idle)
        if self.autoreset_mode is AutoresetMode.SAME_STEP and ended.any():
            infos = self._final(ended)
            self._restart(ended)
            fresh = ended
        infos = {**_info_arrays(simulator.ledger, None), **infos}
        self._remember(None, fresh=fresh)
        self._ended = ended if self.autoreset_mode is not AutoresetMode.SAME_STEP else idle
        return self._observer(), rewards, terminated, truncated, infos

    def render(self) -> tuple[Any, ...] | None:
        """Return one frame per lane."""
        if self.render_mode is None:
            gym.logger.warn(
                "render() needs render_mode='ansi' or 'rgb_array' when the environment is made."
            )
            return None
        return tuple(history.render(self.render_mode) for history in self._histories)

    # ---- complete state, to stop and resume

    def state(self) -> dict[str, Any]:
        """Return accounts, episodes and random generators: arrays, and numbers that JSON knows."""
        generators = [None if g is None else g.bit_generator.state for g in self._generators]
        return {
            "simulator": simulator_state(self.simulator),
            "generators": generators,
            "ended": self._ended.copy(),
            "started": self._started,
        }

    def restore(self, state: Mapping[str, Any]) -> Any:
        """Restore a ``state`` of an environment of the same arguments; rendering starts again.

        Returns:
            The observation at which it was taken.

        Raises:
            ArgumentError: If it is of another environment.
        """
        generators = state["generators"]
        fits = len(generators) == self.num_envs and state["ended"].shape == self._ended.shape
        if not fits or (state["simulator"]["lanes"]["ended"].any(axis=0) & ~state["ended"]).any():
            raise ArgumentError(
                f"the state of {len(generators)} lanes is none of an environment with "
                f"{self.num_envs} lanes."
            )
        restore_simulator(self.simulator, state["simulator"])
        self._generators = [None if given is None else _generator(given) for given in generators]
        self._ended = state["ended"].copy()
        self._started = bool(state["started"])
        self._remember(None, fresh=None)
        return self._observer()

    # ---- details

    def _restart(self, lanes: Bool | None, *, t: Any = None, weights: Any = None) -> None:
        """Start new episodes, none longer than ``max_episode_steps``."""
        simulator, last = self.simulator, None
        if t is None and self._grouped:
            mask = np.ones(self.num_envs, np.bool_) if lanes is None else lanes
            goes_on = ~(mask | simulator.terminated | simulator.truncated)
            args = self._groups, mask, goes_on, simulator.lanes.clock, self._generator
            t, last = simulator.episodes.shared_starts(*args)
        simulator.reset(self._generator, lanes, t=t, weights=weights)
        if last is not None:
            simulator.lanes.clock[1] = np.minimum(simulator.lanes.clock[1], last)
        if self._time_limit is not None:
            which = slice(None) if lanes is None else lanes
            now, last = self.simulator.lanes.clock[:, which]
            self.simulator.lanes.clock[1, which] = np.minimum(last, now + self._time_limit)

    def _final(self, ended: Bool) -> dict[str, Any]:
        """Return last observation and info of the lanes that ended, as Gymnasium gives them."""
        rows = self._observer()
        final_obs = np.full(self.num_envs, None, dtype=object)
        for lane in np.flatnonzero(ended):
            final_obs[lane] = (
                {name: row[lane] for name, row in rows.items()}
                if isinstance(rows, dict)
                else rows[lane]
            )
        return {
            "final_obs": final_obs,
            "_final_obs": ended.copy(),
            "final_info": _info_arrays(np.where(ended, self.simulator.ledger, 0.0), ended),
            "_final_info": ended.copy(),
        }

    def _seed(self, seed: int | Sequence[int | None] | None, mask: Bool | None) -> None:
        if seed is None:
            return
        given = np.array(seed, object)
        if given.ndim:
            seeds = [read_seed(value) for value in given]
        else:
            first = check_integer("seed", seed, 0)
            seeds = [first + i for i in range(self.num_envs)]
        if len(seeds) != self.num_envs:
            raise ArgumentError(
                f"seed has {len(seeds)} values, expected one per lane: {self.num_envs}."
            )
        if not self.simulator.draws:
            return
        for lane, value in enumerate(seeds):
            if value is not None and (mask is None or mask[lane]):
                self._generators[lane] = seeding.np_random(value)[0]

    def _generator(self, lane: int) -> np.random.Generator:
        generator = self._generators[lane]
        if generator is None:
            generator = self._generators[lane] = seeding.np_random()[0]
        return generator

    def _remember(self, lanes: Bool | None, *, fresh: Bool | None) -> None:
        for lane, history in enumerate(self._histories):
            if lanes is None or lanes[lane]:
                history.record(fresh=fresh is None or bool(fresh[lane]))


def _generator(state: Mapping[str, Any]) -> np.random.Generator:
    generator = seeding.np_random(0)[0]
    generator.bit_generator.state = state
    return generator


def _info_arrays(ledger: NDArray[np.float64], lanes: Bool | None) -> dict[str, Any]:
    """Return the ledger as Gymnasium's dict of arrays, each with the ``_key`` mask of its lanes."""
    rows = ledger.copy()
    mask = np.ones(rows.shape[1], np.bool_) if lanes is None else lanes.copy()
    infos: dict[str, Any] = {}
    for name, row in zip(dynamics.LEDGER, rows, strict=True):
        infos[name] = row
        infos[f"_{name}"] = mask
    return infos


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError:
        choices = ", ".join(repr(m.value) for m in AutoresetMode)
        raise ArgumentError(f"autoreset_mode={mode!r} must be one of {choices}.") from None


def _time_limit(steps: int | None) -> int | None:
    if steps is None or steps == -1:
        return None
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise ArgumentError(
            f"max_episode_steps={steps!r} must be an integer of 1 or more; None or -1 for no limit."
        )
    return int(steps)


def _reset_mask(mask: Any, num_envs: int) -> Bool | None:
    if mask is None:
        return None
    if (
        not isinstance(mask, np.ndarray)
        or mask.shape != (num_envs,)
        or mask.dtype != np.bool_
        or not mask.any()
    ):
        raise ArgumentError(
            f"options['reset_mask']={mask!r} must be a bool array of shape ({num_envs},) with at "
            "least one True."
        )
    return mask
