"""Replay: paper trading of a past range through the simulated broker, on a clock of its own.

With every fault off, no delay and no limit of volume the account is that of the backtest to
rounding: both plan by the same function, and the broker fills at the prices of the simulator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path

import numpy as np
from gymnasium.utils.seeding import np_random

from portfolio_env.checks import check_integer, check_number
from portfolio_env.errors import DataError
from portfolio_env.live.instruments import Instrument
from portfolio_env.live.money import ZERO, decimal_of, exactly
from portfolio_env.live.predictor import Predictor
from portfolio_env.live.risk_limits import RiskLimits
from portfolio_env.paper.broker import Accrual, Broker, Quote, SimulatedClock
from portfolio_env.paper.faults import Faults, Flaky
from portfolio_env.paper.ledger import Ledger
from portfolio_env.paper.orders import moment
from portfolio_env.paper.session import Session
from portfolio_env.paper.simulated import SimulatedBroker
from portfolio_env.simulation.fills import draw_key
from portfolio_env.simulation.market_arrays import latest_prices
from portfolio_env.simulation.simulator import Simulator

VENUE = "venue.db"
_TICK = np.timedelta64(1, "ns")


class BarPrices:
    """Prices of the bars of a market for a simulated venue.

    At the moment of a bar its close is traded. Right after it the next bar opens, and until that
    closes the price goes evenly from its open to its close, within its low and high.

    Args:
        simulator: Simulator of the market, whose tradability, impact, interest, delistings and
            fills hold: the orders that fail in a backtest fail here.
        participation: Share of the volume of a bar that orders are filled from; by default that of
            the fills.

    Raises:
        ArgumentError: If the share is none.
        DataError: If it is given and the market has no volumes.
    """

    def __init__(self, simulator: Simulator, participation: float | None = None) -> None:
        if participation is not None:
            check_number("participation", participation, above=0, high=1)
            if simulator.market.panel.volume is None:
                raise DataError("participation needs traded volumes, which this market lacks")
        self.simulator, self._fills = simulator, simulator.fills
        self.participation = self._fills.participation if participation is None else participation
        self._key = np.array([draw_key(np_random(0)[0])], np.uint64)  # that of ``backtest``
        self.panel = simulator.market.panel
        self._times = self.panel.timestamps.astype("datetime64[ns]")
        self._columns = {name: place for place, name in enumerate(self.panel.assets)}
        self._latest: tuple[int, np.ndarray[tuple[int, ...], np.dtype[np.float64]]] | None = None

    def _row(self, at: np.datetime64) -> tuple[int, int]:
        """Return the last closed row at a moment, and the row that is traded in."""
        row = int(np.searchsorted(self._times, at, side="right")) - 1
        later = self._times[row] < at and row + 1 < len(self._times)
        return row, row + later

    def _closes(self, row: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        if self._latest is None or self._latest[0] != row:
            self._latest = row, latest_prices(self.panel, row)
        return self._latest[1]

    def quote(self, asset: str, at: np.datetime64) -> Quote | None:
        """Return the price of an asset at a moment; None where it never had one."""
        (row, traded), column, panel = self._row(at), self._columns[asset], self.panel
        price = self._closes(row)[column]
        if traded > row and np.isfinite(panel.close[traded, column]):
            end = panel.close[traded, column]
            start = price if panel.open is None else panel.open[traded, column]
            span = float((self._times[traded] - self._times[row]) / _TICK)
            gone = float((at - self._times[row] - _TICK) / _TICK) / span
            price = (
                start if gone <= 0 or not np.isfinite(start) else start ** (1 - gone) * end**gone
            )
        if not np.isfinite(price):
            return None
        return Quote(decimal_of(price), bool(panel.tradable[traded, column]))

    def impact(self, asset: str, at: np.datetime64) -> float:
        """Return the coefficient of the square root of the money traded."""
        impact = self.simulator.arrays.impact
        return float(impact[self._row(at)[0], self._columns[asset]]) if len(impact) else 0.0

    def capacity(self, asset: str, at: np.datetime64) -> Decimal | None:
        """Return the money that orders of a bar can be filled with; None is any."""
        if self.participation is None or self.panel.volume is None:
            return None
        volume = self.panel.volume[self._row(at)[1], self._columns[asset]]
        quote = self.quote(asset, at)
        if quote is None or not np.isfinite(volume):
            return ZERO
        with exactly():
            return decimal_of(self.participation * volume) * quote.price

    def share(self, asset: str, bar: np.datetime64) -> Decimal:
        """Return the largest share of an order of a bar that is filled."""
        if not self._fills.random:
            return Decimal(1)
        row, column = np.array([self._row(bar)[0]]), np.array([[self._columns[asset]]])
        return decimal_of(self._fills.shares(self._key, row, column)[0, 0])

    def accruals(self, since: np.datetime64, until: np.datetime64) -> Iterator[Accrual]:
        """Yield interest and delistings after a moment, until another."""
        first = max(int(np.searchsorted(self._times, since, side="right")) - 1, 0)
        arrays, next_open = self.simulator.arrays, bool(self.simulator.rules["next_open"][0])
        haircut = self.simulator.costs.delisting_haircut
        for row in range(first, len(self._times) - 1):
            if self._times[row] >= until:
                return
            gone, prices = np.flatnonzero(arrays.delisted[row]), self._closes(row)
            with exactly():
                kept = 1 - decimal_of(haircut)
                delisted = {
                    self.panel.assets[column]: decimal_of(prices[column]) * kept
                    for column in gone.tolist()
                    if np.isfinite(prices[column])
                }
            early, late = self._times[row] + _TICK, self._times[row + 1]
            nothing = (ZERO, ZERO, ZERO)
            if next_open and delisted and since < early <= until:
                yield Accrual(early, nothing, {}, delisted)
            if since < late <= until:
                earned, owed, shorted = map(decimal_of, arrays.interest[row].tolist())
                own = {}
                if shorted:
                    moment = early if next_open else self._times[row]
                    found = {name: self.quote(name, moment) for name in self.panel.assets}
                    own = {name: quote.price for name, quote in found.items() if quote is not None}
                yield Accrual(late, (earned, owed, shorted), own, {} if next_open else delisted)


def replay(
    predictor: Predictor,
    start: int,
    end: int,
    *,
    capital: float | None = None,
    faults: Faults = Faults(),  # noqa: B008 (frozen)
    delay: np.timedelta64 = np.timedelta64(0, "ns"),  # noqa: B008
    participation: float | None = None,
    instruments: Mapping[str, Instrument] | None = None,
    limits: RiskLimits | None = None,
    folder: Path | None = None,
    name: str = "replay",
) -> Session:
    """Trade a range of a market's past bar by bar, and return the closed session with its ledger.

    Args:
        predictor: The policy; its market holds the range.
        start: Row of the first decision.
        end: Row after the last bar, at which nothing is decided any more.
        capital: Money at the start; that of the environment by default.
        faults: Faults of the venue and of the way to it.
        delay: Time between acceptance and execution of an order.
        participation: Share of a bar's volume that orders are filled from; by default that of the
            environment's fills.
        instruments: Rules of trading by asset; any fraction of a unit by default.
        limits: Risk limits.
        folder: Folder of the ledger, and of the venue's account: a replay that was stopped goes on
            there. None keeps both in memory.
        name: Id of the session.

    Raises:
        ArgumentError: If there are fewer than two bars, or the market has no such rows.
        DataError: If the folder holds another session.
    """
    simulator = predictor.simulator
    panel, times = simulator.market.panel, simulator.market.timestamps
    check_integer("end", end, 2, len(times))
    check_integer("start", start, 0, end - 2)
    money = simulator.initial_value if capital is None else capital
    clock = SimulatedClock(times[start])
    ledger = Ledger.of(folder)
    if last := ledger.query("SELECT at FROM events ORDER BY seq DESC LIMIT 1"):
        clock.set(moment(last[0][0]))
    venue = SimulatedBroker(
        panel.assets, BarPrices(simulator, participation), clock, costs=simulator.costs,
        capital=money, instruments=instruments, faults=faults, delay=delay,
        margin=simulator.levered, path=None if folder is None else folder / VENUE,
    )  # fmt: skip
    broker: Broker = Flaky(venue, faults, clock) if faults.on_the_way else venue
    session = Session(folder, name, predictor, broker, clock, limits=limits, ledger=ledger)
    session.open(panel.subset(slice(start, end)))
    try:
        for row in range(start, end):
            clock.set(times[row])
            gone = np.flatnonzero(simulator.arrays.delisted[row - 1]) if row > start else ()
            bars, names = panel.subset(slice(row, row + 1)), [panel.assets[place] for place in gone]
            if row < end - 1:
                session.on_bar(bars, delisted=names)
            else:
                session.value(bars)
    finally:
        session.close()
    return session
