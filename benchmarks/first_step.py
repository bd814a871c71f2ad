"""Processor time of the first environment and step after an installation, which compiles them.

    python benchmarks/first_step.py

It runs a copy of the package without the machine code that is kept beside the sources.
"""

import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns
from tempfile import TemporaryDirectory

PACKAGE = Path(__file__).resolve().parents[1] / "portfolio_env"
CASES = {
    "scores, no constraints": "{}",
    "scores, largest weight": "{'constraints': {'max_weight': 0.4}}",
    "weights": "{'action': 'weights'}",
}
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


def main() -> None:
    """Print a line per case."""
    for name, options in CASES.items():
        print(f"{name:24s} {seconds(options):5.1f} s")


if __name__ == "__main__":
    main()
