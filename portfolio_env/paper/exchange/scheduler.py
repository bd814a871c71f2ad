"""Scheduler: brings each closed bar to a session once it is final, complete and fresh, or says why.

A bar is due a grace after its close, by the source's clock. What closed while nobody looked is not
traded, and the ledger says whether the program ran: the policy is shown those bars, and the latest
alone is decided on, if it is fresh.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from portfolio_env.checks import check_number, check_seconds
from portfolio_env.errors import ArgumentError
from portfolio_env.live.money import decimal_of, exactly
from portfolio_env.live.planning import last_prices
from portfolio_env.market.timeline import bar_spacing, time_text
from portfolio_env.paper.broker import SECOND, Clock, Unknown
from portfolio_env.paper.exchange.market_data import Feed, Reading, expected, is_final, panel_of
from portfolio_env.paper.ledger import ENDINGS, MISSED, REVISED, SKIPPED
from portfolio_env.paper.orders import moment
from portfolio_env.paper.session import Session

_LONGEST = 30 * SECOND  # between two readings
_PULSE = 60 * SECOND  # longest sleep: a clock that jumped and a machine that slept are noticed


@dataclass(frozen=True)
class Timing:
    """Times and shares that decide when a bar is traded.

    Attributes:
        grace: Seconds after the close before a bar is looked at.
        patience: Share of the session's ``max_delay`` in which late candles are waited for.
        quorum: Least share of the assets that are due, and of the money held, whose candles must
            be there; with fewer a bar is skipped.
        pause: Seconds between the first two readings; later ones are further apart.
    """

    grace: float = 10.0
    patience: float = 0.5
    quorum: float = 0.8
    pause: float = 2.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_seconds("grace", self.grace)
        check_number("patience", self.patience, 0, 1)
        check_number("quorum", self.quorum, above=0, high=1)
        check_seconds("pause", self.pause, 2)


class Scheduler:
    """Loop over the bars of a session.

    Args:
        session: The session, open.
        feed: The candles; bars are labelled by the time they open.
        clock: The waiting.
        timing: Times and shares.
        pulse: Called after every bar and once a minute.

    Attributes:
        stopping: Set to leave ``run`` after the bar that is being traded.
        idle: Whether the loop waits for the next bar.

    Raises:
        ArgumentError: If the candles are of another length than the bars of the session's market,
            or open at other times, or it has channels that no candle has.
    """

    def __init__(
        self,
        session: Session,
        feed: Feed,
        clock: Clock,
        timing: Timing = Timing(),
        pulse: Callable[[], None] = lambda: None,
    ) -> None:
        self.session, self.feed, self.clock = session, feed, clock
        self.timing, self._pulse = timing, pulse
        self.stopping = self.idle = False
        spacing = bar_spacing(session.predictor.market.timestamps)[0]
        if spacing != feed.length:
            raise ArgumentError(
                f"candles of {feed.length} must be as long as the bars of the market, {spacing}."
            )
        opens = session.predictor.market.timestamps.astype("datetime64[ns]")
        if (off := (opens - np.datetime64(0, "ns")) % feed.length != 0 * SECOND).any():
            raise ArgumentError(
                f"the bar of {time_text(opens[off][-1])} opens at no time at which a candle of the "
                "source does, as they follow one another from midnight in UTC: decide on candles "
                "of this source."
            )
        if channels := list(session.predictor.market.panel.exogenous):
            raise ArgumentError(
                f"the market has channels that candles lack ({', '.join(channels[:5])}): train "
                "without them to trade on an exchange."
            )
        self._grace = check_seconds("grace", timing.grace)
        self._pause = check_seconds("pause", timing.pause)
        self._begun = self._free = clock.now()  # when the loop began, and was done with a bar
        self._doubted: np.datetime64 | None = None

    def due(self, now: np.datetime64) -> np.datetime64:
        """Return when the latest bar opened that is due at a moment."""
        length = self.feed.length
        start = np.datetime64(0, "ns")
        return start + ((now - self._grace - start) // length - 1) * length

    def run(self, *, once: bool = False, until: np.datetime64 | None = None) -> None:
        """Trade bar after bar.

        Args:
            once: Return after one bar; at once if none is due, unless one has closed.
            until: Return when the clock has come to this moment.
        """
        silent = 0
        while not self.stopping:
            phase = self.step()
            self._pulse()
            if phase is not None:
                self._free = self.clock.now()
            if until is not None and self.clock.now() >= until:
                return
            now = self.feed.time()
            if isinstance(now, Unknown):
                self._rest(min(self._pause * 2**silent, _PULSE))
                silent = min(silent + 1, 10)
                continue
            silent = 0
            wait = self.due(now) + 2 * self.feed.length + self._grace - now
            if once and (phase is not None or wait > self._grace):
                return
            ended = phase is None or phase in ENDINGS
            self._rest(min(wait, _PULSE) if ended else _PULSE)

    def _rest(self, duration: np.timedelta64) -> None:
        self.idle = True
        if not self.stopping:
            self.clock.sleep(duration)
        self.idle = False

    def step(self) -> str | None:
        """Trade the bar that is due, at most once; return its phase, or None if none is."""
        now = self.feed.time()
        if isinstance(now, Unknown):
            return None
        bar, ledger = self.due(now), self.session.ledger
        known = self.session.predictor.market.timestamps[-1]
        if bar < known or ledger.phase(bar) in ENDINGS:
            return None
        closed = bar + self.feed.length
        if self.clock.now() < closed:
            self._doubt(bar, "the clock of this machine is slow, or the source's fast")
            return None
        self._write_missed(bar)
        if ledger.phase(bar):  # it was decided on, and the process ended
            return self.session.on_bar(self.session.predictor.market.panel, closed_at=closed)
        if bar == known:
            return None  # it was there before the session
        if now > (deadline := closed + self.session.max_delay):
            return self.session.skip(bar, f"stale: it closed at {time_text(closed)}", MISSED)
        if self.clock.now() > deadline:
            self._doubt(bar, "the clock of this machine is fast, or the source's slow")
            return None
        found = self._awaited(bar, closed + self.session.max_delay * self.timing.patience)
        if isinstance(found, str):
            return self.session.skip(bar, found)
        reading, final = found
        self._check_known(reading)
        bars = panel_of(self.session.predictor.market.panel, reading, bar, final)
        return self.session.on_bar(bars, closed_at=closed)

    def _doubt(self, bar: np.datetime64, why: str) -> None:
        """Alert, once for a bar, that clocks differ: it is due again once they do not."""
        if self._doubted != bar:
            self._doubted = bar
            self.session.alert(SKIPPED, f"{time_text(bar)}: {why}")

    def _write_missed(self, bar: np.datetime64) -> None:
        """Write that the bars before one, since the session's last, were missed."""
        ledger, length = self.session.ledger, self.feed.length
        last = ledger.query("SELECT max(bar) FROM bars")[0][0]
        time = bar if last is None else moment(last)
        while time < bar:
            if ledger.phase(time) not in ENDINGS:
                reason = "stopped in the middle of it" if ledger.phase(time) else self._away(time)
                self.session.skip(time, reason, MISSED)
            time = time + length

    def _away(self, bar: np.datetime64) -> str:
        """Return why nobody looked at a bar when it was due."""
        due = bar + self.feed.length + self._grace
        if due <= self._begun:
            return "nobody was there"
        if due <= self._free:
            return "busy with a bar before it"
        return "the source did not answer, or this machine slept"

    def _awaited(
        self, bar: np.datetime64, deadline: np.datetime64
    ) -> tuple[Reading, tuple[str, ...]] | str:
        """Return a reading in which a bar is complete, and who has it; or why there is none."""
        panel, length = self.session.predictor.market.panel, self.feed.length
        before: Reading | None = None
        why, pause = "no candles were given", self._pause
        while True:
            reading = self.feed.read(min(panel.timestamps[-1], bar))
            late = self.clock.now() > deadline
            if isinstance(reading, Unknown):
                why = f"no candles were given: {reading.error}"
            else:
                earlier = None if before is None else before.candles
                final = tuple(
                    name
                    for name in panel.assets
                    if is_final(
                        reading.candles.get(name, {}),
                        bar,
                        length,
                        reading.time,
                        None if earlier is None else earlier.get(name),
                    )
                )
                lacking = set(expected(panel, reading, bar, length)) - set(final)
                if final and not lacking:
                    return reading, final
                why = f"incomplete: {', '.join(sorted(lacking)[:5]) or 'no asset'} without a candle"
                if late and final and self._quorum(lacking, len(lacking) + len(final)):
                    return reading, final
                before = reading if reading.time >= bar + length else None
            if late or self.stopping:
                return why
            self.clock.sleep(min(pause, max(deadline - self.clock.now(), self._pause)))
            pause = min(2 * pause, _LONGEST)

    def _quorum(self, lacking: set[str], count: int) -> bool:
        """Return whether enough candles are there, of all that are due and of the money held."""
        account, market = self.session.ledger.holdings, self.session.predictor.market
        closes = last_prices(market, market.n_bars - 1).tolist()
        worth = account.worth([decimal_of(price) for price in closes])
        with exactly():
            blind = sum(
                abs(money)
                for name, money in zip(account.assets, worth, strict=True)
                if name in lacking
            )
            whole = sum(abs(money) for money in worth)
        share = float(blind / whole) if whole else 0.0
        return max(share, len(lacking) / count) <= 1 - self.timing.quorum + 1e-12

    def _check_known(self, reading: Reading) -> None:
        """Alert where a candle that was decided on is another by now."""
        panel = self.session.predictor.market.panel
        last = panel.timestamps[-1]
        for column, name in enumerate(panel.assets):
            candle, close = reading.candles.get(name, {}).get(last), panel.close[-1, column]
            if candle is not None and np.isfinite(close) and abs(candle[3] / close - 1) > 1e-9:
                self.session.alert(
                    REVISED,
                    f"the close of {name} at {time_text(last)} was {close:g} and is {candle[3]:g}",
                )
