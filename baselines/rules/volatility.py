"""Weights by the volatility of each asset."""

import numpy as np
from numpy.typing import NDArray

from baselines.base import Weights
from baselines.portfolio_model import PortfolioModel, levered, portfolio
from baselines.rows import Every
from baselines.windows import (
    STALE,
    bars_of_months,
    completed,
    holdable,
    named,
    own_log_returns,
    volatilities,
    why_not,
)
from portfolio_env.checks import check_integer, check_number
from portfolio_env.market import Market
from portfolio_env.market.panel import PricePanel
from portfolio_env.metrics.arrays import is_constant
from portfolio_env.simulation.constraints import PortfolioConstraints


class InverseVolatility(PortfolioModel):
    """Weights in proportion to 1 / volatility.

    Leote de Carvalho, Lu & Moulin (2012), "Demystifying Equity Risk-Based Strategies", J. of
    Portfolio Management 38: equal risk contributions where all correlations are the same. All that
    the account may borrow is invested too.

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        lookback: Log returns of which the standard deviation is taken.
    """

    shorts = False
    source = 'Leote de Carvalho, Lu & Moulin (2012), "Demystifying Equity Risk-Based Strategies"'

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = 1,
        lookback: int = 60,
    ) -> None:
        super().__init__(market, constraints=constraints, every=every)
        self.lookback = check_integer("lookback", lookback, 2)

    def target(self, past: PricePanel) -> Weights:
        """Return weights on assets with prices for the look-back that have moved in it."""
        shares, left_out = calm_shares(past, past.tradable[-1], self.lookback)
        self.leave_out(past, left_out)
        return levered(shares, self._exposure)


class LowVolatility(PortfolioModel):
    """Equal weights on the assets of lowest volatility.

    Blitz & van Vliet (2007), "The Volatility Effect", J. of Portfolio Management 34, hold the tenth
    of least volatility over three years; small universes need a larger share. All that the account
    may borrow is invested too.

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        months: Months over which volatility is measured, counted in bars by the market's bars per
            year.
        share: Share of the assets that are held, in (0, 1]; rounded, at least one.
    """

    shorts = False
    source = 'Blitz & van Vliet (2007), "The Volatility Effect", J. of Portfolio Management 34'

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = "month",
        months: float = 12,
        share: float = 1 / 3,
    ) -> None:
        super().__init__(market, constraints=constraints, every=every)
        self.months = check_number("months", months, above=0)
        self.share = check_number("share", share, above=0, high=1)

    def target(self, past: PricePanel) -> Weights:
        """Return equal weights on the calmest of the assets with prices for the months."""
        bars = bars_of_months(past, self.months, least=2)
        shares, left_out = calm_shares(past, past.tradable[-1], bars)
        self.leave_out(past, left_out)
        held, known = np.zeros(len(past.assets), np.bool_), int((shares[1:] > 0).sum())
        if known:
            order = np.argsort(-shares[1:], kind="stable")
            held[order[: max(1, round(self.share * known))]] = True
        return levered(portfolio(held), self._exposure)


def calm_shares(
    past: PricePanel, among: NDArray[np.bool_], lookback: int
) -> tuple[Weights, dict[str, str]]:
    """Return weights in proportion to 1 / volatility, and who is left out with the reason.

    Args:
        past: The bars up to the decision.
        among: (N,) assets that may be held.
        lookback: Log returns of which the standard deviation is taken.

    Returns:
        (N + 1,) weights that sum to 1, cash first: all cash where no asset has prices for the
        look-back that have moved in it; and reasons by the names of assets.
    """
    known = among & holdable(past, lookback + 1)
    reasons = why_not(past, lookback + 1)
    if not known.any():
        return portfolio(known), reasons
    returns = own_log_returns(past, lookback)
    # a price that never moved, or grew at one rate, is stale and not free of risk
    moved = ~is_constant(completed(returns[:, known]))
    reasons |= named(past, np.flatnonzero(known)[~moved], STALE)
    known[known] = moved
    return portfolio(known, 1 / volatilities(returns[:, known])), reasons
