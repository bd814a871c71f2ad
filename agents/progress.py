"""Progress on the terminal: a bar for every stage, and a word on a training that takes hours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

HOUR = 3600.0  # seconds; a training that takes longer says so
MEASURED = 2.0  # seconds that an estimate is made from, at least
_LOGGER = logging.getLogger(__name__)


@contextmanager
def bar(
    name: str, total: int, done: int = 0, *, shown: bool = True
) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr while the block runs.

    Args:
        name: Text before it.
        total: Steps to do, in any unit.
        done: Steps that were done before.
        shown: False shows nothing.

    Yields:
        A function that takes what is done so far.
    """
    if not shown:
        yield lambda now: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=total, completed=done)
        yield lambda now: progress.update(task, completed=min(now, total))


class Outlook:
    """Report once how long a training will take, if that is more than an hour.

    It is measured on the first updates: the time of one, times those that are left.

    Args:
        name: Name of the training.
        total: Steps to do, in any unit.
        ways: Ways to make it shorter.
    """

    def __init__(self, name: str, total: int, ways: Sequence[str]) -> None:
        self.name, self.total, self.ways = name, total, ways
        self._begun: tuple[float, int] | None = None
        self._over = False

    def look(self, done: int) -> None:
        """Record the present step; between two calls are whole updates."""
        if self._over:
            return
        if self._begun is None:  # what came before has compiled and warmed up
            self._begun = perf_counter(), done
            return
        seconds = perf_counter() - self._begun[0]
        if seconds < MEASURED:
            return
        self._over = True
        left = seconds / max(done - self._begun[1], 1) * (self.total - done)
        if left > HOUR:
            ways = "".join(f"\n  - {way}" for way in self.ways)
            _LOGGER.warning(
                "%s will take about %s more (%d of %d done). Ways to make it shorter:%s",
                self.name,
                duration(left),
                done,
                self.total,
                ways,
            )


def duration(seconds: float) -> str:
    """Return a time as people say it: seconds, minutes, hours or days.

    >>> [duration(each) for each in (4.2, 100, 7000, 100_000, 900_000)]
    ['4.2 s', '1 min 40 s', '1 h 57 min', '1 d 4 h', '10 d 10 h']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"
