"""Effect of stages 1 and 2 on the samples that stage 3 needs. Prints a table, writes JSON.

    python benchmarks/curriculum.py --out runs/curriculum.json

The planted medium market of `benchmarks/learning.py`, which says what *captured* means: 3,000 days
of training, 500 of validation for stages 1 and 2, an LSTM over windows of 8 bars, of which only the
last is informative. PPO takes 200,000 steps in every row, with one schedule of its learning rate,
and is measured on the way after the first update that brings it to so many steps. Stages 1 and 2
pass on the encoder, stage 2 its scorer, too; "encoder only" leaves that out. They cost no steps of
PPO: at most 60,000 bars in stage 1, and 288,000 steps of accounts in stage 2.
"""

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # two workers, one thread each

import learning
import torch as th
from learning import Options
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from agents import make_agent, make_sb3_vec_env
from agents.training.config import TrainConfig
from agents.training.curriculum import load_pretrained_weights, pretrained
from agents.training.encoder_callbacks import FrozenStart, PredictionLoss
from portfolio_env.files.atomic import replacing

STRENGTH, WINDOW, DAYS, VALIDATION = "medium", 8, 3_000, 500
ENCODER: Options = {"encoder": "lstm", "encoder_kwargs": {"hidden": 16, "channels": 16}}
TIMESTEPS = 200_000
MARKS = (8_192, 20_000, 50_000, 100_000, 200_000)
SEEDS = 3
VARIANTS: dict[str, Options] = {
    "3": {},
    "1,3": {"curriculum": "1,3"},
    "2,3": {"curriculum": "2,3"},
    "1,2,3": {"curriculum": "1,2,3"},
    "1,2,3, encoder only": {"curriculum": "1,2,3", "encoder_only": True},
    "1,2,3, forecasts 0.05": {"curriculum": "1,2,3", "prediction": 0.05},
    "1,2,3, frozen": {"curriculum": "1,2,3", "frozen": 1.0},
    "1,2,3, frozen for 30 %": {"curriculum": "1,2,3", "frozen": 0.3},
}


class Growth(BaseCallback):
    """Growth per day on the test, after the updates that follow each of `MARKS`."""

    def __init__(self) -> None:
        super().__init__()
        self.growth: dict[int, float] = {}

    def _on_rollout_start(self) -> None:
        due = [mark for mark in MARKS if mark <= self.model.num_timesteps]
        if due and due[-1] not in self.growth:
            halves = learning.halves(STRENGTH, learning.TEST_SEED)
            self.growth[due[-1]] = mean(learning.agent_growth(self.model, half) for half in halves)

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._on_rollout_start()


def learn(name: str, seed: int) -> Options:
    """Train the stages of a variant; return the growth at every mark."""
    th.set_num_threads(1)
    variant = VARIANTS[name]
    market = learning.draw(STRENGTH, seed, DAYS + VALIDATION).market
    ranges = {"train": (0, DAYS), "validation": (DAYS, DAYS + VALIDATION)}
    config = TrainConfig(
        curriculum=variant.get("curriculum", "3"),
        encoder=ENCODER["encoder"],
        encoder_options=json.dumps(ENCODER["encoder_kwargs"]),
        window=WINDOW,
        seed=seed,
        device="cpu",
    )
    quiet, start = Logger(None, []), perf_counter()
    with TemporaryDirectory() as folder:
        weights = pretrained(Path(folder), config, market, ranges, quiet)
    before = perf_counter() - start
    venv = make_sb3_vec_env(
        market,
        learning.LANES["ppo"],
        observation="index",
        window=WINDOW,
        end=DAYS,
        random_start=True,
        episode_length=250,
        reward=learning.REWARD,
    )
    prediction, marks = variant.get("prediction", 0.0), Growth()
    callbacks: list[BaseCallback] = [
        marks,
        FrozenStart(round(variant.get("frozen", 0.0) * TIMESTEPS)),
    ]
    if prediction:
        callbacks.append(PredictionLoss(prediction, market, ranges["train"], seed))
    forecasts: Any = {"forecasts": prediction > 0}
    bounded = "2" in config.curriculum and not variant.get("encoder_only")
    agent = make_agent(
        "ppo",
        venv,
        window=WINDOW,
        seed=seed,
        device="cpu",
        embedding_kwargs=forecasts,
        policy_kwargs={"bounded_scores": bounded},
        **ENCODER,
    )
    if weights and variant.get("encoder_only"):
        weights = {name: w for name, w in weights.items() if not name.startswith("scorer.")}
    load_pretrained_weights(weights, agent.policy)
    agent.set_logger(quiet)
    start = perf_counter()
    agent.learn(TIMESTEPS, callbacks)
    seconds = {"before": before, "ppo_and_tests": perf_counter() - start}
    print(f"{name}, seed {seed}: {marks.growth}, {seconds}", file=sys.stderr, flush=True)
    return {"variant": name, "seed": seed, "growth": marks.growth, "seconds": seconds}


def table(runs: list[Options], reference: dict[str, float]) -> list[Options]:
    """Return the captured share at every mark: the median over seeds and the range."""
    rows = []
    edge = reference["reference"] - reference["equal_weight"]
    print(f"{'captured after':<26}" + "".join(f"{mark:>20,}" for mark in MARKS))
    for name in dict.fromkeys(run["variant"] for run in runs):
        own = [run for run in runs if run["variant"] == name]
        captured = {
            mark: [(run["growth"][mark] - reference["equal_weight"]) / edge for run in own]
            for mark in MARKS
        }
        cells = (
            f"{median(c):8.2f} [{min(c):4.2f}, {max(c):4.2f}]".rjust(20) for c in captured.values()
        )
        print(f"{name:<26}" + "".join(cells), flush=True)
        seconds = {key: median(run["seconds"][key] for run in own) for key in own[0]["seconds"]}
        rows.append({"variant": name, "captured": captured, "seconds": seconds})
    return rows


def main() -> None:
    """Train everything, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/curriculum.json"))
    parser.add_argument("--first-seed", type=int, default=0, help=f"of {SEEDS}")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + SEEDS)
    start = perf_counter()
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        reference = pool.submit(learning.references, STRENGTH)
        learned = [pool.submit(learn, name, seed) for seed in seeds for name in arguments.variants]
        rows = table([future.result() for future in learned], reference.result())
    seconds = perf_counter() - start
    print(f"{seconds:.0f} s")
    report = {
        "facts": learning.facts(),
        "seconds": seconds,
        "encoder": ENCODER,
        "variants": VARIANTS,
        "reference": reference.result(),
        "captured": rows,
    }
    with replacing(arguments.out) as path:
        path.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
