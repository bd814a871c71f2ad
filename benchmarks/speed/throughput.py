"""Steps per second of the environments, on one core; prints the table and writes it as JSON.

    python benchmarks/speed/throughput.py --out runs/throughput.json

Every line runs blocks of about half a second and reports their median. Actions are drawn before;
resets at the end of episodes, from random starts, are part of the time. Costs are 10 bp, solved
exactly, and the markets are synthetic. Gymnasium's CartPole in the same run shows how fast the
machine is.
"""

import argparse
import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv, CartPoleVectorEnv

from agents import IndexReplayBuffer, bytes_per_transition, make_sb3_vec_env
from portfolio_env import PortfolioEnv, PortfolioVectorEnv, load_market
from portfolio_env.files.atomic import replacing

BLOCKS, BLOCK_SECONDS = 9, 0.5
EPISODE: dict[str, Any] = {"episode_length": 250, "random_start": True}
MARKETS = {assets: load_market(f"synthetic?assets={assets}&bars=3000") for assets in (5, 30)}

Step = Callable[[Any], Any]


def single_env(env: gym.Env[Any, Any]) -> tuple[Step, spaces.Space[Any], int]:
    """Return a stepping function of an environment that resets when an episode ends."""
    env.reset(seed=0)

    def step(action: Any) -> None:
        *_, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()

    return step, env.action_space, 1


def vector_env(
    env: gym.vector.VectorEnv[Any, Any, Any],
) -> tuple[Step, spaces.Space[Any], int]:
    """Return the stepping function of a vector environment, which resets by itself."""
    env.reset(seed=0)
    return env.step, env.action_space, env.num_envs


def portfolio_lanes(num_envs: int, assets: int, **options: Any) -> tuple[Step, Any, int]:
    """Return a stepping function of a PortfolioVectorEnv."""
    return vector_env(PortfolioVectorEnv(num_envs, MARKETS[assets], **options, **EPISODE))


def sb3_lanes(num_envs: int) -> tuple[Step, Any, int]:
    """Return a stepping function of the SB3 VecEnv, episode statistics included."""
    venv = make_sb3_vec_env(MARKETS[5], num_envs, seed=0, observation="index", **EPISODE)
    venv.reset()
    return venv.step, gym.vector.utils.batch_space(venv.action_space, num_envs), num_envs


CASES: dict[str, Callable[[], tuple[Step, Any, int]]] = {
    "PortfolioEnv, window 50": lambda: single_env(PortfolioEnv(MARKETS[5], window=50, **EPISODE)),
    "PortfolioEnv, index": lambda: single_env(
        PortfolioEnv(MARKETS[5], window=50, observation="index", **EPISODE)
    ),
    "PortfolioVectorEnv, 4096 lanes, index": lambda: portfolio_lanes(4096, 5, observation="index"),
    "PortfolioVectorEnv, 64 lanes, window 50, 30 assets": lambda: portfolio_lanes(
        64, 30, window=50
    ),
    "SB3 VecEnv, 256 lanes, index": lambda: sb3_lanes(256),
    "Gymnasium CartPoleEnv": lambda: single_env(CartPoleEnv()),
    "Gymnasium CartPoleVectorEnv, 1024 lanes": lambda: vector_env(CartPoleVectorEnv(1024)),
}


def steps_per_second(step: Step, action_space: spaces.Space[Any], lanes: int) -> float:
    """Return the median over blocks of lane-steps per second."""
    action_space.seed(0)
    actions = cycle([action_space.sample() for _ in range(64)])
    rates = []
    for block in range(BLOCKS + 1):
        done, start = 0, perf_counter()
        while (passed := perf_counter() - start) < BLOCK_SECONDS:
            for _ in range(16):
                step(next(actions))
            done += 16
        if block:  # the first one compiles and warms up
            rates.append(done * lanes / passed)
    return median(rates)


def stored_bytes() -> float:
    """Return memory per transition of the index replay buffer, 30 assets, window 50."""
    env = PortfolioEnv(MARKETS[30], window=50, observation="index")
    buffer = IndexReplayBuffer(1000, env.observation_space, env.action_space)  # type: ignore[arg-type]
    return bytes_per_transition(buffer)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/throughput.json"))
    out = parser.parse_args().out
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rates = {}
    for name, build in CASES.items():
        rates[name] = steps_per_second(*build())
        print(f"{name:<52}{rates[name]:>14,.0f} steps/s", flush=True)
    stored = stored_bytes()
    print(f"{'stored transition, index, 30 assets':<52}{stored:>14,.0f} bytes")
    facts = {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("gymnasium", "numpy", "numba")},
        "machine": platform.machine(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    with replacing(out) as path:
        report = {**facts, "steps_per_second": rates, "bytes_per_transition": stored}
        path.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
