"""Mutation test: small faults in the code of money and evidence that the tests do not notice.

    python benchmarks/mutants.py                        # every module, hours
    python benchmarks/mutants.py portfolio_env/simulation/costs.py --minutes 10

Every module of ``mutants.toml`` is changed in one place at a time by cosmic-ray (a sign, a
comparison, a constant, a condition), in a copy of the checkout, and its tests run on the change; a
mutant that they pass survives. The economics run as plain Python (``NUMBA_DISABLE_JIT``), so that
nothing is compiled again and no old machine code answers.

Killed mutants are remembered in ``runs/mutants.json`` and not run again unless ``--fresh`` is
given: tests may be added, but a test that is weakened needs a fresh run. Those that no test can
kill are listed in ``mutants.toml`` with the reason, and not run again either, each of them taking
the time of all tests. Other survivors run again. Exit code 1 if there are any.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib
import inspect
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

os.environ["NUMBA_DISABLE_JIT"] = os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from _pytest.main import pytest_runtestloop as run_tests
from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import use_db

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "benchmarks" / "mutants.toml").read_text())
MEMORY = ROOT / "runs" / "mutants.json"
# Asserts stay as they are: to rewrite those of hypothesis took most of the time of a mutant.
PYTEST = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "--assert=plain"]
PYTEST += ["--hypothesis-profile=mutants", "--tb=native"]  # others look for sources everywhere
# One wrong operator in the place of each, the likeliest slip; others fail on floats at once.
OPERATORS = re.compile(
    r"core/(ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_Div|Div_Mul|Mod_Mul|Pow_Mul|FloorDiv_Mul"
    r"|BitOr_BitAnd|BitAnd_BitOr)"
    r"|ReplaceComparisonOperator_(Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt|Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is)"
    r"|ReplaceUnaryOperator_USub_UAdd|AddNot|NumberReplacer"
    r"|Replace(TrueWithFalse|FalseWithTrue|AndWithOr|OrWithAnd|BreakWithContinue|ContinueWithBreak)"
    r"|ZeroIterationForLoop)$"
)


class Mutant(NamedTuple):
    """Change of one place, named by what it does and not by where that is."""

    key: str
    line: int
    code: str  # of the whole module


def mutants(module: str, tree: Path) -> Iterator[Mutant]:
    """Return the mutants of a module that change what it does."""
    code = (tree / module).read_text()
    idle = idle_lines(code)
    with use_db(str(tree / "session.sqlite")) as database:
        init([Path(module)], database, {})
        items = list(database.work_items)
    seen: Counter[str] = Counter()
    for item in sorted(items, key=lambda item: item.mutations[0].start_pos):
        (mutation,) = item.mutations
        line = mutation.start_pos[0]
        if not OPERATORS.match(mutation.operator_name) or line in idle:
            continue
        operator = get_operator(mutation.operator_name)()
        changed = mutate_code(code, operator, mutation.occurrence)
        key = f"{mutation.definition_name}: {difference(code, changed)}"
        seen[key] += 1
        if seen[key] > 1:
            key += f" ({seen[key]})"
        yield Mutant(key, line, changed or code)


def difference(before: str, after: str) -> str:
    """Return the changed lines, without their indentation."""
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    changed = [(a.strip(), b.strip()) for a, b in pairs if a != b]
    return " | ".join(f"{a} -> {b}" for a, b in changed[:1])


def idle_lines(code: str) -> set[int]:
    """Return lines of no interest: signatures (annotations, defaults), docstrings, error texts."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef):
            lines |= set(range(node.lineno, node.body[0].lineno))
        elif (
            isinstance(node, ast.Raise | ast.Import | ast.ImportFrom)
            or (isinstance(node, ast.AnnAssign) and node.value is None)
            or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        ):
            lines |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def functions(namespace: dict[str, Any], module: str) -> Iterator[tuple[str, FunctionType]]:
    """Yield the functions and methods that a module defines, with their names."""
    for value in list(namespace.values()):
        if isinstance(value, type) and value.__module__ == module:
            yield from functions(dict(vars(value)), module)
        elif callable(value) and not isinstance(value, type):
            plain = inspect.unwrap(value)
            if isinstance(plain, FunctionType) and plain.__module__ == module:
                yield plain.__qualname__, plain


def changed_in_place(module: str, tree: Path) -> bool:
    """Update a loaded module to its changed file; return False where it must be loaded again.

    Whoever holds one of its functions or constants gets the change: to load the package and its
    tests again took nine tenths of the time of a mutant.
    """
    name = module.removesuffix(".py").replace("/", ".")
    loaded = vars(sys.modules[name])
    fresh = {"__name__": name, "__file__": loaded["__file__"], "__package__": loaded["__package__"]}
    exec(compile((tree / module).read_text(), str(tree / module), "exec"), fresh)
    old, changes = dict(functions(loaded, name)), 0
    for label, function in functions(fresh, name):
        if function.__code__ != old[label].__code__:
            old[label].__code__ = function.__code__
            changes += 1
    for label, before in list(loaded.items()):
        if type(before) in (int, float) and fresh.get(label) != before:
            for other in list(sys.modules.values()):
                if vars(other).get(label) is before:
                    setattr(other, label, fresh[label])
            changes += 1
    return changes > 0


def passed(session: pytest.Session, limit: float, module: str | None = None) -> bool:
    """Return whether tests pass, in a fork of this process: they were loaded and collected once."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        # Ends an endless loop; in processor time, which a busy machine does not affect.
        signal.setitimer(signal.ITIMER_PROF, limit)
        code = 1
        try:
            if module and not changed_in_place(module, Path.cwd()):
                log = os.open(os.devnull, os.O_WRONLY)
                os.dup2(log, 1)
                os.dup2(log, 2)
                arguments = [*PYTEST, *SETTINGS["tests"][module]]
                os.execv(sys.executable, [sys.executable, "-m", "pytest", *arguments])
            run_tests(session)
            code = int(session.testsfailed > 0)
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


class Trials:
    """Pytest plugin that runs the tests of a module once for each of its mutants."""

    def __init__(
        self, module: str, memory: dict[str, list[str]], until: float, fresh: bool
    ) -> None:
        self.module, self.memory, self.until = module, memory, until
        self.killed, self.count = set(memory.get(module, [])), Counter[str]()
        self.excused = SETTINGS["explained"].get(module, {})
        self.known = {} if fresh else dict.fromkeys(self.excused, "explained")
        self.known |= dict.fromkeys(self.killed, "killed")
        self.sound = False  # whether the tests pass without a mutant

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try every mutant in the place of running the tests."""
        gc.freeze()  # forks look for garbage several times
        started = time.monotonic()
        self.sound = passed(session, 600)
        limit = 10 + 3 * (time.monotonic() - started)
        for mutant in mutants(self.module, Path.cwd()) if self.sound else ():
            outcome = self.known.get(mutant.key)
            if outcome is None and time.monotonic() > self.until:
                outcome = "not run"
            elif outcome is None:
                Path(self.module).write_text(mutant.code)
                outcome = "survived" if passed(session, limit, self.module) else "killed"
            self.note(mutant, outcome)
        return True

    def note(self, mutant: Mutant, outcome: str) -> None:
        """Count a verdict, run or known; print a survivor, remember what was killed."""
        if outcome == "survived" and mutant.key in self.excused:
            outcome = "explained"
        self.count[outcome] += 1
        if outcome == "survived":
            print(f"  line {mutant.line}: {mutant.key}", file=sys.__stdout__, flush=True)
        elif outcome == "killed":
            self.killed.add(mutant.key)
        self.memory[self.module] = sorted(self.killed)
        MEMORY.write_text(json.dumps(self.memory, indent=1))


def copied_checkout() -> Path:
    """Copy what the tests need to a folder whose sources may be changed."""
    tree = Path(tempfile.mkdtemp(prefix="mutants-"))
    for name in ("portfolio_env", "agents", "baselines", "benchmarks", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tree)
    return tree


def main() -> None:
    """Run the mutants; print the survivors as they are found, and the score of every module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="of mutants.toml; all without")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after as many")
    parser.add_argument("--fresh", action="store_true", help="run the killed ones again")
    options = parser.parse_args()
    modules = options.modules or list(SETTINGS["tests"])
    memory = json.loads(MEMORY.read_text()) if MEMORY.exists() and not options.fresh else {}
    until = time.monotonic() + 60 * options.minutes
    unexplained = 0
    MEMORY.parent.mkdir(exist_ok=True)
    tree = copied_checkout()
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    sys.dont_write_bytecode = True  # it would be taken for that of the next mutant
    for library in SETTINGS["libraries"]:
        importlib.import_module(library)
    try:
        for module in modules:
            trials, before = Trials(module, memory, until, options.fresh), Path(module).read_text()
            with Path("pytest.log").open("w") as log, redirect_stdout(log):
                pytest.main([*PYTEST, "--capture=no", *SETTINGS["tests"][module]], [trials])
            Path(module).write_text(before)
            if not trials.sound:
                text = Path("pytest.log").read_text()[-3000:]
                raise SystemExit(f"{module}: the tests fail without a mutant:\n{text}")
            count = trials.count
            print(
                f"{module}: {count['killed']} of {count.total()} mutants killed, "
                f"{count['survived']} survived, {count['explained']} more explained, "
                f"{count['not run']} not run",
                flush=True,
            )
            unexplained += count["survived"]
    finally:
        os.chdir(ROOT)
        shutil.rmtree(tree)
    raise SystemExit(bool(unexplained))


if __name__ == "__main__":
    main()
