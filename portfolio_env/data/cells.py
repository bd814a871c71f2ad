"""Dates and numbers of table cells, with errors that name the file, the row and the mend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd

from portfolio_env.errors import DataError
from portfolio_env.panel import FloatArray
from portfolio_env.timeline import Timestamps

_ZONE = r"[T ].*?(Z|[+-]\d\d(?::?\d\d)?)$"  # of an ISO 8601 time; a date alone has none
_UTC = dict.fromkeys(("Z", "+00", "+0000", "-00:00", "-0000"), "+00:00")
_RANGE = np.array(["1678-01-01", "2262-01-01"], "datetime64[us]")  # what datetime64[ns] can hold


@dataclass(frozen=True)
class Origin:
    """Where rows come from, to name them in errors.

    Attributes:
        name: the file.
        unit: what a row is called.
        first: the number of the row at position 0.
        numbers: (rows,) the number of each row instead, where they are not consecutive.
    """

    name: str
    unit: str = "row"
    first: int = 1
    numbers: npt.NDArray[np.intp] | None = None

    def fail(self, problem: str) -> NoReturn:
        """Refuse the whole source."""
        raise DataError(f"{self.name}: {problem}")

    def refuse(
        self,
        faulty: npt.NDArray[np.bool_],
        problem: str,
        mend: str,
        value: Callable[[int], object] | None = None,
    ) -> None:
        """Refuse the source if any row is faulty; name the first one, and its value if known."""
        positions = np.flatnonzero(faulty)
        if len(positions):
            at = int(positions[0])
            number = at + self.first if self.numbers is None else self.numbers[at]
            shown = "" if value is None else f" {str(value(at))!r}"
            more = f" (and {len(positions) - 1} more)" if len(positions) > 1 else ""
            raise DataError(f"{self.name}, {self.unit} {number}{more}: {problem}{shown}; {mend}")


def read_times(dates: pd.Series[Any], origin: Origin) -> Timestamps:
    """Dates as datetime64[ns]; UTC where they carry a zone.

    Raises:
        DataError: if a date is missing or unreadable, or if some carry another zone.
    """
    mend = "write it as 2020-01-31 or 2020-01-31T09:30:00Z"
    origin.refuse(dates.isna().to_numpy(), "there is no date", mend)
    if isinstance(dates.dtype, pd.DatetimeTZDtype):
        dates = dates.dt.tz_convert(None)
    if isinstance(dates.dtype, np.dtype) and dates.dtype.kind == "M":
        rough = dates.to_numpy("datetime64[us]")
        good = (rough >= _RANGE[0]) & (rough < _RANGE[1])
        origin.refuse(~good, "unreadable date", mend, dates.iloc.__getitem__)
        return dates.to_numpy("datetime64[ns]")
    codes, texts = pd.factorize(dates.astype(str).to_numpy())
    label = texts[codes].__getitem__
    parsed = pd.to_datetime(pd.Index(texts), utc=True, format="ISO8601", errors="coerce")
    parsed = parsed.tz_convert(None)
    rough = parsed.to_numpy("datetime64[us]")
    good = (rough >= _RANGE[0]) & (rough < _RANGE[1])  # False for NaT
    origin.refuse(~good[codes], "unreadable date", mend, label)
    zones = pd.Series(texts, dtype=str).str.extract(_ZONE)[0].replace(_UTC).fillna("none")
    zone = zones.to_numpy()[codes]
    mend = "write all dates in one time zone, best UTC"
    origin.refuse(zone != zone[:1], "a time zone other than that of the first row:", mend, label)
    return parsed.to_numpy("datetime64[ns]")[codes]


def read_numbers(values: pd.Series[Any], origin: Origin) -> FloatArray:
    """Numbers as float64, NaN where the cell is empty.

    Raises:
        DataError: if a cell holds anything else.
    """
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = np.isnan(numbers) & values.notna().to_numpy()
    origin.refuse(wrong, f"{values.name} is no number:", "correct it", values.iloc.__getitem__)
    return numbers
