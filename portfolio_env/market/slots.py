"""Weights by name, as pandas users write them, in the order of an account: cash, assets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from portfolio_env.errors import ArgumentError
from portfolio_env.names import indices_of

CASH = "cash"


def is_labelled(weights: Any) -> bool:
    """Return whether weights are given by name: in a mapping, or a Series with an index of names.

    >>> is_labelled({"AAA": 1.0}), is_labelled(pd.Series([0.0, 1.0])), is_labelled([0.0, 1.0])
    (True, False, False)
    """
    if isinstance(weights, np.ndarray):  # nearly always, and Mapping is slow to ask
        return False
    if isinstance(weights, pd.Series):
        return not isinstance(weights.index, pd.RangeIndex)
    return isinstance(weights, Mapping)


def in_slots(weights: Any, assets: Sequence[str]) -> NDArray[np.float64]:
    """Return weights that are given by name, in the order of the slots.

    Args:
        weights: A mapping or a Series of names to weights. Assets without one get 0. Without
            "cash" the rest to 1 is cash.
        assets: The N names of the account's assets.

    Returns:
        (N + 1,) weights, cash first.

    Raises:
        ArgumentError: If a name is none of the assets or comes twice, "cash" is an asset too, or a
            weight is no number.

    >>> in_slots({"BBB": 0.75}, ["AAA", "BBB"])
    array([0.25, 0.  , 0.75])
    """
    given = weights if isinstance(weights, pd.Series) else pd.Series(dict(weights), dtype=object)
    names = [str(name) for name in given.index]
    if len(set(names)) < len(names):
        again = next(name for name in names if names.count(name) > 1)
        raise ArgumentError(f"{again!r} has more than one weight; give each asset one.")
    if CASH in names and CASH in assets:
        raise ArgumentError(
            f"{CASH!r} may be cash or the asset of this name; give weights by position, cash first."
        )
    slots = np.zeros(len(assets) + 1)
    try:
        slots[indices_of("slot", names, [CASH, *assets])] = given.to_numpy(np.float64)
    except (TypeError, ValueError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"weights by name must be numbers ({error}).") from error
    if CASH not in names:
        slots[0] = 1 - slots.sum()
    return slots
