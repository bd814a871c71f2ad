"""An episode starts from weights that an account under its rules may hold, and observes them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_env import ArgumentError, Market, PortfolioEnv, PortfolioVectorEnv, PricePanel

UNLEVERED = {}
LONG_SHORT = {"long_only": False, "max_leverage": 5.0}
DEBT = {"max_leverage": 2.0, "min_cash": -0.25}


def market():
    dates = pd.date_range("2021-01-04", periods=6, freq="D").to_numpy("datetime64[ns]")
    panel = PricePanel(timestamps=dates, assets=("A", "B", "C"), close=np.full((6, 3), 100.0))
    return Market(panel, np.zeros((6, 3, 0), np.float32), ())


def environment(constraints, **options):
    return PortfolioEnv(
        market(), window=1, action="weights", observation="index", constraints=constraints,
        **options,
    )  # fmt: skip


REFUSED = [
    (UNLEVERED, [-99, 50, 50, 0], r"-99.*borrows: cash is -99.*at least 0;.*max_leverage"),
    (UNLEVERED, [-1, 1, 1, 0], r"borrows: cash is -1.*at least 0"),
    (UNLEVERED, [1.5, -0.5, 0, 0], r"short position of -0.5.*long_only=False"),
    (LONG_SHORT, [-99, 50, 50, 0], r"borrows: cash is -99.*at least -4"),
    (LONG_SHORT, [1, 3, -3, 0], r"holds 6 times the wealth.*may hold 5.*raise max_leverage"),
    (DEBT, [-0.5, 1.5, 0, 0], r"cash is -0.5.*at least -0.25"),
    (UNLEVERED, [0.5, 0.5, 0.5, 0], "sum to 1"),
    (UNLEVERED, [np.nan, 0.5, 0.5, 0], "finite"),
    (UNLEVERED, ["a", 0.5, 0.5, 0], "must be numbers"),
    (UNLEVERED, [[1.0], 0, 0, 0], "must be numbers"),
]


@pytest.mark.parametrize(("constraints", "weights", "message"), REFUSED)
def test_what_the_account_may_not_hold_is_no_start(constraints, weights, message):
    env = environment(constraints)
    env.reset()
    lanes = PortfolioVectorEnv(
        2, market(), window=1, action="weights", observation="index", constraints=constraints
    )
    for name, attempt in (
        (r"options\['weights'\]", lambda: env.reset(options={"weights": weights})),
        (r"options\['weights'\]", lambda: lanes.reset(options={"weights": weights})),
        ("initial", lambda: environment(constraints, initial=weights)),
    ):
        with pytest.raises(ArgumentError, match=f"^{name}=(?s:.)*{message}"):
            attempt()


def test_one_lane_of_many_is_enough():
    lanes = PortfolioVectorEnv(2, market(), window=1, observation="index")
    with pytest.raises(ArgumentError, match="borrows: cash is -1"):
        lanes.reset(options={"weights": [[1, 0, 0, 0], [-1, 1, 1, 0]]})
    with pytest.raises(ArgumentError, match="must be numbers"):
        lanes.reset(options={"weights": [[1, 0, 0, 0], [-1, 1, 1]]})


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_the_first_observation_lies_in_its_space_whatever_is_accepted(seed):
    rng = np.random.default_rng(seed)
    constraints = {
        "long_only": bool(rng.random() < 0.5),
        "max_leverage": float(rng.choice([0.5, 1.0, 1.5, 5.0])),
    }
    env = environment(constraints)
    weights = rng.normal(0, rng.choice([0.2, 1.0, 10.0]), 4)
    if rng.random() < 0.7:
        weights[1:] = abs(weights[1:])
    if rng.random() < 0.5:  # what rounding leaves
        weights = np.array([0.0, 1.0, 0.0, 0.0]) + rng.uniform(-2e-7, 2e-7, 4)
    weights[0] = 1 - weights[1:].sum()
    try:
        observation, info = env.reset(options={"weights": weights})
    except ArgumentError:
        return
    assert env.observation_space.contains(observation)
    held = env.simulator.weights[0]
    assert held == pytest.approx(weights, abs=2e-6) and info["cash"] == held[0]
    assert abs(held[1:]).sum() <= max(1.0, constraints["max_leverage"]) + 2e-6
    if constraints["long_only"]:
        assert (held[1:] >= 0).all()


def test_an_account_goes_on_where_the_market_took_it_out_of_its_other_bounds():
    env = environment({"max_weight": 0.4, "min_cash": 0.2, "max_cash": 0.5, "top_k": 2})
    for weights in ([0.05, 0.6, 0.25, 0.1], [1.0, 0.0, 0.0, 0.0]):
        observation, _ = env.reset(options={"weights": weights})
        assert observation["weights"] == pytest.approx(weights)


@pytest.mark.parametrize("value", [0, 1e-320, 1e-10, 1e16, np.nan, np.inf, -1.0, "1"])
def test_an_account_starts_with_money_that_can_be_counted(value):
    with pytest.raises(ArgumentError, match=r"initial_value=.*in \[1e-09, 1e\+15\]"):
        environment({}, initial_value=value)
    assert environment({}, initial_value=1e-9).reset()[1]["portfolio_value"] == 1e-9
