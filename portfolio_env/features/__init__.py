"""Causal features of market data: what may be observed at the close of bar t, from bars up to t."""

from portfolio_env.features.bars import Bars
from portfolio_env.features.pipeline import FeaturePipeline
from portfolio_env.features.presets import GROUPS, PRESETS, describe, select, table
from portfolio_env.features.registry import ALL, Feature, indicator

__all__ = [
    "ALL",
    "GROUPS",
    "PRESETS",
    "Bars",
    "Feature",
    "FeaturePipeline",
    "describe",
    "indicator",
    "select",
    "table",
]
