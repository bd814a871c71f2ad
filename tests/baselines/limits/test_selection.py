"""A model's constraints act within what it selected, and leave the rest to cash."""

import numpy as np
import pytest
from helpers.bare_markets import random_market
from hypothesis import assume, given
from hypothesis import strategies as st

from baselines import make_baseline
from baselines.ensemble import Ensemble
from baselines.selection import within_selection
from portfolio_env import PortfolioConstraints, PortfolioEnv
from portfolio_env.evaluation import backtest

MARKET = random_market(5, 200, 33)


def rejected(weights, market=MARKET):
    """What is held of assets that momentum without constraints does not hold."""
    wanted = make_baseline("momentum", market).predict_weights(150).to_numpy()
    return weights[1:][wanted[1:] == 0].sum()


@pytest.mark.parametrize("cap", [0.01, 0.05, 0.08, 0.2])
def test_a_cap_buys_nothing_that_the_signal_rejected(cap):
    constraints = PortfolioConstraints(max_weight=cap)
    held = make_baseline("momentum", MARKET, constraints=constraints).predict_weights(150)
    assert rejected(held.to_numpy()) == 0
    assert held["cash"] == pytest.approx(1 - 11 * min(cap, 1 / 11))
    assert held.to_numpy()[1:].max() <= cap + 1e-12


def test_a_cap_holds_in_the_account_too():
    constraints = PortfolioConstraints(max_weight=0.05)
    model = make_baseline("momentum", MARKET, constraints=constraints, every=1000)
    env = PortfolioEnv(
        MARKET,
        window=1,
        observation="index",
        action="weights",
        start=150,
        constraints=constraints,
    )
    assert rejected(backtest(model, env).held[0]) == 0


def test_the_members_of_an_ensemble_stay_within_their_selection():
    constraints = PortfolioConstraints(max_weight=0.05)
    mixture = Ensemble(MARKET, members=("momentum",), constraints=constraints)
    batch = {
        "t": np.array([[150]]),
        "market": np.array([[MARKET.fingerprint]]),
        "tradable": np.ones((1, 33), np.int8),
        "weights": np.eye(34, dtype=np.float32)[[0]],
    }
    assert rejected(mixture.predict(batch)[0][0]) == 0


def test_what_cash_may_not_hold_is_spread_over_the_others():
    constraints = PortfolioConstraints(max_weight=0.05, max_cash=0.1)
    held = make_baseline("momentum", MARKET, constraints=constraints).predict_weights(150)
    others = np.sort(held.to_numpy()[1:])[:22]
    assert held["cash"] == pytest.approx(0.1)
    assert others == pytest.approx(np.full(22, (0.9 - 11 * 0.05) / 22))


def test_weights_are_moved_in_proportion():
    target, nothing = np.array([0.1, 0.5, 0.2, 0.1, 0.1, 0.0]), np.zeros(5, np.bool_)
    held = within_selection(PortfolioConstraints(max_weight=0.3), target, nothing)
    assert held == pytest.approx([0.1, 0.3, 0.3, 0.15, 0.15, 0])
    held = within_selection(PortfolioConstraints(min_cash=0.55), target, nothing)
    assert held == pytest.approx([0.55, 0.25, 0.1, 0.05, 0.05, 0])
    held = within_selection(PortfolioConstraints(max_cash=0.0, top_k=2), target, nothing)
    assert held == pytest.approx([0, 5 / 7, 2 / 7, 0, 0, 0])
    held = within_selection(PortfolioConstraints(min_weight=0.05, max_cash=0.0), target, nothing)
    assert held[5] == 0.05 and held[1:5] / held[4] == pytest.approx([5, 2, 1, 1])


@given(
    sizes=st.lists(st.sampled_from([0.0, 0.0, 0.1, 0.3, 0.5, 1.0]), min_size=6, max_size=6),
    cash=st.sampled_from([0.0, 0.2]),
    stuck=st.lists(st.booleans(), min_size=6, max_size=6),
    limits=st.fixed_dictionaries(
        {},
        optional={
            "max_weight": st.floats(0.1, 1),
            "min_cash": st.floats(0, 0.5),
            "max_cash": st.floats(0.5, 1),
            "top_k": st.integers(2, 6),
        },
    ),
)
def test_constraints_hold_and_nothing_else_is_bought(sizes, cash, stuck, limits):
    sizes = np.where(stuck, 0.0, sizes)
    target = np.r_[1.0, np.zeros(6)]
    if sizes.sum() > 0:
        target = np.r_[cash, (1 - cash) * sizes / sizes.sum()]
    selected = int((sizes > 0).sum())
    cap, most = limits.get("max_weight", 1.0), limits.get("max_cash", 1.0)
    places = min(selected, limits.get("top_k", 6))
    assume(limits.get("top_k", 6) * cap + most >= 1)  # else the constraints are refused
    constraints = PortfolioConstraints(**limits)
    held = within_selection(constraints, target, np.array(stuck))
    assert held.sum() == pytest.approx(1, abs=1e-12)
    assert (held[1:][np.array(stuck)] == 0).all()
    if places * cap + most >= 1 + 1e-9:  # what was selected and cash can hold everything
        assert (held >= 0).all() and held[1:].max() <= cap + 1e-12
        assert limits.get("min_cash", 0.0) - 1e-12 <= held[0] <= most + 1e-12
        assert (held[1:][sizes == 0] == 0).all()
        assert (held > 0)[1:].sum() <= places
        order = np.argsort(sizes)
        kept = held[1:][order][held[1:][order] > 0]
        assert (np.diff(kept) >= -1e-12).all()
        if places * cap >= 1 - max(target[0], limits.get("min_cash", 0.0)) + 1e-9:
            wanted = min(max(target[0], limits.get("min_cash", 0.0)), most)
            assert held[0] == pytest.approx(wanted, abs=1e-9)  # no more cash than was asked for


@given(
    seed=st.integers(0, 999),
    cap=st.floats(0.1, 1),
    leverage=st.floats(0.5, 3),
)
def test_short_positions_stay_short_and_long_ones_long(seed, cap, leverage):
    generator = np.random.default_rng(seed)
    own = generator.choice([-0.5, 0, 0.5], 7) * generator.random(7)
    target = np.r_[1 - own.sum(), own]
    constraints = PortfolioConstraints(long_only=False, max_weight=cap, max_leverage=leverage)
    held = within_selection(constraints, target, np.zeros(7, np.bool_))
    assert (held[1:] * own >= 0).all() and (held[1:][own == 0] == 0).all()
    assert abs(held[1:]).max() <= cap + 1e-9 and abs(held[1:]).sum() <= leverage + 1e-9
    assert held.sum() == pytest.approx(1, abs=1e-12)
