"""Baselines: weights on the simplex, any number of lanes, and what each is named for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import portfolio_env as pe
from baselines import BASELINES, make_baseline
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest

RULES = ["buy_and_hold", "cash", "equal_weight"]  # which read nothing but the observation
MARKET = pe.load_market("synthetic?assets=4&bars=80")


def observations(generator, lanes, assets=4):
    return {
        "t": np.full((lanes, 1), 50),
        "market": np.full((lanes, 1), MARKET.fingerprint),
        "tradable": generator.integers(0, 2, (lanes, assets), dtype=np.int8),
        "weights": generator.dirichlet(np.ones(assets + 1), lanes).astype(np.float32),
    }


def environment(**options):
    options = {"observation": "index", "window": 1, "action": "weights", "end": 60} | options
    return pe.PortfolioEnv(MARKET, **options)


@pytest.mark.parametrize("name", RULES)
@given(seed=st.integers(0, 2**16), lanes=st.integers(1, 6))
def test_weights_are_on_the_simplex_and_lanes_do_not_mix(name, seed, lanes):
    batch = observations(np.random.default_rng(seed), lanes)
    policy = make_baseline(name, MARKET)
    weights, state = policy.predict(batch, state="kept")
    assert state == "kept"
    assert weights.shape == (lanes, 5)
    assert (weights >= 0).all()
    assert weights.sum(axis=1) == pytest.approx(np.ones(lanes), abs=1e-6)
    for lane in range(lanes):
        alone, _ = policy.predict({key: entry[lane] for key, entry in batch.items()})
        assert alone.shape == (5,)
        assert (alone == weights[lane]).all()


def test_equal_weight_uses_what_can_be_traded():
    policy = make_baseline("equal_weight", MARKET)
    observation = {"tradable": np.array([1, 0, 1, 0]), "weights": np.array([1, 0, 0, 0, 0.0])}
    assert policy.predict(observation)[0].tolist() == [0, 0.5, 0, 0.5, 0]
    observation["tradable"][:] = 0
    assert policy.predict(observation)[0].tolist() == [1, 0, 0, 0, 0]


def test_equal_weight_holds_equal_weights():
    result = backtest(make_baseline("equal_weight", MARKET), environment())
    assert result.held == pytest.approx(np.tile([0, 0.25, 0.25, 0.25, 0.25], (len(result.held), 1)))


def test_buy_and_hold_trades_once():
    result = backtest(make_baseline("buy_and_hold", MARKET), environment())
    assert result.turnovers[0] == pytest.approx(0.999, abs=1e-3)
    assert (result.turnovers[1:] == 0).all()
    prices = MARKET.close[[MARKET.row(when) for when in result.timestamps]]
    expected = result.values[0] / 1.001 * (prices / prices[0]).mean(axis=1)
    assert result.values[1:] == pytest.approx(expected[1:], rel=1e-12)


def test_buy_and_hold_keeps_what_it_was_given():
    env = environment(initial=[0.5, 0.5, 0, 0, 0])
    result = backtest(make_baseline("buy_and_hold", MARKET), env)
    assert (result.turnovers == 0).all()


def test_cash_does_nothing():
    result = backtest(make_baseline("cash", MARKET), environment())
    assert (result.values == result.values[0]).all()
    assert (result.trades == 0).all()


@pytest.mark.parametrize("name", RULES)
def test_both_readable_observations_give_the_same_account(name):
    policy = make_baseline(name, MARKET)
    window, index = (
        backtest(policy, environment(observation=observation))
        for observation in ("window", "index")
    )
    assert (window.values == index.values).all()


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="did you mean equal_weight"):
        make_baseline("equal_wait", MARKET)
    with pytest.raises(ArgumentError, match='observation="index"'):
        make_baseline("cash", MARKET).predict(np.zeros(7))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("momentum", {"lookbak": 3}, r"'momentum', ...\) has no option 'lookbak'; .* 'lookback'"),
        ("eg", {"alpha_": 3}, "it has constraints, eta, every, start"),
        ("cash", {"every": 2}, "'cash', ...\\) has no option 'every'"),
    ],
)
def test_an_unknown_option_is_told_with_the_nearest(name, options, message):
    with pytest.raises(ArgumentError, match=message):
        make_baseline(name, MARKET, **options)


def test_a_baseline_introduces_itself():
    model = make_baseline("momentum", MARKET, lookback=20, every="month")
    assert repr(model).startswith("Momentum(every='month', lookback=20, ")
    assert repr(model).endswith("; 4 assets)")
    model.fit(MARKET.panel, (0, 60))
    days = " to ".join(str(MARKET.timestamps[row])[:10] for row in (0, 59))
    assert repr(model).endswith(f"; fitted on {days})")
    assert days in model._repr_html_()


def test_every_baseline_introduces_itself_in_a_line():
    for name in BASELINES:
        if name != "ensemble":  # of baselines that need longer markets
            text = repr(make_baseline(name, MARKET))
            assert text.startswith(f"{BASELINES[name].__name__}(") and "\n" not in text
            assert len(text) < 400
