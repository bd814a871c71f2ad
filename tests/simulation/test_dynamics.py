"""Whole steps and episodes against exact fixtures and a slow account in plain Python."""

import numpy as np
import pandas as pd
import pytest
from helpers.cost_fixtures import FIXTURES, number, numbers
from helpers.oracles.account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_env import ArgumentError, Market, PricePanel, TransactionCosts, load_market
from portfolio_env.simulation import dynamics
from portfolio_env.simulation.market_arrays import Benchmark, listed_rows, market_arrays
from portfolio_env.simulation.simulator import Simulator


@pytest.mark.parametrize("case", FIXTURES["carry"][:4], ids=lambda case: case["id"])
def test_carry_equals_the_fixtures(case):
    years = number(case["days"]) / number(case["day_count"])
    credit, debit, borrow = (
        number(case[name]) * years for name in ("credit_rate", "debit_rate", "borrow_fee")
    )
    cash, short = number(case["w_cash"]), number(case["gross_short"])
    weights = np.array([cash, 1 - cash + short, -short])
    growth, carry = dynamics.drift_lane(
        weights, np.ones(2), np.zeros(2, bool), 0.0, (credit, debit, borrow), weights
    )
    assert carry == pytest.approx(number(case["carry_simple"]), abs=1e-15)
    assert growth == pytest.approx(1 + number(case["carry_simple"]), abs=1e-15)
    assert weights.sum() == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("size", [0.1, 1.0, -1.0])
@pytest.mark.parametrize("rate", range(3))
def test_every_rate_is_charged_whatever_the_others_are(rate, size):
    """On cash, on debt, and on shorts beside cash, each where the other rates are 0."""
    rates = tuple(size * (i == rate) for i in range(3))
    for weights in ([0.5, 0.5, 0.0], [-0.5, 1.5, 0.0], [1.2, 0.1, -0.3]):
        cash, short = weights[0], -min(weights[2], 0.0)
        carry = rates[0] * max(cash, 0.0) + rates[1] * min(cash, 0.0) - rates[2] * short
        held = np.array(weights)
        growth, found = dynamics.drift_lane(held, np.ones(2), np.zeros(2, bool), 0.0, rates, held)
        assert found == pytest.approx(carry, abs=1e-15)
        assert growth == pytest.approx(1 + carry, abs=1e-15)


def test_all_that_was_lost_is_no_division_by_zero():
    held = np.array([0.0, 1.0, 0.0])
    gone = np.array([True, False])
    growth, _ = dynamics.drift_lane(held, np.ones(2), gone, 1.0, (0.0, 0.0, 0.0), held)
    assert growth == 0 and held.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("lane", range(4))
@pytest.mark.parametrize("action", ["logits", "weights"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_lane_whose_action_is_not_finite_is_named_and_nothing_moves(lane, action, value):
    made = Simulator(load_market("synthetic?bars=80&assets=2"), 4, window=1, action=action)
    made.reset(lambda _: None)
    made.step(np.full((4, 3), 0.3))
    before = made.ledger.copy(), made.weights.copy(), made.t.copy()
    actions = np.full((4, 3), 0.3)
    actions[lane:, 1] = value
    with pytest.raises(ArgumentError, match=f"lane {lane} is not finite"):
        made.step(actions)
    for old, new in zip(before, (made.ledger, made.weights, made.t), strict=True):
        assert (old == new).all()


# ---- moves


NONE = np.nan
CLOSE = np.array([[1, NONE, 2, 4], [2, 8, 3, 2], [3, 4, NONE, NONE], [6, 2, NONE, 8]])
OPEN = np.array([[1, NONE, 2, 4], [1.5, 6, 2.5, 3], [2.5, 5, NONE, NONE], [4, 3, NONE, 4]])
# One asset throughout, one listed late, one delisted, one without a bar in between.
PANEL = PricePanel(
    timestamps=np.datetime64("2021-01-04", "ns") + np.arange(4) * np.timedelta64(1, "D"),
    assets=tuple("ABCD"),
    close=CLOSE,
    open=OPEN,
)


def test_listed_rows_of_every_asset():
    first, last = listed_rows(PANEL)
    assert first.tolist() == [0, 1, 0, 0] and last.tolist() == [3, 3, 1, 3]
    close = np.c_[CLOSE[:, 0], np.full(4, NONE)]
    first, last = listed_rows(PricePanel(PANEL.timestamps, ("A", "E"), close=close))
    assert first.tolist() == [0, 4] and last.tolist() == [3, -1]


def test_moves_from_close_to_close():
    arrays = market_arrays(PANEL, TransactionCosts(), next_open=False)
    assert (arrays.before == 1).all()
    assert arrays.after.tolist() == [[2, 1, 1.5, 0.5], [1.5, 0.5, 1, 1], [2, 0.5, 1, 4]]
    assert (arrays.tradable == np.isfinite(CLOSE[:-1])).all()
    assert np.argwhere(arrays.delisted).tolist() == [[1, 2]]
    assert not arrays.all_tradable.any()
    assert arrays.impact.shape == (0, 0)
    steady = price_market(np.ones((3, 2))).panel
    assert market_arrays(steady, TransactionCosts(), next_open=False).all_tradable.all()


def test_moves_are_split_at_the_next_open():
    arrays = market_arrays(PANEL, TransactionCosts(), next_open=True)
    before = [[1.5, 1, 1.25, 0.75], [1.25, 5 / 8, 1, 1], [4 / 3, 3 / 4, 1, 2]]
    after = [[4 / 3, 8 / 6, 1.2, 2 / 3], [1.2, 0.8, 1, 1], [1.5, 2 / 3, 1, 2]]
    assert arrays.before == pytest.approx(np.array(before))
    assert arrays.after == pytest.approx(np.array(after))
    assert (arrays.tradable == np.isfinite(CLOSE[1:])).all()


@pytest.mark.parametrize("haircut", [0.5, 1.0])
def test_benchmark_is_the_mean_of_what_can_be_traded(haircut):
    benchmark = Benchmark(market_arrays(PANEL, TransactionCosts(), next_open=False), haircut)
    bars = np.array([0, 1, 2, 3])
    moves = [1, (2 + 1.5 + 0.5) / 3, (1.5 + 0.5 + (1 - haircut) + 1) / 4, (2 + 0.5) / 2]
    assert benchmark.log_return(bars, None) == pytest.approx(np.log(moves))
    alone = benchmark.log_return(bars[1:], np.full((3, 1), 2))
    assert alone == pytest.approx(
        np.log([1.5, 0.5 if haircut < 1 else 1, 1])
    )  # all lost is left out


# ---- whole episodes


def price_market(relatives, volume=None, opens=None) -> Market:
    close = np.vstack([np.full(relatives.shape[1], 100.0), 100 * np.cumprod(relatives, axis=0)])
    dates = pd.date_range("2021-01-04", periods=len(close), freq="D").to_numpy("datetime64[ns]")
    panel = PricePanel(
        timestamps=dates,
        assets=tuple(f"A{i}" for i in range(close.shape[1])),
        close=close,
        open=opens,
        volume=volume,
    )
    features = np.zeros((*close.shape, 0), np.float32)
    return Market(panel, features, ())


PATHS = {
    "notional_c_0_0025_start_all_cash": (0.0025, "cash"),
    "notional_c_0_0025_start_invested": (0.0025, [0, 1 / 3, 1 / 3, 1 / 3]),
    "notional_zero_cost": (0.0, [0, 1 / 3, 1 / 3, 1 / 3]),
    "jiang_c_0_0025_start_all_cash": (0.0025, "cash"),
}


@pytest.mark.parametrize("name", PATHS)
def test_published_path_of_a_constant_rebalanced_portfolio(name):
    rate, initial = PATHS[name]
    path = FIXTURES["path"]
    buy = rate / (1 - rate) if name.startswith("jiang") else rate
    simulator = Simulator(
        price_market(np.array([numbers(row) for row in path["price_relatives"]])),
        window=1,
        action="weights",
        initial=initial,
        initial_value=1.0,
        costs=TransactionCosts(buy_commission_bps=buy * 1e4, sell_commission_bps=rate * 1e4),
    )
    simulator.reset(lambda _: None)
    for expected in path[name]:
        simulator.step([[0, 1 / 3, 1 / 3, 1 / 3]])
        value = simulator.ledger[dynamics.VALUE, 0]
        assert value == pytest.approx(number(expected["wealth"]), abs=1e-12)


def ragged_market(rng, bars: int, n: int) -> Market:
    """Prices with late listings, delistings, and bars in which nothing trades."""
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.03, (bars, n)), axis=0))
    opens = close * np.exp(rng.normal(0, 0.01, close.shape))
    volume = np.exp(rng.normal(10, 1, close.shape))
    volume[rng.random(close.shape) < 0.05] = 0.0
    for column in range(n):
        first = rng.integers(0, bars // 2) if rng.random() < 0.3 else 0
        last = rng.integers(bars // 2, bars) if rng.random() < 0.4 else bars
        gap = rng.random(bars) < 0.05
        gap[[first, last - 1]] = False
        for values in (close, opens, volume):
            values[:first, column] = values[last:, column] = np.nan
            values[gap, column] = np.nan
    close[:, 0] = np.where(np.isnan(close[:, 0]), 50.0, close[:, 0])
    opens[:, 0] = np.where(np.isnan(opens[:, 0]), 50.0, opens[:, 0])
    volume[:, 0] = np.where(np.isnan(volume[:, 0]), 1e4, volume[:, 0])
    dates = pd.date_range("2021-01-04", periods=bars, freq="D").to_numpy("datetime64[ns]")
    panel = PricePanel(
        timestamps=dates,
        assets=tuple(f"A{i}" for i in range(n)),
        open=opens,
        high=np.fmax(opens, close),
        low=np.fmin(opens, close),
        close=close,
        volume=volume,
    )
    return Market(panel, np.zeros((bars, n, 0), np.float32), ())


def replay(simulator: Simulator, targets: np.ndarray, next_open: bool) -> tuple[list, list, list]:
    """The same episode by the slow account, from the panel alone."""
    panel, costs = simulator.market.panel, simulator.costs
    n, seconds = len(panel.assets), panel.timestamps.astype(np.int64) / 1e9
    buy, sell = costs.rates(n)
    account = Account(
        simulator.initial_value, [0.0] * n, buy.tolist(), sell.tolist(), costs.fixed_fee,
        costs.cash_rate_annual, costs.margin_rate_annual, costs.borrow_rate_annual,
    )  # fmt: skip
    impact = costs.impact_coefficients(panel)
    values, turnovers, paid = [], [], []
    marks = [1.0] * n
    alive = np.isfinite(panel.close)
    last_bar = [int(np.flatnonzero(alive[:, i])[-1]) for i in range(n)]
    for i in range(n):
        if alive[0, i]:
            marks[i] = float(panel.close[0, i])
    for t, target in enumerate(targets):
        if next_open:
            for i in range(n):
                if last_bar[i] == t:
                    account.liquidate(i, marks[i], costs.delisting_haircut)
                if alive[t + 1, i]:
                    marks[i] = float(panel.open[t + 1, i])
        row = t + 1 if next_open else t
        before = account.value(marks)
        slope = impact[t].tolist() if impact.size else None
        account.rebalance(target.tolist(), marks, panel.tradable[row].tolist(), slope)
        turnovers.append(account.traded / before)
        paid.append(account.paid)
        account.carry(marks, (seconds[t + 1] - seconds[t]) / (365.25 * 24 * 60 * 60))
        for i in range(n):
            if last_bar[i] == t and not next_open:
                account.liquidate(i, marks[i], costs.delisting_haircut)
            elif alive[t + 1, i]:
                marks[i] = float(panel.close[t + 1, i])
        values.append(account.value(marks))
    return values, turnovers, paid


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans(), st.booleans())
def test_an_episode_equals_the_slow_account(seed, next_open, with_impact, with_fee):
    rng = np.random.default_rng(seed)
    bars, n = 30, int(rng.integers(2, 6))
    market = ragged_market(rng, bars, n)
    simulator = Simulator(
        market,
        window=1,
        action="weights",
        execution="next_open" if next_open else "close",
        costs=TransactionCosts(
            buy_commission_bps=rng.uniform(0, 50, n),
            sell_commission_bps=rng.uniform(0, 50, n),
            slippage_bps=5.0,
            impact=0.8 if with_impact else 0.0,
            fixed_fee=1.5 if with_fee else 0.0,
            cash_rate_annual=0.05,
            delisting_haircut=0.3,
        ),
    )
    simulator.reset(lambda _: rng)
    targets = rng.dirichlet(np.full(n + 1, 0.5), size=bars - 1)
    values, turnovers, paid = replay(simulator, targets, next_open)
    for target, value, turnover, cost in zip(targets, values, turnovers, paid, strict=True):
        before = simulator.ledger[dynamics.VALUE, 0]
        reward = simulator.step(target[None])[0]
        row = dict(zip(dynamics.LEDGER, simulator.ledger[:, 0], strict=True))
        assert row["portfolio_value"] == pytest.approx(value, rel=1e-10)
        assert row["turnover"] == pytest.approx(turnover, abs=1e-9)
        assert row["cost"] == pytest.approx(cost, rel=1e-8, abs=1e-8)
        assert reward == pytest.approx(np.log(value / before), abs=1e-10)
        assert simulator.weights.sum() == pytest.approx(1, abs=1e-12)
        assert simulator.held.sum() == pytest.approx(1, abs=1e-12)


def test_short_and_levered_accounts_equal_the_slow_account():
    rng = np.random.default_rng(3)
    n, steps = 4, 40
    market = price_market(np.exp(rng.normal(0, 0.01, (steps, n))))
    simulator = Simulator(
        market,
        window=1,
        action="weights",
        constraints={"long_only": False, "max_leverage": 3.0, "max_weight": 2.0},
        costs=TransactionCosts(
            20, cash_rate_annual=0.02, margin_rate_annual=0.08, borrow_rate_annual=0.03
        ),
    )
    simulator.reset(lambda _: rng)
    targets = rng.normal(0, 0.5, (steps, n + 1))
    targets[:, 0] = 1 - targets[:, 1:].sum(-1)
    targets = simulator.constraints.project(targets)
    values, turnovers, _ = replay(simulator, targets, next_open=False)
    for target, value, turnover in zip(targets, values, turnovers, strict=True):
        simulator.step(target[None])
        assert simulator.ledger[dynamics.VALUE, 0] == pytest.approx(value, rel=1e-10)
        assert simulator.ledger[dynamics.TURNOVER, 0] == pytest.approx(turnover, rel=1e-9)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_money_is_conserved_and_rewards_add_up(seed):
    rng = np.random.default_rng(seed)
    market = ragged_market(rng, 40, 4)
    simulator = Simulator(
        market, window=1, costs=TransactionCosts(30, cash_rate_annual=0.1, delisting_haircut=0.2)
    )
    simulator.reset(lambda _: rng)
    start = simulator.ledger[dynamics.VALUE, 0]
    total = 0.0
    for _ in range(39):
        before = simulator.ledger[dynamics.VALUE, 0]
        total += simulator.step(rng.uniform(-1, 1, (1, 5)))[0]
        row = dict(zip(dynamics.LEDGER, simulator.ledger[:, 0], strict=True))
        t = simulator.t[0] - 1
        moves = np.where(simulator.arrays.delisted[t], 1 - 0.2, simulator.arrays.after[t])
        invested = before - row["cost"]
        gain = invested * (simulator.held[0, 1:] * (moves - 1)).sum()
        assert row["portfolio_value"] == pytest.approx(
            before - row["cost"] + row["carry"] + gain, rel=1e-12
        )
        if row["turnover"] == 0:
            assert row["cost"] == 0
    final = simulator.ledger[dynamics.VALUE, 0]
    assert total == pytest.approx(np.log(final / start), abs=1e-12)


def test_scaling_all_prices_changes_nothing():
    rng = np.random.default_rng(5)
    market = ragged_market(rng, 40, 3)
    panel = market.panel
    scaled = PricePanel(
        timestamps=panel.timestamps,
        assets=panel.assets,
        close=panel.close * 1024.0,
        open=panel.open * 1024.0,
        high=panel.high * 1024.0,
        low=panel.low * 1024.0,
        volume=panel.volume,
    )
    other = Market(scaled, market.features, ())
    actions = rng.uniform(-1, 1, (39, 1, 4))
    ledgers = []
    for each in (market, other):
        simulator = Simulator(each, window=1)
        simulator.reset(lambda _: rng)
        for action in actions:
            simulator.step(action)
        ledgers.append(simulator.ledger.copy())
    assert (ledgers[0] == ledgers[1]).all()


def test_hand_computed_episode():
    """Cash into one asset at 1 %: 100 buys 100/1.01; it doubles; back to cash costs 1 % of it."""
    market = price_market(np.array([[2.0, 1.0], [1.0, 1.0]]))
    simulator = Simulator(
        market, window=1, action="weights", costs=TransactionCosts(100), initial_value=100.0
    )
    simulator.reset(lambda _: None)
    simulator.step([[0.0, 1.0, 0.0]])
    assert simulator.ledger[dynamics.VALUE, 0] == pytest.approx(200 / 1.01, rel=1e-15)
    assert simulator.ledger[dynamics.COST, 0] == pytest.approx(100 - 100 / 1.01, rel=1e-12)
    assert not simulator.truncated[0]
    simulator.step([[1.0, 0.0, 0.0]])
    assert simulator.ledger[dynamics.VALUE, 0] == pytest.approx(200 / 1.01 * 0.99, rel=1e-15)
    assert simulator.truncated[0]
    assert not simulator.terminated[0]


@pytest.mark.parametrize(
    ("asked", "move", "left"), [([-2.0, 3.0, 0.0], 0.4, -8000.0), ([-1.0, 2.0, 0.0], 0.5, 0.0)]
)
def test_ruin_terminates_and_keeps_the_debt_visible(asked, move, left):
    market = price_market(np.array([[move, 1.0], [1.0, 1.0], [1.0, 1.0]]))
    simulator = Simulator(
        market,
        window=1,
        action="weights",
        costs=TransactionCosts(0),
        constraints={"max_leverage": 3.0, "max_weight": 3.0},
    )
    simulator.reset(lambda _: None)
    reward = simulator.step([asked])
    assert simulator.terminated[0]
    assert simulator.ledger[dynamics.VALUE, 0] == pytest.approx(left)
    assert reward[0] == pytest.approx(np.log(dynamics.LOG_FLOOR))
    assert simulator.weights[0].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("start", [1.0, 1e4])
@pytest.mark.parametrize("night", [0.4, 2 / 3])  # debts are left, or nothing
def test_an_account_ruined_overnight_trades_nothing(night, start):
    closes = np.array([[1.0, 1.0], [night, 1.0], [1.0, 1.0]])
    opens = 100 * np.array([[1.0, 1.0], [1.0, 1.0], [night, 1.0], [night, 1.0]])
    simulator = Simulator(
        price_market(closes, opens=opens), window=1, action="weights", execution="next_open",
        costs=TransactionCosts(10, cash_rate_annual=0.05, margin_rate_annual=0.05),
        constraints={"max_leverage": 3.0, "max_weight": 3.0}, initial=[-2.0, 3.0, 0.0],
        initial_value=start,
    )  # fmt: skip
    simulator.reset(lambda _: None)
    simulator.step(simulator.weights)  # what is held stays
    value = simulator.ledger[dynamics.VALUE, 0]
    carry = simulator.ledger[dynamics.CARRY, 0]
    assert carry < 0
    simulator.step([[-0.5, 0.0, 1.5]])
    assert simulator.terminated[0]
    left = value * (1 + 3 * (night - 1) * start / value)
    assert simulator.ledger[dynamics.VALUE, 0] == pytest.approx(left, abs=1e-9 * start)
    assert simulator.ledger[dynamics.TURNOVER, 0] == 0
    assert simulator.ledger[dynamics.COST, 0] == 0
    assert simulator.ledger[dynamics.CARRY, 0] == 0
    assert simulator.held[0].tolist() == simulator.weights[0].tolist() == [1.0, 0.0, 0.0]


def test_what_inactive_lanes_are_asked_for_does_not_matter():
    made = Simulator(price_market(np.ones((3, 2))), 4, window=1)
    made.reset(lambda _: None)
    for lane in range(4):
        actions, active = np.zeros((4, 3)), np.arange(4) != lane
        actions[lane] = np.nan
        made.step(actions, active)
        made.reset(lambda _: None)


@given(st.floats(0.05, 0.95))
@settings(max_examples=10)
def test_ruin_is_a_thousandth_of_the_first_value_however_slowly_it_is_lost(factor):
    steps = int(np.log(1e-3) / np.log(factor)) + 2
    market = price_market(np.full((steps, 2), factor))
    simulator = Simulator(market, window=1, action="weights", initial=[0.0, 1.0, 0.0])
    simulator.reset(lambda _: None)
    for step in range(1, steps + 1):
        simulator.step(simulator.weights)
        value = simulator.ledger[dynamics.VALUE, 0]
        assert value == pytest.approx(1e4 * factor**step, rel=1e-10)
        assert simulator.ledger[dynamics.DRAWDOWN, 0] == pytest.approx(1 - value / 1e4, abs=1e-12)
        assert simulator.terminated[0] == (value <= 10.0)
    assert simulator.terminated[0]


@pytest.mark.parametrize(("left", "is_ruined"), [(0.001, True), (0.00101, False)])
def test_an_account_is_ruined_by_a_loss_of_exactly_all_but_a_thousandth(left, is_ruined):
    market = price_market(np.array([[left, 1.0], [1.0, 1.0]]))
    simulator = Simulator(market, window=1, action="weights", initial=[0.0, 1.0, 0.0])
    simulator.reset(lambda _: None)
    simulator.step(simulator.weights)
    assert simulator.ledger[dynamics.VALUE, 0] == 1e4 * left
    assert simulator.terminated[0] == is_ruined


def test_a_frozen_asset_keeps_its_value_and_the_rest_is_split_as_asked():
    close = np.full((3, 3), 100.0)
    volume = np.ones((3, 3))
    volume[1, 0] = 0.0
    dates = pd.date_range("2021-01-04", periods=3, freq="D").to_numpy("datetime64[ns]")
    panel = PricePanel(timestamps=dates, assets=("A", "B", "C"), close=close, volume=volume)
    simulator = Simulator(
        Market(panel, np.zeros((3, 3, 0), np.float32), ()),
        window=1,
        action="weights",
        costs=TransactionCosts(50),
        initial=[0.0, 0.6, 0.4, 0.0],
    )
    simulator.reset(lambda _: None, t=1)
    simulator.step([[0.1, 0.5, 0.0, 0.4]])
    value, held = simulator.ledger[dynamics.VALUE, 0], simulator.held[0]
    assert held[1] * value == pytest.approx(6000, rel=1e-14)
    assert held[3] / held[0] == pytest.approx(4.0, rel=1e-12)
    assert held[2] == 0.0


def test_more_assets_than_may_be_held_are_a_violation_where_none_can_be_sold():
    market = price_market(np.ones((2, 3)), volume=np.zeros((3, 3)))
    simulator = Simulator(market, window=1, action="weights", constraints={"top_k": 1})
    simulator.reset(lambda _: None)
    simulator.weights[0] = [0.1, 0.2, 0.3, 0.4]
    simulator.step([[0.0, 0.0, 0.0, 1.0]])
    assert simulator.ledger[dynamics.VIOLATION, 0] == pytest.approx(0.5)


@pytest.mark.parametrize("period", [1, 2, 3])
def test_any_consecutive_steps_of_a_period_trade_as_much_as_its_limit(period):
    simulator = Simulator(
        price_market(np.ones((9, 2))), window=1, action="weights",
        constraints={"turnover_period": period, "max_period_turnover": 0.5},
    )  # fmt: skip
    simulator.reset(lambda _: None)
    traded = []
    for _ in range(8):
        _, first, second = simulator.weights[0]
        simulator.step([[0.0, 0.0, 1.0] if first > second else [0.0, 1.0, 0.0]])
        traded.append(simulator.ledger[dynamics.TURNOVER, 0])
    sums = np.convolve(traded, np.ones(period), "valid")
    assert sums == pytest.approx(0.5)  # and no less, for more is asked for at every step
