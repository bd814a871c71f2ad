"""Rewards against slow formulas over one recorded episode."""

import numpy as np
import pytest

from portfolio_env import ArgumentError, PortfolioEnv, PortfolioVectorEnv, load_market
from portfolio_env.simulation.rewards import REWARDS, Reward, Transition, make_reward


@pytest.fixture(scope="module")
def market():
    return load_market("synthetic?seed=9&bars=150&assets=4")


def run(market, reward, steps=80):
    env = PortfolioEnv(market, window=1, reward=reward, costs={"commission_bps": 30})
    env.reset(seed=0)
    rng = np.random.default_rng(1)
    rows = []
    for _ in range(steps):
        _, given, _, _, info = env.step(rng.uniform(-1, 1, 5))
        rows.append((given, info))
    return np.array([given for given, _ in rows]), [info for _, info in rows]


def column(infos, name):
    return np.array([info[name] for info in infos])


def test_plain_rewards(market):
    reward, infos = run(market, "log_return")
    value = np.r_[10_000.0, column(infos, "portfolio_value")]
    assert reward == pytest.approx(np.log(value[1:] / value[:-1]), abs=1e-14)
    assert reward.sum() == pytest.approx(np.log(value[-1] / value[0]), abs=1e-12)
    simple, _ = run(market, "simple_return")
    assert simple == pytest.approx(value[1:] / value[:-1] - 1, abs=1e-14)


def test_risk_adjusted_reward_has_the_constants_of_its_source(market):
    simple, infos = run(market, "simple_return")
    reward, _ = run(market, "risk_adjusted")
    expected = simple - 0.5 * simple**2 - 0.01 * column(infos, "turnover")
    assert reward == pytest.approx(expected, abs=1e-15)


def test_drawdown_penalised(market):
    reward, infos = run(market, {"name": "drawdown_penalised", "penalty": 0.5})
    assert reward == pytest.approx(
        column(infos, "log_return") - 0.5 * column(infos, "drawdown"), abs=1e-15
    )
    value = np.r_[10_000.0, column(infos, "portfolio_value")]
    worst = 1 - value / np.maximum.accumulate(value)
    assert column(infos, "drawdown") == pytest.approx(worst[1:], abs=1e-14)


def test_excess_is_over_equal_weight_of_the_same_bars(market):
    reward, infos = run(market, {"name": "excess_log_return", "scale": 100})
    start = market.warmup
    moves = market.close[1:] / market.close[:-1]
    even = np.log(moves[start : start + len(infos)].mean(-1))
    assert column(infos, "benchmark_log_return") == pytest.approx(even, abs=1e-14)
    assert reward == pytest.approx(100 * (column(infos, "log_return") - even), abs=1e-12)


def test_differential_sharpe_is_the_derivative_of_the_sharpe_ratio(market):
    """D is d S / d eta at eta = 0 of the Sharpe ratio of moments updated with the new return."""
    eta = 0.05
    reward, infos = run(market, {"name": "differential_sharpe", "eta": eta})
    r = np.expm1(column(infos, "log_return"))
    a = b = 0.0
    for i, x in enumerate(r):
        if b - a * a > 1e-16:
            h = 1e-6

            def sharpe(step, a=a, b=b, x=x):
                first, second = a + step * (x - a), b + step * (x * x - b)
                return first / np.sqrt(second - first**2)

            slope = (sharpe(h) - sharpe(-h)) / (2 * h)
            assert reward[i] == pytest.approx(slope, rel=1e-5, abs=1e-7)
        else:
            assert reward[i] == 0
        a, b = a + eta * (x - a), b + eta * (x * x - b)
    assert np.count_nonzero(reward) > 70


def test_differential_downside_equals_the_published_recursion(market):
    eta = 0.05
    reward, infos = run(market, {"name": "differential_downside", "eta": eta})
    r = np.expm1(column(infos, "log_return"))
    a = dd = 0.0
    for i, x in enumerate(r):
        expected = 0.0
        if dd > 1e-16:
            if x > 0:
                expected = (x - 0.5 * a) / np.sqrt(dd)
            else:
                expected = (dd * (x - 0.5 * a) - 0.5 * a * x * x) / dd**1.5
        assert reward[i] == pytest.approx(expected, rel=1e-9, abs=1e-12)
        a, dd = a + eta * (x - a), dd + eta * (min(x, 0.0) ** 2 - dd)


@pytest.mark.parametrize("name", ["differential_sharpe", "differential_downside"])
def test_memory_is_forgotten_at_every_reset(market, name):
    env = PortfolioEnv(market, window=1, reward=name, episode_length=30)
    rng = np.random.default_rng(2)
    actions = rng.uniform(-1, 1, (30, 5))
    first = []
    for _ in range(2):
        env.reset(seed=0)
        first.append([env.step(action)[1] for action in actions])
    assert first[0] == first[1]


@pytest.mark.parametrize("name", ["differential_sharpe", "differential_downside"])
def test_memory_goes_on_from_a_state_that_was_kept(market, name):
    rewards = [make_reward(name) for _ in range(2)]
    for reward in rewards:
        PortfolioEnv(market, window=1, reward=reward).reset(seed=0)
    lanes = PortfolioEnv(market, window=1).simulator.lanes
    step = Transition(lanes)
    for step.log_return[:] in (0.01, -0.01):
        rewards[0](step)
    rewards[1].restore(rewards[0].state())
    step.log_return[:] = -0.02
    assert rewards[0](step) == rewards[1](step) != 0
    with pytest.raises(ArgumentError, match="no array 'scale'"):
        rewards[0].restore({"scale": np.ones(1)})


def test_a_transition_knows_ruin_from_the_end_of_the_data(market):
    ends = []

    def noted(step):
        ends.append(step.terminated.tolist())
        return step.log_return

    env = PortfolioEnv(market, window=1, reward=noted, episode_length=1)
    env.reset(seed=0)
    assert env.step(np.zeros(5))[2:4] == (False, True)
    broke = {"fixed_fee": 9_999, "commission_bps": 100}
    env = PortfolioEnv(market, window=1, reward=noted, costs=broke, episode_length=2)
    env.reset(seed=0)
    assert env.step(np.zeros(5))[2:4] == (True, False)
    assert ends == [[False], [True]]


def test_callables_work_over_lanes_and_their_shape_is_checked(market):
    def halved(step):
        assert step.held.shape == (3, 5)
        assert step.value.shape == step.cost.shape == step.terminated.shape == (3,)
        assert step.weights.shape == (3, 5)
        return step.log_return / 2

    env = PortfolioVectorEnv(3, market, window=1, reward=halved)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(env.action_space.sample())
    assert (reward == info["log_return"] / 2).all()
    bad = PortfolioVectorEnv(3, market, window=1, reward=lambda step: 0.0)
    bad.reset(seed=0)
    with pytest.raises(ArgumentError, match="one per lane"):
        bad.step(bad.action_space.sample())


def test_a_reward_of_ones_own_derives_from_reward(market):
    class Counting(Reward):
        def reset(self, lanes):
            self.count = np.where(lanes, 0, getattr(self, "count", 0))

        def __call__(self, step):
            self.count = self.count + 1
            return self.count.astype(float)

    env = PortfolioEnv(market, window=1, reward=Counting())
    env.reset(seed=0)
    assert [env.step(np.zeros(5))[1] for _ in range(3)] == [1, 2, 3]
    env.reset()
    assert env.step(np.zeros(5))[1] == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sharpe", "unknown reward 'sharpe'"),
        ({"scale": 1}, "has no 'name'"),
        ({"name": "log_return", "scale": 1}, "has no parameter 'scale'; it has none"),
        ({"name": "excess_log_return", "scale": 0}, "scale"),
        ({"name": "risk_adjusted", "risk_aversion": -1}, "risk_aversion"),
        ({"name": "differential_sharpe", "eta": 1}, "eta"),
        ({"name": "differential_sharpe", "eta": 0}, "eta"),
        ({"name": "differential_downside", "eta": -0.5}, "eta"),
        ({"name": "drawdown_penalised", "penalty": float("nan")}, "penalty"),
        ({"name": "drawdown_penalised", "penalty": float("inf")}, "penalty"),
        ({"name": "excess_log_return", "scale": float("inf")}, "scale"),
    ],
)
def test_bad_specifications_are_named(spec, message):
    with pytest.raises(ArgumentError, match=message):
        make_reward(spec)


def test_a_penalty_of_nothing_is_allowed(market):
    reward, infos = run(market, {"name": "drawdown_penalised", "penalty": 0})
    assert reward == pytest.approx(column(infos, "log_return"), abs=1e-15)


def test_every_name_makes_a_reward():
    assert all(callable(make_reward(name)) for name in REWARDS)
