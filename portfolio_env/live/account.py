"""The account that orders are for: its holdings, its rules of trading, and the way to orders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from os import PathLike
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
from portfolio_env.live.predictor import Decision, Predictor
from portfolio_env.live.risk_limits import RiskLimits, read_limits
from portfolio_env.market import Market
from portfolio_env.simulation.cost_models import Costs

_LARGEST = 1e100  # beyond it costs, a power of 1.5, leave the range of numbers


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

    risk_limits: Path | None = None
    """JSON file of risk limits on what is held after trading, the fields of RiskLimits."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("holdings", "lots", "risk_limits"):
            value = getattr(self, name)
            if not isinstance(value, str | PathLike | None):
                raise ArgumentError(
                    f"{name} of type {type(value).__name__} must be the path of a file; write a "
                    "Series or a mapping there first."
                )
        if self.capital is not None:
            check_number("capital", self.capital, above=0, high=_LARGEST)
        check_number("lot", self.lot, 0)

    @property
    def given(self) -> bool:
        """Return whether there is an account."""
        return self.capital is not None or self.holdings is not None

    def rules(self) -> Mapping[str, Instrument]:
        """Return the instruments by asset, ``"*"`` for all others."""
        return uniform(self.lot) if self.lots is None else read_instruments(self.lots)


@dataclass(frozen=True, eq=False)
class Account:
    """Account at the close of a bar, and its rules.

    Attributes:
        holdings: Units and cash.
        prices: (N,) last closing prices, to their ticks; NaN where there is none yet.
        instruments: Rules of trading of each asset.
        limits: Risk limits; None is none.
    """

    holdings: Holdings
    prices: tuple[Decimal, ...]
    instruments: tuple[Instrument, ...]
    limits: RiskLimits | None

    @property
    def value(self) -> float:
        """Return the money that the account is worth."""
        return float(self.holdings.value(self.prices))


def read_account(
    options: AccountOptions, market: Market, t: int, costs: Costs, *, long_only: bool
) -> Account:
    """Return the account that options describe, at the close of a row of a market.

    Args:
        options: The options.
        market: The market.
        t: The row.
        costs: Costs of trading, whose fixed fee the account must be able to pay.
        long_only: Reject short positions.

    Raises:
        ArgumentError: If there is no account, a lot is missing, a limit is out of range, or the
            fixed fee is more than the account is worth.
        DataError: If a file of the account is wrong.
    """
    instruments = tuple(instruments_of(options.rules(), market.assets))
    prices = tuple(
        each.price(decimal_of(price))
        for each, price in zip(instruments, last_prices(market, t), strict=True)
    )
    if options.holdings is not None:
        found = (options.holdings, market.assets, prices)
        holdings = read_holdings(*found, capital=options.capital, long_only=long_only)
    elif options.capital is not None:
        holdings = Holdings.of_cash(market.assets, options.capital)
    else:
        raise ArgumentError("there is no account: give holdings, or a capital of cash.")
    limits = None if options.risk_limits is None else read_limits(options.risk_limits)
    account = Account(holdings, prices, instruments, limits)
    check_fee(costs, account.value)
    return account


def orders_at(
    predictor: Predictor,
    account: AccountOptions | Account,
    t: int | None = None,
    *,
    decision: Decision | None = None,
    stopped: bool = False,
) -> Orders:
    """Return the orders of an account by what a policy decides at a bar, sized at its close.

    Args:
        predictor: The policy.
        account: The account, or what it is read from.
        t: Row of the market; None is the last one.
        decision: Decision at that bar to trade for; None asks the policy.
        stopped: Whether the drawdown stop of the account's limits holds: cash is held.

    Raises:
        ArgumentError: As of ``read_account``, and if returns are too few for its limits.
        DataError: As of ``read_account``.
    """
    simulator = predictor.simulator
    row = simulator.market.n_bars - 1 if t is None else t
    if isinstance(account, AccountOptions):
        long_only = bool(simulator.bounds["long_only"][0])
        account = read_account(account, simulator.market, row, simulator.costs, long_only=long_only)
    if decision is None:
        decision = predictor.decide(account.holdings.weights(account.prices), row)
    planned = plan(
        decision,
        simulator,
        account.value,
        prices=[float(price) for price in account.prices],
        rates=rates_of(account.instruments, simulator.arrays.rates),
        limits=account.limits,
        stopped=stopped,
    )
    return orders_of(planned, account.holdings, account.instruments, account.prices)


def check_fee(costs: Costs, value: float) -> None:
    """Reject a fixed fee of as much as the account is worth."""
    if costs.fixed_fee >= value:
        raise ArgumentError(f"the fixed fee of {costs.fixed_fee:g} eats capital={value:g} up.")
