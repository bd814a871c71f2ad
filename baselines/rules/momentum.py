"""Momentum: of assets among each other, and of each asset by itself."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from baselines.base import Weights
from baselines.portfolio_model import PortfolioModel, levered, portfolio
from baselines.rows import Every
from baselines.rules.volatility import calm_shares
from baselines.windows import bars_of_months, holdable, last_known, why_not
from portfolio_env.checks import check_integer, check_number
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.market.panel import FloatArray, PricePanel
from portfolio_env.simulation.constraints import PortfolioConstraints


class Momentum(PortfolioModel):
    """Equal weights on the assets that rose most over the look-back.

    Jegadeesh & Titman (1993), "Returns to Buying Winners and Selling Losers", J. of Finance 48:
    the long side, on all that the account may borrow; with ``long_only=False`` both sides, as many
    losers sold short as winners bought, each for half of ``max_leverage``.

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        lookback: Bars over which the rise is measured.
        top: Share of the assets that are held, in (0, 1]; rounded, at least one.
    """

    source = 'Jegadeesh & Titman (1993), "Returns to Buying Winners and Selling Losers", J. Finance'

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = "week",
        lookback: int = 60,
        top: float = 1 / 3,
    ) -> None:
        super().__init__(market, constraints=constraints, every=every)
        self.lookback = check_integer("lookback", lookback)
        self.top = check_number("top", top, above=0, high=1)

    def _window(self, past: PricePanel) -> tuple[int, int]:
        """Return the bars back to where the rise begins and to where it ends."""
        return self.lookback, 0

    def target(self, past: PricePanel) -> Weights:
        """Return equal weights on the top share of assets with prices for the look-back."""
        bars, skipped = self._window(past)
        known = np.flatnonzero(holdable(past, bars + 1))
        self.leave_out(past, why_not(past, bars + 1))
        held, sold = np.zeros((2, len(past.assets)), np.bool_)
        if len(known):
            rise = rises(past, bars, skipped)[known]
            count = max(1, round(self.top * len(known)))
            order = known[np.argsort(-rise, kind="stable")]
            if self.constraints.long_only:
                held[order[:count]] = True
            else:
                count = min(count, len(known) // 2)
                held[order[:count]] = sold[order[len(known) - count :]] = True
        if self.constraints.long_only:
            return levered(portfolio(held), self._exposure)
        side = self.constraints.max_leverage / 2
        out = side * (portfolio(held) - portfolio(sold))  # of no assets: nothing but cash
        out[0] = 1.0
        return out


class CrossSectionalMomentum(Momentum):
    """Equal weights on the assets that rose most over a year without its last month.

    The winners of the months before the last one, as in the literature on stocks since Jegadeesh &
    Titman (1993): the last month, whose moves tend to reverse, is skipped. Months are counted in
    bars by the market's bars per year. Short positions as in ``Momentum``.

    Args:
        market: See ``Momentum``.
        months: Months back to where the rise begins.
        skip: Months back to where it ends, less than ``months``.
        every: See ``PortfolioModel``.
        constraints: See ``PortfolioModel``.
        top: See ``Momentum``.
    """

    def __init__(
        self,
        market: Market,
        *,
        months: float = 12,
        skip: float = 1,
        every: Every = "month",
        constraints: PortfolioConstraints | None = None,
        top: float = 1 / 3,
    ) -> None:
        super().__init__(market, constraints=constraints, every=every, top=top)
        self.months = check_number("months", months, above=0)
        self.skip = check_number("skip", skip, 0, below=self.months)

    def _window(self, past: PricePanel) -> tuple[int, int]:
        return bars_of_months(past, self.months), bars_of_months(past, self.skip, least=0)


class TimeSeriesMomentum(PortfolioModel):
    """Holds each asset as far as its own past returns are positive, and cash for the rest.

    Moskowitz, Ooi & Pedersen (2012), "Time Series Momentum", J. of Financial Economics 104: the
    sign of an asset's own past return, with positions in inverse proportion to volatility. With
    several speeds the position is the mean of the signs::

        w_i = E * mean_k sign(p_i,t-skip / p_i,t-months_k - 1) / vol_i / sum_j (1 / vol_j)

    long-only without its negative part. E is what the account may invest: 1 and what it may borrow,
    with ``long_only=False`` ``max_leverage``. Months are counted in bars by the market's bars per
    year.

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        months: Months back to where each return begins: one speed or several.
        skip: Months back to where all of them end, less than the shortest.
        lookback: Log returns of which the volatility is taken.
    """

    source = 'Moskowitz, Ooi & Pedersen (2012), "Time Series Momentum", J. Financial Economics 104'

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = "month",
        months: Sequence[float] = (3, 6, 12),
        skip: float = 1,
        lookback: int = 60,
    ) -> None:
        super().__init__(market, constraints=constraints, every=every)
        if not isinstance(months, list | tuple) or not months:
            raise ArgumentError(f"months={months!r} must be a list of numbers, e.g. [3, 6, 12].")
        self.months = tuple(check_number("months", each, above=0) for each in months)
        self.skip = check_number("skip", skip, 0, below=min(self.months))
        self.lookback = check_integer("lookback", lookback, 2)

    def target(self, past: PricePanel) -> Weights:
        """Return the weights of assets with prices for the slowest speed and the volatility."""
        speeds = [bars_of_months(past, each) for each in self.months]
        skipped = bars_of_months(past, self.skip, least=0)
        known = holdable(past, max(speeds) + 1)
        self.leave_out(past, why_not(past, max(speeds) + 1))
        shares, left_out = calm_shares(past, known, self.lookback)
        self.leave_out(past, left_out)
        out = np.zeros(len(shares))
        out[0] = 1.0
        if not shares[1:].any():
            return out
        scores = np.mean([_signs(past, bars, skipped) for bars in speeds], axis=0)
        if self.constraints.long_only:
            out[1:] = self._exposure * shares[1:] * np.maximum(scores, 0.0)
        else:
            out[1:] = self.constraints.max_leverage * shares[1:] * scores
        out[0] -= out[1:].sum()
        return out


def rises(past: PricePanel, bars: int, skipped: int) -> FloatArray:
    """Return price ratios (N,) from so many bars ago to ``skipped`` bars ago; NaN if unknown."""
    ratios: FloatArray = last_known(past, skipped + 1) / last_known(past, bars + 1)
    return ratios


def _signs(past: PricePanel, bars: int, skipped: int) -> NDArray[np.float64]:
    return np.nan_to_num(np.sign(rises(past, bars, skipped) - 1))
