"""An environment that trades with something else than the simulator is backtested all the same."""

import gymnasium as gym
import numpy as np
import pytest

from baselines import make_baseline
from portfolio_env import PortfolioEnv, PortfolioVectorEnv, load_market
from portfolio_env.evaluation import backtest
from portfolio_env.simulation.executor import Account

MARKET = load_market("synthetic?bars=120&assets=3&seed=2")
OPTIONS = {"window": 1, "observation": "index", "action": "weights"}


class Broker:
    """Holds units and cash, and fills at the last price, without costs."""

    action, num_lanes, periods_per_year = "weights", 1, MARKET.periods_per_year
    asset_names = (MARKET.assets,)

    def __init__(self, row):
        self.row, self.cash, self.units = row, 10_000.0, np.zeros(3)
        self.held = np.array([1.0, 0, 0, 0])

    @property
    def money(self):
        return np.r_[self.cash, self.units * MARKET.close[self.row]]

    def trade(self, weights):
        value = self.money.sum()
        self.turnover = np.abs(weights[1:] * value - self.money[1:]).sum() / value
        self.cash, self.units = weights[0] * value, weights[1:] * value / MARKET.close[self.row]
        self.held, self.row = weights, self.row + 1

    turnover = 0.0

    def account(self):
        money, nothing = self.money, np.zeros(1)
        value = money.sum()
        return Account(
            timestamps=MARKET.timestamps[[self.row]],
            values=np.array([value]),
            weights=money[None] / value,
            held=self.held[None],
            money=money[None],
            turnovers=np.array([self.turnover]),
            costs=nothing,
            carries=nothing,
        )


class BrokerEnv(gym.Env):
    """Knows no simulator."""

    def __init__(self):
        self.action_space = gym.spaces.Box(0, 1, (4,))

    def _observation(self):
        account = self.executor.account()
        return {
            "t": np.array([self.executor.row]),
            "weights": account.weights[0].astype(np.float32),
            "market": np.array([MARKET.fingerprint]),
            "tradable": MARKET.tradable[self.executor.row],
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.executor = Broker(MARKET.warmup)
        return self._observation(), {}

    def step(self, action):
        self.executor.trade(np.asarray(action, np.float64))
        return self._observation(), 0.0, False, self.executor.row == MARKET.n_bars - 1, {}


@pytest.mark.parametrize("name", ["momentum", "equal_weight"])
def test_a_broker_without_costs_is_the_simulator_without_costs(name):
    simulated = backtest(
        make_baseline(name, MARKET),
        PortfolioEnv(MARKET, start=MARKET.warmup, costs={"commission_bps": 0}, **OPTIONS),
    )
    own = backtest(make_baseline(name, MARKET), BrokerEnv())
    assert own.assets == simulated.assets
    np.testing.assert_array_equal(own.timestamps, simulated.timestamps)
    for field in ("values", "drifted", "held", "turnovers", "trades", "last_weights"):
        np.testing.assert_allclose(getattr(own, field), getattr(simulated, field), atol=2e-3)


def test_lanes_that_end_at_the_end_of_the_market_are_recorded_beside_others():
    """At the next open there is no price after the last bar to say what it would trade with."""
    env = PortfolioVectorEnv(
        2, MARKET, execution="next_open", random_start=True, autoreset_mode="Disabled", **OPTIONS
    )
    results = backtest(make_baseline("momentum", MARKET), env, seed=1)
    assert len(results[0].costs) != len(results[1].costs)
    for result in results:
        moved = result.values[1:] / result.values[:-1] - 1
        np.testing.assert_allclose(result.returns, moved)
        assert result.timestamps[-1] == MARKET.timestamps[-1]
