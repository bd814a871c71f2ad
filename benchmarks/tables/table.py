"""A table of printed numbers beside those computed here, and how it is shown."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

Cells = Mapping[str, Mapping[str, float]]  # by row, then by column


@dataclass(frozen=True)
class Table:
    """Numbers that were printed and those computed here, by row and column.

    Attributes:
        title: Title with the paper.
        printed: Printed numbers; rows and columns that the paper lacks are left out.
        ours: Computed numbers. Rows and columns are shown in their order.
        digits: Digits after the point of a column; 4 where not said.
        notes: Reasons for differences, and what else a reader needs.
    """

    title: str
    printed: Cells
    ours: Cells
    digits: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the table in Markdown: two columns for each measure, printed and ours."""
        columns = list(dict.fromkeys(name for row in self.ours.values() for name in row))
        known = {name for row in self.printed.values() for name in row}
        head = [""]
        for name in columns:
            head += [f"{name}, printed", "ours"] if name in known else [name]
        lines = [head, ["---"] * len(head)]
        for row, cells in self.ours.items():
            line = [row]
            for name in columns:
                both = (self.printed.get(row, {}).get(name), cells.get(name))
                shown = both if name in known else both[1:]
                line += [self._number(name, value) for value in shown]
            lines.append(line)
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return "\n\n".join([f"## {self.title}", body, *(f"- {note}" for note in self.notes)])

    def _number(self, column: str, value: float | None) -> str:
        if value is None or math.isnan(value):
            return ""
        if abs(value) >= 1e6:
            return f"{value:.6g}"
        return f"{value:.{self.digits.get(column, 4)}f}"
