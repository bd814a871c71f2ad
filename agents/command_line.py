"""Command lines: whatever goes wrong ends in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from portfolio_env.errors import PortfolioError
from portfolio_env.names import printable

_LONGEST = 2000  # characters of a line
_ALLOCATOR = ("allocate", "out of memory", "Storage size calculation overflowed")


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Within it an error ends the program with one line on stderr and the status 1.

    Errors in the program itself keep their traceback; a lack of memory is none, whichever library
    says so: Python and NumPy raise ``MemoryError``, torch a ``RuntimeError`` of its allocator.
    """
    try:
        yield
    except (PortfolioError, OSError) as error:
        sys.exit(f"error: {_line(error)}")
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(text in str(error) for text in _ALLOCATOR):
            raise
        sys.exit(
            f"error: there is not enough memory ({_line(error)}); give fewer lanes or bars, a "
            "shorter window or a smaller network"
        )


def _line(error: Exception) -> str:
    text = str(error) if isinstance(error, PortfolioError) else str(error).partition("\n")[0]
    shown = printable(text)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
