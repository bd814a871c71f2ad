"""Bars from files and frames, long or wide: unchecked (`read_frame`), or checked (`read_panel`).

Nothing is repaired or filled: whatever cannot be true is rejected with an error that names the
file, the row and the fix.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd

from portfolio_env.data.tables import Origin, read_numbers, read_tables, read_times
from portfolio_env.market.panel import BAR_FIELDS, PricePanel, bar_faults

_REQUIRED = ("date", "symbol", "close")


def read_frame(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read bars unchecked: duplicates, disorder, impossible and incomplete bars are kept.

    Args:
        path: A CSV or Parquet file, plain or gzip (recognised by content, not name), in one of
            these forms, or a folder of Parquet files.

            - long: columns date (ISO 8601), symbol, close and, where known, open, high, low and
              volume; other columns are ignored;
            - wide: the first column dates, every other one the closing prices of the asset it is
              named after (no column may be called symbol or close);
            - wide with the two header rows Price and Ticker of yfinance;
            - a folder of long files of one symbol each, which the entry "symbol" of their metadata
              names, else the file: what ``data.downloads.store`` keeps for an exchange.

    Returns:
        A frame with columns date (datetime64[ns], times with a zone in UTC), symbol, and the bar
        fields that the source has; ``attrs`` holds the source and its SHA-256.

    Raises:
        DataError: For unreadable input, with file, row and fix.
    """
    tables, source = read_tables(path)
    frame = pd.concat([typed_frame(table, origin) for table, origin in tables], ignore_index=True)
    frame.attrs.update(source)
    return frame


def read_panel(path: str | os.PathLike[str]) -> PricePanel:
    """Read a file or folder (see ``read_frame``), with a check that its bars are possible.

    Args:
        path: Dates increase within each symbol; symbols may be listed late, delisted early or miss
            bars.

    Raises:
        DataError: For impossible bars, with file, row and fix.
    """
    tables, source = read_tables(path)
    parts = [_checked(typed_frame(table, origin), origin) for table, origin in tables]
    return _panel(pd.concat(parts, ignore_index=True), Origin(os.fspath(path)), source)


def panel_from_frame(frame: pd.DataFrame, source: str = "the frame") -> PricePanel:
    """Return a panel from a long frame; columns and rules as for ``read_panel``.

    Args:
        frame: Columns date, symbol, close and, where known, open, high, low and volume.
        source: Name of the data in errors.

    Raises:
        DataError: For impossible bars, with the row (counted from 1) and the fix.
    """
    origin = Origin(source)
    return _panel(_checked(typed_frame(frame, origin), origin), origin, {"source": "frame"})


def panel_from_prices(close: pd.DataFrame, source: str = "the frame") -> PricePanel:
    """Return a panel of closing prices from a wide frame.

    Args:
        close: Index increasing dates, one column per asset, NaN where an asset has no bar.
        source: Name of the data in errors and in the provenance.

    Raises:
        DataError: With the row (counted from 1) or the asset and date, and the fix.
    """
    origin = Origin(source)
    times = read_times(close.index.to_series(), origin)
    late = np.diff(times, prepend=times[:1] - 1) <= np.timedelta64(0)
    origin.refuse(
        late, "the date is not after the one before:", "sort, drop duplicates", times.__getitem__
    )
    columns = [read_numbers(close.iloc[:, i], origin) for i in range(close.shape[1])]
    return PricePanel(
        times,
        tuple(str(name) for name in close.columns),
        np.stack(columns, axis=1) if columns else np.empty((len(times), 0)),
        provenance={"source": source},
    )


def typed_frame(frame: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """Return the known columns of a long table, as dates, names and numbers."""
    missing = [name for name in _REQUIRED if name not in frame.columns]
    if missing:
        origin.fail(
            f"lacks the columns {missing}; it has {list(frame.columns)}: add or rename them"
        )
    if not len(frame):
        origin.fail("holds no rows; give at least two symbols with bars")
    times = read_times(frame["date"], origin)
    no_symbol = frame["symbol"].isna().to_numpy() | (frame["symbol"] == "").to_numpy()
    origin.refuse(no_symbol, "there is no symbol", "name the asset")
    bars = {name: read_numbers(frame[name], origin) for name in BAR_FIELDS if name in frame.columns}
    symbols = frame["symbol"].astype(str).to_numpy()
    return pd.DataFrame({"date": times, "symbol": symbols, **bars})


def _checked(frame: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """Reject impossible bars, duplicates, and dates that do not increase in a symbol."""
    bars = {name: frame[name].to_numpy() if name in frame.columns else None for name in BAR_FIELDS}
    no_close = frame["close"].isna().to_numpy()
    origin.refuse(no_close, "there is no close", "give it, or delete the row if there was no bar")
    for faulty, problem in bar_faults(bars):
        origin.refuse(faulty, problem, "correct the bar")
    times, symbols = frame["date"].to_numpy(), frame["symbol"].to_numpy()

    def label(at: int) -> str:
        return f"{symbols[at]} at {times[at]}"

    again = frame.duplicated(["date", "symbol"]).to_numpy()
    origin.refuse(again, "a second row for", "delete one of them", label)
    backwards = (frame.groupby("symbol")["date"].diff() < pd.Timedelta(0)).to_numpy()
    origin.refuse(backwards, "the date is before the symbol's last:", "sort the rows", label)
    return frame


def _panel(frame: pd.DataFrame, origin: Origin, provenance: dict[str, Any]) -> PricePanel:
    """Arrange a checked frame by dates and symbols."""
    assets, column = np.unique(frame["symbol"].to_numpy(str), return_inverse=True)
    timestamps, row = np.unique(frame["date"].to_numpy("datetime64[ns]"), return_inverse=True)
    tables: dict[str, Any] = {}
    for name in BAR_FIELDS:
        if name in frame.columns:
            tables[name] = np.full((len(timestamps), len(assets)), np.nan)
            tables[name][row, column] = frame[name].to_numpy()
    return PricePanel(timestamps, tuple(assets.tolist()), **tables, provenance=provenance)


def frame_of_panel(panel: PricePanel) -> pd.DataFrame:
    """Return a panel as a long frame, by date and symbol; see ``PricePanel.to_frame``."""
    return panel.to_frame()
