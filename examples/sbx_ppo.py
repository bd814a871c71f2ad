"""PPO of SBX, Stable-Baselines3 in JAX, over the project's SB3 environment.

    python examples/sbx_ppo.py

SBX's policies are JAX networks of one vector, so ``observation="flat"`` it is, and the policies of
``agents``, which are torch, do not apply.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import OPTIONS, Clock, judge, replay
from sbx import PPO
from stable_baselines3.common.callbacks import BaseCallback

from agents import make_sb3_vec_env

LANES, STEPS, UPDATES, SEED, LANE = 256, 32, 25, 0, 85


class Recorder(BaseCallback):
    """Keeps one lane's steps; SB3 adds bootstrapped values to the rewards of its buffer later."""

    def _on_step(self) -> bool:
        given = (self.locals[name] for name in ("clipped_actions", "rewards", "dones"))
        self.record.append([np.array(each[LANE]) for each in given])
        return True

    def _init_callback(self) -> None:
        self.record: list[list[Any]] = []


def main() -> None:
    """Train, replay one lane, compare with equal weight."""
    options = OPTIONS | {"observation": "flat", "stagger": True}
    venv = make_sb3_vec_env(options.pop("market"), LANES, seed=SEED, **options)
    model = PPO(
        "MlpPolicy",
        venv,
        learning_rate=lambda left: 1e-3 * left,
        n_steps=STEPS,
        batch_size=LANES * STEPS // 4,
        n_epochs=5,
        gamma=0.9,
        policy_kwargs={"log_std_init": -0.5},
        seed=SEED,
    )
    clock, recorder = Clock(), Recorder()
    model.learn(UPDATES * STEPS * LANES, callback=recorder)
    print(clock.speed(UPDATES * STEPS * LANES))

    parts = [np.stack(part) for part in zip(*recorder.record, strict=True)]
    print(replay(*parts, SEED + LANE))
    print(judge(lambda shown: model.predict(shown, deterministic=True)[0]))


if __name__ == "__main__":
    main()
