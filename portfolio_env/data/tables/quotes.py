"""What the rows of a table say their assets are quoted in."""

from __future__ import annotations

from typing import Any

import pandas as pd

from portfolio_env.data.tables.numbers import NOTHING
from portfolio_env.data.tables.origin import Origin

PARTS = {"GBp": "GBP", "GBX": "GBP", "ZAc": "ZAR", "ILA": "ILS"}
"""Hundredths of currencies in which exchanges quote: pence in London, and so on."""


def code_of(currency: str) -> str:
    """Return the code of a currency as it is written: usd is USD, GBp stays.

    >>> code_of("usd"), code_of("GBp")
    ('USD', 'GBp')
    """
    return currency if currency in PARTS else currency.upper()


def quotes_of(frame: pd.DataFrame, origin: Origin) -> dict[str, str]:
    """Return the currency of each asset that a long table names one for.

    Args:
        frame: Columns symbol and currency, as texts; an empty cell says nothing.
        origin: Names rows in errors.

    Raises:
        DataError: If the rows of an asset name two, with the row and the fix.
    """
    codes = currency_codes(frame["currency"])
    symbols = frame["symbol"].to_numpy()
    known = codes[codes != ""]
    first = known.groupby(symbols[(codes != "").to_numpy()]).first()
    expected = pd.Series(symbols).map(first).fillna("").to_numpy()
    origin.refuse(
        ((codes != "") & (codes != expected)).to_numpy(),
        "a second currency of",
        "give each currency an asset of its own, or convert the rows to one",
        lambda at: f"{symbols[at]}: {codes.iloc[at]} after {expected[at]}",
    )
    return {str(symbol): str(code) for symbol, code in first.items()}


def currency_codes(cells: pd.Series[Any]) -> pd.Series[Any]:
    """Return the codes of cells, "" where there is none."""
    texts = cells.astype(object).where(cells.notna(), "").astype(str).str.strip()
    return texts.where(~texts.isin(NOTHING), "").map(code_of).reset_index(drop=True)
