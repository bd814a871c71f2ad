"""Money is conserved at every trade; where it is not, the lane stops and says so."""

import numpy as np
import pytest
from helpers.plain import plain

from portfolio_env import load_market
from portfolio_env.errors import ConservationError, PortfolioError
from portfolio_env.market.timeline import time_text
from portfolio_env.simulation import rebalancing
from portfolio_env.simulation.dynamics import COST, TURNOVER, VALUE
from portfolio_env.simulation.simulator import Simulator

BARS, ASSETS = 60, 4


@pytest.fixture
def broken(monkeypatch):
    """An account of 3 lanes in plain Python, whose trades are then changed by a function."""
    rng = np.random.default_rng(2)
    panel = plain("market").PricePanel(
        timestamps=np.datetime64("2021-01-04", "ns") + np.arange(BARS) * np.timedelta64(1, "D"),
        assets=tuple("ABCD"),
        close=100 * np.exp(np.cumsum(rng.normal(0, 0.02, (BARS, ASSETS)), axis=0)),
    )
    market = plain("market").Market(panel, np.zeros((BARS, ASSETS, 0), np.float32), ())
    simulator = plain("simulation.simulator").Simulator(
        market, 3, window=1, initial="equal_weight", costs={"commission_bps": 0}
    )
    simulator.reset(lambda lane: np.random.default_rng(lane))
    trade, calls = plain("simulation.rebalancing").trade_lane, []

    def breaks(change, lane=1):
        def changed(*arguments):
            mu, turnover, way = trade(*arguments)
            calls.append(0)
            if len(calls) == lane + 1:
                mu, turnover = change(arguments[-1], mu, turnover)
            return mu, turnover, way

        monkeypatch.setattr(plain("simulation.dynamics"), "trade_lane", changed)
        return simulator

    return breaks


def lost_weight(held, mu, turnover):
    held[2] -= 1e-6
    return mu, turnover


def made_money(held, mu, turnover):
    return mu + 1e-6, turnover


def unknown(held, mu, turnover):
    return np.nan, turnover


@pytest.mark.parametrize(
    ("change", "off", "cost"),
    [(lost_weight, "2e-06", 0.0), (made_money, "1e-06", -0.01), (unknown, "nan", np.nan)],
)
def test_a_trade_that_breaks_conservation_stops_its_lane(broken, change, off, cost):
    simulator = broken(change)
    before, start = simulator.weights.copy(), simulator.t.copy()
    with pytest.raises(plain("errors").ConservationError) as raised:
        simulator.step(np.tile([-1, 1, 0, 0, 0], (3, 1)))
    message = str(raised.value)
    assert "lane 1" in message
    assert f"bar {start[1]} ({time_text(simulator.market.timestamps[start[1]])})" in message
    assert f"off by {off} of the wealth" in message
    assert simulator.ledger[COST, 1] == pytest.approx(cost, abs=1e-9, nan_ok=True)
    assert "10000 before" in message and "fault of the program" in message
    assert (simulator.t - start).tolist() == [1, 0, 1]  # the others have moved on
    assert (simulator.weights[1] == before[1]).all()
    assert simulator.ledger[VALUE, 1] == 1e4
    assert simulator.ledger[TURNOVER, 1] > 0
    assert (simulator.held[1] != before[1]).any()  # how it broke can be seen
    mask = np.array([False, True, False])
    simulator.reset(lambda lane: np.random.default_rng(lane), mask)
    simulator.step(np.zeros((3, 5)))
    assert (simulator.t - start).tolist() == [2, 1, 2]


@pytest.mark.parametrize("lanes", [(0,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_the_first_of_the_lanes_that_break_is_named(lanes):
    simulator = Simulator(load_market(f"synthetic?bars={BARS}&assets={ASSETS}"), 3, window=1)
    simulator.reset(lambda _: None)
    start = simulator.t.copy()
    simulator.weights[list(lanes)] *= 0.999
    with pytest.raises(ConservationError, match=f"lane {lanes[0]}"):
        simulator.step(np.zeros((3, 5)))
    assert (simulator.t - start).tolist() == [int(lane not in lanes) for lane in range(3)]


def test_a_trade_in_what_cannot_be_traded_stops_its_lane(broken):
    def moved(held, mu, turnover):
        held[3], held[4] = held[3] + held[4], 0.0
        return mu, turnover

    simulator = broken(moved, lane=2)  # the last: others would tidy up
    arrays = simulator.arrays
    arrays.tradable[:, 2:] = False
    arrays.all_tradable[:] = False
    with pytest.raises(plain("errors").ConservationError, match="lane 2"):
        simulator.step(np.zeros((3, 5)))
    arrays.tradable[:] = arrays.all_tradable[:] = True  # and nothing remembers that it was not
    simulator.step(np.zeros((3, 5)), np.array([True, True, False]))


def test_compiled_trades_are_checked_as_well():
    market = load_market(f"synthetic?seed=2&bars={BARS}&assets={ASSETS}")
    simulator = Simulator(market, 3, window=1)
    simulator.reset(lambda _: None)
    simulator.weights[2] *= 0.999
    with pytest.raises(ConservationError, match="lane 2"):
        simulator.step(np.zeros((3, 5)))
    assert issubclass(ConservationError, PortfolioError)
    simulator.reset(lambda _: None)
    simulator.step(np.zeros((3, 5)))
    assert (simulator.ledger[COST] > 0).all()


def test_what_is_lost_is_measured_in_units_of_the_wealth():
    d, held = np.array([0.5, 0.5, 0.0]), np.array([0.5, 0.0, 0.5])
    rates, none = np.full(2, 0.01), np.zeros(2, np.bool_)
    costs = (rates, rates, np.zeros(0), 0.002)
    mu = 1 - 0.002 - 0.01 * 0.5
    mu = (mu + 0.0) / (1 + 0.01 * 0.5)  # purchases are of mu times the target
    assert rebalancing.money_lost(d, held, none, costs, mu, 1.0) == pytest.approx(0, abs=1e-15)
    assert rebalancing.money_lost(d, held, none, costs, mu - 1e-4, 1.0) > 0.9e-4
    assert rebalancing.money_lost(d, held, none, costs, mu, 0.0) == pytest.approx(0.002)  # the fee
    assert rebalancing.money_lost(d, held, ~none, costs, mu, 1.0) > 0.4
    assert rebalancing.money_lost(d, 1.001 * held, none, costs, mu, 1.0) > 0.9e-3
    ruined = np.array([1.0, 0.0, 0.0])
    assert rebalancing.money_lost(d, ruined, none, costs, 0.0, 0.0) == 0.0
