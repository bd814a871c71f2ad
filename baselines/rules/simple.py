"""Equal weight, buy and hold, cash, constant proportions, random weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.base import Baseline, Weights
from baselines.portfolio_model import PortfolioModel, portfolio
from baselines.rows import Every
from portfolio_env.checks import check_integer
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.market.panel import PricePanel
from portfolio_env.names import indices_of
from portfolio_env.simulation.constraints import PortfolioConstraints
from portfolio_env.simulation.targets import equal_weights


class EqualWeight(Baseline):
    """Equal weights on the assets that can be traded now, restored at every step.

    DeMiguel, Garlappi & Uppal (2009), "Optimal Versus Naive Diversification", RFS 22.
    """

    def weights(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Return target weights for a batch of lanes; all cash where nothing can be traded."""
        return equal_weights(np.asarray(observation["tradable"], np.bool_))


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
