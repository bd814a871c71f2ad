"""Train a model that forecasts, and judge it: ``python -m agents.supervised --market prices.csv``.

It writes a run folder with the model, its scores against the base rate, figures and a card.
"""

import logging
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # no traceback of an import

try:
    import tyro
except ModuleNotFoundError:
    sys.exit("error: the command line needs the extra rl; pip install -e '.[rl]'")

from agents.supervised.config import SupervisedConfig
from portfolio_env.command_line import (
    exit_status,
    find_own_modules,
    read_arguments,
    refuse_beside_resume,
)
from portfolio_env.files.atomic import read_json


@dataclass(frozen=True)
class Command:
    """Train a model that forecasts; a run folder takes it, its scores and figures."""

    config: Annotated[SupervisedConfig, tyro.conf.arg(name="")]
    resume: Path | None = None
    """Run folder to continue from its last epoch, with the settings it was started with."""


def main() -> int:
    """Run the command line; returns the exit status."""
    find_own_modules()

    def work() -> None:
        refuse_beside_resume()
        command = read_arguments(Command, prog="python -m agents.supervised")
        from agents.supervised.cards import summary  # loads torch, which --help does not need
        from agents.supervised.run import resume, train
        from agents.training.run_records import CARD

        logging.basicConfig(format="%(message)s")
        logging.getLogger("agents").setLevel(logging.INFO)
        if command.resume is None:
            path = train(command.config, progress_bar=True)
        else:
            path = resume(command.resume, progress_bar=True)
        print(summary(read_json(path / CARD), path))

    return exit_status(work, stopped="stopped; continue with --resume and the run folder")


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
