"""The choice of a search: luck is not accepted, a large edge is, and both are counted rightly."""

from collections.abc import Sequence

import numpy as np
import pytest

from agents.search.choice import Trial, choose, spreads
from agents.search.importance import importances
from agents.search.scores import Account

DAYS = 252
PLACES = [(0, 0), (1, 0), (0, 1), (1, 1)]
EQUAL = np.random.default_rng(0).normal(0.0004, 0.01, (2, DAYS))


def trial(number: int, edges: Sequence[float], noise: int, places: int = 4) -> Trial:
    """A trial whose seeds earn edges a year above equal weight, with noise of the trial's own."""
    draws = np.random.default_rng(noise).normal(0, 0.002, (2, DAYS))
    accounts = {
        (fold, seed): Account(EQUAL[fold] + draws[fold] + edges[seed] / DAYS, EQUAL[fold], 1.0)
        for fold, seed in PLACES[:places]
    }
    return Trial(number, {"adjustment": number}, places, accounts)


def test_the_best_of_noise_is_not_accepted() -> None:
    trials = [trial(number, (0.0, 0.0), number + 5) for number in range(20)]
    found = choose(trials, 4)
    assert found is not None
    scores = [each.score for each in trials]
    assert found["trial"] == int(np.argmax(np.array(scores, float)))
    assert found["excess_growth"] > 0
    assert not found["accepted"]
    assert found["superiority_p"] > 0.05
    assert "equal weight" in found["reasons"][-1]


def test_a_large_edge_is_accepted() -> None:
    trials = [trial(number, (0.0, 0.0), number + 5) for number in range(10)]
    found = choose([*trials, trial(10, (0.3, 0.4), 99)], 4)
    assert found is not None
    assert (found["trial"], found["accepted"], found["gate"]) == (10, True, True)
    assert found["excess_growth"] == pytest.approx(0.35, abs=0.06)
    assert found["over_given"][1] > 0


def test_trials_that_stopped_early_are_counted_and_not_chosen() -> None:
    early = trial(2, (9.0, 9.0), 7, places=1)
    failed = Trial(3, {}, 4, {}, error="no memory")
    ruined = trial(4, (0.1, 0.1), 9)
    gone = np.full(DAYS, -np.inf)
    ruined.accounts[0, 0] = Account(gone, EQUAL[0], 1.0)
    found = choose([trial(0, (0.0, 0.0), 1), trial(1, (0.1, 0.1), 2), early, failed, ruined], 4)
    assert found is not None
    assert (found["trial"], found["complete"], found["counted"]) == (1, 2, 5)
    assert ruined.score is None
    assert any("1 trials were stopped early and 2 failed" in each for each in found["reasons"])
    assert choose([failed, ruined], 4) is None


def test_raw_returns_do_not_make_a_loser_look_sure() -> None:
    """Trials that correlate through the market have a sure Sharpe ratio while all lose to it."""
    trials = [trial(number, (-0.02, -0.02), number + 40) for number in range(8)]
    found = choose(trials, 4)
    assert found is not None
    assert found["deflated_sharpe"] < 0.5


def test_spreads_are_those_that_were_planted() -> None:
    trials = [trial(number, (0.1 * number, 0.1 * number + 0.04), 3) for number in range(3)]
    found = spreads(trials)
    assert found["settings"] == pytest.approx(0.1, abs=1e-9)
    assert found["seeds"] == pytest.approx(0.04 / np.sqrt(2), abs=1e-9)


def test_importance_finds_what_matters() -> None:
    generator = np.random.default_rng(1)
    rates = generator.uniform(0, 1, 40)
    kinds = generator.choice(["a", "b"], 40)
    options = [
        {"rate": float(rate), "kind": str(kind), "idle": int(generator.integers(5))}
        for rate, kind in zip(rates, kinds, strict=True)
    ]
    scores = 0.1 * rates**3 + generator.normal(0, 0.002, 40)
    found = {each.name: each for each in importances(options, scores.tolist())}
    assert next(iter(found)) == "rate"
    assert found["rate"].share > 0.9
    assert found["rate"].p_value < 1e-6
    assert found["kind"].p_value > 0.01
    assert found["idle"].p_value > 0.01
    assert importances(options[:4], scores[:4].tolist()) == []
