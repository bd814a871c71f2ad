"""Tables from files: CSV and Parquet, long and wide, plain and gzip, one or a folder of them.

Files are recognised by their content, not by their names. Nothing is checked here but that a table
can be read.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd

from portfolio_env.errors import DataError
from portfolio_env.files.csv_files import original, with_texts
from portfolio_env.files.parquet import read_parquet
from portfolio_env.market.panel import BAR_FIELDS, FloatArray
from portfolio_env.market.timeline import Timestamps

_LEVELS = ("Price", "Ticker")  # the two header rows that yfinance writes


def read_tables(
    path: str | os.PathLike[str],
) -> tuple[list[tuple[pd.DataFrame, Origin]], dict[str, Any]]:
    """Return the tables of a file, or of a folder with a Parquet file per symbol, in long form.

    Args:
        path: See ``portfolio_env.data.bars.read_frame``.

    Returns:
        Frames with the columns the files have (of wide ones date, symbol and the bar fields), each
        with where its rows come from; and the source and its SHA-256 for the provenance.

    Raises:
        DataError: For an unreadable file, with the fix.
    """
    if not Path(path).is_dir():
        frame, origin, about = read_table(path)
        return [_long(frame, origin)], {"source": origin.name, "sha256": about["sha256"]}
    folder = Origin(os.fspath(path))
    files = sorted(file for file in Path(path).glob("*.parquet") if file.name[0] != ".")
    if not files:
        folder.fail(
            "holds no Parquet files; give the folder of one exchange and timeframe, STORE/NAME/1d"
        )
    tables, abouts, owner = [], [], dict[str, Path]()
    for file in files:
        frame, origin, about = read_table(file)
        if "symbol" not in frame.columns:
            frame = frame.assign(symbol=about.get("symbol", file.stem))
        for symbol in frame["symbol"].dropna().unique():
            if owner.setdefault(str(symbol), file) != file:
                origin.fail(f"holds {symbol}, as does {owner[str(symbol)]}; delete one of them")
        tables.append(_long(frame, origin))
        abouts.append(about)
    digest = hashlib.sha256("".join(about["sha256"] for about in abouts).encode()).hexdigest()
    source = {"source": folder.name, "sha256": digest, "files": len(files)}
    for key in ("exchange", "timeframe"):
        values = {about.get(key) for about in abouts} - {None}
        if len(values) == 1:
            source[key] = values.pop()
    return tables, source


def read_table(path: str | os.PathLike[str]) -> tuple[pd.DataFrame, Origin, dict[str, str]]:
    """Read one CSV or Parquet file without changes.

    Returns:
        The frame without blank rows at the end (columns date and symbol, and the first one of a
        table without symbols, as text if it is a CSV file); where its rows come from; and its
        SHA-256 with what else a Parquet file says about itself.

    Raises:
        DataError: If there is no such table, or if it has no rows.
    """
    origin = Origin(os.fspath(path))
    try:
        raw = Path(path).read_bytes()
        about = {"sha256": hashlib.sha256(raw).hexdigest()}
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        origin.fail(f"cannot be read ({error}); give a readable CSV or Parquet file")
    if content[:4] == b"PAR1":
        frame, said = _read_parquet(content, origin)
        about = said | about
    else:
        frame, first = _read_csv(content, origin)
        origin = Origin(origin.name, "line", first)
    filled = np.flatnonzero(frame.notna().to_numpy().any(axis=1))
    if not len(filled) and len(frame.columns):
        origin.fail("holds no rows; give at least one")
    return frame.iloc[: filled[-1] + 1 if len(filled) else 0], origin, about


def _read_csv(content: bytes, origin: Origin) -> tuple[pd.DataFrame, int]:
    """Return the table, and the line of its first row."""
    options: dict[str, Any] = {
        "keep_default_na": False,  # NA and NAN are possible symbols
        "na_values": [""],
        "skip_blank_lines": False,  # else line numbers would be wrong
        "low_memory": False,
    }
    try:
        text = io.StringIO(content.decode("utf-8-sig"), newline="")
        rows = csv.reader(text)
        header, second = next(rows, []), next(rows, [])
        if header[:1] and second[:1] and {header[0], second[0]} == set(_LEVELS):
            frame = pd.read_csv(io.BytesIO(content), header=[0, 1], **options)
            frame.columns.names = [header[0], second[0]]
            named = int(frame.iloc[:1, 1:].isna().all(axis=None))  # line 3 may name the index
            return with_texts(frame.iloc[named:], original), 3 + named
        first = header[:1] if is_wide(header) else []
        kinds = dict.fromkeys([*first, "date", "symbol"], str)
        frame = pd.read_csv(io.BytesIO(content), dtype=kinds, **options)
    except (
        csv.Error,
        pd.errors.EmptyDataError,
        pd.errors.ParserError,
        UnicodeDecodeError,
    ) as error:
        origin.fail(
            f"is not a CSV table ({str(error).strip()}); "
            "give a header and rows of as many fields, in UTF-8"
        )
    if not isinstance(frame.index, pd.RangeIndex):
        origin.fail("its rows have more fields than its header; name every column")
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        origin.fail(f"has more than one column called {twice}; delete or rename them")
    return with_texts(frame, original) if b"'" in content else frame, 2


def _read_parquet(content: bytes, origin: Origin) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the table, and its metadata on the series."""
    table = read_parquet(io.BytesIO(content), origin.name)
    try:
        frame = table.to_pandas()
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        origin.fail(f"is not a Parquet table ({error}); write it again")
    said = {
        key.decode(): value.decode(errors="replace")
        for key, value in (table.schema.metadata or {}).items()
        if key in (b"exchange", b"symbol", b"timeframe")
    }
    index = frame.index
    if isinstance(index, pd.DatetimeIndex) or any(name is not None for name in index.names):
        taken = [name for name in index.names if name in frame.columns]
        frame = frame.reset_index(taken, drop=True) if taken else frame
        frame = frame if len(taken) == index.nlevels else frame.reset_index()
    return frame, said


def is_wide(columns: Iterable[object]) -> bool:
    """Return whether columns are a date and assets, not the fields of bars."""
    names = [str(name).casefold() for name in columns]
    return len(names) > 1 and not {"symbol", "close"} & set(names)


def _long(frame: pd.DataFrame, origin: Origin) -> tuple[pd.DataFrame, Origin]:
    """Return a table in long form, without rows of assets that have no bar there."""
    if frame.columns.nlevels == 2:
        return _stacked(frame.iloc[:, 0], _by_symbol(frame, origin), origin)
    if not is_wide(frame.columns):
        return frame, origin
    closes = {str(name): {"close": frame[name]} for name in frame.columns[1:]}
    return _stacked(frame.iloc[:, 0], closes, origin)


def _by_symbol(frame: pd.DataFrame, origin: Origin) -> dict[str, dict[str, pd.Series[Any]]]:
    """Return the fields of each symbol of a table with two header rows."""
    names = list(frame.columns.names)
    if set(names) != set(_LEVELS):
        origin.fail(f"has two header rows called {names}; name them {list(_LEVELS)}")
    fields: dict[str, dict[str, pd.Series[Any]]] = {}
    for at, labels in enumerate(frame.columns):
        field, symbol = (str(labels[names.index(level)]) for level in _LEVELS)
        if at and field.casefold() in BAR_FIELDS:
            fields.setdefault(symbol, {})[field.casefold()] = frame.iloc[:, at]
    return fields


def _stacked(
    dates: pd.Series[Any], fields: Mapping[str, Mapping[str, pd.Series[Any]]], origin: Origin
) -> tuple[pd.DataFrame, Origin]:
    """Return a long frame of the bars that exist, symbol by symbol."""
    times = read_times(dates, origin)
    parts, numbers = [], []
    for symbol, series in fields.items():
        bars = pd.DataFrame(
            {field: read_numbers(values.rename(symbol), origin) for field, values in series.items()}
        )
        present = np.flatnonzero(bars.notna().to_numpy().any(axis=1))
        if not len(present):
            origin.fail(f"has no price of {symbol}; delete its column")
        part = bars.iloc[present].assign(date=times[present], symbol=symbol)
        parts.append(part)
        numbers.append(present + origin.first)
    if not parts:
        origin.fail("has no columns of prices; give one per asset")
    return pd.concat(parts, ignore_index=True), replace(origin, numbers=np.concatenate(numbers))


_ZONE = r"[T ].*?(Z|[+-]\d\d(?::?\d\d)?)$"  # time zone of an ISO 8601 time; a date alone has none
_UTC = dict.fromkeys(("Z", "+00", "+0000", "-00:00", "-0000"), "+00:00")
_RANGE = np.array(["1678-01-01", "2262-01-01"], "datetime64[us]")  # range of datetime64[ns]


@dataclass(frozen=True)
class Origin:
    """Origin of rows, to name them in errors.

    Attributes:
        name: The file.
        unit: Name of a row.
        first: The number of the row at position 0.
        numbers: (rows,) the number of each row instead, where they are not consecutive.
    """

    name: str
    unit: str = "row"
    first: int = 1
    numbers: npt.NDArray[np.intp] | None = None

    def fail(self, problem: str) -> NoReturn:
        """Reject the whole source."""
        raise DataError(f"{self.name}: {problem}")

    def refuse(
        self,
        faulty: npt.NDArray[np.bool_],
        problem: str,
        mend: str,
        value: Callable[[int], object] | None = None,
    ) -> None:
        """Reject the source if any row is faulty; name the first one, and its value if known."""
        positions = np.flatnonzero(faulty)
        if len(positions):
            at = int(positions[0])
            number = at + self.first if self.numbers is None else self.numbers[at]
            shown = "" if value is None else f" {str(value(at))!r}"
            more = f" (and {len(positions) - 1} more)" if len(positions) > 1 else ""
            raise DataError(f"{self.name}, {self.unit} {number}{more}: {problem}{shown}; {mend}")


def read_times(dates: pd.Series[Any], origin: Origin) -> Timestamps:
    """Return dates as datetime64[ns]; UTC where they carry a zone.

    Raises:
        DataError: If a date is missing or unreadable, or if some carry another zone.
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
    """Return numbers as float64, NaN where the cell is empty.

    Raises:
        DataError: If a cell holds anything else.
    """
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = np.isnan(numbers) & values.notna().to_numpy()
    origin.refuse(wrong, f"{values.name} is not a number:", "correct it", values.iloc.__getitem__)
    return numbers
