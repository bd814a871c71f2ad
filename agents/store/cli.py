"""The commands of ``python -m agents.store``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import tyro
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from portfolio_env.errors import DataError, PortfolioError
from portfolio_env.files.removal import refuse_links
from portfolio_env.files.safe_names import printable

# What loads torch is imported where a command runs, so that --help answers at once.
if TYPE_CHECKING:
    from agents.training.run_records import Record

_WIDE = 110  # columns of a terminal that has room for the folders' names
Run = Annotated[str, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")]
File = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]


@dataclass(frozen=True)
class List:
    """List the runs of a store, the oldest first."""

    runs: Path = Path("runs")
    """The folder of runs."""
    algo: str | None = None
    """Only those of this algorithm."""
    market: str | None = None
    """Only those of this market."""

    def run(self) -> int:
        """Print a table, and the folders that cannot be read."""
        from agents.training.run_records import read_records

        records, problems = read_records(self.runs)
        shown = [
            record
            for record in records
            if self.algo in (None, record.algo) and self.market in (None, record.market)
        ]
        if shown:
            _print_table(shown)
        else:
            print(f"no runs in {self.runs}" + (" are like that" if records else ""))
        for problem in problems:
            print(f"error: {printable(problem)}", file=sys.stderr)
        return 1 if problems else 0


@dataclass(frozen=True)
class Show:
    """Show all about a run: its card, and its files with their checksums verified."""

    name: Run
    """Its folder, the folder's name, or the beginning of its id."""
    runs: Path = Path("runs")
    """The folder of runs."""
    verify: bool = False
    """Load its market and its models too."""

    def run(self) -> int:
        """Print the card and the files; 1 if something is damaged."""
        from agents.training.cards import make_card, markdown
        from agents.training.run_records import find, member_runs, refuse_old

        path = find(self.name, self.runs)
        refuse_old(path)
        Console().print(Markdown(markdown(make_card(path)), hyperlinks=False))
        problems = _print_files(path)
        if self.verify and not problems:
            for folder in member_runs(path) or [path]:
                problems += _load(folder)
        for problem in problems:
            print(f"error: {printable(problem)}", file=sys.stderr)
        return 1 if problems else 0


@dataclass(frozen=True)
class Card:
    """Rewrite the card of a run, with backtests on its validation range."""

    name: Run
    """Its folder, the folder's name, or the beginning of its id."""
    runs: Path = Path("runs")
    """The folder of runs."""

    def run(self) -> int:
        """Write card.json and card.md."""
        from agents.training.cards import TEXT, renew_card
        from agents.training.run_records import find, refuse_old

        path = find(self.name, self.runs)
        refuse_old(path)
        renew_card(path)
        print(path / TEXT)
        return 0


@dataclass(frozen=True)
class Export:
    """Write a run to one file that import reads."""

    name: Run
    """Its folder, the folder's name, or the beginning of its id."""
    file: File
    """The archive, e.g. ppo.zip."""
    runs: Path = Path("runs")
    """The folder of runs."""
    tensorboard: bool = False
    """With the events of TensorBoard."""

    def run(self) -> int:
        """Write the archive."""
        from agents.store.archives import export_run
        from agents.training.run_records import find, read_record

        path = find(self.name, self.runs)
        count = export_run(path, self.file, events=self.tensorboard)
        size = self.file.stat().st_size
        print(f"{self.file}: {count} files of {path}, {_bytes(size)}")
        if not read_record(path).state.startswith("finished"):
            print("it is not finished: the archive holds its last checkpoint, to be resumed")
        return 0


@dataclass(frozen=True)
class Import:
    """Take a run from a file that export wrote; nothing in it is executed."""

    file: File
    """The archive."""
    runs: Path = Path("runs")
    """The folder of runs."""
    name: str | None = None
    """Name of the new folder; the old one by default."""

    def run(self) -> int:
        """Check the archive and import it."""
        from agents.store.archives import import_run

        print(import_run(self.file, self.runs, name=self.name))
        return 0


@dataclass(frozen=True)
class Delete:
    """Delete a run of a store permanently."""

    name: Run
    """Its folder, the folder's name, or the beginning of its id."""
    runs: Path = Path("runs")
    """The folder of runs, outside of which nothing is deleted."""
    yes: bool = False
    """Do not ask."""

    def run(self) -> int:
        """Ask for confirmation, and delete."""
        from agents.store.changes import delete, refuse_foreign
        from agents.training.run_records import find

        path = find(self.name, self.runs)
        refuse_foreign(path, self.runs)
        if not self.yes and not _agreed(f"delete {path} for good? [y/N] "):
            print("nothing is deleted")
            return 1
        delete(path, self.runs)
        print(f"deleted {path}")
        return 0


@dataclass(frozen=True)
class Convert:
    """Convert a run of the old format, whose files could run code."""

    name: Run
    """Its folder, or the folder's name."""
    runs: Path = Path("runs")
    """The folder of runs."""
    trust: bool = False
    """Also load the old files with Stable-Baselines3, which runs any code that their author has put
    there, and compare what both models do."""

    def run(self) -> int:
        """Convert, and print what was done."""
        from agents.store.conversion import convert
        from agents.training.run_records import find

        for line in convert(find(self.name, self.runs), trust=self.trust):
            print(printable(line))
        return 0


Command: TypeAlias = List | Show | Card | Export | Import | Delete | Convert


def _print_table(records: list[Record]) -> None:
    from agents.training.card_texts import percent

    console = Console()
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("id", "algo", "market", "seed", "started", "state"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", min_width=4)
    for name in ("excess", "uses"):
        table.add_column(name, no_wrap=True, justify="right")
    if console.width >= _WIDE:
        table.add_column("folder", no_wrap=True, overflow="ellipsis")
    for record in records:
        excess = "" if record.excess is None else percent(record.excess)
        state = f"{record.state}, {len(record.runs)} runs" if record.runs else record.state
        cells = [record.id[:8] or record.path.name[:20], record.algo, record.market,
                 ",".join(map(str, record.seeds)), record.started[:16].replace("T", " "),
                 state, excess, str(record.uses)]  # fmt: skip
        folder = [record.path.name] if console.width >= _WIDE else []
        table.add_row(*(Text(printable(cell)) if cell else "" for cell in (*cells, *folder)))
    console.print(table)
    print("excess: validation growth above equal weight, % a year; uses: of the test range")


def _print_files(path: Path) -> list[str]:
    """Print every file of a run with its size; return the problems found in them."""
    from agents.store.content import check_file, run_files

    problems, total = [], 0
    try:
        refuse_links(path)
    except DataError as error:
        problems.append(str(error))
    print(f"Files of {path.name}:")
    for file in run_files(path, events=True):
        size = file.stat().st_size
        total += size
        try:
            check_file(file)
            status = "ok"
        except DataError as error:
            problems.append(str(error))
            status = "DAMAGED"
        print(f"  {printable(file.relative_to(path).as_posix()):<48} {_bytes(size):>10}  {status}")
    print(f"  {'together':<48} {_bytes(total):>10}")
    return problems


def _load(path: Path) -> list[str]:
    """Load the market and the models of a run; return the problems found in them."""
    from agents.run_market import load_checked_market
    from agents.supervised import config as supervised
    from agents.supervised.model import SupervisedModel
    from agents.tensors import SUFFIX
    from agents.training.run_folder import load_model, read_config
    from agents.training.run_records import MODELS, is_finished, is_supervised

    try:
        if is_supervised(path):
            load_checked_market(path, supervised.read_config(path))
            SupervisedModel.load(path / f"best_model{SUFFIX}", within=path)
            print(f"{path}: the market is the one it was trained on, and its model loads")
            return []
        config = read_config(path)
        market, _ = load_checked_market(path, config)
        for name in MODELS if is_finished(path) else MODELS[-1:]:
            load_model(path, config, market, model=name, device="cpu")
    except PortfolioError as error:
        return [str(error)]
    print(f"{path}: the market is the one it was trained on, and its models load")
    return []


def _agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
