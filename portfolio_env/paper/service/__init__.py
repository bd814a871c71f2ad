"""Service: candles as they close, the loop over them, and alerts to those who should know."""

from portfolio_env.paper.service.feed import ExchangeFeed, Feed, Reading
from portfolio_env.paper.service.outbox import FileSink, LogSink, Outbox, Sink, WebhookSink
from portfolio_env.paper.service.scheduler import Scheduler, Timing
from portfolio_env.paper.service.watch import watch

__all__ = [
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
    "watch",
]
