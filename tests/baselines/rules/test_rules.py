"""Constant proportions, momentum, inverse volatility and random weights."""

import numpy as np
import pandas as pd
import pytest

import portfolio_env as pe
from baselines import make_baseline
from portfolio_env.errors import ArgumentError

DAYS = pd.date_range("2024-01-01", periods=40, freq="D")


def market_of(close):
    return pe.load_market(pd.DataFrame(close, DAYS[: len(close)], list("ABCDEF")[: close.shape[1]]))


def walks(seed=0, bars=40, assets=4, volatility=(0.01, 0.02, 0.03, 0.04)):
    steps = np.random.default_rng(seed).normal(size=(bars, assets)) * volatility[:assets]
    return np.exp(steps.cumsum(axis=0))


def test_momentum_holds_the_top_share_of_what_rose():
    close = np.array([1.02, 0.99, 1.05, 1.01, 1.03, 0.98]) ** np.arange(30)[:, None]
    for top, held in ((1 / 3, "CE"), (0.5, "CEA"), (0.1, "C"), (1.0, "ABCDEF")):
        target = make_baseline("momentum", market_of(close), lookback=10, top=top).predict_weights(
            20
        )
        assert target[list(held)].tolist() == pytest.approx([1 / len(held)] * len(held))
        assert target.sum() == pytest.approx(1)


def test_momentum_looks_back_so_far_and_no_further():
    close = walks()
    other = close.copy()
    other[:9] *= np.random.default_rng(1).uniform(0.1, 10, (9, 4))
    options = {"lookback": 10, "top": 0.5}
    ours, theirs = (make_baseline("momentum", market_of(c), **options) for c in (close, other))
    rows = range(19, 40)
    assert all((ours.predict_weights(t) == theirs.predict_weights(t)).all() for t in rows)
    assert (ours.predict_weights(9)["cash"], ours.predict_weights(10)["cash"]) == (1, 0)


def test_inverse_volatilities():
    close = walks()
    target = make_baseline("inverse_volatility", market_of(close), lookback=20).predict_weights(30)
    deviations = pd.DataFrame(close).transform(np.log).diff().rolling(20).std().iloc[30]
    expected = (1 / deviations) / (1 / deviations).sum()
    assert target.to_numpy()[1:] == pytest.approx(expected.to_numpy(), rel=1e-12)
    assert make_baseline("inverse_volatility", market_of(close)).predict_weights(39)["cash"] == 1


def test_prices_that_never_move_are_not_free_of_risk():
    close = walks()
    close[:, 1] = 7.0
    model = make_baseline("inverse_volatility", market_of(close), lookback=20)
    assert model.predict_weights(30)["B"] == 0
    still = make_baseline("inverse_volatility", market_of(np.ones((40, 3))), lookback=20)
    assert still.predict_weights(30)["cash"] == 1


@pytest.mark.parametrize(("name", "bars"), [("momentum", 11), ("inverse_volatility", 11)])
def test_assets_listed_within_the_look_back_are_left_out_and_a_lost_close_is_not(name, bars):
    close = walks()
    close[:15, 0], close[22, 1] = np.nan, np.nan
    options = {"lookback": 10} | ({"top": 1.0} if name == "momentum" else {})
    model = make_baseline(name, market_of(close), **options)
    for row in range(bars - 1, 40):
        target = model.predict_weights(row)
        assert (target["A"] > 0) == (row >= 15 + 10)
        assert (target["B"] > 0) == (row != 22)
        assert target["C"] > 0 and target["D"] > 0


def test_random_weights_depend_on_seed_and_row_alone():
    market, other = market_of(walks(1)), market_of(walks(2))
    drawn = [make_baseline("random", market, seed=seed).predict_weights(9) for seed in (0, 0, 1)]
    assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).sum() == 4
    assert (make_baseline("random", other).predict_weights(9) == drawn[0]).all()
    rows = [make_baseline("random", market).predict_weights(t).to_numpy() for t in range(40)]
    assert len(np.unique(np.array(rows)[:, 1])) == 40


def test_random_weights_are_uniform_on_the_simplex():
    market = pe.load_market("synthetic?assets=3&bars=2000")
    model = make_baseline("random", market)
    drawn = np.array([model.predict_weights(t) for t in range(2000)])[:, 1:]
    # moments of Dirichlet(1, 1, 1): 1/3 and 1/18; four standard errors
    assert drawn.mean(axis=0) == pytest.approx(np.full(3, 1 / 3), abs=4 * np.sqrt(1 / 18 / 2000))
    assert drawn.var(axis=0) == pytest.approx(np.full(3, 1 / 18), rel=0.12)


def test_proportions_are_restored_and_shared_out():
    close = walks()
    close[20:25, 2] = np.nan
    mix = {"cash": 0.2, "A": 0.1, "C": 0.4, "D": 0.3}
    model = make_baseline("constant_rebalanced", market_of(close), proportions=mix)
    assert model.predict_weights(10).tolist() == pytest.approx([0.2, 0.1, 0, 0.4, 0.3])
    assert model.predict_weights(22).tolist() == pytest.approx([0.2, 0.2, 0, 0, 0.6])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("momentum", {"lookback": 0}, "lookback=0 must be an integer of 1 or more"),
        ("momentum", {"top": 0}, r"top=0 must be a finite number in \(0, 1\]"),
        ("inverse_volatility", {"lookback": 1}, "integer of 2 or more"),
        ("random", {"seed": -1}, "seed=-1"),
        ("constant_rebalanced", {"proportions": {"A": 0.5}}, "sum to 0.5"),
        ("constant_rebalanced", {"proportions": {"A": 1.5, "B": -0.5}}, "0 or more"),
        ("constant_rebalanced", {"proportions": {"Z": 1.0}}, "unknown slot 'Z'"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(ArgumentError, match=message):
        make_baseline(name, market_of(walks()), **options)
