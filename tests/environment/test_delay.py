"""Decisions on a market that is some bars older than the prices that they are traded at."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import portfolio_env as pe
from baselines import make_baseline
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest
from portfolio_env.live import Predictor

MARKET = pe.load_market("synthetic?bars=120&assets=3&ragged=true&seed=5", fit_end=60)
TRADING = {"window": 3, "observation": "index", "action": "weights"}
FIRST = MARKET.warmup + 2  # of decisions without a delay


class ByRow:
    """Policy whose weights are a function of the row that it observes, and of nothing else."""

    action = "weights"

    def __init__(self, late=0):
        self.late = late

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        rows = np.asarray(observation["t"])[:, 0] - self.late
        drawn = [np.random.default_rng(row).dirichlet(np.ones(4)) for row in rows.tolist()]
        return np.array(drawn), None


def same(first, second):
    return all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("values", "held", "costs", "turnovers", "timestamps")
    )


@settings(max_examples=10)
@given(st.integers(0, 7), st.sampled_from(["close", "next_open"]))
def test_delay_trades_what_was_decided_so_many_bars_before(bars, execution):
    """The account is that of a policy without delay which itself answers late, to the bit."""
    rules = {**TRADING, "execution": execution, "start": FIRST + bars}
    late = backtest(ByRow(), pe.PortfolioEnv(MARKET, delay=bars, **rules))
    assert same(late, backtest(ByRow(bars), pe.PortfolioEnv(MARKET, **rules)))


@pytest.mark.parametrize("universe", [None, 2])
@pytest.mark.parametrize("mode", ["window", "flat", "index"])
def test_observations_are_those_of_the_earlier_bar_with_the_weights_of_today(mode, universe):
    rules = {"window": 3, "action": "weights", "observation": mode, "universe": universe}
    late, prompt = (
        pe.PortfolioVectorEnv(2, MARKET, delay=bars, random_start=True, **rules) for bars in (2, 0)
    )
    seen, _ = late.reset(seed=3)
    for _ in range(4):
        seen, *_ = late.step(np.full(late.action_space.shape, 0.25))
    prompt.simulator.lanes.clock[:] = late.simulator.lanes.clock - 2
    prompt.simulator.lanes.assets[:] = late.simulator.assets
    prompt.simulator.lanes.weights[:] = late.simulator.weights
    expected = prompt._observer()
    if mode == "flat":
        assert np.array_equal(seen, expected)
    else:
        assert seen.keys() == expected.keys()
        assert all(np.array_equal(seen[name], expected[name]) for name in seen)


def test_bars_within_the_delay_change_no_decision():
    """All that is newer than the observed bar is replaced, and the answer stays to the bit."""
    row, bars = 100, 3
    panel = MARKET.panel
    other = np.array(panel.close)
    later = other[row - bars + 1 :]
    later *= np.exp(np.random.default_rng(0).normal(0, 0.1, later.shape))
    told = []
    for close in (panel.close, other):
        changed = pe.PricePanel(panel.timestamps, panel.assets, close=close)
        market = pe.Market(changed, np.zeros((*close.shape, 0), np.float32), ())
        env = pe.PortfolioEnv(market, delay=bars, **TRADING)
        observation, _ = env.reset(options={"t": row})
        told.append(make_baseline("momentum", market).predict(observation)[0])
    assert np.array_equal(*told) and told[0][1:].any()


def test_predictor_walks_a_delayed_environment_as_the_backtest_does():
    rules = {**TRADING, "delay": 2}
    env = pe.PortfolioEnv(MARKET.past(FIRST + 3), **rules)
    predictor = Predictor(make_baseline("momentum", env.market, every=5), env)
    values = []
    for row in range(FIRST + 4, MARKET.n_bars):
        predictor.advance(MARKET.panel.subset(slice(row, row + 1)))
        values.append(predictor.simulator.account().values[0])
    env = pe.PortfolioEnv(MARKET, start=FIRST + 3, **rules)
    expected = backtest(make_baseline("momentum", MARKET, every=5), env)
    assert len(values) > 50 and np.allclose(values, expected.values[1:], rtol=1e-12)


def test_the_first_decision_waits_for_history_and_a_bad_delay_is_named():
    env = pe.PortfolioEnv(MARKET, delay=4, **TRADING)
    observation, _ = env.reset()
    assert observation["t"] == [FIRST] and env.simulator.t == [FIRST + 4]
    with pytest.raises(ArgumentError, match="delay=4"):
        pe.PortfolioEnv(MARKET, delay=4, start=FIRST + 3, **TRADING)
    with pytest.raises(ArgumentError, match="delay=-1 must be an integer of 0 or more"):
        pe.PortfolioEnv(MARKET, delay=-1, **TRADING)
    with pytest.raises(ArgumentError, match=r"leave no step.*, window=3, delay=400"):
        pe.PortfolioEnv(MARKET, delay=400, **TRADING)
