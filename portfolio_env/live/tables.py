"""Small tables that a person writes: CSV files with a row for each asset."""

from __future__ import annotations

import csv
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NamedTuple

from portfolio_env.checks import shortened
from portfolio_env.errors import DataError
from portfolio_env.files.atomic import regular, remedy
from portfolio_env.files.csv_files import original

_LARGEST = 30  # digits before or after the point of a number


class Row(NamedTuple):
    """Row of a table: where it is, the asset that it is about, and its other cells by column."""

    where: str
    asset: str
    cells: dict[str, str]


def read_rows(path: Path, what: str, needed: str = "") -> list[Row]:
    """Read a CSV file with a column ``asset``, also called symbol or ticker, in its first line.

    Args:
        path: The file.
        what: Its content, for a message.
        needed: Another column that must be there.

    Raises:
        DataError: If it cannot be read, a column is missing or there twice, or a row has more cells
            than the first line, as 1,000 with a comma would make.
    """
    try:
        with regular(path).open(newline="", encoding="utf-8-sig") as file:
            lines = [(n, row) for n, row in enumerate(csv.reader(file), start=1) if any(row)]
    except FileNotFoundError:
        raise DataError(f"there is no file {path} of {what}") from None
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path} cannot be read ({reason}); {remedy(error)}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not CSV ({error}); save it as CSV in UTF-8") from error
    header = [name.strip().lower() for name in lines[0][1]] if lines else []
    header = ["asset" if name in ("symbol", "ticker") else name for name in header]
    for name in filter(None, ("asset", needed, *header)):
        if header.count(name) != 1:
            raise DataError(
                f"{path} needs one column {name!r} in its first line, which is "
                f"{shortened(','.join(header))}"
            )
    rows: list[Row] = []
    for number, row in lines[1:]:
        if any(row[len(header) :]):
            raise DataError(
                f"{path}, line {number}, has {len(row)} cells, and the first line {len(header)}: "
                "write numbers without commas, e.g. 1000.5, or put texts that hold one in quotes"
            )
        cells = {name: row[k].strip() if k < len(row) else "" for k, name in enumerate(header)}
        asset = original(cells.pop("asset"))
        if not asset:
            raise DataError(f"{path}, line {number}, names no asset")
        if any(asset == each.asset for each in rows):
            raise DataError(f"{path}, line {number}, {asset} is there twice: give one line for it")
        rows.append(Row(f"{path}, line {number}, ", asset, cells))
    return rows


def parsed(text: str, where: str) -> Decimal:
    """Return the number of a text in a file.

    Args:
        text: The text.
        where: File, line and column for the message.

    Raises:
        DataError: If it is no finite number.
    """
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or abs(number.adjusted()) > _LARGEST:
        raise DataError(f"{where} is {shortened(text)}: give a number such as 12.5")
    return number
