"""Options of a search; a module of its own, since a command line reads them without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from portfolio_env.checks import check_fields, check_integer


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search beside its space."""

    method: Literal["tpe", "random", "grid", "halving"] = "tpe"
    """Method: tpe, settings that resemble the best so far (Optuna); random; grid, every setting;
    halving, random ones of which the best third goes on to more folds and seeds."""
    trials: int = 20
    """Settings to try, at most; those given on the command line are trial 0 beside them."""
    folds: int = 3
    """Folds of the inner walk forward, which cuts the validation range."""
    model: Literal["final", "best"] = "final"
    """Model that is scored: the one at the end of the training, or the best by validation."""
    batch: int = 4
    """Settings that tpe asks for at once; a search with another batch is another search."""

    def __post_init__(self) -> None:
        """Check every option."""
        check_fields(self)
        for name in ("trials", "folds", "batch"):
            check_integer(name, getattr(self, name), 1, 100_000)
