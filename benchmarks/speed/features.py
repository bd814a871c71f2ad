"""Time and memory of features, on one core; prints the table and writes it as JSON.

    python benchmarks/speed/features.py --out runs/features.json

20 assets x 8,000 synthetic daily bars, preset "full". ta.add_all_ta_features computes its 86
columns from the same bars, in the same run. Medians; the first, which compiles, is left out.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import pandas as pd
import ta

from portfolio_env import Market, PricePanel
from portfolio_env.data.generators.synthetic import synthetic_panel
from portfolio_env.features import FeaturePipeline
from portfolio_env.files.atomic import replacing
from portfolio_env.market.panel import BAR_FIELDS

ASSETS, BARS, UPDATES = 20, 8000, 40


def seconds(work: Callable[[], object], times: int) -> float:
    """Return the median time of some runs after a first one."""
    taken = []
    for _ in range(times + 1):
        start = perf_counter()
        work()
        taken.append(perf_counter() - start)
    return median(taken[1:])


def whole_by_ta(panel: PricePanel) -> None:
    """Compute every indicator of ta for every asset."""
    for i in range(ASSETS):
        frame = pd.DataFrame({name: getattr(panel, name)[:, i] for name in BAR_FIELDS})
        ta.add_all_ta_features(frame, *BAR_FIELDS)


def updates(panel: PricePanel, pipeline: FeaturePipeline, times: int = UPDATES) -> float:
    """Return the median time to append a bar to a market and compute its features."""
    bars = len(panel.timestamps)
    market = pipeline.transform(panel.subset(slice(0, bars - times)))
    taken = []
    for t in range(bars - times, bars):
        bar = panel.subset(slice(t, t + 1))
        start = perf_counter()
        market = pipeline.update(market, bar)
        taken.append(perf_counter() - start)
    return median(taken[1:])


def minutes(bars: int) -> PricePanel:
    """Return minutes of five assets."""
    steps = np.random.default_rng(0).normal(0, 1e-4, (bars, 5))
    close = 100 * np.exp(steps.cumsum(axis=0))
    times = np.datetime64("2020-01-01", "ns") + np.arange(bars) * np.timedelta64(60, "s")
    outer = {"open": close, "high": 1.001 * close, "low": 0.999 * close}
    return PricePanel(times, tuple("ABCDE"), close, **outer, volume=np.full(close.shape, 100.0))


def kilobytes(field: str) -> int:
    """Return the memory of this process now (VmRSS) or at its peak (VmHWM) in kB; Linux only."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(field)))


def peak_memory() -> None:
    """Print the growth of this process while it makes a market, over the size of its features."""
    panel = synthetic_panel(seed=0, bars=BARS, assets=ASSETS)
    pipeline = FeaturePipeline("full")
    pipeline.fit(panel.subset(slice(0, 600)), 600).transform(panel.subset(slice(0, 600)))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of imports and compilation
    before = kilobytes("VmRSS")
    market = pipeline.fit(panel, BARS // 2).transform(panel)
    print(1024 * (kilobytes("VmHWM") - before) / market.features.nbytes)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/features.json"))
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if arguments.memory:
        peak_memory()
        return
    warnings.simplefilter("ignore")  # ta divides by zero
    panel = synthetic_panel(seed=0, bars=BARS, assets=ASSETS)
    pipeline = FeaturePipeline("full").fit(panel, BARS // 2)
    market = pipeline.transform(panel)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "market.npz"
        market.save(path)
        loading = seconds(lambda: Market.load(path), 9)
    command = [sys.executable, __file__, "--memory"]
    memory = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures = {
        "features per asset": market.n_features,
        "build, unscaled, s": seconds(lambda: FeaturePipeline("full").transform(panel), 5),
        "fit on half and build, s": seconds(
            lambda: FeaturePipeline("full").fit(panel, BARS // 2).transform(panel), 5
        ),
        "peak memory / feature array": float(memory),
        "append one bar, ms": 1e3 * updates(panel, pipeline),
        "the same, group ta, ms": 1e3 * updates(panel, FeaturePipeline("ta"), 5),
        "append to 8,000 minutes, ms": 1e3 * updates(minutes(BARS), FeaturePipeline("technical")),
        "append to 1,000,000 minutes, ms": 1e3
        * updates(minutes(10**6), FeaturePipeline("technical")),
        "load from disk, ms": 1e3 * loading,
        "ta.add_all_ta_features, s": seconds(lambda: whole_by_ta(panel), 1),
    }
    for name, value in figures.items():
        print(f"{name:<32}{value:>12,.4g}", flush=True)
    facts = {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("numba", "numpy", "pandas", "ta")},
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    with replacing(arguments.out) as beside:
        beside.write_text(json.dumps(facts | figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
