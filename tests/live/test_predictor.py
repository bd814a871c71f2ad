"""A predictor that is given bars as they come: the account of a backtest, and nothing of later."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import examples
from helpers.panels import panel_of, rewritten_after
from hypothesis import given
from hypothesis import strategies as st

import agents
from agents.direct.agent import DirectAgent
from baselines import make_baseline
from portfolio_env import Market, PortfolioEnv, load_market
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation import backtest
from portfolio_env.features import FeaturePipeline
from portfolio_env.live import Holdings, Instrument, Predictor, orders_of, plan
from portfolio_env.live.money import decimal_of
from portfolio_env.live.planning import last_prices
from portfolio_env.simulation.costs import TransactionCosts
from portfolio_env.simulation.market_arrays import GrowingArrays, latest_prices, market_arrays

BARS, START = 130, 60
MARKET = load_market(f"synthetic?bars={BARS}&assets=5&seed=15&ragged=true", fit_end=START)
OPTIONS = {"observation": "index", "action": "weights", "window": 1}
COSTS = {"impact": 0.4, "fixed_fee": 0.5, "cash_rate_annual": 0.04, "delisting_haircut": 0.3}


def bars_of(market, first, end=None):
    return market.panel.subset(slice(first, first + 1 if end is None else end))


def predictor_at(market=MARKET, name="equal_weight", start=START, **options):
    known = market.past(start)
    return Predictor(make_baseline(name, known), PortfolioEnv(known, **OPTIONS | options))


@pytest.mark.parametrize("execution", ["close", "next_open"])
@pytest.mark.parametrize("name", ["random", "buy_and_hold", "eg"])
def test_its_own_account_is_that_of_a_backtest_to_the_bit(name, execution):
    options = {"costs": COSTS, "execution": execution, "adjustment": 0.3}
    options["constraints"] = {"max_period_turnover": 0.9, "turnover_period": 4, "max_weight": 0.6}
    env = PortfolioEnv(MARKET, start=START, **OPTIONS, **options)
    result = backtest(make_baseline(name, MARKET), env)
    gone = env.simulator.arrays.delisted
    assert gone[START:].any()
    predictor = predictor_at(name=name, **options)
    for t in range(START + 1, BARS):
        names = [MARKET.assets[column] for column in np.flatnonzero(gone[t - 1])]
        predictor.advance(bars_of(MARKET, t), delisted=names)
        assert np.array_equal(predictor.simulator.held[0], result.held[t - START - 1])
        assert predictor.simulator.ledger[0, 0] == result.values[t - START]
    assert np.array_equal(predictor.market.features, MARKET.features)


def test_weights_by_name_are_those_by_position():
    names = dict(zip(MARKET.assets, (0.1, 0.2, 0.3, 0.0, 0.0), strict=True))
    by_position = [0.4, *names.values()]
    for weights in (names, pd.Series(names | {"cash": 0.4}), by_position):
        decision = predictor_at().advance(bars_of(MARKET, START + 1), weights, value=1.0)
        np.testing.assert_allclose(decision.weights, by_position, atol=1e-15)
    for bad in ("x", {"A00": 2.0, "cash": 0.5}, {"nobody": 1.0}):
        with pytest.raises(ArgumentError):
            predictor_at().decide(weights=bad)


class Smoothed:
    """Remembers the mean of what it has observed, and how many observations there were."""

    action = "weights"

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        mean, count = (0.0, 0) if episode_start[0] else state
        now = np.asarray(observation["market"][:, -1, :, 0], np.float64)
        mean, count = 0.9 * mean + 0.1 * now, count + 1
        out = np.exp(np.hstack([np.full((len(now), 1), 0.01 * count), mean]))
        return out / out.sum(axis=1, keepdims=True), (mean, count)


@given(st.lists(st.integers(1, 6), min_size=6, max_size=6))
@examples(10)
def test_bars_that_come_together_are_decided_on_in_turn(steps):
    options = {"observation": "window", "action": "weights", "window": 3}
    market = load_market("synthetic?bars=100&assets=3", fit_end=START)
    result = backtest(Smoothed(), PortfolioEnv(market, start=START, **options))
    known = market.past(START)
    predictor = Predictor(Smoothed(), PortfolioEnv(known, **options))
    ends = [*itertools.accumulate(steps, initial=START + 1)]
    for first, end in itertools.pairwise(ends):
        decision = predictor.advance(bars_of(market, first, end))
        assert decision.row == end - 1
        np.testing.assert_array_equal(predictor.simulator.held[0], result.held[end - START - 2])


def test_a_late_candle_is_no_delisting():
    market = load_market("synthetic?bars=80&assets=3", fit_end=START)
    frame = market.to_frame().drop(columns=["tradable", *market.feature_names])
    days, late = frame["date"].unique()[START + 1 :], market.assets[1]
    predictor = predictor_at(market, costs=COSTS)
    first = frame[(frame["date"] == days[0]) & (frame["symbol"] != late)]
    for bars, tradable in ((first, False), (frame[frame["date"] == days[1]], True)):
        decision = predictor.advance(bars)
        assert decision.weights[2] > 0.2
        assert predictor.market.tradable[-1, 1] == tradable
        assert (decision.action[2] > 0) == tradable
    with pytest.raises(DataError, match=f"contradict the market: {late} closed"):
        predictor.advance(frame[frame["date"].isin(days[:3])])  # the late candle is there by now


def test_a_wide_frame_may_lack_the_price_of_a_late_asset():
    days = pd.date_range("2020-01-01", periods=30, name="date")
    noise = np.random.default_rng(0).normal(0, 0.01, (30, 2))
    close = pd.DataFrame(100 * np.exp(np.cumsum(noise, axis=0)), days, ["A", "B"])
    predictor = predictor_at(load_market(close, features="none"), start=25)
    predictor.advance(close.iloc[26:27].assign(B=np.nan))
    assert predictor.market.tradable[-1].tolist() == [True, False]


def test_bars_that_do_not_continue_the_market_are_refused():
    predictor = predictor_at()
    predictor.advance(bars_of(MARKET, START + 1, START + 3))
    known, now = predictor.market, bars_of(MARKET, START + 3)
    several = bars_of(MARKET, START + 1, START + 5)
    odd = several.timestamps.copy()
    odd[1] -= np.timedelta64(1, "h")
    higher = {name: 1.01 * getattr(several, name) for name in ("open", "high", "low", "close")}
    names = (*MARKET.assets[:-1], "OTHER")
    for bars, message in (
        (bars_of(MARKET, START + 2), "no bar is new: they end at .*; give later ones"),
        (replace(several, timestamps=odd), "out of order: .* 23:00 is new"),
        (replace(several, **higher), "contradict the market: .* closed .* at .* here and at"),
        (replace(now, assets=names), "the new bars have OTHER, and the market"),
        (replace(now, volume=None), r"only one of panel and new bars has \['volume'\]"),
    ):
        with pytest.raises(DataError, match=message):
            predictor.advance(bars)
        assert predictor.market is known
    for arguments, message in (
        ({"weights": [1.0, 0.0]}, "finite numbers"),
        ({"value": 0.0}, "value=0.0 must be"),
        ({"delisted": ["OTHER"]}, "OTHER"),
    ):
        with pytest.raises(ArgumentError, match=message):
            predictor.advance(now, **arguments)
        assert predictor.market is known
    assert predictor.advance(now).row == START + 3
    few = predictor_at().advance(several)  # which the market has in part are left out
    assert few.row == START + 4


def test_a_market_of_unknown_features_is_not_continued():
    named = {**MARKET.panel.provenance["features"], "features": "minimal,os:getcwd_3"}
    for described in ({}, {"features": "minimal"}, {"features": named}):
        panel = replace(MARKET.panel, provenance=described)
        with pytest.raises(ArgumentError, match="give the FeaturePipeline"):
            predictor_at(replace(MARKET, panel=panel)).advance(bars_of(MARKET, START + 1))
    known = replace(MARKET, panel=replace(MARKET.panel, provenance={})).past(START)
    pipeline = FeaturePipeline.of(MARKET)
    env = PortfolioEnv(known, **OPTIONS)
    predictor = Predictor(make_baseline("random", known), env, pipeline)
    predictor.advance(bars_of(MARKET, START + 1))
    assert np.array_equal(predictor.market.features, MARKET.features[: START + 2])


@pytest.mark.parametrize("name", ["momentum", "olmar2"])
def test_later_bars_change_no_decision_plan_or_order(name):
    panel = panel_of("D", 90, assets=4)
    made = FeaturePipeline("minimal").fit(panel, 50)
    cut, found = 70, []
    for own in (panel, rewritten_after(panel, cut, 1), rewritten_after(panel, cut, 2)):
        market = made.transform(own)
        options = {"lookback": 30, "every": 3} if name == "momentum" else {}
        predictor = Predictor(
            make_baseline(name, market, **options), PortfolioEnv(market, **OPTIONS)
        )
        account = Holdings.of_cash(market.assets, 10_000.0)
        for t in range(60, cut + 1):
            prices = tuple(map(decimal_of, last_prices(market, t)))
            decision = predictor.decide(account.weights(prices), t)
            planned = plan(decision, predictor.simulator, float(account.value(prices)))
            orders = orders_of(planned, account, [Instrument()] * len(prices), prices)
            found.append((t, decision.action.tolist(), planned.held.tolist(), orders.units))
            account = orders.after
    whole = len(found) // 3
    assert found[:whole] == found[whole : 2 * whole] == found[2 * whole :]
    assert any(any(units) for *_, units in found)


def test_two_futures_of_one_market_stay_apart():
    panel = panel_of("D", 90, assets=4)
    made = FeaturePipeline("minimal").fit(panel, 50)
    known = made.transform(panel.past(60))
    futures = [made.transform(rewritten_after(panel, 60, seed)) for seed in (1, 2)]
    for name in ("eg", "random"):
        predictors = [
            Predictor(make_baseline(name, known), PortfolioEnv(known, **OPTIONS)) for _ in futures
        ]
        for t in range(61, 90):
            for own, future in zip(predictors, futures, strict=True):
                decision = own.advance(bars_of(future, t))
                alone = make_baseline(name, future).predict_weights(t)
                np.testing.assert_array_equal(decision.action, alone)
                assert np.array_equal(own.market.features, future.features[: t + 1])


@pytest.mark.parametrize("options", [{}, {"history": "stream", "block": 10}])
def test_a_network_is_given_no_more_than_it_looks_back(options):
    known = MARKET.past(START)
    agent = DirectAgent(MARKET.n_features, 6, encoder="lstm", encoder_kwargs=options)
    agent.bind(MARKET)
    agent.bind(known)
    predictor = Predictor(agent, PortfolioEnv(known, observation="index", window=6))
    embeddings = agent.network.extractor.embeddings
    for t in range(START + 1, BARS):
        predictor.advance(bars_of(MARKET, t))
        assert len(embeddings.features) <= (6 + 12 if options else 6)
        assert "hash" not in predictor.market.__dict__  # of all bars
    with pytest.raises(ArgumentError, match="bind the whole of it again"):
        embeddings(agents.encoding.market_rows.th.tensor([20]))
    observation, _ = PortfolioEnv(known, observation="index", window=6).reset()
    with pytest.raises(ArgumentError, match=r"but market .* is bound"):
        agent.predict(observation)
    agent.bind(known)
    agent.predict(observation)


@given(st.integers(0, 99), st.booleans(), st.lists(st.integers(1, 25), min_size=4, max_size=9))
@examples(30)
def test_arrays_that_grow_are_those_of_the_whole_market(seed, next_open, steps):
    panel = panel_of("D", 120, assets=4, seed=seed)
    rates = {"2021-02-01": 0.03, "2020-01-01": 0.05}
    costs = TransactionCosts(impact=0.4, impact_window=7, cash_rate_annual=rates)
    whole, known = market_arrays(panel, costs, next_open), panel.past(30)
    arrays = market_arrays(known, costs, next_open)
    growing = GrowingArrays(arrays, costs, next_open)
    for first, end in itertools.pairwise(itertools.accumulate(steps, initial=31)):
        if end <= 120:
            known = known.extended(panel.subset(slice(first, end)))
            arrays = growing.extended(known, whole.delisted[first - 1])
    made, length = arrays._asdict(), len(arrays.before)
    for name in ("before", "after", "tradable", "interest"):
        np.testing.assert_array_equal(made[name], getattr(whole, name)[:length])
    np.testing.assert_array_equal(arrays.rates, whole.rates)
    np.testing.assert_allclose(arrays.impact, whole.impact[: length + 1], rtol=1e-9, atol=1e-18)
    t = len(known.timestamps) - 1
    np.testing.assert_array_equal(
        latest_prices(known, t), pd.DataFrame(known.close).ffill().iloc[t]
    )


def test_impact_of_a_later_bar_is_refused_where_that_of_a_first_one_is():
    """Its volume all but vanishes, and the market it was appended to stays as it was."""
    market = load_market("synthetic?bars=90&assets=2", fit_end=START)
    predictor = predictor_at(market, costs={"impact": 1.0, "impact_window": 2})
    thin = replace(market.panel, volume=1e-60 * market.panel.volume)
    predictor.advance(bars_of(market, START + 1))
    says = r"must be within \[0, 1e\+09\].*A00 at 2010-04-01"
    with pytest.raises(ArgumentError, match=says):
        predictor.advance(thin.subset(slice(START + 2, START + 6)))
    assert predictor.advance(bars_of(market, START + 2)).row == START + 2


def test_the_past_of_a_market_is_a_subset_of_its_rows():
    for t in (0, 3, 60, BARS - 1):
        past, rows = MARKET.past(t), MARKET.subset(slice(0, t + 1))
        assert (past.hash, past.warmup, past.n_bars) == (rows.hash, rows.warmup, t + 1)
        assert np.shares_memory(past.features, MARKET.features)
    assert isinstance(past, Market)


@pytest.mark.parametrize("seed", [0, 7])
def test_a_seed_fills_what_it_fills_in_a_backtest(seed):
    options = {"fills": {"failure": 0.3, "partial": 0.4}, "costs": COSTS}
    market = load_market("synthetic?bars=100&assets=4&seed=15", fit_end=START)
    env = PortfolioEnv(market, start=START, **OPTIONS, **options)
    expected = backtest(make_baseline("equal_weight", market), env, seed=seed)
    predictor, values = predictor_at(market, **options), []
    predictor.reset(seed)
    for row in range(START + 1, market.n_bars):
        predictor.advance(bars_of(market, row))
        values.append(predictor.simulator.account().values[0])
    assert values == expected.values[1:].tolist() and expected.unfilled.any()


def test_an_asset_that_has_a_bar_is_not_delisted():
    predictor, now = predictor_at(), bars_of(MARKET, START + 1)
    name = MARKET.assets[int(np.isfinite(now.close[0]).argmax())]
    with pytest.raises(ArgumentError, match=rf"delisted=\['{name}'\]: {name} has a bar"):
        predictor.advance(now, delisted=[name])
    assert predictor.market.n_bars == START + 1
