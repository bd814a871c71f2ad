"""Prices and features in memory: ``PricePanel``, ``Market``, their times and their fingerprints."""

from portfolio_env.market.market import FEATURE_BOUND, Market
from portfolio_env.market.panel import PricePanel

__all__ = ["FEATURE_BOUND", "Market", "PricePanel"]
