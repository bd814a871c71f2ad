"""Learning by every encoder: prints a table as `benchmarks/learning.py` does, and writes JSON.

    python benchmarks/encoder_learning.py --out runs/encoder_learning.json

The planted medium market and windows of 8 bars, of which only the last is informative: the bars
before it and the other assets are chances to learn noise by heart. So sizes are small and dropout
is on. All encoders are trained by the gradient of net growth; those of `RL` then go frozen into
PPO, as `--curriculum 2,3 --freeze-encoder 1` does it.

    python benchmarks/encoder_learning.py --full

trains encoders of their default sizes by the gradient instead, without and with dropout: how much
of what they learn by heart does dropout take away? As in train.py, the best model on a validation
range is kept, the last 500 of the 3,000 days, and encoders that stream by default do so.
"""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # two workers, one thread each

import learning
from learning import Options

from agents.settings.encoders import STREAMS
from portfolio_env.files.atomic import replacing

STRENGTH, WINDOW, DROPOUT = "medium", 8, 0.2
DIRECT: Options = {"algo": "direct", "window": WINDOW, "options": {"learning_rate": 1e-3}}
PPO: Options = {
    "algo": "ppo",
    "timesteps": 200_000,
    "window": WINDOW,
    "embedding_kwargs": {"frozen": True},
}
SIZES: dict[str, Options] = {
    "tcn_gnn_lstm": {"width": 16, "layers": 2, "heads": 2, "lstm_hidden": 16, "lstm_layers": 1},
    "gat": {"hidden": 16, "heads": 2, "layers": 1},
    "lstm": {"hidden": 16, "channels": 16},
    "lstm_attention": {"channels": 16, "layers": 1, "heads": 2},
    "state_space": {"state": 16, "memory": 16, "heads": 2},
    "transformer": {"width": 16, "heads": 2, "layers": 1, "feedforward": 32},
    "mlp": {"architecture": [64, 32]},
    "residual_mlp": {"channels": 32, "blocks": 1},
    "branches": {"hidden": 32, "channels": 16},
    "factor": {"channels": 32, "blocks": 1, "gate_width": 16},
}
RL = ("tcn_gnn_lstm", "gat", "lstm")


def learn(encoder: str, seed: int) -> list[Options]:
    """Train one encoder, and PPO from it; return the growth of both on the test."""
    network = {"encoder": encoder, "encoder_kwargs": SIZES[encoder] | {"dropout": DROPOUT}}
    market = learning.draw(STRENGTH, seed, 3_000).market
    start = perf_counter()
    direct = learning.trained(DIRECT | network, market, seed)
    runs = [measured(f"{encoder}, direct", direct, seed, perf_counter() - start)]
    if encoder in RL:
        start = perf_counter()
        network["encoder_kwargs"] = SIZES[encoder]
        weights = direct.network.extractor.embeddings.state_dict()
        ppo = learning.trained(PPO | network, market, seed, pretrained=weights)
        runs.append(measured(f"{encoder}, PPO", ppo, seed, perf_counter() - start))
    return runs


def learn_full(encoder: str, seed: int) -> list[Options]:
    """Train an encoder of its default size without and with dropout; return the growth of both."""
    market = learning.draw(STRENGTH, seed, 3_000).market
    streams = {"history": "stream", **STREAMS[encoder]} if encoder in STREAMS else {}
    runs = []
    for name, dropout in (("no dropout", 0.0), ("dropout", DROPOUT)):
        start = perf_counter()
        network = {"encoder": encoder, "encoder_kwargs": {"dropout": dropout, **streams}}
        agent = learning.trained(DIRECT | network | {"validation": 500}, market, seed)
        runs.append(measured(f"{encoder}, {name}", agent, seed, perf_counter() - start))
    return runs


def measured(name: str, agent: Any, seed: int, seconds: float) -> Options:
    """Return the growth of an agent on the test."""
    halves = learning.halves(STRENGTH, learning.TEST_SEED)
    growth = mean(learning.agent_growth(agent, half) for half in halves)
    return {"agent": name, "market": STRENGTH, "seed": seed, "growth": growth, "seconds": seconds}


def main() -> None:
    """Train everything in two processes, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/encoder_learning.json"))
    parser.add_argument("--first-seed", type=int, default=0, help="of five")
    parser.add_argument("--encoders", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--full", action="store_true", help="default sizes, without PPO")
    arguments = parser.parse_args()
    train = learn_full if arguments.full else learn
    seeds = range(arguments.first_seed, arguments.first_seed + 5)
    start = perf_counter()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        reference = pool.submit(learning.references, STRENGTH)
        learned = [
            pool.submit(train, encoder, seed) for encoder in arguments.encoders for seed in seeds
        ]
        runs = [run for future in learned for run in future.result()]
        rows = learning.table(runs, {STRENGTH: reference.result()})
    seconds = perf_counter() - start
    print(f"{seconds:.0f} s")
    report = {"facts": learning.facts(), "seconds": seconds, "sizes": SIZES, "captured": rows}
    with replacing(arguments.out) as path:
        path.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
