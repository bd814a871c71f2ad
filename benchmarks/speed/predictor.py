"""Time of a decision on a bar that has just come, by the length of the market before it.

    OMP_NUM_THREADS=1 python benchmarks/speed/predictor.py

20 synthetic assets, the features "minimal" (`--features full` for all). *Anew* computes the
features of the new bar alone, and builds environment, baseline or an agent's tensors again.
*Advance* is `Predictor.advance`; *first* is its first call, which copies the market to where there
is room for more. Medians of processor time in milliseconds; networks are as they were drawn.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median
from time import process_time
from typing import Any

import torch as th

from agents import bind_market, make_agent, make_sb3_vec_env
from agents.direct.agent import DirectAgent
from baselines import make_baseline
from portfolio_env import Market, PortfolioEnv, load_market
from portfolio_env.features import FeaturePipeline
from portfolio_env.live import Predictor

BARS, ANEW = 200, 5  # bars that are timed
INDEX: dict[str, Any] = {"observation": "index"}
Policy = Callable[[Market], Any]


def policies(market: Market) -> dict[str, tuple[Policy, dict[str, Any]]]:
    """Return what makes each policy for a market, and the options of its environment."""
    weights = INDEX | {"action": "weights", "window": 1}
    venv = make_sb3_vec_env(market.past(2000), 1, **INDEX, window=20)
    ppo = make_agent("ppo", venv, window=20, device="cpu", seed=0)
    direct = DirectAgent(
        market.n_features, 20, encoder="lstm", encoder_kwargs={"history": "stream"}
    )

    def bound_ppo(own: Market) -> Any:
        bind_market(ppo, own)
        return ppo

    def bound_direct(own: Market) -> Any:
        direct.bind(own)
        return direct

    return {
        "equal_weight": (lambda own: make_baseline("equal_weight", own), weights),
        "momentum": (lambda own: make_baseline("momentum", own), weights),
        "eg": (lambda own: make_baseline("eg", own), weights),
        "ppo": (bound_ppo, INDEX | {"window": 20}),
        "direct, lstm streams": (bound_direct, INDEX | {"window": 20}),
    }


def timed(work: Callable[[], Any]) -> float:
    """Return the milliseconds that something takes."""
    start = process_time()
    work()
    return 1e3 * (process_time() - start)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", default="2000,10000,50000")
    parser.add_argument("--features", default="minimal")
    arguments = parser.parse_args()
    th.set_num_threads(1)
    print(f"{'policy':<22}{'bars':>8}{'anew':>10}{'first':>10}{'advance':>10}")
    for length in map(int, arguments.lengths.split(",")):
        name = f"synthetic?bars={length + BARS}&assets=20"
        whole = load_market(name, features=arguments.features, fit_end=1000)
        made, known = FeaturePipeline.of(whole), whole.past(length - 1)
        later = [whole.panel.subset(slice(t, t + 1)) for t in range(length, length + BARS)]
        for policy, (make, options) in policies(whole).items():

            def anew(market: Market, make: Policy = make, options: Any = options) -> None:
                Predictor(make(market), PortfolioEnv(market, **options)).decide()

            market, before = known, []
            for bars in later[:ANEW]:
                start = process_time()
                market = made.update(market, bars)
                anew(market)
                before.append(1e3 * (process_time() - start))
            predictor = Predictor(make(known), PortfolioEnv(known, **options))
            predictor.decide()
            first, *rest = [timed(partial(predictor.advance, bars)) for bars in later]
            row = f"{median(before):10.1f}{first:10.1f}{median(rest):10.2f}"
            print(f"{policy:<22}{length:>8,}{row}", flush=True)


if __name__ == "__main__":
    main()
