"""Methods of search: each setting once, the same ones again, and the better ones found."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agents.search.methods import METHODS, Task, key_of, rungs
from agents.search.space import Options
from agents.search.space_files import make_space
from portfolio_env.errors import ArgumentError

SPACE = make_space(
    {
        "adjustment": {"low": 0.01, "high": 1.0, "log": True},
        "encoder": ["per_asset", "mlp"],
        "encoder_options.architecture": {
            "each": [16, 32, 64],
            "length": [1, 3],
            "when": {"encoder": "mlp"},
        },
    }
)
TASK = Task(SPACE, trials=20, cells=6, seed=0, batch=4, key=key_of)
Score = Callable[[Options], float | None]


def peak(options: Options) -> float:
    """Best at an adjustment of 0.1 without an encoder."""
    return -abs(math.log(options["adjustment"] / 0.1)) - (options["encoder"] == "mlp")


def run(name: str, task: Task, score: Score = peak) -> list[tuple[Options, int]]:
    tried = []
    method = METHODS[name](task)
    try:
        asked = next(method)
        while True:
            tried += [(dict(options), asked.cells) for options in asked.settings]
            asked = method.send([score(options) for options in asked.settings])
    except StopIteration:
        return tried


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_trials_are_different_and_repeat(name: str) -> None:
    if name == "tpe":
        pytest.importorskip("optuna")
    tried = run(name, TASK)
    assert len({key_of(options) for options, _ in tried}) == len(tried) == TASK.trials
    assert run(name, TASK) == tried
    assert run(name, replace(TASK, seed=1)) != tried
    assert {cells for _, cells in tried} == {6}


def test_tpe_looks_where_scores_are_high() -> None:
    pytest.importorskip("optuna")
    late = [
        peak(options)
        for seed in range(3)
        for options, _ in run("tpe", replace(TASK, trials=40, seed=seed))[20:]
    ]
    even = [
        peak(options)
        for seed in range(3)
        for options, _ in run("random", replace(TASK, trials=40, seed=seed))[20:]
    ]
    assert sum(late) / len(late) > sum(even) / len(even) + 0.5


@pytest.mark.parametrize("name", ["random", "tpe", "halving"])
def test_a_space_that_is_used_up_ends_the_search(name: str) -> None:
    if name == "tpe":
        pytest.importorskip("optuna")
    space = make_space({"adjustment": [0.1, 0.5, 1.0]})
    known = frozenset({key_of({"adjustment": 1.0})})
    task = replace(TASK, space=space, known=known, cells=1)
    tried = run(name, task, lambda options: options["adjustment"])
    assert sorted(options["adjustment"] for options, _ in tried) == [0.1, 0.5]


def test_trials_that_fail_do_not_end_a_search() -> None:
    pytest.importorskip("optuna")
    assert len(run("tpe", TASK, lambda options: None)) == TASK.trials


def test_halving_gives_cells_to_the_better_third() -> None:
    assert rungs(6) == [1, 2, 6]
    tried = run("halving", TASK)
    rounds = [[options for options, cells in tried if cells == size] for size in (1, 2, 6)]
    assert [len(each) for each in rounds] == [20, 7, 3]
    best = sorted(map(peak, rounds[0]), reverse=True)
    assert sorted(map(peak, rounds[1]), reverse=True) == best[:7]
    assert sorted(map(peak, rounds[2]), reverse=True) == best[:3]
    assert run("halving", TASK, lambda options: None)[20:] == []


def test_a_grid_is_whole_or_refused() -> None:
    space = make_space({"adjustment": [0.1, 0.5], "encoder": ["per_asset", "mlp"]})
    assert len(run("grid", replace(TASK, space=space, trials=4))) == 4
    with pytest.raises(ArgumentError, match="the grid has 4 settings"):
        run("grid", replace(TASK, space=space, trials=3))
    with pytest.raises(ArgumentError, match="cannot count adjustment"):
        run("grid", TASK)


def test_optuna_is_loaded_by_tpe_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    missing: Any = None
    monkeypatch.setitem(sys.modules, "optuna", missing)
    assert run("random", TASK)
    with pytest.raises(Exception, match="needs Optuna"):
        run("tpe", TASK)
