"""List, show, pass on, delete and convert runs."""

import os
import signal
import sys
from collections.abc import Sequence

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # no traceback of an import

from portfolio_env.command_line import exit_status, read_arguments

MISSING = "error: the command line needs the extra rl; pip install -e '.[rl]'"
try:
    from agents.store.cli import Command
except ModuleNotFoundError as error:
    if error.name not in ("tyro", "rich"):
        raise
    sys.exit(MISSING)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Arguments; those of the command line if None.

    Returns:
        The exit status: 0, or 1 if something went wrong (2 for a wrong usage).
    """

    def work() -> int:
        own = {"prog": "python -m agents.store", "description": __doc__, "args": arguments}
        command: Command = read_arguments(Command, **own)
        return command.run()

    try:
        return exit_status(work, stopped="stopped; nothing was left half done")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        sys.exit(MISSING)


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
