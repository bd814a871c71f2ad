"""Search for an edge over equal weight on real markets, by a plan that was written down before.

    python benchmarks/edge.py --data FOLDER --out runs/edge.json

The plan is ``edge.toml``: markets, ranges, costs, strategies and seeds. It must be committed as it
stands before a test range is read, and its hash is part of the output. For every market the
strategies run over the validation range first, where of every family and by each of three measures
(growth, the Sharpe ratio, growth at the volatility of equal weight) the strategy that is furthest
ahead of equal weight is selected. Then all run over the test range, once. The differences of the
selected ones, with intervals of 95 %, are the result; Hansen's test asks whether the best of a
family, and of all of them, is no better than equal weight, whichever that is.

FOLDER holds the files that the plan names; they are not part of this repository. A market whose
file is missing is left out, and the output says so. ``--only-validation`` reads no test range.
"""

import argparse
import hashlib
import json
import os
import subprocess
import tomllib
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import process_time
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pandas as pd
import torch as th
from stable_baselines3.common.logger import Logger

import portfolio_env as pe
from agents import make_agent, make_sb3_vec_env, policy_for
from agents.direct.agent import DirectAgent
from baselines import evaluate
from baselines.ensemble import Ensemble
from baselines.volatility_target import VolatilityTarget
from portfolio_env.evaluation import Comparison, TrainedAgent
from portfolio_env.evaluation.comparison import BENCHMARK, DIFFERENCES, judged_series
from portfolio_env.evaluation.statistics import superiority_test
from portfolio_env.files.atomic import replacing

Plan = dict[str, Any]
Row = dict[str, Any]

PLAN = Path(__file__).with_name("edge.toml")
REWARD = {"name": "excess_log_return", "scale": 100}
PARTS = {"difference": "", "low": "_low", "high": "_high"}
EVERYTHING = "all"  # families together
SCALES = {"growth": (100, "{:+.1f}"), "sharpe": (1, "{:+.2f}"), "equal_risk": (100, "{:+.1f}")}
TITLES = {
    "growth": "growth, % a year",
    "sharpe": "Sharpe ratio",
    "equal_risk": "growth at equal volatility, % a year",
}


def commit_of(file: Path) -> str:
    """Return the commit that holds a file as it stands.

    Raises:
        SystemExit: If the file was changed since, or is in none.
    """
    git = ["git", "-C", str(file.parent)]
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", file.name])
    found = subprocess.run(
        [*git, "log", "-1", "--format=%H", "--", file.name], capture_output=True, text=True
    )
    if changed.returncode or not found.stdout.strip():
        raise SystemExit(f"error: commit {file.name} first; the test range is read by a fixed plan")
    return found.stdout.strip()


def load(data: Path, of: Plan, features: str) -> pe.Market:
    """Return the market of a data set, with features scaled before its validation range."""
    frame = pd.read_csv(data / of["file"], dtype={"date": str})
    if "symbol" in frame:
        frame = frame[~frame["symbol"].isin(of.get("without", []))]
        frame = frame.rename(columns={"adj_close": "close"})
    else:
        frame = frame.set_index("date")
    bounds = {name: of[name] for name in ("start", "end")}
    year = of.get("periods_per_year")
    return pe.load_market(
        frame, features=features, fit_end=of["validation"], periods_per_year=year, **bounds
    )


def direct(market: pe.Market, of: Plan, plan: Plan, costs: Plan, seed: int) -> Any:
    """Return a direct agent, its weights those of the largest growth on the validation range."""
    options = plan["agents"]
    cut, test = market.row(of["validation"]), market.row(of["test"])
    agent = DirectAgent(market.n_features, seed=seed)
    agent.train(
        market,
        0,
        cut,
        validation=(cut, test),
        env_options={"costs": costs, "adjustment": options["adjustment"]},
        universe=options["universe"],
        seed=seed,
        **options["direct"],
    )
    return agent


def ppo(market: pe.Market, of: Plan, plan: Plan, costs: Plan, seed: int) -> Any:
    """Return the policy of PPO after its last step."""
    options, own = plan["agents"], plan["agents"]["ppo"]
    shared = {"observation": "index", "window": 1, "costs": costs}
    venv = make_sb3_vec_env(
        market,
        own["lanes"],
        end=of["validation"],
        random_start=True,
        episode_length=own["episode_length"],
        universe=options["universe"],
        adjustment=options["adjustment"],
        reward=REWARD,
        **shared,
    )
    agent = make_agent("ppo", venv, seed=seed, device="cpu")
    agent.set_logger(Logger(None, []))  # SB3 makes a folder otherwise
    agent.learn(own["timesteps"])
    return policy_for(agent, make_sb3_vec_env(market, 1, **shared))


LEARNERS = {"direct": direct, "ppo": ppo}


def strategies(market: pe.Market, of: Plan, plan: Plan, costs: Plan) -> dict[str, dict[str, Any]]:
    """Return the strategies by family and name; agents are trained."""
    found: dict[str, dict[str, Any]] = {
        family: {name: name for name in names}
        for family, names in plan["families"].items()
        if family != "learners"
    }
    pace = plan["agents"]["adjustment"]
    interface = {"observation": "index", "action": "logits", "window": 1, "adjustment": pace}
    learners: dict[str, Any] = {}
    for name in plan["families"].get("learners", []):
        members = {
            f"{name} {seed}": LEARNERS[name](market, of, plan, costs, seed)
            for seed in plan["seeds"]
        }
        paces = dict.fromkeys(members, pace)
        learners |= {label: TrainedAgent(m, options=interface) for label, m in members.items()}
        learners[f"{name} mean"] = Ensemble(market, members=members, paces=paces)
        learners[f"{name} mean at 10 %"] = VolatilityTarget(market, members=members, paces=paces)
    return found | ({"learners": learners} if learners else {})


def differences(comparison: Comparison, measures: Iterable[str]) -> dict[str, Any]:
    """Return the differences to equal weight with intervals, by strategy and measure."""
    rows: dict[str, Any] = {}
    for name in comparison.ranked:
        if name != BENCHMARK:
            cells: Any = comparison.table.loc[name]
            rows[name] = {
                m: {part: float(cells[DIFFERENCES[m] + end]) for part, end in PARTS.items()}
                for m in measures
            }
    return rows


def selected(
    families: Mapping[str, Iterable[str]], before: Mapping[str, Any], measures: Iterable[str]
) -> dict[str, dict[str, str]]:
    """Return of every family, by measure, the strategy that is furthest ahead in validation."""
    known = {f: [name for name in names if name in before] for f, names in families.items()}
    known[EVERYTHING] = [name for names in known.values() for name in names]
    return {
        family: {
            m: max(names, key=lambda name: np.nan_to_num(before[name][m]["difference"], nan=-9e9))
            for m in measures
        }
        for family, names in known.items()
        if names
    }


def hansen(
    comparison: Comparison, families: Mapping[str, Iterable[str]], plan: Plan
) -> dict[str, dict[str, float]]:
    """Return p-values of "the best is no better than equal weight", by family and measure."""
    groups = {family: list(names) for family, names in families.items()}
    groups[EVERYTHING] = [name for names in groups.values() for name in names]
    year = comparison.results[BENCHMARK].periods_per_year
    found: dict[str, dict[str, float]] = {}
    for family, names in groups.items():
        found[family] = {}
        chosen = {n: comparison.solvent[n] for n in (BENCHMARK, *names) if n in comparison.solvent}
        for measure in plan["measures"]:
            series = judged_series(chosen, BENCHMARK, measure)
            if len(series) > 1:
                test = superiority_test(series, BENCHMARK, year, n_resamples=plan["n_resamples"])
                found[family][measure] = test.p_value
    return found


def study(data: Path, of: Plan, plan: Plan, *, only_validation: bool) -> Row:
    """Return everything on one data set."""
    began = process_time()
    costs: Plan = {"commission_bps": plan["commission_bps"]}
    if "cash_rate" in of:
        costs["cash_rate_annual"] = str(data / of["cash_rate"])
    market = load(data, of, plan["agents"]["features"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        families = strategies(market, of, plan, costs)
    everything = {name: thing for own in families.values() for name, thing in own.items()}
    names = {family: list(own) for family, own in families.items()}
    row: Row = {"name": of["name"], "note": of["note"], "assets": market.n_assets}

    def run(start: str, end: str | None, n_resamples: int) -> Comparison:
        found = evaluate(
            everything, market, start=start, end=end, costs=costs, n_resamples=n_resamples
        )
        return found.comparison

    before = run(of["validation"], of["test"], 200)
    row["validation"] = differences(before, plan["measures"])
    row["selected"] = selected(names, row["validation"], plan["measures"])
    row["failed"] = dict(before.failed)
    if not only_validation:
        after = run(of["test"], None, plan["n_resamples"])
        row["test"] = differences(after, plan["measures"])
        row["hansen"] = hansen(after, names, plan)
        row["failed"] |= after.failed
        row["levels"] = after.table[["annual_log_growth", "volatility", "sharpe"]].to_dict("index")
    row["seconds"] = process_time() - began
    return row


def cell(found: Mapping[str, float], measure: str) -> str:
    """Return a difference with its interval."""
    scale, form = SCALES[measure]
    value, low, high = (form.format(scale * found[part]) for part in PARTS)
    return f"{value} [{low}, {high}]"


def tables(report: Row) -> str:
    """Return the results in Markdown: what was selected, then everything that ran."""
    measures = report["plan"]["measures"]
    head = ["market", "family", *(TITLES[m] for m in measures)]
    lines = [head, ["---"] * len(head)]
    for row in report["data"]:
        part = row.get("test", row["validation"])
        for family, chosen in row["selected"].items():
            cells = []
            for m in measures:
                p = row.get("hansen", {}).get(family, {}).get(m)
                told = "" if p is None else f"; p = {p:.2f}"
                shown = cell(part[chosen[m]][m], m) if chosen[m] in part else "could not run"
                cells.append(f"`{chosen[m]}` {shown}{told}")
            lines.append([row["name"], family, *cells])
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    for row in report["data"]:
        part = row.get("test", row["validation"])
        body = [["strategy", *head[2:]], ["---"] * (1 + len(measures))]
        body += [[f"`{n}`", *(cell(found[m], m) for m in measures)] for n, found in part.items()]
        rest = "\n".join("| " + " | ".join(line) + " |" for line in body)
        text += f"\n\n{row['name']}: {row['note']}; {row['seconds']:.0f} s\n\n{rest}"
        text += "".join(f"\n\n{n} could not run: {why}" for n, why in row["failed"].items())
    return text


def main() -> None:
    """Run the plan, print the tables, write everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the plan's files")
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--out", type=Path, default=Path("runs/edge.json"))
    parser.add_argument("--only", help="name of one market of the plan; default all")
    parser.add_argument("--only-validation", action="store_true", help="read no test range")
    arguments = parser.parse_args()
    th.set_num_threads(1)
    plan = tomllib.loads(arguments.plan.read_text())
    report: Row = {
        "sha256": hashlib.sha256(arguments.plan.read_bytes()).hexdigest(),
        "commit": None if arguments.only_validation else commit_of(arguments.plan.resolve()),
        "plan": plan,
        "data": [],
    }
    for of in plan["data"]:
        if arguments.only not in (None, of["name"]):
            continue
        if not (arguments.data / of["file"]).is_file():
            print(f"{of['name']} is left out: there is no {arguments.data / of['file']}")
            continue
        only = arguments.only_validation
        report["data"].append(study(arguments.data, of, plan, only_validation=only))
        print(f"{of['name']}: {report['data'][-1]['seconds']:.0f} s", flush=True)
        with replacing(arguments.out) as path:
            path.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nPlan {report['sha256'][:16]}, commit {(report['commit'] or 'none')[:12]}\n")
    print(tables(report))


if __name__ == "__main__":
    main()
