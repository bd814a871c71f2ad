"""Say what to hold today and what to trade for it, by a trained run or a baseline.

python trade.py RUN today --capital 10000

python trade.py RUN today --data data/binance/1d --update --holdings h.csv

python trade.py --baseline hrp --data prices.csv --capital 10000

Orders are printed and written, not sent. An alert makes the exit status 3.

python trade.py replay RUN --scenario flaky

python trade.py paper RUN --exchange binance --capital 10000 --session paper/one

python trade.py status paper/one

Also verify, export, halt, resume, flatten, reconcile, resolve: see --help.
"""

import os
import signal
import sys
from inspect import getdoc

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # no traceback of an import

try:
    import tyro  # noqa: F401 (its absence is told before others import it)
except ModuleNotFoundError:
    sys.exit("error: the command line needs the extra rl; pip install -e '.[rl]'")

from agents.trading.commands import COMMANDS
from agents.trading.orders_today import ALERT, TradeConfig, trade
from portfolio_env.command_line import exit_status, find_own_modules, read_arguments


def main() -> int:
    """Read the command line, print and write the orders; returns the exit status."""
    find_own_modules()

    def work() -> int:
        if command := COMMANDS.get(sys.argv[1] if sys.argv[1:] else ""):
            own = {"args": sys.argv[2:], "prog": f"{sys.argv[0]} {sys.argv[1]}"}
            status: int = read_arguments(command, description=getdoc(command), **own)()
            return status
        found = trade(read_arguments(TradeConfig, description=__doc__))
        return ALERT if found.alerts else 0

    paper = sys.argv[1:2] == ["paper"]
    stopped = "what was under way is looked up by the same command" if paper else "nothing was sent"
    return exit_status(work, stopped=f"stopped; {stopped}")


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
