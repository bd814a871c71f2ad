"""When things happen: nothing observed depends on later bars, rewards come after decisions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import portfolio_env as pe
from portfolio_env import ArgumentError, PortfolioEnv

MARKET = "synthetic?seed=3&bars=300&assets=5"


def changed_after(market, t, rng):
    """The same market with every bar after t replaced."""
    arrays = {}
    for name in ("open", "high", "low", "close", "volume"):
        arrays[name] = getattr(market.panel, name).copy()
    factor = np.exp(rng.normal(0, 0.5, arrays["close"][t + 1 :].shape))
    for name in ("open", "high", "low", "close"):
        arrays[name][t + 1 :] *= factor
    arrays["volume"][t + 1 :] *= np.exp(rng.normal(0, 1, factor.shape))
    panel = pe.PricePanel(timestamps=market.timestamps, assets=market.assets, **arrays)
    return pe.load_market(panel, fit_end=150)


@settings(max_examples=15)
@given(st.integers(30, 290), st.integers(0, 2**32 - 1), st.sampled_from(["close", "next_open"]))
def test_nothing_observable_depends_on_later_bars(t, seed, execution):
    if t < 150:
        t += 150  # scalers are fitted on rows before 150: change bars that come after them
    t = min(t, 290)
    rng = np.random.default_rng(seed)
    market = pe.load_market(MARKET, fit_end=150)
    runs = []
    for each in (market, changed_after(market, t, rng)):
        env = PortfolioEnv(
            each, window=8, observation="flat", execution=execution, costs={"impact": 0.5}
        )
        observation, _ = env.reset(seed=0, options={"t": t - 20})
        actions = np.random.default_rng(1).uniform(-1, 1, (20, 6))
        rows = [observation]
        for action in actions:
            observation, reward, _, _, info = env.step(action)
            rows += [observation, reward, *info.values()]
        runs.append(rows)
    assert all(np.array_equal(a, b) for a, b in zip(*runs, strict=True))


def test_the_reward_is_earned_on_the_bar_after_the_decision():
    market = pe.load_market(MARKET)
    for execution in ("close", "next_open"):
        env = PortfolioEnv(
            market, window=5, observation="index", action="weights", execution=execution,
            costs={"commission_bps": 0},
        )  # fmt: skip
        observation, _ = env.reset(options={"t": 100})
        assert observation["t"][0] == 100
        observation, reward, *_ = env.step(np.array([0, 0, 1, 0, 0, 0]))
        entry = market.close[100, 1] if execution == "close" else market.open[101, 1]
        assert observation["t"][0] == 101
        assert reward == pytest.approx(np.log(market.close[101, 1] / entry), abs=1e-12)


def test_an_episode_ends_where_it_should():
    env = PortfolioEnv(MARKET, window=5, start=100, end=120, observation="index")
    env.reset(seed=0)
    for step in range(1, 20):
        observation, _, terminated, truncated, _ = env.step(np.zeros(6))
        assert observation["t"][0] == 100 + step
        assert (terminated, truncated) == (False, step == 19)
    with pytest.raises(ArgumentError, match="call reset"):
        env.step(np.zeros(6))


def test_ranges_may_be_dates():
    market = pe.load_market(MARKET)
    dates = market.timestamps[[100, 160]].astype("datetime64[D]").astype(str)
    env = PortfolioEnv(market, window=5, start=dates[0], end=dates[1])
    assert (env.simulator.episodes.start, env.simulator.episodes.end) == (100, 160)


def test_window_of_one_may_start_at_the_first_bar():
    rng = np.random.default_rng(0)
    close = np.exp(rng.normal(0, 0.01, (10, 2)).cumsum(0))
    dates = np.datetime64("2020-01-01", "ns") + np.arange(10) * np.timedelta64(1, "D")
    panel = pe.PricePanel(timestamps=dates, assets=("A", "B"), close=close)
    market = pe.Market(panel, np.ones((10, 2, 1), np.float32), ("one",))
    env = PortfolioEnv(market, window=1)
    assert env.reset()[0]["market"].shape == (1, 2, 1)
    assert env.simulator.t[0] == 0
