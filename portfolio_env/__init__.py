"""A Gymnasium environment package for portfolio optimisation.

>>> import gymnasium as gym
>>> env = gym.make("portfolio_env:Portfolio-v0", market="synthetic", window=20)
>>> observation, info = env.reset(seed=0)
"""

import os
import signal
import sys

if (
    sys.argv[:1] == ["-m"]  # while Python looks for the module that it is to run
    and "portfolio_env.data" in sys.orig_argv
    and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
):
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # no traceback of an import

import gymnasium as gym

from portfolio_env.data import load_market
from portfolio_env.env import PortfolioEnv
from portfolio_env.errors import ArgumentError, DataError, PortfolioError
from portfolio_env.machine import env_info
from portfolio_env.market import Market, PricePanel
from portfolio_env.simulation import dynamics
from portfolio_env.simulation.constraints import PortfolioConstraints
from portfolio_env.simulation.costs import TransactionCosts
from portfolio_env.simulation.fills import Fills
from portfolio_env.vector_env import PortfolioVectorEnv

__all__ = [
    "ArgumentError",
    "DataError",
    "Fills",
    "Market",
    "PortfolioConstraints",
    "PortfolioEnv",
    "PortfolioError",
    "PortfolioVectorEnv",
    "PricePanel",
    "TransactionCosts",
    "dynamics",
    "env_info",
    "load_market",
]
__version__ = "0.1.0"

if "Portfolio-v0" not in gym.registry:
    gym.register(
        id="Portfolio-v0",
        entry_point="portfolio_env.env:PortfolioEnv",
        vector_entry_point="portfolio_env.vector_env:PortfolioVectorEnv",
    )
