"""Training speed of PPO with a TCN-GNN-LSTM; prints the table and writes it as JSON.

    python benchmarks/encoders.py --out runs/encoders.json

5 assets, 44 features, windows of 60 of 1,000 bars, 64 lanes, 4 epochs, minibatches of 512, the
small preset. Plain wiring is what SB3 gives: DummyVecEnv over single environments, windows as
observations, shuffled minibatches. The fast path is the same network on index observations: each
bar is encoded once per minibatch of grouped samples, once per rollout, or once for all if frozen.
Steps per second count rollouts and updates. Plain wiring is measured on shorter rollouts: its time
is proportional to the steps.
"""

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from agents import bind_market, make_sb3_vec_env
from agents.policies import PerAssetActorCriticPolicy
from agents.rollouts import GroupedRolloutBuffer
from portfolio_env import Market, PortfolioEnv, load_market
from portfolio_env.features import FeaturePipeline
from portfolio_env.files import replacing

LANES, WINDOW, BARS, FEATURES = 64, 60, 1000, 44
ENCODER = "tcn_gnn_lstm_small"


def market() -> Market:
    """Synthetic bars with the first features of two groups."""
    panel = load_market(f"synthetic?assets=5&bars={BARS + WINDOW + 200}").panel
    names = FeaturePipeline("technical,liquidity").transform(panel).feature_names[:FEATURES]
    return FeaturePipeline(names).fit(panel, 600).transform(panel)


def steps_per_second(market: Market, steps: int, fast: bool, **extractor: Any) -> float:
    """Of one rollout of some steps per lane and its update, after a first one."""
    options: dict[str, Any] = {
        "window": WINDOW,
        "start": market.n_bars - BARS,
        "episode_length": 250,
        "random_start": True,
    }
    network = {"n_features": FEATURES, "window": WINDOW, "encoder": ENCODER, **extractor}
    settings: dict[str, Any] = {
        "n_steps": steps,
        "batch_size": 512,
        "n_epochs": 4,
        "policy_kwargs": {"features_extractor_kwargs": network},
        "device": "cpu",
        "seed": 0,
    }
    if fast:
        venv = make_sb3_vec_env(market, num_envs=LANES, observation="index", **options)
        settings |= {"rollout_buffer_class": GroupedRolloutBuffer, "normalize_advantage": False}
    else:
        venv = DummyVecEnv([lambda: PortfolioEnv(market, **options) for _ in range(LANES)])
    agent = PPO(PerAssetActorCriticPolicy, venv, **settings)
    bind_market(agent, market)
    agent.learn(LANES * steps)
    start = perf_counter()
    agent.learn(LANES * steps)
    return LANES * steps / (perf_counter() - start)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/encoders.json"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    th.set_num_threads(arguments.threads)
    data = market()
    rates = {
        "plain wiring": steps_per_second(data, 8, fast=False),
        "fast path": steps_per_second(data, 256, fast=True),
        "fast path, true past": steps_per_second(
            data, 256, fast=True, encoder_kwargs={"history": "past"}
        ),
        "fast path, frozen": steps_per_second(
            data, 256, fast=True, embedding_kwargs={"frozen": True}
        ),
    }
    for name, rate in rates.items():
        ratio = rate / rates["plain wiring"]
        print(f"{name:<24}{rate:>10,.0f} steps/s{ratio:>10,.1f} x", flush=True)
    facts = {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("torch", "stable-baselines3")},
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    with replacing(arguments.out) as beside:
        beside.write_text(json.dumps(facts | {"steps_per_second": rates}, indent=2) + "\n")


if __name__ == "__main__":
    main()
