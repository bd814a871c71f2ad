"""Source of rows, named in errors, and the decisions taken while reading them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from portfolio_env.errors import DataError


@dataclass(frozen=True)
class Origin:
    """Source of the rows of a table.

    Attributes:
        name: The file.
        unit: Name of a row.
        first: The number of the row at position 0.
        numbers: (rows,) the number of each row instead, where they are not consecutive.
        notes: Decisions that a reader may want to know; grows while the source is read.
        weighty: Notes that change what the data say.
    """

    name: str
    unit: str = "row"
    first: int = 1
    numbers: npt.NDArray[np.intp] | None = None
    notes: list[str] = field(default_factory=list)
    weighty: set[str] = field(default_factory=set)

    def note(self, text: str) -> None:
        """Keep what was decided, once."""
        if text not in self.notes:
            self.notes.append(text)

    def warn(self, text: str) -> None:
        """Keep what was decided and changes what the data say."""
        self.note(text)
        self.weighty.add(text)

    def fail(self, problem: str) -> NoReturn:
        """Refuse the whole source."""
        raise DataError(f"{self.name}: {problem}")

    def refuse(
        self,
        faulty: npt.NDArray[np.bool_],
        problem: str,
        fix: str,
        value: Callable[[int], object] | None = None,
    ) -> None:
        """Refuse the source if any row is faulty; name the first one, and its value if known."""
        positions = np.flatnonzero(faulty)
        if len(positions):
            at = int(positions[0])
            shown = "" if value is None else f" {str(value(at))!r}"
            more = f" (and {len(positions) - 1} more)" if len(positions) > 1 else ""
            number = self.number(at)
            raise DataError(f"{self.name}, {self.unit} {number}{more}: {problem}{shown}; {fix}")

    def number(self, at: int) -> int:
        """The number of the row at a position."""
        return at + self.first if self.numbers is None else int(self.numbers[at])
