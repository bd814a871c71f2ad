"""Tables from files: CSV and Parquet, plain and gzip, recognised by their content."""

from __future__ import annotations

import hashlib
import io
import os

import numpy as np
import pandas as pd

from portfolio_env.data.tables.csv_table import read_csv
from portfolio_env.data.tables.origin import Origin
from portfolio_env.errors import MALFORMED
from portfolio_env.files.atomic import regular
from portfolio_env.files.parquet import read_parquet
from portfolio_env.files.unpacking import unpacked


def read_table(path: str | os.PathLike[str]) -> tuple[pd.DataFrame, Origin, dict[str, str]]:
    """One CSV or Parquet file as it is.

    Returns:
        The frame without blank rows at the end (of a CSV file, columns of dates and symbols as
        text); where its rows come from; and its SHA-256 with what else a Parquet file says about
        itself.

    Raises:
        DataError: If there is no such table, or if it has no rows.
    """
    origin = Origin(os.fspath(path))
    try:
        raw = regular(path).read_bytes()
        about = {"sha256": hashlib.sha256(raw).hexdigest()}
        content = unpacked(raw)
    except (OSError, ValueError) as error:
        origin.fail(f"cannot be read ({error}); give a readable CSV or Parquet file")
    for start, kind, fix in _OTHERS:
        if content.startswith(start):
            origin.fail(f"is {kind}; {fix}")
    if content[:4] == b"PAR1":
        frame, said = _read_parquet(content, origin)
        about = said | about
    else:
        frame, first = read_csv(content, origin)
        origin = Origin(origin.name, "line", first, notes=origin.notes, weighty=origin.weighty)
    known = frame if not frame[-1:].notna().any(axis=None) else frame[-1:]
    filled = len(frame) - len(known) + np.flatnonzero(known.notna().to_numpy().any(axis=1))
    if not len(filled) and len(frame.columns):
        origin.fail("holds no rows; give at least one")
    return frame.iloc[: filled[-1] + 1 if len(filled) else 0], origin, about


_OTHERS = (
    (b"PK\x03\x04", "an Excel file or a zip", "save the table as CSV, or give a frame of pandas"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file", "save the table as CSV, or give a frame of pandas"),
    (b"ARROW1", "a Feather or Arrow file", "save the table as Parquet, or give a frame of pandas"),
    ((b"{", b"["), "JSON", "save the table as CSV or Parquet, or give a frame of pandas"),
)
"""First bytes of files that are no tables of this package, and the fix."""


def _read_parquet(content: bytes, origin: Origin) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the table, and what it says about its series."""
    table = read_parquet(io.BytesIO(content), origin.name)
    try:
        frame = table.to_pandas()
    except (*MALFORMED, NotImplementedError) as error:
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
