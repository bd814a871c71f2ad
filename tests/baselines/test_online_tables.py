"""Final wealth on the classical data sets: what papers print, and separate computations of it.

The digits beyond those that were printed, and the rows with costs, were computed elsewhere, from
the recursions and the relatives alone. Left out: OLMAR-1 as printed, which does not follow from
the paper's formula (this row is what its authors' code gives), and CWMR on SP500 and DJIA.
"""

import numpy as np
import pytest

import portfolio_env as pe
from baselines import make_baseline
from baselines.simplex import log_optimal
from portfolio_env.evaluation import backtest

TABLE = {
    "nyse_o": {
        "buy_and_hold": "14.4973082771",
        "best_asset": "54.1403643616",
        "best_constant_rebalanced": "250.5970749",
        "equal_weight": "27.0752463446",
        "eg": "27.0948896003",
        "ons": "109.189",
        "pamr": "5.13842776416e15",
        "olmar1": "7.2149181924e16",
        "olmar2": "1.02195481547e18",
        "cwmr_stdev": "6.49e15",
        "rmr": "1.64e17",
    },
    "nyse_n": {
        "buy_and_hold": "18.0565479821",
        "best_asset": "83.506698304",
        "best_constant_rebalanced": "120.3209099",
        "equal_weight": "31.5517059976",
        "eg": "31.0000950479",
        "ons": "21.586",
        "pamr": "1252597.61559",
        "olmar1": "413678311.052",
        "olmar2": "468811792.661",
        "cwmr_stdev": "1.41e6",
        "rmr": "3.25e8",
    },
    "sp500": {
        "buy_and_hold": "1.34164386564",
        "best_asset": "3.77918186942",
        "best_constant_rebalanced": "4.06862732",
        "equal_weight": "1.64871373863",
        "eg": "1.63332497208",
        "ons": "3.34171",
        "pamr": "5.09487522143",
        "olmar1": "15.9434552119",
        "olmar2": "9.59451110519",
        "rmr": "8.28",
    },
    "djia": {
        "buy_and_hold": ".764361032318",
        "best_asset": "1.18836045056",
        "best_constant_rebalanced": "1.239928438",
        "equal_weight": ".812726066459",
        "eg": ".810030182174",
        "ons": "1.53299",
        "pamr": ".680049794129",
        "olmar1": "2.53723178409",
        "olmar2": "1.16113308272",
        "rmr": "2.67",
    },
}
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


class Each:
    """Lets every policy decide for the lane of its own."""

    action = "weights"

    def __init__(self, policies):
        self.policies = policies

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        lanes = [
            policy.predict({name: entry[lane] for name, entry in observation.items()})[0]
            for lane, policy in enumerate(self.policies)
        ]
        return np.array(lanes), state


LONG = ("nyse_n", "nyse_o")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in TABLE],
)
def played(request, shared_data):
    """A data set: its name, relatives, market and baselines."""
    path = shared_data / "olps" / f"{request.param}.csv"
    relatives = np.loadtxt(path, delimiter=",", skiprows=1)
    close = np.vstack([np.ones(relatives.shape[1]), relatives.cumprod(axis=0)])
    days = np.datetime64("1962-07-02") + np.arange(len(close))
    panel = pe.PricePanel(days, tuple(f"stock {i}" for i in range(close.shape[1])), close)
    market = pe.Market(panel, np.zeros((*close.shape, 0)), ())
    models = {name: make_baseline(name, market) for name in TABLE[request.param]}
    for name in ("best_asset", "best_constant_rebalanced"):
        models[name].fit(panel, (0, len(close)))
    return request.param, relatives, market, models


def wealth(market, policies, commission):
    env = pe.PortfolioVectorEnv(
        len(policies),
        market,
        observation="index",
        action="weights",
        window=1,
        costs={"commission_bps": commission},
        initial_value=1.0,
        autoreset_mode="Disabled",
    )
    return [result.values[-1] for result in backtest(Each(policies), env)]


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
    figures = TABLE[name]
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
        check([value], {policy: TABLE[name][policy]})


def test_the_best_constant_rebalanced_portfolio_is_optimal(played):
    _, relatives, _, models = played
    b = models["best_constant_rebalanced"].chosen
    ratios = (relatives / (relatives @ b)[:, None]).mean(axis=0)
    assert ratios.max() - 1 <= 1e-10
    assert (abs(ratios[b > 1e-9] - 1) <= 1e-9).all()
    assert b == pytest.approx(log_optimal(relatives[::-1]), abs=1e-6)
