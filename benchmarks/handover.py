"""Learning by PPO from a policy trained on net growth: captured shares of a planted market.

    python benchmarks/handover.py --strength medium --seeds 0,1,2,3,4

The per-asset policy on the planted markets of `benchmarks/learning.py`, which says what *captured*
means: 3,000 days of training, 500 of validation. Stage 2 is 150 iterations of the direct agent, of
which the best of its validations is kept; PPO takes 200,000 steps from its weights, as in `train.py
--curriculum 2,3`. *Bounded* keeps the means of logits in the box by the map of stage 2
(`bounded_scores`, as train.py does it), *unbounded* leaves them to the environment's clip.

    python benchmarks/handover.py --encoder tcn_gnn_lstm

puts an encoder of its default size under both, over windows of 8 bars, which PPO trains on; in
blocks where train.py does so.
"""

import argparse
import os
from statistics import mean

os.environ["OMP_NUM_THREADS"] = "1"

import learning
import torch as th
from encoder_learning import SIZES
from learning import Options
from stable_baselines3.common.logger import Logger

from agents import make_agent, make_sb3_vec_env
from agents.direct.agent import DirectAgent
from agents.settings.encoders import STREAMS
from agents.training.curriculum import load_pretrained_weights, pretrained_weights

DAYS, VALIDATION = 3_000, 500
VARIANTS: dict[str, Options] = {
    "unbounded": {},
    "bounded": {"bounded_scores": True},
    "bounded, quiet start": {"bounded_scores": True, "log_std_init": -1.5},
}


def network(encoder: str) -> Options:
    """Return the network as options of an agent; "" is the per-asset one."""
    if not encoder:
        return {"window": 1}
    streams = {"history": "stream", **STREAMS[encoder]} if encoder in STREAMS else {}
    return {"window": 8, "encoder": encoder, "encoder_kwargs": streams}


def shares(
    strength: str, seed: int, captured: learning.Act, encoder: str = ""
) -> dict[str, list[float]]:
    """Return what stage 2 captures, and what PPO does from it before and after its steps."""
    th.set_num_threads(1)
    own = network(encoder)
    variants = {"bounded": VARIANTS["bounded"]} if encoder else VARIANTS
    market = learning.draw(strength, seed, DAYS + VALIDATION).market
    direct = DirectAgent(market.n_features, seed=seed, **own)
    direct.train(market, 0, DAYS, validation=(DAYS, DAYS + VALIDATION), seed=seed)
    weights = pretrained_weights(direct.network.extractor.embeddings, direct.network)
    found = {"stage 2": [captured(direct)]}
    for name, options in variants.items():
        venv = make_sb3_vec_env(
            learning.draw(strength, seed, DAYS).market,
            learning.LANES["ppo"],
            observation="index",
            window=own["window"],
            random_start=True,
            episode_length=250,
            reward=learning.REWARD,
        )
        agent = make_agent("ppo", venv, seed=seed, device="cpu", policy_kwargs=options, **own)
        load_pretrained_weights(weights, agent.policy)
        agent.set_logger(Logger(None, []))
        before = captured(agent)
        found[name] = [before, captured(agent.learn(learning.PPO["timesteps"]))]
    return found


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strength", default="medium", choices=learning.STRENGTHS)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--encoder", default="", choices=("", *SIZES))
    arguments = parser.parse_args()
    strength = arguments.strength
    reference = learning.references(strength)
    edge = reference["reference"] - reference["equal_weight"]

    def captured(agent: object) -> float:
        halves = learning.halves(strength, learning.TEST_SEED)
        growth = mean(learning.agent_growth(agent, half) for half in halves)
        return (growth - reference["equal_weight"]) / edge

    for seed in map(int, arguments.seeds.split(",")):
        found = shares(strength, seed, captured, arguments.encoder)
        cells = (f"{name} {' > '.join(f'{s:.2f}' for s in own)}" for name, own in found.items())
        print(f"seed {seed}: {'; '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
