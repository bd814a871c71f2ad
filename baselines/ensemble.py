"""A mixture of policies: each manages its own share of the account."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from baselines.base import Baseline, Weights
from baselines.online.simplex import log_optimal
from baselines.plugins import make_baseline
from baselines.portfolio_model import PortfolioModel
from baselines.selection import within_selection
from portfolio_env.checks import check_number
from portfolio_env.env import PortfolioEnv
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.backtest import Policy, backtest
from portfolio_env.evaluation.carried_targets import REACHED
from portfolio_env.market import Market
from portfolio_env.market.growing import GrowableArray
from portfolio_env.market.timeline import TimeLike, row_of
from portfolio_env.names import unknown
from portfolio_env.simulation.constraints import PortfolioConstraints
from portfolio_env.simulation.targets import may_borrow, scored_weights

GAP = 1e-9  # tolerance of fitted shares, in log growth per bar


@dataclass
class Accounts:
    """State of an ensemble between steps, of B lanes and M members.

    Attributes:
        t: (B,) rows of the last decision.
        held: (M, B, N + 1) weights of every member's own account right after it.
        goals: (M, B, N + 1) weights that it was on its way to.
        left: (M, B) share of that way that was left then; 0 where it holds what it has.
        states: Every member's own state.
    """

    t: NDArray[np.int64]
    held: Weights
    goals: Weights
    left: NDArray[np.float64]
    states: list[Any]


class Ensemble(Baseline):
    """The weights ``sum_m share_m w_m`` of members that each see an account of their own.

    A member observes the weights its last decision has drifted to, so that those with different
    rebalancing dates, or that mind their turnover, decide as they would alone. At a step at which
    some member trades the account goes to the mixture, with the shares restored; otherwise it is
    left alone. Where every member keeps to the same bounds, so does the mixture.

    The members' accounts are carried in the ``state`` of ``predict``: hand back what it returned.
    Without it every call is a first one, in which members observe the whole account. The accounts
    follow closing prices, without costs and interest.

    Args:
        market: The market its environments trade.
        members: Policies by name: baselines, or anything else with SB3's ``predict`` that reads
            ``"index"`` observations and answers with weights or logits. Names alone are baselines
            with their defaults.
        shares: Shares by member, at least 0 and summing to 1; None is equal shares.
        paces: The share of the way to its target that a member goes each step, in (0, 1], as the
            ``adjustment`` of an environment; None, and members not named, go all of it. A baseline
            is carried on to its target.
        logits_scale: Scale of the environment in which members that answer with logits were
            trained.
        constraints: Constraints onto which members' weights are projected, as their environment
            would, or of baselines as they do themselves (see ``PortfolioModel``); None leaves them
            as they are.

    Raises:
        ArgumentError: If there are no members, the shares are none, or a pace is.
    """

    _decides_by = "predict"

    def __init__(
        self,
        market: Market,
        *,
        members: Mapping[str, Policy] | Sequence[str] = ("mean_variance", "hrp", "risk_parity"),
        shares: Mapping[str, float] | None = None,
        paces: Mapping[str, float] | None = None,
        logits_scale: float = 5.0,
        constraints: PortfolioConstraints | None = None,
    ) -> None:
        super().__init__(market)
        if not isinstance(members, Mapping):
            members = {name: make_baseline(name, market) for name in members}
        self.members = dict(members)
        if not self.members:
            raise ArgumentError("members is empty; name one policy or more.")
        if shares is None:
            shares = dict.fromkeys(self.members, 1 / len(self.members))
        given = np.array([*shares.values()])
        if (
            shares.keys() != self.members.keys()
            or not (given >= 0).all()
            or not abs(given.sum() - 1) <= 1e-9
        ):
            raise ArgumentError(
                f"shares={shares!r}: give each of {', '.join(self.members)} a share of 0 or more, "
                "1 together."
            )
        self.shares = {name: float(shares[name]) for name in self.members}
        self.paces = dict.fromkeys(self.members, 1.0)
        for name, pace in (paces or {}).items():
            if name not in self.members:
                raise unknown("member", name, self.members)
            self.paces[name] = check_number(f"the pace of {name}", pace, 1e-6, 1)
        self.logits_scale = check_number("logits_scale", logits_scale, 1e-6, 100)
        self.constraints = constraints
        self._labels = () if constraints is None else constraints.labels(market.panel)
        limits = constraints or PortfolioConstraints()
        self._borrows = may_borrow(limits.bounds(market.n_assets, self._labels)[0])
        # prices of assets without a bar stand still
        self._marks = GrowableArray(pd.DataFrame(market.close).ffill().fillna(1.0).to_numpy())

    @property
    def left_out(self) -> dict[str, dict[str, str]]:
        """Return what members left out, see ``PortfolioModel``."""
        found: dict[str, dict[str, str]] = {}
        for member in self.members.values():
            for date, reasons in getattr(member, "left_out", {}).items():
                found[date] = {**reasons, **found.get(date, {})}
        return found

    def follow(self, market: Market) -> None:
        """Go on with a market that continues the one it has; members do when they are asked."""
        known = np.vstack([self._marks.filled()[-1:], market.close[self.market.n_bars :]])
        self._marks = self._marks.extended(pd.DataFrame(known).ffill().to_numpy()[1:])
        super().follow(market)

    def options(self) -> dict[str, Any]:
        """Return the keywords of the ensemble, see ``Baseline``; members are stored as they are."""
        return {name: value for name, value in super().options().items() if name != "members"}

    def fit_shares(self, period: tuple[TimeLike, TimeLike], **environment: Any) -> Self:
        """Set the members' shares to those of largest growth on a validation range.

        With x_m the growth of member m's account over a bar, after its costs, the shares maximise
        ``sum_t log(sum_m share_m x_tm)``: the log-optimal portfolio of the members, a concave
        problem (see ``baselines.online.simplex.log_optimal``). What it costs to restore the shares
        is left out. The best of a short range is often a single member.

        Args:
            period: Half-open range of rows or dates, after what the members were fitted on.
            **environment: Options of the ``PortfolioEnv``: costs, constraints, execution, window.

        Returns:
            The ensemble itself.
        """
        times = self.market.timestamps
        start, end = row_of(times, period[0]), row_of(times, period[1], end=True)
        given = {"window": 1} | environment | {"observation": "index", "action": "weights"}
        growths = []
        for name, policy in self.members.items():
            alone = Ensemble(
                self.market,
                members={name: policy},
                paces={name: self.paces[name]},
                logits_scale=self.logits_scale,
                constraints=self.constraints,
            )
            env = PortfolioEnv(self.market, start=start, end=end, **given)
            values = backtest(alone, env).values
            growths.append(values[1:] / values[:-1])
        best = log_optimal(np.column_stack(growths), gap=GAP)
        self.shares = dict(zip(self.members, best.tolist(), strict=True))
        self._fitted_on = [str(self.market.timestamps[row]) for row in (start, end - 1)]
        return self

    def weights(self, observation: Mapping[str, NDArray[Any]]) -> Weights:
        """Return (B, N + 1) the mixture at a first step."""
        return self._answer(observation)[0]

    def _answer(
        self,
        observation: Mapping[str, NDArray[Any]],
        state: Accounts | None = None,
        starts: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[Weights, Accounts]:
        """Return the mixture of the members' weights, and their accounts."""
        t = self._rows(observation)
        observed = np.asarray(observation["weights"], np.float64)  # (B, N + 1)
        stuck = np.asarray(observation["tradable"]) == 0
        start = starting(state, t, starts)
        own = np.repeat(observed[None], len(self.members), axis=0)
        goals, left = own.copy(), np.zeros(own.shape[:2])
        if state is not None:
            gone = stuck & (observed[:, 1:] == 0)
            going = ~start
            own[:, going] = self._drifted(state.held, state.t, t, gone)[:, going]
            goals[:, going] = self._drifted(state.goals, state.t, t, gone)[:, going]
            left[:, going] = state.left[:, going]
        traded = np.zeros(len(t), np.bool_)
        held, states = np.empty_like(own), []
        for m, (name, policy) in enumerate(self.members.items()):
            seen = own[m].astype(np.float32)
            answer, inner = policy.predict(
                {**observation, "weights": seen},
                None if state is None else state.states[m],
                start,
                deterministic=deterministic,
            )
            asked = np.asarray(answer, np.float64)
            if _answers_logits(policy):
                bounds = (self.constraints or PortfolioConstraints()).bounds(asked.shape[1] - 1)
                asked = scored_weights(np.asarray(answer), self.logits_scale, bounds)
            kept = (asked.astype(np.float32) == seen).all(axis=1)
            reached = within_reach(asked, own[m], stuck, borrows=self._borrows)
            target = self._constrained(policy, reached, stuck)
            if getattr(policy, "carries_on", False):
                carried = kept & (left[m] > REACHED)
                target[carried] = goals[m, carried]
                kept &= ~carried
                left[m, ~carried & ~kept] = 1.0
            left[m] *= np.where(kept, 0.0, 1 - self.paces[name])
            goals[m] = target
            if self.paces[name] < 1:
                target = own[m] + self.paces[name] * (target - own[m])
            held[m] = np.where(kept[:, None], own[m], target)
            traded |= ~kept
            states.append(inner)
        out = np.where(traded[:, None], self._mixture(held), observed)
        return out, Accounts(t.copy(), held, goals, left, states)

    def _mixture(self, held: Weights) -> Weights:
        """Return (B, N + 1) the mixture of what members hold, (M, B, N + 1)."""
        # one by one: a matrix product may round one lane as it does not round many
        mixture = np.zeros_like(held[0])
        for share, weights in zip(self.shares.values(), held, strict=True):
            mixture += share * weights
        return mixture

    def _constrained(self, policy: Policy, target: Weights, stuck: NDArray[np.bool_]) -> Weights:
        """Return (B, N + 1) a member's target within the constraints."""
        if self.constraints is None:
            return target
        if not isinstance(policy, PortfolioModel):
            return self.constraints.project(target, stuck, self._labels)
        lanes = zip(target, stuck, strict=True)
        return np.array([within_selection(self.constraints, *lane, self._labels) for lane in lanes])

    def _drifted(
        self,
        weights: Weights,
        then: NDArray[np.int64],
        t: NDArray[np.int64],
        gone: NDArray[np.bool_],
    ) -> Weights:
        """Return (M, B, N + 1) what weights are now; assets gone from the account are cash."""
        money = weights.copy()
        marks = self._marks.filled()
        money[..., 1:] *= marks[t] / marks[then]
        money[..., 0] += np.where(gone, money[..., 1:], 0.0).sum(axis=-1)
        money[..., 1:] *= ~gone
        return money / money.sum(axis=-1, keepdims=True)

    def model_info(self) -> dict[str, Any]:
        """Return a description, JSON-able: members, shares, the period they were fitted on."""
        return {
            "name": type(self).__name__,
            "members": {
                name: policy.model_info()
                if isinstance(policy, PortfolioModel | Ensemble)
                else type(policy).__name__
                for name, policy in self.members.items()
            },
            "shares": self.shares,
            "paces": self.paces,
            "fitted_on": self._fitted_on,
        }


def _answers_logits(policy: Policy) -> bool:
    """Return whether a policy's actions are logits in [-1, 1], as declared or trained by SB3."""
    if hasattr(policy, "action"):
        return bool(policy.action == "logits")
    space = getattr(policy, "action_space", None)
    return space is not None and bool((space.low == -1).all() and (space.high == 1).all())


def starting(
    state: Accounts | None, t: NDArray[np.int64], episode_start: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Return (B,) lanes that start again: as they say, or since their bars do not go on."""
    if state is None:
        return np.ones(len(t), np.bool_)
    said = np.zeros(len(t), np.bool_) if episode_start is None else episode_start
    started: NDArray[np.bool_] = said | (t <= state.t)
    return started


def within_reach(
    asked: Weights, own: Weights, stuck: NDArray[np.bool_], *, borrows: bool
) -> Weights:
    """Return holdable weights: untradable assets keep theirs, as in the environment.

    The rest is split as asked; where an account borrows or sells short, other assets are as asked,
    and cash makes up for the difference.

    Args:
        asked: (B, N + 1) weights that sum to 1, cash first.
        own: (B, N + 1) weights held.
        stuck: (B, N) assets that cannot be traded.
        borrows: Cash may be negative, or short positions held.
    """
    fixed = np.hstack([np.zeros((len(stuck), 1), np.bool_), stuck])
    if borrows:
        out = np.where(fixed, own, asked)
        out[:, 0] = np.where(stuck.any(axis=1), 1 - out[:, 1:].sum(axis=1), asked[:, 0])
        return out
    free = 1 - np.where(fixed, own, 0.0).sum(axis=1, keepdims=True)
    wanted = np.where(fixed, 0.0, asked)
    total = wanted.sum(axis=1, keepdims=True)
    cash = np.eye(1, asked.shape[1])
    share = np.where(total > 1e-12, wanted / np.where(total > 1e-12, total, 1.0), cash)
    return np.where(fixed, own, np.maximum(free, 0.0) * share)
