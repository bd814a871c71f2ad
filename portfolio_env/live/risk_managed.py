"""RiskManaged: any policy, kept within risk limits in an environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from portfolio_env.checks import check_choice
from portfolio_env.errors import ArgumentError
from portfolio_env.live.risk import Limited, limited
from portfolio_env.live.risk_limits import DrawdownStop, RiskLimits, past_returns
from portfolio_env.simulation.dynamics import VALUE
from portfolio_env.simulation.simulator import Simulator
from portfolio_env.simulation.targets import checked_actions, may_borrow, scored_weights

if TYPE_CHECKING:
    from portfolio_env.evaluation.backtest import Policy

Bool = NDArray[np.bool_]
Float = NDArray[np.float64]


class Memory(NamedTuple):
    """Memory between two decisions: that of the policy, and a stop for each account."""

    policy: Any
    stops: tuple[DrawdownStop, ...]


class RiskManaged:
    """A policy whose weights pass the risk manager before they are traded.

    It reads the accounts, their values and past returns from the environment that it acts in; what
    it decides at a bar depends on nothing after its close. Where a limit on turnover cuts a trade
    of a baseline short, the rest is not traded before the baseline rebalances next.

    Args:
        policy: Answers ``predict``.
        limits: The limits. They hold on what is held after trading, or with ``fills`` on what is
            ordered: those of the environment come later, and should be no tighter.
        env: PortfolioEnv or PortfolioVectorEnv with ``action="weights"``, bare or in wrappers that
            keep actions, which orders all that is asked for: without ``adjustment``,
            ``no_trade_band`` and turnover limits of its own.
        answers: Kind of actions of the policy: "weights", or "logits" as in environments with that
            ``action``.

    Attributes:
        last: Decision for each account at the last bar; None for one that has ended.

    Raises:
        ArgumentError: If the environment takes logits or may order less than is asked for, or its
            market lacks the groups of the limits.
    """

    action = "weights"

    def __init__(
        self,
        policy: Policy,
        limits: RiskLimits,
        env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
        *,
        answers: str = "weights",
    ) -> None:
        self.policy, self.limits = policy, limits
        self.answers = check_choice("answers", answers, ("weights", "logits"))
        simulator = env.unwrapped.executor  # type: ignore[union-attr]
        if not isinstance(simulator, Simulator):
            raise ArgumentError(
                f"the executor {type(simulator).__name__} of the environment has no market; give "
                "a PortfolioEnv or PortfolioVectorEnv."
            )
        if simulator.action != "weights":
            raise ArgumentError(
                f'action="{simulator.action}" of the environment must be "weights"; say '
                'answers="logits" if the policy gives those.'
            )
        if simulator.slow or simulator.rules["no_trade_band"][0] > 0:
            raise ArgumentError(
                "the environment may order less than is asked for: leave out its adjustment, "
                "no_trade_band and turnover limits, and give RiskLimits(max_turnover=...)."
            )
        self.labels = limits.constraints.labels(simulator.market.panel)
        if self.labels and simulator.episodes.universe is not None:
            raise ArgumentError("group_bounds and universe= do not go together; leave out one.")
        self.simulator = simulator
        self.last: list[Limited | None] = [None] * simulator.num_lanes

    @property
    def needs_values(self) -> bool:
        """Return whether decisions depend on the past values of the account."""
        return self.limits.max_drawdown is not None

    @property
    def left_out(self) -> Mapping[str, Mapping[str, str]]:
        """Assets by date that the policy says it did not consider."""
        return getattr(self.policy, "left_out", None) or {}

    def predict(
        self,
        observation: Any,
        state: Memory | None = None,
        episode_start: Bool | None = None,
        deterministic: bool = True,
    ) -> tuple[Float, Memory]:
        """Return weights (B, N + 1) within the limits, and the memory for the next decision.

        Raises:
            ArgumentError: If there are too few returns before the bar for the measures of risk.
        """
        lanes = self.simulator.num_lanes
        own = None if state is None else state.policy
        answer, own = self.policy.predict(observation, own, episode_start, deterministic)
        before = (DrawdownStop(),) * lanes if state is None else state.stops
        fresh = np.zeros(lanes, np.bool_) if episode_start is None else episode_start
        values = self.simulator.ledger[VALUE].tolist()
        stops = tuple(
            (DrawdownStop() if new else stop).at(value, self.limits)
            for stop, new, value in zip(before, fresh, values, strict=True)
        )
        shape = (lanes, self.simulator.n_assets + 1)
        wishes = checked_actions(np.reshape(answer, shape), shape).astype(np.float64)
        ended = self.simulator.terminated | self.simulator.truncated
        for lane in range(lanes):
            self.last[lane] = None
            if not ended[lane]:
                found = self._limited(lane, wishes[lane], stops[lane].bars is not None)
                self.last[lane], wishes[lane] = found, found.weights
        return wishes.reshape(np.shape(answer)), Memory(own, stops)

    def _limited(self, lane: int, answer: Float, stopped: bool) -> Limited:
        fixed = ~self.simulator.tradable[lane]
        held = self.simulator.weights[lane]
        if self.answers == "logits":
            bounds = self.simulator.bounds
            answer = scored_weights(answer[None], self.simulator.logits_scale, bounds)[0]
            answer[1:][fixed] = 0.0
            if may_borrow(bounds[0]):
                answer[0] = 1.0 - answer[1:].sum() - held[1:][fixed].sum()
            else:
                answer *= (1.0 - held[1:][fixed].sum()) / answer.sum()
        returns = self._returns(lane) if self.limits.measures_returns else None
        rest = {"fixed": fixed, "labels": self.labels, "stopped": stopped}
        return limited(answer, held, self.limits, returns, **rest)

    def _returns(self, lane: int) -> Float:
        """Return (K, N) returns of the last bars, NaN where a price is missing."""
        row, close = int(self.simulator.t[lane]), self.simulator.market.close
        return past_returns(close, row, self.limits.lookback)[:, self.simulator.assets[lane]]
