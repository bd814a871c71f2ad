"""Processor time and memory of loading a CSV table of half a million rows.

python benchmarks/rows.py
"""

import resource
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
import pandas as pd

from portfolio_env import load_market

BARS, ASSETS = 50_000, 10


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
    """Print seconds and MiB; what comes before it takes as little memory as it can."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "rows.csv"
        write_rows(file)
        before, start = peak(), process_time()
        load_market(file, features="none")
        seconds = process_time() - start
    print(f"{file.name}: {seconds:.2f} s, {peak() - before:.0f} MiB more than before")


if __name__ == "__main__":
    main()
