"""Download, list, explore and convert market data."""

import signal
import sys
from collections.abc import Sequence

from portfolio_env.command_line import exit_status, read_arguments

try:
    from portfolio_env.data.cli import Command
except ModuleNotFoundError as error:
    if error.name != "tyro":
        raise
    sys.exit("error: the command line needs tyro; pip install tyro tqdm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Arguments; those of the command line if None.

    Returns:
        The exit status: 0, or 1 if something went wrong (2 for a wrong usage).
    """

    def work() -> int:
        own = {"prog": "python -m portfolio_env.data", "description": __doc__, "args": arguments}
        command: Command = read_arguments(Command, **own)
        return command.run()

    return exit_status(work, stopped="stopped; the same command continues")


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
