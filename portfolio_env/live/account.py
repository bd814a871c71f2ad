"""The account that orders are for: its holdings, its rules of trading, and the way to orders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from portfolio_env.checks import check_number
from portfolio_env.errors import ArgumentError
from portfolio_env.live.holdings import Holdings, read_holdings
from portfolio_env.live.instruments import (
    Instrument,
    instruments_of,
    rates_of,
    read_instruments,
    uniform,
)
from portfolio_env.live.money import decimal_of
from portfolio_env.live.orders import Orders, orders_of
from portfolio_env.live.planning import last_prices, plan
from portfolio_env.live.predictor import Predictor
from portfolio_env.simulation.cost_models import Costs


@dataclass(frozen=True)
class AccountOptions:
    """Account to trade for: files are those of ``read_holdings`` and ``read_instruments``."""

    holdings: Path | None = None
    """CSV file of what is held: columns asset and units, and a row cash."""
    capital: float | None = None
    """Value of the account: all cash, or what is held and the rest cash."""
    lot: float = 1.0
    """Smallest number of units that can be traded; 0 for any fraction."""
    lots: Path | None = None
    """CSV file of rules by asset in place of lot: columns asset and any of lot, tick, min_notional,
    fee_bps."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.capital is not None:
            check_number("capital", self.capital, above=0)
        check_number("lot", self.lot, 0)

    @property
    def given(self) -> bool:
        """Return whether there is an account."""
        return self.capital is not None or self.holdings is not None

    def rules(self) -> Mapping[str, Instrument]:
        """Return the instruments by asset, ``"*"`` for all others."""
        return uniform(self.lot) if self.lots is None else read_instruments(self.lots)


def orders_at(predictor: Predictor, options: AccountOptions, t: int | None = None) -> Orders:
    """Return the orders of an account by what a policy decides at a bar, sized at its close.

    Args:
        predictor: The policy.
        options: The account.
        t: Row of the market; None is the last one.

    Raises:
        ArgumentError: If there is no account, a lot is missing, or the fee is more than the account
            is worth.
        DataError: If a file of the account is wrong.
    """
    simulator = predictor.simulator
    market = simulator.market
    row = market.n_bars - 1 if t is None else t
    instruments = instruments_of(options.rules(), market.assets)
    prices = tuple(
        each.price(decimal_of(price))
        for each, price in zip(instruments, last_prices(market, row), strict=True)
    )
    if options.holdings is not None:
        long_only = bool(simulator.bounds["long_only"][0])
        found = (options.holdings, market.assets, prices)
        holdings = read_holdings(*found, capital=options.capital, long_only=long_only)
    elif options.capital is not None:
        holdings = Holdings.of_cash(market.assets, options.capital)
    else:
        raise ArgumentError("there is no account: give holdings, or a capital of cash.")
    weights = holdings.weights(prices)
    value = float(holdings.value(prices))
    check_fee(simulator.costs, value)
    planned = plan(
        predictor.decide(weights, row),
        simulator,
        value,
        prices=[float(price) for price in prices],
        rates=rates_of(instruments, simulator.arrays.rates),
    )
    return orders_of(planned, holdings, instruments, prices)


def check_fee(costs: Costs, value: float) -> None:
    """Reject a fixed fee of as much as the account is worth."""
    if costs.fixed_fee >= value:
        raise ArgumentError(f"the fixed fee of {costs.fixed_fee:g} eats capital={value:g} up.")
