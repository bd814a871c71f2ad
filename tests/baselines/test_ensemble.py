"""Ensembles: members decide as they would alone, and shares are fitted to validation growth."""

import json
import pickle
from itertools import product

import numpy as np
import pandas as pd
import pytest
from gymnasium import spaces
from helpers.bare_markets import market_of

import portfolio_env as pe
from agents import make_agent, make_sb3_vec_env
from baselines import make_baseline
from baselines.ensemble import Ensemble, within_reach
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest

MARKET = pe.load_market("synthetic?assets=4&bars=160&seed=2")
RAGGED = pe.load_market("synthetic?assets=5&bars=300&seed=6&ragged=true")  # listed late, delisted
FREE = {"commission_bps": 0}


def environment(market=MARKET, kind=pe.PortfolioEnv, **options):
    options = {"start": 30, "end": 150, "window": 1, "costs": FREE} | options
    return kind(market=market, observation="index", action="weights", **options)


def monthly(market=MARKET):
    """Members that trade on different dates."""
    return {
        "momentum": make_baseline("momentum", market, lookback=15, every="month"),
        "volatility": make_baseline("inverse_volatility", market, lookback=20, every=7),
        "hold": make_baseline("buy_and_hold", market),
    }


@pytest.mark.parametrize("market", [MARKET, RAGGED])
@pytest.mark.parametrize("shares", [None, {"hold": 0.2, "momentum": 0.7, "volatility": 0.1}])
def test_the_mixture_is_of_what_the_members_would_hold_alone(market, shares):
    members = monthly(market)
    span = {"market": market, "end": market.n_bars}
    whole = backtest(Ensemble(market, members=members, shares=shares), environment(**span))
    alone = {name: backtest(policy, environment(**span)) for name, policy in members.items()}
    given = shares or dict.fromkeys(members, 1 / 3)
    expected = sum(given[name] * alone[name].held for name in members)
    traded = np.any([result.turnovers > 1e-6 for result in alone.values()], axis=0)
    assert 10 < traded.sum() < 80
    assert whole.held[traded] == pytest.approx(expected[traded], abs=2e-6)
    assert (whole.turnovers[~traded] == 0).all()


def test_lanes_that_begin_anew_forget():
    members = monthly()
    ensemble = Ensemble(MARKET, members=members)
    rng = np.random.default_rng(0)

    def observed(rows):
        weights = rng.dirichlet(np.ones(5), len(rows)).astype(np.float32)
        tradable = MARKET.tradable[rows].astype(np.int8)
        t, market = np.array(rows)[:, None], np.full((len(rows), 1), MARKET.fingerprint)
        return {"t": t, "market": market, "tradable": tradable, "weights": weights}

    _, state = ensemble.predict(observed([41, 62, 80]))
    second = observed([42, 63, 30])
    weights, _ = ensemble.predict(second, state, np.array([False, True, False]))
    fresh, _ = ensemble.predict(second)
    assert (weights[1:] == fresh[1:]).all()  # told to, and gone back in time
    assert (weights[0] != fresh[0]).any()


def test_both_environments_agree():
    single = backtest(Ensemble(MARKET, members=monthly()), environment())
    lanes = environment(kind=pe.PortfolioVectorEnv, num_envs=3, autoreset_mode="Disabled")
    for lane in backtest(Ensemble(MARKET, members=monthly()), lanes):
        assert (lane.values == single.values).all()


def test_bounds_that_all_members_keep_hold_for_the_mixture():
    constraints = pe.PortfolioConstraints(max_weight=0.3, min_cash=0.05)
    members = {
        name: make_baseline(name, MARKET, constraints=constraints, every=1)
        for name in ("random", "momentum", "inverse_volatility")
    }
    held = backtest(Ensemble(MARKET, members=members), environment()).held
    assert held[:, 1:].max() <= 0.3 + 1e-6
    assert held[:, 0].min() >= 0.05 - 1e-6


class Scores:
    """A policy of logits."""

    def __init__(self, scores, declared):
        self.scores = np.array(scores, np.float32)
        if declared:
            self.action = "logits"
        else:
            self.action_space = spaces.Box(-1, 1, self.scores.shape)

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        return np.tile(self.scores, (len(observation["weights"]), 1)), state


@pytest.mark.parametrize("declared", [True, False])
def test_logits_are_weighed_as_the_environment_does(declared):
    policy, span = Scores([0.1, -0.5, 3.0, 0.4, 0.2, 0.0], declared), {"start": 30, "end": 300}
    mixed = backtest(Ensemble(RAGGED, members={"scores": policy}), environment(RAGGED, **span))
    logits = pe.PortfolioEnv(
        RAGGED, observation="index", action="logits", window=1, costs=FREE, **span
    )
    assert mixed.values == pytest.approx(backtest(policy, logits).values, rel=1e-5)


@pytest.mark.parametrize("pace", [1.0, 0.1])
def test_agents_are_members(pace):
    venv = make_sb3_vec_env(
        MARKET, num_envs=4, observation="index", window=1, random_start=True, episode_length=20
    )
    agent = make_agent("ppo", venv, seed=0)
    logits = pe.PortfolioEnv(
        MARKET,
        observation="index",
        action="logits",
        adjustment=pace,
        window=1,
        start=30,
        end=150,
        costs=FREE,
    )
    alone = backtest(agent, logits)
    one = Ensemble(MARKET, members={"ppo": agent}, paces={"ppo": pace})
    mixed = backtest(one, environment())
    assert mixed.values == pytest.approx(alone.values, rel=1e-5)
    both = Ensemble(MARKET, members={"ppo": agent, "momentum": make_baseline("momentum", MARKET)})
    held = backtest(both, environment()).held
    assert held.sum(axis=1) == pytest.approx(np.ones(len(held)), abs=1e-9)


def test_fitted_shares_grow_most():
    members = {
        name: make_baseline("constant_rebalanced", MARKET, proportions={asset: 0.5, "cash": 0.5})
        for name, asset in zip("abc", MARKET.assets, strict=False)
    }
    ensemble = Ensemble(MARKET, members=members).fit_shares((30, 120), costs=FREE)
    growths = np.column_stack(
        [np.exp(backtest(policy, environment(end=120)).log_returns) for policy in members.values()]
    )
    best = np.log(growths @ [*ensemble.shares.values()]).mean()
    grid = [
        np.array([a, b, 20 - a - b]) / 20 for a, b in product(range(21), repeat=2) if a + b <= 20
    ]
    others = [np.log(growths @ shares).mean() for shares in grid]
    assert best >= max(others) - 1e-9
    assert sum(ensemble.shares.values()) == pytest.approx(1, abs=1e-12)
    # costs count: a member that trades much is given less
    churn = {"churn": make_baseline("random", MARKET), "calm": members["a"]}
    dear = Ensemble(MARKET, members=churn).fit_shares((30, 120), costs={"commission_bps": 300})
    assert dear.shares["calm"] == pytest.approx(1, abs=1e-9)
    info = json.loads(json.dumps(dear.model_info()))
    assert info["fitted_on"] == [str(MARKET.timestamps[row]) for row in (30, 119)]
    assert info["members"]["calm"]["name"] == "ConstantRebalanced"


def test_fitting_sees_its_range_only():
    members = ("momentum", "inverse_volatility")
    other = MARKET.subset(slice(0, 121))
    pair = [Ensemble(m, members=members).fit_shares((30, 120)).shares for m in (MARKET, other)]
    assert pair[0] == pair[1]


def test_later_bars_change_nothing():
    close = np.array(MARKET.close)
    close[81:] *= np.random.default_rng(1).uniform(0.5, 2, close[81:].shape)
    ours, theirs = (
        pe.load_market(pd.DataFrame(values, MARKET.timestamps, list(MARKET.assets)))
        for values in (MARKET.close, close)
    )
    held = [
        backtest(Ensemble(m, members=monthly(m)), environment(m, end=100)).held[:51]
        for m in (ours, theirs)
    ]
    assert (held[0] == held[1]).all()


def test_ensembles_are_pickled_and_bad_ones_refused():
    ensemble = Ensemble(
        MARKET, members=("momentum", "cash"), shares={"cash": 0.25, "momentum": 0.75}
    )
    twin = pickle.loads(pickle.dumps(ensemble))
    assert (backtest(twin, environment()).values == backtest(ensemble, environment()).values).all()
    assert ensemble.model_info()["members"]["cash"] == "Cash"
    for options, message in (
        ({"members": ()}, "name one policy"),
        ({"members": ("cash",), "shares": {"cash": 0.9}}, "1 together"),
        ({"members": ("cash",), "shares": {"cush": 1.0}}, "each of cash"),
        ({"members": ("cash", "random"), "shares": {"cash": 1.5, "random": -0.5}}, "0 or more"),
        ({"members": ("cush",)}, "did you mean cash"),
        ({"members": ("cash",), "logits_scale": 0.0}, "logits_scale"),
        ({"members": ("cash",), "paces": {"cash": 0.0}}, "the pace of cash=0.0"),
        ({"members": ("cash",), "paces": {"cush": 0.5}}, "did you mean cash"),
    ):
        with pytest.raises(ArgumentError, match=message):
            Ensemble(MARKET, **options)
    batch = {"tradable": np.ones((1, 4)), "weights": np.eye(1, 5)}
    with pytest.raises(ArgumentError, match="which bar it is"):
        ensemble.predict(batch)
    with pytest.raises(ArgumentError, match="without universe="):
        ensemble.predict(batch | {"t": np.array([[3]]), "assets": np.arange(4)[None]})


def test_a_member_with_a_pace_is_carried_on_to_its_target():
    held = Ensemble(MARKET, members=("buy_and_hold",), paces={"buy_and_hold": 0.2})
    result = backtest(held, environment(costs={"commission_bps": 0}))
    assert result.held[:4, 0] == pytest.approx(0.8 ** np.arange(1, 5), abs=0.02)
    assert result.held[65:, 0].max() < 1e-5
    assert (result.turnovers[65:] == 0).all()


def test_what_is_halted_does_not_rescale_short_positions():
    """As in an account that borrows: other assets are as asked, and cash makes up for the rest."""
    asked, own = np.array([[0.6, 0.9, -0.7, 0.2]]), np.array([[0.4, 0.5, -0.3, 0.4]])
    halted = np.array([[False, False, True]])
    held = within_reach(asked, own, halted, borrows=True)
    assert held == pytest.approx(np.array([[0.4, 0.9, -0.7, 0.4]]))
    assert (within_reach(asked, own, ~halted & halted, borrows=True) == asked).all()
    market = market_of(np.array([[100.0, 50.0, 20.0]] * 3 + [[101.0, 50.0, np.nan]] * 2))
    limits = pe.PortfolioConstraints(long_only=False, max_leverage=2.0)
    fixed = make_baseline(
        "constant_rebalanced",
        market,
        constraints=limits,
        proportions=dict(zip(market.assets, [0.9, -0.7, 0.2], strict=True)) | {"cash": 0.6},
    )
    options = {"constraints": limits, "window": 1, "observation": "index", "action": "weights"}
    alone, mixed = (
        backtest(policy, pe.PortfolioEnv(market, costs={"commission_bps": 0}, **options))
        for policy in (fixed, Ensemble(market, members={"one": fixed}, constraints=limits))
    )
    assert mixed.held == pytest.approx(alone.held, abs=1e-6)
