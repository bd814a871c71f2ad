"""Print tables that others printed, with the same numbers through this environment beside them.

python -m benchmarks.tables                              # those that need no data
python -m benchmarks.tables --data ../shared             # all whose files are found there
python -m benchmarks.tables dgu2009 --data FILE --bill FILE --column industry
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.tables import dgu2009, hrp2016, online, sood2023
from benchmarks.tables.table import Table
from portfolio_env.errors import ArgumentError, PortfolioError

NEEDED = {
    "dgu2009": "dgu_NAME_monthly.csv.gz and dgu_NAME_rf.csv.gz, or dgu_NAME_excess_monthly.csv.gz",
    "hrp2016": "no files",
    "online": "nyse_o.csv, nyse_n.csv, sp500.csv, djia.csv",
    "sood2023": "sood_sp_sectors_daily.csv.gz",
}
"""What each paper's tables read, in a folder or below it."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", nargs="?", choices=sorted(NEEDED), help="paper; all by default")
    parser.add_argument("--data", type=Path, help="folder of its files, or a file (dgu2009)")
    parser.add_argument("--bill", type=Path, help="monthly returns of the bill (dgu2009)")
    parser.add_argument("--column", help="column of the paper (dgu2009)")
    parser.add_argument("--runs", type=int, default=100, help="of the Monte Carlo (hrp2016)")
    parser.add_argument("--seeds", type=int, default=0, help="agents per test year (sood2023)")
    parser.add_argument("--steps", type=int, default=100_000, help="of their training (sood2023)")
    return parser


def main() -> None:
    """Print the tables of one paper or of all."""
    given = parser().parse_args()
    try:
        show([given.name] if given.name else list(NEEDED), given)
    except PortfolioError as error:
        sys.exit(f"error: {error}")


def show(names: Iterable[str], given: argparse.Namespace) -> None:
    """Print the tables of papers, and which files are missing for others.

    Raises:
        ArgumentError: If there is no such file or folder.
    """
    data: Path | None = given.data
    if data is not None and not data.exists():
        raise ArgumentError(f"--data={data} does not exist: give a folder, or a file for dgu2009.")
    for name in names:
        if name != "hrp2016" and data is None:
            found: list[Table] = []
        else:
            found = list(TABLES[name](data, given))
        for table in found:
            print(table.text(), end="\n\n", flush=True)
        if not found:
            print(f"{name}: skipped, --data has no {NEEDED[name]}", end="\n\n", flush=True)


TABLES: dict[str, Callable[[Path, argparse.Namespace], Iterable[Table]]] = {
    "dgu2009": lambda data, given: dgu2009.tables(data, given.bill, given.column),
    "hrp2016": lambda data, given: hrp2016.tables(given.runs),
    "online": lambda data, given: online.tables(data),
    "sood2023": lambda data, given: sood2023.tables(data, given.seeds, given.steps),
}

if __name__ == "__main__":
    main()
