"""Speed and memory of training with encoders; prints the tables and writes them as JSON.

    python benchmarks/speed/encoders.py --out runs/encoders.json

**Defaults**: PPO as train.py sets it up on sp500 (20 assets, 8 drawn, 256 lanes x 32 steps, windows
of 60 bars, 5 epochs), an encoder a row. *Default* is one real rollout and update, of which 200,000
steps take 25; beside it the time of forward and backward passes per transition of a minibatch,
with the defaults, with windows of the same network on index observations, and plain wiring: the
same windows, of the assets that are traded, from DummyVecEnv. Of plain wiring a rollout and update
of fewer transitions is measured too, to which its time is proportional.

**PPO, small market**: 5 assets, 44 features, windows of 60 of 1,000 bars, 64 lanes, 4 epochs,
minibatches of 512, the small preset. Plain wiring is what SB3 gives: DummyVecEnv over single
environments, windows as observations, shuffled minibatches. The fast path is the same network on
index observations: each bar is encoded once per minibatch of grouped samples, once per rollout, or
once for all if frozen; with streams the state runs forwards only, through blocks of 120 bars. Steps
per second count rollouts and updates. Plain wiring is measured on shorter rollouts: its time is
proportional to the steps. All take turns, and the ratio is the median over rounds.

**Epoch**: one supervised pass over 1,000 windows in gradient steps of 16, forecasts of the next
return by the small preset, as in stage 1 of a curriculum; streams in steps of 64. Beside it stands
what the same network in Keras took per epoch of as many windows (its validation included) on two
cores of such a machine.

**Replay**: SAC with a replay of a million transitions of 30 assets, filled by the environment.

With one thread, times are processor seconds, which other load disturbs least; else wall clock.
"""

import argparse
import json
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch as th
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv

from agents import (
    IndexReplayBuffer,
    bind_market,
    bytes_per_transition,
    make_agent,
    make_sb3_vec_env,
)
from agents.encoding.market_encoder import MarketEncoder
from agents.networks import make_encoder
from agents.policies import PerAssetActorCriticPolicy
from agents.sb3.buffers import GroupedRolloutBuffer
from agents.supervised.training import SupervisedOptions, SupervisedTrainer
from agents.training.config import TrainConfig
from agents.training.train import new_agent
from portfolio_env import Market, PortfolioEnv, load_market
from portfolio_env.features import FeaturePipeline
from portfolio_env.files.atomic import replacing

WINDOW, BARS, FEATURES = 60, 1000, 44
SMALL, FULL = "tcn_gnn_lstm_small", "tcn_gnn_lstm"
LANES, MINIBATCH = 64, 512
ENCODERS = ("lstm", SMALL, FULL, "gat")
STEPS = 200_000  # of a training by train.py
PLAIN_LANES, PLAIN_STEPS = 4, 16
PARTS = ("defaults", "small", "epoch", "replay")
KERAS_EPOCH = 4.3  # seconds for 1,007 windows
GIB = 2**30

Row = dict[str, Any]
STREAM: Row = {"history": "stream", "bidirectional": False}


def market(assets: int = 5) -> Market:
    """Return synthetic bars with the first features of two groups."""
    panel = load_market(f"synthetic?assets={assets}&bars={BARS + WINDOW + 200}").panel
    names = FeaturePipeline("technical,liquidity").transform(panel).feature_names[:FEATURES]
    return FeaturePipeline(names).fit(panel, 600).transform(panel)


def seconds(run: Callable[[], Any]) -> float:
    """Return seconds of the processor with one thread, else of the wall clock."""
    clock = process_time if th.get_num_threads() == 1 else perf_counter
    start = clock()
    run()
    return clock() - start


def spread(values: list[float]) -> Row:
    """Return median and range."""
    return {"median": median(values), "range": [min(values), max(values)]}


# PPO at the defaults of train.py


def by_default(encoder: str) -> Row:
    """Return the milliseconds of each way to train, per transition, and their ratios."""
    config = TrainConfig(encoder=encoder, device="cpu").resolved()
    data, ranges = config.load_market()
    agent = new_agent(config, data, ranges)
    assert isinstance(agent, PPO)
    agent.set_logger(Logger(None, []))
    rollout = agent.n_steps * agent.n_envs
    agent.learn(rollout)  # warms up
    whole = seconds(lambda: agent.learn(rollout)) / rollout
    options = config.encoder_kwargs | ({"history": "window"} if encoder != "gat" else {})
    windows = replace(config, encoder_options=json.dumps(options), start_groups=0)
    other = new_agent(windows, data, ranges)
    own = next(iter(agent.rollout_buffer.get(agent.batch_size)))
    by_bar = next(iter(_by_bar(agent).get(256)))
    plain, plain_whole = plain_wiring(config, options, data, ranges)
    own_passes = passes(agent, own)
    row = {
        "default": 1e3 * whole,
        "plain": 1e3 * plain_whole,
        "passes": {
            "default": 1e3 * own_passes,
            "windows": 1e3 * passes(other, by_bar),
            "plain": 1e3 * plain,
        },
        "ratio": plain_whole / whole,
        "ratio_of_passes": plain / own_passes,
        "minutes": STEPS * whole / 60,
    }
    print(
        f"{encoder:<20}{row['default']:>8.2f} ms{row['plain']:>9.1f} ms{row['ratio']:>8.1f} x"
        f"{row['minutes']:>8.1f} min; passes "
        + " ".join(f"{name} {value:.2f}" for name, value in row["passes"].items()),
        flush=True,
    )
    return row


def _by_bar(agent: PPO) -> GroupedRolloutBuffer:
    buffer = agent.rollout_buffer
    assert isinstance(buffer, GroupedRolloutBuffer)
    buffer.groups = None
    return buffer


def passes(agent: PPO, batch: Any) -> float:
    """Return the seconds of a forward and backward pass per transition of a minibatch."""
    agent.policy.set_training_mode(True)

    def run() -> None:
        values, log_prob, _ = agent.policy.evaluate_actions(batch.observations, batch.actions)
        (values.sum() + log_prob.sum()).backward()

    run()
    return seconds(run) / len(batch.actions)


def plain_wiring(
    config: TrainConfig, options: Row, data: Market, ranges: dict[str, tuple[int, int]]
) -> tuple[float, float]:
    """Return seconds per transition of passes, and of a rollout and update, wired as SB3 does."""
    task = config.env_options() | config.training_options(data, ranges["train"])
    task |= {"observation": "window"}
    task.pop("start_groups", None)  # of lanes, which SB3's wiring has none of
    venv = DummyVecEnv([lambda: PortfolioEnv(data, **task) for _ in range(PLAIN_LANES)])
    network = {"window": WINDOW, "encoder": config.encoder, "encoder_kwargs": options}
    agent = PPO(
        PerAssetActorCriticPolicy,
        venv,
        n_steps=PLAIN_STEPS,
        batch_size=PLAIN_LANES * PLAIN_STEPS // 2,
        n_epochs=5,
        policy_kwargs={"features_extractor_kwargs": network | {"n_features": data.n_features}},
        device="cpu",
        seed=0,
    )
    agent.set_logger(Logger(None, []))
    steps = PLAIN_LANES * PLAIN_STEPS
    agent.learn(steps)  # warms up
    whole = seconds(lambda: agent.learn(steps)) / steps
    batch = next(iter(agent.rollout_buffer.get(agent.batch_size)))
    return passes(agent, batch), whole


# PPO on a small market, side by side


def ppo(
    data: Market,
    lanes: int,
    steps: int,
    *,
    fast: bool = True,
    device: str = "cpu",
    encoder: str = SMALL,
    **extractor: Any,
) -> PPO:
    """Return PPO bound to the market, warmed up by one rollout and one epoch."""
    options: Row = {
        "window": WINDOW,
        "start": data.n_bars - BARS,
        "episode_length": 250,
        "random_start": True,
    }
    network = {"n_features": FEATURES, "window": WINDOW, "encoder": encoder, **extractor}
    settings: Row = {
        "n_steps": steps,
        "batch_size": MINIBATCH,
        "policy_kwargs": {"features_extractor_kwargs": network},
        "device": device,
        "seed": 0,
    }
    if fast:
        venv: Any = make_sb3_vec_env(data, num_envs=lanes, observation="index", **options)
        settings |= {"rollout_buffer_class": GroupedRolloutBuffer, "normalize_advantage": False}
    else:
        venv = DummyVecEnv([lambda: PortfolioEnv(data, **options) for _ in range(lanes)])
    agent = PPO(PerAssetActorCriticPolicy, venv, n_epochs=1, **settings)
    bind_market(agent, data)
    agent.learn(lanes * steps)
    agent.n_epochs = 4
    return agent


def side_by_side(data: Market, rounds: int) -> dict[str, Row]:
    """Return steps per second of each way to train, and their ratio to the plain one, by round."""
    agents = {
        "plain wiring": ppo(data, LANES, 8, fast=False),
        "fast path": ppo(data, LANES, 256),
        "fast path, streams": ppo(data, LANES, 256, encoder_kwargs=STREAM),
        "fast path, frozen": ppo(data, LANES, 256, embedding_kwargs={"frozen": True}),
    }
    rates: dict[str, list[float]] = {name: [] for name in agents}
    for _ in range(rounds):
        for name, agent in agents.items():
            steps = LANES * agent.n_steps
            rates[name].append(steps / seconds(lambda agent=agent, n=steps: agent.learn(n)))
    plain = rates["plain wiring"]
    rows = {}
    for name, own in rates.items():
        ratio = spread([one / other for one, other in zip(own, plain, strict=True)])
        rows[name] = {"steps_per_second": spread(own), "ratio": ratio}
        print(
            f"{name:<24}{median(own):>10,.0f} steps/s{ratio['median']:>9,.1f} x "
            f"[{ratio['range'][0]:,.1f}, {ratio['range'][1]:,.1f}]",
            flush=True,
        )
    return rows


# One supervised epoch


def epoch(data: Market, threads: int, rounds: int, batch: int = 16, **options: Any) -> Row:
    """Return the seconds of one pass over 1,000 windows, or over their blocks."""
    first = data.warmup + WINDOW - 1
    train = (first, first + BARS + 1)  # the last bar has a next one in the range
    th.manual_seed(0)
    embeddings = MarketEncoder(make_encoder(SMALL, FEATURES, WINDOW, **options), forecasts=True)
    trainer = SupervisedTrainer(embeddings, data, train, train, SupervisedOptions(batch=batch))
    trainer.validation = trainer.validation[:1]  # the pass over the training range is timed
    before = th.get_num_threads()
    th.set_num_threads(threads)
    walls, processors = [], []
    for turn in range(rounds + 1):
        wall, processor = perf_counter(), process_time()
        trainer.advance()
        if turn:  # the first one warms up
            walls.append(perf_counter() - wall)
            processors.append(process_time() - processor)
    th.set_num_threads(before)
    row = {"windows": len(trainer.train), "wall": spread(walls), "processor": spread(processors)}
    print(
        f"epoch, {threads} thread{'s'[: threads > 1]:<2}steps of {batch},"
        f"{len(trainer.train):>7,} windows"
        f"{median(walls):>9.2f} s ({median(processors):.2f} s of processor time), Keras "
        f"{KERAS_EPOCH} s, {KERAS_EPOCH / median(walls):.1f} x",
        flush=True,
    )
    return row


# A million transitions


def resident() -> int | None:
    """Return the memory of the process in bytes, where the system states it."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if file.exists() else None


def replay(data: Market, size: int) -> Row:
    """Return the memory of an agent's replay buffer once it is full."""
    venv = make_sb3_vec_env(
        data, LANES, observation="index", window=WINDOW, episode_length=250, random_start=True
    )
    before = resident()
    agent = make_agent("sac", venv, window=WINDOW, encoder=SMALL, buffer_size=size)
    assert isinstance(agent, SAC) and isinstance(agent.replay_buffer, IndexReplayBuffer)
    buffer = agent.replay_buffer
    rng = np.random.default_rng(0)
    obs: Any = venv.reset()
    start = perf_counter()
    while not buffer.full:
        actions = rng.uniform(-1, 1, (LANES, 1 + data.n_assets)).astype(np.float32)
        next_obs: Any
        next_obs, rewards, dones, infos = venv.step(actions)
        buffer.add(obs, next_obs, actions, rewards, dones, infos)
        obs = next_obs
    passed = perf_counter() - start
    after = resident()
    sample = buffer.sample(MINIBATCH)
    assert sample.observations["tradable"].shape == (MINIBATCH, data.n_assets)
    windows = 2 * WINDOW * data.n_assets * data.n_features * np.dtype(np.float32).itemsize
    transitions = buffer.buffer_size * buffer.n_envs
    row = {
        "transitions": transitions,
        "stored": bytes_per_transition(buffer) * transitions,
        "resident": None if before is None or after is None else after - before,
        "as_windows": windows * transitions,
        "filled_per_second": transitions / passed,
    }
    more = "" if row["resident"] is None else f", process grew by {row['resident'] / GIB:.2f} GiB"
    print(
        f"replay of {transitions:,}: {row['stored'] / GIB:.2f} GiB stored{more}; as windows "
        f"{row['as_windows'] / GIB:,.0f} GiB",
        flush=True,
    )
    return row


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/encoders.json"))
    parser.add_argument("--threads", type=int, default=1, help="of PPO")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--transitions", type=int, default=1_000_000)
    parser.add_argument("--parts", default=",".join(PARTS), help="some of them, with commas")
    parser.add_argument("--encoders", default=",".join(ENCODERS), help="of the defaults")
    arguments = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    th.set_num_threads(arguments.threads)
    parts = arguments.parts.split(",")
    data = market()
    report: Row = {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("torch", "stable-baselines3")},
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "load_average": load,
        "threads": arguments.threads,
        "clock": "processor" if arguments.threads == 1 else "wall",
    }
    if "defaults" in parts:
        report["defaults"] = {name: by_default(name) for name in arguments.encoders.split(",")}
    if "small" in parts:
        report["ppo"] = side_by_side(data, arguments.rounds)
    if "epoch" in parts:
        report["epoch"] = {n: epoch(data, n, arguments.rounds) for n in (1, 2)}
        report["epoch of streams"] = epoch(data, 1, arguments.rounds, batch=64, **STREAM)
    if "replay" in parts:
        report["replay"] = replay(market(30), arguments.transitions)
    with replacing(arguments.out) as beside:
        beside.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
