"""Learning with streams and with windows: captured shares of a planted market, by PPO.

    python benchmarks/streams.py --encoder tcn_gnn_lstm_small --seeds 0,1,2

98,000 steps on the medium planted market of `benchmarks/learning.py`, windows of 8 bars. *Stream*
is the default of train.py: a state that runs forwards through blocks, one encoder for actor and
critic, which learns from the actor. *Window* is what it replaced: every bar's window, where the
encoder can in both directions, and an encoder each. Encoders that do not stream (`--encoder gat`,
of the size in `benchmarks/encoder_learning.py`) are trained on lanes that start apart and in
groups. Seconds are of the processor.

    python benchmarks/streams.py --baseline deep_portfolio --seeds 0,1,2,3,4

trains a baseline instead, on 1,400 days of `synthetic-momentum`, and prints its growth a year above
that of equal weight on the 600 days after them.
"""

import argparse
from statistics import mean, median
from time import process_time

from encoder_learning import SIZES
from learning import STRENGTHS, Options, learn, references

from agents.settings.encoders import STREAMS
from baselines import make_baseline
from portfolio_env import PortfolioEnv, load_market
from portfolio_env.evaluation import backtest

STEPS, WINDOW = 98_000, 8
TRAINED = 1_400  # days that a baseline learns from
TWO: Options = {"policy_kwargs": {"share_features_extractor": False}}


def variants(encoder: str) -> dict[str, Options]:
    """Return the recipes to compare."""
    if encoder not in STREAMS:
        small = {"encoder_kwargs": SIZES[encoder]}
        groups = {f"{n} groups": small | {"start_groups": n} for n in (32, 16)}
        return {"apart": small, **groups}
    forwards = {"bidirectional": False} if encoder.startswith("tcn") else {}
    return {
        "stream": {"encoder_kwargs": {"history": "stream", **forwards}},
        "window": {"options": TWO},
    }


def baseline_growth(name: str, seed: int, history: str) -> float:
    """Return the growth per year of a network among the baselines less that of equal weight."""
    market = load_market(f"synthetic-momentum?seed={seed}&bars=2000", fit_end=TRAINED)
    windows = {} if history == "stream" else {"encoder_kwargs": {"dropout": 0.2}}
    model = make_baseline(name, market, seed=seed, **windows).fit(market.panel, (0, TRAINED))
    rules = {"observation": "index", "action": "weights", "window": 1, "start": TRAINED}
    env = PortfolioEnv(market, **rules)
    own, equal = (backtest(each, env) for each in (model, make_baseline("equal_weight", market)))
    return float(market.periods_per_year * (own.log_returns - equal.log_returns).mean())


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="tcn_gnn_lstm_small")
    parser.add_argument("--baseline")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--strength", default="medium", choices=STRENGTHS)
    arguments = parser.parse_args()
    if arguments.baseline:
        for history in ("stream", "window"):
            start, seeds = process_time(), list(map(int, arguments.seeds.split(",")))
            found = [baseline_growth(arguments.baseline, seed, history) for seed in seeds]
            each = " ".join(f"{growth:+6.3f}" for growth in found)
            seconds = (process_time() - start) / len(seeds)
            print(f"{history:<10}{mean(found):+7.3f}   {each}   {seconds:.0f} s each", flush=True)
        return
    reference = references(arguments.strength)
    edge = reference["reference"] - reference["equal_weight"]
    for name, recipe in variants(arguments.encoder).items():
        shares, start = [], process_time()
        for seed in map(int, arguments.seeds.split(",")):
            of_seed = {"algo": "ppo", "timesteps": STEPS, "window": WINDOW, **recipe}
            run = learn(name, of_seed | {"encoder": arguments.encoder}, arguments.strength, seed)
            shares.append((run["growth"] - reference["equal_weight"]) / edge)
        seconds = (process_time() - start) / len(shares)
        seeds = " ".join(f"{share:5.2f}" for share in shares)
        print(f"{name:<10}{median(shares):6.2f}   {seeds}   {seconds:.0f} s each", flush=True)


if __name__ == "__main__":
    main()
