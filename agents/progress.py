"""Progress on the terminal: a bar for every stage, and a word on a training that takes hours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from statistics import median
from time import perf_counter

HOUR = 3600.0  # seconds; a training that takes longer says so
MEASURED = 10.0  # seconds that an estimate is made from, at least
UPDATES = 3  # updates that it is made from, at least
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

    It is the median time of a step over the first updates, times the steps that are left: an
    update with a compilation or a validation in it, or a moment when the machine is busy with
    something else, does not count for all that follow.

    Args:
        name: Name of the training.
        total: Steps to do, in any unit.
        ways: Ways to make it shorter.
    """

    def __init__(self, name: str, total: int, ways: Sequence[str]) -> None:
        self.name, self.total, self.ways = name, total, ways
        self._looks: list[tuple[float, int]] = []
        self._over = False

    def look(self, done: int) -> None:
        """Record the present step; between two calls are whole updates."""
        if self._over:
            return
        self._looks.append((perf_counter(), done))  # the first comes after warming up
        if len(self._looks) <= UPDATES or self._looks[-1][0] - self._looks[0][0] < MEASURED:
            return
        self._over = True
        paces = [
            (now - before) / max(steps - steps_before, 1)
            for (before, steps_before), (now, steps) in pairwise(self._looks)
        ]
        left = median(paces) * (self.total - done)
        if left > HOUR:
            ways = "".join(f"\n  - {way}" for way in self.ways)
            _LOGGER.warning(
                "%s will take about %s more (%s of %s done). Ways to make it shorter:%s",
                self.name,
                duration(left),
                f"{done:,}",
                f"{self.total:,}",
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
