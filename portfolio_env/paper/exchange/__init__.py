"""Exchanges: a broker on a test network, or on this machine; there is no way to real money."""

from portfolio_env.paper.exchange.addresses import AddressError, sandbox
from portfolio_env.paper.exchange.broker import ExchangeBroker

__all__ = ["AddressError", "ExchangeBroker", "sandbox"]
