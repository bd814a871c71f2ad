"""A session whose process dies at the n-th boundary: before or after a commit or a request."""

from collections import Counter
from decimal import Decimal

import numpy as np

from baselines import make_baseline
from portfolio_env import PortfolioEnv, load_market
from portfolio_env.live import Predictor
from portfolio_env.live.money import exactly
from portfolio_env.paper import Ledger, SimulatedClock
from portfolio_env.paper.faults import Faults, Flaky
from portfolio_env.paper.orders import Fill
from portfolio_env.paper.replay import BarPrices
from portfolio_env.paper.session import Session
from portfolio_env.paper.simulated import SimulatedBroker

COSTS = {"commission_bps": 10, "slippage_bps": 3, "impact": 0.4, "fixed_fee": 0.5}
START = 30
SECONDS = np.timedelta64(1, "s")


class Killed(BaseException):
    """The process is gone."""


class Boundaries:
    """Counter of boundaries, at one of which the process dies; 0 is none."""

    def __init__(self):
        self.count, self.at, self.kills = 0, 0, 0

    def arm(self, at):
        self.count, self.at = 0, at

    def here(self):
        self.count += 1
        self.kills += self.count == self.at
        return self.count == self.at

    def cross(self):
        if self.here():
            raise Killed


class MortalLedger(Ledger):
    """Ledger that may die right before and right after each commit."""

    boundaries = Boundaries()

    def commit(self):
        self.boundaries.cross()
        super().commit()
        self.boundaries.cross()


class ArrivingClock(SimulatedClock):
    """Clock that delivers what is under way when its moment has come."""

    def __init__(self, start):
        super().__init__(start)
        self.under_way = []

    def sleep(self, duration):
        end = self.now() + max(duration, np.timedelta64(0, "ns"))
        for moment, deliver in sorted(self.under_way, key=lambda own: own[0]):
            if moment <= end:
                self.set(moment)
                deliver()
        self.under_way = [own for own in self.under_way if own[0] > end]
        self.set(end)


class MortalNetwork:
    """Way to a venue: the process dies before a request, while it is under way, or after it."""

    def __init__(self, broker, clock, boundaries):
        self.broker, self.clock, self.boundaries = broker, clock, boundaries
        self.name, self.capabilities = broker.name, broker.capabilities

    def __getattr__(self, name):
        return getattr(self.broker, name)

    def submit(self, order, valid_until):
        self.boundaries.cross()
        if self.boundaries.here():  # it arrives when the process is up again
            arrival = self.clock.now() + 3 * SECONDS
            self.clock.under_way.append((arrival, lambda: self.broker.submit(order, valid_until)))
            raise Killed
        found = self.broker.submit(order, valid_until)
        self.boundaries.cross()
        return found


class World:
    """A market, a venue and a ledger that outlive the sessions that trade there."""

    def __init__(self, seed=3, faults=None, baseline="random", bars=60, **options):
        self.market = load_market(f"synthetic?bars={bars}&assets=3&seed={seed}")
        self.options = {"costs": COSTS, "initial_value": 10_000.0} | options
        self.baseline, self.faults = baseline, faults or Faults()
        self.clock = ArrivingClock(self.market.timestamps[START])
        prices = BarPrices(self.predictor().simulator)
        self.venue = SimulatedBroker(
            self.market.assets,
            prices,
            self.clock,
            costs=prices.simulator.costs,
            capital=10_000.0,
            faults=self.faults,
        )
        self.boundaries = MortalLedger.boundaries = Boundaries()
        self.ledger = MortalLedger()
        self.network = MortalNetwork(self.venue, self.clock, self.boundaries)
        if self.faults.on_the_way:
            self.network = Flaky(self.network, self.faults, self.clock)

    def predictor(self):
        rules = {"observation": "index", "action": "weights", "window": 1, **self.options}
        env = PortfolioEnv(self.market, **rules)
        return Predictor(make_baseline(self.baseline, self.market), env)

    def bars(self, row):
        return self.market.panel.subset(slice(row, row + 1))

    def session(self):
        """A process that starts."""
        session = Session(
            None, "test", self.predictor(), self.network, self.clock, ledger=self.ledger
        )
        return session.open(self.market.panel.subset(slice(START, None)))

    def trade(self, row, session=None):
        """One bar, by a process that is started again where it dies."""
        self.clock.sleep(self.market.timestamps[row] - self.clock.now())
        while True:
            try:
                session = session or self.session()
                report = session.on_bar(self.bars(row))
            except Killed:
                session = None
                self.boundaries.arm(0)
            else:
                self.boundaries.at = 0  # a boundary not reached kills nothing that comes later
                return report, session

    def doubles(self):
        """How many orders the venue has accepted more than once."""
        counts = Counter(each.order.id for each in self.venue._book.placed)
        return sum(count - 1 for count in counts.values())

    def check(self):
        """Nothing is lost or doubled, and every cent is accounted for."""
        assert self.doubles() == 0
        assert not self.clock.under_way
        ours = {own.trade_id: own for own in self.ledger.fills()}
        theirs = {own.trade_id: own for own in self.venue._book.records if isinstance(own, Fill)}
        assert ours == theirs
        money = held = Counter()
        with exactly():
            money, held = Decimal(0), dict.fromkeys(self.market.assets, Decimal(0))
            for own in self.venue._book.records:
                if isinstance(own, Fill):
                    money -= own.units * own.price + own.fee
                    held[own.asset] += own.units
                    assert own.mid * own.units + own.spread + own.impact == own.units * own.price
                elif own.asset:
                    held[own.asset] += own.units
                else:
                    money += own.units
        assert (money, held) == (
            self.ledger.holdings.cash,
            dict(zip(self.market.assets, self.ledger.holdings.units, strict=True)),
        )
        assert money >= 0
        assert min(held.values()) >= 0
        for own in theirs.values():
            side = 1 if own.units > 0 else -1
            assert side * own.price >= side * own.mid
        self.ledger.verify()
