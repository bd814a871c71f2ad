"""The bound on what a compressed file may grow to when it is read."""

from __future__ import annotations

import gzip
import io
import zlib

FACTOR = 100
"""How many times its size a file may grow to, beyond the first 64 MiB."""

_MORE = 1 << 26


def most_bytes(size: int) -> int:
    """Return the number of bytes that a file of ``size`` bytes may grow to when it is read.

    >>> most_bytes(2_000_000)
    267108864
    """
    return FACTOR * size + _MORE


def unpacked(raw: bytes) -> bytes:
    """Return what gzip has packed, or the content itself if it has not.

    Raises:
        ValueError: If the content is damaged or cut, or would grow beyond ``most_bytes``.
    """
    if raw[:2] != b"\x1f\x8b":
        return raw
    most = most_bytes(len(raw))
    try:
        with gzip.open(io.BytesIO(raw)) as file:
            content = file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"its gzip content is damaged: {error}") from error
    if len(content) > most:
        raise ValueError(
            f"it unpacks to more than {FACTOR} times its size; unpack it yourself if it is right"
        )
    return content
