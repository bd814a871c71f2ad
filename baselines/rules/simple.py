"""Simple rules: equal weight, buy and hold, cash, momentum, inverse volatility, random."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.base import Baseline, Every, PortfolioModel, Weights, levered, portfolio
from baselines.windows import (
    STALE,
    completed,
    holdable,
    last_known,
    named,
    own_log_returns,
    volatilities,
    why_not,
)
from portfolio_env.checks import check_integer, check_number
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.market.panel import PricePanel
from portfolio_env.metrics.arrays import is_constant
from portfolio_env.names import indices_of
from portfolio_env.simulation.constraints import PortfolioConstraints


class EqualWeight(Baseline):
    """Equal weights on the assets that can be traded now, restored at every step.

    DeMiguel, Garlappi & Uppal (2009), "Optimal Versus Naive Diversification", RFS 22.
    """

    def weights(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Return target weights for a batch of lanes; all cash where nothing can be traded."""
        tradable = np.asarray(observation["tradable"], np.float64)  # (B, N)
        count = tradable.sum(axis=1, keepdims=True)
        return np.hstack([count == 0, tradable / np.maximum(count, 1)])


class BuyAndHold(EqualWeight):
    """Buys equal weights of the tradable assets out of an all-cash account, then never trades."""

    def weights(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Return target weights for a batch of lanes: the drifted ones once anything is held."""
        drifted = np.asarray(observation["weights"], np.float64)  # (B, N + 1)
        invested = (drifted[:, 1:] != 0).any(axis=1, keepdims=True)
        return np.where(invested, drifted, super().weights(observation))


class Cash(Baseline):
    """Holds cash only."""

    def weights(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Return target weights for a batch of lanes: 1 in cash."""
        target = np.zeros(np.shape(observation["weights"]))
        target[:, 0] = 1
        return target


class ConstantRebalanced(PortfolioModel):
    """CRP: the same proportions restored on every rebalancing date.

    Cover (1991), "Universal Portfolios", Mathematical Finance 1. Where an asset cannot be traded,
    the others share what is its, long ones that of long ones and short ones that of short ones.

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        proportions: Weights by asset name, and of "cash", summing to 1; None is equal weights of
            all assets. Assets are negative only where the constraints allow short positions, cash
            only where they allow it to be.
    """

    source = 'Cover (1991), "Universal Portfolios", Mathematical Finance 1'

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = 1,
        proportions: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(market, constraints=constraints, every=every)
        self.proportions = None if proportions is None else dict(proportions)
        given = dict.fromkeys(market.assets, 1 / market.n_assets)
        if self.proportions is not None:
            given = self.proportions
        self._weights = np.zeros(market.n_assets + 1)
        self._weights[indices_of("slot", list(given), ["cash", *market.assets])] = list(
            given.values()
        )
        least = np.zeros(len(self._weights))
        least[0] = min(0.0, float(self.constraints.bounds(market.n_assets)["min_cash"][0]))
        least[1:] = 0.0 if self.constraints.long_only else -np.inf
        if not (self._weights >= least).all() or abs(self._weights.sum() - 1) > 1e-9:
            raise ArgumentError(
                f"proportions={proportions!r} sum to {self._weights.sum():g}; give weights of 0 or "
                "more that sum to 1, or constraints that allow short positions or leverage."
            )

    def target(self, past: PricePanel) -> Weights:
        """Return the proportions, restricted to what can be traded now."""
        own, tradable = self._weights[1:], past.tradable[-1]
        longs, shorts = np.maximum(own, 0), np.maximum(-own, 0)
        cash = 1 - longs.sum() if shorts.any() else self._weights[0]
        out = (1 - cash) * portfolio(tradable, longs[tradable])
        out[0] += cash
        if shorts.any():
            sold = shorts.sum() * portfolio(tradable, shorts[tradable])
            out[1:] -= sold[1:]
            out[0] += sold[1:].sum()
        return out


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

    def target(self, past: PricePanel) -> Weights:
        """Return equal weights on the top share of assets with prices for the look-back."""
        known = np.flatnonzero(holdable(past, self.lookback + 1))
        self.leave_out(past, why_not(past, self.lookback + 1))
        held, sold = np.zeros((2, len(past.assets)), np.bool_)
        if len(known):
            rise = past.close[-1, known] / last_known(past, self.lookback + 1)[known]
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
        known = holdable(past, self.lookback + 1)
        self.leave_out(past, why_not(past, self.lookback + 1))
        if not known.any():
            return portfolio(known)
        returns = own_log_returns(past, self.lookback)
        # a price that never moved, or grew at one rate, is stale and not free of risk
        moved = ~is_constant(completed(returns[:, known]))
        self.leave_out(past, named(past, np.flatnonzero(known)[~moved], STALE))
        known[known] = moved
        return levered(portfolio(known, 1 / volatilities(returns[:, known])), self._exposure)


class RandomWeights(PortfolioModel):
    """Weights drawn uniformly from the simplex of the tradable assets (Dirichlet(1, ..., 1)).

    The draw of a bar depends on the seed and the bar's row alone.

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        seed: Seed of the draws.
    """

    shorts = False

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(market, constraints=constraints, every=every)
        self.seed = check_integer("seed", seed, 0)

    def target(self, past: PricePanel) -> Weights:
        """Return exponential draws, normalised over what can be traded."""
        tradable = past.tradable[-1]
        draws = np.random.default_rng([self.seed, len(past.timestamps)]).exponential(
            size=len(tradable)
        )
        return portfolio(tradable, draws[tradable])
