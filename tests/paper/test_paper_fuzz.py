"""Whatever happens in whatever order, every cent of a paper account is accounted for."""

from decimal import Decimal

from helpers import examples
from helpers.paper.crashes import SECONDS, START, World
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from portfolio_env.paper import Flow
from portfolio_env.paper.faults import Faults

CHANCES = {
    "refused": 0.1, "partial": 0.2, "halted": 0.1, "gap": 0.2, "lost_request": 0.2,
    "lost_answer": 0.2, "late_request": 0.2, "outage": 0.03, "repeated": 0.3, "lagging": 0.2,
}  # fmt: skip


class PaperAccount(RuleBasedStateMachine):
    """A session with a venue of many faults, whose process is killed time and again."""

    @initialize(seed=st.integers(0, 99), kinds=st.sets(st.sampled_from(sorted(CHANCES))))
    def begin(self, seed, kinds):
        faults = Faults(seed=seed, **{kind: CHANCES[kind] for kind in kinds})
        self.world, self.session, self.row, self.number = World(faults=faults), None, START, 0

    @rule(kill=st.integers(0, 60), bars=st.integers(1, 2))
    def trade(self, kill, bars):
        if self.row + bars >= self.world.market.n_bars:
            return
        self.row += bars  # one of them may be missed
        self.world.boundaries.arm(kill)
        self.session = self.world.trade(self.row - 1, self.session)[1]
        self.world.clock.sleep(30 * SECONDS)  # what was under way has arrived

    @rule(units=st.decimals("0.01", "100", places=2))
    def deposit(self, units):
        self._flow("deposit", "", units)

    @rule(share=st.sampled_from(["0.1", "1"]))
    def withdraw(self, share):
        cash = self.world.venue._book.units[""]
        self._flow("withdrawal", "", -(cash * Decimal(share)).quantize(Decimal("0.0001")) / 2)

    @rule(units=st.decimals("0.01", "1", places=2))
    def receive(self, units):
        self._flow("external", "A01", units)

    def _flow(self, kind, asset, units):
        self.number += 1
        if units:
            name, now = f"f{self.number}", self.world.clock.now()
            self.world.venue.deposit(Flow(name, kind, asset, units, now))

    @rule()
    def restart(self):
        self.session = None

    @rule()
    def halt_and_resume(self):
        if self.session is not None:
            self.session.halt("a pause")
            self.session.resume("its end")

    @invariant()
    def money_is_exact(self):
        if hasattr(self, "world") and self.session is not None:
            self.session.reconcile()
            if self.world.ledger.trading[0] == "active":
                self.world.check()


PaperAccount.TestCase.settings = settings(examples(60), stateful_step_count=8)
TestPaperAccount = PaperAccount.TestCase
