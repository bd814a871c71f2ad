"""The commands of ``sweep.py``."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from agents.settings.data import json_object
from agents.settings.files import read_settings, settings_of
from agents.training.config import TrainConfig
from portfolio_env.checks import check_fields, check_integer, check_number, shortened
from portfolio_env.errors import ArgumentError

if TYPE_CHECKING:
    from agents.sweep.plan import SweepPlan

Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SWEEP")]


@dataclass(frozen=True)
class SweepOptions:
    """Plan of a sweep: its settings, folds and seeds, and any option of ``train.py``."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]  # without default: --help needs no torch
    grid: str | None = None
    """Values by setting as JSON, of which all combinations are trained, e.g. '{"adjustment": [0.1,
    1], "encoder": ["mlp", "gat"]}'."""
    settings: str | None = None
    """Further settings by name as JSON, each with the options that differ, e.g. '{"wide":
    {"encoder": "mlp", "encoder_options": {"hidden": 64}}}'."""
    folds: int = 1
    """Folds of the walk forward of every setting; 1 takes the ranges as they are."""
    seeds: str | None = None
    """Comma-separated seeds of the runs of every fold; default that of --seed."""
    rolling: bool = False
    """Train every fold on as many bars as the first, instead of on all of the past."""

    def __post_init__(self) -> None:
        """Check the types, which a file may get wrong."""
        check_fields(self)

    def plan(self) -> SweepPlan:
        """Return the plan.

        Raises:
            ArgumentError: If an option is wrong.
        """
        from agents.sweep.plan import SweepPlan, seeds_of
        from agents.sweep.settings import grid

        if self.config.out is not None:
            raise ArgumentError(
                "--out is for one run; the folder of a sweep comes after the command"
            )
        values = _given("grid", self.grid, '{"adjustment": [0.1, 1]}')
        named = _given("settings", self.settings, '{"slow": {"adjustment": 0.1}}')
        for name, options in named.items():
            if not isinstance(options, dict):
                raise ArgumentError(
                    f"setting {name!r} is {shortened(options)}; give an object of options"
                )
        combined = grid(values) if values else {}
        if twice := named.keys() & combined.keys():
            raise ArgumentError(f"setting {min(twice)!r} is in the grid already; rename it")
        settings = {**combined, **named} or {"base": {}}
        return SweepPlan(
            replace(self.config, seed=0),
            settings,
            check_integer("folds", self.folds),
            seeds_of(self.seeds) or (self.config.seed,),
            self.rolling,
        )


def _given(name: str, text: str | None, example: str) -> dict[str, Any]:
    """Return the object of an option as JSON, which is not empty; {} without the option."""
    found = {} if text is None else json_object(name, text, example)
    if text is not None and not found:
        raise ArgumentError(
            f"{name}={text} must hold at least one setting, e.g. '{example}'; leave it out to "
            "train the other options as they are."
        )
    return found


@dataclass(frozen=True)
class Run:
    """Train the cells of a sweep; a folder that holds one is continued."""

    folder: Folder
    """Folder of the sweep."""
    options: Annotated[SweepOptions, tyro.conf.arg(name="")]
    file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """YAML or JSON file of the plan; the command line has priority."""
    workers: int = 0
    """Processes that train at the same time; 0 is one for each core. They share a GPU:
    where it is small, give 1."""
    executor: Literal["local", "ray", "postgres"] = "local"
    """Where the cells are trained: local, by processes of this machine; ray, by a cluster whose
    nodes share the folder; postgres, by this process and by others that share a server only."""
    address: str | None = None
    """Address of the cluster, e.g. auto (default: one on this machine), or of the server, e.g.
    postgresql://user@host/database."""
    plan_only: bool = False
    """Write the plan alone, for workers that are started elsewhere."""

    def run(self) -> int:
        """Write the plan, train, print the summary; 1 if a cell has failed."""
        from agents.sweep.plan import FILE, create_sweep

        check_integer("workers", self.workers, 0)
        if self.executor != "local" and self.workers:
            raise ArgumentError(f"--workers is for --executor local, not for {self.executor}")
        if (self.address is None) is (self.executor == "postgres") and self.executor != "ray":
            raise ArgumentError("--executor postgres needs an --address, and local takes none")
        if self.options != SweepOptions(TrainConfig()) or not (self.folder / FILE).exists():
            create_sweep(self.folder, self.options.plan())
        if not self.plan_only:
            self._train()
        return tell(self.folder)

    def _train(self) -> None:
        if self.executor == "ray":
            from agents.sweep.ray_cluster import run_on_ray

            run_on_ray(self.folder, self.address, progress_bar=True)
        elif self.address is not None:
            from agents.sweep.postgres import run_on_server

            run_on_server(self.folder, self.address)
        else:
            from agents.sweep.workers import run_cells

            run_cells(self.folder, self.workers, progress_bar=True)


@dataclass(frozen=True)
class Work:
    """Train cells of a sweep in one process, beside others on any machine."""

    folder: Folder
    """Folder of the sweep, on a disk that all machines share."""
    wait: float = 0.0
    """Seconds to wait for new cells once none is left."""
    address: str | None = None
    """Address of a PostgreSQL server, for a folder of this machine alone."""

    def run(self) -> int:
        """Work until no cell is left; 1 if one has failed."""
        from agents.sweep.queue import check_root
        from agents.sweep.workers import failures, work

        check_number("wait", self.wait, 0)
        if self.address is not None:
            from agents.sweep.postgres import work_on_server

            work_on_server(self.folder, self.address)
        else:
            check_root(self.folder)
            work(self.folder, wait=self.wait)
        return 1 if failures(self.folder) else 0


@dataclass(frozen=True)
class Status:
    """Show how far a sweep is, and what its settings reached on validation."""

    folder: Folder
    """Folder of the sweep."""

    def run(self) -> int:
        """Print the counts, the failures and the summary; 1 if a cell has failed."""
        return tell(self.folder)


@dataclass(frozen=True)
class Retry:
    """Let the cells of a sweep that failed be tried again by the next run."""

    folder: Folder
    """Folder of the sweep."""
    address: str | None = None
    """Address of the PostgreSQL server that the sweep is on."""

    def run(self) -> int:
        """Forget the failures."""
        from agents.sweep.queue import retry

        if self.address is not None:
            from agents.sweep.postgres import Server

            found = Server(self.folder, self.address).retry()
        else:
            found = len(retry(self.folder))
        if found:
            cells = f"{found} cell{'s' * (found > 1)}"
            print(f"{cells} will be tried again: python sweep.py run {self.folder}")
        else:
            print("No cell has failed, so there is nothing to try again.")
        return 0


def tell(root: Path) -> int:
    """Print how far a sweep is, its failures and its summary; return 1 if a cell has failed."""
    from agents.sweep.plan import cells
    from agents.sweep.queue import state
    from agents.sweep.summary import cell_results, summarise, summary_text, write_summary
    from agents.sweep.workers import failures
    from portfolio_env.evaluation.printing import say

    wanted = cells(root)
    counts = Counter(state(root, cell) for cell in wanted)
    told = ", ".join(f"{counts[name]} {name}" for name in ("done", "running", "open", "failed"))
    say(f"{root}: {len(wanted)} cells, {told}")
    failed = failures(root)
    for cell, error in failed.items():
        say(f"failed: {cell}: {error}", indent="  ")
    if failed:
        print(f"Once the cause is fixed: python sweep.py retry {root}")
    table = summarise(cell_results(root))
    for line in summary_text(root, table).splitlines():
        say(line)
    if counts["done"] == len(wanted):
        own = shlex.quote(str(root / table.index[0]))  # the best
        print(f"Next: python evaluate.py {own}, or another setting")
    write_summary(root)  # last: a full disk or a folder of others leaves the words above
    return 1 if failed else 0


def read_plan_file(file: Path) -> SweepOptions:
    """Return the plan that a YAML or JSON file holds: options of training and of the sweep."""
    given = read_settings(file)
    for name in ("grid", "settings"):
        if name in given and given[name] is None:
            raise ArgumentError(f"{file}: {name} is empty; give values or leave it out")
    return settings_of(SweepOptions, given, file, beside="config")
