"""A planted look-ahead is caught, honest strategies are not, and capacity is what it says."""

import numpy as np
import pytest
from helpers.panels import panel_of

import portfolio_env as pe
from baselines import make_baseline
from portfolio_env.data.generators.planted import PlantedMarket
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation import backtest
from portfolio_env.evaluation.backtest import realised_returns
from portfolio_env.evaluation.diagnostics.plausibility import (
    Bounds,
    capacity,
    foresight,
    largest_participation,
    plausibility_check,
    plausibility_sentences,
    timing,
)

MARKET = pe.load_market("synthetic?bars=500&assets=4&ragged=true")
NEXT = np.vstack([MARKET.close[1:] / MARKET.close[:-1] - 1, np.zeros(4)])


class Peeking:
    """Weights from a mixture of noise and of what comes next."""

    action = "weights"

    def __init__(self, leak, returns=NEXT, seed=0):
        noise = np.random.default_rng(seed).normal(0, 1, returns.shape)
        self.scores = leak * np.nan_to_num(returns) / 0.015 + (1 - leak) * noise

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        scores = self.scores[observation["t"][:, 0]]
        weights = np.exp(3 * scores) * observation["tradable"]
        weights = np.hstack([np.zeros((len(weights), 1)), weights])
        return weights / weights.sum(axis=1, keepdims=True), state


class Timer(Peeking):
    """Equal weight before bars on which the market rises, else cash."""

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        tradable = observation["tradable"]
        rises = (self.scores[observation["t"][:, 0]] * tradable).sum(axis=1, keepdims=True) > 0
        weights = rises * tradable / tradable.sum(axis=1, keepdims=True)
        return np.hstack([1 - weights.sum(axis=1, keepdims=True), weights]), state


def run(policy, market=MARKET, **options):
    options = {"observation": "index", "action": "weights", "window": 1, "start": 250} | options
    return backtest(policy, pe.PortfolioEnv(market, **options))


@pytest.mark.parametrize(
    ("kind", "leak", "at_least"),
    [
        (Peeking, 1.0, {"sharpe", "timing", "foresight"}),
        (Peeking, 0.5, {"sharpe", "timing"}),
        (Timer, 1.0, {"sharpe", "timing"}),
        (Timer, 0.5, {"sharpe", "timing"}),
    ],
)
def test_a_planted_look_ahead_is_caught(kind, leak, at_least):
    found = plausibility_check(run(kind(leak)), MARKET)
    assert at_least <= set(found.suspicious)
    (first, *_) = plausibility_sentences({"peeking": found})
    assert first.startswith("peeking: sharpe is")


@pytest.mark.parametrize("name", ["equal_weight", "buy_and_hold", "momentum", "random", "cash"])
def test_honest_strategies_pass(name):
    found = plausibility_check(run(make_baseline(name, MARKET)), MARKET)
    assert not found.suspicious, found.table
    assert plausibility_sentences({name: found}) == []


def test_noise_is_not_taken_for_foresight():
    failed = [
        plausibility_check(run(Peeking(0.0, seed=seed)), MARKET).suspicious for seed in range(8)
    ]
    assert not any(failed)


def test_skill_is_not_taken_for_foresight():
    """The best policy on the strongest planted signal of the tests knows no future."""
    planted = PlantedMarket.draw(seed=0, bars=800, strength="medium")
    signal = np.where(planted.signal > 0, 1.0, -1.0) * 0.2
    result = run(Peeking(1.0, returns=0.015 * signal), planted.market)
    assert result.metrics()["sharpe"] > 0.5
    assert not {"timing", "foresight"} & set(plausibility_check(result, planted.market).suspicious)


def test_perfect_foresight_is_all_of_it():
    sharp = Peeking(1.0)
    sharp.predict = lambda observation, *_, **__: (best_of(observation), None)
    share, _ = foresight(run(sharp), MARKET.panel)
    assert share == pytest.approx(1)
    share, _ = foresight(run(make_baseline("cash", MARKET)), MARKET.panel)
    mean = realised_returns(run(make_baseline("cash", MARKET)), MARKET.panel).mean(axis=1)
    assert np.sign(share) == -np.sign(mean.sum())


def best_of(observation):
    returns = np.c_[[0.0], np.nan_to_num(NEXT)[observation["t"][:, 0]]]
    return np.eye(5)[[returns[0].argmax()]]


def test_the_error_of_the_timing_is_right():
    """Under one common factor steps are independent and assets are not; over many draws."""
    from portfolio_env.evaluation.diagnostics.plausibility import _clustered_correlation

    rng = np.random.default_rng(0)
    scores = []
    for _ in range(300):
        x, y = (rng.normal(size=(100, 1)) + 0.3 * rng.normal(size=(100, 8)) for _ in range(2))
        found, error = _clustered_correlation(x, y)
        scores.append(found / error)
        assert found == pytest.approx(np.corrcoef(x.ravel(), y.ravel())[0, 1])
    assert np.std(scores) == pytest.approx(1, abs=0.15)


def test_timing_tells_before_from_after():
    """Yesterday's winners bought: a correlation with what was, none with what comes."""
    behind = Peeking(1.0, returns=np.vstack([np.zeros(4), NEXT[:-1]]))
    after, error, before = timing(run(behind), MARKET.panel)
    assert before > 0.4 and abs(after) < 3 * error
    assert "timing" not in plausibility_check(run(behind), MARKET).suspicious
    assert np.isnan(timing(run(make_baseline("buy_and_hold", MARKET)), MARKET.panel)[0])


@pytest.mark.parametrize("execution", ["close", "next_open"])
def test_participation_by_hand(execution):
    result = run(Peeking(0.0), execution=execution, initial_value=1e7)
    found = largest_participation(result, MARKET.panel, execution)
    money = MARKET.close * MARKET.volume
    shares = [
        abs(result.trades[k, i + 1]) / money[250 + k + (execution == "next_open"), i]
        for k in range(len(result.costs))
        for i in range(4)
        if result.trades[k, i + 1] != 0
    ]
    assert found == pytest.approx(max(shares))
    check = plausibility_check(
        result, MARKET, execution=execution, bounds=Bounds(participation=0.01)
    )
    assert ("participation" in check.suspicious) == (found > 0.01)


def test_assets_that_are_not_there_are_no_share_of_anything():
    """Without a warning of 0 / 0 for what has neither trades nor volume."""
    market = pe.load_market(panel_of("B", 200, assets=5, seed=3))
    result = run(make_baseline("equal_weight", market), market, start=20)
    assert (np.isnan(market.close[20:-1]) & (result.trades[:, 1:] == 0)).any()
    assert 0 < largest_participation(result, market.panel) < np.inf


def test_capacity_is_where_the_edge_is_gone():
    """Backtests with impact at that capital grow as cash does, and at a quarter half as much."""
    whole = pe.load_market("synthetic?bars=300&assets=3&seed=2")
    returns = np.vstack([whole.close[1:] / whole.close[:-1] - 1, np.zeros(3)])
    policy = Peeking(0.25, returns=returns)
    options = {"start": 200, "end": 260}
    free = {"commission_bps": 1}
    result = run(policy, whole, costs=free, **options)
    found = capacity(result, whole.panel, pe.TransactionCosts(**free))
    growth = [
        run(policy, whole, costs=free | {"impact": 1}, initial_value=money, **options)
        .metrics()["annual_log_growth"]
        for money in (1e-6 * found, found / 4, found)
    ]  # fmt: skip
    assert growth[0] > 1
    assert growth[1] == pytest.approx(growth[0] / 2, rel=0.1)
    assert abs(growth[2]) < 0.1 * growth[0]
    # what was paid already is found again, at any capital
    paid = run(policy, whole, costs=free | {"impact": 1}, initial_value=found / 9, **options)
    again = capacity(paid, whole.panel, pe.TransactionCosts(**free, impact=1))
    assert again == pytest.approx(found, rel=0.1)
    assert "capacity" in plausibility_check(result, whole, capital=2 * found).suspicious
    assert "capacity" not in plausibility_check(result, whole, capital=found / 2).suspicious


def test_capacity_without_edge_or_trades():
    cash = run(make_baseline("cash", MARKET), costs={"cash_rate_annual": 0.05})
    assert capacity(cash, MARKET.panel) == np.inf
    held = run(make_baseline("equal_weight", MARKET))
    assert capacity(held, MARKET.panel, benchmark=held) == 0


def test_markets_without_volumes_and_other_markets():
    planted = PlantedMarket.draw(seed=1, bars=400).market
    result = run(make_baseline("equal_weight", planted), planted)
    table = plausibility_check(result, planted).table
    assert table.loc[["participation", "capacity"], "value"].isna().all()
    with pytest.raises(DataError, match="no volumes"):
        largest_participation(result, planted.panel)
    with pytest.raises(ArgumentError, match="not those of the backtest"):
        plausibility_check(result, MARKET.past(300))
    short = run(make_baseline("cash", MARKET), end=400)
    with pytest.raises(ArgumentError, match="different dates"):
        capacity(run(make_baseline("cash", MARKET)), MARKET.panel, benchmark=short)


def test_realised_returns_are_those_of_the_account():
    result = run(Peeking(0.0), costs={"commission_bps": 0})
    returns = realised_returns(result, MARKET.panel)
    gross = (result.held[:, 1:] * returns).sum(axis=1)
    np.testing.assert_allclose(gross, result.returns, atol=1e-12)
