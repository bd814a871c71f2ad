"""A process that replays a range into a folder, to be killed: python -m helpers.paper.trader."""

import signal
import sys
from pathlib import Path

from baselines import make_baseline
from portfolio_env import PortfolioEnv, load_market
from portfolio_env.live import Predictor
from portfolio_env.paper.faults import Faults
from portfolio_env.paper.replay import replay

START, END = 30, 58


def trade(folder, lost=0.0):
    market = load_market("synthetic?bars=60&assets=3&seed=3")
    costs = {"commission_bps": 10, "fixed_fee": 0.5}
    env = PortfolioEnv(market, observation="index", action="weights", window=1, costs=costs)
    predictor = Predictor(make_baseline("random", market), env)
    faults = Faults(seed=1, lost_answer=lost, lost_request=lost)
    return replay(predictor, START, END, faults=faults, folder=folder)


if __name__ == "__main__":
    # nobody handles this signal: the system ends the process wherever it is, as it does by SIGKILL
    signal.setitimer(signal.ITIMER_REAL, float(sys.argv[3]))
    trade(Path(sys.argv[1]), float(sys.argv[2]))
