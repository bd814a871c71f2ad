"""Checks of arguments: what they let through, and that a refusal names value and bound."""

import inspect
import math
import os
import pickle
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import PortfolioConstraints, TransactionCosts
from portfolio_env.checks import check_choice, check_integer, check_number
from portfolio_env.command_line import exit_status, read_arguments
from portfolio_env.errors import ArgumentError, DataError

NUMBERS = st.one_of(st.integers(), st.floats(), st.floats(width=32).map(np.float32))


@given(NUMBERS, st.floats(-10, 10), st.floats(-10, 10), st.booleans(), st.booleans())
def test_numbers_pass_exactly_within_their_bounds(value, low, high, above, below):
    bounds = {"above" if above else "low": low, "below" if below else "high": high}
    plain = value.item() if isinstance(value, np.generic) else value  # compared as it is, unrounded
    inside = (plain > low if above else plain >= low) and (plain < high if below else plain <= high)
    if inside:
        found = check_number("x", value, **bounds)
        assert found == value
        assert type(found) in (int, float)  # as JSON holds them
    else:
        with pytest.raises(ArgumentError, match=r"^x=.* must be a finite number in [\[(]"):
            check_number("x", value, **bounds)


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ({}, "a finite number."),
        ({"low": 0}, "a finite number of 0 or more."),
        ({"above": 0}, "a finite number above 0."),
        ({"high": 2.5}, "a finite number of at most 2.5."),
        ({"below": 1}, "a finite number below 1."),
        ({"low": 0, "below": 1}, "a finite number in [0, 1)."),
        ({"above": 0, "high": 2**31 - 1}, "a finite number in (0, 2147483647]."),
    ],
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, None, "1", [1]])
def test_what_is_no_finite_number_is_refused_with_the_bounds(bounds, text, value):
    with pytest.raises(ArgumentError) as refused:
        check_number("x", value, **bounds)
    assert str(refused.value) == f"x={value!r} must be {text}"


@given(st.integers(), st.integers(-5, 5), st.none() | st.integers(-5, 5))
def test_integers_pass_exactly_within_their_bounds(value, low, high):
    if low <= value and (high is None or value <= high):
        assert check_integer("x", value, low, high) == value
    else:
        with pytest.raises(ArgumentError, match=r"^x=.* must be an integer (of|in) "):
            check_integer("x", value, low, high)


@pytest.mark.parametrize("value", [1.0, True, "1", None, np.float64(1), np.bool_(True)])
def test_what_is_no_integer_is_refused(value):
    with pytest.raises(ArgumentError, match="must be an integer of 1 or more"):
        check_integer("x", value)


def test_choices_are_named():
    assert check_choice("x", "a", ("a", "b")) == "a"
    for wrong in ("c", None, ["a"]):
        with pytest.raises(ArgumentError, match=r"^x=.* must be one of 'a', 'b'\.$"):
            check_choice("x", wrong, ("a", "b"))
    with pytest.raises(ArgumentError, match=r"one of 'single', 'ward'; did you mean single\?$"):
        check_choice("linkage", "singel", ("single", "ward"))


@pytest.mark.parametrize(
    ("kind", "wrong", "right"),
    [
        (TransactionCosts, "comission_bps", "commission_bps"),
        (PortfolioConstraints, "maxweight", "max_weight"),
    ],
)
def test_a_misspelt_field_is_refused_with_the_nearest(kind, wrong, right):
    message = f"{kind.__name__} has no field '{wrong}'; did you mean '{right}'?"
    with pytest.raises(ArgumentError, match=re.escape(message)):
        kind(**{wrong: 1})
    kept = kind(**{right: 0.5})
    assert pickle.loads(pickle.dumps(kept)) == kept == replace(kind(), **{right: 0.5})
    assert list(inspect.signature(kind).parameters) == [each.name for each in fields(kind)]


@pytest.mark.skipif(os.name != "posix", reason="pipes are asked by poll")
@pytest.mark.parametrize("work", ["print('x' * 10**6)", "print('x')", "raise SystemExit(print(1))"])
def test_a_closed_pipe_ends_quietly(work):
    code = f"""import sys
from portfolio_env.command_line import exit_status, read_arguments
def work():
    sys.stdin.read()  # until the other end is closed
    {work}
sys.exit(exit_status(work, stopped=""))"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_another_closed_pipe_is_an_error(capsys):
    def lost():
        raise BrokenPipeError(32, "Broken pipe")

    assert exit_status(lost, stopped="") == 1
    assert "Broken pipe" in capsys.readouterr().err


def test_a_null_character_ends_in_one_line(tmp_path, capsys):
    assert exit_status(lambda: open(f"{tmp_path}/a\0b").close(), stopped="") == 1
    told = capsys.readouterr().err
    assert "null character" in told and told.count("\n") == 1
    with pytest.raises(ValueError, match="of the program itself"):
        exit_status(lambda: int(raised()), stopped="")


@dataclass
class Typed:
    """Settings to type."""

    size: int = 1
    """Number of lanes."""
    share: float | None = None
    """Share of it."""
    kind: Literal["a", "b"] | None = None
    """Kind of it."""
    folder: Path | None = None
    """Where it goes."""
    rate: float | tuple[float, ...] | dict[str, float] = 0.0
    """Costs of all, of each, or by name."""
    stress: str = ""
    """Scenarios, or none."""


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("--size x", "--size: 'x' is not an integer"),
        ("--share x", "--share: 'x' is not a number"),
        ("--rate x", "--rate: 'x' is not a number, numbers, or names each followed by a number"),
        ("--kind c", "Expected one of ('a', 'b', 'None')"),
        ("--folder", "missing value for argument '--folder'"),
        ("--foldr here", "--foldr, here; perhaps --folder is meant"),
        ("nothing", "unrecognized options: nothing"),
    ],
)
@pytest.mark.skipif(version("tyro").startswith("0."), reason="tyro before 1 says it otherwise")
def test_a_wrong_option_is_told_in_one_line(typed, told, capsys):
    with pytest.raises(SystemExit, match="2"):
        read_arguments(Typed, args=typed.split(), prog="job.py")
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("error: ") and told in said.err
    assert said.err.endswith("; see job.py --help\n")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["--folder", ""], "--folder is empty"),
        (["--folder="], "--folder is empty"),
        (["--stress", "", ""], "an argument is empty"),
        ([""], "an argument is empty"),
    ],
)
def test_an_empty_argument_is_refused_which_as_a_path_would_be_this_folder(typed, told, capsys):
    with pytest.raises(SystemExit, match="2"):
        read_arguments(Typed, args=typed, prog="job.py")
    assert capsys.readouterr().err == f"error: {told}; give a value or leave it out\n"
    for empty in (["--stress", ""], ["--stress="]):
        assert read_arguments(Typed, args=[*empty, "--folder", "a="]) == Typed(folder=Path("a="))


def test_an_optional_setting_is_read_as_what_it_is():
    found = read_arguments(Typed, args=["--share=2", "--kind=b", "--folder=x", "--size=3"])
    assert found == Typed(3, 2.0, "b", Path("x"))
    assert read_arguments(Typed, args=["--share=None", "--kind=None"]) == Typed()


def raised():
    raise ValueError("of the program itself")


def test_a_command_is_recorded_as_it_can_be_typed_again(tmp_path):
    package = tmp_path / "typed"
    package.mkdir()
    code = "from portfolio_env.command_line import command_text\nprint(command_text())\n"
    for name in ("typed/__main__.py", "typed/part.py", "alone.py"):
        (tmp_path / name).write_text(code)
    (package / "__init__.py").touch()
    for how, told in (
        (["-m", "typed"], "python -m typed 'a b'"),
        (["-m", "typed.part"], "python -m typed.part 'a b'"),
        (["alone.py"], "alone.py 'a b'"),
    ):
        given = [sys.executable, *how, "a b"]
        root = Path(__file__).parents[2]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (tmp_path, root)))}
        done = subprocess.run(given, capture_output=True, text=True, cwd=tmp_path, env=env)
        assert done.stdout.strip() == told


def test_a_thread_that_the_system_refuses_leaves_its_error_to_who_waits(capsys):
    def started(error):
        def fail():
            raise error

        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        raise DataError("told once")

    before, seen = threading.excepthook, []
    threading.excepthook = seen.append
    try:
        assert exit_status(lambda: started(OSError(28, "full")), stopped="") == 1 and not seen
        assert exit_status(lambda: started(ZeroDivisionError()), stopped="") == 1
        assert seen[0].exc_type is ZeroDivisionError and threading.excepthook == seen.append
    finally:
        threading.excepthook = before
    assert capsys.readouterr().err == "error: told once\n" * 2


def test_what_the_system_refuses_is_told_with_its_path_and_a_fix(capsys):
    def refused():
        raise PermissionError(13, "Permission denied", "run/config.json")

    assert exit_status(refused, stopped="") == 1
    assert capsys.readouterr().err == (
        "error: run/config.json cannot be read or written (Permission denied); check that it is "
        "there, its rights and the room on its disk\n"
    )
