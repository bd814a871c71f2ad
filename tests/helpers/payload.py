"""What a hostile file holds: an object that acts when it is unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> Any:
        return Path.touch, (self.trap,)
