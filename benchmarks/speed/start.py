"""Processor time before the first step: of compiling, and of reading prices.

    python benchmarks/speed/start.py

The step is that of a copy of the package, without the machine code that is kept beside the
sources. The prices are a CSV table of half a million rows.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
import pandas as pd

from portfolio_env import load_market

PACKAGE = Path(__file__).resolve().parents[2] / "portfolio_env"
CASES = {
    "scores, no constraints": "{}",
    "scores, largest weight": "{'constraints': {'max_weight': 0.4}}",
    "weights": "{'action': 'weights'}",
}
BARS, ASSETS = 50_000, 10
STEP = """
import time
import portfolio_env as pe
start = time.process_time()
env = pe.PortfolioEnv("synthetic", **{options})
env.reset(seed=0)
env.step(env.action_space.sample())
print(time.process_time() - start)
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


def write_rows(file: Path) -> None:
    """Write minutes of random prices, a row per bar and asset."""
    rng = np.random.default_rng(0)
    names = [f"A{number}" for number in range(ASSETS)]
    close = 100 * np.exp(rng.normal(0, 1e-4, (BARS, ASSETS)).cumsum(0)).ravel()
    table = {
        "date": pd.date_range("2020-01-01", periods=BARS, freq="min").repeat(ASSETS),
        "symbol": names * BARS,
        "open": close,
        "high": 1.001 * close,
        "low": 0.999 * close,
        "close": close,
        "volume": rng.integers(1, 1000, len(close)),
    }
    pd.DataFrame(table).to_csv(file, index=False, chunksize=10_000)


def peak() -> float:
    """Return the largest memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print a line of the table, while this process has taken little memory, and of each case."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "rows.csv"
        write_rows(file)
        before, start = peak(), process_time()
        load_market(file, features="none")
        took = process_time() - start
    print(f"{file.name}: {took:.2f} s, {peak() - before:.0f} MiB more than before")

    for name, options in CASES.items():
        print(f"{name:24s} {seconds(options):5.1f} s")


if __name__ == "__main__":
    main()
