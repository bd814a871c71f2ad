"""The environment beside a slow account in plain Python, on random cases: see tests/fuzz.py."""

from collections import Counter

import numpy as np
import pytest
from fuzz import Case, FoundFault

from portfolio_env.simulation import dynamics
from portfolio_env.simulation.simulator import Simulator


def survived(seeds) -> Counter:
    return sum((Case(seed).run() for seed in seeds), Counter())


def test_steps_equal_those_of_the_slow_account():
    assert survived(range(16))["steps"] > 200


@pytest.mark.parametrize(
    "seed",
    [1005, 5084, 5144, 20374, 20408, 20534, 1000308, 2000114, 3000601, 7000307, 9000798, 9100829],
)
def test_cases_that_once_failed_no_longer_do(seed):
    """Fees and limits decided by rounding, and leverage beside holdings that cannot be sold."""
    Case(seed).run()


@pytest.mark.slow
def test_many_steps_equal_those_of_the_slow_account():
    counts = survived(range(1000, 1100))
    assert counts["steps"] > 1500
    assert counts["ill-posed"] < 0.01 * counts["steps"]


def test_a_fault_is_found_and_says_how_to_find_it_again(monkeypatch):
    """Money that appears from nowhere, in the middle of an episode."""
    step = Simulator.step

    def too_generous(self, actions, active=None):
        rewards = step(self, actions, active)
        self.ledger[dynamics.VALUE] *= 1 + 1e-8
        return rewards

    monkeypatch.setattr(Simulator, "step", too_generous)
    with pytest.raises(FoundFault, match=r"portfolio_value.*\n.*\n.*fuzz.py --seed 3"):
        Case(3).run()


def test_a_case_is_reproduced_by_its_seed():
    first, second = Case(5), Case(5)
    assert first.described() == second.described()
    assert (first.run(), first.simulator.ledger.tolist()) == (
        second.run(),
        second.simulator.ledger.tolist(),
    )
    assert np.array_equal(first.market.close, second.market.close, equal_nan=True)
