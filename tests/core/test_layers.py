"""Importing the environment package must not import what only training or downloading needs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "torch", "stable_baselines3", "tensorboard", "ccxt", "matplotlib", "skfolio", "ta", "arch",
    "statsmodels",
}  # fmt: skip


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


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("portfolio_env", {"agents", "baselines"}), ("agents", {"baselines"})],
)
def test_imports_go_one_way(package, forbidden):
    """Also those inside functions: see CONTRIBUTING.md."""
    for file in (Path(__file__).parents[2] / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in getattr(node, "names", ())]
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif not isinstance(node, ast.Import):
                continue
            assert not forbidden & {name.partition(".")[0] for name in names}, file
