"""Learning of planted signals, and of nothing from noise. Prints tables, writes JSON.

    python benchmarks/learning.py --out runs/learning.json

Planted markets (`data.generators.planted`): the features are the signal and three distractors,
costs are 10 bp. A seed is its own market draw and its own agent seed; all five are reported. The
recipes were chosen on seeds 0 to 4; `--first-seed 5` runs them on others. *Captured*, of the last
model, is

    (growth - equal weight) / (reference - equal weight)

in log growth per day after costs, on a fresh test of 36,000 days: 18,000 days and the same with the
opposite noise, which takes the noise out of the mean. Everybody starts at equal weight every 500
days. The reference is the best policy of the family

    target = (1 - rate) * drifted weights + rate * softmax(cash logit, beta * true signal)

over a grid of (rate, beta, cash logit), tuned on another draw of the same process: it knows signal
and process, which makes it a strong reference, though not the optimum. Without costs the reference
is the log-optimal portfolio, which is the optimum, and growth is expected growth on 1,000 days.

On markets of pure noise there is nothing to capture; what is reported is growth a year less that of
equal weight: on the 1,000 days after the training, as one would see it, and on the long test, which
shows what to expect.
"""

import argparse
import json
import os
import platform
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.metadata import version
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median, stdev
from time import perf_counter
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # two workers, one thread each

import numpy as np
import torch as th
from numpy.typing import NDArray
from stable_baselines3.common.logger import Logger

from agents import make_agent, make_sb3_vec_env, policy_for
from agents.direct.agent import DirectAgent
from agents.training.curriculum import load_pretrained_weights
from portfolio_env import Market, PortfolioEnv, PortfolioVectorEnv
from portfolio_env.data.generators.planted import PlantedMarket
from portfolio_env.evaluation import backtest
from portfolio_env.files.atomic import replacing

Array = NDArray[np.float64]
Act = Callable[[Any], Any]
Options = dict[str, Any]

STRENGTHS = ("weak", "medium")
NULL_SEEDS = range(100, 120)
TUNING_SEED, TEST_SEED = 1_000_001, 1_000_002
HALF, STEPS = 18_000, 500  # days of a half of the test, and of an episode in it
PAST = 60  # days before the first of them, for networks that look back
FREE_DAYS = 1_000  # days of the test without costs
REWARD = {"name": "excess_log_return", "scale": 100}
GRID = [
    *product(
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0),  # rate
        (2.0, 3.0, 5.0, 7.0, 10.0, 14.0, 20.0, 28.0),  # beta
        (-np.inf, -2.0, 0.0, 1.0, 2.0, 4.0),  # cash logit
    )
]
WEIGHTS: Options = {"observation": "index", "action": "weights"}
LANES = {"ppo": 256, "sac": 64}
PPO: Options = {"algo": "ppo", "timesteps": 200_000}
SAC: Options = {"algo": "sac", "timesteps": 40_000}
FLAT: Options = PPO | {"policy": "flat_mlp"}
SHORT: Options = PPO | {"bars": 1_000, "assets": 15, "universe": 5}
FREE: Options = PPO | {"costs": {"commission_bps": 0.0}}
DIRECT: Options = {"algo": "direct"}
RECIPES = {
    "PPO": PPO,
    "SAC": SAC,
    "direct gradient": DIRECT,
    "flat MLP (PPO)": FLAT,
    "PPO, 1,000 days, 5 of 15": SHORT,
    "direct, 1,000 days, 5 of 15": SHORT | DIRECT,
}
BARS = {
    ("PPO", "medium"): 0.90,
    ("PPO", "weak"): 0.80,
    ("SAC", "medium"): 0.80,
    ("SAC", "weak"): 0.75,
    ("PPO, 1,000 days, 5 of 15", "weak"): 0.80,
    ("PPO, 1,000 days, 5 of 15", "medium"): 0.80,
}


def draw(strength: str, seed: int, bars: int, assets: int = 5) -> PlantedMarket:
    """Return a planted market; "null" has no signal."""
    planted: Options = {"kappa": 0.0} if strength == "null" else {"strength": strength}
    return PlantedMarket.draw(seed=seed, bars=bars, assets=assets, **planted)


@cache
def halves(strength: str, seed: int) -> tuple[Market, Market]:
    """Return 18,000 days and the same with the opposite noise."""
    planted = draw(strength, seed, PAST + HALF + 1)
    return planted.market, planted.mirrored().market


def growth(act: Act, market: Market, copies: int = 1, window: int = 1, **options: Any) -> Array:
    """Return log growth per day (copies,) over a market cut into episodes, lanes of one env.

    Args:
        act: Actions (copies * episodes, N + 1) for observations.
        market: Market whose days after the first `PAST` are a multiple of an episode's.
        copies: Number of policies that `act` runs side by side, each on every episode.
        window: Days that policies look back, at most `PAST`.
        options: Keywords of the environment.
    """
    starts = np.tile(np.arange(PAST, market.n_bars - 1, STEPS), copies)
    env = PortfolioVectorEnv(
        len(starts),
        market,
        window=window,
        initial="equal_weight",
        autoreset_mode="Disabled",
        **options,
    )
    observation, _ = env.reset(options={"t": starts})
    total = np.zeros(len(starts))
    for _ in range(STEPS):
        observation, _, _, _, infos = env.step(act(observation))
        total += infos["log_return"]
    return total.reshape(copies, -1).mean(axis=1) / STEPS


def softmax_family(market: Market) -> Act:
    """Return a policy that plays every parameter setting of the grid, side by side."""
    grid = np.repeat(GRID, (market.n_bars - 1 - PAST) // STEPS, axis=0)
    rate, beta, cash = grid.T[:, :, None]
    signal = market.features[:, :, market.feature_names.index("signal")]

    def act(observation: dict[str, Array]) -> Array:
        logits = np.concatenate([cash, beta * signal[observation["t"][:, 0]]], axis=1)
        target = np.exp(logits - logits.max(axis=1, keepdims=True))
        target /= target.sum(axis=1, keepdims=True)
        return (1 - rate) * observation["weights"] + rate * target

    return act


def equal_weight(market: Market) -> Act:
    """Return a policy that restores equal weight every day."""
    weights = np.r_[0.0, np.full(market.n_assets, 1 / market.n_assets)]
    return lambda observation: np.tile(weights, (len(observation["t"]), 1))


def references(strength: str) -> dict[str, float]:
    """Return test growth per day of equal weight, and of the reference tuned on another draw."""

    def everyone(seed: int) -> Array:
        return np.mean(
            [growth(softmax_family(m), m, len(GRID), **WEIGHTS) for m in halves(strength, seed)], 0
        )

    best = int(everyone(TUNING_SEED).argmax())
    equal = [growth(equal_weight(m), m, **WEIGHTS) for m in halves(strength, TEST_SEED)]
    rate, beta, cash = GRID[best]
    return {
        "equal_weight": float(np.mean(equal)),
        "reference": float(everyone(TEST_SEED)[best]),
        "rate": rate,
        "beta": beta,
        "cash_logit": cash,
    }


def trained(
    recipe: Options, market: Market, seed: int, pretrained: dict[str, th.Tensor] | None = None
) -> Any:
    """Return a trained agent; PPO and SAC may start from the weights of an encoder."""
    th.set_num_threads(1)
    names = ("window", "encoder", "encoder_kwargs", "embedding_kwargs")
    network = {name: recipe[name] for name in names if name in recipe}
    if recipe["algo"] == "direct":
        direct = DirectAgent(market.n_features, seed=seed, **network)
        options = {"universe": recipe.get("universe"), "seed": seed, **recipe.get("options", {})}
        end = market.n_bars - recipe.get("validation", 0)
        if end < market.n_bars:
            options["validation"] = end, market.n_bars
        direct.train(market, 0, end, **options)
        return direct
    flat = "policy" in recipe
    venv = make_sb3_vec_env(
        market,
        LANES[recipe["algo"]],
        observation="flat" if flat else "index",
        window=recipe.get("window", 1),
        random_start=True,
        episode_length=250,
        reward=REWARD,
        universe=recipe.get("universe"),
        start_groups=recipe.get("start_groups"),
        costs=recipe.get("costs", {}),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a flat network memorises, which is the point
        policy = recipe.get("policy", "per_asset")
        agent = make_agent(
            recipe["algo"],
            venv,
            policy=policy,
            seed=seed,
            device="cpu",
            **network,
            **recipe.get("options", {}),
        )
    load_pretrained_weights(pretrained, agent.policy)
    agent.set_logger(Logger(None, []))  # SB3 makes a folder otherwise
    return agent.learn(recipe["timesteps"])


def agent_growth(agent: Any, market: Market) -> float:
    """Return the log growth per day of an agent in a market."""
    if isinstance(agent, DirectAgent):
        agent.bind(market)
        mode: Options = {"observation": "index", "window": agent.window}
        return float(growth(lambda o: agent.predict(o)[0], market, **mode)[0])
    mode = {
        "observation": "index" if hasattr(agent.observation_space, "spaces") else "flat",
        "window": agent.get_env().get_attr("simulator")[0].window,
    }
    policy = policy_for(agent, make_sb3_vec_env(market, **mode))
    return float(growth(lambda o: policy.predict(o, deterministic=True)[0], market, **mode)[0])


def learn(name: str, recipe: Options, strength: str, seed: int) -> Options:
    """Train one agent and measure its growth on the test."""
    market = draw(strength, seed, recipe.get("bars", 3_000), recipe.get("assets", 5)).market
    start = perf_counter()
    agent = trained(recipe, market, seed)
    seconds = perf_counter() - start
    result = mean(agent_growth(agent, half) for half in halves(strength, TEST_SEED))
    return {"agent": name, "market": strength, "seed": seed, "growth": result, "seconds": seconds}


def learn_without_costs(strength: str, seed: int) -> Options:
    """Train an agent without costs; return expected growth: its own, the largest, equal weight."""
    agent = trained(FREE, draw(strength, seed, 3_000).market, seed)
    test = draw(strength, TEST_SEED, FREE_DAYS + 1)
    options: Options = {"observation": "index", "window": 1, "costs": FREE["costs"]}
    policy = policy_for(agent, make_sb3_vec_env(test.market, **options))
    held = backtest(policy, PortfolioEnv(test.market, **options)).held
    rows = np.arange(FREE_DAYS)
    equal = np.full_like(held, 1 / test.market.n_assets)
    equal[:, 0] = 0.0
    return {
        "agent": "PPO, no costs",
        "market": strength,
        "seed": seed,
        "growth": float(test.growth(held, rows).mean()),
        "reference": float(test.log_optimal_growth(rows).mean()),
        "equal_weight": float(test.growth(equal, rows).mean()),
    }


def learn_from_noise(seed: int) -> Options:
    """Train on pure noise; return yearly growth less that of equal weight, after costs."""
    days = 3_000
    planted = draw("null", seed, days + 2 * STEPS + 1)
    agent = trained(PPO, planted.market.past(days - 1), seed)

    def ahead(market: Market) -> float:
        equal = growth(equal_weight(market), market, **WEIGHTS)[0]
        return float(agent_growth(agent, market) - equal) * market.periods_per_year

    after = planted.market.subset(slice(days - PAST, None))
    expected = mean(ahead(half) for half in halves("null", TEST_SEED))
    return {"seed": seed, "next_1000_days": ahead(after), "expected": expected}


def table(runs: list[Options], reference: dict[str, dict[str, float]]) -> list[Options]:
    """Return the captured share of every agent and market: the seeds, their median and range."""
    rows = []
    for agent, strength in dict.fromkeys((run["agent"], run["market"]) for run in runs):
        own = [run for run in runs if (run["agent"], run["market"]) == (agent, strength)]
        shares = []
        for run in own:
            against = run if "reference" in run else reference[strength]
            edge = against["reference"] - against["equal_weight"]
            shares.append((run["growth"] - against["equal_weight"]) / edge)
        bar = BARS.get((agent, strength))
        rows.append(
            {
                "agent": agent,
                "market": strength,
                "median": median(shares),
                "range": [min(shares), max(shares)],
                "bar": bar,
                "passed": None if bar is None else median(shares) >= bar,
                "captured": shares,
                "seconds": median(run.get("seconds", 0.0) for run in own),
            }
        )
        row = rows[-1]
        verdict = "" if bar is None else f"bar {bar:.2f} {'met' if row['passed'] else 'MISSED'}"
        seeds = " ".join(f"{share:5.2f}" for share in shares)
        print(f"{agent:<28}{strength:<8}{row['median']:6.2f}   {seeds}   {verdict}")
    return rows


def null_summary(runs: list[Options]) -> Options:
    """Return how often and by how much agents trail equal weight where nothing can be learned."""
    summary: Options = {"markets": len(runs), "runs": runs}
    for key in ("next_1000_days", "expected"):
        values = [run[key] for run in runs]
        summary[key] = {
            "behind": sum(value < 0 for value in values),
            "mean": mean(values),
            "deviation": stdev(values),
        }
        print(
            f"pure noise, {key.replace('_', ' ')}: behind equal weight on {summary[key]['behind']} "
            f"of {len(runs)} markets, {mean(values):+.3f} a year (deviation {stdev(values):.3f})"
        )
    return summary


def facts() -> dict[str, str]:
    """Return the machine and the versions that the measurements come from."""
    names = ("torch", "stable-baselines3", "numpy", "numba")
    own = {"python": platform.python_version(), "machine": platform.platform()}
    return own | {name: version(name) for name in names}


def main() -> None:
    """Train everything in two processes, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/learning.json"))
    parser.add_argument("--first-seed", type=int, default=0, help="of five")
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + 5)
    start = perf_counter()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        reference_of = {strength: pool.submit(references, strength) for strength in STRENGTHS}
        noise = [pool.submit(learn_from_noise, seed) for seed in NULL_SEEDS]
        learned = [
            pool.submit(learn, name, recipe, strength, seed)
            for (name, recipe), strength, seed in product(RECIPES.items(), STRENGTHS, seeds)
        ]
        learned += [pool.submit(learn_without_costs, "medium", seed) for seed in seeds]
        reference = {strength: future.result() for strength, future in reference_of.items()}
        print(f"{'captured':<26}{'market':<8}median   seeds")
        rows = table([future.result() for future in learned], reference)
        null = null_summary([future.result() for future in noise])
    seconds = perf_counter() - start
    print(f"{seconds:.0f} s")
    report = {
        "facts": facts(),
        "seconds": seconds,
        "recipes": RECIPES,
        "reference": reference,
        "captured": rows,
        "null": null,
    }
    with replacing(arguments.out) as path:
        path.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
