"""Importance of the parameters of a search: how much of the scores' spread each explains."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ABSENT = "-"
"""Text in place of an option that a trial does not have."""
LEAST = 5
"""Fewest trials with a score of which importance is reported."""


@dataclass(frozen=True)
class Importance:
    """Importance of one parameter, taken alone.

    Attributes:
        name: The parameter.
        share: Share of the variance of the scores' ranks that it explains, in [0, 1]: of numbers
            the squared rank correlation of Spearman, of other values the correlation ratio.
        p_value: The p-value of the null hypothesis that it explains nothing, by the test of
            Spearman's correlation or of Kruskal & Wallis; NaN where every value was tried once.
    """

    name: str
    share: float
    p_value: float


def importances(options: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> list[Importance]:
    """Return the importance of every parameter that varied, the largest first.

    It is of parameters taken alone, so what only works together is not seen; and of the trials that
    were made, so a method that leaves a region early says little about it.

    Args:
        options: Settings of trials.
        scores: Their scores, finite.
    """
    from scipy.stats import kruskal, rankdata, spearmanr

    ranks = rankdata(scores)
    if len(scores) < LEAST or np.ptp(ranks) == 0:
        return []
    found = []
    for name in parameters_of(options):
        values = [each.get(name, ABSENT) for each in options]
        numbers = as_numbers(values)
        if numbers is not None and len(np.unique(numbers)) > 2:
            tested = spearmanr(numbers, ranks)
            found.append(Importance(name, float(tested.statistic**2), float(tested.pvalue)))
            continue
        groups: dict[str, list[float]] = {}
        for value, rank in zip(values, ranks, strict=True):
            groups.setdefault(text_of(value), []).append(float(rank))
        if len(groups) < 2:
            continue
        between = sum(len(g) * (np.mean(g) - ranks.mean()) ** 2 for g in groups.values())
        p_value = np.nan
        if len(groups) < len(ranks):
            p_value = float(kruskal(*groups.values()).pvalue)
        found.append(Importance(name, float(between / (ranks.var() * len(ranks))), p_value))
    return sorted(found, key=lambda each: -each.share)


def parameters_of(options: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of all parameters, in the order in which they first appear."""
    return list(dict.fromkeys(name for each in options for name in each))


def as_numbers(values: Sequence[Any]) -> NDArray[np.float64] | None:
    """Return values as numbers; None if one is none."""
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return None
    return np.asarray(values, np.float64)


def text_of(value: Any) -> str:
    """Return a value as it is shown.

    >>> text_of([64, 32]), text_of("mlp"), text_of(1e-4), text_of(None)
    ('64, 32', 'mlp', '0.0001', 'null')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(map(text_of, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value)
