"""Baselines under bounds of groups: within their selection, and solved for where that is convex."""

import numpy as np
import pytest
from scipy.optimize import minimize

from baselines import make_baseline
from baselines.optimisers.skfolio_adapter import covariance
from baselines.selection import within_selection
from portfolio_env import PortfolioConstraints, load_market

SOURCE, ROW = "synthetic?seed=4&bars=700&assets=8", 690
SECTORS = ("Tech",) * 4 + ("Oil",) * 2 + ("",) * 2
TECH, OIL = (np.array(SECTORS) == label for label in ("Tech", "Oil"))
BOUNDS = (
    {"Tech": (0.0, 0.2), "Oil": (0.3, 0.4)},
    {"Tech": (0.7, 0.8)},
    {"Tech": (0.5, 0.5), "Oil": (0.0, 0.1)},
    {"Tech": (0.0, 0.0)},
)
MODELS = (
    *("momentum", "mean_variance", "min_variance", "risk_parity"),
    *("hrp", "herc", "nested_clusters", "olmar1"),
)


@pytest.fixture(scope="module")
def market():
    """Eight assets, the last two in no sector."""
    pairs = zip(load_market(SOURCE).assets, SECTORS, strict=True)
    return load_market(SOURCE, metadata={name: {"sector": label} for name, label in pairs})


def limits(bounds, **fields):
    return PortfolioConstraints(group_by="sector", group_bounds=bounds, **fields)


@pytest.mark.parametrize("fields", [{}, {"max_weight": 0.3}, {"top_k": 6}], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_models_keep_to_the_groups(market, name, fields):
    for bounds in BOUNDS:
        held = make_baseline(name, market, constraints=limits(bounds, **fields))
        weights = held.predict_weights(ROW).to_numpy()
        assert weights.sum() == pytest.approx(1, abs=1e-12) and weights.min() >= 0
        for label, (low, high) in bounds.items():
            own = weights[1:][np.array(SECTORS) == label].sum()
            assert low - 1e-9 <= own <= high + 1e-9, (name, bounds)


@pytest.mark.parametrize("bounds", BOUNDS[:3], ids=str)
def test_minimum_variance_is_that_of_a_general_solver(market, bounds):
    model = make_baseline("min_variance", market, constraints=limits(bounds))
    problem = model.problem(market.panel.past(ROW))
    spread = covariance("ledoit_wolf", problem.returns) * 1e4
    rows = [{"type": "eq", "fun": lambda w: w.sum() - 1}]
    for label, (low, high) in bounds.items():
        own = (np.array(SECTORS) == label).astype(float)
        rows.append({"type": "ineq", "fun": lambda w, own=own, low=low: own @ w - low})
        rows.append({"type": "ineq", "fun": lambda w, own=own, high=high: high - own @ w})
    best = minimize(
        lambda w: w @ spread @ w, np.full(8, 1 / 8), jac=lambda w: 2 * spread @ w,
        bounds=[(0, 0.4)] * 8, constraints=rows, options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    found = model.predict_weights(ROW).to_numpy()
    assert found[0] == pytest.approx(0, abs=1e-9)
    assert found[1:] @ spread @ found[1:] == pytest.approx(best.fun, rel=1e-4)


def test_largest_return_fills_groups_by_their_returns(market):
    bounds = {"Tech": (0.0, 0.2), "Oil": (0.1, 0.2)}
    options = {"objective": "max_return", "max_weight": 1.0, "min_weight": 0.0}
    model = make_baseline("mean_variance", market, constraints=limits(bounds), **options)
    mean = model.expected_returns(model.problem(market.panel.past(ROW)))
    held = model.predict_weights(ROW).to_numpy()[1:]
    best = {label: mean[np.array(SECTORS) == label].max() for label in ("Tech", "Oil", "")}
    rest = sorted([(best["Tech"], 0.2), (best["Oil"], 0.1), (best[""], 1.0)], reverse=True)
    expected, left = 0.1 * best["Oil"], 0.9
    for value, room in rest:
        expected, left = expected + value * min(room, left), left - min(room, left)
    assert held @ mean == pytest.approx(expected, rel=1e-6)


def test_a_group_gives_what_it_may_not_hold_to_the_rest_of_the_selection():
    target = np.array([0.0, 0.4, 0.2, 0.0, 0.0, 0.3, 0.0, 0.1, 0.0])
    nothing = np.zeros(8, np.bool_)
    held = within_selection(limits({"Tech": (0.0, 0.3)}), target, nothing, SECTORS)
    assert held == pytest.approx([0.0, 0.2, 0.1, 0.0, 0.0, 0.525, 0.0, 0.175, 0.0])
    capped = limits({"Tech": (0.0, 0.3)}, max_weight=0.45)
    held = within_selection(capped, target, nothing, SECTORS)
    assert held == pytest.approx([0.0, 0.2, 0.1, 0.0, 0.0, 0.45, 0.0, 0.25, 0.0])
    held = within_selection(limits({"Oil": (0.6, 1.0)}), target, nothing, SECTORS)
    share = 0.4 / 0.7
    assert held == pytest.approx(
        [0.0, 0.4 * share, 0.2 * share, 0.0, 0.0, 0.6, 0.0, 0.1 * share, 0.0]
    )


def test_frozen_holdings_count_in_their_group():
    target = np.array([0.0, 0.2, 0.2, 0.2, 0.0, 0.2, 0.0, 0.2, 0.0])
    frozen = np.array([True, *[False] * 7])
    held = within_selection(limits({"Tech": (0.0, 0.3)}), target, frozen, SECTORS)
    assert held == pytest.approx([0.0, 0.2, 0.05, 0.05, 0.0, 0.35, 0.0, 0.35, 0.0])
