"""Without faults paper trading is the backtest; with them it is repeatable and never overdrawn."""

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from helpers import examples
from helpers.accounts import CONSTRAINTS, COSTS
from helpers.bare_markets import random_market
from hypothesis import given
from hypothesis import strategies as st

from agents.direct.agent import DirectAgent
from baselines import make_baseline
from portfolio_env import PortfolioEnv, load_market
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation import backtest
from portfolio_env.live import Instrument, Predictor, RiskLimits, RiskManaged
from portfolio_env.paper.faults import SCENARIOS, Faults, with_seed
from portfolio_env.paper.replay import replay

START = 40
BASE = {"observation": "index", "action": "weights", "window": 1}
LIMITED = {
    "constraints": CONSTRAINTS,
    "adjustment": 0.3,
}
SHORT = {"constraints": {"long_only": False, "max_leverage": 1.5, "max_weight": 1.0}}


class LongShort:
    action = "weights"

    def predict(self, observation, state=None, *_, **__):
        rng = np.random.default_rng(int(observation["t"][0, 0]))
        risky = rng.uniform(-0.4, 0.6, observation["tradable"].shape[1])
        return np.r_[1 - risky.sum(), risky][None], state


def ragged(bars=130):
    """Assets that start late, stop, and do not trade at times; with opens and volumes."""
    return load_market(f"synthetic?bars={bars}&assets=5&seed=15&ragged=true")


def replayed(make, market, start=START, end=None, paper=None, **options):
    env = PortfolioEnv(market, **BASE | options)
    return replay(Predictor(make(env), env), start, end or market.n_bars, **paper or {}).ledger


def values_of(ledger):
    rows = ledger.query("SELECT value FROM valuations ORDER BY bar")
    return np.array([float(Decimal(row[0])) for row in rows])


def check(make, market, start=START, near=1e-12, **options):
    env = PortfolioEnv(market, start=start, **BASE | options)
    result = backtest(make(env), env)
    ledger = replayed(make, market, start, **options)
    assert np.abs(values_of(ledger) / result.values - 1).max() < near
    states = {row[0] for row in ledger.query("SELECT DISTINCT state FROM orders")}
    assert states <= {"filled", "denied"}
    own = ledger.fills()
    interest = sum(
        float(body["units"])
        for body in (event.body for event in ledger.events("flow"))
        if body["kind"] == "interest"
    )
    costs = sum(float(fill.fee + fill.spread + fill.impact) for fill in own)
    assert costs == pytest.approx(result.costs.sum(), rel=1e-9, abs=1e-7)
    assert interest == pytest.approx(result.carries.sum(), rel=1e-9, abs=1e-7)
    ledger.verify()


def baseline(name):
    return lambda env: make_baseline(name, env.market)


@pytest.mark.parametrize("execution", ["close", "next_open"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("equal_weight", {}), ("random", LIMITED), ("buy_and_hold", LIMITED), ("olmar1", {})],
)
def test_it_is_the_backtest(name, options, execution):
    market = ragged()
    env = PortfolioEnv(market, **BASE)
    assert (~market.tradable[START:]).any()
    assert env.simulator.arrays.delisted[START:].any()
    check(baseline(name), market, execution=execution, costs=COSTS, **options)


@pytest.mark.parametrize("execution", ["close", "next_open"])
def test_it_is_the_backtest_with_short_positions_and_debt(execution):
    options = {"execution": execution, "costs": COSTS | {"impact": 0.0}, **SHORT}
    check(lambda env: LongShort(), ragged(), **options)


def test_it_is_the_backtest_of_an_agent_and_of_risk_limits():
    market = ragged()

    def agent(env):
        made = DirectAgent(market.n_features, 6, encoder="lstm")
        made.bind(market)
        return made

    options = {"action": "logits", "window": 6, "costs": COSTS}
    check(agent, market, 110, near=1e-9, **options)

    def managed(env):
        return RiskManaged(LongShort(), RiskLimits(max_weight=0.3, max_drawdown=0.05), env)

    check(managed, market, 90, costs=COSTS)


@given(st.integers(0, 999))
@examples(6)
def test_it_is_the_backtest_on_any_market(seed):
    market = random_market(seed, 30, 4, halted=0.1)
    check(baseline("random"), market, 5, costs={"commission_bps": 20})


@pytest.mark.slow
def test_it_is_the_backtest_over_a_long_history():
    market = load_market("sp500").past(2100)
    check(baseline("equal_weight"), market, 60, costs=COSTS | {"impact": 0.0})


def digest(**paper):
    return replayed(baseline("random"), ragged(70), costs=COSTS, paper=paper).verify()


def test_the_same_seed_gives_the_same_ledger():
    faults = with_seed("flaky", 4)
    first = digest(faults=faults, participation=0.1)
    assert first == digest(faults=faults, participation=0.1)
    assert first[1] != digest(faults=with_seed("flaky", 5), participation=0.1)[1]


@given(
    st.integers(0, 99),
    st.sampled_from(sorted(SCENARIOS)),
    st.sampled_from([None, 1e-6, 0.05]),
    st.booleans(),
    st.sampled_from([0, 1, 600]),
)
@examples(8)
def test_no_fault_overdraws_an_account(seed, name, participation, next_open, seconds):
    market = ragged(60)
    faults = replace(with_seed(name, seed), halted=0.1, partial=0.2, refused=0.1)
    paper = {
        "faults": faults,
        "participation": participation,
        "delay": np.timedelta64(seconds, "s"),
        "instruments": {"*": Instrument(lot=Decimal("0.01"), min_notional=Decimal(5))},
    }
    execution = "next_open" if next_open else "close"
    options = {"costs": COSTS, "execution": execution, "paper": paper}
    ledger = replayed(baseline("random"), market, START, **options)
    cash = Decimal(0)
    for event in ledger.events("fill", "flow"):
        body = event.body
        if event.kind == "fill":
            cash -= Decimal(body["units"]) * Decimal(body["price"]) + Decimal(body["fee"])
            side = 1 if Decimal(body["units"]) > 0 else -1
            assert side * Decimal(body["price"]) >= side * Decimal(body["mid"])
            assert Decimal(body["units"]) % Decimal("0.01") == 0
        elif not body["asset"]:
            cash += Decimal(body["units"])
        assert cash > -Decimal("1e-12")  # Decimal() above rounds to 28 digits
    assert min(ledger.holdings.units) >= 0
    assert len(values_of(ledger)) == market.n_bars - START


def test_orders_that_fail_in_the_backtest_fail_in_the_replay():
    fills = {"failure": 0.3, "partial": 0.3, "participation": 1e-3}
    options = {"costs": {"commission_bps": 10}, "fills": fills, "start": START}
    env = PortfolioEnv(ragged(70), **BASE | options)
    ledger = replayed(baseline("random"), ragged(70), **options)
    whole, result = values_of(ledger), backtest(make_baseline("random", env.market), env)
    # of the first bar, whose purchases need no sales; later ones are cut to what sales have paid
    assert whole[1] == pytest.approx(result.values[1], rel=1e-12)
    assert whole == pytest.approx(result.values, rel=0.05)
    assert ledger.query("SELECT 1 FROM orders WHERE state = 'expired'")
    assert result.unfilled[0] > 0.1


def test_volume_bounds_what_is_filled():
    market, share = ragged(60), 1e-7
    ledger = replayed(baseline("random"), market, paper={"participation": share})
    panel, seen = market.panel, 0
    for order in ledger.orders():
        row = market.row(order.bar)
        column = market.assets.index(order.asset)
        most = share * panel.volume[row, column] * panel.close[row, column]
        money = abs(float(ledger.filled(order.id))) * panel.close[row, column]
        assert money <= most * (1 + 1e-9)
        seen += money > 0
    assert seen
    assert ledger.query("SELECT 1 FROM bars WHERE phase = 'partial'")


def test_what_a_venue_may_not_know_is_rejected():
    market = load_market("synthetic?bars=60&assets=2")
    with pytest.raises(ArgumentError, match="participation=2"):
        replayed(baseline("equal_weight"), market, paper={"participation": 2.0})
    with pytest.raises(ArgumentError, match="scenario"):
        with_seed("earthquake", 0)
    with pytest.raises(ArgumentError, match="refused=2"):
        Faults(refused=2)
    bare = replace(market, panel=replace(market.panel, volume=None))
    with pytest.raises(DataError, match="volumes"):
        replayed(baseline("equal_weight"), bare, paper={"participation": 0.1})
