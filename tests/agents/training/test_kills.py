"""A few processes are killed at random moments; `make kills` kills many."""

import random
from pathlib import Path

import pytest

from benchmarks import kills


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sac", "walk_forward"])
def test_killed_trainings_end_as_undisturbed_ones(name: str, tmp_path: Path) -> None:
    counts = kills.SCENARIOS[name](tmp_path, 3, random.Random(1))
    assert counts["kills"] == 3 and counts["works"] >= 1


def test_what_differs_is_named() -> None:
    first = {"files": {"a": "1", "b": "2"}, "strays": []}
    second = {"files": {"a": "1", "b": "3", "c": "4"}, "strays": ["x"]}
    assert kills.differences(first, second) == ["/files/b", "/files/c", "/strays"]
    assert kills.differences(first, first) == []
