"""Instruments: in what steps an asset is traded, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.live.money import ZERO, decimal_of, exactly
from portfolio_env.live.tables import parsed, read_rows
from portfolio_env.simulation.costs import OTHERS

_ROUNDING = Decimal("1e-9")  # of a lot that a float is short of a whole one


@dataclass(frozen=True)
class Instrument:
    """Rules of trading one asset.

    Attributes:
        lot: Units are traded in multiples of it; 0 is any fraction.
        tick: Prices are multiples of it; 0 is any price.
        min_notional: Least money of an order.
        fee_bps: Cost per traded notional in basis points, in place of the costs of the rules; None
            keeps those.
    """

    lot: Decimal = Decimal(1)
    tick: Decimal = ZERO
    min_notional: Decimal = ZERO
    fee_bps: Decimal | None = None

    def __post_init__(self) -> None:
        """Check every number."""
        for each in fields(self):
            value = getattr(self, each.name)
            bad = value is not None and not (value.is_finite() and value >= 0)
            if bad or (each.name == "fee_bps" and value is not None and value >= 10_000):
                bound = "0 or more" + (" and below 10,000" if each.name == "fee_bps" else "")
                raise ArgumentError(f"{each.name}={value} must be a number of {bound}.")

    def whole(self, units: Decimal, *, strictly: bool = False) -> Decimal:
        """Return units rounded towards zero to whole lots.

        Args:
            units: Signed units.
            strictly: Take a billionth of a lot short of a whole one for what it is; else it is
                rounding of a float.

        >>> Instrument(Decimal("0.1")).whole(Decimal("-0.37"))
        Decimal('-0.3')
        """
        if self.lot == 0:
            return units
        with exactly():
            share = abs(units) + (ZERO if strictly else self.lot * _ROUNDING)
            return (share // self.lot) * self.lot * (1 if units >= 0 else -1)

    def price(self, price: Decimal) -> Decimal:
        """Return a price rounded to the nearest tick.

        Raises:
            DataError: If it is less than half a tick.
        """
        if self.tick == 0 or not price.is_finite():
            return price
        steps = (price / self.tick).to_integral_value(ROUND_HALF_EVEN)
        if steps == 0:
            raise DataError(f"a price of {price} is less than half the tick {self.tick}")
        with exactly():
            return steps * self.tick


def uniform(lot: float = 1.0) -> dict[str, Instrument]:
    """Return the same lot for every asset, see ``instruments_of``."""
    if not np.isfinite(lot) or lot < 0:
        raise ArgumentError(f"lot={lot} must be a number of 0 or more.")
    return {OTHERS: Instrument(decimal_of(lot))}


def read_instruments(path: str | Path) -> dict[str, Instrument]:
    """Read rules of trading from a CSV file.

    Args:
        path: A file with a column ``asset``, where ``*`` stands for all others, and any of ``lot``,
            ``tick``, ``min_notional`` and ``fee_bps``; an empty cell is the default.

    Raises:
        DataError: If it cannot be read, an asset is there twice, or a number is out of range.
    """
    known = sorted(each.name for each in fields(Instrument))
    found: dict[str, Instrument] = {}
    for row in read_rows(Path(path), "lots"):
        given = {name: text for name, text in row.cells.items() if text}
        if strange := [name for name in row.cells if name not in known]:
            raise DataError(f"{path} has a column {strange[0]!r}: it may have {', '.join(known)}")
        numbers = {
            name: parsed(text, f"{row.where}{name} of {row.asset}") for name, text in given.items()
        }
        try:
            found[row.asset] = Instrument(**numbers)
        except ArgumentError as error:
            raise DataError(f"{row.where}{row.asset}: {error}") from error
    return found


def instruments_of(
    rules: Mapping[str, Instrument], assets: Sequence[str]
) -> tuple[Instrument, ...]:
    """Return the instrument of every asset.

    Args:
        rules: Instruments by asset, ``"*"`` for all others.
        assets: N names.

    Raises:
        ArgumentError: If an asset has none: steps of trading are not guessed.
    """
    lacking = [name for name in assets if name not in rules and OTHERS not in rules]
    if lacking:
        raise ArgumentError(
            f"there is no lot of {', '.join(lacking[:5])}: give one, or one for {OTHERS}, all "
            "others."
        )
    return tuple(rules.get(name, rules.get(OTHERS, Instrument())) for name in assets)


def rates_of(instruments: Sequence[Instrument], rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (2, N) cost per traded notional: of the instruments where they have one."""
    out = np.array(rates, np.float64)
    for place, each in enumerate(instruments):
        if each.fee_bps is not None:
            out[:, place] = float(each.fee_bps) / 1e4
    return out
