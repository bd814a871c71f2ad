"""Accounts that may borrow trade beside holdings that are kept, in the band or halted."""

import numpy as np
import pytest
from helpers.bare_markets import market_of

from portfolio_env import PortfolioEnv

BORROWS = {"long_only": False, "max_leverage": 5.0, "max_weight": 5.0}


def held_after(action, start, constraints, tradable=True, bps=0.0):
    n = len(start) - 1
    market = market_of(np.full((4, n), 100.0), np.tile(np.broadcast_to(tradable, n), (4, 1)))
    env = PortfolioEnv(
        market, window=1, action="weights", observation="index", initial=start,
        constraints=constraints, costs={"commission_bps": bps},
    )  # fmt: skip
    env.reset()
    _, _, _, _, info = env.step(np.array(action))
    return env.simulator.held[0], info


@pytest.mark.parametrize(
    ("start", "asked"),
    [
        ([0.0, 0.65, 0.65, -0.3, 0.0], [0.0, 0.65, 0.65, -0.15, -0.15]),  # shorts in turn
        ([0.0, 1.0, 0.0, 0.0, 0.0], [1.0, 1.0, -1.0, 0.0, 0.0]),
        ([0.0, 0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.5, -0.5, 0.0]),
        ([0.0, 1.0, 0.0, 0.0, 0.0], [-3.0, 1.0, 3.0, 0.0, 0.0]),  # on credit
    ],
)
@pytest.mark.parametrize("band", [0.0, 0.02])
def test_what_is_kept_is_no_obstacle_to_other_trades_on_credit(start, asked, band):
    """As asked, however much the holdings weigh that are kept; and continuously so."""
    held, info = held_after(asked, start, BORROWS | {"no_trade_band": band})
    assert held == pytest.approx(asked)
    assert info["turnover"] == pytest.approx(np.abs(np.subtract(asked, start))[1:].sum())
    beside = [asked[0] - 1e-6, asked[1] + 1e-6, *asked[2:]]
    assert held_after(beside, start, BORROWS)[0] == pytest.approx(held, abs=3e-6)


@pytest.mark.parametrize("halted", [0.9, 1.0, 1.2])
def test_debt_is_paid_back_beside_a_halted_holding_of_any_size(halted):
    start = [-0.8, halted, 1.8 - halted]
    tradable = [False, True]
    held, info = held_after([1.0, 0.0, 0.0], start, BORROWS, tradable, bps=10.0)
    mu = 1.0 - 0.001 * start[2]
    assert info["turnover"] == pytest.approx(start[2])
    assert held == pytest.approx([1.0 - halted / mu, halted / mu, 0.0])
    assert info["portfolio_value"] == pytest.approx(10_000 * mu)
