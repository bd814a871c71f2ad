"""Holdings: units and cash of an account, exact, and the file that they are read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.live.money import ZERO, decimal_of, exactly
from portfolio_env.live.tables import parsed, read_rows
from portfolio_env.names import unknown

CASH = "cash"
"""Row of a file of holdings that holds money."""


@dataclass(frozen=True)
class Holdings:
    """Units and cash of an account.

    Attributes:
        assets: N names.
        units: Units of each, negative for short positions.
        cash: Money.
    """

    assets: tuple[str, ...]
    units: tuple[Decimal, ...]
    cash: Decimal

    @classmethod
    def of_cash(cls, assets: Sequence[str], cash: float | Decimal) -> Holdings:
        """Return an account of nothing but cash, which must be positive."""
        money = cash if isinstance(cash, Decimal) else decimal_of(cash)
        if not money.is_finite() or money <= 0:
            raise ArgumentError(f"capital={cash} must be a positive amount of money.")
        return cls(tuple(assets), (ZERO,) * len(assets), money)

    def worth(self, prices: Sequence[Decimal]) -> tuple[Decimal, ...]:
        """Return the money in each asset, exactly."""
        with exactly():
            return tuple(
                units * price if units else ZERO
                for units, price in zip(self.units, prices, strict=True)
            )

    def value(self, prices: Sequence[Decimal]) -> Decimal:
        """Return the value of the account, exactly."""
        with exactly():
            return self.cash + sum(self.worth(prices), ZERO)

    def weights(self, prices: Sequence[Decimal]) -> NDArray[np.float64]:
        """Return (N + 1,) weights, cash first.

        Raises:
            DataError: If the account is worth nothing.
        """
        value = self.value(prices)
        if value <= 0:
            raise DataError(f"the holdings are worth {value:f}; there is nothing to trade with")
        return np.array([float(part / value) for part in (self.cash, *self.worth(prices))])


def read_holdings(
    path: str | Path,
    assets: Sequence[str],
    prices: Sequence[Decimal],
    *,
    capital: float | None = None,
    long_only: bool = True,
) -> Holdings:
    """Read what is held from a CSV file: columns ``asset`` and ``units``, and a row ``cash``.

    Args:
        path: The file. An asset that it does not name is not held.
        assets: The N assets of the market.
        prices: Their prices; NaN where there is none.
        capital: Value of the whole account, for a file without a row of cash: cash is the rest.
        long_only: Reject negative units.

    Raises:
        DataError: If the file cannot be read, names an unknown asset or one twice, a number is none
            or may not be held, or cash is missing, or there twice.
    """
    amounts: dict[str, Decimal] = {}
    for row in read_rows(Path(path), "holdings", "units"):
        is_money = row.asset.lower() == CASH and row.asset not in assets
        name = "" if is_money else row.asset  # an asset may be called cash, and none ""
        if name in amounts:
            raise DataError(f"{row.where}cash is there twice: give one line for it")
        if not is_money and name not in assets:
            raise DataError(f"{row.where}{unknown('asset', name, assets)}")
        amounts[name] = units = parsed(row.cells["units"], f"{row.where}units of {row.asset}")
        if not is_money and units < 0 and long_only:
            raise DataError(
                f"{row.where}{units} units of {name} are a short position, and the account is long "
                "only: give 0 or more"
            )
        if not is_money and units and not prices[list(assets).index(name)].is_finite():
            raise DataError(f"{row.where}{name} is held, but has no price yet in these data")
    held = tuple(amounts.get(name, ZERO) for name in assets)
    if ("" in amounts) == (capital is not None):
        raise DataError(
            f"{path} has a row cash, and a capital is given beside it: leave one of them out"
            if capital is not None
            else f"{path} has no row cash: add one, e.g. cash,250.00, or give the capital of the "
            "whole account"
        )
    if capital is None:
        return Holdings(tuple(assets), held, amounts[""])
    invested = Holdings(tuple(assets), held, ZERO).value(prices)
    with exactly():
        cash = decimal_of(capital) - invested
    if cash < 0:
        raise DataError(
            f"capital={capital:g} is less than the {float(invested):,.2f} that the holdings of "
            f"{path} are worth: give the value of the whole account, or a row cash"
        )
    return Holdings(tuple(assets), held, cash)
