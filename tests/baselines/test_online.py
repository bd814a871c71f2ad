"""Online portfolio selection: each update solves the problem it is derived from."""

import numpy as np
import pytest
from helpers.panels import panel_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import portfolio_env as pe
from baselines import BASELINES, make_baseline
from baselines.online import CWMRStdev, CWMRVar, OnlineModel
from baselines.online.base import relatives
from baselines.online.reversion import geometric_median, passive_aggressive
from baselines.online.simplex import onto_simplex
from portfolio_env.errors import ArgumentError

PANEL = panel_of("B", 120, assets=4, seed=7)
MARKET = pe.load_market(PANEL)
ONLINE = sorted(name for name, kind in BASELINES.items() if issubclass(kind, OnlineModel))


def market_of(moves):
    """A market of these (T, N) relatives, all starting at 1."""
    moves = np.asarray(moves, float)
    close = np.vstack([np.ones(moves.shape[1]), moves.cumprod(axis=0)])
    days = np.datetime64("2024-01-01") + np.arange(len(close))
    return pe.load_market(pe.PricePanel(days, tuple("ABCDEF"[: moves.shape[1]]), close))


def moves(seed, bars=40, assets=4, volatility=0.05):
    return np.exp(volatility * np.random.default_rng(seed).normal(size=(bars, assets)))


@pytest.mark.parametrize("name", ONLINE)
def test_the_recursion_starts_uniform_at_its_start_and_knows_nothing_before(name):
    first = market_of(moves(1))
    changed = market_of(np.vstack([moves(2)[:20], moves(1)[20:]]))
    models = [make_baseline(name, market, start=20) for market in (first, changed)]
    assert models[0].predict_weights(20).tolist() == [0] + 4 * [0.25]
    assert models[0].predict_weights(3).tolist() == [0] + 4 * [0.25]
    for row in (25, 40):
        ours, theirs = (model.predict_weights(row) for model in models)
        assert ours.to_numpy() == pytest.approx(theirs.to_numpy(), abs=1e-9)
        assert ours.max() > 0.2501


@pytest.mark.parametrize("name", ONLINE)
def test_targets_do_not_depend_on_the_order_they_are_asked_in(name):
    rows, backwards = [90, 5, 118, 44], make_baseline(name, MARKET)
    late = {row: backwards.predict_weights(row) for row in rows}
    for row in rows:
        assert (make_baseline(name, MARKET).predict_weights(row) == late[row]).all()


@pytest.mark.parametrize("name", ONLINE)
def test_bars_at_which_nothing_moves_ask_for_no_other_portfolio_by_mean_reversion(name):
    still = np.vstack([moves(3)[:12], np.ones((1, 4))])
    model = make_baseline(name, market_of(still))
    before, after = (model.predict_weights(row).to_numpy() for row in (12, 13))
    assert np.isfinite(after).all()
    if name in ("pamr", "cwmr_var", "cwmr_stdev"):
        assert after == pytest.approx(before, abs=1e-12)


def test_relatives_bridge_gaps_and_are_one_where_a_price_is_unknown():
    nan = np.nan
    close = np.array([[1, nan, 4], [2, nan, nan], [2, 5, 8], [nan, 10, 8]])
    assert np.array(list(relatives(close))).tolist() == [[2, 1, 1], [1, 1, 2], [1, 2, 1]]


@given(seed=st.integers(0, 2**16), loss=st.floats(1e-4, 1e-2))
def test_a_passive_aggressive_step_gains_the_loss_by_the_shortest_way(seed, loss):
    generator = np.random.default_rng(seed)
    b = generator.dirichlet(np.full(5, 50.0))  # far enough from the border
    direction = generator.normal(size=5)
    step = passive_aggressive(b, direction, loss) - b
    shortest = np.linalg.pinv(np.vstack([direction, np.ones(5)])) @ [loss, 0]
    if (b + shortest > 0).all():
        assert step == pytest.approx(shortest, abs=1e-12)
    assert (passive_aggressive(b, direction, -loss) == b).all()
    assert (passive_aggressive(b, np.full(5, 1.3), loss) == b).all()


@settings(max_examples=25)
@given(seed=st.integers(0, 2**16), variant=st.sampled_from([CWMRStdev, CWMRVar]))
def test_a_confident_step_meets_its_constraint(seed, variant):
    generator = np.random.default_rng(seed)
    mu, s = generator.dirichlet(np.ones(4)), generator.uniform(0.1, 1, 4) / 16
    x = np.exp(0.02 * generator.normal(size=4))
    phi, epsilon = 1.3, 0.9
    model = variant(market_of(moves(1)), phi=phi, epsilon=epsilon)
    centre = (s @ x) / s.sum()
    multiplier, precision = model.step(epsilon - mu @ x, s @ x**2, s @ (x - centre) ** 2)
    assert multiplier > 0
    # the constraint is derived for full covariances: what is added is the outer product
    mean = (mu - multiplier * s * (x - centre)) @ x
    variance = x @ np.linalg.inv(np.diag(1 / s) + precision * np.outer(x, x)) @ x
    spread = np.sqrt(variance) if variant is CWMRStdev else variance
    assert mean + phi * spread == pytest.approx(epsilon, rel=1e-9)


def test_confident_portfolios_rest_while_returns_are_low():
    falling = market_of(0.3 * moves(4))
    for name in ("cwmr_stdev", "cwmr_var", "pamr"):
        options = {"phi": 0.01} if name != "pamr" else {}
        target = make_baseline(name, falling, **options).predict_weights(20)
        assert target.tolist() == [0] + 4 * [0.25]


def test_newton_steps_are_mixed_with_the_uniform_portfolio():
    market = market_of(moves(5))
    uniform = make_baseline("ons", market, eta=1.0).predict_weights(30)
    assert uniform.tolist() == [0] + 4 * [0.25]


def test_newton_steps_solve_the_projection():
    market = market_of(moves(6, bars=15))
    model = make_baseline("ons", market)
    held = [model.predict_weights(row).to_numpy()[1:] for row in range(16)]
    x = np.array(list(relatives(market.close)))
    gradients = [x[k] / (held[k] @ x[k]) for k in range(15)]
    a = np.eye(4) + sum(np.outer(g, g) for g in gradients)
    q = np.linalg.solve(a, 2 * sum(gradients)) / 8
    found = minimize(
        lambda w: (w - q) @ a @ (w - q),
        np.full(4, 0.25),
        bounds=4 * [(0, 1)],
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14},
    )
    assert held[15] == pytest.approx(found.x, abs=1e-5)


def test_exponentiated_gradients_without_a_rate_are_uniform():
    target = make_baseline("eg", market_of(moves(7)), eta=0).predict_weights(30)
    assert target.to_numpy() == pytest.approx(np.array([0] + 4 * [0.25]), abs=1e-15)


@pytest.mark.parametrize("name", ["olmar1", "olmar2", "rmr"])
def test_reversion_buys_what_fell_below_its_average(name):
    calm = np.ones((12, 3))
    calm[::2, 1:] = 1.001
    calm[1::2, 1:] = 1 / 1.001
    calm[11, 2] = 0.9
    assert make_baseline(name, market_of(calm)).predict_weights(12).to_numpy()[3] > 0.99


@settings(max_examples=40)
@given(seed=st.integers(0, 2**16))
def test_geometric_medians_have_the_least_sum_of_distances(seed):
    points = np.random.default_rng(seed).normal(size=(5, 3))

    def distances(y):
        return np.linalg.norm(points - y, axis=1).sum()

    median = geometric_median(points, np.median(points, axis=0))
    best = minimize(distances, points.mean(axis=0), method="Nelder-Mead", options={"xatol": 1e-9})
    # steps become small where the median is almost one of the points, and there are 200 at most
    assert distances(median) <= best.fun * (1 + 1e-4)


def test_the_geometric_median_may_be_one_of_the_points():
    points = np.array([[0.0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    for start in (points[0], points[1], np.array([0.3, 0.2])):
        assert geometric_median(points, start) == pytest.approx(np.zeros(2), abs=1e-6)
    assert (geometric_median(np.ones((5, 2)), np.ones(2)) == 1).all()


def test_targets_share_out_what_cannot_be_traded():
    volume = np.full((41, 4), 1.0)
    volume[30, 2] = 0
    moved = market_of(moves(8))
    silent = pe.load_market(
        pe.PricePanel(moved.timestamps, moved.assets, moved.close, volume=volume)
    )
    whole, without = (
        np.array(make_baseline("eg", each).predict_weights(30)) for each in (moved, silent)
    )
    whole[3] = 0
    assert without == pytest.approx(whole / whole.sum(), abs=1e-15)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("eg", {"eta": -1}, r"eta=-1 must be a finite number of 0 or more"),
        ("eg", {"start": 120}, "give an earlier bar"),
        ("ons", {"eta": 1.5}, r"eta=1.5 must be a finite number in \[0, 1\]"),
        ("ons", {"delta": float("nan")}, "delta=nan"),
        ("olmar1", {"window": 1}, "window=1 must be an integer of 2 or more"),
        ("pamr", {"epsilon": "high"}, "epsilon='high'"),
        ("cwmr_var", {"phi": float("inf")}, "phi=inf"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(ArgumentError, match=message):
        make_baseline(name, MARKET, **options)


def test_projection_is_the_nearest_point():
    assert onto_simplex(np.array([0.7, 0.5, -3.0])) == pytest.approx(np.array([0.6, 0.4, 0]))
