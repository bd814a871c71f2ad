"""Exact money: decimals of floats, and arithmetic that rounds nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager
from decimal import (
    ROUND_DOWN,
    Context,
    Decimal,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
    localcontext,
)

ZERO = Decimal(0)
# 400 digits are more than sums of products of prices, units and rates have
_EXACT = Context(prec=400, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])
_QUOTIENT = Context(prec=34, rounding=ROUND_DOWN)  # of what cannot be exact


def exactly() -> AbstractContextManager[Context]:
    """Let sums and products within be exact; one that would be rounded raises ``Inexact``."""
    return localcontext(_EXACT)


def decimal_of(number: float) -> Decimal:
    """Return the shortest decimal that stands for a float, as Python prints it.

    >>> decimal_of(0.1)
    Decimal('0.1')
    """
    return Decimal(repr(float(number)))


def scaled_down(number: Decimal, above: Decimal, below: Decimal) -> Decimal:
    """Return ``number * above / below`` to 34 digits, rounded towards zero."""
    return _QUOTIENT.divide(_QUOTIENT.multiply(number, above), below)
