"""Trading at an exchange, never with real money: candles, orders, the loop over bars, alerts."""

from portfolio_env.paper.exchange.alerts import FileSink, LogSink, Outbox, Sink, WebhookSink, watch
from portfolio_env.paper.exchange.broker import ExchangeBroker
from portfolio_env.paper.exchange.market_data import ExchangeFeed, Feed, Reading
from portfolio_env.paper.exchange.scheduler import Scheduler, Timing
from portfolio_env.paper.exchange.venues import AddressError, sandbox

__all__ = [
    "AddressError",
    "ExchangeBroker",
    "ExchangeFeed",
    "Feed",
    "FileSink",
    "LogSink",
    "Outbox",
    "Reading",
    "Scheduler",
    "Sink",
    "Timing",
    "WebhookSink",
    "sandbox",
    "watch",
]
