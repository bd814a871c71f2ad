"""A first result on both sides: a market whose edge is known, and real prices.

    python examples/demo.py --run runs/demo

The same agent, trained by the gradient of net growth, meets two markets. In the first, a feature
predicts returns, and the best policy is known: the agent has to find most of its edge. In the
second, the prices of 20 US stocks, nobody knows what there is to find, and the evaluation says
what can be said. What ``--`` follows are further settings of ``train.py`` for the second.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from numpy.typing import NDArray
from rich.console import Console

Numbers = NDArray[Any]
Act = Callable[[dict[str, Numbers]], Numbers]

TRAINING, TEST = 3_000, 9_000  # days
EPISODE = 500  # days of an account in the test
# The best of the family that `rule` computes, on another draw of the same process; `make learn`
# searches it.
RATE, SLOPE, CASH = 0.6, 14.0, 2.0
TRAIN = ("--market", "sp500", "--algo", "direct", "--adjustment", "0.1", "--timesteps", "96000")
COSTS = {"commission_bps": 10}


def growth(act: Act, market: Any, **options: Any) -> float:
    """Log growth a year of accounts that start every ``EPISODE`` days at equal weight."""
    import numpy as np

    from portfolio_env import PortfolioVectorEnv

    starts = np.arange(0, market.n_bars - 1, EPISODE)
    env = PortfolioVectorEnv(
        len(starts),
        market,
        window=1,
        observation="index",
        initial="equal_weight",
        costs=COSTS,
        autoreset_mode="Disabled",
        **options,
    )
    observation, _ = env.reset(options={"t": starts})
    total = 0.0
    for _ in range(EPISODE):
        observation, _, _, _, infos = env.step(act(observation))
        total += infos["log_return"].mean()
    return total / EPISODE * market.periods_per_year


def equal_weight(market: Any) -> Act:
    """Return the rule that goes back to equal weight every day."""
    import numpy as np

    weights = np.r_[0.0, np.full(market.n_assets, 1 / market.n_assets)]
    return lambda observation: np.tile(weights, (len(observation["t"]), 1))


def rule(market: Any) -> Act:
    """Return the rule that knows the signal: a part of the way to its softmax at every bar."""
    import numpy as np

    signal = market.features[:, :, market.feature_names.index("signal")]

    def act(observation: dict[str, Numbers]) -> Numbers:
        scores = SLOPE * signal[observation["t"][:, 0]]
        scores = np.concatenate([np.full((len(scores), 1), CASH), scores], axis=1)
        target = np.exp(scores - scores.max(axis=1, keepdims=True))
        target /= target.sum(axis=1, keepdims=True)
        return (1 - RATE) * observation["weights"] + RATE * target

    return act


def planted(console: Console) -> float:
    """Train on a market with a planted signal; the share of the known edge that is captured."""
    from agents.direct.agent import DirectAgent
    from agents.progress import bar
    from portfolio_env.data.generators.planted import PlantedMarket

    console.rule("1  A market whose edge is known", align="left")
    console.print(
        "5 assets, 3,000 days. One of four features predicts returns, three are noise; trading "
        "costs 10 basis points. The agent is not told which is which."
    )
    market = PlantedMarket.draw(seed=0, bars=TRAINING).market
    agent = DirectAgent(market.n_features, seed=0)
    iterations = 100
    with bar("training", iterations) as advance:
        agent.train(
            market,
            0,
            market.n_bars,
            env_options={"costs": COSTS},
            iterations=iterations,
            callback=lambda done, numbers: advance(done),
        )
    unseen = PlantedMarket.draw(seed=1_000_002, bars=TEST + 1)
    found = {"equal weight": 0.0, "the agent": 0.0, "a rule that knows the signal": 0.0}
    for test in (unseen.market, unseen.mirrored().market):  # opposite noise: luck cancels
        agent.bind(test)
        weights = {"action": "weights"}
        found["equal weight"] += growth(equal_weight(test), test, **weights) / 2
        found["the agent"] += growth(lambda o: agent.predict(o)[0], test) / 2
        found["a rule that knows the signal"] += growth(rule(test), test, **weights) / 2
    console.print("\nOn 18,000 days that it has not seen, log growth a year after costs:")
    for name, value in found.items():
        console.print(f"  {name:<30}{100 * value:+6.1f} %")
    equal, own, best = found.values()
    share = (own - equal) / (best - equal)
    console.print(f"The agent captures [bold]{share:.0%}[/bold] of the edge of that rule.\n")
    return share


def real(console: Console, run: Path, settings: list[str]) -> None:
    """Train on real prices and evaluate, as the two command lines do."""
    import evaluate
    import train

    console.rule("2  Real prices", align="left")
    console.print(
        "20 US stocks, bundled. The same agent is trained on the first years and judged on the "
        "last ones, which it has not seen."
    )
    for script, arguments in (
        (train, ["train.py", *TRAIN, "--out", str(run), *settings]),
        (evaluate, ["evaluate.py", str(run)]),
    ):
        console.print(f"\n[bold]$ python {' '.join(arguments)}[/bold]", soft_wrap=True)
        sys.argv = arguments
        if status := script.main():
            sys.exit(status)


def main() -> None:
    """Show both sides, and what to type next."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="run folder to write")
    parser.add_argument("settings", nargs="*", help="further settings of train.py, after --")
    given = parser.parse_args()
    console, clock = Console(highlight=False), perf_counter()
    console.print("Loading the libraries ...")
    planted(console)
    real(console, given.run, given.settings)
    console.rule(f"Done in {perf_counter() - clock:.0f} s. What to type next", align="left")
    console.print(
        "source .venv/bin/activate\n"
        "python train.py --market sp500 --timesteps 200000 --out runs/first\n"
        "python evaluate.py runs/first --baselines equal_weight,mean_variance,hrp\n"
        "tensorboard --logdir runs",
        highlight=False,
    )


if __name__ == "__main__":
    main()
