"""From a policy to orders: decisions at the last bar, what is traded for them, and alerts."""

from portfolio_env.live.account import AccountOptions, orders_at
from portfolio_env.live.alerts import AlertBounds, alerts
from portfolio_env.live.holdings import Holdings, read_holdings
from portfolio_env.live.instruments import Instrument, read_instruments
from portfolio_env.live.orders import Orders, orders_of
from portfolio_env.live.planning import Plan, plan
from portfolio_env.live.predictor import Decision, Predictor
from portfolio_env.live.today import Today, today

__all__ = [
    "AccountOptions",
    "AlertBounds",
    "Decision",
    "Holdings",
    "Instrument",
    "Orders",
    "Plan",
    "Predictor",
    "Today",
    "alerts",
    "orders_at",
    "orders_of",
    "plan",
    "read_holdings",
    "read_instruments",
    "today",
]
