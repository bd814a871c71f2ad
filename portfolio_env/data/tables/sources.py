"""Tables from whatever people keep prices in: files, folders, frames, and several of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from portfolio_env.data.tables.fields import DATE, SYMBOL, is_no_asset
from portfolio_env.data.tables.files import read_table
from portfolio_env.data.tables.origin import Origin
from portfolio_env.data.tables.shapes import Table, long_form, names_itself, table_of
from portfolio_env.errors import ArgumentError, DataError

LongTable = tuple[pd.DataFrame, Origin, Mapping[str, Any]]
"""A table in long form, where its rows come from, and what it says about itself."""

_TEXT_FILES = (".csv", ".csv.gz", ".tsv", ".txt")
_PARQUET = (".parquet", ".pq")


def tables_of(source: Any) -> tuple[list[LongTable], dict[str, Any]]:
    """Return the tables of a source in long form, and what the provenance says about it.

    Args:
        source: See ``portfolio_env.data.bars.read_frame``.

    Raises:
        ArgumentError: If it is none.
        DataError: For unreadable input, with file and fix.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return _folder(path) if path.is_dir() else _file(source)
    if isinstance(source, Mapping):
        if not source:
            raise DataError("the sources: there are none; give {'NAME': frame or path}")
        _refuse_fields([str(name) for name in source], "the sources")
        parts = [_named(str(name).strip(), own) for name, own in source.items()]
        return _several(parts, "frames")
    if isinstance(source, list | tuple):
        if not source:
            raise DataError("the sources: there are none; give a list of paths or frames")
        parts = [
            _of_file(own) if isinstance(own, str | os.PathLike) else _of_frame(own, f"frame {k}")
            for k, own in enumerate(source, 1)
        ]
        return _several(parts, ", ".join(dict.fromkeys(part[1].name for part in parts)))
    return [_of_frame(source, "the frame")], {"source": "frame"}


def as_frame(source: Any) -> pd.DataFrame | None:
    """Return a frame of pandas, from one, a series, or a table of another library through Arrow.

    Returns:
        None if it is none of them.
    """
    if isinstance(source, pd.DataFrame):
        return source
    if isinstance(source, pd.Series):
        name = "close" if isinstance(source.index, pd.MultiIndex) else source.name
        return source.to_frame("close" if name is None else name)
    if hasattr(source, "__arrow_c_stream__"):  # polars, pyarrow, duckdb, ...
        try:
            import pyarrow
        except ImportError as error:
            raise DataError(
                "frames of other libraries need pyarrow; pip install pyarrow"
            ) from error
        frame: pd.DataFrame = pyarrow.table(source).to_pandas()
        return frame
    native = getattr(source, "to_native", None)  # narwhals
    return None if native is None else as_frame(native())


def _of_frame(source: Any, name: str) -> LongTable:
    frame, origin = as_frame(source), Origin(name)
    if frame is None:
        raise ArgumentError(f"{type(source).__name__} is no table of bars: give a frame or a path")
    return *long_form(table_of(frame, origin)), {}


def _of_file(path: str | os.PathLike[str], *, of_many: bool = True) -> LongTable:
    """Return the table of a file, which is named after its asset where its rows are not.

    A file alone must call its close so: what is one of several files of one asset each need not.
    """
    frame, origin, about = read_table(path)
    table = table_of(frame, origin)
    name = None
    if table.shape == "one" and (of_many or names_itself(table)):
        name = about.get("symbol", _stem(path))
        if not of_many:
            origin.note(f"the asset is called {name} after its file")
    return *long_form(table, name), about


def _file(path: str | os.PathLike[str]) -> tuple[list[LongTable], dict[str, Any]]:
    table = _of_file(path, of_many=False)
    return [table], {"source": table[1].name, "sha256": table[2]["sha256"]}


def _folder(path: Path) -> tuple[list[LongTable], dict[str, Any]]:
    """One file per asset; Parquet files only, where there are any."""
    files = sorted(file for file in path.iterdir() if file.name[0] != "." and not file.is_dir())
    for endings in (_PARQUET, _TEXT_FILES):
        found = [file for file in files if file.name.lower().endswith(endings)]
        if found:
            parts = [_of_file(file) for file in found]
            names = [
                _stem(file)
                for file, (long, _, _) in zip(found, parts, strict=True)
                if (long[SYMBOL] == _stem(file)).all()
            ]
            _refuse_fields(names, os.fspath(path))
            return _several(parts, os.fspath(path))
    raise DataError(
        f"{path}: holds no Parquet files and no CSV files; give a folder of one file per asset, of "
        "a store that of one exchange and timeframe, STORE/NAME/1d"
    )


def _refuse_fields(names: Sequence[str], where: str) -> None:
    """Refuse several sources of which some are called after fields: closes, volumes, ..."""
    fields = [name for name in names if is_no_asset(name)]
    if fields and len(names) > 1:
        raise DataError(
            f"{where}: {fields} are names of fields of bars, not of assets; give one table with "
            "these columns, or call each source after its asset"
        )


def _several(tables: list[LongTable], name: str) -> tuple[list[LongTable], dict[str, Any]]:
    """Tables, and what is to be said about all of them."""
    source: dict[str, Any] = {"source": name}
    sums = [about["sha256"] for _, _, about in tables if "sha256" in about]
    if sums:
        source["sha256"] = hashlib.sha256("".join(sums).encode()).hexdigest()
        source["files"] = len(sums)
    for key in ("exchange", "timeframe"):
        values = _distinct(about.get(key) for _, _, about in tables)
        if len(values) == 1:
            source[key] = values.pop()
    return tables, source


def _distinct(values: Iterable[str | None]) -> set[str]:
    return {value for value in values if value is not None}


def _named(name: str, source: Any) -> LongTable:
    """Return the bars of an asset that has been named."""
    about: Mapping[str, str] = {}
    if isinstance(source, str | os.PathLike):
        frame, origin, about = read_table(source)
    else:
        found = as_frame(source)
        if found is None:
            raise ArgumentError(f"{name} is {type(source).__name__}: give a frame or a path")
        frame, origin = found, Origin(name)
        if isinstance(source, pd.Series):
            frame = frame.set_axis(["close"], axis=1)
    table = table_of(frame, origin)
    if table.shape == "wide":
        values = [column for column in table.frame.columns if column != DATE]
        if len(values) > 1:
            origin.fail(f"has no close of {name}; it has {values}: call one of them close")
        table = Table(table.frame.rename(columns={values[0]: "close"}), "one", origin)
    long, origin = long_form(table, name)
    symbols = long[SYMBOL].dropna().astype(str).str.strip().unique()
    if len(symbols) > 1:
        origin.fail(f"has {len(symbols)} symbols, not {name} alone; give it by itself")
    return long.assign(symbol=name), origin, about


def _stem(path: str | os.PathLike[str]) -> str:
    name = Path(path).name
    for ending in (".gz", *_TEXT_FILES, *_PARQUET):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return name
