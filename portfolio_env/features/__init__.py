"""Causal features of market data: what may be observed at the close of bar t, from bars up to t."""

from portfolio_env.features.base import Feature
from portfolio_env.features.catalogue import GROUPS, PRESETS, describe, select, table
from portfolio_env.features.pipeline import FeaturePipeline

__all__ = ["GROUPS", "PRESETS", "Feature", "FeaturePipeline", "describe", "select", "table"]
