"""PortfolioEnv: one account as a Gymnasium environment."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Unpack

import gymnasium as gym
import numpy as np
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
from portfolio_env.errors import ArgumentError
from portfolio_env.html import card
from portfolio_env.market import Market
from portfolio_env.market.slots import in_slots, is_labelled
from portfolio_env.market.timeline import time_text
from portfolio_env.observations import Observer
from portfolio_env.rendering import History, Window
from portfolio_env.simulation import dynamics
from portfolio_env.simulation.executor import Executor
from portfolio_env.simulation.simulator import Simulator
from portfolio_env.simulation.targets import numbers


class PortfolioEnv(gym.Env[Any, Any]):
    """Allocate an account over the assets of a market and cash, one bar at a time.

    At close t the agent has seen bars up to and including t and names target weights; they are
    traded at that close (or at the next open), at exactly solved costs; the reward is what the
    account makes of it by close t + 1. N is the number of assets, F that of features per asset, W
    the window in bars. Cash is slot 0 of every weight vector.

    Action space:
        ``Box(-1, 1, (N + 1,), float32)``: a score for cash, then one per asset; the target weights
        are their softmax at scale ``logits_scale``, with short positions and leverage where the
        constraints allow them. With ``action="weights"``: the target weights themselves, in the box
        of the constraints and projected onto them.

    Observation space:
        ``Dict`` of ``market`` (W, N, F) float32, features of the last W bars within +-10;
        ``tradable`` (N,) int8, whether each asset traded in bar t; ``weights`` (N + 1,) float32, as
        the market left them at close t. ``observation="flat"`` is the same in one vector, and
        ``"index"`` the number of the row in the place of the features, see
        ``observations.Observer``.

    Rewards:
        The log return of the account after all costs; ``reward`` names another, see
        ``simulation.rewards``.

    Starting state:
        Bar ``start``, or a random one with ``random_start``, and ``initial_value`` in cash, or what
        ``initial`` says. ``reset(options={"t": ..., "weights": ...})`` starts one episode at a
        given bar (a row or a date) and from given weights, in any of the ways of ``initial``.

    Episode end:
        Terminated on ruin, when 99.9 % of the initial value is lost. Truncated after
        ``episode_length`` steps, or at the last bar before ``end``.

    Info:
        The numbers of ``simulation.dynamics.LEDGER`` at every step, among them
        ``portfolio_value``, ``turnover``, ``cost`` and ``drawdown``.

    Version history:
        ``Portfolio-v0``: first version.

    Args:
        market: A ``Market``, the name of a bundled or synthetic one (``"sp500"``...), or a path.
        observation: ``"window"``, ``"flat"`` or ``"index"``; an index observation belongs to one
            market and cannot be flattened.
        render_mode: None; ``"human"``, a window that follows the episode; ``"rgb_array"``, its
            picture; or ``"ansi"``, text.
        **options: The main ones are

            - ``window`` (60): bars in an observation;
            - ``action`` (``"logits"``): or ``"weights"``;
            - ``reward`` (``"log_return"``): a name, a mapping with parameters, or a function;
            - ``costs`` (10 basis points): ``TransactionCosts``, a mapping of its fields, or a
              ``CostModel``;
            - ``constraints`` (long only): ``PortfolioConstraints`` or a mapping of its fields;
            - ``start``, ``end`` (the whole market): first bar, and the bar after the last one, rows
              or dates;
            - ``execution`` (``"close"``): or ``"next_open"``;
            - ``fills`` (all of every order): ``Fills`` or a mapping of their fields;
            - ``delay`` (0): bars by which the market in an observation is older than the trade.

            The others are

            - ``episode_length`` (None): steps until truncation;
            - ``random_start`` (False): draw the first bar of every episode;
            - ``universe`` (None): number of assets drawn for every episode;
            - ``adjustment`` (1.0): fraction of the way to the target weights that is traded;
            - ``initial`` (``"cash"``): ``"equal_weight"``, or weights to start from, also by name;
            - ``initial_value`` (10,000): money at the start;
            - ``logits_scale`` (5.0): scale of the softmax.

            ``simulation.simulator.Simulator`` has their bounds.

    Attributes:
        market: The market that is traded.
        weights: (N + 1,) weights at the last close, as the market left them, cash first.
        timestamp: Time of the last closed bar.
        env_options: Keywords of one more environment like it, on any market.

    Raises:
        ArgumentError: On bad options, or actions of the wrong shape or not finite.

    >>> env = PortfolioEnv("synthetic?bars=300&assets=3", window=5, observation="index")
    >>> observation, info = env.reset(seed=0)
    >>> observation["weights"].tolist(), info["portfolio_value"]
    ([1.0, 0.0, 0.0, 0.0], 10000.0)
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["human", "ansi", "rgb_array"],
        "render_fps": 10,
    }

    @shows_options
    def __init__(
        self,
        market: Market | str | os.PathLike[str] = "synthetic",
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
        self._history = History(self.simulator)  # kept for rendering only
        self._window = Window()
        self._running = False

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
        """Return a copy of the (N + 1,) weights at the last close, before trading, cash first."""
        return self.simulator.weights[0].copy()

    @property
    def timestamp(self) -> np.datetime64:
        """Return the time of the last closed bar."""
        now: np.datetime64 = self.market.timestamps[self.simulator.t[0]]
        return now

    def __repr__(self) -> str:
        value = self.simulator.ledger[dynamics.VALUE, 0]
        now = f"; value {value:,.2f} at {time_text(self.timestamp)}" if value else ""
        return f"{type(self).__name__}({summary(self.simulator, self.env_options)}{now})"

    def __str__(self) -> str:
        return f"<{self!r}>"  # wrappers of Gymnasium put their own names before it

    def _repr_html_(self) -> str | None:
        found = facts(self.simulator, self.env_options, self.observation_space, self.action_space)
        if value := self.simulator.ledger[dynamics.VALUE, 0]:
            found |= {"account": f"value {value:,.2f} at {time_text(self.timestamp)}"}
        return card(type(self).__name__, found)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; ``options``: ``t`` (row or date), ``weights`` (as ``initial``)."""
        t, weights = read_reset_options(options, "t", "weights")
        super().reset(seed=read_seed(seed))
        self.simulator.reset(lambda _: self.np_random, t=t, weights=weights)
        self._running = True
        return self._observation(), self._info(fresh=True)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Trade towards the action and move to the next bar.

        Args:
            action: (N + 1,) numbers, cash first; or weights by name, as a Series or a mapping,
                where an asset that is left out gets 0, and cash the rest.
        """
        if not self._running:
            raise ArgumentError(
                "the episode is over or was never started; call reset() before step()."
            )
        simulator = self.simulator
        if is_labelled(action):
            if simulator.action != "weights":
                raise ArgumentError(
                    'weights by name need action="weights"; this environment takes '
                    f"action={simulator.action!r}."
                )
            action = in_slots(action, simulator.asset_names[0])
        array = numbers(action)
        if array.shape != (simulator.n_assets + 1,) or array.dtype.kind not in "fiu":
            raise ArgumentError(
                f"the action has shape {array.shape} and type {array.dtype}, expected "
                f"({simulator.n_assets + 1},) numbers, cash first."
            )
        reward = simulator.step(array[None])
        terminated, truncated = simulator.lanes.ended[:, 0].tolist()
        self._running = not (terminated or truncated)
        return self._observation(), float(reward[0]), terminated, truncated, self._info()

    def _observation(self) -> Any:
        rows = self._observer()
        return {name: row[0] for name, row in rows.items()} if isinstance(rows, dict) else rows[0]

    def _info(self, *, fresh: bool = False) -> dict[str, Any]:
        if self.render_mode is not None:
            self._history.record(fresh=fresh)
        if self.render_mode == "human":
            self._window.show(self._history.frame())
        return dict(zip(dynamics.LEDGER, self.simulator.ledger[:, 0].tolist(), strict=True))

    def render(self) -> Any:
        """Return the account as text (``ansi``) or as an image (``rgb_array``, (H, W, 3) uint8).

        With ``human`` every reset and step shows the image, and this returns None.
        """
        if self.render_mode is None:
            gym.logger.warn(
                "render() needs render_mode='human', 'ansi' or 'rgb_array' when the environment is "
                "made."
            )
        if self.render_mode in (None, "human"):
            return None
        return self._history.render(self.render_mode)

    def close(self) -> None:
        """Close the window of ``human``, if one is open."""
        self._window.close()
