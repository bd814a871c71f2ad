"""Cases in which money was lost, made up, or held against a bound."""

import numpy as np
import pandas as pd
import pytest
from helpers.bare_markets import market_of, random_market
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from portfolio_env import (
    ArgumentError,
    Market,
    PortfolioConstraints,
    PortfolioEnv,
    PortfolioVectorEnv,
    PricePanel,
    load_market,
)
from portfolio_env.simulation import dynamics
from portfolio_env.simulation.simulator import Simulator

# ---- top_k beside assets that cannot be traded


@pytest.mark.parametrize("n", [24, 50, 200])
@pytest.mark.parametrize("action", ["logits", "weights"])
def test_no_money_is_lost_to_top_k_beside_halted_assets(n, action):
    """Without costs every step is the sum of what is held times what it becomes."""
    constraints = {"top_k": 4, "max_weight": 0.2, "max_cash": 0.5}
    market = random_market(0, 61, n, halted=0.2)
    simulator = Simulator(
        market, window=1, action=action, costs={"commission_bps": 0}, constraints=constraints
    )
    simulator.reset(lambda _: None)
    rng, value = np.random.default_rng(1), 10_000.0
    moves = market.close[1:] / market.close[:-1]
    for t in range(60):
        before = simulator.weights[0].copy()
        simulator.step(rng.uniform(0, 1, (1, n + 1)))
        held = simulator.held[0]
        assert abs(held.sum() - 1) < 1e-9
        frozen = ~market.tradable[t]
        assert held[1:][frozen] == pytest.approx(before[1:][frozen], abs=1e-12)
        value *= held[0] + held[1:] @ moves[t]
        assert simulator.ledger[dynamics.VALUE, 0] == pytest.approx(value, rel=1e-12)
        sizes = np.sort(np.abs(held[1:]))
        broken = max(
            held[0] - 0.5, held[1:].max() - 0.2, sizes[:-4].sum(), -held.min(), 0.0
        )  # fmt: skip
        assert simulator.ledger[dynamics.VIOLATION, 0] == pytest.approx(broken, abs=1e-12)


# ---- turnover limits, fees and cash


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_trades_cut_to_a_turnover_limit_never_take_cash_below_its_bound(seed):
    rng = np.random.default_rng(seed)
    n, least = int(rng.integers(2, 6)), float(rng.choice([0.0, 0.1]))
    env = PortfolioVectorEnv(
        4, random_market(seed, 30, n), action="weights", window=1, observation="index",
        initial=[least, *np.full(n, (1 - least) / n)], initial_value=100.0,
        constraints={"max_turnover": float(rng.uniform(0.01, 0.5)), "min_cash": least},
        costs={"fixed_fee": float(rng.choice([0.0, 0.5])), "commission_bps": 30},
    )  # fmt: skip
    observation, _ = env.reset(seed=0)
    for _ in range(25):
        asked = rng.dirichlet(np.full(n + 1, 0.5), 4)
        asked[:, 0] = rng.choice([0.0, 0.3])
        before = np.minimum(env.simulator.weights[:, 0], least)
        observation, *_ = env.step(asked)
        held = env.simulator.held
        assert (held[:, 0] >= before).all()
        assert (held >= 0).all() and np.abs(held.sum(1) - 1).max() < 1e-12
        assert env.simulator.ledger[dynamics.TURNOVER].max() <= 0.5
        for name, space in env.observation_space.items():
            assert space.contains(observation[name])


def test_a_fee_is_paid_by_buying_less_and_a_trade_that_cannot_pay_it_is_not_made():
    market = market_of(np.full((4, 2), 100.0))

    def step(fee, limit):
        simulator = Simulator(
            market, window=1, action="weights", initial=[0.0, 1.0, 0.0], initial_value=100.0,
            costs={"commission_bps": 0, "fixed_fee": fee}, constraints={"max_turnover": limit},
        )  # fmt: skip
        simulator.reset(lambda _: None)
        simulator.step([[0.0, 0.0, 1.0]])
        return simulator.held[0] * simulator.ledger[dynamics.VALUE, 0], simulator.ledger[:, 0]

    money, ledger = step(fee=1.0, limit=0.1)
    # the whole trade is from 100 to 99; cut to 10, about half of it sold, and bought for 1 less
    sold = 100 - money[1]
    assert money[0] == pytest.approx(0, abs=1e-12)
    assert money[2] == pytest.approx(sold - 1.0)
    assert sold == pytest.approx(10 / 1.99)
    assert ledger[dynamics.COST] == pytest.approx(1.0)
    money, ledger = step(fee=6.0, limit=0.1)
    assert money.tolist() == [0.0, 100.0, 0.0]
    assert ledger[dynamics.COST] == ledger[dynamics.TURNOVER] == 0


# ---- costs that cannot be paid


def frozen_account(initial, fee, *, shorts=False, limit=None):
    """One step of an account of 100 whose first asset cannot be traded; it asks for the second."""
    tradable = np.ones((3, 2), np.bool_)
    tradable[:, 0] = False
    simulator = Simulator(
        market_of(np.full((3, 2), 100.0), tradable), window=1, action="weights", initial=initial,
        initial_value=100.0, costs={"commission_bps": 0},
        constraints={"long_only": not shorts, "max_leverage": 3.0 if shorts else 1.0,
                     "max_weight": 2.0, "max_turnover": limit},
    )  # fmt: skip
    simulator.rules["fixed_fee"] = fee  # perhaps more than a new account may be charged
    simulator.reset(lambda _: None)
    simulator.step([[0.0, *np.eye(2)[1]]])
    return simulator


def test_a_fee_beyond_what_can_be_sold_beside_frozen_holdings_loses_nothing():
    """All of it was lost: 98 of 100 are frozen, the rest is less than the fee."""
    simulator = frozen_account([0.02, 0.98, 0.0], fee=3.0)
    assert simulator.ledger[dynamics.VALUE, 0] == 100.0
    assert simulator.ledger[dynamics.COST, 0] == 0.0
    assert simulator.held[0].tolist() == [0.02, 0.98, 0.0]
    assert not simulator.terminated[0]
    assert frozen_account([0.02, 0.98, 0.0], fee=1.0).ledger[dynamics.COST, 0] == 1.0


def test_costs_beyond_all_wealth_ruin_beside_a_frozen_short():
    """It went on with a negative share of the wealth and weights that did not sum to 1."""
    simulator = frozen_account([1.5, -0.5, 0.0], fee=120.0, shorts=True)
    assert simulator.terminated[0]
    assert simulator.ledger[dynamics.VALUE, 0] == 0.0
    assert simulator.ledger[dynamics.COST, 0] == 100.0
    assert simulator.held[0].tolist() == [1.0, 0.0, 0.0]


def test_a_trade_that_would_ruin_as_a_whole_is_cut_to_the_limit_first():
    """Market impact eats all wealth where everything is bought at once, and little of a part."""
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, (40, 2)), axis=0))
    options = {"window": 1, "action": "weights", "start": 30, "initial": [0.0, 1.0, 0.0],
               "initial_value": 1e9, "costs": {"commission_bps": 0, "impact": 1.0}}  # fmt: skip
    ends = []
    for constraints in ({}, {"max_turnover": 1e-4}):
        simulator = Simulator(
            market_of(close, np.ones((40, 2))), constraints=constraints, **options
        )
        simulator.reset(lambda _: None)
        simulator.step([[0.0, 0.0, 1.0]])
        ends.append((simulator.terminated[0], simulator.ledger[dynamics.COST, 0] / 1e9))
    assert ends[0][0]
    assert not ends[1][0] and 0 < ends[1][1] < 0.1


# ---- every bound, by logits and by weights


def reachable(bounds, held, tradable) -> bool:
    """Whether some portfolio meets the bounds beside what is frozen, by a linear programme."""
    n = len(tradable)
    low = np.r_[bounds["min_cash"], np.full(n, bounds["min_weight"]), np.zeros(n)]
    high = np.r_[bounds["max_cash"], np.full(n, bounds["max_weight"]), np.full(n, 1e9)]
    frozen = np.flatnonzero(~tradable) + 1
    if (held[frozen] < low[frozen]).any() or (held[frozen] > high[frozen]).any():
        return False
    low[frozen] = high[frozen] = held[frozen]
    gross = np.r_[np.zeros(n + 1), np.ones(n)]
    sides = np.vstack([np.c_[np.zeros(n), s * np.eye(n), -np.eye(n)] for s in (1, -1)])
    found = linprog(
        np.zeros(2 * n + 1), np.vstack([gross, sides]),
        np.r_[bounds["max_leverage"], np.zeros(2 * n)],
        np.r_[np.ones(n + 1), np.zeros(n)][None], [1.0], np.c_[low, high],
    )  # fmt: skip
    return found.status == 0


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_bound_that_can_be_met_is_met_without_costs(seed):
    rng = np.random.default_rng(seed)
    n, logits = int(rng.integers(2, 7)), bool(rng.random() < 0.5)
    long_only = bool(logits or rng.random() < 0.4)
    fields = {
        "long_only": long_only,
        "max_leverage": float(rng.uniform(0.4, 1.0 if logits else 2.0)),
        "max_weight": float(rng.uniform(0.3, 1.2)),
        "max_cash": float(rng.uniform(0.1, 1.1)) if rng.random() < 0.7 else None,
        "min_cash": float(rng.uniform(0, 0.1)) if rng.random() < 0.4 else None,
        "no_trade_band": float(rng.choice([0.0, 0.1, 0.3])),
    }
    constraints = PortfolioConstraints(**fields)
    try:
        bounds = constraints.bounds(n)[0]
    except ArgumentError:
        return
    market = random_market(seed, 12, n, halted=float(rng.choice([0.0, 0.3])))
    simulator = Simulator(
        market, window=1, action="logits" if logits else "weights", constraints=constraints,
        costs={"commission_bps": 0}, adjustment=float(rng.choice([1.0, 0.3])),
        logits_scale=float(rng.choice([1.0, 100.0])),
    )  # fmt: skip
    simulator.reset(lambda _: None)
    for t in range(11):
        asked = rng.uniform(-1, 1, (1, n + 1))
        if rng.random() < 0.4:
            asked[0] = [1.0, *np.full(n, -1.0)]
        simulator.step(asked)
        violation = simulator.ledger[dynamics.VIOLATION, 0]
        if violation > 1e-9:
            assert not reachable(bounds, simulator.held[0], market.tradable[t])


def test_leverage_below_one_binds_beside_an_own_bound_of_cash():
    constraints = PortfolioConstraints(max_leverage=0.5, min_cash=0.1)
    assert constraints.project([0.1, 0.5, 0.4]) == pytest.approx([0.5, 0.3, 0.2])
    assert constraints.bounds(2)["min_cash"][0] == 0.5


def test_scaling_to_the_leverage_leaves_cash_within_its_bounds():
    constraints = PortfolioConstraints(
        long_only=False, max_leverage=1.5, max_weight=1.5, max_cash=0.2
    )
    w = constraints.project([0.2, 1.5, -0.7])
    assert w == pytest.approx([0.2, 1.15, -0.35])


def test_cash_beyond_its_bound_is_invested_however_small_the_account_and_dear_the_fee():
    """A fee beyond the wealth outside the no-trade band left nothing but cash: everything."""
    market = load_market("synthetic?seed=2&bars=120&assets=12&ragged=true")
    simulator = Simulator(
        market, window=1, action="logits", initial="equal_weight",
        constraints={"max_cash": 0.5, "no_trade_band": 0.26}, costs={"fixed_fee": 5.0},
    )  # fmt: skip
    rng = np.random.default_rng(1073)
    simulator.reset(lambda _: rng)
    for _ in range(100):
        action = rng.uniform(-1, 1, (1, 13))
        if rng.random() < 0.5:
            action[0] = [1.0, *np.full(12, -1.0)]
        simulator.step(action)
        assert simulator.held[0, 0] <= 0.51
        assert not simulator.terminated[0]


# ---- asked weights and scores of every kind


@given(st.integers(0, 2**32 - 1), st.floats(1, 300))
def test_weights_of_any_size_end_with_sums_of_one(seed, digits):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 40))
    asked = rng.normal(0, 1, n + 1) * 10.0 ** rng.uniform(0, digits, n + 1)
    for fields in ({}, {"max_weight": 0.3, "max_cash": 0.2}, {"top_k": 3, "max_weight": 0.5},
                   {"long_only": False, "max_weight": 0.6, "max_leverage": 1.5}):  # fmt: skip
        constraints = PortfolioConstraints(**fields)
        if n < 4 and fields.get("max_cash"):
            continue
        w = constraints.project(asked)
        assert abs(w.sum() - 1) < 1e-11
        assert w[1:].max() <= constraints.max_weight + 1e-12


KINDS = ["float16", "float32", "float64", "longdouble", ">f4", ">f8", "int8", "int64", "uint16"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", ["logits", "weights"])
def test_actions_of_every_kind_of_number_mean_the_same(kind, action):
    market = load_market("synthetic?seed=2&bars=60&assets=3")
    asked = np.array([0, 1, 0, 1] if "int" in kind else [0.25, 0.5, 0.25, 0.0])
    results = []
    for dtype in (np.float64, np.dtype(kind)):
        env = PortfolioEnv(market, window=1, action=action)
        env.reset(seed=0)
        results.append(env.step(asked.astype(dtype))[4]["portfolio_value"])
    assert results[0] == results[1]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("action", ["logits", "weights"])
@pytest.mark.parametrize("kind", ["float16", "float32", "longdouble"])
def test_actions_that_are_not_finite_are_refused_and_change_nothing(value, action, kind):
    market = load_market("synthetic?seed=2&bars=60&assets=3")
    env = PortfolioVectorEnv(2, market, window=1, action=action)
    env.reset(seed=0)
    asked = np.full((2, 4), 0.25).astype(kind)
    asked[1, 2] = value
    with pytest.raises(ArgumentError, match="lane 1 is not finite"):
        env.step(asked)
    assert (env.simulator.ledger[dynamics.VALUE] == 1e4).all()
    assert (env.simulator.t == env.simulator.t[0]).all()
    env.step(np.full((2, 4), 0.25))


def test_a_number_beyond_float64_is_refused_like_an_infinite_one():
    env = PortfolioEnv(load_market("synthetic?seed=2&bars=60&assets=3"), window=1)
    env.reset(seed=0)
    with pytest.raises(ArgumentError, match="not finite"):
        env.step(np.array(["1e4000", "0", "0", "0"]).astype(np.longdouble))


@pytest.mark.parametrize("action", [[0.1, 0.2], 0.5, [[0.25] * 4], [1.0, [2.0], 3.0, 4.0]])
def test_a_single_environment_speaks_of_a_single_action(action):
    env = PortfolioEnv(load_market("synthetic?seed=2&bars=60&assets=3"), window=1)
    env.reset(seed=0)
    with pytest.raises(ArgumentError, match=r"expected \(4,\)") as raised:
        env.step(action)
    assert "lane" not in str(raised.value)
    with pytest.raises(ArgumentError, match="type <U1"):
        env.step(["a", "b", "c", "d"])


# ---- what rounding must not cost, and what is said of an account


def test_no_fee_is_charged_where_the_target_is_met_but_for_rounding():
    """Two thirds and a third of the rest are held as asked, but for the last bit."""
    market = market_of(np.full((4, 2), 100.0), np.array([[True, False]] * 4))
    env = PortfolioEnv(
        market, window=1, action="weights", observation="index", adjustment=0.3,
        costs={"fixed_fee": 2_000, "commission_bps": 10},
    )  # fmt: skip
    for held in (1 / 3, 0.1, 0.7):
        env.reset(options={"weights": [0.0, 1.0 - held, held]})
        _, _, _, _, info = env.step(np.array([0.0, 1.0, 0.0]))
        assert info["cost"] == 0.0 and info["turnover"] == 0.0
        assert info["portfolio_value"] == 10_000.0


def test_a_leverage_beyond_its_bound_is_projected_and_reported():
    """Holdings that cannot be sold are split from the rest, which must keep to the bounds."""
    tradable = np.array([[False, False, True]] * 4)
    market = market_of(np.full((4, 3), 100.0), tradable)
    env = PortfolioEnv(
        market, window=1, action="weights", observation="index",
        costs={"commission_bps": 0}, constraints={"max_leverage": 1.5},
    )  # fmt: skip
    env.reset(options={"weights": [0.2, 0.4, 0.4, 0.0]})
    _, _, _, _, info = env.step(np.array([-0.5, 0.3, 0.3, 0.9]))
    held = env.simulator.held[0]
    assert held == pytest.approx([-0.5, 0.4, 0.4, 0.7])
    assert info["constraint_violation"] == 0.0
    env.reset()
    env.simulator.weights[0] = [-1.0, 1.0, 1.0, 0.0]  # where the market took them
    _, _, _, _, info = env.step(np.array([0.0, 0.0, 0.0, 1.0]))
    assert info["constraint_violation"] == pytest.approx(0.5)


@pytest.mark.parametrize("n", [3, 10, 33, 49, 300])
def test_an_account_that_starts_in_equal_weight_holds_no_cash_at_all(n):
    market = random_market(n, 4, n, halted=0.4)
    env = PortfolioEnv(market, window=1, observation="index", initial="equal_weight")
    observation, info = env.reset()
    assert env.observation_space.contains(observation)
    assert info["cash"] == (0.0 if market.tradable[0].any() else 1.0)


def test_an_account_that_is_ruined_overnight_holds_cash_and_breaks_no_bound():
    close = np.array([[100.0, 100.0], [400.0, 100.0], [400.0, 100.0]])
    dates = pd.date_range("2021-01-04", periods=3, freq="D").to_numpy("datetime64[ns]")
    panel = PricePanel(
        timestamps=dates, assets=("A", "B"), open=close, high=close, low=close, close=close
    )
    market = Market(panel, np.zeros((3, 2, 0), np.float32), ())
    env = PortfolioEnv(
        market, window=1, action="weights", observation="index", execution="next_open",
        costs={"commission_bps": 0}, constraints={"long_only": False},
    )  # fmt: skip
    env.reset(options={"weights": [2.0, -1.0, 0.0]})
    _, _, terminated, _, info = env.step(np.array([2.0, -1.0, 0.0]))
    assert terminated
    assert env.simulator.held.tolist() == [[1.0, 0.0, 0.0]]
    assert info["cash"] == 1.0 and info["constraint_violation"] == 0.0
