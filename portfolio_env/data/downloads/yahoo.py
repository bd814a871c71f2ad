"""Daily bars of equities, funds and indices from Yahoo, with Yahoo's metadata on them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from portfolio_env.data.downloads.store import (
    LOCK,
    Series,
    merge,
    moment,
    open_series,
    read_series,
    stored,
    write_series,
)
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.atomic import locked
from portfolio_env.files.csv_files import original, with_texts, write_csv
from portfolio_env.market.panel import BAR_FIELDS, contained
from portfolio_env.market.timeline import as_timestamp

Day = str | date | np.datetime64
Store = str | os.PathLike[str]

ADJUSTMENT = "splits and dividends"
_CLOSE = BAR_FIELDS.index("close")
_OVERLAP = 5  # stored bars that are fetched again at least, which tells a new adjustment
_HORIZON = 30 * 86_400_000  # ms before the last stored bar in which holes are asked for again
_TOLERANCE = 1e-5  # Yahoo's own rounding is some 1e-7, the smallest dividends are some 1e-4
_NOTHING = "Yahoo has no prices of it in this range, or did not answer"
_LABELS = {
    "sector": "sector",
    "industry": "industry",
    "asset_class": "quoteType",
    "region": "country",
    "currency": "currency",
    "exchange": "exchange",
}


@dataclass(frozen=True)
class YahooReport:
    """Result of a download.

    Attributes:
        added: Bars that are new in the store, by symbol.
        refetched: Symbols whose whole history was fetched again since its adjustment had changed.
        missing: Why symbols are not (or no longer) there, by symbol.
        incomplete: Bars that were left out since a field was missing, by symbol.
        unlabelled: Why symbols have no sector, currency and so on, by symbol.
    """

    added: dict[str, int] = field(default_factory=dict)
    refetched: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    incomplete: dict[str, int] = field(default_factory=dict)
    unlabelled: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [f"{symbol}: {count} new bars" for symbol, count in self.added.items()]
        rows += [
            f"{symbol}: history fetched again, its dividends changed" for symbol in self.refetched
        ]
        rows += [f"{symbol}: {n} incomplete bars left out" for symbol, n in self.incomplete.items()]
        for title, reasons in (("not there", self.missing), ("no labels", self.unlabelled)):
            rows += [f"{symbol}: {title} ({reason})" for symbol, reason in reasons.items()]
        return "\n".join(rows)


def fetch_yahoo(
    symbols: str | Iterable[str],
    since: Day,
    until: Day | None = None,
    store: Store = "data",
    timeframe: str = "1d",
) -> YahooReport:
    """Download daily bars, or the missing ones, into STORE/yahoo/1d/SYMBOL.parquet.

    Prices are adjusted for splits and dividends (total return), so that every dividend changes the
    whole history: the last stored bars are fetched again, and if they differ by more than rounding,
    so is everything. Days that Yahoo lacked, or gave without numbers, are asked for again until
    they are 30 days older than the last stored bar. Dates are those of the exchange; a day that is
    not over everywhere (in UTC) is left out. STORE/yahoo/metadata.csv holds sector, industry, asset
    class, region, currency and exchange (for ``portfolio_env.data.metadata.with_categories``), as
    they are known today.

    Args:
        symbols: Yahoo's names, e.g. "AAPL", "HSBA.L", "^GSPC"; one or several.
        since: The first day; a stored history that begins later is fetched again.
        until: The day after the last one; None is today.
        store: The folder.
        timeframe: "1d"; make longer bars with ``resample``.

    Returns:
        What was added, fetched again, and not found.

    Raises:
        ArgumentError: For other timeframes, no symbols, or no days.
        DataError: If yfinance is not installed.
    """
    if timeframe != "1d":
        raise ArgumentError(f"timeframe {timeframe!r} is not fetched from Yahoo: give '1d'")
    names = _names(symbols)
    if not names:
        raise ArgumentError("there are no symbols: give at least one, e.g. 'AAPL'")
    start, end = _milliseconds(since), _last_day(until)
    if start >= end:
        raise ArgumentError(f"since={since}, until={until} hold no day that is over: widen them")
    report = YahooReport()
    with _sole(store):
        series = [open_series(store, "yahoo", name, "1d") for name in names]
        known = [own for own in series if len(own.times) and own.covered[0][0] <= start]
        fresh = [own.symbol for own in series if own not in known]
        _fetch_whole(dict.fromkeys(fresh, start), end, store, report)
        _continue(known, end, store, report)
        _describe([name for name in names if name not in report.missing], store, report)
    return report


def update_yahoo(symbols: str | Iterable[str] | None = None, store: Store = "data") -> YahooReport:
    """Continue the series stored by ``fetch_yahoo`` to the present.

    Args:
        symbols: None continues all that are stored.
        store: The folder.

    Returns:
        What was added and fetched again.

    Raises:
        ArgumentError: If a symbol, or any, is not stored.
        DataError: If yfinance is not installed.
    """
    paths = [path for path in stored(store) if path.parent.parts[-2:] == ("yahoo", "1d")]
    if not paths:
        wanted = "nothing" if symbols is None else _names(symbols)
        raise ArgumentError(f"{wanted} is not stored in {store}: fetch_yahoo first")
    report = YahooReport()
    with _sole(store):
        series = {own.symbol: own for own in map(read_series, paths)}
        names = list(series) if symbols is None else _names(symbols)
        absent = [name for name in names if name not in series]
        if absent:
            raise ArgumentError(f"{absent} is not stored in {store}: fetch_yahoo first")
        _continue([series[name] for name in names], _last_day(None), store, report)
        _describe(names, store, report)
    return report


def _sole(store: Store) -> AbstractContextManager[None]:
    """Lock out other downloads from Yahoo: what is fetched replaces whole histories."""
    return locked(Path(store) / "yahoo" / LOCK)


def _continue(series: Sequence[Series], end: int, store: Store, report: YahooReport) -> None:
    """Fetch what follows the stored bars; everything, if the adjustment has changed."""
    behind = {own.symbol: own for own in series if own.covered[-1][1] < end}
    report.added.update({own.symbol: 0 for own in series if own.symbol not in behind})
    starts = {name: _start_again(own) for name, own in behind.items()}
    again: dict[str, int] = {}
    for name, new in _download(starts, end, report).items():
        own = behind[name]
        if not len(new):
            report.missing[name] = f"{_NOTHING}; what is stored is kept"
            continue
        old = pd.Series(own.bars[:, _CLOSE], own.times)
        both = pd.concat([old, new["close"]], axis=1, join="inner").to_numpy()
        if not len(both) or not np.allclose(both[:, 0], both[:, 1], rtol=_TOLERANCE, atol=0):
            again[name] = own.covered[0][0]
            continue
        new = new[~new.index.isin(own.times)]  # those that were missing too
        grown, _ = merge(own, new.index, new, [(starts[name], end)])
        write_series(store, grown)
        report.added[name] = len(new)
    report.refetched.extend(again)
    _fetch_whole(again, end, store, report)


def _start_again(own: Series) -> int:
    """Return where to continue a series: before its end, so that missing days can still come."""
    last = int(own.times[-1]) - _HORIZON
    return max(own.covered[0][0], min(int(own.times[-_OVERLAP:][0]), last))


def _fetch_whole(starts: Mapping[str, int], end: int, store: Store, report: YahooReport) -> None:
    """Fetch histories from their starts and replace what is stored."""
    for name, new in _download(starts, end, report).items():
        if not len(new):
            report.missing[name] = _NOTHING
            continue
        report.added[name] = len(new) - len(open_series(store, "yahoo", name, "1d").times)
        empty = Series.empty("yahoo", name, "1d")
        write_series(store, merge(empty, new.index, new, [(starts[name], end)])[0])


def _download(starts: Mapping[str, int], end: int, report: YahooReport) -> dict[str, pd.DataFrame]:
    """Return bars by symbol, index milliseconds; no rows for symbols that Yahoo does not give."""
    yfinance = _yfinance()
    found: dict[str, pd.DataFrame] = {}
    for start in sorted(set(starts.values())):
        group = [name for name, own in starts.items() if own == start]
        table = yfinance.download(
            group,
            start=str(moment(start)),
            end=str(moment(end)),
            interval="1d",
            auto_adjust=True,
            progress=False,
            group_by="column",
            multi_level_index=True,
        )
        for name in group:
            bars = _bars_of(table, name, start, end)
            complete = bars.notna().all(axis=1)
            if not complete.all():
                report.incomplete[name] = int((~complete).sum())
            found[name] = _rounded(bars[complete])
    return found


def _bars_of(table: pd.DataFrame | None, name: str, start: int, end: int) -> pd.DataFrame:
    """Return the rows of one symbol of yfinance's table: columns (Field, SYMBOL), index dates."""
    columns = [(field.capitalize(), name) for field in BAR_FIELDS]
    if table is None or not len(table) or not set(columns) <= set(table.columns):
        return pd.DataFrame(columns=list(BAR_FIELDS), dtype=float)
    dates = pd.DatetimeIndex(table.index)
    dates = dates if dates.tz is None else dates.tz_localize(None)  # midnight at the exchange
    times = dates.normalize().to_numpy("datetime64[ms]").astype(np.int64)
    bars = pd.DataFrame(table[columns].to_numpy(np.float64), times, list(BAR_FIELDS))
    bars = bars[bars["close"].notna() & (times >= start) & (times < end)]
    return bars.sort_index()


def _rounded(frame: pd.DataFrame) -> pd.DataFrame:
    """Highs and lows that contain open and close, where only rounding says otherwise."""
    return frame.assign(**contained({name: frame[name].to_numpy() for name in BAR_FIELDS})[0])


def _describe(names: Iterable[str], store: Store, report: YahooReport) -> None:
    """Add Yahoo's metadata on symbols that are not in STORE/yahoo/metadata.csv yet."""
    from yfinance.exceptions import YFException

    path = Path(store) / "yahoo" / "metadata.csv"
    known = pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else None
    rows: list[dict[Any, Any]] = (
        [] if known is None else with_texts(known, original).to_dict("records")
    )
    done = {row["symbol"] for row in rows}
    for name in names:
        if name in done:
            continue
        try:
            info = _yfinance().Ticker(name).info or {}
        except (YFException, OSError, ValueError) as error:
            report.unlabelled[name] = str(error) or type(error).__name__
            continue
        labels = {label: str(info.get(key) or "") for label, key in _LABELS.items()}
        if any(labels.values()):
            rows.append({"symbol": name, **labels, "prices_adjusted_for": ADJUSTMENT})
        else:
            report.unlabelled[name] = "Yahoo says nothing about it"
    if len(rows) > len(done):
        write_csv(path, pd.DataFrame(rows).sort_values("symbol"), index=False)


def _yfinance() -> Any:
    try:
        import yfinance
    except ImportError as error:
        raise DataError("Yahoo needs yfinance; pip install yfinance pyarrow") from error
    return yfinance


def _names(symbols: str | Iterable[str]) -> list[str]:
    given = [symbols] if isinstance(symbols, str) else symbols
    return list(dict.fromkeys(name.strip().upper() for name in given))  # as yfinance writes them


def _milliseconds(when: Day) -> int:
    return int(as_timestamp(when).astype("datetime64[D]").astype("datetime64[ms]").astype(np.int64))


def _today() -> int:
    return _milliseconds(pd.Timestamp.now("UTC").tz_localize(None))


def _last_day(until: Day | None) -> int:
    """Return the day before which bars are taken: days are over everywhere once over in UTC."""
    return _today() if until is None else min(_today(), _milliseconds(until))
