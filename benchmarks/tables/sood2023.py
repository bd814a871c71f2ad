"""Sood et al. (2023): an agent and mean-variance optimisation on the sectors of the S&P 500.

Sood, Papasotiriou, Vaiciulis & Balch, "Deep Reinforcement Learning for Optimal Portfolio
Allocation: A Comparative Study with Mean-Variance Optimization", table 2. Daily closes of 11 sector
indices, test years 2012 to 2021, one account for each; measures are means over the years, the
largest drawdown is of all. Mean-variance optimisation looks back 60 days every day, with the
covariance of Ledoit & Wolf and the largest Sharpe ratio. The agent of a test year is trained on the
five years that end a year before it, on the differential Sharpe ratio, without costs.

The file is ``sood_sp_sectors_daily.csv.gz``: a date, the sectors, GSPC and VIX. Our agent is the
package's PPO with its defaults: another network, other observations and far fewer steps, so that
its row is near the paper's and does not reproduce it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

import portfolio_env as pe
from baselines import make_baseline
from baselines.optimisers import MeanVariance
from benchmarks.tables.table import Table
from portfolio_env.evaluation import Policy, backtest

YEARS = range(2012, 2022)
TRAINING, SPARE = 5, 1  # years
LANES, EPISODE = 64, 250
OTHERS = ("GSPC", "VIX")  # columns that are no assets
MEASURES = {
    "annual_return": "return",
    "volatility": "volatility",
    "sharpe": "Sharpe",
    "calmar": "Calmar",
    "max_drawdown": "drawdown",
    "omega": "Omega",
    "sortino": "Sortino",
    "tail_ratio": "tail ratio",
}
AGENT, OPTIMISER, NAIVE = "agent (ours: PPO)", "MVO", "1/N"
PRINTED = {
    AGENT: (0.1211, 0.1249, 1.1662, 2.3133, 0.3296, 1.2360, 1.7208, 1.0423),
    OPTIMISER: (0.0653, 0.1460, 0.6776, 1.1608, 0.3303, 1.1315, 1.0060, 0.9448),
}


def tables(data: Path, seeds: int, steps: int) -> Iterator[Table]:
    """Return the tables without costs and at 10 basis points, if the file is found.

    Args:
        data: A folder, or the file.
        seeds: Agents per test year; 0 for a table without the agent.
        steps: Steps that each is trained.
    """
    file = data if data.is_file() else next(iter(data.rglob("sood_sp_sectors_daily.csv*")), None)
    if file is None:
        return
    closes = pd.read_csv(file, index_col=0, parse_dates=True).drop(columns=[*OTHERS])
    market = pe.load_market(closes, periods_per_year=252)
    options = {"lookback": 60, "every": 1, "min_weight": 0.0, "max_weight": 1.0}
    optimiser = MeanVariance(market, **options)
    naive = make_baseline("equal_weight", market)
    agents = [{year: train(closes, year, seed, steps) for year in YEARS} for seed in range(seeds)]
    for commission in (0.0, 10.0):
        ours = {
            name: mean([year_of(policy, market, year, commission) for year in YEARS])
            for name, policy in ((OPTIMISER, optimiser), (NAIVE, naive))
        }
        notes = [
            f"MVO takes the least variance on {len(optimiser.fallbacks)} days on which no asset "
            "has a positive mean; its row hinges on them.",
            "The paper has no row of 1/N.",
        ]
        if seeds:
            rows = [
                mean([year_of(*own[year], year, commission) for year in YEARS]) for own in agents
            ]
            ratios = ", ".join(f"{row['Sharpe']:.2f}" for row in rows)
            ours = {AGENT: pd.DataFrame(rows).mean().to_dict()} | ours
            notes.append(
                f"Our agent is near the paper's, and does not reproduce it: {steps:,} steps for "
                "each test year in place of 7.5 million, another network, other observations, and "
                f"the mean of all seeds (Sharpe ratios {ratios})."
            )
        printed = {row: dict(zip(MEASURES.values(), PRINTED[row], strict=True)) for row in PRINTED}
        title = f"Sood et al. (2023), {commission:g} basis points"
        yield Table(title, {} if commission else printed, ours, {}, tuple(notes))


def year_of(policy: Policy, market: pe.Market, year: int, commission: float) -> dict[str, float]:
    """Return the measures of an account that holds nothing before the year."""
    env = pe.PortfolioEnv(
        market,
        start=market.row(f"{year}-01-01") - 1,
        end=f"{year + 1}-01-01",
        window=1,
        observation="index",
        action=getattr(policy, "action", "logits"),
        costs={"commission_bps": commission},
    )
    found = backtest(policy, env).metrics()
    return {label: found[name] for name, label in MEASURES.items()}


def mean(years: list[dict[str, float]]) -> dict[str, float]:
    """Return the means of measures over the years, and the largest drawdown."""
    frame = pd.DataFrame(years)
    found: dict[str, Any] = frame.mean().to_dict()
    return found | {"drawdown": float(frame["drawdown"].max())}


def train(closes: pd.DataFrame, year: int, seed: int, steps: int) -> tuple[Policy, pe.Market]:
    """Return the agent of a test year, and the market with its features."""
    from agents import make_agent, make_sb3_vec_env

    end = year - SPARE
    market = pe.load_market(
        closes, features="minimal", fit_end=f"{end}-01-01", periods_per_year=252
    )
    venv = make_sb3_vec_env(
        market,
        num_envs=LANES,
        observation="index",
        window=1,
        reward="differential_sharpe",
        start=f"{end - TRAINING}-01-01",
        end=f"{end}-01-01",
        random_start=True,
        episode_length=EPISODE,
        costs={"commission_bps": 0},
    )
    return make_agent("ppo", venv, seed=seed).learn(steps), market
