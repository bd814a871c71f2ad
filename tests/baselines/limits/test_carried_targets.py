"""Targets that a turnover limit or ``adjustment`` keeps from being reached are carried on."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.bare_markets import market_of, random_market
from helpers.panels import panel_of
from hypothesis import given
from hypothesis import strategies as st

from baselines import make_baseline
from portfolio_env import Market, PortfolioEnv, PortfolioVectorEnv, load_market
from portfolio_env.evaluation import backtest

MARKET = random_market(3, 400, 5)
OPENS = load_market(panel_of("D", 250, assets=5, seed=3))  # listings, gaps and delistings
HALTED = random_market(4, 250, 5, halted=0.2)


def equal_thirds(past):
    return np.array([0.0, *np.full(3, 1 / 3), 0.0, 0.0])


def run(name, market=MARKET, model=None, **options):
    free = {"window": 1, "observation": "index", "action": "weights", "costs": FREE}
    made = make_baseline(name, market, **(model or {}))
    return backtest(made, PortfolioEnv(market, **free | options))


FREE = {"commission_bps": 0}


def limited(turnover, **others):
    return {"constraints": {"max_turnover": turnover, **others}}


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("buy_and_hold", {}),
        ("hrp", {"lookback": 60, "every": "month"}),
        ("inverse_volatility", {"every": "quarter"}),
        (equal_thirds, {"every": "year"}),
    ],
)
@pytest.mark.parametrize("limit", [limited(0.02), {"adjustment": 0.05}], ids=str)
def test_a_model_that_does_not_ask_again_is_invested_all_the_same(name, model, limit):
    result = run(name, model=model, start=100, costs={"commission_bps": 10}, **limit)
    assert result.held[60:, 0].max() < 0.06
    assert result.turnovers.max() <= 0.05 + 1e-9


@given(seed=st.integers(0, 99), limit=st.floats(0.02, 0.9), every=st.sampled_from([0, 130]))
def test_a_reached_target_is_the_account_that_reached_it_at_once(seed, limit, every):
    market = random_market(seed, 130, 4)
    name, model = (equal_thirds, {"every": every}) if every else ("buy_and_hold", {})
    if every:
        market = random_market(seed, 130, 5)
    at_once = run(name, market, model)
    slowly = run(name, market, model, **limited(limit))
    bars = int(np.ceil(1.2 / limit)) + 1  # the market moves meanwhile, and the turnover with it
    assert slowly.held[bars:] == pytest.approx(at_once.held[bars:], abs=1e-6)
    assert (slowly.turnovers[bars:] == 0).all()
    steps = np.arange(1, int(1 / limit))
    assert 1 - slowly.held[: len(steps), 0] == pytest.approx(limit * steps, abs=0.2)


@given(seed=st.integers(0, 99), pace=st.floats(0.05, 0.95))
def test_the_way_that_is_left_shrinks_by_the_pace(seed, pace):
    market = random_market(seed, 320, 4)
    at_once, slowly = run("buy_and_hold", market), run("buy_and_hold", market, adjustment=pace)
    gap = abs(slowly.held - at_once.held).max(axis=1)
    left = np.maximum((1 - pace) ** np.arange(1, len(gap) + 1), 1e-6)
    assert (gap <= 2 * left).all()
    asks = int(np.ceil(np.log(1e-6) / np.log(1 - pace))) + 1
    assert (slowly.turnovers[asks:] == 0).all()


@pytest.mark.parametrize(
    "others", [{}, {"no_trade_band": 0.05}, {"max_weight": 0.1}, {"min_cash": 0.3}], ids=str
)
@pytest.mark.parametrize("execution", ["close", "next_open"])
def test_a_limit_that_cuts_nothing_changes_nothing(others, execution):
    """Whatever else keeps a target from being met: it is no reason to ask for it again."""
    market = HALTED if execution == "close" else OPENS
    rules = {"execution": execution, "costs": {"commission_bps": 10, "cash_rate_annual": 0.05}}
    for name, model in (("buy_and_hold", {}), ("momentum", {"every": 30})):
        plain = run(name, market, model, constraints=others, **rules)
        held = run(name, market, model, **limited(2.5, **others), **rules)
        assert (plain.values == held.values).all() and (plain.held == held.held).all()


def test_a_trade_of_just_the_limit_is_whole():
    at_once, limit = run("buy_and_hold"), run("buy_and_hold", **limited(1.0))
    assert at_once.turnovers[0] == 1.0
    assert (at_once.values == limit.values).all()


@given(seed=st.integers(0, 99), band=st.sampled_from([0.0, 0.01, 0.04]))
def test_nothing_is_asked_for_ever(seed, band):
    """Halts and bands: after some bars buy and hold is invested and trades no more."""
    limits = ({"max_turnover": 0.05}, {"max_period_turnover": 0.2, "turnover_period": 4})
    for market, execution in (
        (random_market(seed, 150, 4, halted=0.3), "close"),
        (load_market(panel_of("D", 150, assets=4, seed=seed, ragged=False)), "next_open"),
    ):
        for limit in limits:
            rules = {"constraints": {**limit, "no_trade_band": band}, "execution": execution}
            result = run("buy_and_hold", market, **rules)
            assert (result.turnovers[80:] == 0).all()
            assert result.held[80:, 0].max() <= 6 * band + 1e-6


def test_what_is_halted_is_waited_for():
    """Its money stays in cash, and is not put into the others."""
    close, trades = np.array(MARKET.close[:80, :2]), np.ones((80, 2), np.bool_)
    trades[5:50, 1] = False
    market = market_of(close, trades)
    result = run("buy_and_hold", market, **limited(0.1))
    at_once = run("buy_and_hold", market)
    assert result.held[10:50, 0] == pytest.approx(0.25, abs=0.05)
    assert (result.turnovers[12:50] == 0).all()
    assert result.held[60:] == pytest.approx(at_once.held[60:], abs=1e-12)


@pytest.mark.parametrize("limit", [limited(0.1), {"adjustment": 0.4}], ids=str)
def test_a_halt_costs_no_trades_and_stops_no_sale(limit):
    """A halted asset is waited for without a trade, whether it is to be bought or to be sold."""
    close, trades = np.array(MARKET.close[:240, :2]), np.ones((240, 2), np.bool_)
    trades[3:80, 1] = trades[103:140, 0] = False
    market = market_of(close, trades)
    at_once, result = (run("buy_and_hold", market, **own) for own in ({}, limit))
    assert (result.turnovers[50:80] == 0).all()
    assert result.held[120:] == pytest.approx(at_once.held[120:], abs=1e-5)

    def first_then_second(past):
        return np.eye(3)[1 if len(past.timestamps) <= 100 else 2]

    result = run(first_then_second, market, {"every": 100}, **limit)
    assert (result.held[103:139, 1] > 0.1).all()
    assert (result.turnovers[135:139] == 0).all()
    assert result.held[190, 2] == pytest.approx(1, abs=1e-5)


def test_a_new_target_takes_the_place_of_the_old():
    def first_then_second(past):
        return np.eye(6)[1 if len(past.timestamps) <= 30 else 2]

    result = run(first_then_second, model={"every": 30}, **limited(0.04))
    assert result.held[29, 1] == pytest.approx(1, abs=0.2)
    assert result.held[85, 2] == pytest.approx(1)
    assert (np.diff(result.trades[:30, 1].cumsum()) >= -1e-9).all()


def test_every_lane_is_carried_on_by_itself():
    options = {"window": 1, "observation": "index", "action": "weights", "costs": FREE}
    options |= {"random_start": True, "episode_length": 80, **limited(0.03)}
    model = make_baseline(equal_thirds, MARKET, every=35)
    lanes = PortfolioVectorEnv(num_envs=6, market=MARKET, autoreset_mode="Disabled", **options)
    for lane, result in enumerate(backtest(model, lanes, seed=9)):
        alone = backtest(model, PortfolioEnv(MARKET, **options), seed=9 + lane)
        assert (alone.values == result.values).all() and (alone.held == result.held).all()


def test_the_decisions_of_other_policies_stay_theirs():
    class Once:
        action = "weights"

        def predict(self, observation, state=None, episode_start=None, deterministic=True):
            held = np.asarray(observation["weights"], np.float64)
            return (np.full_like(held, 1 / held.shape[1]) if state is None else held), True

    env = PortfolioEnv(
        MARKET, window=1, observation="index", action="weights", costs=FREE, **limited(0.02)
    )
    assert (backtest(Once(), env).turnovers[1:] == 0).all()


def test_a_model_that_chose_cash_keeps_its_schedule():
    asked = []

    def cash_then_thirds(past):
        asked.append(len(past.timestamps) - 1)
        return equal_thirds(past) if asked[-1] >= 45 else np.eye(6)[0]

    result = run(cash_then_thirds, model={"every": 20}, start=5, end=70)
    decided = sorted(set(asked))
    assert decided == [5, 20, 40, 60]
    rows = np.arange(5, 69)
    assert ((result.held[:, 0] == 1) == (rows < 60)).all()


def test_each_episode_and_each_lane_remember_their_own_choice():
    model = make_baseline(lambda past: np.eye(6)[0], MARKET, every=20)
    batch = {
        "t": np.array([[5], [20], [6]]),
        "market": np.full((3, 1), MARKET.fingerprint),
        "tradable": np.ones((3, 5), np.int8),
        "weights": np.tile(np.eye(6)[0], (3, 1)).astype(np.float32),
    }
    _, state = model.predict(batch)
    assert state.tolist() == [True, True, True]
    invested = batch | {"t": batch["t"] + 1, "weights": np.eye(6, dtype=np.float32)[[1, 0, 0]]}
    answer, state = model.predict(invested, state, np.array([True, False, False]))
    assert state.tolist() == [False, True, True]
    assert (answer == invested["weights"]).all()


@pytest.mark.parametrize("limit", [{}, limited(0.3)], ids=str)
def test_what_lacks_the_bar_of_the_next_open_is_bought_later(limit):
    """At the decision it could be traded; buy and hold decides only once."""
    close = np.array(MARKET.close[:80, :2])
    trades = np.ones((80, 2), np.bool_)
    trades[6:9, 1] = False
    panel = replace(market_of(close, trades).panel, open=close)
    market = Market(panel, np.zeros((80, 2, 0), np.float32), ())
    result = run("buy_and_hold", market, start=5, execution="next_open", **limit)
    assert result.held[:4, 2] == pytest.approx(0, abs=1e-12)
    # the environment gives the share of what it cannot trade to the others; a carried one waits
    assert result.held[:, 0][[0, 3]] == pytest.approx([0.7, 0.5] if limit else [0, 0], abs=0.03)
    assert result.held[12:, 0] == pytest.approx(0, abs=1e-9)
    assert result.held[12, 2] == pytest.approx(0.5, abs=0.1)
    assert (result.turnovers[12:] == 0).all()

    def second_until_the_third_day(past):
        return np.eye(3)[2 if len(past.timestamps) <= 5 else 1]

    trades[:] = True
    trades[7, 1] = False  # it cannot be sold at the open after the second decision
    panel = replace(panel, volume=trades.astype(float))
    market = Market(panel, np.zeros((80, 2, 0), np.float32), ())
    rules = {"start": 1, "execution": "next_open", **limit}
    result = run(second_until_the_third_day, market, {"every": 5}, **rules)
    assert result.held[12:, 1] == pytest.approx(1, abs=1e-9)
