"""Train by the RL Baselines3 Zoo, from a file of hyperparameters; the command is printed.

    python examples/rl_zoo3_ppo.py

The zoo makes single environments by their id. It keeps returns of episodes, not actions: what is
replayed is the evaluation that its best model comes from.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import OPTIONS, judge
from stable_baselines3 import PPO

from portfolio_env import PortfolioEnv

SETTINGS = Path(__file__).with_name("rl_zoo3_ppo.yml")
EVALUATION = OPTIONS | {"observation": "flat", "random_start": False}


def main() -> None:
    """Train, replay the best evaluation, compare with equal weight."""
    with TemporaryDirectory() as folder:
        command = ["-m", "rl_zoo3.train", "--algo", "ppo", "--env", "Portfolio-v0"]
        command += ["--gym-packages", "portfolio_env", "--conf-file", str(SETTINGS)]
        command += ["--eval-env-kwargs", *(f"{key}:{value!r}" for key, value in EVALUATION.items())]
        command += ["--eval-freq", "40000", "--eval-episodes", "1", "--n-eval-envs", "1"]
        command += ["--num-threads", "1", "--seed", "0", "--verbose", "0", "--log-folder", folder]
        print("python", shlex.join(command))
        subprocess.run([sys.executable, *command], check=True)
        run = Path(folder, "ppo", "Portfolio-v0_1")
        recorded = float(np.load(run / "evaluations.npz")["results"].max())
        model = PPO.load(run / "best_model.zip", device="cpu")

    env = PortfolioEnv(**EVALUATION)
    observation, _ = env.reset()
    total, ended = 0.0, False
    while not ended:
        action, _ = model.predict(observation, deterministic=True)
        observation, reward, terminated, truncated, _ = env.step(action)
        total, ended = total + reward, terminated or truncated
    assert abs(total - recorded) <= 1e-6 * max(1.0, abs(total)), (total, recorded)
    print(f"the best evaluation, a return of {recorded:.6f}, replays exactly")
    print(judge(lambda shown: model.predict(shown, deterministic=True)[0]))


if __name__ == "__main__":
    main()
