"""Train an agent and write a run folder, e.g. `python train.py --market sp500 --algo ppo`."""

import logging
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from agents.config import TrainConfig
from agents.training import resume, train
from portfolio_env.errors import PortfolioError


@dataclass(frozen=True)
class Command:
    """Train a portfolio agent; everything it needs to be repeated goes into one run folder."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    resume: str | None = None
    """Run folder to continue from its latest checkpoint, with the settings it was started with."""


def main() -> None:
    """Run the command line."""
    command = tyro.cli(Command)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("agents").setLevel(logging.INFO)
    try:
        if command.resume is not None:
            path = resume(command.resume, progress_bar=True)
        else:
            path = train(command.config, progress_bar=True)
    except PortfolioError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; continue with --resume and the run folder")
    print(path)


if __name__ == "__main__":
    main()
