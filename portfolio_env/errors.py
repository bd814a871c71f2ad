"""Errors of this package; each message names the value, the bound and the fix."""

import errno
import importlib
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
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


_PACKAGES = ("portfolio_env", "agents", "baselines")
_NOT_THEIRS = (
    *(os.path.join(Path(__file__).parents[1], package, "") for package in _PACKAGES),
    os.path.dirname(importlib.__file__),
    "<frozen",
)


class Terminated(SystemExit):
    """A signal asked the program to end, whichever code was running."""


@contextmanager
def user_code(
    what: str,
    kind: type[PortfolioError] = ArgumentError,
    leave: tuple[type[Exception], ...] = (PortfolioError,),
) -> Iterator[None]:
    """Attribute an error in a user's own code to it; ``sys.exit`` is one too.

    Args:
        what: The name of the code, with which the message begins.
        kind: Class of the error that is raised instead.
        leave: Errors that are passed on as they are.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, (Terminated, *leave)):
            raise
        raise kind(f"{what} raised {raised(error)}") from error


def out_of_space(error: BaseException | None) -> bool:
    """Return whether an error, or one that it was raised from, is of a full disk or quota."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def raised(error: BaseException) -> str:
    """Return the type, text, file and line of an error in a user's own code, for a message.

    The place is where the user's code stood, not the library that it called.
    """
    calls = traceback.extract_tb(error.__traceback__)
    theirs = [call for call in calls if not call.filename.startswith(_NOT_THEIRS)]
    own = [call for call in theirs if "site-packages" not in call.filename] or theirs
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}{text and f': {text}'}{place}"
