"""Train many settings, folds and seeds at once, on one machine or on several.

python sweep.py run runs/first --seeds 0,1 --grid '{"adjustment": [0.1, 1]}'

python sweep.py run runs/first --config sweep.yaml --workers 2

python sweep.py work runs/first

python sweep.py status runs/first

python sweep.py search space.yaml --trials 20 --market sp500 --out runs/search
"""

import logging
import os
import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # no traceback of an import

from agents.sweep.processes import begin

if __name__ == "__main__":
    begin(sys.argv[1:])  # first, as it takes as long as the following imports

try:
    import tyro
except ModuleNotFoundError:
    sys.exit("error: the command line needs the extra rl; pip install -e '.[rl]'")

from agents.search.commands import Search, read_search_file
from agents.search.options import SearchOptions
from agents.settings.files import file_of
from agents.sweep.commands import Retry, Run, Status, Work, read_plan_file
from portfolio_env.command_line import exit_status, find_own_modules, read_arguments

Command = Run | Work | Status | Retry | Search


def main() -> int:
    """Run the command line; returns the exit status."""
    find_own_modules()

    def work() -> int:
        file = file_of(sys.argv[1:])
        default = tyro.MISSING_NONPROP
        if file is not None:
            default = (
                Search(tyro.MISSING, SearchOptions(), read_search_file(file))
                if sys.argv[1:2] == ["search"]
                else Run(tyro.MISSING, read_plan_file(file))
            )
        command = read_arguments(Command, description=__doc__, default=default)
        logging.basicConfig(format="%(message)s")
        return command.run()

    return exit_status(work, stopped="stopped; the same command goes on")


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
