"""Measures of an account's holdings and trading costs."""

import numpy as np
from numpy.typing import ArrayLike

from portfolio_env.metrics.arrays import FloatArray, as_path, as_series, ratio


def annual_turnover(turnovers: ArrayLike, periods_per_year: float) -> FloatArray:
    """Traded notional per year over wealth (buying everything and selling it again is 2)."""
    return as_series(turnovers).mean(axis=0) * periods_per_year


def cost_drag(costs: ArrayLike, values: ArrayLike, periods_per_year: float) -> FloatArray:
    """Yearly growth lost to trading costs: ``-mean log(1 - cost / value) * periods_per_year``.

    Args:
        costs: (K, ...) money paid for trading in each period.
        values: (K + 1, ...) account values; a cost is set against the value its period starts with.
        periods_per_year: Periods per year.
    """
    return growth_lost(cost_shares(costs, values), periods_per_year)


def cost_shares(costs: ArrayLike, values: ArrayLike) -> FloatArray:
    """(K, ...) fraction of the value a period starts with that its trading cost; NaN after ruin."""
    return ratio(as_series(costs), as_path(values)[:-1])


def growth_lost(shares: ArrayLike, periods_per_year: float) -> FloatArray:
    """Yearly log growth lost with a fraction (K, ...) of the value per period."""
    return 0.0 - np.log1p(-as_series(shares)).mean(axis=0) * periods_per_year


def effective_assets(weights: ArrayLike) -> FloatArray:
    """Mean effective number of risky assets: inverse Herfindahl index of their shares.

    Args:
        weights: (K, ..., N + 1) held weights, cash first. Shorts count by size, all cash as 0.

    >>> float(effective_assets([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]))
    1.0
    """
    return effective_numbers(weights).mean(axis=0)


def effective_numbers(weights: ArrayLike) -> FloatArray:
    """(K, ...) effective number of risky assets in each period, see ``effective_assets``."""
    size = np.abs(as_series(weights)[..., 1:])
    gross, squares = size.sum(axis=-1), np.square(size).sum(axis=-1)
    held = squares > 0
    return gross**2 / np.where(held, squares, 1)


def exposure(weights: ArrayLike) -> FloatArray:
    """Mean share of the account that is not in cash; above 1 with leverage, shorts count against.

    Args:
        weights: (K, ..., N + 1) held weights, cash first.

    >>> float(exposure([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]))
    0.25
    """
    return exposures(weights).mean(axis=0)


def exposures(weights: ArrayLike) -> FloatArray:
    """(K, ...) share not in cash in each period."""
    return 1 - as_series(weights)[..., 0]
