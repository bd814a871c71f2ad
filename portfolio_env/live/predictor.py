"""Decisions at any closed bar, the last one and those to come: what a policy asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from gymnasium.utils import seeding
from numpy.typing import ArrayLike, NDArray

from portfolio_env.checks import check_integer, check_number
from portfolio_env.data.opening import opened
from portfolio_env.env import PortfolioEnv
from portfolio_env.errors import ArgumentError
from portfolio_env.features import FeaturePipeline
from portfolio_env.market import Market
from portfolio_env.market.lineage import later_bars
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.slots import in_slots, is_labelled
from portfolio_env.names import indices_of
from portfolio_env.observations import Observer
from portfolio_env.simulation import dynamics

if TYPE_CHECKING:
    from portfolio_env.evaluation.backtest import Policy

Float = NDArray[np.float64]
_SUM = 1e-6  # rounding of weights that are given


@dataclass(frozen=True, eq=False)
class Decision:
    """Answer of a policy at a closed bar.

    Attributes:
        row: Row of the bar in the market.
        timestamp: Time of the bar.
        weights: (N + 1,) weights that were observed, cash first.
        action: (N + 1,) the policy's answer, scores or weights.
    """

    row: int
    timestamp: np.datetime64
    weights: Float
    action: NDArray[np.floating[Any]]


class Predictor:
    """A policy that is asked for its decisions bar by bar, under the rules of an environment.

    The observation is made as in the environment. What the policy remembers is carried from one
    decision to the next. Later bars are added to the market by ``advance``, at a cost that does not
    depend on how many there are: only their features are computed, and a network reads only the
    rows within its look-back.

    The account is held elsewhere, and its weights are given at each bar; or it is that of the
    environment, which trades every decision by its rules, as in a backtest.

    Args:
        policy: Answers ``predict``; its actions are deterministic. It goes on with the longer
            market, as if that were bound to it (``agents.bind_market``).
        env: Environment for it: market, observation and rules of trading. It serves the predictor
            from then on, and is no longer of use otherwise.
        pipeline: The pipeline that made the market, for the features of later bars; by default as
            the market describes it.

    Attributes:
        simulator: Simulator of the environment.
        answers: Decisions of the last call, bar after bar: those of the bars between, too.

    Raises:
        ArgumentError: If the policy answers with other actions than the environment takes, or the
            environment draws assets.

    >>> from baselines import make_baseline
    >>> from portfolio_env import load_market
    >>> whole = load_market("synthetic?bars=300&assets=3")
    >>> market = whole.past(250)
    >>> env = PortfolioEnv(market, observation="index", action="weights", window=1)
    >>> predictor = Predictor(make_baseline("momentum", market, every=1), env)
    >>> for t in range(251, 300):
    ...     decision = predictor.advance(whole.panel.subset(slice(t, t + 1)))
    >>> decision.row, bool(decision.timestamp == whole.timestamps[-1])
    (299, True)
    """

    def __init__(
        self, policy: Policy, env: PortfolioEnv, pipeline: FeaturePipeline | None = None
    ) -> None:
        self.policy, self.simulator, self._pipeline = policy, env.simulator, pipeline
        wanted = getattr(policy, "action", self.simulator.action)
        if wanted != self.simulator.action:
            raise ArgumentError(
                f"the policy answers with {wanted}, but the environment takes action="
                f'"{self.simulator.action}"; build it with action="{wanted}".'
            )
        if self.simulator.episodes.universe is not None:
            raise ArgumentError("universe= draws assets for episodes; leave it out to decide.")
        self._observer = Observer(self.simulator, env.env_options["observation"])
        self.reset()

    @property
    def market(self) -> Market:
        """Return the market with all bars so far."""
        return self.simulator.market

    def reset(self, seed: int | None = 0) -> None:
        """Forget what the policy remembers, and the environment's account.

        Args:
            seed: Seed of random fills, as of ``backtest`` on an environment with a fixed start: one
                seed fails and fills the same orders. None draws a fresh one.
        """
        # not above: the evaluation imports this module
        from portfolio_env.evaluation.carried_targets import CarriedTargets

        self._generator = seeding.np_random(seed)[0]
        self._state: Any = None
        self._last: Decision | None = None
        self.answers: list[Decision] = []
        carries_on = getattr(self.policy, "carries_on", False)
        self._carried = CarriedTargets(self.simulator, grows=True) if carries_on else None

    def decide(
        self,
        weights: ArrayLike | Mapping[str, float] | None = None,
        t: int | None = None,
        *,
        value: float | None = None,
    ) -> Decision:
        """Return what the policy asks for at a bar, from weights that the account has there.

        Args:
            weights: (N + 1,) weights at the close of the bar, cash first, summing to 1. None is
                those of the environment's account, which begins here as its options say.
            t: Row of the market; None is the last one.
            value: Money of the account, for limits of risk that depend on it. None is that of the
                environment's account.

        Raises:
            ArgumentError: If the bar has too little history, the weights are none, or the policy
                has a drawdown stop and the value of the account is not given with its weights.
        """
        if weights is not None and value is None and getattr(self.policy, "needs_values", False):
            raise ArgumentError(
                "the policy has a drawdown stop, and a single decision knows no values of the "
                "account: give value=..., leave out max_drawdown, or call limited(..., "
                "stopped=...)."
            )
        market = self.market
        earliest = market.warmup + self.simulator.window - 1 + self.simulator.delay
        row = check_integer("t", market.n_bars - 1 if t is None else t, earliest, market.n_bars - 1)
        own = self._checked(weights, value)
        self.answers = []
        return self._decide(row, own, value, carried=row == market.n_bars - 1)

    def _checked(
        self, weights: ArrayLike | Mapping[str, float] | None, value: float | None
    ) -> Float | None:
        """Return the weights of an account, after a check of them and of its value."""
        if value is not None:
            check_number("value", value, above=0)
        if weights is None:
            return None
        slots = self.market.n_assets + 1
        if is_labelled(weights):
            weights = in_slots(weights, self.market.assets)
        try:
            own = np.array(weights, np.float64)
        except (TypeError, ValueError):
            raise ArgumentError(
                f"weights={weights!r} must be {slots} numbers, cash first."
            ) from None
        whole = own.shape == (slots,) and bool(np.isfinite(own).all())
        if not whole or abs(own.sum() - 1) > _SUM:
            raise ArgumentError(
                f"weights of shape {own.shape} must be {slots} finite numbers, cash first, that "
                "sum to 1."
            )
        return own

    def advance(
        self,
        bars: PricePanel | Market | pd.DataFrame,
        weights: ArrayLike | Mapping[str, float] | None = None,
        *,
        value: float | None = None,
        delisted: Sequence[str] = (),
    ) -> Decision:
        """Add closed bars to the market, and return what the policy asks for at the last of them.

        Of several bars each is decided on in turn, as if they had come one by one.

        Args:
            bars: One bar or several: a panel, or a frame as ``load_market`` reads it. Bars that the
                market has already are left out. An asset without any keeps its last price and is
                not traded: a late candle is no delisting.
            weights: (N + 1,) weights of the account at the last close, cash first, summing to 1.
                None is those of the environment's account, which has traded all decisions so far;
                it begins at the last bar before these, if none was decided on before.
            value: Money of the account there; None is that of the environment's account.
            delisted: Names of the assets that had their last bar before these: in the environment's
                account their holdings become cash.

        Raises:
            DataError: If the bars have other assets or fields, contradict those of the market,
                are out of order, or none is new. The market is then as it was.
            ArgumentError: As of ``decide``, if a delisted asset has a new bar, or if the pipeline
                of the market is not known.
        """
        market, simulator, own = self.market, self.simulator, self._checked(weights, value)
        read = opened(bars, None, "auto", None)  # assets of a wide frame may be late
        panel = read.panel if isinstance(read, Market) else read
        if self._pipeline is None:
            self._pipeline = FeaturePipeline.of(market)
        later = later_bars(market.panel, panel)
        gone = indices_of("asset", delisted, market.assets)
        quoted = np.isfinite(later.close[:, gone]).any(axis=0)
        if quoted.any():
            raise ArgumentError(
                f"delisted={list(delisted)}: {delisted[int(quoted.argmax())]} has a bar among the "
                "new ones; leave it out, or take its price out of the bars."
            )
        longer = self._pipeline.update(market, later)
        last = self._last
        if last is None or last.row != market.n_bars - 1:
            last = self.decide()
        self.answers = []
        simulator.extend(longer, delisted)
        for row in range(market.n_bars, longer.n_bars):
            simulator.carry_out(last.action[None])
            given = (own, value) if row == longer.n_bars - 1 else (None, None)
            last = self._decide(row, *given, carried=True)
        return last

    def follow(
        self,
        t: int,
        weights: ArrayLike | Mapping[str, float] | None = None,
        *,
        value: float | None = None,
    ) -> Decision:
        """Return what the policy asks for at a bar after the last decision, as ``advance`` does.

        The bar is in the market already, as in a replay of the past. Bars between are decided on in
        turn; a first decision begins at the bar.

        Args:
            t: Row of the market.
            weights: See ``advance``.
            value: See ``advance``.

        Raises:
            ArgumentError: As of ``decide``, or if the bar is not after the last decision.
        """
        own, last = self._checked(weights, value), self._last
        first = self.market.warmup + self.simulator.window - 1 if last is None else last.row + 1
        row = check_integer("t", t, first, self.market.n_bars - 1)
        self.answers = []
        for now in range(row if last is None else first, row + 1):
            if last is not None:
                self.simulator.carry_out(last.action[None])
            given = (own, value) if now == row else (None, None)
            last = self._decide(now, *given, carried=True)
        assert last is not None
        return last

    def _decide(
        self, row: int, own: Float | None, value: float | None, *, carried: bool
    ) -> Decision:
        """Decide at a row; a target that was not reached is carried on where bars are in turn."""
        market, lanes = self.market, self.simulator.lanes
        if self._last is None:
            cash = None if own is None else np.eye(1, len(own))[0]
            self.simulator.begin(row, cash, lambda _: self._generator)
        if own is not None:
            lanes.weights[0] = own
            lanes.ended[:] = False
        if value is not None:
            lanes.ledger[dynamics.VALUE] = value
        lanes.clock[0] = row
        start = np.array([self._last is None])
        answer, self._state = self.policy.predict(
            self._observer(), self._state, start, deterministic=True
        )
        if self._carried is not None and carried:
            answer = self._carried.asked(answer)
        self._last = Decision(
            row, market.timestamps[row], lanes.weights[0].copy(), np.array(answer)[0]
        )
        self.answers.append(self._last)
        return self._last
