"""Bars from files and frames of any shape, as they are or checked.

Nothing is repaired or filled: whatever cannot be true is refused with an error that names the file,
the row and the fix. What was decided while reading stands in the provenance, and is logged.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from portfolio_env.checks import shortened
from portfolio_env.data.actions import Actions, read_actions, with_actions
from portfolio_env.data.adjust import Adjust, adjusted, check_adjust, split_like
from portfolio_env.data.tables.fields import ADJUSTED, CURRENCY, DATE
from portfolio_env.data.tables.numbers import read_numbers
from portfolio_env.data.tables.origin import Origin
from portfolio_env.data.tables.quotes import quotes_of
from portfolio_env.data.tables.shapes import Table, long_form, table_of
from portfolio_env.data.tables.sources import LongTable, tables_of
from portfolio_env.data.tables.times import as_dates, bar_times, period_ends
from portfolio_env.errors import ArgumentError
from portfolio_env.market.panel import (
    BAR_FIELDS,
    PricePanel,
    bar_faults,
    contained,
    suspected_returns,
)
from portfolio_env.market.timeline import time_text
from portfolio_env.market.zones import utc_hint

_LOGGER = logging.getLogger(__name__)
_DROP = (
    "correct the bar, or drop it with repair={'drop_faulty': True} "
    "(--data.repair '{\"drop_faulty\": true}' of train.py and evaluate.py)"
)
_BLANKS = " \u00a0"
_SHOWN = 5  # jumps that are listed


def read_frame(
    source: Any, adjust: Adjust = "auto", actions: Actions | None = None
) -> pd.DataFrame:
    """Read bars as they are: duplicates, disorder, impossible and incomplete bars are kept.

    Args:
        source: A CSV or Parquet file, plain or gzip (recognised by content, not name), or a
            frame (of pandas, polars, Arrow), in one of these forms. Names of fields may have any
            case and their common synonyms (Ticker, tic, Name; Datetime, timestamp; Last; ...).

            - long: columns date, symbol, close and, where known, open, high, low and volume; other
              columns are ignored; in frames, date and symbol may be the index;
            - wide: the first column (or the index) dates, every other one the closing prices of the
              asset it is named after;
            - wide with two levels of columns, fields and symbols, as yfinance gives them;
            - the fields of one asset, called after its file.

            Or several of these: a folder of one file per asset (of Parquet files, the entry
            "symbol" of their metadata may name it: what ``data.downloads.store`` keeps for an
            exchange), a list of files or frames, or ``{asset: file or frame}``.
        adjust: Kind of prices, see ``portfolio_env.data.adjust.adjusted``.
        actions: Splits and dividends, see ``portfolio_env.data.actions.read_actions``.

    Returns:
        A frame with columns date (datetime64[ns], times with a zone in UTC), symbol, and the bar
        fields that the source has; ``attrs`` holds the source, its SHA-256, and what was decided.

    Raises:
        DataError: For what cannot be read, with file, row and fix.
    """
    parts, about = _typed_tables(source, adjust, actions)
    frame = pd.concat([part for part, _, _ in parts], ignore_index=True)
    frame.attrs.update(_provenance(about, parts, frame))
    return frame


def read_panel(source: Any, adjust: Adjust = "auto", actions: Actions | None = None) -> PricePanel:
    """Read a source (see ``read_frame``) whose bars can all be true.

    Args:
        source: Symbols may be listed late, delisted early or miss bars; rows may be in any order.
            Of a downloaded store, bars that cannot be true are left out, and said.
        adjust: Kind of prices, see ``portfolio_env.data.adjust.adjusted``.
        actions: Splits and dividends, see ``portfolio_env.data.actions.read_actions``.

    Raises:
        DataError: With file, row and fix.
    """
    parts, about = _typed_tables(source, adjust, actions)
    checked = [(_checked(frame, origin, said), origin, said) for frame, origin, said in parts]
    _refuse_twice(checked)
    frame = pd.concat([part for part, _, _ in checked], ignore_index=True)
    if not len(frame):
        checked[0][1].fail("holds no bar; give at least one")
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else about["source"]
    return _panel(frame, Origin(name), _provenance(about, checked, frame))


def panel_from_frame(
    frame: pd.DataFrame,
    source: str = "the frame",
    adjust: Adjust = "auto",
    actions: Actions | None = None,
) -> PricePanel:
    """Return a panel from a frame; shapes and rules as for ``read_panel``.

    Args:
        frame: Long, with columns date, symbol, close and, where known, open, high, low and volume;
            or of two levels of columns, or wide.
        source: Name of the data in errors.
        adjust: Kind of prices, see ``portfolio_env.data.adjust.adjusted``.
        actions: Splits and dividends, see ``portfolio_env.data.actions.read_actions``.

    Raises:
        DataError: With the row (counted from 1) and the fix.
    """
    table = table_of(frame, Origin(source))
    known = _known_actions(adjust, actions)
    assets = None
    if table.shape == "wide":
        if known is None:
            return panel_from_prices(frame, source)
        assets = [str(name) for name in table.frame.columns if name != DATE]
    typed, origin, done = _typed(*long_form(table), adjust, known)
    part: LongTable = (_checked(typed, origin, {}), origin, done)
    return _panel(part[0], origin, _provenance({"source": "frame"}, [part], part[0]), assets)


def panel_from_prices(
    close: pd.DataFrame, source: str = "the frame", *, adjusted: bool = False
) -> PricePanel:
    """Return a panel of closing prices from a wide frame.

    Args:
        close: Index dates, or a column of them; one column per asset, NaN where an asset has no
            bar.
        source: Name of the data in errors and in the provenance.
        adjusted: Whether the prices are known to be adjusted; jumps that look like splits are then
            not pointed out.

    Raises:
        DataError: With the row (counted from 1) or the asset and date, and the fix.
    """
    origin = Origin(source)
    table = table_of(close, origin)
    if table.shape != "wide":
        return panel_from_frame(close, source)
    frame = table.frame
    dates = as_dates(frame[DATE], origin)
    about = {"source": source}
    assets = [str(name) for name in frame.columns if name != DATE]
    if isinstance(dates.dtype, pd.DatetimeTZDtype):  # assets may have clocks of their own
        dated = Table(frame.assign(date=dates), "wide", origin)
        typed, origin, done = _typed(*long_form(dated), "auto")
        part: LongTable = (_checked(typed, origin, {}), origin, done)
        return _panel(part[0], origin, _provenance(about, [part], part[0], adjusted), assets)
    times = period_ends(dates.to_numpy("datetime64[ns]"), origin)
    order = np.argsort(times, kind="stable")
    again = np.zeros(len(times), bool)
    again[order[1:]] = np.diff(times[order]) == np.timedelta64(0)
    fix = f"delete one of them{utc_hint(times[again])}"
    origin.refuse(again, "a second row for", fix, lambda at: time_text(times[at]))
    if (np.diff(order) < 0).any():
        origin.note("rows are sorted by date")
    columns = [read_numbers(frame[name], origin)[order] for name in assets]
    panel = PricePanel(
        times[order],
        tuple(assets),
        np.stack(columns, axis=1) if columns else np.empty((len(times), 0)),
        provenance=about,
    )
    provenance = _provenance(about, [(frame, origin, {})], frame_of_panel(panel), adjusted)
    return panel if provenance == about else panel.with_provenance(provenance)


def typed_frame(frame: pd.DataFrame, origin: Origin, adjust: Adjust = "auto") -> pd.DataFrame:
    """Return a table as dates, names and numbers, in long form: what ``read_frame`` makes of it."""
    return _typed(*long_form(table_of(frame, origin)), adjust)[0]


def _known_actions(adjust: Adjust, actions: Actions | None) -> pd.DataFrame | None:
    """Return the splits and dividends to adjust for, if any are given."""
    check_adjust(adjust)
    if actions is None:
        return None
    if adjust == "none":
        raise ArgumentError("adjust='none' takes no actions: leave one of them out")
    return read_actions(actions)


def _typed_tables(
    source: Any, adjust: Adjust, actions: Actions | None = None
) -> tuple[list[LongTable], dict[str, Any]]:
    """Return the tables of a source with dates, names and numbers, and about all of them."""
    known = _known_actions(adjust, actions)
    tables, about = tables_of(source)
    parts: list[LongTable] = []
    for frame, origin, said in tables:
        typed, origin, done = _typed(frame, origin, adjust, known)
        parts.append((typed, origin, {**said, **done}))
    return parts, about


def _typed(
    frame: pd.DataFrame, origin: Origin, adjust: Adjust, actions: pd.DataFrame | None = None
) -> LongTable:
    """Return a long table as dates, names and adjusted numbers; its adjustment and currencies."""
    if not len(frame):
        origin.fail("holds no rows; give at least two symbols with bars")
    dates = as_dates(frame["date"], origin)
    names = _names(frame["symbol"], origin)
    times = bar_times(dates, names, origin)
    fields = [name for name in (*BAR_FIELDS, ADJUSTED, "split", "dividend") if name in frame]
    bars = {name: read_numbers(frame[name], origin) for name in fields}
    made = pd.DataFrame({"date": times, "symbol": names, **bars}, copy=False)
    if actions is not None:
        made = with_actions(made, actions, origin)
    made, done = adjusted(made, origin, adjust)
    facts: dict[str, Any] = {} if done is None else {"adjust": done}
    if CURRENCY in frame:
        facts["currencies"] = quotes_of(frame.assign(symbol=names), origin)
    return made, origin, facts


def _names(symbols: pd.Series[Any], origin: Origin) -> npt.NDArray[Any]:
    """Return the names of assets without blanks around them, one object for each."""
    codes, texts = pd.factorize(symbols.astype(str), use_na_sentinel=False)
    stripped = pd.Series(texts).str.strip(_BLANKS)
    no_symbol = symbols.isna().to_numpy() | (stripped == "").to_numpy(bool)[codes]
    origin.refuse(no_symbol, "there is no symbol", "name the asset")
    names: npt.NDArray[Any] = stripped.to_numpy(object)[codes]
    return names


def _checked(frame: pd.DataFrame, origin: Origin, about: Mapping[str, Any]) -> pd.DataFrame:
    """Refuse bars that cannot be true, and duplicates; without rows that hold nothing.

    Of a downloaded store they are left out instead.
    """
    bars = {name: frame[name].to_numpy() if name in frame.columns else None for name in BAR_FIELDS}
    known = [values for values in bars.values() if values is not None]
    empty = reduce(np.logical_and, (np.isnan(values) | (values == 0) for values in known))
    empty &= frame["close"].isna().to_numpy()
    no_close = frame["close"].isna().to_numpy() & ~empty
    kept = ~empty
    if empty.any():
        named = pd.unique(frame["symbol"].to_numpy()[empty])
        none = ", ".join(map(str, sorted(set(named) - set(frame["symbol"].to_numpy()[kept]))))
        told = f"; {shortened(none)} has no price at all and is no asset" if none else ""
        origin.warn(f"{int(empty.sum())} rows without prices are left out{told}")
    mended, rounded = contained(bars)
    if rounded.any():
        count = int(rounded.sum())
        origin.warn(f"{count} highs or lows that miss open or close by rounding are moved to them")
        frame = frame.assign(**mended)
    problems = [(no_close, "there is no close", "give it, or delete the row if there was no bar")]
    fix = suspected_returns(frame["close"].to_numpy()) or _DROP
    problems += [(faulty, problem, fix) for faulty, problem in bar_faults(bars)]
    if "exchange" in about:
        faulty = np.logical_or.reduce([mask for mask, _, _ in problems]) & kept
        kept &= ~faulty
        if faulty.any():
            origin.warn(f"{origin.name}: {int(faulty.sum())} bars that cannot be true are left out")
    else:
        for faulty, problem, fix in problems:
            origin.refuse(faulty & kept, problem, fix)
    times = frame["date"].to_numpy()

    def label(at: int) -> str:
        return f"{frame['symbol'].iloc[at]} at {time_text(times[at])}"

    codes, symbols = pd.factorize(frame["symbol"])
    order = np.argsort(codes, kind="stable")
    same, steps = np.diff(codes[order]) == 0, np.diff(times[order])
    if (same & (steps <= np.timedelta64(0))).any():
        again = frame.duplicated(["date", "symbol"]).to_numpy() & kept
        fix = "delete one of them"
        if len(symbols) == 1:
            fix += ", or call the column of the assets' names 'symbol' if these are several assets"
        origin.refuse(again, "a second row for", fix + utc_hint(times[again]), label)
        if (same & (steps < np.timedelta64(0))).any():
            origin.note("rows are sorted by date")
    return frame if kept.all() else frame[kept].reset_index(drop=True)


def _refuse_twice(parts: Sequence[LongTable]) -> None:
    """Refuse two tables that hold one symbol at the same time."""
    if len(parts) < 2:
        return
    spans: dict[str, list[tuple[Any, Any, str]]] = {}
    for frame, origin, _ in parts:
        dates = frame.groupby("symbol")["date"].agg(["min", "max"])
        for symbol, first, last in zip(dates.index, dates["min"], dates["max"], strict=True):
            for begin, end, name in spans.setdefault(str(symbol), []):
                if first <= end and begin <= last:
                    origin.fail(f"holds {symbol}, as does {name}; delete one of them")
            spans[str(symbol)].append((first, last, origin.name))


def _provenance(
    about: Mapping[str, Any],
    parts: Sequence[LongTable],
    frame: pd.DataFrame,
    adjusted: bool = False,
) -> dict[str, Any]:
    """Return the provenance: the source, the adjustment, and what was decided, which is logged."""
    made = dict(about)
    done = sorted({said["adjust"] for _, _, said in parts if "adjust" in said})
    if done:
        made["adjust"] = ", ".join(done)
    quoted: dict[str, str] = {}
    for _, origin, said in parts:
        for symbol, code in said.get("currencies", {}).items():
            if quoted.setdefault(symbol, code) != code:
                origin.fail(
                    f"quotes {symbol} in {code}, another table in {quoted[symbol]}: convert one of "
                    "them, or call the assets differently"
                )
    if quoted:
        made["currencies"] = quoted
    notes = list(dict.fromkeys(note for _, origin, _ in parts for note in origin.notes))
    weighty = {note for _, origin, _ in parts for note in origin.weighty}
    if "close" in frame and done != ["none"] and not adjusted:
        jumps = _suspicions(frame)
        notes += jumps
        weighty.update(jumps)
    idle = _without_volume(frame)
    if idle:
        text = f"{', '.join(idle[:_SHOWN])} ({len(idle)}) never had volume and cannot be traded"
        notes.append(f"{text}; leave the column volume out if they can")
        weighty.add(notes[-1])
    if notes:
        made["notes"] = notes
    for level, wanted in ((logging.WARNING, True), (logging.INFO, False)):
        chosen = [note for note in notes if (note in weighty) is wanted]
        if chosen:
            _LOGGER.log(level, "%s: %s", about["source"], "; ".join(chosen))
    return made


def _without_volume(frame: pd.DataFrame) -> list[str]:
    """Return the assets that have a volume of 0 on all of their bars."""
    if "volume" not in frame or (frame["volume"] > 0).all():
        return []
    traded = (frame["volume"] != 0).groupby(frame["symbol"]).any()
    return [str(symbol) for symbol in traded.index[~traded]]


def _suspicions(frame: pd.DataFrame) -> list[str]:
    """Return the jumps that look like unreported splits."""
    found = split_like(frame)
    if not len(found):
        return []
    shown = [
        f"{row.symbol} on {str(row.date)[:10]} ({row.ratio:.4g})"
        for row in found.head(_SHOWN).itertuples()
    ]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return [
        f"jumps that look like splits: {', '.join(shown)}{more}; if they are splits, give adjusted "
        "prices"
    ]


def _panel(
    frame: pd.DataFrame,
    origin: Origin,
    provenance: dict[str, Any],
    assets: Sequence[str] | None = None,
) -> PricePanel:
    """Spread a checked frame over dates and symbols, which are in order if none is given."""
    column: npt.NDArray[np.intp]
    codes, found = pd.factorize(frame["symbol"], sort=True)
    if assets is None:
        names, column = [str(name) for name in found], codes
    else:
        names = list(assets)
        places = {name: at for at, name in enumerate(names)}
        column = np.array([places[str(name)] for name in found], np.intp)[codes]
    row, timestamps = pd.factorize(frame["date"].to_numpy("datetime64[ns]"), sort=True)
    tables: dict[str, Any] = {}
    for name in BAR_FIELDS:
        if name in frame.columns:
            table = tables[name] = np.full((len(timestamps), len(names)), np.nan)
            table[row, column] = frame[name].to_numpy()
            table[np.isnan(table)] = np.nan  # as a panel's own copy would, which is spared so
            table.setflags(write=False)
    return PricePanel(timestamps, tuple(names), **tables, provenance=provenance)


def frame_of_panel(panel: PricePanel) -> pd.DataFrame:
    """Return a panel as a long frame, by date and symbol; a bar that does not exist has no row."""
    rows, columns = np.nonzero(np.isfinite(panel.close))
    fields = {name: getattr(panel, name) for name in BAR_FIELDS}
    return pd.DataFrame(
        {"date": panel.timestamps[rows], "symbol": np.array(panel.assets)[columns]}
        | {name: values[rows, columns] for name, values in fields.items() if values is not None}
    )
