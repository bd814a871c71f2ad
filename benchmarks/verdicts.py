"""Error rates of verdicts: how often baselines are said to beat equal weight, where truth is known.

    python benchmarks/verdicts.py --out runs/verdicts.json

Markets of 5 assets and 3,000 daily bars (`data.generators.planted`): 200 of pure noise
("synthetic-null"), and 100 of each strength of "synthetic-momentum", whose signal makes returns
persist. Baselines with their registered defaults (the least weight that mean-variance takes by
itself is feasible for 5 assets) are backtested over 500 bars, on which the gate decides, and over
the 1,100 that follow, which `compare` evaluates as in every report. In noise every "beats" is a
false positive. What fits nothing to the bars of validation may be judged on them too, and is, for
the share that is found on the longer record. After costs hardly any strategy could earn one in
noise, as it is sure to lose; so noise is evaluated without costs too, where a strategy loses its
variance drain only.

Verdicts are by each of three measures: growth, the Sharpe ratio, and growth at the volatility of
equal weight. Of every account all three are known: those of the weights it held, by the process,
and what it paid. Their mean over all markets is the *truth* that an interval of 95 % should hold;
its lower bound should lie above the truth in 2.5 % of the markets. Of 100 markets a share of 95 %
may show as 91 to 99, and kinds err together: markets of one seed have the same noise.

The reference of the planted markets knows the signal: the log-optimal portfolio, a fifth of the way
to which the account moves every day: of five paces the best on the medium market of seed 3.
"""

import argparse
import json
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # two workers, one thread each

import numpy as np
from numpy.typing import NDArray

from baselines import make_baseline
from portfolio_env import PortfolioEnv
from portfolio_env.data.generators.planted import PlantedMarket
from portfolio_env.evaluation import BacktestResult, Policy, backtest, compare, gate_decision
from portfolio_env.evaluation.comparison import BENCHMARK, DIFFERENCES, Judge, judged_series
from portfolio_env.evaluation.statistics import (
    equal_risk_growth_difference,
    growth_difference,
    sharpe_difference,
    superiority_test,
)
from portfolio_env.evaluation.summary import SIGNIFICANCE
from portfolio_env.files.atomic import replacing

Row = dict[str, Any]

BARS = 3_000
VALIDATION, TEST = (1_400, 1_900), (1_900, 3_000)  # half-open rows
STRATEGIES = ("momentum", "olmar2", "mean_variance")
LOG_OPTIMAL, PACE = "log_optimal", 0.2
COMMISSIONS = {"null": (10.0, 0.0), "weak": (10.0,), "medium": (10.0,)}  # basis points, by market
KEYS = ("market", "commission", "judge", "strategy")  # of a row of the summary
SCALES = {
    "growth": (100, "{:+.1f}", "growth, % a year"),
    "sharpe": (1, "{:+.2f}", "Sharpe ratio"),
    "equal_risk": (100, "{:+.1f}", "growth at the volatility of equal weight, % a year"),
}
BAR = 0.08
"""Of false positives."""


class LogOptimal:
    """Portfolio of largest expected log growth, by the true signal."""

    action = "weights"

    def __init__(self, planted: PlantedMarket) -> None:
        self.targets = planted.log_optimal_weights(slice(VALIDATION[0], None))

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[NDArray[Any], Any]:
        """Return target weights (B, N + 1)."""
        return self.targets[observation["t"][:, 0] - VALIDATION[0]], state


def draw(kind: str, seed: int) -> PlantedMarket:
    """Return a market of a kind."""
    planted: Row = {"kappa": 0.0} if kind == "null" else {"strength": kind}
    return PlantedMarket.draw(seed=seed, bars=BARS, **planted)


def account(
    policy: Policy, planted: PlantedMarket, rows: tuple[int, int], commission: float
) -> BacktestResult:
    """Return the account of a policy over a range."""
    return backtest(
        policy,
        PortfolioEnv(
            planted.market,
            window=1,
            observation="index",
            action="weights",
            start=rows[0],
            end=rows[1],
            costs={"commission_bps": commission},
            adjustment=PACE if isinstance(policy, LogOptimal) else 1.0,
        ),
    )


def expected_growth(planted: PlantedMarket, result: BacktestResult, leverage: float = 1.0) -> float:
    """Return the expected yearly log growth of the weights held, by the true process, less costs.

    Args:
        planted: The market.
        result: An account over the test range.
        leverage: Factor of all its returns, with money borrowed and lent for nothing.
    """
    lost = result.costs / result.values[:-1]
    cash = np.log1p(-leverage * lost)
    weights = result.held * (leverage * (1 - lost) / (1 - leverage * lost))[:, None]
    growth = planted.growth(weights, TEST[0] + np.arange(len(lost))) + cash
    return float(growth.mean()) * result.periods_per_year


def expected_moments(planted: PlantedMarket, result: BacktestResult) -> tuple[float, float]:
    """Return mean and deviation per bar of the returns of the weights held, by the true process."""
    kept = 1 - result.costs / result.values[:-1]
    risky = kept[:, None] * result.held[:, 1:]
    means = (risky * planted.expected[TEST[0] :][: len(kept)]).sum(axis=1) + kept - 1
    variance = planted.sigma**2 * np.square(risky).sum(axis=1).mean() + means.var()
    return float(means.mean()), float(np.sqrt(variance))


def expected_differences(
    planted: PlantedMarket, result: BacktestResult, benchmark: BacktestResult
) -> dict[Judge, float]:
    """Return the true difference between two accounts a year, by measure."""
    (mean, deviation), (other_mean, other_deviation) = (
        expected_moments(planted, each) for each in (result, benchmark)
    )
    other = expected_growth(planted, benchmark)
    leverage = other_deviation / deviation
    ratios = mean / deviation - other_mean / other_deviation
    return {
        "growth": expected_growth(planted, result) - other,
        "sharpe": ratios * float(np.sqrt(result.periods_per_year)),
        "equal_risk": expected_growth(planted, result, leverage) - other,
    }


def lower_bound(result: BacktestResult, benchmark: BacktestResult, judge: Judge) -> float:
    """Return the lower bound of the 95 % interval of a difference, as ``compare`` computes it."""
    year = result.periods_per_year
    if judge == "growth":
        return growth_difference(result.log_returns, benchmark.log_returns, year).low
    if judge == "sharpe":
        return sharpe_difference(result.excess_returns, benchmark.excess_returns, year).low
    cash = result.cash_returns
    pair = result.returns, benchmark.returns
    return equal_risk_growth_difference(*pair, year, cash_returns=cash).low


def judged(kind: str, seed: int) -> list[Row]:
    """Return the verdict on every strategy on one market, at every commission."""
    planted = draw(kind, seed)
    policies: dict[str, Policy] = {
        name: make_baseline(name, planted.market) for name in (BENCHMARK, *STRATEGIES)
    }
    if kind != "null":
        policies[LOG_OPTIMAL] = LogOptimal(planted)
    rows = []
    for commission in COMMISSIONS[kind]:
        before, after, both = (
            {name: account(policy, planted, when, commission) for name, policy in policies.items()}
            for when in (VALIDATION, TEST, (VALIDATION[0], TEST[1]))
        )
        truth = {n: expected_differences(planted, after[n], after[BENCHMARK]) for n in policies}
        comparison = compare(after)
        for judge in DIFFERENCES:
            series = judged_series(
                {n: after[n] for n in (BENCHMARK, *STRATEGIES)}, BENCHMARK, judge
            )
            best = superiority_test(series, BENCHMARK, after[BENCHMARK].periods_per_year)
            for name in (name for name in policies if name != BENCHMARK):
                found: Any = comparison.table.loc[name]
                gate = gate_decision(before[name], before[BENCHMARK], judge)
                parts = {"difference": "", "low": "_low", "high": "_high"}
                rows.append(
                    {"market": kind, "seed": seed, "commission": commission}
                    | {"judge": judge, "strategy": name, "expected": truth[name][judge]}
                    | {part: float(found[DIFFERENCES[judge] + end]) for part, end in parts.items()}
                    | {"beats": bool(found[f"{DIFFERENCES[judge]}_low"] > 0)}
                    | {"beats_on_both": lower_bound(both[name], both[BENCHMARK], judge) > 0}
                    | {"best_beats": best.estimate > 0 and best.p_value <= SIGNIFICANCE}
                    | {"gate": gate.passed, "ahead_before": gate.estimate > 0}
                )
    return rows


def summary(rows: Iterable[Row]) -> list[Row]:
    """Return shares of the markets, by kind of market, commission, measure and strategy."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in KEYS)
        groups.setdefault(key, []).append(row)
    out = []
    for key, group in groups.items():
        columns = {name: np.array([row[name] for row in group]) for name in group[0]}
        truth = columns["expected"].mean()
        low, high = columns["low"], columns["high"]
        shares = ("beats", "beats_on_both", "gate", "ahead_before", "best_beats")
        out.append(
            dict(zip(KEYS, key, strict=True))
            | {"markets": len(group), "truth": float(truth)}
            | {"difference": float(columns["difference"].mean())}
            | {name: float(columns[name].mean()) for name in shares}
            | {
                "behind": float((high < 0).mean()),
                "covered": float(((low <= truth) & (truth <= high)).mean()),
                "low_above_truth": float((low > truth).mean()),
            }
        )
    return out


COLUMNS = {
    "beats": "beats",
    "beats_on_both": "on validation and test",
    "behind": "falls behind",
    "covered": "interval holds truth",
    "low_above_truth": "bound above truth",
    "gate": "gate opens",
    "ahead_before": "ahead in validation",
}
"""Shares of the table."""


def print_tables(found: list[Row]) -> None:
    """Print a table in Markdown for every kind of market, commission and measure."""
    for key in dict.fromkeys(tuple(row[name] for name in KEYS[:-1]) for row in found):
        own = [row for row in found if tuple(row[name] for name in KEYS[:-1]) == key]
        kind, commission, judge = key
        scale, form, unit = SCALES[judge]
        print(f"\n{kind}, {own[0]['markets']} markets, {commission:g} bp; {unit}\n")
        print("|", " | ".join(["strategy", "truth", "mean difference", *COLUMNS.values()]), "|")
        print("|" + " --- |" * (3 + len(COLUMNS)))
        for row in own:
            sizes = [form.format(scale * row[name]) for name in ("truth", "difference")]
            shares = [f"{100 * row[name]:.1f} %" for name in COLUMNS]
            print("|", " | ".join([row["strategy"], *sizes, *shares]), "|")
        best = 100 * own[0]["best_beats"]
        print(f"\nThe best of {len(STRATEGIES)} beats equal weight by Hansen's test: {best:.1f} %")


def study(markets: int, workers: int, kept: Path) -> list[Row]:
    """Return all verdicts, of so many null markets and half as many of each other kind.

    Args:
        markets: Number of null markets.
        workers: Processes, of one thread each.
        kept: File of one line per market, to which each is added when it is done. What it holds is
            not computed again: delete it after a change of the program.
    """
    number = {kind: markets if kind == "null" else -(-markets // 2) for kind in COMMISSIONS}
    tasks = [(kind, seed) for seed in range(markets) for kind in COMMISSIONS if seed < number[kind]]
    lines = kept.read_text().splitlines() if kept.exists() else []
    done = {(rows[0]["market"], rows[0]["seed"]): rows for rows in map(json.loads, lines)}
    left = [task for task in tasks if task not in done]
    kept.parent.mkdir(parents=True, exist_ok=True)
    several = workers > 1
    with (
        kept.open("a") as file,
        ProcessPoolExecutor(workers, get_context("spawn")) if several else nullcontext() as pool,
    ):
        judge = map if pool is None else pool.map
        found = judge(judged, [kind for kind, _ in left], [seed for _, seed in left])
        for task, rows in zip(left, found, strict=True):
            file.write(json.dumps(rows) + "\n")
            file.flush()
            done[task] = rows
    return [row for kind in COMMISSIONS for task in tasks if task[0] == kind for row in done[task]]


def main() -> None:
    """Evaluate everything, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", type=int, default=200, help="of noise")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/verdicts.json"))
    arguments = parser.parse_args()
    start = perf_counter()
    rows = study(arguments.markets, arguments.workers, arguments.out.with_suffix(".jsonl"))
    found = summary(rows)
    print_tables(found)
    worst = max(row["beats"] for row in found if row["market"] == "null")
    seconds = perf_counter() - start
    print(f"\nfalse positives at most {100 * worst:.1f} %, ", end="")
    print(f"bar {100 * BAR:.0f} % {'met' if worst <= BAR else 'MISSED'}; {seconds:.0f} s")
    report = {
        "packages": {name: version(name) for name in ("numpy", "skfolio", "arch", "statsmodels")},
        "seconds": seconds,
        "bar": BAR,
        "summary": found,
        "accounts": rows,
    }
    with replacing(arguments.out) as path:
        path.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
