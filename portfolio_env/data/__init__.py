"""Where markets come from: bundled real prices, generators, files and frames."""

from portfolio_env.data.load import SOURCES, load_market

__all__ = ["SOURCES", "load_market"]
