"""Final wealth on the classical data sets: what papers print, and separate computations of it.

The rows with costs were computed elsewhere, from the recursions and the relatives alone.
"""

import numpy as np
import pytest

import portfolio_env as pe
from baselines.online.simplex import log_optimal
from benchmarks.tables.online import WEALTH, load, play
from portfolio_env.evaluation import backtest

# by commission in basis points, paid on the traded notional, from an account of cash
WITH_COSTS = {
    "nyse_o": {
        5: {
            "buy_and_hold": "14.490063",
            "equal_weight": "26.189846",
            "eg": "26.239788",
            "pamr": "4.3302486e13",
        },
        25: {
            "buy_and_hold": "14.461155",
            "equal_weight": "22.928752",
            "eg": "23.081147",
            "pamr": "218291.3",
        },
    },
    "nyse_n": {5: {"equal_weight": "30.334064"}, 25: {"equal_weight": "25.91591"}},
    "sp500": {
        5: {"equal_weight": "1.6317245", "pamr": "1.8029921"},
        25: {"equal_weight": "1.5655054", "pamr": ".028275087"},
    },
    "djia": {
        5: {"equal_weight": ".80942069", "pamr": ".45083072"},
        25: {"equal_weight": ".7963345", "pamr": ".087075324"},
    },
}

LONG = ("nyse_n", "nyse_o")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in WEALTH],
)
def played(request, shared_data):
    """A data set: its name, relatives, market and baselines."""
    path = shared_data / "olps" / f"{request.param}.csv"
    relatives = np.loadtxt(path, delimiter=",", skiprows=1)
    market, models = load(request.param, path)
    return request.param, relatives, market, models


def wealth(market, policies, commission):
    return [result.values[-1] for result in play(market, policies, commission)]


def check(values, figures, rel=1e-9):
    """Within half a unit of the last digit given, or ``rel``."""
    for value, (name, text) in zip(values, figures.items(), strict=True):
        digits = text.split("e")[0].lstrip(".0").replace(".", "")
        leading = float(text.split("e")[0])
        unit = 10.0 ** (int(np.floor(np.log10(leading))) + 1 - len(digits))
        half = 0.5 * unit * float(text) / leading
        assert value == pytest.approx(float(text), rel=rel, abs=1.01 * half), name


def test_wealth_without_costs(played):
    name, _, market, models = played
    figures = WEALTH[name]
    check(wealth(market, [models[policy] for policy in figures], 0), figures)


@pytest.mark.parametrize("commission", [5, 25])
def test_wealth_with_costs(played, commission):
    name, _, market, models = played
    figures = WITH_COSTS[name][commission]
    # An asset whose weight is the one asked for, as on one of the days of nyse_o, is not traded,
    # not even to pay its part of the fees: that moves the account by a hundred-millionth.
    played_out = wealth(market, [models[policy] for policy in figures], commission)
    check(played_out, figures, rel=1e-7)


def test_the_single_environment_keeps_the_same_accounts(played):
    name, _, market, models = played
    env = pe.PortfolioEnv(
        market, observation="index", action="weights", window=1, costs={"commission_bps": 0}
    )
    for policy in ("pamr", "best_constant_rebalanced"):
        value = backtest(models[policy], env).values[-1] / env.simulator.initial_value
        check([value], {policy: WEALTH[name][policy]})


def test_the_best_constant_rebalanced_portfolio_is_optimal(played):
    _, relatives, _, models = played
    b = models["best_constant_rebalanced"].chosen
    ratios = (relatives / (relatives @ b)[:, None]).mean(axis=0)
    assert ratios.max() - 1 <= 1e-10
    assert (abs(ratios[b > 1e-9] - 1) <= 1e-9).all()
    assert b == pytest.approx(log_optimal(relatives[::-1]), abs=1e-6)
