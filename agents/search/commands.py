"""The command ``sweep.py search``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from agents.search.options import SearchOptions
from agents.settings.files import read_settings, settings_of
from agents.training.config import TrainConfig
from portfolio_env.checks import check_integer


@dataclass(frozen=True)
class Search:
    """Search settings that outgrow equal weight, on data before the test range."""

    space: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SPACE")]
    """YAML or JSON file: options of train.py, each with the values that it may take."""
    options: Annotated[SearchOptions, tyro.conf.arg(name="")]
    config: Annotated[TrainConfig, tyro.conf.arg(name="")]  # without default: --help needs no torch
    """Settings of the runs; ``seed`` is that of the search too, ``out`` its folder."""
    seeds: str | None = None
    """Comma-separated seeds of the runs of every fold; default that of --seed."""
    workers: int = 0
    """Processes that train at the same time; 0 is one for each core."""
    file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """YAML or JSON file of settings of the runs; the command line has priority."""

    def run(self) -> int:
        """Search, print the choice and what to type next."""
        from agents.search.page import write_search_page
        from agents.search.search import search
        from agents.search.space_files import read_space
        from agents.sweep.plan import seeds_of
        from portfolio_env.evaluation.printing import say

        check_integer("workers", self.workers, 0)
        path = search(
            read_space(self.space),
            self.config,
            self.options,
            seeds=seeds_of(self.seeds),
            workers=self.workers,
            progress_bar=True,
        )
        write_search_page(path)
        for line in told(path).splitlines():
            print(line) if "python " in line else say(line)  # commands stay whole
        return 0


def told(path: Path) -> str:
    """Return the choice of a search in words, and the commands that judge it on the test range."""
    from agents.search.page import PAGE
    from agents.search.search import CHOSEN, read_search

    record = read_search(path)
    seeds = ",".join(map(str, record["seeds"]))
    beside = path.with_name(f"{path.name}_chosen")  # where all uses of the test are counted
    file, out = (shlex.quote(str(each)) for each in (path / CHOSEN, beside))
    return "\n".join(
        [
            *record["choice"]["reasons"],
            f"Page: {path / PAGE}",
            f"Next, once: python train.py --config {file} --walk-forward 1 --seeds {seeds} "
            f"--out {out}",
            f"and: python evaluate.py {out} --model {record['model']}",
        ]
    )


def read_search_file(file: Path) -> TrainConfig:
    """Return the settings of the runs that a file holds."""
    return settings_of(TrainConfig, read_settings(file), file)
