"""Exogenous channels (sentiment, on-chain metrics, fundamentals), joined when they are known."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from portfolio_env.data.factor_frames import ALL_ASSETS, Factors, records_of
from portfolio_env.data.tables.files import read_table
from portfolio_env.data.tables.numbers import read_numbers
from portfolio_env.data.tables.origin import Origin
from portfolio_env.data.tables.sources import as_frame
from portfolio_env.data.tables.times import read_times
from portfolio_env.errors import ArgumentError
from portfolio_env.market.panel import BAR_FIELDS, FloatArray, PricePanel
from portfolio_env.market.timeline import Timestamps
from portfolio_env.names import unknown

_NEVER = np.timedelta64(np.iinfo(np.int64).max, "ns")

Duration = str | timedelta | np.timedelta64
"""A length of time, e.g. "12h" or "90 days"."""


def join(
    panel: PricePanel,
    source: str | os.PathLike[str] | Factors,
    *,
    close_offset: Duration = "0s",
    max_age: Duration | None = None,
    others: Collection[str] = (),
) -> PricePanel:
    """Return the panel with exogenous channels, whose values stand only from when they were known.

    The value in row t is, of the records with known_at <= timestamps[t] + close_offset, that with
    the latest date; of those with the same date, that known last. So a revision replaces its date's
    value when it is published, and one of an old date changes nothing once a newer date is known.
    An asset's own value beats that of all assets, which stands where it has none. Values are
    carried until the next one.

    Args:
        panel: Panel whose timestamps label the bars.
        source: A CSV or Parquet file or a frame with columns date (what the value is about), symbol
            ("*": all assets), name (of the channel), value (empty: withdrawn, nothing is known from
            then on) and known_at (when it was published, at or after date). Times with a zone are
            converted to UTC; a date alone is its first instant. A forecast's date is the day on
            which it was made. Other shapes of factor values are read too (see
            ``factor_frames.records_of``); without known_at a value is known at its date.
        close_offset: Time from the label of a bar to its close. 0 is safe wherever labels are not
            later than closes: with a label at the opening, it ignores what becomes known during the
            bar. A negative one delays the data.
        max_age: Time after known_at for which a value is carried; None carries it for ever.
        others: Symbols that may occur although the panel does not hold them.

    Returns:
        The panel with one more channel (T, N) per name, NaN where nothing is known.

    Raises:
        ArgumentError: For unknown symbols, channels that exist already, or no lengths of time.
        DataError: For impossible records, with file, row and fix.
    """
    offset = _duration("close_offset", close_offset)
    oldest = _NEVER if max_age is None else _duration("max_age", max_age)
    if oldest < np.timedelta64(0):
        raise ArgumentError(f"max_age is {max_age}: give a length of time of at least 0")
    records, origin = _records(source, panel.assets)
    _check_names(records, panel, others)
    by_rank = records.sort_values(["date", "known_at"], kind="stable")
    channels = {
        str(name): _channel(own, panel, offset, oldest)
        for name, own in by_rank.groupby("name", sort=True)
    }
    about = {
        "source": origin.name,
        "names": list(channels),
        "records": len(records),
        "close_offset": str(pd.Timedelta(offset)),
        "max_age": None if max_age is None else str(pd.Timedelta(oldest)),
    }
    joined = [*panel.provenance.get("exogenous", []), about]
    return replace(
        panel,
        exogenous={**panel.exogenous, **channels},
        provenance={**panel.provenance, "exogenous": joined},
    )


def _duration(name: str, length: Duration) -> np.timedelta64:
    try:
        if not isinstance(length, str | timedelta | np.timedelta64):
            raise TypeError
        exact = pd.Timedelta(length)
        if pd.isna(exact):
            raise ValueError
        return exact.as_unit("ns").to_timedelta64()
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name} is {length!r}: give a length of time such as '12h'") from error


def _records(
    source: str | os.PathLike[str] | Factors, assets: Sequence[str]
) -> tuple[pd.DataFrame, Origin]:
    """Return the records as dates, names and numbers, in the order of the source."""
    table: Any
    if isinstance(source, str | os.PathLike):
        table, origin, _ = read_table(source)
    else:
        is_pandas = isinstance(source, Mapping | pd.DataFrame | pd.Series)
        table, origin = source if is_pandas else as_frame(source), Origin("the exogenous frame")
        if table is None:
            raise ArgumentError(
                f"exogenous is of type {type(source).__name__}: give a path, a frame or {{name: "
                "frame of dates and symbols}"
            )
    table = records_of(table, assets, origin)
    if not len(table):
        origin.fail("holds no records; give at least one")
    for name in ("symbol", "name"):
        empty = table[name].isna().to_numpy() | (table[name] == "").to_numpy()
        fix = f"give one, or {ALL_ASSETS!r} for all" if name == "symbol" else "name the channel"
        origin.refuse(empty, f"there is no {name}", fix)
    records = pd.DataFrame(
        {
            "date": read_times(table["date"], origin),
            "symbol": table["symbol"].astype(str).to_numpy(),
            "name": table["name"].astype(str).to_numpy(),
            "value": read_numbers(table["value"], origin),
            "known_at": read_times(table["known_at"], origin),
        }
    )
    _check_records(records, origin)
    return records, origin


def _check_records(records: pd.DataFrame, origin: Origin) -> None:
    origin.refuse(np.isinf(records["value"].to_numpy()), "value is infinite", "correct it")
    known = records["known_at"].to_numpy()
    origin.refuse(
        (records["known_at"] < records["date"]).to_numpy(),
        "known_at is before date:",
        "give when the value was published; date a forecast by when it was made",
        known.__getitem__,
    )
    same = ["date", "symbol", "name", "known_at"]
    first = records.groupby(same)["value"].transform("first")  # NaN only if all are
    agree = (records["value"] == first) | (records["value"].isna() & first.isna())
    origin.refuse(
        ~agree.to_numpy(),
        "another value for the same date, symbol, name and known_at:",
        "delete one, or give the revision's own known_at",
        records["value"].iloc.__getitem__,
    )


def _check_names(records: pd.DataFrame, panel: PricePanel, others: Collection[str]) -> None:
    allowed = {*panel.assets, *others, ALL_ASSETS}
    for symbol in records["symbol"].unique():
        if symbol not in allowed:
            raise unknown(f"asset of an exogenous record (or {ALL_ASSETS!r})", symbol, panel.assets)
    for name in records["name"].unique():
        if name in panel.exogenous or name in BAR_FIELDS:
            raise ArgumentError(f"the panel has {name!r} already: give the channel another name")


def _channel(
    records: pd.DataFrame, panel: PricePanel, offset: np.timedelta64, oldest: np.timedelta64
) -> FloatArray:
    """Return (T, N) values of one name, whose records are in order of date and known_at."""
    places = {asset: i for i, asset in enumerate(panel.assets)}
    places[ALL_ASSETS] = n = len(places)
    kept = records[records["symbol"].isin(list(places))]
    if not len(kept):
        return np.full(panel.close.shape, np.nan)
    known: Timestamps = kept["known_at"].to_numpy("datetime64[ns]")
    row = np.searchsorted(panel.timestamps, known - offset)  # the first in which it is known
    column = kept["symbol"].map(places).to_numpy(np.intp)
    seen = row < len(panel.timestamps)
    latest = np.full((len(panel.timestamps), n + 1), -1)
    latest[row[seen], column[seen]] = np.flatnonzero(seen)  # the last of several in one row
    np.maximum.accumulate(latest, axis=0, out=latest)
    age = (panel.timestamps + offset)[:, None] - known[latest]
    stands = (latest >= 0) & (age <= oldest)
    values = np.where(stands, kept["value"].to_numpy()[latest], np.nan)
    return np.where(np.isnan(values[:, :n]), values[:, n:], values[:, :n])
