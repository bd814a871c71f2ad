"""Contributions of every asset to an account, and the account without some of them.

All follows from the record of a backtest: the money in every asset right after a trade and at the
next bar. No decision is made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.evaluation.statistics.bootstrap import FloatArray

CASH, COSTS = "cash", "costs"
_LEAST = 1e-6  # weight of the rest, as a share of the account, from which on it has a return


@dataclass(frozen=True, eq=False)
class Contributions:
    """Simple returns of an account, by where they come from.

    Attributes:
        assets: N names.
        weights: (K, N) money in the assets right after trading, over the value before it.
        earned: (K, N) money gained on them to the next bar, over the same value.
        other: (K,) by name what is of no asset: cash or an outside price, and the costs. With
            ``earned`` it sums to the account's returns, exactly.
        cash_returns: (K,) what a unit of cash earned.
        periods_per_year: Periods per year.
    """

    assets: tuple[str, ...]
    weights: FloatArray
    earned: FloatArray
    other: dict[str, FloatArray]
    cash_returns: FloatArray
    periods_per_year: float

    @property
    def unassigned(self) -> FloatArray:
        """Return (K,) returns that are of no asset."""
        return np.sum(list(self.other.values()), axis=0)

    @property
    def returns(self) -> FloatArray:
        """Return (K,) simple returns of the account."""
        return self.earned.sum(axis=1) + self.unassigned

    def growth(self) -> pd.Series:
        """Return the yearly log growth by asset, cash and costs, which sums to the account's.

        A period's log return is shared in the proportions of its simple returns: every part is
        multiplied by ``log(1 + r) / r``, the logarithmic coefficient of Carino (1999), "Combining
        Attribution Effects Over Time", Journal of Performance Measurement 3 (4), so that there is
        no residual.
        """
        returns = self.returns
        moved = np.where(returns == 0, 1.0, returns)
        factor = np.where(returns == 0, 1.0, np.log1p(returns) / moved)
        factor *= self.periods_per_year / len(returns)
        shares = dict(zip(self.assets, factor @ self.earned, strict=True))
        return pd.Series(shares | {name: factor @ part for name, part in self.other.items()})

    def of(self, assets: Sequence[str]) -> Contributions:
        """Return the same of other assets, in their order; those it lacks were never held."""
        if tuple(assets) == self.assets:
            return self
        place = {name: number for number, name in enumerate(self.assets)}
        columns = [place.get(name, len(place)) for name in assets]
        weights, earned = (
            np.pad(each, ((0, 0), (0, 1)))[:, columns] for each in (self.weights, self.earned)
        )
        return replace(self, assets=tuple(assets), weights=weights, earned=earned)


def contributions(result: BacktestResult) -> Contributions:
    """Return what every asset, cash and the costs contributed to the returns of an account.

    An asset's gain is the money in it at the next bar less the money in it right after trading;
    costs are paid by the account as a whole. Where trades are filled at the next open, what was
    earned up to there counts as of the new holdings.

    Args:
        result: The backtest, of an account that was not ruined.
    """
    before, after = result.values[:-1], result.values[1:]
    money = result.held * (before - result.costs)[:, None]
    gains = (result.arrived * after[:, None] - money) / before[:, None]
    # The costs are what is left, so that the parts sum to the returns by more than rounding.
    other = {result.outside or CASH: gains[:, 0], COSTS: result.returns - gains.sum(axis=1)}
    return Contributions(
        tuple(result.assets),
        money[:, 1:] / before[:, None],
        gains[:, 1:],
        other,
        np.broadcast_to(np.asarray(result.cash_returns, np.float64), before.shape),
        result.periods_per_year,
    )


def kept_returns(
    account: Contributions, rest: Contributions, kept: NDArray[np.bool_]
) -> FloatArray:
    """Return the returns of an account that holds the rest of another in place of some assets.

    Its money in the assets that are left out earns, in every period, what the money of ``rest`` in
    the others does. Cash, costs and the other holdings are as they were.

    Args:
        account: The account.
        rest: Account whose other assets take their place, as a rule the reference; of the same
            assets. Where it holds none of them, cash does.
        kept: (N, B) the assets that are kept, for B cases.

    Returns:
        (K, B) simple returns.
    """
    share = kept.astype(np.float64)
    held = rest.weights @ share
    filled = np.abs(held) > _LEAST
    earned = np.where(filled, rest.earned @ share, account.cash_returns[:, None])
    earned /= np.where(filled, held, 1.0)
    own = account.earned @ share + account.unassigned[:, None]
    return own + (account.weights @ (1 - share)) * earned


def leads(own: FloatArray, reference: FloatArray, cash: FloatArray, year: float) -> pd.DataFrame:
    """Return the differences between accounts in yearly log growth and in the Sharpe ratio.

    Args:
        own: (K, B) simple returns.
        reference: (K, B) those of the reference.
        cash: (K,) returns of cash.
        year: Periods per year.

    Returns:
        (B,) columns ``growth`` and ``sharpe``; NaN for a ruined account or one without risk.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = year * (np.log1p(own) - np.log1p(reference)).mean(axis=0)
        ratios = [
            each.mean(axis=0) / each.std(axis=0, ddof=1)
            for each in (own - cash[:, None], reference - cash[:, None])
        ]
    sharpe = np.sqrt(year) * (ratios[0] - ratios[1])
    found = pd.DataFrame({"growth": growth, "sharpe": sharpe})
    return found.where(np.isfinite(found))
