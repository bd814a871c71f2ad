"""Session: one closed bar at a time from its decision to settled orders, restartable anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import DataError, PortfolioError
from portfolio_env.files.atomic import locked
from portfolio_env.live.instruments import Instrument, instruments_of, rates_of
from portfolio_env.live.money import decimal_of
from portfolio_env.live.orders import orders_of
from portfolio_env.live.planning import last_prices, plan
from portfolio_env.live.predictor import Decision, Predictor
from portfolio_env.live.risk_limits import DrawdownStop, RiskLimits
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.timeline import bar_spacing, time_text
from portfolio_env.paper import decisions, execution
from portfolio_env.paper.broker import SECOND, Broker, Clock, Quote, Unknown
from portfolio_env.paper.journal import LedgerError
from portfolio_env.paper.ledger import (
    ACTIVE,
    BLOCKED,
    ENDINGS,
    FLAT,
    HALTED,
    REDUCING,
    SKIPPED,
    TROUBLES,
    Ledger,
)
from portfolio_env.paper.orders import moment

LOCK = "session.lock"
SAME = 1e-5  # of actions that are computed again after a restart
T = TypeVar("T")
_TICK = np.timedelta64(1, "ns")  # the open follows the close by it


class Session:
    """Paper trading of one account by one policy, at one venue.

    Nothing is sent that the ledger does not hold already, each bar is decided on at most once, and
    what a killed process left is resolved before anything else is done.

    Args:
        folder: Folder of the ledger; None keeps it in memory.
        name: Id of the session: ids of orders depend on it.
        predictor: The policy; its market ends at the bar before the next one, or at it.
        broker: The venue.
        clock: The clock.
        instruments: Rules of trading by asset, ``"*"`` for all others; by default the venue's.
        limits: Risk limits.
        max_delay: Time after the close in which a bar may be decided on and traded; by default a
            quarter of a bar, an hour at most.
        settings: JSON values to keep in the first event.
        ledger: The ledger, in place of that of the folder.

    Attributes:
        ledger: The ledger, once the session is open.
    """

    ledger: Ledger

    def __init__(
        self,
        folder: Path | None,
        name: str,
        predictor: Predictor,
        broker: Broker,
        clock: Clock,
        *,
        instruments: Mapping[str, Instrument] | None = None,
        limits: RiskLimits | None = None,
        max_delay: np.timedelta64 | None = None,
        settings: Mapping[str, Any] | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.folder, self.name, self.predictor = folder, name, predictor
        self.broker, self.clock, self.limits = broker, clock, limits
        self.assets = predictor.market.assets
        self._given = ledger
        self._rules, self._settings = instruments, dict(settings or {})
        spacing = bar_spacing(predictor.market.timestamps)[0]
        default = min(spacing / 4, 3600 * SECOND)
        self.max_delay = (default if max_delay is None else max_delay).astype("timedelta64[ns]")
        self._turnovers: dict[int, float] = {}
        self._range: decisions.Range | None = None
        self._resources = ExitStack()

    # ---- opening

    def open(self, history: PricePanel | None = None) -> Self:
        """Open the ledger, resolve what was left, reconcile, and go on where it stopped.

        Args:
            history: Bars since the first decision of the session, which the policy is asked about
                again where it remembers anything; not needed in a new session.

        Raises:
            DataError: If another process has the session, or the ledger is damaged or another's.
        """
        try:
            if self.folder is not None:
                busy = f"{self.folder} is used by another process: let it end, or stop it"
                self._resources.enter_context(locked(self.folder / LOCK, busy=busy))
            self.ledger = Ledger.of(self.folder) if self._given is None else self._given
            if self.folder is not None:
                self._resources.callback(self.ledger.close)
            self.ledger.start(self.clock.now(), self.name, self.assets, **self._settings)
            self.instruments = self._instruments()
            self._restore(history)
            if self._guarded(lambda: execution.resolve(self.ledger, self.broker, self.clock)):
                self.reconcile()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Close the ledger and let other processes have the session."""
        self._resources.close()

    def __enter__(self) -> Self:
        """Open the session."""
        return self.open()

    def __exit__(self, *_: object) -> None:
        """Close the session."""
        self.close()

    def _instruments(self) -> tuple[Instrument, ...]:
        found: Mapping[str, Instrument] | Unknown | None = self._rules
        if found is None:
            found = self._asked(lambda: self.broker.instruments(self.assets))
        if isinstance(found, Unknown):
            raise DataError(f"the venue does not say how assets are traded: {found.error}")
        return instruments_of(found, self.assets)

    def _restore(self, history: PricePanel | None) -> None:
        """Ask the policy about all past bars again: it must answer as it did."""
        for (text,) in self.ledger.query("SELECT body FROM plans WHERE revision = 0"):
            body = json.loads(text)
            self._turnovers[body["row"]] = float.fromhex(body["turnover"])
        done = self.ledger.query("SELECT bar FROM decisions ORDER BY bar")
        if not done:
            return
        if history is None:
            raise DataError("the session goes on: give the bars since its first decision")
        if (first := moment(done[0][0])) < (begin := self.predictor.market.timestamps[0]):
            raise DataError(
                f"the market begins at {time_text(begin)}, and the session's first decision was at "
                f"{time_text(first)}: give a market with the bars before it, or another folder"
            )
        start, others = 0, []
        for (text,) in done:
            before = decisions.decision_of(self.ledger, bar := moment(text))
            body = self.ledger.body("decisions", bar) or {}
            end = int(np.searchsorted(history.timestamps, bar, side="right"))
            if end == start:
                others.append(time_text(bar))  # it has no candle any more
                continue
            bars, value = history.subset(slice(start, end)), float.fromhex(body["value"])
            again, start = self._answer(bars, before.weights, value, body["delisted"]), end
            near = np.allclose(again.action, before.action, rtol=0, atol=SAME)
            if again.timestamp != bar or not near:
                others.append(time_text(bar))
        if others and self.ledger.trading[0] != FLAT:
            count = f"{len(others)} bar{'s' * (len(others) > 1)}"
            reason = f"the policy answers otherwise than before at {count} up to {others[-1]}"
            halts = {event.body["reason"] for event in self.ledger.events("trading")}
            if reason not in halts:  # a person who has resumed since has seen to it
                self.halt(reason)

    # ---- trading state

    def halt(self, reason: str) -> None:
        """Send nothing any more, until ``resume``."""
        if self.ledger.trading[0] != HALTED:
            self.ledger.append("trading", self.clock.now(), state=HALTED, reason=reason)
            self.alert("halted", reason)

    def resume(self, reason: str, *, reducing: bool = False) -> None:
        """Send orders again, in the words of the person who says so.

        Args:
            reason: The words.
            reducing: Only those that lower a position.
        """
        self.ledger.steer(self.clock.now(), REDUCING if reducing else ACTIVE, reason)

    def alert(self, name: str, text: str) -> None:
        """Write an alert, once for all calls in which nothing else was written."""
        key = f"{name}-{self.ledger.head()[0]}"
        self.ledger.append("alert", self.clock.now(), id=key, name=name, open=True, text=text)

    def reconcile(self) -> execution.Reconciled:
        """Compare the ledger with the venue, and halt where nothing explains a difference."""
        rules = dict(zip(self.assets, self.instruments, strict=True))
        found = execution.reconcile(self.ledger, self.broker, self.clock, rules)
        if found.differences:
            self.halt(found.reason)
        return found

    def _guarded(self, work: Callable[[], None]) -> bool:
        """Do some work; return whether it could be done, and halt where an order is unresolved."""
        try:
            work()
        except execution.Unresolved as error:
            self.halt(str(error))
            return False
        return True

    # ---- one bar

    def on_bar(
        self,
        bars: PricePanel,
        *,
        delisted: Sequence[str] = (),
        closed_at: np.datetime64 | None = None,
    ) -> str:
        """Decide on the last of some closed bars and trade for it; return the phase it ends in.

        Called again for the same bar, it goes on where it stopped, and decides nothing again.

        Args:
            bars: Bars since the last ones that were given, the last of them final and complete.
            delisted: Names of the assets that had their last bar before these.
            closed_at: Moment at which the last bar closed; its label by default.

        Raises:
            DataError: If the last bar is not closed yet, or the ledger cannot be written.
        """
        bar = bars.timestamps[-1].astype("datetime64[ns]")
        if (phase := self.ledger.phase(bar)) in ENDINGS:
            return phase
        closed = bar if closed_at is None else closed_at.astype("datetime64[ns]")
        if self.clock.now() < closed:
            raise DataError(f"the bar of {time_text(bar)} is not closed yet: wait for its end")
        deadline = closed + self.max_delay
        if not self._guarded(lambda: execution.resolve(self.ledger, self.broker, self.clock)):
            return phase or self.skip(bar, self.ledger.trading[1])
        try:
            if not phase:
                self._check_order(bar)
                self.value(bars)
                if reason := self._obstacle(closed, deadline):
                    return self.skip(bar, reason)
                self._decide_at(bars, bar, delisted)
            if self.ledger.body("plans", bar) is None:
                self._plan_at(bar, deadline)
        except LedgerError:
            raise
        except PortfolioError as error:
            return self.skip(bar, str(error), BLOCKED)
        return self._trade_at(bar)

    def value(self, bars: PricePanel) -> Decimal:
        """Write the value of the account at the close of the last of some bars; return it."""
        execution.poll(self.ledger, self.broker, self.clock)
        account, prices = self.ledger.holdings, decisions.closes(self.predictor, bars)
        bar, value = bars.timestamps[-1].astype("datetime64[ns]"), account.value(prices)
        stop = self._stop().at(float(value), self.limits) if self.limits else DrawdownStop()
        if self.ledger.body("valuations", bar) is None:
            told = decisions.valued(account, prices) | {"stop": asdict(stop)}
            self.ledger.append("valuation", self.clock.now(), bar, **told)
        return value

    def skip(self, bar: np.datetime64, reason: str, phase: str = SKIPPED) -> str:
        """Write that a bar is not traded, and why; return the phase."""
        with self.ledger.batch():
            self.ledger.append("phase", self.clock.now(), bar, phase=phase, reason=reason)
            self.alert(phase, f"{time_text(bar)}: {reason}")
        self.ledger.seal()
        return phase

    def _check_order(self, bar: np.datetime64) -> None:
        """Reject a bar that is not after those that were there already."""
        last = self.ledger.query("SELECT max(bar) FROM bars")[0][0]
        if last is not None and bar < moment(last):
            raise DataError(f"a later bar, of {time_text(np.datetime64(last))}, was there already")

    def _unfit(self, closed: np.datetime64, deadline: np.datetime64) -> str:
        """Return why a bar may not be decided on now; "" if it may."""
        state, why = self.ledger.trading
        if state == HALTED:
            return f"halted: {why}"
        late = self.clock.now() > deadline
        return f"stale: it closed at {time_text(closed)}" if late else ""

    def _obstacle(self, closed: np.datetime64, deadline: np.datetime64) -> str:
        """Reconcile, again while the venue does not answer and there is time; return what is wrong.

        Returns:
            Why the bar may not be decided on; "" if it may.
        """
        fault = ""
        while not (reason := self._unfit(closed, deadline)):
            found = self.reconcile()
            if not found.fault:
                return found.reason
            fault = found.fault
        return fault or reason

    def _answer(
        self,
        bars: PricePanel,
        weights: NDArray[np.float64],
        value: float,
        delisted: Sequence[str] = (),
    ) -> Decision:
        """Return the policy's answer at the last of some bars, which its market may have already.

        Raises:
            DataError: If it is not finite: the session is halted then.
        """
        market, bar = self.predictor.market, bars.timestamps[-1]
        if bar <= market.timestamps[-1]:
            found = self.predictor.follow(market.row(bar), weights, value=value)
        else:
            found = self.predictor.advance(bars, weights, value=value, delisted=delisted)
        if not np.isfinite(found.action).all():
            if self.ledger.trading[0] == FLAT:  # all is sold, whatever it says
                return replace(found, action=np.eye(1, len(found.action))[0])
            self.halt(f"the policy answers {found.action.tolist()}: check it for NaN")
            raise DataError("the policy's answer is not finite")
        return found

    def _decide_at(self, bars: PricePanel, bar: np.datetime64, delisted: Sequence[str]) -> None:
        """Value the account at the close, ask the policy, and commit its answer."""
        account, prices = self.ledger.holdings, decisions.closes(self.predictor, bars)
        value = float(account.value(prices))
        decision = self._answer(bars, account.weights(prices), value, delisted)
        decisions.write_decision(
            *(self.ledger, self.predictor, self.clock.now(), decision, value),
            delisted=delisted,
            turnovers=self._turnovers_before(decision.row),
            usual=self._usual(decision.row),
        )

    def _usual(self, row: int) -> decisions.Range | None:
        """Return the range that the features had before the first decision, by default at a row."""
        if self._range is None:
            first = self.ledger.query("SELECT body FROM decisions ORDER BY bar LIMIT 1")
            start = json.loads(first[0][0])["row"] if first else row
            self._range = decisions.usual_range(self.predictor.market, start)
        return self._range

    def _plan_at(self, bar: np.datetime64, deadline: np.datetime64) -> None:
        """Size the orders of a decision by the prices of now, and commit them.

        Raises:
            DataError: If there is no price of a holding in time, or the plan cannot be made.
        """
        simulator = self.predictor.simulator
        if simulator.rules["next_open"][0]:
            self.clock.sleep(_TICK)
            # what was delisted is money by now
            execution.poll(self.ledger, self.broker, self.clock)
        quotes = self._asked(lambda: self.broker.quotes(self.assets), deadline)
        if isinstance(quotes, Unknown):
            raise DataError(f"there are no prices in time: {quotes.error}")
        if self.clock.now() > deadline:
            raise DataError("it is too late to trade for this bar")
        account, decision = self.ledger.holdings, decisions.decision_of(self.ledger, bar)
        if not quotes and any(account.units):
            raise DataError("the venue has no price of anything")
        closes = last_prices(self.predictor.market, decision.row).tolist()
        found = [  # what has no price now is worth its last close, and is not traded
            quotes.get(name, Quote(decimal_of(close), tradable=False))
            for name, close in zip(self.assets, closes, strict=True)
        ]
        prices = tuple(
            each.price(quote.price) for each, quote in zip(self.instruments, found, strict=True)
        )
        for name, units, price in zip(self.assets, account.units, prices, strict=True):
            if units and not (price.is_finite() and price > 0):
                raise DataError(f"{name} is held, and its price is {price}")
        flat = self.ledger.trading[0] == FLAT
        planned = plan(
            decision,
            simulator,
            float(account.value(prices)),
            weights=account.weights(prices),
            prices=[float(price) for price in prices],
            tradable=[quote.tradable for quote in found],
            rates=rates_of(self.instruments, simulator.arrays.rates),
            turnovers=self._turnovers_before(decision.row),
            limits=RiskLimits() if flat else self.limits,
            stopped=flat or self._stop().bars is not None,
        )
        self._turnovers[decision.row] = planned.turnover
        sized = orders_of(planned, account, self.instruments, prices)
        told = decisions.described(sized, decision.row)
        decisions.commit_plan(self.ledger, self.clock, bar, sized.units, prices, deadline, told)

    def _turnovers_before(self, row: int) -> list[float]:
        period = self.predictor.simulator.lanes.turnovers.shape[1]
        return [self._turnovers.get(row - back, 0.0) for back in range(period - 1, 0, -1)]

    def _trade_at(self, bar: np.datetime64) -> str:
        """Send the orders of a bar and settle; return the phase that it ends in."""
        rules = dict(zip(self.assets, self.instruments, strict=True))
        try:
            phase, reason = execution.rebalance(self.ledger, self.broker, self.clock, bar, rules)
        except execution.Unresolved as error:
            self.halt(str(error))
            return self.ledger.phase(bar)
        self.reconcile()
        with self.ledger.batch():
            self.ledger.append("phase", self.clock.now(), bar, phase=phase, reason=reason)
            if reason:
                self.alert(phase, f"orders of {time_text(bar)} not filled as a whole: {reason}")
            else:  # what went wrong at earlier bars is made up for
                self.ledger.close_alerts(self.clock.now(), *TROUBLES)
        self.ledger.seal()
        return phase

    def _asked(self, ask: Callable[[], T], until: np.datetime64 | None = None) -> T:
        """Ask the venue, again while it does not answer and there is time."""
        end = self.clock.now() + self.max_delay if until is None else until
        while isinstance(found := ask(), Unknown) and self.clock.now() < end:
            self.clock.sleep(self.broker.capabilities.pause)
        return found

    def _stop(self) -> DrawdownStop:
        """Return the state of the drawdown stop at the last valuation."""
        rows = self.ledger.query("SELECT body FROM valuations ORDER BY bar DESC LIMIT 1")
        return DrawdownStop(**json.loads(rows[0][0])["stop"]) if rows else DrawdownStop()
