"""From a policy to orders: decisions at the last bar, risk limits, what is traded, alerts."""

from portfolio_env.live.account import AccountOptions, orders_at
from portfolio_env.live.alerts import AlertBounds, alerts
from portfolio_env.live.holdings import Holdings, read_holdings
from portfolio_env.live.instruments import Instrument, read_instruments
from portfolio_env.live.orders import Orders, orders_of
from portfolio_env.live.planning import Plan, plan
from portfolio_env.live.predictor import Decision, Predictor
from portfolio_env.live.risk import Limited, limited
from portfolio_env.live.risk_limits import DrawdownStop, RiskLimits, read_limits, tail_risk
from portfolio_env.live.risk_managed import RiskManaged
from portfolio_env.live.today import Today, today

__all__ = [
    "AccountOptions",
    "AlertBounds",
    "Decision",
    "DrawdownStop",
    "Holdings",
    "Instrument",
    "Limited",
    "Orders",
    "Plan",
    "Predictor",
    "RiskLimits",
    "RiskManaged",
    "Today",
    "alerts",
    "limited",
    "orders_at",
    "orders_of",
    "plan",
    "read_holdings",
    "read_instruments",
    "read_limits",
    "tail_risk",
    "today",
]
