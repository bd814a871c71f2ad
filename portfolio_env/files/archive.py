"""Arrays in an ``.npz`` file, the large ones mapped into memory instead of read.

The file is an ordinary one that ``numpy.load`` reads as well; its members are aligned, which lets
them be mapped. Nothing in a file is executed, and nothing in it is believed: what it says about
itself is compared with its size, and its bytes with their checksums (the zip's CRC-32).
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
import numpy.typing as npt

from portfolio_env.errors import DataError
from portfolio_env.files.atomic import regular, replacing
from portfolio_env.files.unpacking import FACTOR, most_bytes

_ALIGNMENT = 64
_LOCAL_HEADER = 30  # bytes before name and extra field (APPNOTE.TXT 4.3.7)
_LARGE = 1 << 30  # members above it need 64-bit sizes
_KINDS = "biufMU"  # kinds of data types: neither objects nor records of them
_NPY_HEADER = 10_000  # bytes of a header at most, as for numpy.load

Bytes = npt.NDArray[np.uint8]


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays to one file, which is complete or absent."""
    with replacing(path) as beside, beside.open("wb") as file, ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            member = ZipInfo(f"{name}.npy")  # dated 1980, so that equal data make equal files
            large = array.nbytes > _LARGE
            header = _LOCAL_HEADER + len(member.filename.encode()) + (20 if large else 0)
            gap = -(file.tell() + header + 4) % _ALIGNMENT
            member.extra = struct.pack("<HH", 0, gap) + bytes(gap)
            with archive.open(member, "w", force_zip64=large) as target:
                np.lib.format.write_array(target, array, allow_pickle=False)


def read_arrays(
    path: Path, mapped: str = "", *, verify: bool = True
) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of a file; the one called ``mapped`` is memory-mapped, read-only.

    Args:
        path: The file.
        mapped: The array that is left on disk until it is used; one that is compressed is read.
        verify: Hold its bytes against their checksum too, which reads them all once. Those of the
            others always are.

    Raises:
        DataError: If there is no such file, or it is damaged or holds anything but plain arrays.
    """
    try:
        with regular(path).open("rb") as file, ZipFile(file) as archive:
            whole: Bytes = np.memmap(file, np.uint8, "r")
            arrays: dict[str, npt.NDArray[Any]] = {}
            for name, member in _members(archive, len(whole)).items():
                content, at = _content(archive, member, whole, checked=verify or name != mapped)
                dtype, shape, order, offset = _layout(content)
                if name == mapped and at is not None and 0 not in shape:
                    arrays[name] = np.memmap(file, dtype, "r", at + offset, shape, order)
                else:
                    array = np.ndarray(shape, dtype, content, offset, order=order)
                    arrays[name] = array.copy()
            return arrays
    except (
        OSError, EOFError, ValueError, TypeError, SyntaxError, TokenError, RuntimeError,
        MemoryError, BadZipFile, zlib.error, struct.error,
    ) as error:  # fmt: skip
        reason = str(error) or type(error).__name__
        raise DataError(f"{path} is damaged or no file of arrays ({reason})") from error


def _members(archive: ZipFile, size: int) -> dict[str, ZipInfo]:
    """Return the members by the names of their arrays, after checks of their headers."""
    members: dict[str, ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name in members or name == member.filename:
            raise ValueError(f"the member {member.filename[:40]!r} is not an array, or there twice")
        # One bit in the length of a comment would hide the members that follow.
        if member.comment or member.flag_bits & 0x61:  # encrypted or patched
            raise ValueError(f"the member {name[:40]!r} is not as numpy writes it")
        if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise ValueError(f"the member {name[:40]!r} is compressed in an unknown way")
        members[name] = member
    if sum(member.file_size for member in members.values()) > most_bytes(size):
        raise ValueError(f"its members are more than {FACTOR} times as large as the file")
    return members


def _content(
    archive: ZipFile, member: ZipInfo, whole: Bytes, checked: bool
) -> tuple[Bytes, int | None]:
    """Return the bytes of a member, and where they lie in the file if they are not compressed."""
    with archive.open(member) as packed:  # which compares the names in both of its headers
        if member.compress_type == ZIP_DEFLATED:
            return np.frombuffer(packed.read(), np.uint8), None  # checks length and checksum
    start = member.header_offset
    lengths = struct.unpack("<HH", whole[start + 26 : start + _LOCAL_HEADER].tobytes())
    start += _LOCAL_HEADER + sum(lengths)
    if start + member.file_size > len(whole) or member.file_size != member.compress_size:
        raise ValueError(f"the member {member.filename!r} ends beyond the file")
    content = whole[start : start + member.file_size]
    if checked and zlib.crc32(content.data) != member.CRC:
        raise ValueError(f"the checksum of {member.filename!r} does not fit its content")
    return content, start


def _layout(
    content: Bytes,
) -> tuple[np.dtype[Any], tuple[int, ...], Literal["F", "C"], int]:
    """Return type, shape, order and offset of the array that fills these bytes to the last one."""
    file = io.BytesIO(content[: _NPY_HEADER + 12].tobytes())
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"it has an array of version {version}")
    if dtype.hasobject or dtype.kind not in _KINDS:
        raise ValueError(f"{str(dtype)[:40]} is not a type of plain numbers or texts")
    size = content.nbytes - file.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"an array of shape {shape} and {dtype} takes not {size} bytes")
    return dtype, shape, "F" if fortran else "C", file.tell()
