"""Settings of trainings that take seconds, and the command line."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import Logger

from agents.saving import save_agent
from agents.tensors import SUFFIX
from agents.training.config import TrainConfig
from agents.training.curriculum import direct_agent
from agents.training.run_folder import create_run, save_checkpoint
from agents.training.train import new_agent
from portfolio_env.files.atomic import write_json

ROOT = Path(__file__).parents[2]
MARKET = "synthetic?bars=400&assets=10"


def small(out: Path, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        market=MARKET, timesteps=8192, num_envs=64, episode_length=50, out=str(out), device="cpu"
    )
    return replace(config, **changes)


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *arguments]


def made_run(path: Path, *, finished: bool = True, **changes: Any) -> Path:
    """A run folder as `train` leaves it, of an agent that was not trained."""
    config = small(path, **changes).resolved()
    market, ranges = config.load_market()
    create_run(path, config, market, ranges, "train.py --seed 0")
    if config.algo == "direct":
        agent: Any = direct_agent(config, market, forecasts=False)
        for name in ("best", "final"):
            agent.save(path / f"{name}_model{SUFFIX}")
    else:
        agent = new_agent(config, market, ranges)
        write_json(
            path / "validation.json",
            {
                "validations": [
                    {"timesteps": step, "growth": g, "excess_growth": g - 0.07, "turnover": 0.01}
                    for step, g in ((0, 0.09), (64, 0.1))
                ]
            },
        )
        agent.set_logger(Logger(None, []))
        agent._setup_learn(8192, None)
        save_checkpoint(path, agent)
        for name in ("best", "final") if finished else ("best",):
            save_agent(agent, path / f"{name}_model{SUFFIX}")
    return path
