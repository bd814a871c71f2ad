"""The commands of ``python -m portfolio_env.data``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import pandas as pd
import tyro

from portfolio_env.data import load_market
from portfolio_env.data.adjust import Adjust
from portfolio_env.data.bars import frame_of_panel
from portfolio_env.data.downloads import exchange
from portfolio_env.data.downloads.download import SeriesReport
from portfolio_env.data.downloads.store import moment, read_series, stored
from portfolio_env.data.repair import Repair
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.csv_files import write_csv
from portfolio_env.files.parquet import write_parquet
from portfolio_env.files.safe_names import printable

YAHOO = exchange.YAHOO

_RARE = ("listed", "duplicates", "disorder", "conflicts", "incomplete", "retries", "not fetched")


@dataclass(frozen=True)
class Fetch:
    """Download candles, or what is missing of them, into a store."""

    exchange: str
    """An exchange that ccxt knows, e.g. binance, coinbase, kraken, kucoin; or yahoo."""
    symbols: str
    """Comma-separated, e.g. BTC/USDT,ETH/USDT."""
    timeframe: str = "1d"
    """1m, 5m, 15m, 30m, 1h, 4h or 1d."""
    since: str | None = None
    """The first candle's date, UTC."""
    until: str | None = None
    """Only candles that open before this date (UTC); up to the present if left out."""
    bars: int | None = None
    """Instead of --since: this many candles before --until."""
    store: Path = Path("data")
    """The folder to download into."""
    progress: bool = True
    """Show a progress bar."""

    def run(self) -> int:
        """Download, and print the results."""
        names = _split(self.symbols)
        if self.exchange == YAHOO:
            from portfolio_env.data.downloads.yahoo import fetch_yahoo

            if self.since is None or self.bars is not None:
                raise ArgumentError("bars from yahoo are counted by dates: give --since, no --bars")
            report = fetch_yahoo(names, self.since, self.until, self.store, self.timeframe)
            print(report)
            return 1 if report.missing else 0
        return _tell(
            exchange.fetch(
                self.exchange,
                names,
                self.timeframe,
                self.since,
                self.until,
                self.store,
                bars=self.bars,
                progress=self.progress,
            )
        )


@dataclass(frozen=True)
class Update:
    """Continue the series of a store to the present."""

    store: Path = Path("data")
    """The folder they were downloaded into."""
    exchange: str | None = None
    """Only those of this exchange."""
    symbols: str | None = None
    """Only those of these symbols, comma-separated."""
    timeframe: str | None = None
    """Only those of this timeframe."""
    progress: bool = True
    """Show progress bars."""

    def run(self) -> int:
        """Download, and print the results."""
        names = None if self.symbols is None else _split(self.symbols)
        folders = {path.parts[-3] for path in stored(self.store)}
        status = 0
        if YAHOO in folders and self.exchange in (None, YAHOO) and self.timeframe in (None, "1d"):
            from portfolio_env.data.downloads.yahoo import update_yahoo

            report = update_yahoo(names, self.store)
            print(report)
            status = 1 if report.missing else 0
        if self.exchange == YAHOO or folders == {YAHOO}:
            return status
        reports = exchange.update(
            self.store, self.exchange, names, self.timeframe, progress=self.progress
        )
        return _tell(reports) or status


@dataclass(frozen=True)
class List:
    """List the series of a store."""

    store: Path = Path("data")
    """The folder they were downloaded into."""

    def run(self) -> int:
        """Print a table, and the files that cannot be read."""
        rows, problems = [], []
        for path in stored(self.store):
            try:
                series = read_series(path)
            except DataError as error:
                problems.append(str(error))
                continue
            ends = [str(moment(series.times[at])) for at in (0, -1) if len(series.times)]
            closes = series.exchange == YAHOO  # at weekends: gaps are not known
            rows.append(
                {
                    "exchange": series.exchange,
                    "symbol": series.symbol,
                    "timeframe": series.timeframe,
                    "rows": len(series.times),
                    "first": ends[0] if ends else "",
                    "last": ends[-1] if ends else "",
                    "gaps": "" if closes else len(series.gaps),
                    "missing": "" if closes else sum(missing for _, missing in series.gaps),
                    "not fetched": _ranges(series.holes),
                }
            )
        print(_table(rows) if rows else f"nothing is stored in {self.store}")
        return _complain(problems)


@dataclass(frozen=True)
class Report:
    """Write an HTML page on prices: figures, tables, and a report on their quality."""

    source: Annotated[str, tyro.conf.Positional]
    """Source for ``load_market``: a file, a folder of a store (data/binance/1d), or a name."""
    out: Path = Path("report")
    """The folder to write to."""
    adjust: Adjust = "auto"
    """Adjustment of prices: auto, as far as the source tells how; all; splits; none."""
    actions: Path | None = None
    """Splits and dividends: a file with the columns date, symbol, split, dividend."""

    def run(self) -> int:
        """Write the page."""
        from portfolio_env.data.reports.exploration import write_report

        print(write_report(self.source, self.out, adjust=self.adjust, actions=self.actions))
        return 0


@dataclass(frozen=True)
class Convert:
    """Write one file: a market (.npz), or its bars (.parquet, .csv, .csv.gz)."""

    source: Annotated[str, tyro.conf.Positional]
    """Source for ``load_market``: a file, a folder of a store (data/binance/1d), or a name."""
    out: Annotated[Path, tyro.conf.Positional]
    """The file to write."""
    timeframe: str | None = None
    """Combine bars into longer ones, e.g. 4h."""
    assets: str | None = None
    """The assets to keep, comma-separated."""
    start: str | None = None
    """The first date to keep."""
    end: str | None = None
    """The date after the last one to keep."""
    metadata: Path | None = None
    """Labels of the assets: a file with the columns symbol, sector, ..."""
    exogenous: Path | None = None
    """Further channels: a file with the columns date, symbol, name, value, known_at."""
    adjust: Adjust = "auto"
    """Adjustment of prices: auto, as far as the source tells how; all; splits; none."""
    actions: Path | None = None
    """Splits and dividends: a file with the columns date, symbol, split, dividend."""
    base_currency: str | None = None
    """Currency that all prices are converted to, e.g. USD."""
    exchange_rates: str | None = None
    """Rates of exchange for it: EUR=EURUSD,GBP=gbp.csv,USDT=1 (assets of the source,
    files, numbers), or one file with a column per currency."""
    features: str | None = None
    """Features of a market: a preset, or comma-separated names; minimal if left out."""
    fit_end: str | None = None
    """Date before which the scalers of a market are fitted."""
    periods_per_year: float | None = None
    """Bars per year of a market, for yearly figures; counted if left out."""
    repair: Repair = field(default_factory=Repair)

    def run(self) -> int:
        """Write the file."""
        is_market = self.out.suffix == ".npz"
        if not is_market and not self.out.name.endswith((".parquet", ".csv", ".csv.gz")):
            raise ArgumentError(
                f"{self.out} has no known suffix: end it with .npz, .parquet or .csv.gz"
            )
        extra = ("features", "fit_end", "metadata", "exogenous", "periods_per_year")
        given = [name for name in extra if getattr(self, name) is not None]
        lost = [f"--{name.replace('_', '-')}" for name in given]
        if lost and not is_market:
            raise ArgumentError(
                f"{self.out} holds bars only, not {', '.join(lost)}: leave them out, or write .npz"
            )
        names = self.features and _split(self.features)
        market = load_market(
            self.source,
            assets=None if self.assets is None else _split(self.assets),
            start=self.start,
            end=self.end,
            timeframe=self.timeframe,
            metadata=self.metadata,
            exogenous=self.exogenous,
            adjust=self.adjust,
            actions=self.actions,
            base_currency=self.base_currency,
            exchange_rates=self.exchange_rates,
            features="minimal" if not names else names[0] if len(names) == 1 else names,
            fit_end=self.fit_end,
            repair=None if self.repair == Repair() else self.repair,
            periods_per_year=self.periods_per_year,
        )
        if is_market:
            market.save(self.out)
        else:
            _write_bars(frame_of_panel(market.panel), self.out)
        print(self.out)
        return 0


Command: TypeAlias = Fetch | Update | List | Report | Convert


def update_folder(folder: Path | None) -> None:
    """Continue the series in one folder of a store, and print the results.

    Args:
        folder: Folder of an exchange and a timeframe, e.g. data/binance/1d.

    Raises:
        ArgumentError: If it is none.
        DataError: If a series could not be continued.
    """
    own = Path() if folder is None else folder.resolve()
    if not any(path.parent == own for path in stored(own.parents[1] if own.parents[1:] else own)):
        raise ArgumentError(
            f"{folder} is no folder of a store, such as data/binance/1d: name one, or update the "
            "data in the way that they came."
        )
    store, exchange_name = own.parents[1], own.parent.name
    if Update(store, exchange_name, timeframe=own.name, progress=False).run():
        raise DataError(f"{folder} was not updated as a whole: try again, or go on without")


def _write_bars(frame: pd.DataFrame, out: Path) -> None:
    if out.suffix == ".parquet":
        write_parquet(out, frame)
        return
    write_csv(out, frame, index=False, date_format="%Y-%m-%dT%H:%M:%SZ")


def _tell(reports: Sequence[SeriesReport]) -> int:
    """Print the results of downloads; return the exit status."""
    rows = [
        {
            "exchange": report.exchange,
            "symbol": report.symbol,
            "timeframe": report.timeframe,
            "new": report.rows_new,
            "rows": report.rows_total,
            "first": str(report.first or ""),
            "last": str(report.last or ""),
            "listed": str(report.listed or ""),
            "gaps": len(report.gaps),
            "missing": sum(missing for _, missing in report.gaps),
            "duplicates": report.duplicates,
            "disorder": report.out_of_order,
            "conflicts": report.conflicts,
            "incomplete": report.incomplete,
            "retries": report.retries,
        }
        for report in reports
    ]
    print(_table(rows))
    return _complain(
        f"{report.symbol} {report.timeframe}: {report.error}" for report in reports if report.error
    )


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as text, without the columns of rare events that did not happen."""
    shown = [
        {k: printable(v) if v and isinstance(v, str) else v for k, v in r.items()} for r in rows
    ]
    frame = pd.DataFrame(shown)
    idle = [name for name in _RARE if name in frame.columns and not frame[name].any()]
    return frame.drop(columns=idle).to_string(index=False)


def _ranges(ranges: Iterable[tuple[Any, Any]]) -> str:
    return ", ".join(f"{start} to {end}" for start, end in ranges)


def _complain(problems: Iterable[str]) -> int:
    """Print problems on stderr; return the exit status."""
    status = 0
    for problem in problems:
        print(f"error: {printable(problem)}", file=sys.stderr)
        status = 1
    return status


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
