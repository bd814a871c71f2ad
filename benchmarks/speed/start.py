"""Processor time before the first step: of compiling, and of reading prices.

    python benchmarks/speed/start.py

    python benchmarks/speed/start.py --full

The step is that of a copy of the package, without the machine code that is kept beside the
sources. The prices are a CSV table of half a million rows; with ``--full`` also a Parquet table of
ten million, alone and with all features.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

PACKAGE = Path(__file__).resolve().parents[2] / "portfolio_env"
CASES = {
    "scores, no constraints": "{}",
    "scores, largest weight": "{'constraints': {'max_weight': 0.4}}",
    "weights": "{'action': 'weights'}",
}
ASSETS = 10
STEP = """
import time
import portfolio_env as pe
start = time.process_time()
env = pe.PortfolioEnv("synthetic", **{options})
env.reset(seed=0)
env.step(env.action_space.sample())
print(time.process_time() - start)
"""
LOAD = """
import time, resource
from portfolio_env import load_market
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
load_market("synthetic", features="{features}")
before, start = peak(), time.process_time()
market = load_market({file!r}, features="{features}")
took, result = time.process_time() - start, market.features.nbytes / 2**20
print(f"{{took:.2f}} s, {{peak() - before:.0f}} MiB more than before, features {{result:.0f}} MiB")
"""


def seconds(options: str) -> float:
    """Return the processor time of an environment with these keywords, and of a step in it."""
    with TemporaryDirectory() as folder:
        copytree(PACKAGE, Path(folder) / "portfolio_env", ignore=ignore_patterns("__pycache__"))
        own = {"PYTHONPATH": folder, "XDG_CACHE_HOME": folder, "OMP_NUM_THREADS": "1"}
        environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | own
        command = [sys.executable, "-c", STEP.format(options=options)]
        found = subprocess.run(
            command, cwd=folder, env=environment, check=True, capture_output=True, text=True
        )
    return float(found.stdout)


def write_rows(file: Path, bars: int) -> None:
    """Write minutes of random prices, a row per bar and asset."""
    rng = np.random.default_rng(0)
    names = [f"A{number}" for number in range(ASSETS)]
    close = 100 * np.exp(rng.normal(0, 1e-4, (bars, ASSETS)).cumsum(0)).ravel()
    table = pd.DataFrame(
        {
            "date": pd.date_range("2020-01-01", periods=bars, freq="min").repeat(ASSETS),
            "symbol": names * bars,
            "open": close,
            "high": 1.001 * close,
            "low": 0.999 * close,
            "close": close,
            "volume": rng.integers(1, 1000, len(close)),
        }
    )
    if file.suffix == ".csv":
        table.to_csv(file, index=False, chunksize=10_000)
    else:
        table.to_parquet(file, index=False)


def main() -> None:
    """Print a line of each table, with features where asked for, and of each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="a million minutes, also with features")
    arguments = parser.parse_args()
    tables = [("rows.csv", 50_000, "none")]
    if arguments.full:
        tables += [("rows.parquet", 1_000_000, "none"), ("rows.parquet", 1_000_000, "full")]
    with TemporaryDirectory() as folder:
        for name, bars, features in tables:
            file = Path(folder) / name
            if not file.exists():
                write_rows(file, bars)
            command = [sys.executable, "-c", LOAD.format(file=str(file), features=features)]
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            print(f"{bars * ASSETS:11,} rows of {name}, features {features}: {found.strip()}")

    for name, options in CASES.items():
        print(f"{name:24s} {seconds(options):5.1f} s")


if __name__ == "__main__":
    main()
