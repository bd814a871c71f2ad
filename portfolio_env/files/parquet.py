"""Parquet files with checksums of every page and of the content.

Parquet's own checksums keep damaged pages from the decoder; names, types and numbers of rows stand
elsewhere in a file. So its metadata hold a SHA-256 of what is read from it in the end. Files that
have neither, of other programs, are read as well.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pandas as pd

from portfolio_env.errors import DataError
from portfolio_env.files.atomic import regular, replacing
from portfolio_env.files.unpacking import FACTOR, most_bytes

if TYPE_CHECKING:
    import pyarrow as pa

CHECKSUM = b"sha256"
"""The key of the checksum in a file's metadata."""


def write_parquet(path: str | Path, table: pa.Table | pd.DataFrame) -> None:
    """Write a table with its checksums, whole or not at all.

    Args:
        path: The file.
        table: Arrow table, or a frame, whose index is left out.

    Raises:
        DataError: If the system refuses to write, or pyarrow is not installed.
    """
    arrow, parquet = _pyarrow()
    if isinstance(table, pd.DataFrame):
        table = arrow.Table.from_pandas(table, preserve_index=False)
    metadata = {**(table.schema.metadata or {}), CHECKSUM: digest(table).encode()}
    table = table.replace_schema_metadata(metadata)
    with replacing(path) as beside:
        parquet.write_table(table, beside, write_page_checksum=True)


def read_parquet(
    source: str | os.PathLike[str] | BinaryIO,
    name: str | None = None,
    *,
    fix: str = "write it again",
) -> pa.Table:
    """Read a table, and check what ``write_parquet`` wrote.

    Args:
        source: The file, or its content.
        name: Name of the file in errors; the source by default.
        fix: Fix that errors suggest.

    Returns:
        The table; its metadata are without the checksum.

    Raises:
        DataError: If there is no such table, it is not what was written, or a small file holds
            more than fits into memory (``portfolio_env.files.unpacking``).
    """
    arrow, parquet = _pyarrow()
    name = str(source) if name is None else name
    try:
        content: Any = source if hasattr(source, "read") else os.fspath(regular(source))
        _refuse_beyond(most_bytes(_size(content)), content, name)
        table = parquet.read_table(content, partitioning=None, page_checksum_verification=True)
        metadata = dict(table.schema.metadata or {})
        checksum = metadata.pop(CHECKSUM, None)
        table = table.replace_schema_metadata(metadata)
        written = checksum is None or checksum == digest(table).encode()
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(
            f"{name} takes more memory than there is ({error}); read a part of it, or {fix} if it "
            "is damaged"
        ) from error
    except (
        OSError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError,
        arrow.ArrowException,
    ) as error:  # fmt: skip
        reason = str(error).partition("\n")[0][:200]
        raise DataError(f"{name} is not a readable Parquet file ({reason}); {fix}") from error
    if not written:
        raise DataError(f"{name} is damaged: its checksum does not fit; {fix}")
    return table


def _size(source: str | BinaryIO) -> int:
    """Return the number of bytes of a file, or of its content."""
    if isinstance(source, str):
        return os.stat(source).st_size
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    return size


def _refuse_beyond(most: int, source: str | BinaryIO, name: str) -> None:
    """Refuse a file whose values take more than so many bytes, without decoding them.

    Any number of equal values takes a few bytes of a file. The metadata say how many values there
    are; each counts as 8 bytes or more, and a text as all different ones of its column together.
    Where these are too long, texts are decoded to their place among the different ones instead.

    Raises:
        DataError: If they take more.
    """
    _, parquet = _pyarrow()
    with parquet.ParquetFile(source) as file:
        names, metadata = file.schema_arrow.names, file.metadata
        leaves = [file.schema.column(at) for at in range(metadata.num_columns)]
        groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
    others = 0
    texts: dict[str, int] = {}
    for at, leaf in enumerate(leaves):
        chunks = [group.column(at) for group in groups]
        others += sum(chunk.num_values for chunk in chunks) * max(leaf.length, 8)
        if leaf.physical_type == "BYTE_ARRAY":
            longest = sum(chunk.num_values * chunk.total_uncompressed_size for chunk in chunks)
            if names.count(leaf.path) == 1:
                texts[leaf.path] = longest
            else:  # in lists or records
                others += longest
    if others <= most < others + sum(texts.values()):
        with parquet.ParquetFile(source, read_dictionary=list(texts)) as file:
            for column in texts:
                texts[column] = sum(map(_length, file.read([column])[column].chunks))
    size = others + sum(texts.values())
    if size > most:
        raise DataError(
            f"{name} unpacks to more than {FACTOR} times its size, to {size:,} bytes; give a part "
            "of it, or write it again uncompressed and without dictionaries if it is right"
        )


def _length(texts: Any) -> int:
    """Return the total length of texts that may stand as indices of different ones."""
    import pyarrow.compute as pc

    if hasattr(texts, "dictionary"):
        return pc.sum(pc.binary_length(texts.dictionary).take(texts.indices)).as_py() or 0
    return int(texts.nbytes)


def digest(table: pa.Table) -> str:
    """Return SHA-256, hexadecimal, of names, types, metadata and values, in any encoding."""
    metadata = sorted((table.schema.metadata or {}).items())
    said = [[key.hex(), value.hex()] for key, value in metadata]
    said += [[field.name, str(field.type)] for field in table.schema]
    state = hashlib.sha256(json.dumps([said, table.num_rows]).encode())
    for column in table.columns:
        for part in _bytes_of(column):
            state.update(part)
    return state.hexdigest()


def _bytes_of(column: Any) -> Iterator[bytes]:
    """Return the bytes of a column: where it is null, and its values elsewhere."""
    import pyarrow as pa

    yield column.is_null().to_numpy().tobytes()
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    if pa.types.is_floating(kind) or pa.types.is_integer(column.type):
        yield column.fill_null(0).to_numpy().tobytes()
    else:
        yield json.dumps(column.to_pylist(), default=str).encode()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError("Parquet needs pyarrow; pip install pyarrow") from error
    return pyarrow, pyarrow.parquet
