"""Errors of this package; each message names the value, the bound and the fix."""

import errno
import traceback
from pathlib import Path


class PortfolioError(ValueError):
    """Base class of every error this package raises on purpose."""


class ArgumentError(PortfolioError):
    """An argument (a keyword, an action, an option) lies outside what the function accepts."""


class DataError(PortfolioError):
    """Market data that cannot be used; the message names file, row and fix."""


class BusyError(DataError):
    """Another process holds the lock of what was asked for."""


class ConservationError(PortfolioError):
    """A trade lost or made money: a fault of this package or its compiler, never of the input."""


MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What reading content of another shape or kind than expected raises: of a file that was edited."""


def out_of_space(error: BaseException | None) -> bool:
    """Return whether an error, or one that it was raised from, is of a full disk or quota."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def raised(error: Exception) -> str:
    """Return the type, text, file and line of an error in a user's own code, for a message.

    The place is where the user's code stood, not the library that it called.
    """
    calls = traceback.extract_tb(error.__traceback__)[1:]  # the first is the caller's own
    own = [call for call in calls if "site-packages" not in call.filename] or calls
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{place}"
