"""Processor time and memory by the number of assets, of every part from loading to evaluation.

    python benchmarks/speed/scale.py --assets 20,100,500,1000 --parts all

The market is synthetic, 5,040 daily bars (20 years) with listings and delistings. Every cell is a
process of its own, on one thread; its figures are the processor time of the part alone, without
imports, compilation and loading, and the largest resident memory of the process. Training takes two
rollouts of 2,048 transitions and their updates as `train.py` sets them up, in milliseconds per
transition; baselines decide three times. `--json FILE` keeps the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
BARS = 5_040
LANES, STEPS, ROLLOUTS = 64, 32, 2
Options = dict[str, Any]
SAMPLED: Options = {"universe": 8}
STREAM: Options = {"encoder_kwargs": {"history": "stream"}}
TCN: Options = {
    "encoder": "tcn_gnn_lstm_small",
    "window": 60,
    "encoder_kwargs": {"history": "stream", "bidirectional": False},
}
GAT: Options = {"encoder": "gat", "window": 20}
NEAR: Options = {"encoder_kwargs": {"neighbours": 10}}
NEAREST: Options = {"encoder": "gat", "encoder_options": '{"neighbours": 10}'}


def features(preset: str, assets: int) -> tuple[float, str]:
    """Return the time of loading a market with these features, scaled on half of its bars."""
    from portfolio_env import load_market
    from portfolio_env.features.pipeline import FeaturePipeline

    panel = load_market(_name(assets), features="none").panel
    pipeline = FeaturePipeline(preset)
    start = process_time()
    market = pipeline.fit(panel, BARS // 2).transform(panel)
    taken = process_time() - start
    return taken, f"{market.n_features} features, {market.features.nbytes / 2**20:,.0f} MiB"


def ppo(assets: int, preset: str = "minimal", **options: Any) -> tuple[float, str]:
    """Return milliseconds per transition of PPO, two rollouts and their updates."""
    from stable_baselines3.common.logger import Logger

    from agents import make_agent, make_sb3_vec_env
    from portfolio_env import load_market

    market = load_market(_name(assets), features=preset, fit_end=BARS // 2)
    window = options.get("window", 1)
    task = {"universe": options.pop("universe", None), "start_groups": options.pop("groups", None)}
    reward = {"name": "excess_log_return", "scale": 100.0}
    venv = make_sb3_vec_env(
        market,
        LANES,
        observation="index",
        window=window,
        start=market.warmup + window,
        random_start=True,
        episode_length=250,
        reward=reward,
        **task,
    )
    agent = make_agent("ppo", venv, seed=0, device="cpu", n_steps=STEPS, **options)
    agent.set_logger(Logger(None, []))
    agent.learn(1)  # the first rollout compiles, and fills what is kept
    start = process_time()
    agent.learn(ROLLOUTS * LANES * STEPS)
    return 1e3 * (process_time() - start) / (ROLLOUTS * LANES * STEPS), "ms per transition"


def estimated(assets: int, **settings: Any) -> tuple[float, str]:
    """Return estimated over measured peak memory of a short run of `train.py`."""
    from tempfile import TemporaryDirectory

    import agents.training.train as training
    from agents.compute import estimate
    from agents.training.config import TrainConfig

    sizes: list[int] = []

    def kept(*given: Any) -> dict[str, int]:
        found = own(*given)
        sizes.append(sum(found.values()))
        return found

    own = estimate.estimate
    setattr(estimate, "estimate", kept)  # noqa: B010  # to see what it returns
    training.PROBES = 1  # backtests for curves take most of so short a run
    with TemporaryDirectory() as folder:
        market = _name(assets)
        steps: Options = {"timesteps": 8_192, "validation_every": 8_192}
        training.train(TrainConfig(market=market, runs=folder, device="cpu", **steps, **settings))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return sizes[-1] / peak, f"of the peak, {sizes[-1] / 2**20:,.0f} MiB estimated"


def evaluation(assets: int) -> tuple[float, str]:
    """Return the time of a year's backtest of equal weight."""
    return _backtest(assets, "equal_weight", 252, {}), "252 bars"


def baseline(name: str, assets: int, **options: Any) -> tuple[float, str]:
    """Return the time of one decision of a baseline, the mean of three."""
    from baselines import make_baseline
    from portfolio_env import load_market

    market = load_market(_name(assets), features="none")
    strategy: Any = make_baseline(name, market, **options)
    panel = market.panel
    pasts = [panel.subset(slice(0, end)) for end in (3_000, 4_000, 5_000, 5_020)]
    strategy.target(pasts[0])
    start = process_time()
    for past in pasts[1:]:
        strategy.target(past)
    return (process_time() - start) / 3, "a decision"


def constrained(assets: int) -> tuple[float, str]:
    """Return the time of a year's backtest whose targets are projected onto constraints."""
    limits = {"max_weight": 3 / assets, "max_turnover": 0.2}
    return _backtest(assets, "equal_weight", 252, {"constraints": limits}), "252 bars"


def _backtest(assets: int, name: str, bars: int, options: dict[str, Any]) -> float:
    from baselines import make_baseline
    from portfolio_env import PortfolioEnv, load_market
    from portfolio_env.evaluation import backtest

    market = load_market(_name(assets), features="none")
    strategy = make_baseline(name, market)
    own = {"observation": "index", "action": "weights", "costs": {"commission_bps": 10}}
    for first in (BARS - 20, BARS - bars - 1):  # the first compiles
        env = PortfolioEnv(market, start=first, end=BARS, **own, **options)
        start = process_time()
        backtest(strategy, env)
        taken = process_time() - start
    return taken


def attention(assets: int, **options: Any) -> tuple[float, str]:
    """Return milliseconds per bar of a forward and backward pass of the `gat` encoder."""
    import torch as th

    from agents.encoding.market_encoder import MarketEncoder, market_tensors
    from agents.networks import make_encoder
    from portfolio_env import load_market

    market = load_market(f"synthetic?assets={assets}&bars=400")
    encoder = MarketEncoder(make_encoder("gat", market.n_features, 60, **options))
    encoder.bind(*market_tensors(market, "cpu"))
    bars, taken = th.arange(200, 216), []
    for _ in range(4):
        start = process_time()
        encoder(bars).square().sum().backward()
        taken.append(process_time() - start)
    return 1e3 * min(taken[1:]) / len(bars), "ms per bar"


def _name(assets: int) -> str:
    return f"synthetic?assets={assets}&bars={BARS}"


Part = Callable[[int], tuple[float, str]]
PARTS: dict[str, Part] = {
    "features minimal": lambda n: features("minimal", n),
    "features full": lambda n: features("full", n),
    "PPO, 8 assets drawn": lambda n: ppo(n, **SAMPLED),
    "PPO, 8 drawn, full features": lambda n: ppo(n, "full", **SAMPLED),
    "PPO, all assets": ppo,
    "PPO, lstm, 8 drawn": lambda n: ppo(n, encoder="lstm", window=60, **STREAM, **SAMPLED),
    "PPO, tcn_gnn_lstm_small, 8 drawn": lambda n: ppo(n, **TCN, **SAMPLED),
    "PPO, gat, 8 drawn": lambda n: ppo(n, groups=32, **GAT, **SAMPLED),
    "PPO, gat of 10 neighbours, 8 drawn": lambda n: ppo(n, groups=32, **GAT, **NEAR, **SAMPLED),
    "gat, a pass over all pairs": attention,
    "gat, a pass over 10 neighbours": lambda n: attention(n, neighbours=10),
    "estimate, per_asset": estimated,
    "estimate, all assets": lambda n: estimated(n, universe=0),
    "estimate, full features": lambda n: estimated(n, features="full"),
    "estimate, lstm": lambda n: estimated(n, encoder="lstm"),
    "estimate, gat": lambda n: estimated(n, window=20, **NEAREST),
    "estimate, direct": lambda n: estimated(n, algo="direct"),
    "estimate, sac": lambda n: estimated(n, algo="sac"),
    "backtest": evaluation,
    "backtest, projected": constrained,
    **{
        name: lambda n, name=name: baseline(name, n)  # type: ignore[misc]
        for name in ("min_variance", "mean_variance", "risk_parity", "hrp", "herc")
    },
}


def cell(part: str, assets: int) -> dict[str, Any]:
    """Return the figures of a part, measured in a process of its own."""
    command = [sys.executable, __file__, "--cell", part, str(assets)]
    environment = os.environ | ONE_THREAD
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if found.returncode:
        reason = (found.stderr.strip().splitlines() or [f"status {found.returncode}"])[-1]
        return {"part": part, "assets": assets, "failed": reason[:200]}
    figures: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return figures


def _measure(part: str, assets: int) -> None:
    figure, unit = PARTS[part](assets)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"part": part, "assets": assets, "figure": figure, "unit": unit, "MiB": memory}
    print(json.dumps(found | {"whole process": process_time()}))


def main() -> None:
    """Measure every cell and print a line of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", default="20,100,500,1000")
    parser.add_argument("--parts", default="all", help="; separates them: " + "; ".join(PARTS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        _measure(arguments.cell[0], int(arguments.cell[1]))
        return
    parts = list(PARTS) if arguments.parts == "all" else arguments.parts.split("; ")
    rows = []
    for part in parts:
        for assets in map(int, arguments.assets.split(",")):
            rows.append(found := cell(part, assets))
            told = found.get("failed") or (
                f"{found['figure']:9.3f} {found['unit']:30s} {found['MiB']:7,.0f} MiB at most"
            )
            print(f"{part:36s} {assets:5d} {told}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
