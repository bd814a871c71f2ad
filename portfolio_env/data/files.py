"""Panels from files and frames in long form: one row per date and symbol.

Nothing is repaired or filled: whatever cannot be true is refused with an error that names the file,
the row and the mend.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd

from portfolio_env.errors import DataError
from portfolio_env.panel import BAR_FIELDS, FloatArray, PricePanel, bar_faults
from portfolio_env.timeline import Timestamps

_REQUIRED = ("date", "symbol", "close")
_ZONE = r"[T ].*?(Z|[+-]\d\d(?::?\d\d)?)$"  # of an ISO 8601 time; a date alone has none
_UTC = dict.fromkeys(("Z", "+00", "+0000", "-00:00", "-0000"), "+00:00")
_RANGE = np.array(["1678-01-01", "2262-01-01"], "datetime64[us]")  # what datetime64[ns] can hold


@dataclass(frozen=True)
class _Origin:
    """Where rows come from, to name them in errors: the row at position 0 is number ``first``."""

    name: str
    unit: str = "row"
    first: int = 1

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
            shown = "" if value is None else f" {str(value(at))!r}"
            more = f" (and {len(positions) - 1} more)" if len(positions) > 1 else ""
            raise DataError(
                f"{self.name}, {self.unit} {at + self.first}{more}: {problem}{shown}; {mend}"
            )


def read_panel(path: str | os.PathLike[str]) -> PricePanel:
    """Read a CSV or Parquet file in long form, plain or gzip (told by its content, not its name).

    Args:
        path: a file with columns date (ISO 8601), symbol, close and, where known, open, high, low
            and volume; other columns are ignored. Dates increase within each symbol; symbols may
            be listed late, delisted early or miss bars. Times with a zone are converted to UTC.

    Raises:
        DataError: naming the file, the row and the mend.
    """
    origin = _Origin(os.fspath(path))
    try:
        raw = Path(path).read_bytes()
        digest = hashlib.sha256(raw).hexdigest()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        origin.fail(f"cannot be read ({error}); give a readable CSV or Parquet file")
    if content[:4] == b"PAR1":
        frame = _read_parquet(content, origin)
    else:
        frame = _read_csv(content, origin)
        origin = _Origin(origin.name, "line", 2)
    return _panel(frame, origin, {"source": origin.name, "sha256": digest})


def panel_from_frame(frame: pd.DataFrame) -> PricePanel:
    """A panel from a long frame; columns and rules as for `read_panel`.

    Raises:
        DataError: naming the row (counted from 1) and the mend.
    """
    return _panel(frame, _Origin("the frame"), {"source": "frame"})


def panel_from_prices(close: pd.DataFrame, source: str = "the frame") -> PricePanel:
    """A panel of closing prices from a wide frame.

    Args:
        close: index increasing dates, one column per asset, NaN where an asset has no bar.
        source: what errors and the provenance call the data.

    Raises:
        DataError: naming the row (counted from 1) or the asset and date, and the mend.
    """
    origin = _Origin(source)
    times = _times(close.index.to_series(), origin)
    late = np.diff(times, prepend=times[:1] - 1) <= np.timedelta64(0)
    origin.refuse(
        late, "the date is not after the one before:", "sort, drop duplicates", times.__getitem__
    )
    columns = [_numbers(close.iloc[:, i], origin) for i in range(close.shape[1])]
    return PricePanel(
        times,
        tuple(str(name) for name in close.columns),
        np.stack(columns, axis=1) if columns else np.empty((len(times), 0)),
        provenance={"source": source},
    )


def _read_csv(content: bytes, origin: _Origin) -> pd.DataFrame:
    try:
        frame = pd.read_csv(
            io.BytesIO(content),
            dtype={"date": str, "symbol": str},
            keep_default_na=False,  # NA and NAN are possible symbols
            na_values=[""],
            skip_blank_lines=False,  # else line numbers would be wrong
            low_memory=False,
        )
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        origin.fail(
            f"is no CSV table ({str(error).strip()}); "
            "give a header and rows of as many fields, in UTF-8"
        )
    if not isinstance(frame.index, pd.RangeIndex):
        origin.fail("its rows have more fields than its header; name every column")
    return frame


def _read_parquet(content: bytes, origin: _Origin) -> pd.DataFrame:
    try:
        return pd.read_parquet(io.BytesIO(content))
    except ImportError:
        origin.fail("Parquet needs pyarrow; pip install 'portfolio-env[data]'")
    except (OSError, ValueError) as error:
        origin.fail(f"is no Parquet table ({error}); write it anew")


def _panel(frame: pd.DataFrame, origin: _Origin, provenance: dict[str, Any]) -> PricePanel:
    """Check a long frame and spread it over dates and symbols."""
    missing = [name for name in _REQUIRED if name not in frame.columns]
    if missing:
        origin.fail(
            f"lacks the columns {missing}; it has {list(frame.columns)}: add or rename them"
        )
    filled = np.flatnonzero(frame.notna().to_numpy().any(axis=1))
    if not len(filled):
        origin.fail("holds no rows; give at least two symbols with bars")
    frame = frame.iloc[: filled[-1] + 1]  # blank lines at the end are no rows

    times = _times(frame["date"], origin)
    no_symbol = frame["symbol"].isna().to_numpy() | (frame["symbol"] == "").to_numpy()
    origin.refuse(no_symbol, "there is no symbol", "name the asset")
    symbols = frame["symbol"].astype(str).to_numpy()
    bars: dict[str, FloatArray | None] = {
        name: _numbers(frame[name], origin) if name in frame.columns else None
        for name in BAR_FIELDS
    }
    no_close = np.isnan(np.asarray(bars["close"]))
    origin.refuse(no_close, "there is no close", "give it, or delete the row if there was no bar")
    for faulty, problem in bar_faults(bars):
        origin.refuse(faulty, problem, "correct the bar")

    assets, column = np.unique(symbols, return_inverse=True)
    if len(assets) < 2:
        origin.fail(f"has one asset only, {assets[0]}; a portfolio needs at least two")
    _check_order(times, column, symbols, origin)
    timestamps, row = np.unique(times, return_inverse=True)

    tables: dict[str, Any] = {}
    for name, values in bars.items():
        if values is not None:
            tables[name] = np.full((len(timestamps), len(assets)), np.nan)
            tables[name][row, column] = values
    return PricePanel(
        timestamps,
        tuple(assets.tolist()),
        **tables,
        provenance=provenance,
    )


def _check_order(
    times: Timestamps, column: npt.NDArray[np.intp], symbols: npt.NDArray[Any], origin: _Origin
) -> None:
    """Refuse duplicates, and dates that do not increase within a symbol."""
    keys = pd.DataFrame({"time": times, "symbol": column})

    def label(at: int) -> str:
        return f"{symbols[at]} at {times[at]}"

    origin.refuse(keys.duplicated().to_numpy(), "a second row for", "delete one of them", label)
    by_symbol = np.argsort(column, kind="stable")
    backwards = np.zeros(len(times), bool)
    backwards[by_symbol[1:]] = (np.diff(times[by_symbol]) < np.timedelta64(0)) & (
        np.diff(column[by_symbol]) == 0
    )
    origin.refuse(backwards, "the date is before the symbol's last:", "sort the rows", label)


def _times(dates: pd.Series[Any], origin: _Origin) -> Timestamps:
    """Dates as datetime64[ns]; UTC where they carry a zone."""
    mend = "write it as 2020-01-31 or 2020-01-31T09:30:00Z"
    origin.refuse(dates.isna().to_numpy(), "there is no date", mend)
    if isinstance(dates.dtype, pd.DatetimeTZDtype):
        dates = dates.dt.tz_convert(None)
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


def _numbers(values: pd.Series[Any], origin: _Origin) -> FloatArray:
    """Numbers as float64, NaN where the cell is empty."""
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = np.isnan(numbers) & values.notna().to_numpy()
    origin.refuse(wrong, f"{values.name} is no number:", "correct it", values.iloc.__getitem__)
    return numbers
