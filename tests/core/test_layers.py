"""Imports go downwards only, rooms stay small, and what is public is what their lists say."""

import ast
import importlib
import json
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Each layer imports from itself and from those before it. The longest prefix of a module counts.
LAYERS = (
    (
        "portfolio_env.errors portfolio_env.checks portfolio_env.names portfolio_env.files "
        "portfolio_env.code_cache portfolio_env.compiled portfolio_env.plotting portfolio_env.html "
        "portfolio_env.command_line portfolio_env.machine portfolio_env.metrics"
    ),
    "portfolio_env.market portfolio_env.resampling",
    "portfolio_env.features",
    "portfolio_env.data portfolio_env.simulation",
    (
        "portfolio_env portfolio_env.env portfolio_env.vector_env portfolio_env.observations "
        "portfolio_env.rendering"
    ),
    "portfolio_env.evaluation portfolio_env.live",
    "portfolio_env.paper",
    "agents.networks agents.losses agents.tensors agents.progress",
    ("agents.encoding agents.market_extractor agents.actor_critic agents.forecasts agents.fitting"),
    "agents.inspection agents.policies",
    "agents.direct agents.sb3",
    "agents.saving agents.settings",
    "agents.compute agents.training agents.run_market agents.supervised",
    "agents agents.store",
    "agents.sweep",
    "baselines",
    "agents.search",
    "agents.trading agents.supervised.run",
    "train sweep evaluate trade agents.supervised.__main__",
)
PLACE = {name: place for place, layer in enumerate(LAYERS) for name in layer.split()}
SEPARATE = ("portfolio_env.data", "portfolio_env.simulation")  # of one layer, and no neighbours
MOST_FILES = 15
PUBLIC_NAMES = Path(__file__).with_name("public_names.json")
HEAVY = {
    "torch", "stable_baselines3", "tensorboard", "ccxt", "matplotlib", "skfolio", "ta", "arch",
    "statsmodels",
}  # fmt: skip


def modules():
    """Every module of the product, with its file."""
    found = {
        "train": ROOT / "train.py",
        "evaluate": ROOT / "evaluate.py",
        "trade": ROOT / "trade.py",
        "sweep": ROOT / "sweep.py",
    }
    for package in ("portfolio_env", "agents", "baselines"):
        for file in (ROOT / package).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


def imports(name, *, typing_too=True):
    """The modules of the product that a module imports, also inside functions."""
    found = set()
    waiting = [ast.parse(MODULES[name].read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {one if one in MODULES else node.module for one in whole}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if typing_too or getattr(getattr(node, "test", None), "id", "") != "TYPE_CHECKING":
            waiting += ast.iter_child_nodes(node)
    return (found & MODULES.keys()) - {name}


def room(name):
    """The longest prefix of a module that has a place."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next(prefix for prefix in prefixes if prefix in PLACE)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_downwards(name):
    own = room(name)
    for other in map(room, imports(name)):
        assert PLACE[other] <= PLACE[own], f"{name} imports {other}, which is above it"
        if own != other:
            assert not {own, other} <= set(SEPARATE), f"{name} imports its neighbour {other}"


def test_no_circle_of_imports():
    """Names for annotations alone (``TYPE_CHECKING``) are no imports when the program runs."""
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            path.append(name)
            for other in sorted(imports(name, typing_too=False)):
                visit(other)
            done.add(path.pop())

    for name in MODULES:
        visit(name)


def test_no_room_is_crowded():
    files = [
        *MODULES.values(),
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
    ]
    crowded = {room: n for room, n in Counter(f.parent for f in files).items() if n > MOST_FILES}
    assert not crowded


def test_public_names_are_frozen():
    """What a room lists is a promise: a change belongs into this list and into the CHANGELOG."""
    found = {}
    for name in sorted(name for name, file in MODULES.items() if file.stem == "__init__"):
        package = importlib.import_module(name)
        if listed := sorted(getattr(package, "__all__", ())):
            assert all(hasattr(package, public) for public in listed)
            found[name] = listed
    assert found == json.loads(PUBLIC_NAMES.read_text())


@pytest.mark.parametrize(
    "code",
    [
        "import portfolio_env",
        "import portfolio_env.evaluation, portfolio_env.rendering",
        "import gymnasium; gymnasium.make('portfolio_env:Portfolio-v0').reset(seed=0)",
    ],
)
def test_the_core_imports_nothing_heavy(code):
    code += "; import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert not HEAVY & set(done.stdout.split())


def test_explained_mutants_change_lines_that_are_there():
    """A reason for a line of earlier code excuses nothing, and hides that the new one has none."""
    explained = tomllib.loads((ROOT / "benchmarks" / "mutants.toml").read_text())["explained"]
    for module, reasons in explained.items():
        lines = {line.strip() for line in (ROOT / module).read_text().splitlines()}
        for key in reasons:
            change = key.partition(": ")[2]
            arrows = [at for at in range(len(change)) if change.startswith(" -> ", at)]
            assert any(change[:at] in lines for at in arrows), f"{module}: {key}"
