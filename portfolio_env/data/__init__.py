"""Sources of markets: bundled prices, files, frames, downloads and generators."""

from portfolio_env.data.load import SOURCES, load_market

__all__ = ["SOURCES", "load_market"]
