"""Orders that fail, are filled in part, or exceed their share of the volume."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import portfolio_env as pe
from baselines import make_baseline
from portfolio_env.evaluation import backtest
from portfolio_env.evaluation.carried_targets import CarriedTargets
from portfolio_env.simulation.fills import _STEP, Fills, _mixed, made_fills

BARS, ASSETS = 40, 4
TRADING = {"window": 1, "observation": "index", "action": "weights"}
RANDOM = {"failure": 0.3, "partial": 0.4}
SEEDS = st.integers(0, 2**31 - 1)


def market_of(seed: int, volume: float = 1e3, holes: float = 0.1) -> pe.Market:
    """Closes and opens apart, volumes of all sizes, bars that are missing."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.03, (BARS, ASSETS)), axis=0))
    opens = close * np.exp(rng.normal(0, 0.02, close.shape))
    traded = volume * np.exp(rng.normal(0, 2, close.shape))
    gone = np.zeros(close.shape, bool)
    gone[1:-1] = rng.random((BARS - 2, ASSETS)) < holes
    for each in (close, opens, traded):
        each[gone] = np.nan
    dates = pd.date_range("2021-01-04", periods=BARS, freq="D").to_numpy("datetime64[ns]")
    fields = {"open": opens, "high": np.fmax(opens, close), "low": np.fmin(opens, close)}
    panel = pe.PricePanel(dates, tuple("ABCD"), close=close, volume=traded, **fields)
    return pe.Market(panel, np.zeros((*close.shape, 0), np.float32), ())


def actions_of(seed: int, steps: int = BARS - 1) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(ASSETS + 1, 0.5), steps)


def walked(env: pe.PortfolioEnv, actions: np.ndarray, seed: int = 0) -> np.ndarray:
    """Rewards, ledger and weights of an episode, a row per step."""
    env.reset(seed=seed)
    rows = []
    for action in actions:
        _, reward, _, truncated, info = env.step(action)
        rows.append([reward, *info.values(), *env.weights])
        if truncated:
            break
    return np.array(rows)


@pytest.mark.parametrize("execution", ["close", "next_open"])
@pytest.mark.parametrize("fills", [{"participation": 1.0}, {"failure": 1e-300}])
def test_fills_that_bind_nowhere_change_no_bit(fills, execution):
    market, actions = market_of(1, volume=1e12), actions_of(2)
    envs = [pe.PortfolioEnv(market, execution=execution, **TRADING, **own)
            for own in ({}, {"fills": fills})]  # fmt: skip
    whole, same = (walked(env, actions) for env in envs)
    assert (whole == same).all()


@settings(max_examples=30)
@given(SEEDS, st.sampled_from(["close", "next_open"]), st.floats(1e-6, 1), st.booleans())
def test_no_more_units_are_traded_than_the_share_of_the_volume(seed, execution, share, with_costs):
    """Units change by no more than it, nothing is owed, and what is not filled is told."""
    market = market_of(seed % 50)
    costs = {"commission_bps": 30, "impact": 1.0, "fixed_fee": 1.0} if with_costs else {}
    rules = {"execution": execution, "costs": costs, "fills": {"participation": share}}
    env = pe.PortfolioEnv(market, initial_value=1e6, **rules, **TRADING)
    result = backtest(Script(actions_of(seed)), env)
    later = execution == "next_open"
    rows = slice(1, None) if later else slice(-1)
    prices = market.panel.open if later else market.close
    units = np.abs(result.trades[:, 1:]) / prices[rows]
    bound = share * market.panel.volume[rows]
    traded = np.isfinite(bound)
    assert (units[traded] <= bound[traded] * (1 + 1e-9) + 1e-8).all()
    assert (np.abs(result.trades[:, 1:][~traded]) < 1e-6).all()
    assert (result.held >= 0).all()
    assert (result.unfilled >= 0).all() and (share > 0.01 or result.unfilled.any())


class Script:
    """Policy that answers with given weights, one after another."""

    action = "weights"

    def __init__(self, actions: np.ndarray) -> None:
        self.left = iter(actions)

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        return next(self.left)[None], None


def two_assets(volume: float = 10.0) -> pe.Market:
    """Prices of 100 that never move; ``volume`` units of A are traded per bar, of B many."""
    dates = pd.date_range("2021-01-04", periods=6, freq="D").to_numpy("datetime64[ns]")
    volumes = np.tile([volume, 1e9], (6, 1))
    panel = pe.PricePanel(dates, ("A", "B"), close=np.full((6, 2), 100.0), volume=volumes)
    return pe.Market(panel, np.zeros((6, 2, 0), np.float32), ())


def test_purchases_are_cut_to_what_was_sold():
    """All of A is to become B; a share of 0.5 of 10 units of A is sold, and its 500 buy B."""
    rules = {"costs": {"commission_bps": 100}, "fills": {"participation": 0.5}}
    env = pe.PortfolioEnv(two_assets(), initial=[0.0, 1.0, 0.0], **rules, **TRADING)
    env.reset(seed=0)
    *_, info = env.step(np.array([0.0, 0.0, 1.0]))
    bought = 500 * 0.99 / 1.01  # commission is paid on what is sold and on what is bought
    assert info["cost"] == pytest.approx(5 + 0.01 * bought)
    assert info["turnover"] == pytest.approx((500 + bought) / 1e4)
    assert info["portfolio_value"] == pytest.approx(1e4 - info["cost"])
    assert info["cash"] == pytest.approx(0.0, abs=1e-15) and info["cash"] >= 0
    assert env.weights[1] == pytest.approx(9500 / info["portfolio_value"])
    order = 1e4 * 0.99 / 1.01  # of B
    assert info["unfilled"] == pytest.approx((9500 + order - bought) / 1e4)


def test_an_order_of_thousands_of_days_of_volume_takes_thousands_of_days():
    env = pe.PortfolioEnv(two_assets(1e-3), fills={"participation": 1.0}, **TRADING)
    env.reset(seed=0)
    *_, info = env.step(np.array([0.0, 1.0, 0.0]))
    assert info["turnover"] == pytest.approx(1e-3 * 100 / 1e4)
    assert info["turnover"] + info["unfilled"] == pytest.approx(1 / 1.001, rel=1e-9)


def test_nothing_is_traded_and_no_fee_is_due_where_all_orders_fail():
    fees = {"commission_bps": 10, "fixed_fee": 5.0}
    env = pe.PortfolioEnv(market_of(3), costs=fees, fills={"failure": 1.0}, **TRADING)
    rows = walked(env, actions_of(4))
    assert (env.weights == [1, 0, 0, 0, 0]).all()
    assert env.simulator.ledger[0, 0] == 10_000.0
    assert rows[:, 1 + pe.dynamics.LEDGER.index("cost")].max() == 0.0
    assert rows[:, 1 + pe.dynamics.LEDGER.index("unfilled")].max() > 0.9


def test_an_account_with_debt_keeps_to_its_bound_of_cash():
    """Sales fail: purchases do not borrow more than the account may."""
    limits = {"max_leverage": 2.0, "min_cash": -0.5}
    rules = {"constraints": limits, "fills": {"failure": 0.5}, "costs": {"commission_bps": 50}}
    env = pe.PortfolioEnv(market_of(5, holes=0.0), **rules, **TRADING)
    rng, env_box = np.random.default_rng(0), env.action_space
    env.reset(seed=1)
    for _ in range(BARS - 1):
        action = rng.uniform(env_box.low, env_box.high)
        before = env.weights[0]
        *_, info = env.step(action)
        assert info["cash"] >= min(-0.5, before) - 1e-12


@pytest.mark.parametrize("universe", [None, 2])
def test_a_lane_of_many_is_one_alone(universe):
    """Seeded with s + i lane i fills as a single environment does, in episode after episode."""
    market = market_of(6, holes=0.0)
    rules = {"random_start": True, "episode_length": 9, "universe": universe, "fills": RANDOM}
    own = {**TRADING, **rules}
    lanes = pe.PortfolioVectorEnv(3, market, autoreset_mode="NextStep", **own)
    singles = [pe.PortfolioEnv(market, **own) for _ in range(3)]
    lanes.reset(seed=7)
    [env.reset(seed=7 + i) for i, env in enumerate(singles)]
    rng = np.random.default_rng(0)
    n = lanes.single_action_space.shape[0]
    for step in range(35):
        actions = rng.dirichlet(np.ones(n), 3)
        rewards, infos = lanes.step(actions)[1::3]
        if step % 10 == 9:  # nine steps, then the reset
            [env.reset() for env in singles]
            continue
        for lane, env in enumerate(singles):
            reward, info = env.step(actions[lane])[1::3]
            assert reward == rewards[lane]
            assert all(infos[name][lane] == value for name, value in info.items())
    assert infos["unfilled"].min() > 0


def test_a_seed_repeats_what_fails_whatever_is_ordered():
    """Also without random starts, where a reset draws nothing else."""
    market = market_of(8, holes=0.0)

    def shares(seed: int, actions: np.ndarray) -> np.ndarray:
        env = pe.PortfolioVectorEnv(1, market, fills=RANDOM, **TRADING)
        env.reset(seed=seed)
        found = []
        for action in actions:
            env.step(action[None])
            found.append(env.simulator.lanes.fills[0, 0].copy())
        return np.array(found)

    first = shares(3, actions_of(0))
    assert (first == shares(3, actions_of(1))).all()
    assert (first != shares(4, actions_of(0))).any()
    assert 0 < (first == 0).mean() < 0.6 and ((first > 0) & (first < 1)).any()


def test_draws_are_those_of_splitmix64_at_their_rates():
    outputs = _mixed(np.array([1234567], np.uint64) + _STEP * np.arange(1, 3, dtype=np.uint64))
    assert outputs.tolist() == [6457827717110365317, 3203168211198807973]  # published for this seed
    fills, lanes = Fills(failure=0.1, partial=0.5), 200
    keys = np.arange(lanes, dtype=np.uint64)
    shares = np.concatenate([
        fills.shares(keys, np.full(lanes, t), np.tile(np.arange(50), (lanes, 1))) for t in range(10)
    ])  # fmt: skip
    partial = shares[(shares > 0) & (shares < 1)]
    assert (shares == 0).mean() == pytest.approx(0.1, abs=0.004)
    assert partial.size / shares.size == pytest.approx(0.5, abs=0.006)
    assert partial.mean() == pytest.approx(0.5, abs=0.004)
    failed = shares == 0
    for one, other in ((failed[1:], failed[:-1]), (failed[:, 1:], failed[:, :-1])):
        assert (one & other).mean() == pytest.approx(0.01, abs=0.002)  # independent


@settings(max_examples=15)
@given(SEEDS, st.integers(1, BARS - 3), st.sampled_from(["close", "next_open"]))
def test_nothing_depends_on_bars_after_that_of_the_trade(seed, t, execution):
    """What step t trades at close t does not change with bar t + 1; at an open, with bar t + 2."""
    fills = {**RANDOM, "participation": 1e-3}
    rules = {"execution": execution, "fills": fills, **TRADING}
    market = market_of(seed % 50)
    changed = market_of(seed % 50 + 100)
    kept = t + 1 + (execution == "next_open")
    fields = {
        name: np.r_[getattr(market.panel, name)[:kept], getattr(changed.panel, name)[kept:]]
        for name in ("open", "high", "low", "close", "volume")
    }
    mixed = pe.PricePanel(market.timestamps, market.assets, **fields)
    other = pe.Market(mixed, market.features, ())
    held = []
    for each in (market, other):
        env = pe.PortfolioEnv(each, **rules)
        walked(env, actions_of(seed, t + 1), seed=seed)
        held.append((env.simulator.held.copy(), env.simulator.lanes.fills[1].copy()))
    gone = [np.flatnonzero(~np.isfinite(each.close[t + 1 :]).any(0)) for each in (market, other)]
    if not any(len(each) for each in gone):  # the last bar of an asset is not known before
        assert (held[0][0] == held[1][0]).all() and (held[0][1] == held[1][1]).all()


@pytest.mark.parametrize("fills", [{"failure": 0.4}, RANDOM, {"participation": 1e-3}])
def test_a_baseline_goes_on_until_its_orders_are_filled(fills):
    """Buy and hold is invested as a whole in the end, and then trades no more."""
    market = market_of(9, holes=0.0)
    env = pe.PortfolioEnv(market, fills=fills, costs={"commission_bps": 0}, **TRADING)
    result = backtest(make_baseline("buy_and_hold", market), env)
    assert result.held[0, 0] > 0.1 and abs(result.held[-1, 0]) < 1e-6
    assert result.turnovers[-5:].max() < 1e-6
    assert CarriedTargets(env.executor).executor.limited
    assert 0 < result.unfilled_share < 1


def test_a_state_goes_on_with_the_same_fills():
    market = market_of(10)
    made = [pe.PortfolioVectorEnv(2, market, fills=RANDOM, random_start=True, **TRADING)
            for _ in range(2)]  # fmt: skip
    made[0].reset(seed=1)
    made[0].step(np.full((2, 5), 0.2))
    state = made[0].state()
    made[1].restore(state)
    for _ in range(30):
        results = [env.step(np.full((2, 5), 0.2))[1] for env in made]
        assert (results[0] == results[1]).all()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"participation": 0}, r"participation=0 must be a finite number in \(0, 1\]"),
        ({"failure": 1.5}, r"failure=1.5 must be a finite number in \[0, 1\]"),
        ({"failure": 0.6, "partial": 0.6}, "sum to more than 1"),
        ({"participaton": 0.1}, "participation"),
        ("all", "must be Fills or a mapping"),
    ],
)
def test_bad_fills_are_refused(fields, told):
    with pytest.raises(pe.ArgumentError, match=told):
        pe.PortfolioEnv(two_assets(), fills=fields, **TRADING)


def test_a_limit_on_participation_needs_volumes():
    dates = pd.date_range("2021-01-04", periods=4, freq="D").to_numpy("datetime64[ns]")
    panel = pe.PricePanel(dates, ("A",), close=np.full((4, 1), 100.0))
    market = pe.Market(panel, np.zeros((4, 1, 0), np.float32), ())
    with pytest.raises(pe.DataError, match="needs traded volumes"):
        pe.PortfolioEnv(market, fills={"participation": 0.1}, **TRADING)
    assert repr(made_fills({"failure": 0.1})) == "Fills(failure=0.1)"


def test_what_fills_let_a_bound_on_sums_be_broken_by_is_said_exactly():
    """Leverage of a short account and the bound of a group hold for orders alone."""
    limits = {"long_only": False, "max_leverage": 1.5, "min_weight": -1.0, "max_weight": 1.0}
    rules = {"constraints": limits, "fills": RANDOM, "costs": {"commission_bps": 0}}
    market, rng, broken = market_of(3, holes=0.0), np.random.default_rng(4), 0
    env = pe.PortfolioEnv(market, **rules, **TRADING)
    env.reset(seed=1)
    for _ in range(BARS - 1):
        asked = rng.normal(0, 1, ASSETS)
        asked *= 1.5 / np.abs(asked).sum()
        *_, ended, _, info = env.step(np.r_[1 - asked.sum(), asked])
        held = env.simulator.held[0]
        least = float(env.simulator.bounds["min_cash"][0])
        most = float(env.simulator.bounds["max_cash"][0])
        over = max(np.abs(held[1:]).sum() - 1.5, np.abs(held[1:]).max() - 1.0)
        over = max(over, least - held[0], held[0] - most, 0.0)
        assert info["constraint_violation"] == pytest.approx(over, abs=1e-11)
        broken += over > 1e-6
        if ended:
            break
    assert broken > 3
