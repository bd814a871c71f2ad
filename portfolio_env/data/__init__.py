"""Sources of markets: bundled prices, files, frames, downloads and generators."""

from portfolio_env.data.load import load_market
from portfolio_env.data.opening import SOURCES

__all__ = ["SOURCES", "load_market"]
