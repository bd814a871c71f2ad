"""No compiled loop has the form that numba compiles wrongly for processors with AVX-512."""

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest
from helpers.vectorised import Sources
from numba import njit

from portfolio_env import PortfolioConstraints

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("portfolio_env", "agents", "baselines", "benchmarks")


def both_under_a_condition(w, fixed, kept, out):
    for i in range(kept.shape[0]):
        if not kept[i]:
            w[i + 1] = 0.0
            out[i] = True


def both_after_continue(w, fixed, kept, out):
    for i in range(kept.shape[0]):
        if kept[i]:
            continue
        w[i + 1] = 0.0
        out[i] = True


def flags_alone(w, fixed, kept, out):
    for i in range(kept.shape[0]):
        if not kept[i]:
            out[i] = True


def weights_alone(w, fixed, kept, out):
    for i in range(kept.shape[0]):
        if not kept[i]:
            w[i + 1] = 0.0


def both_without_a_branch(w, fixed, kept, out):
    for i in range(kept.shape[0]):
        w[i + 1] = w[i + 1] if kept[i] else 0.0
        out[i] = out[i] or not kept[i]


def both_in_two_loops(w, fixed, kept, out):
    for i in range(kept.shape[0]):
        if not kept[i]:
            out[i] = True
    for i in range(kept.shape[0]):
        if not kept[i]:
            w[i + 1] = 0.0


WRONG = (both_under_a_condition, both_after_continue)
RIGHT = (flags_alone, weights_alone, both_without_a_branch, both_in_two_loops)
TYPED = "(w: Float, fixed: Bool, kept: Bool, out: Bool)"


def mixed_loops(*sources: str, every: bool = False) -> list[str]:
    found = Sources()
    for source in sources:
        found.add(source, every)
    return found.mixed()


@pytest.mark.parametrize("function", WRONG)
def test_the_form_is_found(function):
    source = inspect.getsource(function)
    for text in (source, source.replace("(w, fixed, kept, out)", TYPED)):
        assert len(mixed_loops(text, every=True)) == 1
        assert not mixed_loops(text)  # it is not compiled
        assert mixed_loops("@kernel\n" + text) == mixed_loops("@numba.njit(cache=True)\n" + text)


@pytest.mark.parametrize("function", RIGHT)
def test_the_forms_that_are_right_are_not_taken_for_it(function):
    assert not mixed_loops(inspect.getsource(function), every=True)


def test_it_is_found_through_the_functions_that_a_loop_calls():
    mark = "@inlined\ndef mark(w: Float, out: Bool, i: int):\n    w[i], out[i] = 0.0, True\n"
    loop = "@kernel\ndef f(w: Float, out: Bool):\n    for i in range(9):\n        if w[i] > 0:\n"
    assert mixed_loops(mark + loop + "            mark(w, out, i)\n") == ["f:6"]
    fields = "class Lanes(NamedTuple):\n    held: Float\n    flags: Bool\n"
    typed = loop.replace("w: Float, out: Bool", "w: Lanes")
    assert mixed_loops(fields + typed + "            w.held[i] = w.flags[i] = 0\n") == ["f:6"]
    assert not mixed_loops(fields + typed + "            w.held[i] = w.held[i + 1] = 0\n")


def test_no_compiled_loop_of_the_repository_has_the_form():
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    found = Sources()
    for path in paths:
        found.add(path.read_text())
    names = set(found.functions)
    assert {"_step_lanes", "target_lane", "project_lane", "highest", "geometric_median"} <= names
    assert len(names) > 30
    assert all(isinstance(one, ast.FunctionDef) for one in found.functions.values())
    assert found.mixed() == []


def draws(count: int):
    rng = np.random.default_rng(0)
    for _ in range(count):
        n = int(rng.choice([32, 50, 64, 100, 200]))
        fixed = rng.random(n) < 0.4
        yield rng.dirichlet(np.ones(n + 1)), fixed, fixed | (rng.random(n) < 0.3)


@pytest.mark.parametrize("function", RIGHT)
def test_the_forms_that_the_package_uses_are_compiled_rightly(function):
    compiled = njit(function)
    for w, fixed, kept in draws(300):
        ours, theirs = (w.copy(), fixed.copy()), (w.copy(), fixed.copy())
        compiled(ours[0], fixed, kept, ours[1])
        function(theirs[0], fixed, kept, theirs[1])
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_the_largest_are_kept_however_the_loop_is_compiled():
    """Numba may be wrong about the form on this processor, or not: nothing here relies on it."""
    compiled, function = njit(both_under_a_condition), both_under_a_condition
    wrong = 0
    for w, fixed, kept in draws(300):
        one, other = (w.copy(), fixed.copy()), (w.copy(), fixed.copy())
        compiled(one[0], fixed, kept, one[1])
        function(other[0], fixed, kept, other[1])
        wrong += not all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))
        places = max(0, 4 - np.count_nonzero(w[1:][fixed]))
        largest = np.argsort(-np.where(fixed, -1.0, w[1:]), kind="stable")[:places]
        out = PortfolioConstraints(top_k=4, max_weight=0.5).project(w, fixed)
        note = f"numba is wrong about the form in {wrong} draws so far"
        assert abs(out.sum() - 1) < 1e-12, note
        assert (out[1:][fixed] == w[1:][fixed]).all(), note
        assert set(np.flatnonzero(out[1:] * ~fixed)) <= set(largest), note
