"""Lopez de Prado (2016): hierarchical risk parity, its numerical example and its Monte Carlo.

"Building Diversified Portfolios that Outperform Out of Sample", J. of Portfolio Management 42. No
data are needed. Example: 10,000 standard normal draws of 5 assets, and 5 noisy copies of some of
them; weights are of the whole sample. Monte Carlo: 260 days of such assets before 260 others with
four jumps, two of them of one asset; weights are of the last 260 days, chosen every 22 and
restored every day; variance over the runs of what the accounts earn in all.
"""

import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import portfolio_env as pe
from baselines import make_baseline
from baselines.base import Weights
from baselines.portfolio_model import PortfolioModel, portfolio
from benchmarks.tables.table import Table
from portfolio_env.evaluation import backtest

Array = NDArray[np.float64]

WEIGHTS: Mapping[str, tuple[float, ...]] = {
    "CLA": (14.44, 19.93, 19.73, 19.87, 18.68, 0.0, 5.86, 1.49, 0.0, 0.0),
    "HRP": (7.00, 7.59, 10.84, 19.03, 9.72, 10.19, 6.62, 9.10, 7.12, 12.79),
    "IVP": (10.36, 10.28, 10.36, 10.25, 10.31, 9.74, 9.80, 9.65, 9.64, 9.61),
}
"""Printed weights in percent: least variance, hierarchical risk parity, inverse variance."""
VARIANCES = {"CLA": 0.1157, "IVP": 0.0928, "HRP": 0.0671}
OWN_TREE, NAIVE = "HRP, tree of the distances", "1/N"
SIZE, DAYS, EVERY = 5, 260, 22
SCALE = 0.01  # of the example's returns, which would else fall below -100 %: weights stay
SEED = 12345  # of the paper


def tables(runs: int) -> Iterator[Table]:
    """Return the weights of the example and the variances of a Monte Carlo of so many runs."""
    yield example()
    yield monte_carlo(runs)


def example() -> Table:
    """Return the table of weights, in percent."""
    returns, _ = assets(np.random.RandomState(SEED), random.Random(SEED), 10_000, 1.0)
    market = market_of(SCALE * returns)
    found = {
        name: 100 * model.predict_weights(len(returns)).to_numpy()[1:]
        for name, model in models(market, len(returns)).items()
    }
    names = [f"asset {place}" for place in range(1, 2 * SIZE + 1)]
    rows = {
        asset: {name: float(weights[place]) for name, weights in found.items()}
        for place, asset in enumerate(names)
    }
    printed = {
        asset: {name: weights[place] for name, weights in WEIGHTS.items()}
        for place, asset in enumerate(names)
    }
    notes = (
        "HRP of the paper takes Euclidean distances between the rows of the distance matrix for "
        "its tree (`distance_of_rows=True`), the default of `hrp` the distances themselves.",
    )
    digits = dict.fromkeys(found, 2)
    return Table("Lopez de Prado (2016), weights in %", printed, rows, digits, notes)


def monte_carlo(runs: int) -> Table:
    """Return the table of variances of what accounts earn in all, over runs."""
    earned: dict[str, list[float]] = {}
    for run in range(runs):
        for name, value in one_run(run).items():
            earned.setdefault(name, []).append(value)
    rows = {}
    for name, values in earned.items():
        squares = np.square(np.array(values) - np.mean(values))
        error = squares.std(ddof=1) / np.sqrt(runs)
        rows[name] = {"variance": squares.sum() / (runs - 1), "standard error": float(error)}
    printed = {name: {"variance": value} for name, value in VARIANCES.items()}
    notes = (
        f"{runs:,} runs here, 10,000 in the paper.",
        "The paper has no row of 1/N. Every run has the same four jumps, so fixed weights earn "
        "much the same in all runs, and weights that jumps change do not.",
    )
    return Table("Lopez de Prado (2016), Monte Carlo", printed, rows, {}, notes)


def one_run(seed: int) -> dict[str, float]:
    """Return what the account of every model earns over the second 260 days."""
    numbers = np.random.RandomState(seed)
    returns, of = assets(numbers, random.Random(seed), 2 * DAYS, 0.01)
    days = numbers.randint(DAYS, 2 * DAYS - 1, size=2)
    returns[np.ix_(days, [of[0], SIZE])] = np.array([[-0.5, -0.5], [2, 2]])
    returns[numbers.randint(DAYS, 2 * DAYS - 1, size=2), of[-1]] = np.array([-0.5, 2])
    market = market_of(returns)
    policies = models(market, DAYS) | {NAIVE: make_baseline("equal_weight", market)}
    found = {}
    for name, policy in policies.items():
        env = pe.PortfolioEnv(
            market,
            start=DAYS,
            window=1,
            observation="index",
            action="weights",
            costs={"commission_bps": 0},
        )
        account = backtest(policy if name == NAIVE else Restored(policy), env)
        found[name] = float(account.values[-1] / account.values[0] - 1)
    return found


class Restored:
    """Holds weights that a model chooses every 22 days, and restores them every day."""

    action = "weights"

    def __init__(self, model: PortfolioModel) -> None:
        self.model = model

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[Array, Any]:
        """Return target weights (B, N + 1)."""
        rows = observation["t"][:, 0]
        chosen = (rows - (rows - DAYS) % EVERY).tolist()
        return np.array([self.model.predict_weights(row).to_numpy() for row in chosen]), state


def assets(
    numbers: np.random.RandomState, picks: random.Random, days: int, deviation: float
) -> tuple[Array, list[int]]:
    """Return returns (days, 10) of 5 assets and 5 noisy copies, and which asset each is a copy of.

    A copy is picked as Python 2 drew integers, which the paper's seed needs.
    """
    own = numbers.normal(0, deviation, size=(days, SIZE))
    of = [int(picks.random() * SIZE) for _ in range(SIZE)]
    copies = own[:, of] + numbers.normal(0, 0.25 * deviation, size=(days, SIZE))
    return np.hstack([own, copies]), of


def market_of(returns: Array) -> pe.Market:
    """Return a market of daily closes with these returns (T, N)."""
    close = np.vstack([np.ones(returns.shape[1]), np.cumprod(1 + returns, axis=0)])
    days = np.datetime64("2000-01-01") + np.arange(len(close))
    names = tuple(f"asset {place}" for place in range(1, close.shape[1] + 1))
    return pe.Market(pe.PricePanel(days, names, close), np.zeros((*close.shape, 0)), ())


def models(market: pe.Market, lookback: int) -> dict[str, PortfolioModel]:
    """Return the models of all rows but 1/N."""

    def inverse_variance(past: pe.PricePanel) -> Weights:
        close = past.close[-lookback - 1 :]
        variances = (close[1:] / close[:-1] - 1).var(axis=0)
        return portfolio(np.ones(len(variances), np.bool_), 1 / variances)

    calm: dict[str, Any] = {"covariance": "sample", "max_weight": 1.0}
    found = {
        "CLA": make_baseline("min_variance", market, lookback=lookback, **calm),
        "IVP": make_baseline(inverse_variance, market),
        "HRP": make_baseline("hrp", market, lookback=lookback, distance_of_rows=True),
        OWN_TREE: make_baseline("hrp", market, lookback=lookback),
    }
    return {name: model for name, model in found.items() if isinstance(model, PortfolioModel)}
