"""Paper trading: orders through a ledger that loses nothing, to brokers without real money."""

from portfolio_env.paper.broker import (
    Accepted,
    Activity,
    Balances,
    Broker,
    Capabilities,
    Clock,
    NotFound,
    OrderReport,
    Quote,
    Refused,
    SimulatedClock,
    SystemClock,
    Unknown,
)
from portfolio_env.paper.ledger import Ledger
from portfolio_env.paper.orders import Fill, Flow, Order, State, order_id

__all__ = [
    "Accepted",
    "Activity",
    "Balances",
    "Broker",
    "Capabilities",
    "Clock",
    "Fill",
    "Flow",
    "Ledger",
    "NotFound",
    "Order",
    "OrderReport",
    "Quote",
    "Refused",
    "SimulatedClock",
    "State",
    "SystemClock",
    "Unknown",
    "order_id",
]
