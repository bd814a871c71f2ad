"""Settings of trainings that take seconds, and the command line."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.config import TrainConfig

ROOT = Path(__file__).parents[1]
MARKET = "synthetic?bars=400&assets=10"


def small(out: Path, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        market=MARKET, timesteps=8192, num_envs=64, episode_length=50, out=str(out), device="cpu"
    )
    return replace(config, **changes)


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *arguments]
