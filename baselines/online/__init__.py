"""Online portfolio selection: portfolios that are updated when a bar closes.

Li & Hoi (2014), "Online Portfolio Selection: A Survey", ACM Computing Surveys 46.
"""

from baselines.online.base import OnlineModel
from baselines.online.confidence import CWMRStdev, CWMRVar
from baselines.online.reversion import OLMAR1, OLMAR2, PAMR, RMR
from baselines.online.winners import ExponentiatedGradient, OnlineNewtonStep

__all__ = [
    "OLMAR1",
    "OLMAR2",
    "PAMR",
    "RMR",
    "CWMRStdev",
    "CWMRVar",
    "ExponentiatedGradient",
    "OnlineModel",
    "OnlineNewtonStep",
]
