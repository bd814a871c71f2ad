"""Causal features of market data: what may be observed at the close of bar t, from bars up to t."""

from portfolio_env.features.base import Feature
from portfolio_env.features.pipeline import FEATURES, PRESETS, FeaturePipeline

__all__ = ["FEATURES", "PRESETS", "Feature", "FeaturePipeline"]
