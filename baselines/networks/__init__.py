"""Networks trained end to end, from past bars to weights."""

from baselines.networks.deep import EIIE, DeepPortfolio, GatPortfolio, TcnGnnLstmPortfolio
from baselines.networks.deep_momentum import DeepMomentum

__all__ = ["EIIE", "DeepMomentum", "DeepPortfolio", "GatPortfolio", "TcnGnnLstmPortfolio"]
