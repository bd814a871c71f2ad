"""Rewards of one's own: by name, as classes and functions; options go to subclasses alone."""

import sys

import numpy as np
import pytest

from portfolio_env import ArgumentError, PortfolioEnv, PortfolioVectorEnv, load_market
from portfolio_env.simulation.rewards import Reward, log_return, make_reward

SOURCE = """
import numpy as np
from portfolio_env.simulation.rewards import Reward

made = []

class Calmar(Reward):
    def __init__(self, penalty=1.0):
        self.penalty = penalty
        self.steps = np.zeros(0)
        made.append(self)

    def reset(self, lanes):
        self.steps = np.where(lanes, 0.0, np.resize(self.steps, len(lanes)))

    def __call__(self, step):
        self.steps = self.steps + 1
        return step.log_return - self.penalty * step.drawdown

def calmar(step):
    return step.log_return / np.maximum(step.drawdown, 0.01)

def by_hand(step, penalty=2):
    return step.log_return

class NoReward:
    def __init__(self, **options):
        made.append(options)

def lost(step):
    return np.log(step.value - step.value)

def short(step):
    return step.log_return[:1]

def broken(step):
    return step.nothing

def scalar(step):
    return 0.5

def nothing(step):
    return None

def imaginary(step):
    return step.log_return * 1j

def writes(step):
    step.held[:] = 0
    return step.log_return

def writes_ledger(step):
    returns = step.log_return
    returns -= step.cost
    return returns

class Unwritten(Reward):
    pass

class Stubborn(Calmar):
    def reset(self, lanes):
        raise KeyError("lanes")

instance = Calmar()
"""


@pytest.fixture
def mine(own_module):
    own_module("my_rewards", SOURCE)
    import my_rewards

    return my_rewards


@pytest.fixture(scope="module")
def market():
    return load_market("synthetic?seed=9&bars=150&assets=4")


def run(market, reward, lanes=3):
    env = PortfolioVectorEnv(lanes, market, window=1, reward=reward)
    env.reset(seed=0)
    rng = np.random.default_rng(1)
    return np.array([env.step(rng.uniform(-1, 1, (lanes, 5)))[1] for _ in range(20)]), env


def test_functions_and_classes_by_name_are_the_objects(mine, market):
    for name, thing in (("my_rewards:calmar", mine.calmar), ("my_rewards:Calmar", mine.Calmar)):
        np.testing.assert_array_equal(run(market, name)[0], run(market, thing)[0])
    built_in = run(market, {"name": "drawdown_penalised", "penalty": 0.5})[0]
    for own in ("my_rewards:Calmar", mine.Calmar):
        given = run(market, {"name": own, "penalty": 0.5})[0]
        np.testing.assert_array_equal(given, built_in)
    assert make_reward(log_return) is log_return


def test_every_environment_has_an_instance_of_its_own(mine, market):
    first, second = (PortfolioEnv(market, window=1, reward="my_rewards:Calmar") for _ in range(2))
    assert first.simulator.reward is not second.simulator.reward
    first.reset(seed=0)
    second.reset(seed=0)
    first.step(np.zeros(5))
    assert (first.simulator.reward.steps, second.simulator.reward.steps) == (1, 0)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("my_rewards:calmr", "did you mean calmar"),
        ({"name": "my_rewards:Calmar", "penalti": 1}, r"does not take \(penalti\): "),
        ({"name": "my_rewards:calmar", "penalty": 1}, "it is a function; write a subclass"),
        ("my_rewards:by_hand", "must be a subclass of"),
        ("my_rewards:NoReward", "must be a subclass of"),
        ({"name": "my_rewards:NoReward", "penalty": 1}, "must be a subclass of"),
        ("my_rewards:instance", "must be a subclass of"),
        ("my_rewards:np.fromfile", "must be a subclass of"),
        ("os:system", "names a module of Python itself"),
        ({"name": "subprocess:run", "args": ["touch", "here"]}, "names a module of Python itself"),
        ({"name": "my_rewards:np.save", "file": "x", "arr": [1]}, "must be a subclass of"),
        ({"name": ["my_rewards:Calmar"]}, "unknown reward"),
        (7, "unknown reward 7"),
    ],
)
def test_nothing_else_is_called(mine, monkeypatch, tmp_path, spec, says):
    monkeypatch.chdir(tmp_path)
    before = [*mine.made]
    with pytest.raises(ArgumentError, match=says):
        make_reward(spec)
    assert mine.made == before
    assert {path.name for path in tmp_path.iterdir()} <= {"own"}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lost", "reward 'my_rewards:lost' is -inf in lane 0; it must be finite"),
        ("short", r"reward 'my_rewards:short' returned shape \(1,\) of float64, expected \(3,\)"),
        ("scalar", r"returned shape \(\) of float64, expected \(3,\)"),
        ("nothing", r"returned shape \(\) of object"),
        ("imaginary", r"returned shape \(3,\) of complex128, expected \(3,\) of numbers"),
        ("writes", r"'my_rewards:writes' raised ValueError: .*read-only \(my_rewards.py, line \d+"),
        ("writes_ledger", "read-only"),
        ("Unwritten", r"Unwritten must define __call__\(step\)"),
        ("Stubborn", r"reset of reward 'my_rewards:Stubborn' raised KeyError: .*my_rewards.py"),
        ("broken", r"'my_rewards:broken' raised AttributeError: .*my_rewards.py, line \d+"),
    ],
)
def test_what_it_returns_is_checked(mine, market, name, says):
    with np.errstate(divide="ignore"), pytest.raises(ArgumentError, match=says):
        run(market, f"my_rewards:{name}")


def test_lanes_that_stand_still_are_not_judged(market):
    class Young(Reward):
        def __call__(self, step):
            return np.where(step.terminated, np.nan, 1.0)

    env = PortfolioVectorEnv(2, market, window=1, reward=Young)
    env.reset(seed=0)
    assert env.step(np.zeros((2, 5)))[1].tolist() == [1, 1]
    assert "my_rewards" not in sys.modules


@pytest.mark.parametrize("name", ["state", "reset", "restore"])
def test_an_attribute_in_the_place_of_a_method_is_refused(market, name):
    """A checkpoint would call it."""

    class Mine(Reward):
        def __init__(self):
            setattr(self, name, np.zeros(1))

        def __call__(self, step):
            return step.log_return

    with pytest.raises(ArgumentError, match=f"Mine sets '{name}', which is a method of rewards"):
        PortfolioEnv(market, window=1, reward=Mine)
