"""Rules: weights from prices without an optimiser or a network."""

from baselines.rules.momentum import CrossSectionalMomentum, Momentum, TimeSeriesMomentum
from baselines.rules.simple import (
    BuyAndHold,
    Cash,
    ConstantRebalanced,
    EqualWeight,
    RandomWeights,
)
from baselines.rules.timing import RegimeSwitching, TrendFilter, VolatilityManaged
from baselines.rules.volatility import InverseVolatility, LowVolatility

__all__ = [
    "BuyAndHold",
    "Cash",
    "ConstantRebalanced",
    "CrossSectionalMomentum",
    "EqualWeight",
    "InverseVolatility",
    "LowVolatility",
    "Momentum",
    "RandomWeights",
    "RegimeSwitching",
    "TimeSeriesMomentum",
    "TrendFilter",
    "VolatilityManaged",
]
