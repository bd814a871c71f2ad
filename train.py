"""Train an agent and write a run folder, e.g. `python train.py --market sp500 --algo ppo`."""

import logging
import os
import shlex
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # no traceback of an import

try:
    import tyro
except ModuleNotFoundError:
    sys.exit("error: the command line needs the extra rl; pip install -e '.[rl]'")

from agents.settings.files import file_of, read_settings, settings_of
from agents.training.config import TrainConfig
from portfolio_env.checks import check_integer
from portfolio_env.command_line import (
    BESIDE_RESUME,
    exit_status,
    find_own_modules,
    read_arguments,
    refuse_beside_resume,
)
from portfolio_env.errors import ArgumentError, PortfolioError
from portfolio_env.files.atomic import read_json


@dataclass(frozen=True)
class Command:
    """Train an agent; a run folder takes the models and all that repeats them."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """YAML or JSON file of settings, or the folder of a run to repeat; the command line has
    priority."""
    resume: str | None = None
    """Run folder to continue from its latest checkpoint, with the settings it was started with."""
    walk_forward: int | None = None
    """Cut the test range into so many folds and train one agent for each, on what is before it."""
    seeds: str | None = None
    """Comma-separated seeds of the agents of each fold; default that of --seed."""
    rolling: bool = False
    """Train every fold on as many bars as the first, instead of on all of the past."""
    processes: int = 0
    """Processes that train the runs of a walk forward; 0 is one for each core. The models are the
    same for any. Processes share a GPU: where it is small, give 1."""


def run(command: Command, *, progress_bar: bool = True) -> Path:
    """Run the command; return the folder of the run or of the walk forward."""
    # Not at the top: --help and wrong options are told without waiting for torch.
    from agents.sweep.plan import seeds_of
    from agents.sweep.walk_forward import continue_walk_forward, walk_forward
    from agents.training.train import resume, train
    from agents.training.walk_forward_training import FILE

    processes = check_integer("processes", command.processes, 0)
    if command.resume is not None:
        if replace(command, resume=None, processes=0) != Command(TrainConfig()):
            raise ArgumentError(BESIDE_RESUME)
        continued = Path(command.resume)
        if (continued / FILE).exists():
            return continue_walk_forward(continued, processes=processes, progress_bar=progress_bar)
        return resume(continued, progress_bar=progress_bar)
    if command.walk_forward is not None:
        return walk_forward(
            command.config,
            command.walk_forward,
            seeds=seeds_of(command.seeds),
            rolling=command.rolling,
            processes=processes,
            progress_bar=progress_bar,
        )
    if command.seeds is not None or command.rolling:
        raise ArgumentError("--seeds and --rolling are of a walk forward; add --walk-forward K")
    return train(command.config, progress_bar=progress_bar)


def summary(path: Path) -> str:
    """Return the summary of a training: validation, where the models are, what to type next.

    Args:
        path: Folder of a run or of a walk forward.
    """
    from agents.tensors import SUFFIX
    from agents.training.run_records import CARD

    card = read_json(path / CARD)
    models = card["validation"]["models"]
    figures = []
    for name, numbers in models.items():
        excess = numbers.get("excess_growth")
        growth = "ruined" if excess is None else f"{round(100 * excess, 1) + 0.0:+.1f} % a year"
        figures.append(f"{name} model {growth}")
    lines = [f"Folder: {path}"]
    if figures:
        lines.append(f"Validation, growth above equal weight after costs: {', '.join(figures)}")
    if card["kind"] == "run":
        lines.append(f"Best model: {path / f'best_model{SUFFIX}'}")
    baselines = "equal_weight,mean_variance,hrp"
    lines.append(f"Next: python evaluate.py {shlex.quote(str(path))} --baselines {baselines}")
    lines.append("That judges the final model; --model best takes the best one by validation.")
    return "\n".join(lines)


def _defaults(file: Path) -> TrainConfig:
    """Return the settings of a file, or those of a run but for its folder."""
    from agents.training.run_folder import read_config

    folder = file if file.is_dir() else file.parent
    if file.is_dir() or file == folder / "config.json":
        return replace(read_config(folder), out=None)
    return settings_of(TrainConfig, read_settings(file), file)


def _of_algorithm(arguments: list[str]) -> str | None:
    """Return where options of algorithms go, if one stands among the arguments itself."""
    from agents.direct.training import DirectOptions
    from agents.sb3.classes import ALGORITHMS, algorithm_class, parameters_of

    known = {field.name for field in fields(DirectOptions)} | {"net_arch"}
    for algo in ALGORITHMS:
        with suppress(PortfolioError):  # of an extra that is not installed
            known |= parameters_of(algorithm_class(algo))
    own = {field.name for kind in (Command, TrainConfig) for field in fields(kind)}
    for at, argument in enumerate(arguments):
        name, _, value = argument.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if argument.startswith("--") and name in known - own:
            value = value or next(iter(arguments[at + 1 :]), "...")
            return f"{name} is of the algorithm: --algo-options '{{\"{name}\": {value}}}'"
    return None


def main() -> int:
    """Run the command line; returns the exit status."""
    find_own_modules()

    def work() -> None:
        refuse_beside_resume("processes")
        file = file_of(sys.argv[1:])
        default = tyro.MISSING_NONPROP if file is None else Command(_defaults(file))
        try:
            command = read_arguments(Command, default=default)
        except SystemExit as stop:
            if stop.code and (hint := _of_algorithm(sys.argv[1:])):
                print(hint, file=sys.stderr)
            raise
        logging.basicConfig(format="%(message)s")
        for name in ("agents", "portfolio_env.features"):
            logging.getLogger(name).setLevel(logging.INFO)
        print(summary(run(command)))

    return exit_status(work, stopped="stopped; continue with --resume and the run folder")


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
