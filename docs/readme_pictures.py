"""Draw the pictures of the README: the accounts of its example, and one page of the report.

Usage: ``python docs/readme_pictures.py``. It trains as the README does, with seed 0.
"""

from pathlib import Path

import portfolio_env as pe
from agents import make_agent, make_sb3_vec_env
from baselines import evaluate
from portfolio_env.evaluation import tear_sheet

FOLDER, DPI = Path(__file__).parent / "_static", 70


def main() -> None:
    """Train, evaluate and draw."""
    market = pe.load_market("sp500", fit_end="2016-01-01")
    learning = {"end": "2016-01-01", "random_start": True, "episode_length": 250, "adjustment": 0.1}
    reward = {"name": "excess_log_return", "scale": 100}
    venv = make_sb3_vec_env(
        market, num_envs=256, observation="index", window=1, reward=reward, **learning
    )
    ppo = make_agent("ppo", venv, seed=0).learn(200_000)
    strategies = {"ppo": ppo, "hrp": "hrp", "mean_variance": "mean_variance"}
    found = evaluate(strategies, market, start="2016-01-01")
    found.print()
    results = found.comparison.results
    found.comparison.plot().savefig(FOLDER / "accounts.png", dpi=DPI)
    page = tear_sheet(results["ppo"], "ppo", results["equal_weight"])
    page.savefig(FOLDER / "tear_sheet.png", dpi=DPI)


if __name__ == "__main__":
    main()
