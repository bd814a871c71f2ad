"""Importing the environment package must not import what only training or downloading needs."""

import subprocess
import sys

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
