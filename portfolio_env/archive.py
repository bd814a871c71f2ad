"""Arrays in an ``.npz`` file, the large ones mapped into memory instead of read.

The file is an ordinary one that ``numpy.load`` reads as well; its members are aligned, which lets
them be mapped. Nothing in a file is executed.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import numpy.typing as npt

from portfolio_env.files import replacing

_ALIGNMENT = 64
_LOCAL_HEADER = 30  # bytes before name and extra field (APPNOTE.TXT 4.3.7)
_LARGE = 1 << 30  # members above it need 64-bit sizes


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


def read_arrays(path: Path, mapped: str) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of a file, except the one called ``mapped``, which is mapped, read-only.

    Raises:
        OSError, ValueError, KeyError, zipfile.BadZipFile: if the file is damaged or no such file.
    """
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files if name != mapped}
    return arrays | {mapped: _map(path, f"{mapped}.npy")}


def _map(path: Path, name: str) -> npt.NDArray[Any]:
    """One member of the file, as an array in the page cache."""
    with path.open("rb") as file, ZipFile(file) as archive:
        member = archive.getinfo(name)
        if member.compress_type != ZIP_STORED:
            with archive.open(member) as packed:
                return np.asarray(np.lib.format.read_array(packed, allow_pickle=False))
        file.seek(member.header_offset + 26)
        lengths = struct.unpack("<HH", file.read(4))
        file.seek(member.header_offset + _LOCAL_HEADER + sum(lengths))
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        offset = file.tell()
        order: Literal["F", "C"] = "F" if fortran else "C"
    return np.memmap(path, dtype, "r", offset, shape, order)
