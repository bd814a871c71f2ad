"""Simulator: a market, the rules of one environment, and the state of B lanes. No RL API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.checks import as_dataclass, check_choice, check_integer, check_number, checked
from portfolio_env.errors import ArgumentError, ConservationError, PortfolioError
from portfolio_env.market import Market
from portfolio_env.market.slots import in_slots, is_labelled
from portfolio_env.market.timeline import time_text
from portfolio_env.names import indices_of
from portfolio_env.simulation import dynamics
from portfolio_env.simulation.constraints import NO_LIMIT, PortfolioConstraints
from portfolio_env.simulation.cost_models import CostSpec, made_costs
from portfolio_env.simulation.costs import LARGEST_VALUE, TransactionCosts
from portfolio_env.simulation.episodes import Episodes, When, checked_weights, weights_array
from portfolio_env.simulation.executor import Account
from portfolio_env.simulation.fills import Fills, FillSpec, draw_key, made_fills
from portfolio_env.simulation.market_arrays import Benchmark, GrowingArrays, market_arrays
from portfolio_env.simulation.rewards import (
    RewardSpec,
    Transition,
    check_finite,
    forget,
    make_reward,
    rewards_of,
)
from portfolio_env.simulation.targets import (
    checked_actions,
    clipped_weights,
    equal_weights,
    softmax_numerators,
)

Bool = NDArray[np.bool_]
Float = NDArray[np.float64]
RngFactory = Callable[[int], np.random.Generator]
InitialWeights = str | Sequence[float] | Mapping[str, float]
CUT = 1e-9  # share of a trade that rounding may miss
LEAST_VALUE = 1e-9  # smallest initial value, whose remainder at ruin is not subnormal


class Simulator:
    """Accounts trading one market: state arrays for B lanes, ``reset`` and ``step``.

    Args:
        market: The market.
        num_lanes: Number B of independent accounts.
        window: Bars an observation shows (>= 1); the first decision needs that much history.
        action: ``"logits"``: scores in [-1, 1], whose weights are a softmax, with short positions
            and leverage as far as the constraints allow (see ``targets.score_weights``);
            ``"weights"``: target weights, clipped to ``PortfolioConstraints.box``, then projected
            onto the constraints.
        reward: Name, ``"module:Name"``, ``{"name": ..., **parameters}`` or callable, see
            ``rewards``.
        costs: TransactionCosts or a mapping of its fields, or a ``CostModel`` of your own,
            also by name, see ``cost_models``.
        constraints: PortfolioConstraints or a mapping of its fields.
        execution: ``"close"``: trade at the close that was just observed; ``"next_open"``: at the
            open of the next bar, on what the weights have drifted to by then.
        fills: Limits and failures of the execution of orders: ``Fills`` or a mapping of their
            fields; all of every order is executed by default.
        delay: Bars k >= 0 between what is observed and the trade: at bar t the agent sees the
            market as it was at bar t - k, and its own weights of bar t; its orders are executed at
            the prices of bar t, or at the open after it.
        start: First bar of the range: row, date, or None for the first with enough history.
        end: Bar after the last one of the range: row, date, or None for the end of the market.
        episode_length: Steps after which an episode is truncated; None runs to the end of the
            range.
        random_start: Draw the first bar of every episode from the range, else always ``start``.
        universe: Number k of assets drawn for every episode among those listed throughout it, in
            random order; None trades all assets.
        adjustment: Fraction in (0, 1] of the way from drifted to target weights that is gone each
            step.
        initial: Weights at the start: ``"cash"``, ``"equal_weight"``, N + 1 weights, cash first, or
            weights by name, where cash is the rest; they borrow and sell short no more than
            ``constraints`` allow.
        initial_value: Money at the start, in [1e-9, 1e15] (it matters to market impact and fixed
            fees).
        logits_scale: Softmax scale s > 0: the largest weight ratio is exp(2 s).

    Raises:
        ArgumentError: On a value outside its range; the message says what to change.
    """

    def __init__(
        self,
        market: Market,
        num_lanes: int = 1,
        *,
        window: int = 60,
        action: str = "logits",
        reward: RewardSpec = "log_return",
        costs: CostSpec = TransactionCosts(),  # noqa: B008 (frozen)
        constraints: PortfolioConstraints | Mapping[str, Any] = PortfolioConstraints(),  # noqa: B008
        execution: str = "close",
        fills: FillSpec = Fills(),  # noqa: B008 (frozen)
        delay: int = 0,
        start: When = None,
        end: When = None,
        episode_length: int | None = None,
        random_start: bool = False,
        universe: int | None = None,
        adjustment: float = 1.0,
        initial: InitialWeights = "cash",
        initial_value: float = 10_000.0,
        logits_scale: float = 5.0,
    ) -> None:
        """Check the arguments, resolve them against the market and allocate the lanes."""
        check_integer("num_lanes", num_lanes)
        check_integer("window", window)
        check_integer("delay", delay, 0)
        for name, value in (("episode_length", episode_length), ("universe", universe)):
            if value is not None:
                check_integer(name, value)
        checked("random_start", random_start, bool)
        check_choice("action", action, ("logits", "weights"))
        check_choice("execution", execution, ("close", "next_open"))
        check_number("adjustment", adjustment, above=0, high=1)
        check_number("initial_value", initial_value, LEAST_VALUE, LARGEST_VALUE)
        check_number("logits_scale", logits_scale, above=0, high=100)
        self.market = market
        self.num_lanes, self.window, self.action = num_lanes, window, action
        self.costs = made_costs(costs)
        if self.costs.fixed_fee >= initial_value:
            raise ArgumentError(
                f"fixed_fee={self.costs.fixed_fee:g} of costs must be below "
                f"initial_value={initial_value:g}; the first trade would cost the whole account."
            )
        self.constraints = as_dataclass(PortfolioConstraints, constraints, "constraints")
        self.fills = made_fills(fills)
        self.delay = delay
        self.initial_value = float(initial_value)
        self.episodes = Episodes(
            self.market, window, start, end, episode_length, random_start, universe, delay
        )
        self.n_assets = self.market.n_assets if universe is None else universe
        labels = self.constraints.labels(self.market.panel)
        if labels and universe is not None:
            raise ArgumentError(
                f"group_bounds hold for all assets of a market, and universe={universe} draws some "
                "of them: leave out one of the two."
            )
        self.bounds = self.constraints.bounds(self.n_assets, labels)
        projected = action == "weights" or not self.bounds["trivial"][0]
        self.groups = self.constraints.groups(labels) if projected else None
        # weights can leave [0, 1]: shorts or leverage are allowed
        self.levered = bool(not self.bounds["long_only"][0] or self.bounds["max_leverage"][0] > 1)
        self.box = self.constraints.box(self.n_assets)
        self.logits_scale = float(logits_scale)
        self.rules = self._rules(execution, adjustment)
        panel, next_open = self.market.panel, execution == "next_open"
        self.arrays = market_arrays(panel, self.costs, next_open, self.fills)
        self._check_interest()
        self._benchmark = Benchmark(self.arrays, self.costs.delisting_haircut)
        self._growing: GrowingArrays | None = None
        self._allocate()
        self.initial = self._checked_initial(initial)
        self.reward = make_reward(reward)

    # ---- construction

    def _rules(self, execution: str, adjustment: float) -> NDArray[np.void]:
        limits, costs = self.constraints, self.costs
        rules = np.zeros(1, dynamics.RULES)
        rules["softmax"] = self.action == "logits"
        rules["next_open"] = execution == "next_open"
        rules["sampled"] = self.episodes.universe is not None
        rules["adjustment"] = adjustment
        rules["no_trade_band"] = limits.no_trade_band
        rules["max_turnover"] = limits.max_turnover or NO_LIMIT
        rules["max_period_turnover"] = limits.max_period_turnover or NO_LIMIT
        rules["haircut"] = costs.delisting_haircut
        rules["fixed_fee"] = costs.fixed_fee
        rules["initial_value"] = self.initial_value
        return rules

    def _check_interest(self) -> None:
        """Reject a range that begins before a dated rate of interest."""
        start = self.episodes.start
        if np.isnan(self.arrays.interest[start]).any():  # once known, a rate holds until the next
            raise ArgumentError(
                f"the range starts at {time_text(self.market.timestamps[start])}, before the first "
                "of the dated rates of interest in costs: give earlier rates, or a later start."
            )

    def _allocate(self) -> None:
        period = self.constraints.turnover_period or 0
        shape = self.num_lanes, self.n_assets, period
        self.lanes = dynamics.new_lanes(*shape, complete=self.fills.complete)
        self._all = np.ones(self.num_lanes, np.bool_)

    def _checked_initial(self, initial: InitialWeights) -> str | Float:
        if isinstance(initial, str):
            check_choice("initial", initial, ("cash", "equal_weight"))
            return initial
        by_place = self._by_place("initial", initial)
        return checked_weights("initial", by_place, (self.n_assets + 1,), self.bounds[0])

    def _by_place(self, name: str, weights: Any) -> Any:
        """Return weights to start from in the order of the slots, also those given by name."""
        if not is_labelled(weights):
            return weights
        if self.episodes.universe is not None:
            raise ArgumentError(
                f"{name}={weights!r} names assets, and universe={self.episodes.universe} "
                "draws others; leave out one of the two."
            )
        return in_slots(weights, self.market.assets).tolist()

    # ---- state, by name

    @property
    def t(self) -> NDArray[np.int64]:
        """Row (B,) of the last closed bar."""
        return self.lanes.clock[0]

    @property
    def observed(self) -> NDArray[np.int64]:
        """Row (B,) of the bar that observations are of: the last closed one, less the delay."""
        now = self.lanes.clock[0]
        return now - self.delay if self.delay else now

    @property
    def assets(self) -> NDArray[np.int64]:
        """Columns (B, N) of the market that each lane trades."""
        return self.lanes.assets

    @property
    def weights(self) -> Float:
        """Drifted weights (B, N + 1) at bar t, cash first."""
        return self.lanes.weights

    @property
    def held(self) -> Float:
        """Weights (B, N + 1) right after the last trade."""
        return self.lanes.held

    @property
    def ledger(self) -> Float:
        """Ledger (len(LEDGER), B) of the last step, in the rows named by ``LEDGER``."""
        return self.lanes.ledger

    @property
    def terminated(self) -> Bool:
        """Accounts (B,) ruined by the last step."""
        return self.lanes.ended[0]

    @property
    def truncated(self) -> Bool:
        """Episodes (B,) that reached their length or the end of the range."""
        return self.lanes.ended[1]

    @property
    def tradable(self) -> Bool:
        """Flags (B, N): whether each asset traded in bar t."""
        return self.market.tradable[self.t[:, None], self.assets]

    @property
    def ways(self) -> Float:
        """Share (B,) of the way to its target that the last trade went, see ``limited``."""
        return self.lanes.growth[3]

    @property
    def limited(self) -> bool:
        """Return whether a trade may stop short of what was decided.

        By a turnover limit, by ``adjustment`` below 1, where orders are not filled as a whole, or
        at the next open, where an asset can lack the bar that it had at the decision.
        """
        unforeseen = self.rules["next_open"][0] and not self.arrays.all_tradable.all()
        return bool(self.slow or unforeseen or not self.fills.complete)

    @property
    def slow(self) -> bool:
        """Return whether a rule may make an order less than was decided, see ``limited``."""
        names = ("max_turnover", "max_period_turnover")
        limits = min(self.rules[name][0] for name in names)
        return bool(limits < NO_LIMIT or self.rules["adjustment"][0] < 1)

    @property
    def cut(self) -> Bool:
        """Flags (B,): whether a turnover limit cut the last trade."""
        names = ("max_turnover", "max_period_turnover")
        if min(self.rules[name][0] for name in names) >= NO_LIMIT:
            return np.zeros(len(self.ways), np.bool_)
        return np.asarray(self.ways < self.rules["adjustment"][0] * (1 - CUT))

    @property
    def traded(self) -> Bool:
        """Flags (B, N): whether each asset could be traded, as ordered, in the last step."""
        could = self.arrays.tradable[np.maximum(self.t - 1, 0)[:, None], self.assets]
        return could if self.fills.complete else could & (self.lanes.fills[1] == 0.0)

    @property
    def draws(self) -> bool:
        """Return whether a reset draws anything."""
        return self.fills.random or not self.episodes.fixed

    def moved(self, weights: Float) -> Float:
        """Return (B, N + 1) what weights held right after the last trade are at the last close."""
        out, arrays = np.array(weights), self.arrays
        for lane, row in enumerate(np.maximum(self.t - 1, 0).tolist()):
            columns, interest = self.assets[lane], arrays.interest[row].tolist()
            dynamics.drift_lane(
                weights[lane],
                arrays.after[row, columns],
                arrays.delisted[row, columns],
                self.costs.delisting_haircut,
                tuple(interest),
                out[lane],
            )
        return out

    # ---- running

    def reset(
        self,
        generator: RngFactory,
        lanes: Bool | None = None,
        *,
        t: Any = None,
        weights: Any = None,
    ) -> None:
        """Start new episodes.

        Args:
            generator: Gives the random generator of a lane; called only where something is drawn.
            lanes: (B,) mask of the lanes to reset; None is all.
            t: First bar, instead of the drawn or fixed one: a row or date, or (B,) rows.
            weights: Weights to start from, as ``initial`` takes them, or (B, N + 1), a row for
                each lane; see ``episodes.checked_weights``.

        Raises:
            ArgumentError: If ``t`` lies outside the range or ``weights`` are no weights.
        """
        which = np.arange(self.num_lanes) if lanes is None else np.flatnonzero(lanes)
        episodes = self.episodes
        if t is not None:
            starts = episodes.check_starts(t, self.num_lanes)[which]
        elif episodes.random_start:
            starts = np.array([episodes.draw_start(generator(lane)) for lane in which.tolist()])
        else:
            starts = np.full(len(which), episodes.starts[0])
        self._begin(which, starts, generator, weights)
        forget(self.reward, self._all if lanes is None else lanes)

    def begin(self, row: int, weights: Any = None, generator: RngFactory | None = None) -> None:
        """Start all accounts at a row, be it the last one, where a step has to wait for a bar."""
        lanes = np.arange(self.num_lanes)
        self._begin(lanes, np.full(self.num_lanes, row), generator, weights)

    def _begin(
        self,
        which: NDArray[np.int64],
        starts: NDArray[np.int64],
        generator: RngFactory | None = None,
        weights: Any = None,
    ) -> None:
        state, episodes = self.lanes, self.episodes
        state.clock[0, which] = starts
        state.clock[1, which] = episodes.last_bar(starts)
        if episodes.universe is not None and generator is not None:
            for lane, start in zip(which.tolist(), starts.tolist(), strict=True):
                state.assets[lane] = episodes.draw_assets(start, generator(lane))
        held = self._start_weights(weights, which)
        state.weights[which] = state.held[which] = held
        state.growth[:, which] = [[1.0], [self.initial_value], [0.0], [1.0]]
        state.turnovers[which] = 0.0
        state.fills[1, which] = 0.0
        if self.fills.random and generator is not None:
            state.keys[which] = [draw_key(generator(lane)) for lane in which.tolist()]
        state.ended[:, which] = False
        fresh = np.zeros((len(dynamics.LEDGER), len(which)))
        fresh[dynamics.VALUE] = self.initial_value
        fresh[dynamics.CASH] = held[:, 0]
        fresh[dynamics.CONCENTRATION] = (held**2).sum(-1)
        state.ledger[:, which] = fresh

    def _start_weights(self, weights: Any, which: NDArray[np.int64]) -> Float:
        """Return (len(which), N + 1) start weights, once first bars and assets are known."""
        shape = (self.num_lanes, self.n_assets + 1)
        start = self.initial if weights is None else weights
        if isinstance(start, str):
            check_choice("options['weights']", start, ("cash", "equal_weight"))
            tradable = self.tradable[which]
            return equal_weights(tradable & (start == "equal_weight"))
        if weights is None:
            out = np.broadcast_to(self.initial, (len(which), shape[1]))
        else:
            by_place = self._by_place("options['weights']", weights)
            given = weights_array("options['weights']", by_place)
            if given.shape not in (shape, shape[1:]):
                raise ArgumentError(
                    f"options['weights'] has shape {given.shape}, expected {shape[1:]} or {shape}."
                )
            rows = np.broadcast_to(given, shape)[which]
            out = checked_weights("options['weights']", rows, rows.shape, self.bounds[0])
        unlisted = ~self.episodes.is_listed(self.t[which, None], self.assets[which])
        for lane, asset in np.argwhere(out[:, 1:] * unlisted):
            name = self.market.assets[self.assets[which[lane], asset]]
            raise ArgumentError(
                f"the weights to start from hold {name}, which is not listed at bar "
                f"{self.t[which[lane]]}; give it weight 0."
            )
        return out

    def step(self, actions: ArrayLike, active: Bool | None = None) -> Float:
        """Trade, let the market move one bar, and return the rewards.

        Args:
            actions: (B, N + 1) scores or weights, cash first, finite; taken in the precision they
                come in.
            active: (B,) lanes to step, the others stay as they are and are rewarded 0; None is all.

        Returns:
            (B,) float64 rewards, fresh memory.

        Raises:
            ArgumentError: If the shape is wrong or an action is not finite; nothing has changed
                then.
            ConservationError: If a trade lost or made money, which is never the actions' fault. The
                lane stands before its move, with ``held`` and turnover and cost of the ledger as
                they broke; the others have been stepped.
        """
        self.carry_out(actions, active)
        lanes = self.lanes
        np.log(lanes.growth[0], out=lanes.ledger[dynamics.LOG_RETURN])
        universe = None if self.episodes.universe is None else lanes.assets
        lanes.ledger[dynamics.BENCHMARK] = self._benchmark.log_return(lanes.clock[0], universe)
        rewards = rewards_of(self.reward, Transition(self.lanes))
        if active is not None:
            rewards[~active] = 0.0
        check_finite(self.reward, rewards)
        return rewards

    def carry_out(self, actions: ArrayLike, active: Bool | None = None) -> None:
        """Trade and let the market move one bar, as ``step`` does, which then looks at it."""
        array = checked_actions(actions, (self.num_lanes, self.n_assets + 1))
        mask, lanes = self._all if active is None else active, self.lanes
        rest = (self.arrays, self.rules, self.bounds, self.groups)
        if self.fills.random:
            lanes.fills[0] = self.fills.shares(lanes.keys, lanes.clock[0], lanes.assets)
        code = dynamics.step_lanes(self.wanted(array), mask, lanes, *rest)
        if code != -1:
            raise self._fault(code, array)

    def extend(self, market: Market, delisted: Sequence[str] = ()) -> None:
        """Go on with a market that continues this one's, at the same cost however long it is.

        What ``step`` needs beside ``carry_out`` is not continued, and episodes have no end.

        Args:
            market: The market with further bars, see ``Market.extended``.
            delisted: Names of the assets whose last bar was this market's last one: holdings become
                cash. Any other that lacks a bar is kept, and not traded.
        """
        if self._growing is None:
            next_open = bool(self.rules["next_open"][0])
            self._growing = GrowingArrays(self.arrays, self.costs, next_open, self.fills)
        gone = np.zeros(market.n_assets, np.bool_)
        gone[indices_of("asset", delisted, market.assets)] = True
        self.arrays = self._growing.extended(market.panel, gone)
        self.market = self.episodes.market = market
        self.episodes.end = market.n_bars
        self.lanes.clock[1] = market.n_bars  # a step to the last bar truncates nothing

    def wanted(self, actions: NDArray[np.floating[Any]]) -> Float:
        """Return the softmax numerators, or the weights, that checked actions ask for."""
        if self.action == "logits":
            return softmax_numerators(actions, self.logits_scale)
        return clipped_weights(actions, self.box)

    # ---- arguments

    @property
    def asset_names(self) -> list[tuple[str, ...]]:
        """Names of the assets that every lane trades, without cash."""
        return [tuple(self.market.assets[column] for column in row) for row in self.assets]

    @property
    def periods_per_year(self) -> float | None:
        """Bars per year where they were stated; None where they are counted."""
        stated = self.market.panel.stated_periods_per_year
        return None if np.isnan(stated) else stated

    def account(self) -> Account:
        """Return the accounts as they are now, see ``executor.Executor``; copies."""
        ledger = self.ledger
        return Account(
            self.market.timestamps[self.t],
            ledger[dynamics.VALUE].copy(),
            self.weights.copy(),
            self.held.copy(),
            self._money_before_trading(),
            ledger[dynamics.TURNOVER].copy(),
            ledger[dynamics.COST].copy(),
            ledger[dynamics.CARRY].copy(),
            self.arrays.interest[np.maximum(self.t - 1, 0), 0],
            ledger[dynamics.UNFILLED].copy(),
        )

    def _money_before_trading(self) -> Float:
        """Return (B, N + 1) money per slot when trading starts: at the close, or the next open."""
        money: Float = self.ledger[dynamics.VALUE][:, None] * self.weights
        if self.rules["next_open"]:
            # A lane at the end of the market no longer trades: its row is unused.
            at = (np.minimum(self.t, len(self.arrays.before) - 1)[:, None], self.assets)
            money[:, 1:] *= self.arrays.before[at]
            delisted = np.where(self.arrays.delisted[at], money[:, 1:], 0.0)
            money[:, 0] += delisted.sum(axis=1) * (1 - self.costs.delisting_haircut)
            money[:, 1:] -= delisted
        return money

    def _fault(self, code: int, actions: NDArray[np.floating[Any]]) -> PortfolioError:
        """Return the error that ``dynamics.step_lanes`` reports by a code."""
        if code >= 0:
            return ArgumentError(
                f"the action of lane {code} is not finite: {actions[code].tolist()}; check the "
                "policy for NaN."
            )
        lane, lanes = -2 - code, self.lanes
        row, ledger = lanes.clock[0, lane], lanes.ledger[:, lane]
        when = time_text(self.market.timestamps[row])
        return ConservationError(
            f"the trade of lane {lane} at bar {row} ({when}) is off by "
            f"{lanes.growth[2, lane]:.3g} of the wealth: {ledger[dynamics.VALUE]:.17g} before, "
            f"cost {ledger[dynamics.COST]:.17g}, turnover {ledger[dynamics.TURNOVER]:.17g}, held "
            f"weights sum to {lanes.held[lane].sum():.17g}. This is a fault of the program, not of "
            "the action: report it with the lane's weights and held, and reset the lane."
        )
