"""Service: candles as they close, the loop over them, and alerts to those who should know."""

from portfolio_env.paper.service.feed import ExchangeFeed, Feed, Reading
from portfolio_env.paper.service.scheduler import Scheduler, Timing

__all__ = ["ExchangeFeed", "Feed", "Reading", "Scheduler", "Timing"]
