"""Networks trained end to end, from past bars to weights."""

from baselines.networks.deep import DeepPortfolio, GatPortfolio, TcnGnnLstmPortfolio
from baselines.networks.deep_momentum import DeepMomentum

__all__ = ["DeepMomentum", "DeepPortfolio", "GatPortfolio", "TcnGnnLstmPortfolio"]
